//! Locks and atomics.
//!
//! - [`lock`]: the lock, whose word names its owner, and taking it with signals blocked.
//! - [`rank`]: in which order locks are taken.
//!
//! Code that `tests/loom.rs` models takes its atomics from here, where the models put loom's.
//!
//! # Threads that only try
//!
//! Three kinds of threads never wait for a lock of the allocator. If a try fails they take a fallback.
//!
//! - The thread that uses the shared state ([`Trying::SHARED`]). A lock may be held by the very thread that it
//!   interrupted, or by one that a handler interrupted and that waits for the shared state.
//! - The thread that writes a report ([`Trying::REPORT`]). A handler in the middle of the report could wait for a lock
//!   whose owner waits to report.
//! - Any thread of a process that is not the heap's. In a child of a bare `clone`, or of a `fork` whose hooks have not
//!   run yet, a lock may name a thread that is not there. A child of `vfork` has its parent's memory.
//!
//! There is one thread of each of the first two kinds at a time.

use crate::sys::thread;
use atomic::{AtomicUsize, Ordering};
use spin::relax::{RelaxStrategy, Spin};

mod lock;
mod rank;

pub use core::sync::atomic;
pub use lock::{Guard, Lock, SignalSafeGuard};
pub use rank::{Rank, begin_inside, end_inside};

/// What a thread does between two looks at a lock that is about to be free.
pub fn pause() {
    Spin::relax();
}

/// The threads that never wait, by their pointers; 0 for none.
static TRYING: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Makes the calling thread one that never waits, until it is dropped.
pub struct Trying(usize);

impl Trying {
    /// For the owner of the lock of the shared state.
    pub const SHARED: usize = 0;
    /// For the owner of the turn to report.
    pub const REPORT: usize = 1;

    /// Begins it.
    pub fn begin(kind: usize) -> Self {
        Self::set(kind);
        Self(kind)
    }

    /// Begins it until [`Trying::end`].
    pub fn set(kind: usize) {
        set(kind, thread::pointer());
    }

    /// Ends it.
    pub fn end(kind: usize) {
        set(kind, 0);
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        Self::end(self.0);
    }
}

fn set(kind: usize, thread: usize) {
    if let Some(place) = TRYING.get(kind) {
        place.store(thread, Ordering::Relaxed);
    }
}

/// In a forked child: nobody else is there.
pub fn in_child() {
    let me = thread::pointer();
    for place in &TRYING {
        // What is not written need not be copied.
        if ![0, me].contains(&place.load(Ordering::Relaxed)) {
            place.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether the calling thread is one of the first two kinds.
pub fn only_tries() -> bool {
    let me = thread::pointer();
    TRYING.iter().any(|place| place.load(Ordering::Relaxed) == me)
}

/// Whether the calling thread may wait for others.
pub fn may_wait() -> bool {
    !only_tries() && thread::is_own_process()
}
