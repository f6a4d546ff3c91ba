//! In which order a thread takes locks.
//!
//! A thread waits for a lock only while all locks that it holds rank lower. So no two threads wait for each other.
//! `src/README.md` says which lock is held when. A debug build checks the order at every lock, whether or not the
//! thread has to wait.
//!
//! A handler of the program's that finds the gate of its thread open may wait for any lock above [`Rank::World`]. So those up to
//! [`Rank::Store`] are asked for with the gate closed or with signals blocked, and the others below [`Rank::Turn`] with signals blocked. A
//! debug build checks the former, too.

/// A lock's place in the order, low to high.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// One thread at a time gives address space back.
    Cut,
    /// One thread at a time stops the others.
    World,
    /// One sweep at a time looks at an object.
    Look,
    /// A shard's freed objects that wait to be closed together.
    Batch,
    /// A shard.
    Shard,
    /// The area of large objects.
    Large,
    /// Which chunks are open and which are dead.
    Order,
    /// How much of the table of records there is.
    Records,
    /// A size class's slabs.
    Store,
    /// The shared state. From here to [`Rank::Poison`] signals are blocked.
    Shared,
    /// All threads' states.
    Registry,
    /// Slots whose store was out of reach.
    Deferred,
    /// Large objects outside the arena.
    Detached,
    /// Which objects have bytes that the program poisoned, and which pages are closed for it.
    Poison,
    /// The turn to report.
    Turn,
    /// What was found so far. This and the following are the reporting thread's.
    Tally,
    /// What reports are written in.
    Buffers,
    /// The suppressions.
    Rules,
}

impl Rank {
    const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether its owner blocks signals.
    const fn is_signal_safe(self) -> bool {
        Self::Shared as u8 <= self as u8 && self as u8 <= Self::Poison as u8
    }
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use crate::sys::{action, process, thread};

    /// The locks of owners that no handler interrupts.
    const SIGNAL_SAFE: u64 = 2 * Rank::Poison.bit() - Rank::Shared.bit();

    /// Says that the thread's gate is closed.
    const INSIDE: u64 = 1 << 63;

    /// Notes that the calling thread closed its gate.
    pub fn begin_inside() {
        thread::set_ranks(thread::ranks() | INSIDE);
    }

    /// Notes that it opens it.
    pub fn end_inside() {
        thread::set_ranks(thread::ranks() & !INSIDE);
    }

    /// Ends the process if the calling thread, which is about to ask for a lock of this rank and may wait for it, has
    /// one of this rank or a higher one. What a handler interrupted does not count for a lock whose owner is never
    /// interrupted.
    pub fn check(rank: Rank) {
        let all = thread::ranks() & !INSIDE;
        // Unit tests of what lies below the gate have none.
        let lower = rank > Rank::World && rank < Rank::Shared;
        let interruptible = lower && !cfg!(test) && thread::ranks() & INSIDE == 0;
        if interruptible && !action::blocks_handlers() {
            process::die("a lock is asked for that a signal handler may find held");
        }
        let held = if rank.is_signal_safe() { all & SIGNAL_SAFE } else { all };
        if held >= rank.bit() {
            process::die("a lock is asked for out of order");
        }
    }

    /// Notes that the calling thread has a lock.
    pub fn add(rank: Rank) {
        thread::set_ranks(thread::ranks() | rank.bit());
    }

    /// Notes that it has it no more.
    pub fn remove(rank: Rank) {
        thread::set_ranks(thread::ranks() & !rank.bit());
    }
}

#[cfg(debug_assertions)]
pub(super) use held::{add, check, remove};
#[cfg(debug_assertions)]
pub use held::{begin_inside, end_inside};

/// Debug builds check the order.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn add(rank: Rank) {
    let _ = (rank.bit(), rank.is_signal_safe());
}

/// As [`add`].
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn remove(_: Rank) {}

/// As [`add`].
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn begin_inside() {}

/// As [`add`].
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn end_inside() {}
