//! Sleeping on a word until another thread changes it, and locks that lend their owner a waiter's priority.
//!
//! All calls go through `syscall`, which is no cancellation point.
//!
//! # One thread at a time
//!
//! [`Turn`] is a lock for the modules of `sys`, which stand below [`crate::sync`].
//!
//! | word | meaning | next | by |
//! |---|---|---|---|
//! | [`FREE`] | nobody has the turn | [`TAKEN`] | [`Turn::take`] |
//! | [`TAKEN`] | a thread has it, nobody sleeps | [`AWAITED`], [`FREE`] | a thread that is about to sleep; the owner |
//! | [`AWAITED`] | a thread has it, others may sleep | [`FREE`], and one is woken | the owner |
//!
//! The owner blocks signals, so no handler of its own thread waits for it. The owner itself waits for nothing. A forked
//! child that does not have the owner frees the word in [`Turn::in_child`].

use super::action::BlockedSignals;
use super::errno;
use core::sync::atomic::{AtomicU32, Ordering};
use libc::c_int;

/// Sleeps until the word is woken, unless it differs from `expected` already. It may return early.
pub fn wait(word: &AtomicU32, expected: u32) {
    sleep(word, expected, core::ptr::null());
}

/// [`wait`] for `millis` milliseconds at most.
pub fn wait_millis(word: &AtomicU32, expected: u32, millis: u32) {
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let time = libc::timespec { tv_sec: seconds.into(), tv_nsec: i64::from(rest).saturating_mul(1_000_000) };
    sleep(word, expected, &raw const time);
}

fn sleep(word: &AtomicU32, expected: u32, time: *const libc::timespec) {
    operate(word, libc::FUTEX_WAIT, expected, time);
}

/// Wakes one thread that sleeps on the word.
pub fn wake_one(word: &AtomicU32) {
    operate(word, libc::FUTEX_WAKE, 1, core::ptr::null());
}

/// Wakes all threads that sleep on the word.
pub fn wake_all(word: &AtomicU32) {
    operate(word, libc::FUTEX_WAKE, c_int::MAX.cast_unsigned(), core::ptr::null());
}

/// What came of [`lock_lending`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lending {
    /// The word names the calling thread.
    Taken,
    /// To be tried again: the word has changed.
    Again,
    /// The kernel knows no such locks, or sees that waiting would be in a circle or for a thread that is not there.
    Never,
}

/// Waits for a lock whose word holds its owner's thread id, and lends the owner this thread's priority meanwhile
/// (`FUTEX_LOCK_PI`). The kernel sets [`WAITERS`](libc::FUTEX_WAITERS) in the word.
pub fn lock_lending(word: &AtomicU32) -> Lending {
    if operate(word, libc::FUTEX_LOCK_PI, 0, core::ptr::null()) {
        return if is_made(libc::FUTEX_LOCK_PI) { Lending::Taken } else { Lending::Again };
    }
    match errno::get() {
        libc::EAGAIN | libc::EINTR => Lending::Again,
        _ => Lending::Never,
    }
}

/// Passes a lock of the calling thread to a thread that waits in [`lock_lending`], or sets its word to 0; `false` if the kernel
/// does neither.
pub fn unlock_lending(word: &AtomicU32) -> bool {
    operate(word, libc::FUTEX_UNLOCK_PI, 0, core::ptr::null())
}

/// Whether the kernel does what it is asked for, and it is not merely answered so: no program has a word at this
/// address.
fn is_made(operation: c_int) -> bool {
    const NOWHERE: usize = !7;
    // SAFETY: the kernel alone looks at the address, and answers an error.
    unsafe { call(core::ptr::without_provenance_mut(NOWHERE), operation, 0, core::ptr::null()) < 0 }
}

fn operate(word: &AtomicU32, operation: c_int, value: u32, time: *const libc::timespec) -> bool {
    // SAFETY: the word is live for the call and an atomic, and the time null or live.
    unsafe { call(word.as_ptr(), operation, value, time) >= 0 }
}

/// # Safety
/// The time is null or live; the kernel looks at the word.
unsafe fn call(word: *mut u32, operation: c_int, value: u32, time: *const libc::timespec) -> libc::c_long {
    // SAFETY: as the caller says.
    unsafe { libc::syscall(libc::SYS_futex, word, operation | libc::FUTEX_PRIVATE_FLAG, value, time) }
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const AWAITED: u32 = 2;

/// The lock.
pub struct Turn(AtomicU32);

/// The turn of the calling thread; signals are blocked while it lives.
pub struct Taken<'a> {
    turn: &'a Turn,
    // Dropped after the word is freed.
    _blocked: BlockedSignals,
}

impl Turn {
    /// Nobody's.
    pub const NEW: Self = Self(AtomicU32::new(FREE));

    /// Waits for the turn. Not if the calling thread has it.
    pub fn take(&self) -> Taken<'_> {
        let blocked = BlockedSignals::begin();
        if self.0.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Other threads may still sleep. So the word stays `AWAITED` until no sleeper is left to be woken.
            while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
                wait(&self.0, AWAITED);
            }
        }
        Taken { turn: self, _blocked: blocked }
    }

    /// In a forked child, whose one thread does not have it.
    pub fn in_child(&self) {
        self.0.store(FREE, Ordering::Relaxed);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.turn.0.swap(FREE, Ordering::Release) == AWAITED {
            wake_one(&self.turn.0);
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
