//! Locks and atomics.
//!
//! - [`lock`]: the lock, whose word names its owner.
//! - [`quiet`]: taking one with signals held back.
//! - [`patience`]: who waits for how long.
//!
//! Code that `tests/loom.rs` models takes its atomics from here, where the models put loom's.

mod lock;
mod patience;
mod quiet;

pub use core::sync::atomic;
pub use lock::{Guard, Lock};
pub use patience::{Impatience, Patience, is_impatient, relax};
pub use quiet::QuietGuard;
