//! One thread at a time: a lock for the modules of `sys`, which stand below [`crate::sync`].
//!
//! | word | meaning | next | by |
//! |---|---|---|---|
//! | [`FREE`] | nobody has the turn | [`TAKEN`] | [`Turn::take`] |
//! | [`TAKEN`] | a thread has it, nobody sleeps | [`AWAITED`], [`FREE`] | a thread that is about to sleep; the owner |
//! | [`AWAITED`] | a thread has it, others may sleep | [`FREE`], and one is woken | the owner |
//!
//! The owner holds signals back, so that no handler of its own thread waits for it, and waits for nothing. In a
//! forked child, which does not have the owner any more, [`Turn::in_child`] frees the word.

use super::futex;
use super::quiet::Quiet;
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const AWAITED: u32 = 2;

/// The lock.
pub struct Turn(AtomicU32);

/// The turn of the calling thread; signals are held back while it lives.
pub struct Taken<'a> {
    turn: &'a Turn,
    // Dropped after the word is freed.
    _quiet: Quiet,
}

impl Turn {
    /// Nobody's.
    pub const NEW: Self = Self(AtomicU32::new(FREE));

    /// Waits for the turn. Not if the calling thread has it.
    pub fn take(&self) -> Taken<'_> {
        let quiet = Quiet::begin();
        if self.0.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Whoever slept may not be the only one: the word says so until nobody is left to be woken.
            while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
                futex::wait(&self.0, AWAITED);
            }
        }
        Taken { turn: self, _quiet: quiet }
    }

    /// In a forked child, whose one thread does not have it.
    pub fn in_child(&self) {
        self.0.store(FREE, Ordering::Relaxed);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.turn.0.swap(FREE, Ordering::Release) == AWAITED {
            futex::wake_one(&self.turn.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::vec::Vec;

    #[test]
    fn one_at_a_time_has_it() {
        static TURN: Turn = Turn::NEW;
        static INSIDE: AtomicU32 = AtomicU32::new(0);
        static SUM: AtomicU64 = AtomicU64::new(0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..5_000 {
                        let _taken = TURN.take();
                        assert_eq!(INSIDE.fetch_add(1, Ordering::Relaxed), 0);
                        SUM.store(SUM.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        INSIDE.fetch_sub(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(SUM.load(Ordering::Relaxed), 20_000);
        assert_eq!(TURN.0.load(Ordering::Relaxed), FREE);
    }
}
