//! Random numbers for tests: a seed that a failed run prints and the next can be given.

use std::env;
use std::hash::{BuildHasher, RandomState};

/// Names the seed to repeat a run with.
const SEED: &str = "FENCEPOST_TEST_SEED";

/// The seed that the environment gives, else a fresh one.
///
/// # Panics
/// If the environment's is no number.
pub fn seed() -> u64 {
    match env::var(SEED) {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => RandomState::new().hash_one(0),
    }
}

/// What to set to repeat a run.
pub fn again(seed: u64) -> String {
    format!("{SEED}={seed}")
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number from 1 to `most`, small ones as likely as large ones: as often in each doubling.
    pub fn size(&mut self, most: usize) -> usize {
        let bits = self.below(most.ilog2() as usize + 1) as u32;
        let low = 1_usize << bits;
        (low + self.below(low)).min(most)
    }
}
