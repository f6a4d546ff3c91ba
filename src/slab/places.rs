//! Where the counts of a cache lie in its bytes, for tools that read another process's.

use super::bin::{Bin, Lists, Slots};
use super::cache::Cache;
use super::class;
use core::mem::{offset_of, size_of};

/// Offsets in bytes from a cache's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountPlaces {
    /// The word that counts the slots that batches had.
    pub filled: usize,
    /// The first class's bin.
    pub bins: usize,
    /// From one bin to the next.
    pub stride: usize,
    /// In a bin, the 32-bit word that says how far its batch is used.
    pub next: usize,
    /// How many bins there are.
    pub count: usize,
}

impl Cache {
    /// See [`CountPlaces`].
    pub const COUNT_PLACES: CountPlaces = CountPlaces {
        filled: offset_of!(Self, filled),
        bins: offset_of!(Self, slots) + offset_of!(Slots, bins),
        stride: size_of::<Bin>(),
        next: offset_of!(Bin, next),
        count: class::COUNT,
    };

    /// [`Cache::allocated`] of a cache whose words another process was asked for: what batches had, and how far they are
    /// used, by class.
    pub fn allocated_by(filled: u64, next: impl Iterator<Item = u32>) -> u64 {
        let left = |(class, next): (usize, u32)| u64::from(next.saturating_sub(Lists::batch_at(class)));
        filled.saturating_sub(next.enumerate().map(left).sum())
    }
}
