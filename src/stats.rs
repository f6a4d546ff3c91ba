//! Counts of what went where, kept by each thread and added up for reports.

use crate::sync::atomic::{AtomicU64, Ordering};

/// One thread's counts, or the sum of all that have ended. Written by one thread at a time with plain
/// adds, read by any.
#[derive(Default)]
pub struct Counts {
    /// Objects in slabs.
    pub slab: AtomicU64,
    /// Objects between guard pages.
    pub guarded: AtomicU64,
    /// Objects in slabs that the mode wanted between guard pages: over the budget or refused.
    pub refused: AtomicU64,
}

/// Plain numbers, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// See [`Counts::slab`].
    pub slab: u64,
    /// See [`Counts::guarded`].
    pub guarded: u64,
    /// See [`Counts::refused`].
    pub refused: u64,
}

impl Counts {
    /// All zero.
    pub const NEW: Self =
        Self { slab: AtomicU64::new(0), guarded: AtomicU64::new(0), refused: AtomicU64::new(0) };

    /// Adds one to a count that only this thread writes.
    #[inline(always)]
    pub fn bump(count: &AtomicU64) {
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Adds these counts to `totals`.
    pub fn add_to(&self, totals: &mut Totals) {
        totals.slab = totals.slab.wrapping_add(self.slab.load(Ordering::Relaxed));
        totals.guarded = totals.guarded.wrapping_add(self.guarded.load(Ordering::Relaxed));
        totals.refused = totals.refused.wrapping_add(self.refused.load(Ordering::Relaxed));
    }
}

impl Totals {
    /// Allocations in all.
    pub const fn all(&self) -> u64 {
        self.slab.wrapping_add(self.guarded)
    }

    /// The share of guarded allocations in tenths of a percent; 1000 when there were none at all.
    pub const fn guarded_permille(&self) -> u64 {
        match self.guarded.saturating_mul(1000).checked_div(self.all()) {
            Some(share) => share,
            None => 1000,
        }
    }
}
