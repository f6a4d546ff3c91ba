//! Locks and atomics.
//!
//! - [`lock`]: the lock, whose word names its owner.
//! - [`rank`]: in which order locks are taken.
//! - [`quiet`]: taking one with signals blocked.
//! - [`going_without`]: who never waits for one.
//!
//! Code that `tests/loom.rs` models takes its atomics from here, where the models put loom's.

pub mod going_without;
mod lock;
mod quiet;
mod rank;

pub use core::sync::atomic;
pub use going_without::{Trying, may_wait, only_tries};
pub use lock::{Guard, Lock};
pub use quiet::QuietGuard;
pub use rank::Rank;
use spin::relax::{RelaxStrategy, Spin};

/// What a thread does between two looks at a lock that is about to be free.
pub fn pause() {
    Spin::relax();
}
