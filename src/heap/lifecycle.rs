//! Around `fork`: no lock is taken.
//!
//! The C library runs these hooks before it takes the locks of its own that a fork needs: the list of streams, the
//! resolver's, the loader's. Other threads allocate while they hold one of those. A thread that held a lock of the heap
//! across a fork could therefore wait in a circle. So the other threads go on, and the child repairs what they were in
//! the middle of.
//!
//! The child finds another thread's writes up to some instruction. The kernel copies the address space under the lock
//! that page faults and memory calls need, so no thread writes to a page that was copied already and then to one that
//! is still to be copied. Each structure says in its module what its repair relies on:
//!
//! | structure | a missing thread may have left | the child |
//! |---|---|---|
//! | a class's store | list and counts half changed | rebuilds them from the bitmaps, which change a word at a time |
//! | a shard | anything | starts it in another chunk, without its history |
//! | the order of chunks | chunks that are being opened or decommitted | never uses those chunks |
//! | a shard's batch, the deferred slots | a number without its entry | forgets them |
//! | the detached objects | an entry twice or half written | keeps those that a live record confirms |
//! | a record | the claim of a sweep | ends the claim, and the free that was left to the sweep |
//! | a slot's state | [`BUSY`](crate::slab::SlotState::BUSY), or a claim | never uses a busy slot again, and ends the claim |
//! | poisoned bytes | some of a range, and pages that are still open | leaves them: the object's thread is missing |
//! | the start of the heap | anything | starts it anew ([`start`]) |
//! | the shared state, the registry | anything | makes a new one; forgets the unused states |
//! | a report | the buffers in use | ends it |
//!
//! A handler that forks may have interrupted its own thread while that held a lock. The thread goes on in the child,
//! and the lock stays its own. Between the fork and the hook a signal handler in the child may meet a lock of a missing
//! thread. It takes its fallback, as every thread does in a process that is not the heap's.
//!
//! # Checks and the exit
//!
//! Checks on request and at exit, the lines that a process writes at its end, and its exit status.

use super::start::{self, is_started, totals};
use super::{Heap, heap, leaks, limit, shared, thread};
use crate::meta::poison;
use crate::options::OnError;
use crate::report::fatal;
use crate::request::Site;
use crate::slab::{self, central, sweep};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;
use crate::sys::{action, file, guard, handover, process, thread as sys};
use crate::text::Text;
use crate::{page, rng, sync};
use core::fmt::Write;

/// Installs the hooks, once: with the first allocation, before any other library does, or when the program is loaded
/// if that comes first. So they are there before threads are, and of all hooks ours run last before the fork and
/// first after it.
pub fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // The C library's function may allocate.
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        sys::on_fork(prepare, child);
    }
}

/// When the program is loaded.
extern "C" fn on_load() {
    install();
}

#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static ON_LOAD: extern "C" fn() = on_load;

unsafe extern "C" fn prepare() {
    if let Some(number) = rng::count_fork() {
        let _unsealed = Unsealed::begin();
        thread::note_fork(number);
    }
}

unsafe extern "C" fn child() {
    let _unsealed = Unsealed::begin();
    sys::forget_id();
    // SAFETY: the one thread of a new process, here and below.
    unsafe {
        // Locks that a start takes as well.
        thread::inherit();
        fatal::in_child();
    }
    action::in_child();
    handover::in_child();
    guard::in_child();
    if !start::in_child() {
        return;
    }
    // SAFETY: this is the one thread of a new process, so nobody else holds these locks or what they guard.
    unsafe {
        shared::inherit();
        leaks::inherit();
        sweep::inherit();
        poison::inherit();
        central::inherit_all();
        heap().page.inherit_all();
    }
    sync::in_child();
    // SAFETY: this is the one thread of a new process, and no cut of its own is under way.
    unsafe { limit::in_child() };
    rng::begin_child(thread::fork_number());
    thread::in_child();
    start::own_process();
}

/// Releases what the calling thread has, which ends and does not come back to what it was in the middle of.
///
/// # Safety
/// As [`Lock::abandon`](crate::sync::Lock::abandon).
pub unsafe fn abandon_all() {
    // SAFETY: as the caller says.
    unsafe {
        sweep::abandon();
        central::abandon_all();
        heap().page.abandon_all();
    }
}

/// Checks every live object's canaries and all freed slab memory; reports what is wrong. The number of
/// errors found.
pub fn check() -> usize {
    if !is_started() {
        return 0;
    }
    let _unsealed = Unsealed::begin();
    let heap = heap();
    let mut errors = 0;
    let mut report = |fault| {
        errors += 1;
        heap.misuse(fault, Site::default());
    };
    let mut slots = slab::sweep::Cursor::START;
    while let Some(fault) = thread::with(|_| slab::sweep::next_wrong(&mut slots)).flatten() {
        report(fault);
    }
    let mut objects = page::Cursor::START;
    while let Some(fault) = thread::with(|_| heap.page.next_wrong(&mut objects)).flatten() {
        report(fault);
    }
    errors
}

/// Lists what is still allocated and what of it is lost. The number of lost objects that no suppression
/// covers.
#[inline(never)]
pub fn check_leaks() -> u64 {
    if !is_started() {
        return 0;
    }
    let registers = sys::kept_registers();
    // What lies below this frame's end is ours.
    let (_, _, sp) = sys::frame();
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    leaks::report(sp, &registers).unwrap_or(0)
}

/// Whether the final check was made.
static FINISHED: AtomicBool = AtomicBool::new(false);

/// What happens when the process ends in order: the final check, the leaks, the statistics.
pub fn on_exit() {
    if !is_started() {
        return;
    }
    FINISHED.store(true, Ordering::Relaxed);
    if let Some(status) = heap().finish() {
        process::exit_anew(status);
    }
}

/// The end of a program that has the heap as its allocator and went on after errors, whether it calls
/// [`crate::Fencepost::finish`] or not: it says what was found and has the status for it.
extern "C" fn at_end() {
    if !is_started() || !start::is_own_process() || heap().options.on_error != OnError::Continue {
        return;
    }
    if !FINISHED.load(Ordering::Relaxed) {
        on_exit();
        return;
    }
    let status = {
        let _unsealed = Unsealed::begin();
        heap().final_status(false)
    };
    if let Some(status) = status {
        process::exit_anew(status);
    }
}

// SAFETY: entries of this section are functions of the C ABI without arguments, which the C library calls when the program
// ends or the object is closed.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".fini_array"))]
static AT_END: extern "C" fn() = at_end;

/// What happens when the process ends at once (`_exit`) with `status`: the summary of errors. The status it
/// is to end with.
pub fn on_quick_exit(status: i32) -> i32 {
    if !is_started() || !start::is_own_process() {
        return status;
    }
    let _unsealed = Unsealed::begin();
    // In a handler, perhaps in the middle of a report.
    heap().final_status(true).unwrap_or(status)
}

impl Heap {
    /// The final check, the leaks, the statistics; the exit status if that is to replace the program's.
    fn finish(&self) -> Option<i32> {
        let _unsealed = Unsealed::begin();
        if self.options.check_at_exit {
            check();
        }
        if self.options.stats {
            let mut line = Text::<512>::new();
            let _ = writeln!(
                line,
                "fencepost: {}; {} pages live in shards; guards by {}; {} reports; seed {}",
                totals(),
                self.page.live_pages(),
                slab::layout::layout().backend.name(),
                fatal::written(),
                self.seed,
            );
            file::write_stderr(line.as_bytes());
        }
        let lost = if self.options.leaks == 0 { 0 } else { check_leaks() };
        self.final_status(false).or_else(|| leaks::exit_status(lost))
    }

    /// Sums up what was found, `now` or not at all if somebody is reporting; the exit status if that is to replace the program's.
    fn final_status(&self, now: bool) -> Option<i32> {
        let context = super::reports()?;
        let errors = fatal::summarise(context, now);
        let replaces = errors && self.options.on_error == OnError::Continue && self.options.exitcode != 0;
        replaces.then(|| fatal::exit_status(context))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/lifecycle.rs"]
mod tests;
