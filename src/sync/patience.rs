//! How long somebody waits for another.
//!
//! A thread that uses the state for signal handlers may be waited for by one that has a lock and was
//! interrupted: it does not wait for locks without end ([`Impatience`]). A fork waits for a while, and then
//! goes on without what it could not have ([`Patience`]).

use super::atomic::{AtomicUsize, Ordering};
use crate::sys::thread;
use spin::relax::{RelaxStrategy, Spin};

/// Pauses for about a microsecond, then yields the processor: on a machine with more threads than cores a
/// pure spin lock burns its victim's time slice.
pub struct PauseThenYield;

impl RelaxStrategy for PauseThenYield {
    fn relax() {
        for _ in 0..32 {
            Spin::relax();
        }
        thread::yield_now();
    }
}

/// What whoever waits does between two looks.
pub fn relax() {
    PauseThenYield::relax();
}

/// The one thread that may not wait without end, by its pointer; 0 for none.
static IMPATIENT: AtomicUsize = AtomicUsize::new(0);

/// Makes the calling thread the one that may not wait without end, until it is dropped. There is one at a
/// time: whoever has the lock of what all of them use.
pub struct Impatience(());

impl Impatience {
    /// Begins it.
    pub fn begin() -> Self {
        IMPATIENT.store(thread::pointer(), Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Impatience {
    fn drop(&mut self) {
        IMPATIENT.store(0, Ordering::Relaxed);
    }
}

/// Whether the calling thread may not wait without end.
pub fn is_impatient() -> bool {
    IMPATIENT.load(Ordering::Relaxed) == thread::pointer()
}

/// A time that is spent waiting.
pub struct Patience {
    looks: u32,
    /// When it ends, once it was begun; 0 before.
    until: u64,
    /// How long it is, in nanoseconds.
    most: u64,
}

/// Looks before the waiting thread sleeps.
const LOOKS: u32 = 64;
/// Between two looks then.
const PAUSE_MICROS: u32 = 100;

impl Patience {
    /// So many milliseconds in all.
    pub const fn of(millis: u32) -> Self {
        Self { looks: 0, until: 0, most: millis as u64 * 1_000_000 }
    }

    /// As long as it takes.
    pub const fn endless() -> Self {
        Self { looks: 0, until: 0, most: u64::MAX }
    }

    /// No time at all.
    pub const fn none() -> Self {
        Self { looks: 0, until: 0, most: 0 }
    }

    /// Waits a moment; `false` if there is no time left.
    pub fn wait(&mut self) -> bool {
        if self.most == 0 {
            return false;
        }
        self.looks = self.looks.saturating_add(1);
        if self.looks < LOOKS {
            relax();
            return true;
        }
        let now = thread::clock_ns();
        if self.until == 0 {
            self.until = now.saturating_add(self.most);
        }
        if now >= self.until {
            return false;
        }
        thread::sleep_micros(PAUSE_MICROS);
        true
    }
}
