//! Rules by program counter: a table of fixed size that never needs a lock.
//!
//! A place is two words, the rule and the program counter mixed with a hash of the rule. Any thread may
//! write any place at any time, in a signal handler too; whoever reads halves of two writes finds that
//! they do not belong together, and takes it for a miss. Two places side by side serve one hash, and the
//! newer rule takes the first.
//!
//! The table begins as one page and becomes eight times as long when as many rules were put into it as it has places:
//! the many small processes, and the children of a fork, touch no more of it than they need. What was kept before
//! is looked up anew then.
//!
//! A rule names the loaded object that it was read from, which the reader has to check: a table does not
//! know when a library is closed.

use super::rule::Rule;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sys::vm;
// Any length and any count that a thread reads serves it: not for the models.
use core::sync::atomic::AtomicU32;

/// log2 of the number of pairs at most.
const SHIFT: u32 = 15;
/// The same where address space is limited.
const SHIFT_LIMITED: u32 = 10;
/// The same at the beginning.
const SHIFT_FIRST: u32 = 7;
/// log2 of how much longer a table becomes.
const GROWTH: u32 = 3;

/// Two places.
#[repr(C, align(32))]
struct Pair {
    places: [Place; 2],
}

/// Zero words are no rule of any program counter but 0.
#[repr(C)]
struct Place {
    rule: AtomicU64,
    mixed: AtomicU64,
}

impl Place {
    #[inline(always)]
    fn get(&self, pc: u64) -> Option<Rule> {
        let rule = self.rule.load(Ordering::Relaxed);
        (self.mixed.load(Ordering::Relaxed) == pc ^ hash(rule)).then(|| Rule::from_word(rule))
    }

    fn set(&self, pc: u64, rule: u64) {
        self.rule.store(rule, Ordering::Relaxed);
        self.mixed.store(pc ^ hash(rule), Ordering::Relaxed);
    }
}

/// Spreads a word; 0 stays 0.
#[inline(always)]
const fn hash(word: u64) -> u64 {
    let product = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// The table.
pub struct Cache {
    pairs: *const Pair,
    /// log2 of the number of pairs in use.
    shift: AtomicU32,
    /// The same at most.
    most: u32,
    /// Rules kept since it became that.
    kept: AtomicU32,
}

// SAFETY: the mapping holds atomics and lives as long as the process.
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

impl Cache {
    /// A table that keeps nothing.
    pub const EMPTY: Self = Self::of(core::ptr::null(), SHIFT_FIRST);

    const fn of(pairs: *const Pair, most: u32) -> Self {
        Self { pairs, shift: AtomicU32::new(SHIFT_FIRST), most, kept: AtomicU32::new(0) }
    }

    /// Maps a table, a small one if address space is limited; `None` if the kernel refuses.
    pub fn map(limited: bool) -> Option<Self> {
        let shift = if limited { SHIFT_LIMITED } else { SHIFT };
        let pairs = vm::tables(size_of::<Pair>() << shift)?.as_ptr();
        Some(Self::of(pairs, shift))
    }

    #[inline(always)]
    fn pair(&self, pc: u64) -> Option<&Pair> {
        if self.pairs.is_null() {
            return None;
        }
        let index = pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.shift.load(Ordering::Relaxed));
        // SAFETY: the index has no more bits than the table's length; zeroed memory is a valid pair.
        Some(unsafe { &*self.pairs.add(index as usize) })
    }

    /// The rule kept for `pc`.
    #[inline(always)]
    pub fn get(&self, pc: usize) -> Option<Rule> {
        let pc = pc as u64;
        let [first, second] = &self.pair(pc)?.places;
        first.get(pc).or_else(|| second.get(pc))
    }

    /// Keeps a rule for `pc`, which is not 0.
    pub fn set(&self, pc: usize, rule: Rule) {
        let pc = pc as u64;
        self.count();
        let Some(Pair { places: [first, second] }) = self.pair(pc) else {
            return;
        };
        if first.get(pc).is_none() {
            let older = first.rule.load(Ordering::Relaxed);
            // What the two words of the older do not agree on stays so in its new place.
            second.rule.store(older, Ordering::Relaxed);
            second.mixed.store(first.mixed.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        first.set(pc, rule.to_word());
    }

    /// Counts a rule that is to be kept; the table becomes longer if it has had as many as places.
    fn count(&self) {
        let (shift, kept) = (self.shift.load(Ordering::Relaxed), self.kept.load(Ordering::Relaxed));
        if kept < 2 << shift {
            self.kept.store(kept + 1, Ordering::Relaxed);
        } else if shift < self.most {
            self.shift.store((shift + GROWTH).min(self.most), Ordering::Relaxed);
            self.kept.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{CallerFp, Kind, SP};
    use super::*;

    fn rule(offset: i64) -> Rule {
        Rule::frame(Kind::Offset, SP, offset, 0, CallerFp::Same, 0)
    }

    #[test]
    fn rules_are_found_until_they_are_displaced() {
        let cache = Cache::map(true).expect("mapping");
        assert_eq!(cache.get(0x40_0000), None);
        for pc in 0x40_0000..0x40_0100 {
            cache.set(pc, rule((8 * pc as i64) & 0xfff8));
            assert_eq!(cache.get(pc), Some(rule((8 * pc as i64) & 0xfff8)));
        }
        let kept = (0x40_0000..0x40_0100).filter(|pc| cache.get(*pc).is_some()).count();
        assert!(kept > 150, "{kept} of 256 in a table of 256");
    }

    /// However many rules there are, no more are displaced than the longest table has no room for.
    #[test]
    fn a_table_grows() {
        let cache = Cache::map(true).expect("mapping");
        let all = 0x40_0000..0x40_0000 + 1000;
        for turn in 0..4 {
            for pc in all.clone() {
                if turn == 0 || cache.get(pc).is_none() {
                    cache.set(pc, rule(8));
                }
            }
        }
        let kept = all.filter(|pc| cache.get(*pc).is_some()).count();
        assert!(kept > 900, "{kept} of 1000 in a table of 2048");
    }

    #[test]
    fn two_of_one_hash_are_both_kept() {
        let cache = Cache::map(true).expect("mapping");
        let home = |pc: usize| cache.pair(pc as u64).map(core::ptr::from_ref);
        let other = (0x1001..).find(|pc| home(*pc) == home(0x1000)).expect("more than there are places");
        cache.set(0x1000, rule(8));
        cache.set(other, rule(16));
        assert_eq!((cache.get(0x1000), cache.get(other)), (Some(rule(8)), Some(rule(16))));
        cache.set(other, rule(24));
        assert_eq!((cache.get(0x1000), cache.get(other)), (Some(rule(8)), Some(rule(24))));
    }

    #[test]
    fn halves_of_two_rules_are_none() {
        let (first, second) = (rule(8).to_word(), rule(16).to_word());
        let place = Place { rule: AtomicU64::new(0), mixed: AtomicU64::new(0) };
        place.set(0x1000, first);
        place.rule.store(second, Ordering::Relaxed);
        assert!((0..=u64::from(u16::MAX)).all(|pc| place.get(pc).is_none()));
    }

    #[test]
    fn a_table_that_was_not_mapped_is_empty() {
        let empty = Cache::EMPTY;
        empty.set(1, rule(8));
        assert_eq!(empty.get(1), None);
    }
}
