//! The state for threads that have none, and for signal handlers that interrupted the allocator.
//!
//! A thread in the shared state holds its lock, with signals blocked. It never blocks on another lock, except on those
//! that are taken with signals blocked: any other lock may be held by the very thread that was interrupted, or by one
//! that a handler interrupted and that waits for the shared state. If a try fails the thread takes a fallback:
//!
//! | out of reach | fallback |
//! |---|---|
//! | a class's store, for a slot | another class, or pages |
//! | a shard, for pages | chunks without a shard |
//! | a store or a shard, for a free | the deferred or the remote free list |

use super::thread::{self, Thread};
use crate::sync::{Lock, Rank, Trying};
use crate::sys::thread as sys;

struct Shared(*mut Thread);

// SAFETY: the pointer is to a mapping that lives as long as the process, used under the lock.
unsafe impl Send for Shared {}

static SHARED: Lock<Shared> = Lock::new(Rank::Shared, Shared(core::ptr::null_mut()));

/// Runs `action` with the state. `None` when the kernel grants no memory for it, and in the handler of a fault
/// in the middle of an `action`.
#[cold]
pub fn with<R>(action: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    let mut shared = SHARED.lock_signal_safe()?;
    let _trying = Trying::begin(Trying::SHARED);
    if shared.0.is_null() {
        shared.0 = thread::make(true)?;
    }
    // SAFETY: under its lock the shared state is this thread's.
    let state = unsafe { &mut *shared.0 };
    state.id = sys::id();
    state.stack = thread::stack();
    state.slab.flush_deferred();
    Some(action(state))
}

/// In a forked child: what another thread was in the middle of is not known, and its state not used again.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit() {
    // SAFETY: as the caller says.
    unsafe { SHARED.inherit(|shared| shared.0 = core::ptr::null_mut()) };
}
