//! Guard regions: pages whose access faults, inside reserved address space.
//!
//! Two backends have one contract. `Madvise` puts a marker into the page table (`MADV_GUARD_INSTALL`, Linux 6.13), and
//! one mapping holds any number of guards. `Mprotect` makes `PROT_NONE` mappings. It works on any kernel, but each
//! island of accessible pages costs two mappings of `vm.max_map_count`.
//!
//! The contract: after [`Backend::close`] the pages hold no memory and any access faults. After [`Backend::open`] they
//! read as zero and can be written. The kernel may refuse either one, and then nothing has changed that the caller must
//! undo.
//!
//! [`examine`] finds out once which backend a process has, by the effect of the advice and not by the kernel's answer.
//! Markers may be refused later, or lose their effect ([`mend`]). Then pages are closed by an inaccessible mapping and
//! opened by a new one, which removes the markers that are still there.
//!
//! # What the kernel does
//!
//! A seccomp filter may answer `madvise` with success and do nothing, and so do emulators that ignore advice which they
//! do not know. So each advice that matters is tried at start, on a page of the library's own data, which takes no
//! mapping:
//!
//! | step | what must follow | otherwise |
//! |---|---|---|
//! | a word is written, `MADV_DONTNEED` | it reads as zero | memory is released by a new mapping ([`vm::release`]) |
//! | `MADV_GUARD_INSTALL` | the kernel itself cannot read the page | guards are inaccessible mappings |
//! | `MADV_POPULATE_READ` of the guard | it fails | [`vm::is_readable`] asks another way |
//! | `MADV_GUARD_REMOVE` | the kernel can read the page | guards are inaccessible mappings |
//!
//! Nothing here faults: the page is read by system calls, which answer `EFAULT`. That call may be refused or pretended
//! as well. It is trusted only if it answers `EFAULT` for an address that no program has.
//!
//! A filter may come later, when a running program gives up privileges that it does not need. The first page that could
//! not be opened shows it: an access faults that must not, and the handler examines the kernel again ([`mend`]). One
//! thread at a time does so, with signals blocked, and waits for nothing. Other threads that fault meanwhile wait for
//! it, and find their page open. A forked child, which may lack that thread, frees the turn.

use super::futex::Turn;
use super::vm::{self, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, advise};
use super::{errno, thread};
use crate::addr::{Addr, PAGE_SHIFT, PAGE_SIZE, PageCount, Span};
use crate::options::Guards;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How guard pages are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Markers in the page table.
    Madvise,
    /// Inaccessible mappings.
    Mprotect,
}

impl Backend {
    /// The backend for `choice`: what was forced if the kernel has it, else what the kernel has.
    pub fn choose(choice: Guards, kernel: Kernel) -> Self {
        match choice {
            Guards::Mprotect => Self::Mprotect,
            Guards::Auto | Guards::Madvise if kernel.guards => Self::Madvise,
            Guards::Auto | Guards::Madvise => Self::Mprotect,
        }
    }

    /// The name as options spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Madvise => "madvise",
            Self::Mprotect => "mprotect",
        }
    }

    /// Whether each island of accessible pages costs mappings now.
    pub fn costs_mappings(self) -> bool {
        self == Self::Mprotect || !vm::has_guards()
    }

    /// Readies a range of reserved pages so that all of it is closed and parts can be opened.
    #[must_use]
    pub fn prepare(self, span: Span) -> bool {
        match self {
            Self::Mprotect => true,
            Self::Madvise if !vm::has_guards() => true,
            Self::Madvise => vm::commit(span) && (install(span) || without_guards(|| vm::decommit(span))),
        }
    }

    /// Opens pages of a prepared range.
    #[must_use]
    pub fn open(self, span: Span) -> bool {
        match self {
            Self::Madvise if !vm::has_guards() => vm::renew(span),
            Self::Madvise => advise(span, MADV_GUARD_REMOVE) || without_guards(|| vm::renew(span)),
            Self::Mprotect => vm::commit(span),
        }
    }

    /// Frees the memory of many spans in one call if the kernel can, so that other processors are
    /// interrupted once; a step before closing each, and no more than that.
    pub fn empty(self, spans: impl Iterator<Item = Span>) {
        if self == Self::Madvise {
            vm::release_many(spans);
        }
    }

    /// Closes pages and frees their memory in one system call.
    #[must_use]
    pub fn close(self, span: Span) -> bool {
        match self {
            Self::Madvise if !vm::has_guards() => vm::decommit(span),
            Self::Madvise => install(span) || without_guards(|| vm::decommit(span)),
            Self::Mprotect => vm::decommit(span),
        }
    }
}

/// What is done in a marker's stead, from now on for all: one that is refused is refused by a filter that came later, and
/// pages that were closed in another way are not opened by advice.
#[cold]
fn without_guards(done: impl FnOnce() -> bool) -> bool {
    vm::lose_guards();
    done()
}

/// Reservations are whole units of so many bytes, and so [`install`] may unlock one.
const UNIT: usize = 2 << 20;

/// Installs markers. The kernel refuses them in locked memory (`mlockall`, called past the front end): there
/// the memory around is taken out of it first.
fn install(span: Span) -> bool {
    if advise(span, MADV_GUARD_INSTALL) {
        return true;
    }
    if errno::get() != libc::EINVAL {
        return false;
    }
    let start = span.start.align_floor(UNIT);
    let end = span.end().plus(UNIT - 1).align_floor(UNIT);
    vm::unlock(Span::new(start, PageCount::holding(end.offset_from(start).unwrap_or(0))));
    advise(span, MADV_GUARD_INSTALL)
}

/// What the kernel can be relied on for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Guard markers are installed and removed.
    pub guards: bool,
    /// `MADV_DONTNEED` empties pages.
    pub releases: bool,
    /// `MADV_POPULATE_READ` fails for what cannot be read.
    pub populates: bool,
    /// Some advice was answered with success and had no effect.
    pub pretends: bool,
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE]>);

// SAFETY: `examine` alone reaches the page, once, while the start's gate keeps other threads out.
unsafe impl Sync for Page {}

/// The page that is tried on. Zero, so that it lies in memory without a file behind it.
static PAGE: Page = Page(UnsafeCell::new([0; PAGE_SIZE]));

fn page() -> Span {
    Span::new(Addr::of(PAGE.0.get().cast_const()), PageCount::new(1))
}

/// Finds out what the kernel does, and has [`vm`] go by it. Called once, at start; where no markers are wanted it
/// is not looked at whether they can be removed.
pub fn examine(wants_guards: bool) -> Kernel {
    let kernel = examine_on(page(), wants_guards);
    vm::rely_on(kernel);
    kernel
}

/// In a child that was forked in the middle of it: replaces the page, which may be closed. `false` if it may stay so.
pub fn begin_anew() -> bool {
    vm::decommit(page()) && vm::commit(page())
}

/// One thread at a time mends.
static MENDING: Turn = Turn::NEW;

/// Whether an access that must not fault may be made again, since the page of `address` had a guard marker that is not
/// removed any more: then it was replaced, and guards are inaccessible mappings from now on. `false` where advice has its
/// effect.
pub fn mend(address: Addr) -> bool {
    let _turn = MENDING.take();
    if vm::has_guards() {
        let Some(trial) = vm::reserve(PAGE_SIZE, PAGE_SIZE) else { return false };
        let kernel = vm::commit(trial).then(|| examine_on(trial, true));
        vm::unmap(trial);
        match kernel {
            Some(kernel) if kernel.pretends => vm::rely_on(Kernel { guards: false, ..kernel }),
            _ => return false,
        }
    }
    let faulted = Span::new(address.page_floor(), PageCount::new(1));
    // Another thread's fault may have had it replaced, and there are bytes in it by now.
    let may_be_open = is_readable_by_a_call(faulted).unwrap_or_else(|| !faulted_again(faulted));
    may_be_open || {
        RENEWALS.fetch_add(1, Ordering::Relaxed);
        vm::renew(faulted)
    }
}

/// Pages that were replaced.
static RENEWALS: AtomicUsize = AtomicUsize::new(0);
/// By thread: which one faulted last, at which page, and what [`RENEWALS`] was.
static NOTES: [[AtomicUsize; 3]; 64] = [const { [const { AtomicUsize::new(0) }; 3] }; 64];

/// Whether the calling thread faulted at this page before, and nobody has replaced a page since it noted that: then this one
/// is closed. Else it is noted, and the access made again tells. By the one whose turn it is.
fn faulted_again(page: Span) -> bool {
    let now = [thread::pointer(), page.start.get(), RENEWALS.load(Ordering::Relaxed)];
    // Threads lie some pages apart. Where two have one note they are longer at it.
    let Some(note) = NOTES.get((now[0] >> PAGE_SHIFT) % NOTES.len()) else { return true };
    let mut again = true;
    for (word, now) in note.iter().zip(now) {
        again &= word.swap(now, Ordering::Relaxed) == now;
    }
    again
}

/// In a forked child: another thread's turn is over.
pub fn in_child() {
    MENDING.in_child();
}

fn examine_on(page: Span, wants_guards: bool) -> Kernel {
    let releases = releases(page);
    let mut kernel = Kernel {
        guards: false,
        releases: releases == Some(true),
        populates: true,
        pretends: releases == Some(false),
    };
    if !advise(page, MADV_GUARD_INSTALL) {
        return kernel;
    }
    let closed = match populate(page) {
        Some(readable) if !readable => true,
        answer => {
            // It was answered that a guard can be read, or not answered at all.
            let closed = is_readable_by_a_call(page) == Some(false);
            kernel.populates = answer.is_none() || !closed;
            kernel.pretends |= answer.is_some() && closed;
            closed
        }
    };
    kernel.pretends |= !closed;
    // A filter that ignores one advice ignores others.
    kernel.populates &= closed;
    if !wants_guards {
        kernel.guards = closed;
        return kernel;
    }
    if advise(page, MADV_GUARD_REMOVE) {
        let open = match populate(page).filter(|_| kernel.populates) {
            Some(readable) => readable,
            None => is_readable_by_a_call(page) == Some(true),
        };
        kernel.guards = closed && open;
        kernel.pretends |= !open;
    }
    kernel
}

/// Whether `MADV_DONTNEED` empties the page; `None` if it is refused. The page is zero afterwards.
fn releases(page: Span) -> Option<bool> {
    let word = page.start.as_ptr::<u64>();
    // SAFETY: the page is this module's, open and aligned; volatile, since the kernel changes it between.
    unsafe {
        word.write_volatile(1);
        let answered = advise(page, libc::MADV_DONTNEED);
        let emptied = word.read_volatile() == 0;
        word.write_volatile(0);
        answered.then_some(emptied)
    }
}

/// What `MADV_POPULATE_READ` says of the page; `None` if the kernel has no such advice or a filter refuses it.
fn populate(page: Span) -> Option<bool> {
    if advise(page, libc::MADV_POPULATE_READ) {
        return Some(true);
    }
    (errno::get() == libc::EFAULT).then_some(false)
}

/// Whether the kernel reads the page when it is told to take signals from it; there are none in it, so that none is
/// blocked. `None` if the call is not made: it does not tell an address that no program has.
fn is_readable_by_a_call(page: Span) -> Option<bool> {
    /// The last aligned address, which is no program's.
    const NOWHERE: usize = !7;
    let is_made = !takes_signals_from(Addr::new(NOWHERE)) && errno::get() == libc::EFAULT;
    is_made.then(|| takes_signals_from(page.start))
}

fn takes_signals_from(set: Addr) -> bool {
    const SET_BYTES: usize = 8;
    let nothing = core::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads a set of signals from there and answers an error if it cannot.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, set.as_ptr::<u64>(), nothing, SET_BYTES) == 0
    }
}

/// Calls `held` in the turn of [`mend`].
#[cfg(test)]
pub fn while_mending(held: &mut dyn FnMut()) {
    let _turn = MENDING.take();
    held();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a page is so, whatever the kernel is.
    #[test]
    fn a_page_is_told_open_from_closed() {
        let page = vm::reserve(PAGE_SIZE, PAGE_SIZE).expect("address space");
        assert_eq!(is_readable_by_a_call(page), Some(false));
        assert_ne!(populate(page), Some(true));
        assert!(vm::commit(page) && is_readable_by_a_call(page) == Some(true));
        let kernel = examine_on(page, true);
        assert!(!kernel.pretends && kernel.releases && kernel.populates, "{kernel:?}");
        assert_eq!(is_readable_by_a_call(page), Some(true), "it is left open");
        let without = examine_on(page, false);
        assert_eq!(without.guards, kernel.guards);
        vm::unmap(page);
    }
}
