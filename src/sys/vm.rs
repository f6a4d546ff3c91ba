//! Address space: reserve, commit, move, release.

use super::guard::Kernel;
use super::{errno, seal};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span, round_up};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use libc::{c_int, c_void};

fn map(at: Addr, bytes: usize, protection: c_int, flags: c_int) -> Option<Addr> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel chooses free address space; with it the callers below pass
    // spans of reservations that are theirs.
    let start = unsafe { libc::mmap(at.as_ptr::<c_void>(), bytes, protection, flags, -1, 0) };
    (start != libc::MAP_FAILED).then(|| Addr::new(start.expose_provenance()))
}

/// Reserves inaccessible address space that costs no memory, aligned to `align` bytes, a power of
/// two of a page or more.
pub fn reserve(bytes: usize, align: usize) -> Option<Span> {
    take_ground(bytes, align).or_else(|| reserve_apart(bytes, align))
}

/// [`reserve`] in a mapping of its own.
fn reserve_apart(bytes: usize, align: usize) -> Option<Span> {
    let padded = bytes.checked_add(align)?;
    let start = map(Addr::NULL, padded, libc::PROT_NONE, 0)?;
    let aligned = Addr::new(round_up(start.get(), align)?);
    let before = aligned.offset_from(start)?;
    unmap(Span::new(start, PageCount::holding(before)));
    let span = Span::new(aligned, PageCount::holding(bytes));
    let after = start.plus(padded).offset_from(span.end())?;
    unmap(Span::new(span.end(), PageCount::holding(after)));
    Some(span)
}

/// What [`lay_ground`] reserved: where it begins, and where what was taken of it begins.
static GROUND: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Reserves the address space of most that the start reserves and maps, in one call; it is taken from the end, as the
/// kernel would place one mapping after the other. What it lacks is reserved apart. Called by the start alone, where address
/// space is not limited, and ended by [`end_ground`].
pub fn lay_ground(bytes: usize) {
    if let Some(start) = map(Addr::NULL, bytes, libc::PROT_NONE, 0) {
        let [low, taken] = &GROUND;
        low.store(start.get(), Ordering::Relaxed);
        taken.store(start.get().saturating_add(bytes), Ordering::Relaxed);
    }
}

/// Gives back what was not taken of the ground.
pub fn end_ground() {
    let [low, taken] = &GROUND;
    let (start, end) = (low.swap(0, Ordering::Relaxed), taken.swap(0, Ordering::Relaxed));
    unmap(Span::new(Addr::new(start), PageCount::holding(end - start)));
}

/// A part of the ground, if there is one with so much left. A fault during the start may reserve something in between.
fn take_ground(bytes: usize, align: usize) -> Option<Span> {
    let [low, taken] = &GROUND;
    let (padded, low) = (round_up(bytes, PAGE_SIZE)?, low.load(Ordering::Relaxed));
    let below = |end: usize| Some(end.checked_sub(padded)? & !(align - 1)).filter(|start| *start > low);
    let end = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
    Some(Span::new(Addr::new(below(end)?), PageCount::holding(bytes)))
}

/// Maps zeroed memory for the allocator's own tables: readable, writable, no huge pages. It takes
/// memory page by page as it is touched.
///
/// Large ones are mapped as stacks are, which `RLIMIT_DATA` does not count: else a process that limits its
/// data after the start could open no page of the heap any more.
///
/// All tables are sealed where there is a key: see [`super::seal`].
pub fn tables(bytes: usize) -> Option<Addr> {
    take_room(bytes).or_else(|| tables_apart(bytes))
}

/// [`tables`] in a mapping of their own.
pub fn tables_apart(bytes: usize) -> Option<Addr> {
    let large = if bytes < LARGE_TABLE { None } else { map_as_stack(bytes, READ_WRITE) };
    let start = large.or_else(|| map(Addr::NULL, bytes, READ_WRITE, 0))?;
    let span = Span::new(start, PageCount::holding(bytes));
    seal::seal(span, READ_WRITE);
    no_huge_pages(span);
    name(span, TABLES_NAME);
    remember(span);
    Some(start)
}

/// Room for [`tables`] in one mapping: its first free byte, and its end.
static ROOM: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Maps room for tables, from which they are taken as long as it lasts: together they cost a fork one mapping and
/// one page of page tables. Called at start, before anything else is mapped, so that it lies beside the program's modules.
pub fn make_room(bytes: usize) {
    if let Some(start) = tables_apart(bytes) {
        let [next, end] = &ROOM;
        next.store(start.get(), Ordering::Relaxed);
        end.store(start.get().saturating_add(bytes), Ordering::Release);
    }
}

fn take_room(bytes: usize) -> Option<Addr> {
    let [next, end] = &ROOM;
    let (bytes, end) = (round_up(bytes, PAGE_SIZE)?, end.load(Ordering::Acquire));
    let within = |start: usize| start.checked_add(bytes).filter(|next| *next <= end);
    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok().map(Addr::new)
}

/// Takes the seal off a part of [`tables`]; `false` if the kernel refuses.
#[must_use]
pub fn unseal(span: Span) -> bool {
    seal::unseal(span, READ_WRITE)
}

/// [`tables`] that are far larger than what is ever touched of them, and left out of core files: these
/// would have their full length, and a program that a core file is piped to all of the zeros.
///
/// Their mapping begins with a guard page: a process that locks its memory (`mlockall`) would have all of it
/// filled, but the kernel gives a mapping up at the first page that it cannot fill.
pub fn sparse_tables(bytes: usize) -> Option<Addr> {
    let start = map_as_stack(bytes.checked_add(PAGE_SIZE)?, READ_WRITE)?;
    let all = Span::new(start, PageCount::holding(bytes.saturating_add(PAGE_SIZE)));
    let first = Span::new(start, PageCount::new(1));
    // In this order: a mapping that differs in a part would be two.
    seal::seal(all, READ_WRITE);
    no_huge_pages(all);
    advise(all, libc::MADV_DONTDUMP);
    name(all, TABLES_NAME);
    if !GUARDS.load(Ordering::Relaxed) || !advise(first, MADV_GUARD_INSTALL) {
        protect(first, libc::PROT_NONE);
    }
    remember(all);
    Some(start.plus(PAGE_SIZE))
}

/// Tables that are opened from the front by [`commit`], as far as they are used; core files have that part.
pub fn closed_tables(bytes: usize) -> Option<Addr> {
    let start = map_as_stack(bytes, libc::PROT_NONE)?;
    let span = Span::new(start, PageCount::holding(bytes));
    // Opening a part does not change its key.
    seal::seal(span, libc::PROT_NONE);
    no_huge_pages(span);
    remember(span);
    Some(start)
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// `MADV_GUARD_INSTALL` and `MADV_GUARD_REMOVE` of `linux/mman.h`.
pub(super) const MADV_GUARD_INSTALL: c_int = 102;
pub(super) const MADV_GUARD_REMOVE: c_int = 103;

/// Which advice has an effect: see [`super::guard`].
static GUARDS: AtomicBool = AtomicBool::new(true);
static RELEASES: AtomicBool = AtomicBool::new(true);
static POPULATES: AtomicBool = AtomicBool::new(true);

/// Goes by what was found out about the kernel from now on.
pub(super) fn rely_on(kernel: Kernel) {
    GUARDS.store(kernel.guards, Ordering::Relaxed);
    RELEASES.store(kernel.releases, Ordering::Relaxed);
    POPULATES.store(kernel.populates, Ordering::Relaxed);
}

/// What mappings of tables are called.
const TABLES_NAME: &CStr = c"fencepost tables";

/// Whether mappings are named: set at start, and taken back by the first refusal.
static NAMES: AtomicBool = AtomicBool::new(false);

/// Has mappings named that are made from now on.
pub fn name_mappings() {
    NAMES.store(true, Ordering::Relaxed);
}

/// Has no more mappings named: a program that runs may be killed for the call.
pub fn stop_naming() {
    NAMES.store(false, Ordering::Relaxed);
}

/// Names a mapping for `/proc/PID/maps` (Linux 5.17, if it was built to). Mappings of different names do not merge: only
/// what is never replaced by a new mapping in a part has one.
pub fn name(span: Span, name: &CStr) {
    /// `PR_SET_VMA` and `PR_SET_VMA_ANON_NAME` of `linux/prctl.h`.
    const SET_VMA: c_int = 0x5356_4d41;
    const ANON_NAME: libc::c_ulong = 0;
    if !NAMES.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the kernel copies the name, and changes nothing but what it shows of the caller's mapping.
    let status = unsafe {
        libc::syscall(libc::SYS_prctl, SET_VMA, ANON_NAME, span.start.get(), span.bytes(), name.as_ptr())
    };
    if status != 0 {
        stop_naming();
    }
}

/// Whether guard markers have an effect.
pub(super) fn has_guards() -> bool {
    GUARDS.load(Ordering::Relaxed)
}

/// Says that they have none any more.
pub(super) fn lose_guards() {
    GUARDS.store(false, Ordering::Relaxed);
}

/// Tables of this many bytes and more are not to be counted as data.
const LARGE_TABLE: usize = 1 << 20;

/// Maps what `RLIMIT_DATA` does not count. An inaccessible page below it keeps the kernel from letting it
/// grow as a stack would.
fn map_as_stack(bytes: usize, rights: c_int) -> Option<Addr> {
    let bytes = round_up(bytes, PAGE_SIZE)?;
    let all = reserve(bytes.checked_add(PAGE_SIZE)?, PAGE_SIZE)?;
    let start = map(all.start.plus(PAGE_SIZE), bytes, rights, libc::MAP_FIXED | libc::MAP_GROWSDOWN);
    if start.is_none() {
        unmap(all);
    }
    start
}

/// The spans that [`tables`] mapped first: start, and one past the end. The large ones are mapped at the
/// process's start and are among them, in parts if some was given back.
static TABLES: [[AtomicUsize; 2]; 512] = [const { [const { AtomicUsize::new(0) }; 2] }; 512];

fn remember(span: Span) {
    for [start, end] in &TABLES {
        let here = span.start.get();
        if start.load(Ordering::Relaxed) == 0
            && start.compare_exchange(0, here, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            end.store(span.end().get(), Ordering::Release);
            return;
        }
    }
}

/// The allocator's own tables, as address ranges; all of the large ones.
pub fn known_tables() -> impl Iterator<Item = core::ops::Range<usize>> {
    TABLES.iter().map(|[start, end]| start.load(Ordering::Acquire)..end.load(Ordering::Acquire))
}

/// Gives [`sparse_tables`] back.
pub fn unmap_sparse(start: Addr, bytes: usize) {
    unmap(Span::new(start.minus(PAGE_SIZE), PageCount::holding(bytes.saturating_add(PAGE_SIZE))));
}

/// Gives address space back.
pub fn unmap(span: Span) {
    if span.pages.get() != 0 {
        for [start, end] in &TABLES {
            if start.load(Ordering::Relaxed) == span.start.get() {
                end.store(0, Ordering::Relaxed);
                start.store(0, Ordering::Release);
            }
        }
        // SAFETY: callers pass spans of their own reservations that nothing refers to any more.
        unsafe { libc::munmap(span.start.as_ptr(), span.bytes()) };
    }
}

/// Gives a part of a reservation or of tables back, for good: from now on it may be anybody's. What the kernel
/// refuses, for want of mappings, stays as it is.
pub fn unreserve(part: Span) {
    let (from, until) = (part.start.get(), part.end().get());
    for [start, end] in &TABLES {
        let (first, last) = (start.load(Ordering::Acquire), end.load(Ordering::Acquire));
        if first != 0 && first <= from && until <= last {
            end.store(from, Ordering::Release);
            if until < last {
                remember(Span::new(part.end(), PageCount::holding(last - until)));
            }
        }
    }
    // SAFETY: the caller says that nothing of its own lies there and that nobody will look.
    unsafe { libc::munmap(part.start.as_ptr(), part.bytes()) };
}

/// Makes reserved pages readable and writable; `false` if the kernel refuses for want of memory,
/// mappings or permission.
#[must_use]
pub fn commit(span: Span) -> bool {
    protect(span, READ_WRITE)
}

/// Makes pages read-only for good.
pub fn seal(span: Span) -> bool {
    protect(span, libc::PROT_READ)
}

fn protect(span: Span, protection: c_int) -> bool {
    // SAFETY: callers pass spans of their own reservations; no Rust object lives in pages whose
    // access is being taken away.
    unsafe { libc::mprotect(span.start.as_ptr(), span.bytes(), protection) == 0 }
}

/// Replaces pages by inaccessible ones without memory or page tables; `false` if the kernel refuses. Where
/// the process has more address space than it may have (`RLIMIT_AS`, lowered), every new mapping is refused:
/// then the old one is emptied and closed.
#[must_use]
pub fn decommit(span: Span) -> bool {
    map(span.start, span.bytes(), libc::PROT_NONE, libc::MAP_FIXED).is_some()
        || discard(span) && protect(span, libc::PROT_NONE)
}

/// Frees the memory of open pages and keeps them open; they read as zero. Where the advice is refused or ignored
/// they are mapped anew, but for locked memory, which is to stay. `false` if they are as they were.
pub fn release(span: Span) -> bool {
    discard(span) || (!RELEASES.load(Ordering::Relaxed) || errno::get() != libc::EINVAL) && renew(span)
}

/// Replaces pages by open ones that read as zero; `false` if the kernel refuses.
#[must_use]
pub(super) fn renew(span: Span) -> bool {
    map(span.start, span.bytes(), READ_WRITE, libc::MAP_FIXED).is_some()
}

/// [`release`] of pages that must keep their mapping, tables: `false` if the kernel does not do it.
#[must_use]
pub fn discard(span: Span) -> bool {
    RELEASES.load(Ordering::Relaxed) && advise(span, libc::MADV_DONTNEED)
}

/// The number of `process_madvise`, the same on all architectures.
const SYS_PROCESS_MADVISE: libc::c_long = 440;
/// `PIDFD_SELF_THREAD_GROUP` of `linux/pidfd.h`: this process, without a descriptor (Linux 6.14).
const PIDFD_SELF: c_int = -10_001;
/// Spans that [`release_many`] takes at once.
const SPANS: usize = 64;

/// [`release`] of many spans in one system call. Kernels that have no such call do nothing.
#[inline(never)]
pub fn release_many(spans: impl Iterator<Item = Span>) {
    let nothing = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let (mut ranges, mut spans) = ([nothing; SPANS], spans);
    loop {
        let mut count = 0_usize;
        for (range, span) in ranges.iter_mut().zip(&mut spans) {
            *range = libc::iovec { iov_base: span.start.as_ptr::<c_void>(), iov_len: span.bytes() };
            count += 1;
        }
        if count == 0 {
            return;
        }
        // SAFETY: the caller's spans may be emptied, as for `advise`. The list is live, and has `count`
        // ranges that were written.
        unsafe {
            let list = ranges.as_ptr();
            libc::syscall(SYS_PROCESS_MADVISE, PIDFD_SELF, list, count, libc::MADV_DONTNEED, 0)
        };
    }
}

/// Lets a part of a table have huge pages where the system has them.
pub fn allow_huge_pages(span: Span) {
    advise(span, libc::MADV_HUGEPAGE);
}

/// Keeps huge pages out of a range.
pub fn no_huge_pages(span: Span) {
    advise(span, libc::MADV_NOHUGEPAGE);
}

/// Makes a range read as zero in a forked child; `false` on kernels without the advice.
pub fn wipe_on_fork(span: Span) -> bool {
    advise(span, libc::MADV_WIPEONFORK)
}

/// Whether all of a range may be read, whichever code mapped it. Before Linux 5.14 only whether it is mapped.
pub fn is_readable(span: Span) -> bool {
    let asked = POPULATES.load(Ordering::Relaxed);
    if asked && advise(span, libc::MADV_POPULATE_READ) {
        return true;
    }
    // SAFETY: an asynchronous request to write a mapping back changes nothing; for anonymous memory there
    // is nothing to write.
    (!asked || errno::get() == libc::EINVAL)
        && unsafe { libc::msync(span.start.as_ptr::<c_void>(), span.bytes(), libc::MS_ASYNC) } == 0
}

/// Has the pages of a range that have no memory read as zero from now on without a fault for each. Where the kernel does not
/// do it, each has one.
pub fn prepare_read(span: Span) {
    if POPULATES.load(Ordering::Relaxed) {
        advise(span, libc::MADV_POPULATE_READ);
    }
}

/// Takes a range out of locked memory.
pub fn unlock(span: Span) {
    // SAFETY: unlocking changes no contents.
    unsafe { libc::munlock(span.start.as_ptr::<c_void>(), span.bytes()) };
}

/// Locks the process's memory as `mlockall` does, but each page when it is first touched: all at once
/// would fill the allocator's sparse tables.
pub fn lock_all_on_fault(flags: c_int) -> c_int {
    lock_all(flags | libc::MCL_ONFAULT)
}

/// Locks the process's memory as `mlockall` does.
pub fn lock_all(flags: c_int) -> c_int {
    // SAFETY: locking changes no contents.
    let status = unsafe { libc::syscall(libc::SYS_mlockall, flags) };
    if status == 0 { 0 } else { -1 }
}

/// So often at most: a filter may answer that a call was interrupted whenever it is made.
const REPEATS: u32 = 1000;

/// `madvise`, repeated while it is interrupted.
pub(super) fn advise(span: Span, advice: c_int) -> bool {
    for _ in 0..REPEATS {
        // SAFETY: callers pass spans of their own reservations, and the advices used never take
        // memory away that a live Rust object occupies.
        let status = unsafe { libc::madvise(span.start.as_ptr(), span.bytes(), advice) };
        if status == 0 {
            return true;
        }
        if !matches!(errno::get(), libc::EINTR | libc::EAGAIN) {
            return false;
        }
    }
    false
}

/// Whether the kernel grants `bytes` bytes to a mapping of their own now, as the C library's allocator would ask
/// for them. Reservations do not count, and so nobody is asked when a part of one is opened: but in overcommit mode
/// 0 the kernel refuses what exceeds all memory and swap, and programs rely on it. Both calls are those that the C
/// library would make, and nothing is touched.
pub fn is_granted(bytes: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel chooses free address space.
    let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, READ_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the mapping that was just made, which nobody else knows of.
    unsafe { libc::munmap(start, bytes) };
    true
}

/// Whether memory may be moved.
static MAY_MOVE: AtomicBool = AtomicBool::new(true);

/// Says that the process has a limit that a move may run against.
pub fn forbid_moves() {
    MAY_MOVE.store(false, Ordering::Relaxed);
}

/// What became of memory that was to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relocation {
    /// It was.
    Done,
    /// The kernel cannot. The target is accessible and reads as zero.
    Refused,
    /// The kernel cannot, and the target is gone: nobody may use it.
    Lost,
}

/// Moves the memory of `from` to `to`, a committed span of the same length, without copying. The old
/// pages stay mapped and read as zero.
///
/// The kernel unmaps the target before it finds that a limit forbids the move, so after [`forbid_moves`] or
/// one failure none is tried any more.
#[must_use]
pub fn relocate(from: Span, to: Addr) -> Relocation {
    if !MAY_MOVE.load(Ordering::Relaxed) {
        return Relocation::Refused;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: both spans lie in the caller's reservations, and the caller owns the object in `from`.
    let moved = unsafe {
        libc::mremap(from.start.as_ptr(), from.bytes(), from.bytes(), flags, to.as_ptr::<c_void>())
    };
    if moved != libc::MAP_FAILED {
        return Relocation::Done;
    }
    forbid_moves();
    match map(to, from.bytes(), READ_WRITE, libc::MAP_FIXED) {
        Some(_) => Relocation::Refused,
        None => Relocation::Lost,
    }
}

/// Whether the page size of the kernel is the one the crate was built for.
pub fn page_size_matches() -> bool {
    // SAFETY: getauxval reads the process's own auxiliary vector.
    usize::try_from(unsafe { libc::getauxval(libc::AT_PAGESZ) }) == Ok(PAGE_SIZE)
}

/// Copies bytes at `address` into `buffer` without ever faulting; how many were readable.
pub fn peek(address: Addr, buffer: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address.as_ptr::<c_void>(), iov_len: buffer.len() };
    // SAFETY: the kernel writes into `buffer` only and reports unreadable source pages as an error.
    let count =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).unwrap_or(0)
}
