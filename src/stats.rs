//! Counts of allocations and their routes, kept by each thread and added up for reports.

use crate::sync::atomic::{AtomicU64, Ordering};
use core::fmt;

/// One thread's counts, or the sum of all that have ended. Written by one thread at a time with plain
/// adds, read by any.
#[derive(Default)]
#[repr(C)]
pub struct Counts {
    /// Objects between guard pages.
    pub guarded: AtomicU64,
    /// Objects that the mode wanted between guard pages and that went to slabs for want of budget.
    pub over_budget: AtomicU64,
    /// The same for want of mappings.
    pub no_mappings: AtomicU64,
    /// The same for want of memory or address space.
    pub no_memory: AtomicU64,
}

/// Plain numbers, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects in slabs, which the caches count.
    pub slab: u64,
    /// See [`Counts::guarded`].
    pub guarded: u64,
    /// See [`Counts::over_budget`].
    pub over_budget: u64,
    /// See [`Counts::no_mappings`].
    pub no_mappings: u64,
    /// See [`Counts::no_memory`].
    pub no_memory: u64,
}

impl Counts {
    /// All zero.
    pub const NEW: Self = Self {
        guarded: AtomicU64::new(0),
        over_budget: AtomicU64::new(0),
        no_mappings: AtomicU64::new(0),
        no_memory: AtomicU64::new(0),
    };

    /// Adds one to a count that only this thread writes.
    #[inline(always)]
    pub fn bump(count: &AtomicU64) {
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Adds these counts to `totals`.
    pub fn add_to(&self, totals: &mut Totals) {
        let add = |sum: &mut u64, count: &AtomicU64| {
            *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
        };
        add(&mut totals.guarded, &self.guarded);
        add(&mut totals.over_budget, &self.over_budget);
        add(&mut totals.no_mappings, &self.no_mappings);
        add(&mut totals.no_memory, &self.no_memory);
    }
}

impl fmt::Display for Totals {
    /// The share that was guarded, and why the rest of what should have been was not.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.guarded_permille();
        write!(out, "guarded {}.{} % of {} allocations", share / 10, share % 10, self.all())?;
        let reasons =
            [(self.over_budget, "budget"), (self.no_mappings, "mappings"), (self.no_memory, "memory")];
        if self.refused() != 0 {
            write!(out, ", {} in slabs for want of", self.refused())?;
            let mut before = "";
            for (count, name) in reasons.iter().filter(|(count, _)| *count != 0) {
                write!(out, "{before} {name} ({count})")?;
                before = ",";
            }
        }
        Ok(())
    }
}

impl Totals {
    /// Allocations in all.
    pub const fn all(&self) -> u64 {
        self.slab.wrapping_add(self.guarded)
    }

    /// Objects in slabs that the mode wanted between guard pages.
    pub const fn refused(&self) -> u64 {
        self.over_budget.wrapping_add(self.no_mappings).wrapping_add(self.no_memory)
    }

    /// The share of guarded allocations in tenths of a percent; 1000 when there were none at all.
    pub const fn guarded_permille(&self) -> u64 {
        match self.guarded.saturating_mul(1000).checked_div(self.all()) {
            Some(share) => share,
            None => 1000,
        }
    }
}
