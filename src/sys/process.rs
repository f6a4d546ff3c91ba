//! The process: whether another process sees what this one changes in memory.
//!
//! A child of `vfork` has a process id, signal dispositions and masks of its own, but its parent's memory, in which the
//! parent's state is remembered. A child of a bare `fork` or `clone`, which runs no hooks, has another id as well, but
//! a copy of the memory. A word tells them apart. It lies in pages that the kernel wipes in copies, and holds the id of
//! the process that the memory belongs to:
//!
//! | the id | the word | the running process |
//! |---|---|---|
//! | the heap's | any | the heap's process |
//! | another | the same | a child with a copy |
//! | another | 0 | a child with a copy, which writes its id |
//! | another | another | a child that shares the memory |
//!
//! Where the kernel cannot wipe pages, every child without hooks is treated as one that shares. Its signal settings are
//! then left to the kernel.
//!
//! # Runtimes that call the kernel themselves
//!
//! Go sets alternate stacks and masks by system calls of its own, and its handlers by the C library where that is loaded.
//! What the program set and what the kernel has may then not differ: it asks the kernel, and compares. From the moment that
//! such a runtime is known:
//!
//! | what | before | after |
//! |---|---|---|
//! | a thread's alternate stack | ours, the program's beside it | what the program sets; one that has ours keeps it until it sets another. A fault begins there and goes on on a stack that is lent |
//! | a handler for the alternate stack | on the program's | where the kernel began it, on ours as well |
//! | SIGSEGV and SIGBUS, when the program blocks them | blocked in name | blocked |
//! | handlers of other signals | relayed if they are for the alternate stack | the kernel's |
//! | handlers of SIGSEGV and SIGBUS | ours in the kernel, the program's beside it | the same |
//!
//! It is never taken back: a runtime stays when its library is closed.
//!
//! # The end of the process
//!
//! [`die`] ends a process that cannot go on; [`exit_anew`] and [`exit_now`] end one with a status.

use super::seal::Unsealed;
use super::{file, thread};
use crate::text::Text;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// The word; null until [`keep_word`].
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());

/// Says where the word is: zero in every copy of the memory, and never unmapped.
pub fn keep_word(word: &'static AtomicU32) {
    word.store(thread::pid(), Ordering::Relaxed);
    WORD.store(core::ptr::from_ref(word).cast_mut(), Ordering::Release);
}

fn word() -> Option<&'static AtomicU32> {
    // SAFETY: null, or what `keep_word` was given.
    unsafe { WORD.load(Ordering::Acquire).as_ref() }
}

/// Says that the memory is the calling process's.
pub(super) fn mark() {
    let _unsealed = Unsealed::begin();
    if let Some(word) = word() {
        word.store(thread::pid(), Ordering::Relaxed);
    }
}

/// Whether the heap leaves the process to the C library: then nothing is remembered for it either.
static ASIDE: AtomicBool = AtomicBool::new(false);

/// Says that what the program sets is the kernel's alone to keep. Called once, at start.
pub fn stand_aside() {
    ASIDE.store(true, Ordering::Relaxed);
}

/// Whether the heap stands aside.
#[inline]
pub fn stands_aside() -> bool {
    ASIDE.load(Ordering::Relaxed)
}

/// Whether a runtime of the program's calls the kernel itself; see the head of this module.
static CALLS_KERNEL: AtomicBool = AtomicBool::new(false);

/// Says that a runtime of the program's calls the kernel itself: before it asks for anything that differs.
pub fn note_kernel_calls() {
    CALLS_KERNEL.store(true, Ordering::Relaxed);
}

/// Whether alternate stacks and masks are the kernel's alone to keep.
#[inline]
pub fn calls_kernel() -> bool {
    CALLS_KERNEL.load(Ordering::Relaxed)
}

/// Whether the memory is another process's, which the calling one only borrows, or what it sets is not to be remembered
/// for another reason.
pub fn borrows_memory() -> bool {
    if stands_aside() {
        return true;
    }
    if !thread::has_process() || thread::is_own_process() {
        return false;
    }
    // The word is in a table.
    let _unsealed = Unsealed::begin();
    let Some(word) = word() else { return true };
    let own = thread::pid();
    match word.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => false,
        Err(owner) => owner != own,
    }
}

/// Says on stderr why the allocator itself cannot go on, then aborts. For states that no program
/// can cause: an impossible errno, metadata that contradicts itself outside of a report.
#[cold]
pub fn die(why: &str) -> ! {
    let mut text = Text::<256>::new();
    let _ = writeln!(text, "fencepost: internal error: {why} (errno {})", super::errno::get());
    file::write_stderr(text.as_bytes());
    super::signal::abort_process()
}

/// Ends the process with `status` from within its orderly end: the C library goes on with what is left to
/// do, such as writing out its buffers, and uses this status.
pub fn exit_anew(status: i32) -> ! {
    // SAFETY: glibc lets a handler that `exit` runs call it again.
    unsafe { libc::exit(status) }
}

/// Ends the process with `status`, running no handlers.
pub fn exit_now(status: i32) -> ! {
    loop {
        // SAFETY: ends the process. Not by `_exit`, which the front end replaces.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
