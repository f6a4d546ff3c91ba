//! The turn to report, which one thread has at a time.
//!
//! | owner | the process noted | who takes it next |
//! |---|---|---|
//! | nobody | 0 | the first thread that asks |
//! | a thread | 0, for a moment, then its own | a waiting thread, when the owner leaves; waiting threads sleep |
//! | a thread that ends the process | its own | nobody |
//! | a child of `vfork`, which has its parent's thread pointer | the child's | another thread, when the child leaves, or finds that it is gone |
//!
//! A thread that has the turn and asks for it again met a second error while it reports the first. A handler may run in
//! the middle of a report and end the process, fork, or allocate: see [`Trying`]. A handler that jumps out of the
//! report of a fault leaves the turn taken. The thread's next fault finds that report's stack in use from its start
//! again, and ends the turn ([`abandon`]).

use super::fatal::{self, Orphans};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Lock, Rank, Trying};
use crate::sys::action::BlockedSignals;
use crate::sys::thread;

static TURN: Lock<()> = Lock::new(Rank::Turn, ());
/// The process whose thread has the turn.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Whether what it reports is a fault, and so ends by that signal.
static OF_FAULT: AtomicBool = AtomicBool::new(false);

/// How long a thread sleeps that waits for another process's thread: if that is killed nothing wakes the waiter.
const LOOK_MILLIS: u32 = 100;
/// The same for one whose process is not noted yet.
const MOMENT_MILLIS: u32 = 1;

/// Makes the calling thread the one that reports; `false` if it is already, or in a process whose turn may be that of
/// a thread that is not there.
pub fn enter(of_fault: bool) -> bool {
    while !try_enter(of_fault) {
        let own = thread::is_own_process();
        match PROCESS.load(Ordering::Acquire) {
            process if process == thread::pid() || !own => {
                if TURN.is_mine() || !own {
                    return false;
                }
                TURN.sleep(0);
            }
            0 if !TURN.is_mine() => TURN.sleep(MOMENT_MILLIS),
            0 => return false,
            process if TURN.is_mine() || thread::is_gone(process) => take_over(process),
            _ => TURN.sleep(LOOK_MILLIS),
        }
    }
    true
}

/// The same if nobody has the turn.
pub fn try_enter(of_fault: bool) -> bool {
    // A handler that finds the turn taken finds its owner marked as one that never waits.
    let _blocked = BlockedSignals::begin();
    let Some(turn) = TURN.try_lock() else { return false };
    core::mem::forget(turn);
    PROCESS.store(thread::pid(), Ordering::Release);
    OF_FAULT.store(of_fault, Ordering::Relaxed);
    if thread::is_own_process() {
        Trying::set(Trying::REPORT);
    }
    true
}

/// Ends the turn of a child of `vfork` that is gone.
fn take_over(process: u32) {
    let owner = TURN.owner();
    if PROCESS.compare_exchange(process, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        // SAFETY: the process is gone, and one thread finds it so.
        unsafe { TURN.clear(|()| Orphans::of(owner).release()) };
    }
}

/// Ends the calling thread's turn.
pub fn leave() {
    // As in `try_enter`: no handler comes between the mark and the turn.
    let _blocked = BlockedSignals::begin();
    Trying::end(Trying::REPORT);
    PROCESS.store(0, Ordering::Release);
    // SAFETY: the turn is the calling thread's, and its guard is forgotten.
    unsafe { TURN.abandon(|()| ()) };
}

/// Ends the calling thread's turn and what it had under it: its report was left, by a jump out of a signal handler in its
/// middle, and its stack is used by others.
pub fn abandon() {
    // As in `try_enter`: no handler comes between the mark and the turn.
    let _blocked = BlockedSignals::begin();
    Trying::end(Trying::REPORT);
    PROCESS.store(0, Ordering::Release);
    // SAFETY: the turn is the calling thread's, and its guard is forgotten.
    unsafe { TURN.abandon(|()| fatal::abandon()) };
}

/// Whether the calling thread has the turn.
pub fn is_here() -> bool {
    TURN.is_mine() && PROCESS.load(Ordering::Acquire) == thread::pid()
}

/// Whether what is being reported is a fault.
pub fn is_of_fault() -> bool {
    OF_FAULT.load(Ordering::Relaxed)
}

/// In a forked child: another thread's turn is over. A report that the forking thread's own handler interrupted goes
/// on here.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn in_child() {
    if TURN.is_mine() {
        PROCESS.store(thread::pid(), Ordering::Release);
        return;
    }
    PROCESS.store(0, Ordering::Release);
    // SAFETY: as the caller says.
    unsafe { TURN.inherit(|()| ()) };
}
