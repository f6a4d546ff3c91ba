//! Locks and atomics.
//!
//! [`Lock`] is `spin`'s mutex with a relax strategy that pauses a few times and then yields the
//! processor: on a machine with more threads than cores a pure spin lock burns its victim's time
//! slice. Code that `tests/loom.rs` models takes its atomics from here, where the models put loom's.

pub use core::sync::atomic;

use spin::relax::RelaxStrategy;

/// Pauses for about a microsecond, then yields.
pub struct PauseThenYield;

impl RelaxStrategy for PauseThenYield {
    fn relax() {
        for _ in 0..32 {
            core::hint::spin_loop();
        }
        crate::sys::thread::yield_now();
    }
}

/// A mutex that is safe before the process is set up and allocates nothing.
pub type Lock<T> = spin::mutex::SpinMutex<T, PauseThenYield>;
