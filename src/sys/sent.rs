//! Fault signals that somebody sent.
//!
//! SIGSEGV and SIGBUS are blocked in name only ([`super::action::change_mask`]), so that a fault reaches the handler.
//! One that was sent (`kill`, `sigqueue`, a timer) has to wait all the same until the program unblocks it or takes it
//! (`sigwait`, `signalfd`). So the handler blocks it where it came, for the kernel as well, and queues it once more:
//!
//! | step | the signal |
//! |---|---|
//! | it comes to a thread that takes it for blocked | is with the handler |
//! | blocked in the handler, and in the mask that the handler returns to | the same |
//! | queued again, to the thread or the process as before | is pending, or with a thread that does not block it |
//! | the program changes its mask | comes again: to stay, if it is still blocked in name |
//!
//! A fault of the thread meets the real block meanwhile, and ends the process as the kernel has it.
//!
//! What comes although the interrupted mask blocks it was let through by a wait with a mask of its own (`sigsuspend`,
//! `ppoll`): the program wants it now. So does a signal that finds a fault being handled, once that is over.

use super::action::{self, bit};
use super::{deliver, process, thread};
use libc::{c_int, siginfo_t, ucontext_t};

/// Whether a signal was sent, and is no fault.
///
/// # Safety
/// `info` is null or what the kernel passed to a handler.
pub unsafe fn is_sent(info: *const siginfo_t) -> bool {
    // SAFETY: live if not null, as the caller says.
    info.is_null() || unsafe { (*info).si_code } <= 0
}

/// Keeps a signal that was sent pending, where the program takes it for blocked, or while a fault is handled (`busy`);
/// `false` if it is to be delivered.
///
/// # Safety
/// `info` and `context` are what the kernel passed to the handler of a fault signal.
pub(super) unsafe fn hold(
    number: c_int,
    info: *const siginfo_t,
    context: *mut ucontext_t,
    busy: bool,
) -> bool {
    let own = bit(number);
    // SAFETY: as the caller says.
    if info.is_null() || !unsafe { is_sent(info) } {
        return false;
    }
    // SAFETY: as above.
    let mask = unsafe { deliver::interrupted_mask(context) };
    // A child that borrows its parent's memory finds its parent's word there.
    let in_name = thread::blocked() & own != 0 && !process::borrows_memory();
    if mask & own != 0 || !(busy || in_name) {
        return false;
    }
    action::block(own);
    // SAFETY: as above.
    unsafe {
        deliver::set_interrupted_mask(context, mask | own);
        queue_again(number, info);
    }
    true
}

/// Takes back what was sent of a signal that the program ignores from now on, and that waits, as the kernel would. Those
/// that were sent to other threads by name stay.
pub fn discard(number: c_int) {
    let own = bit(number);
    let before = action::block(own);
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // One of each kind may wait, and more of a queue's.
    for _ in 0..WAITING {
        // SAFETY: the set is a live word of the stated size; nothing is to be said of the signal.
        let taken = unsafe {
            let nothing = core::ptr::null_mut::<siginfo_t>();
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const own, nothing, &raw const at_once, 8_usize)
        };
        if taken < 0 {
            break;
        }
    }
    action::set_mask(before);
}

/// A filter may answer that there is one whenever it is asked.
const WAITING: u32 = 16;

/// Queues a signal once more, with what was said of it, for whom it was sent to.
///
/// # Safety
/// As [`hold`].
unsafe fn queue_again(number: c_int, info: *const siginfo_t) {
    let thread = thread::id();
    // SAFETY: the kernel reads a live structure, here and below. It takes the codes of its own from the thread that a
    // signal goes to alone, and finds the process by any of its threads.
    let status = unsafe {
        match (*info).si_code {
            libc::SI_TKILL => -1,
            _ => libc::syscall(libc::SYS_rt_sigqueueinfo, thread, number, info),
        }
    };
    if status != 0 {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), thread, number, info) };
    }
}
