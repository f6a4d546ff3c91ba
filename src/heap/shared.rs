//! The state for threads that have none, and for signal handlers that interrupted the allocator.
//!
//! Whoever uses it holds signals back, so that no handler waits for the thread it interrupted, and is impatient:
//! a lock of the allocator's may be held by that very thread, or by another that a handler interrupted and
//! that waits for the shared state. What cannot be had is done without: a slot comes from another class or
//! from pages, pages come without a lane, and what is given back goes to lists that are emptied later.

use super::thread::{self, Thread};
use crate::sync::{Impatience, Lock, Patience};
use crate::sys::thread as sys;

struct Shared(*mut Thread);

// SAFETY: the pointer is to a mapping that lives as long as the process, used under the lock.
unsafe impl Send for Shared {}

static SHARED: Lock<Shared> = Lock::new(Shared(core::ptr::null_mut()));

/// Runs `action` with the state. `None` when the kernel grants no memory for it, and in the handler of a fault
/// in the middle of an `action`.
#[cold]
pub fn with<R>(action: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    let mut shared = SHARED.lock_quietly()?;
    let _impatient = Impatience::begin();
    if shared.0.is_null() {
        shared.0 = thread::make(true)?;
    }
    // SAFETY: under its lock the shared state is this thread's.
    let state = unsafe { &mut *shared.0 };
    state.id = sys::id();
    state.stack = thread::stack();
    state.slab.give_parked();
    Some(action(state))
}

/// Takes the lock, for `fork`.
pub fn hold() {
    SHARED.hold(&mut Patience::endless());
}

/// Releases it.
pub fn release() {
    SHARED.release();
}
