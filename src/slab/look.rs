//! How a sweep looks at a slot that its owner may change at any moment, without delaying the owner.
//!
//! A sweep reads slots while their owners use them. A slot that looks wrong is looked at again under a claim: the sweep
//! sets the slot's state to [`LOOKED`], looks, and puts the old state back. An owner that changes the slot meanwhile
//! first writes a state of its own (`ClassInfo::store_busy`), and so ends the claim. The result counts only if the
//! claim held to the end.
//!
//! | state | `looking` | who changes the state |
//! |---|---|---|
//! | any | 0, or the slot that was looked at last | the slot's owner |
//! | live, also with poisoned bytes, or freed | this slot and its state | the slot's owner; the sweep, to `LOOKED`, by compare and exchange |
//! | `LOOKED` | this slot and its state | the slot's owner, to anything; the sweep, back, by compare and exchange |
//!
//! One sweep at a time has a claim, under the lock. A thread that finds `LOOKED` reads the slot's real state from
//! `looking`. A forked child whose sweep is not there takes the claim back. Only sweeps wait, for each other.

use crate::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};
use crate::sync::{Lock, Rank, pause};

/// The state of a slot that a sweep has claimed: neither live nor freed, nor busy.
pub const LOOKED: u16 = 2 << 13;

/// A slot's name: the sixteenth of its address, above the bits of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name(u64);

impl Name {
    const STATE_BITS: u32 = 16;

    /// The name of the slot at `address`, which is a multiple of 16.
    pub const fn of(address: usize) -> Self {
        Self((address as u64 >> 4) << Self::STATE_BITS)
    }

    /// The slot's address.
    pub const fn address(self) -> usize {
        (self.0 >> Self::STATE_BITS << 4) as usize
    }

    const fn with(self, state: u16) -> u64 {
        self.0 | state as u64
    }

    const fn split(looking: u64) -> (Self, u16) {
        (Self(looking >> Self::STATE_BITS << Self::STATE_BITS), looking as u16)
    }
}

/// The claim of the one sweep that looks.
pub struct Looks {
    turn: Lock<()>,
    /// The slot that is claimed, or was last, and its state; 0 for none.
    looking: AtomicU64,
}

/// The process's.
pub static LOOKS: Looks = Looks::NEW;

impl Looks {
    /// Nothing is claimed.
    pub const NEW: Self = Self { turn: Lock::new(Rank::Look, ()), looking: AtomicU64::new(0) };

    /// Makes the atomics that loom wants made before there are threads.
    #[cfg(loom)]
    #[allow(dead_code, reason = "the models include this file; the crate itself is built beside them")]
    pub fn prepare(&self) {
        self.turn.prepare();
        self.looking.store(0, Ordering::Relaxed);
    }

    /// The state of the slot of this name, whether or not a sweep looks at it.
    pub fn state(&self, word: &AtomicU16, name: Name) -> u16 {
        loop {
            let state = word.load(Ordering::Acquire);
            if state != LOOKED {
                return state;
            }
            let (looked_at, state) = Name::split(self.looking.load(Ordering::Acquire));
            if looked_at == name {
                return state;
            }
            // The look has ended since, and the state is another.
            pause();
        }
    }

    /// Runs `look` with the state of a slot if that is `worth` it, and says what it returned if nobody changed the
    /// slot meanwhile; `None` if somebody did, or the state is another.
    pub fn at<R>(
        &self,
        word: &AtomicU16,
        name: Name,
        worth: impl FnOnce(u16) -> bool,
        look: impl FnOnce(u16) -> R,
    ) -> Option<R> {
        // A handler that interrupted a look of its own thread looks at nothing.
        let _turn = self.turn.enter()?;
        let state = word.load(Ordering::Acquire);
        if !worth(state) {
            return None;
        }
        self.looking.store(name.with(state), Ordering::Release);
        let claimed = exchange(word, state, LOOKED);
        let seen = claimed.then(|| look(state));
        // An owner that wrote the bytes seen here wrote another state before them.
        fence(Ordering::Acquire);
        let held = claimed && exchange(word, LOOKED, state);
        seen.filter(|_| held)
    }

    fn withdraw<'a>(&self, word_of: impl FnOnce(Name) -> Option<&'a AtomicU16>) {
        let (name, state) = Name::split(self.looking.load(Ordering::Relaxed));
        if let Some(word) = word_of(name) {
            exchange(word, LOOKED, state);
        }
    }

    /// In a forked child: takes back the claim of a thread that is not there. `word_of` finds a slot's state.
    ///
    /// # Safety
    /// As [`Lock::inherit`].
    pub unsafe fn inherit<'a>(&self, word_of: impl FnOnce(Name) -> Option<&'a AtomicU16>) {
        // SAFETY: as the caller says.
        unsafe { self.turn.inherit(|()| self.withdraw(word_of)) };
    }

    /// Takes back the calling thread's claim, which does not come back to it.
    ///
    /// # Safety
    /// As [`Lock::abandon`].
    pub unsafe fn abandon<'a>(&self, word_of: impl FnOnce(Name) -> Option<&'a AtomicU16>) {
        // SAFETY: as the caller says.
        unsafe { self.turn.abandon(|()| self.withdraw(word_of)) };
    }
}

fn exchange(word: &AtomicU16, from: u16, to: u16) -> bool {
    word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
