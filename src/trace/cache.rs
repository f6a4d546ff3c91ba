//! A rule: how to leave the frame of one program counter, in one word. A stack trace needs no more of a row of the
//! unwind tables than this: where the caller's frame begins (the CFA; the return address lies 8 bytes below it, on
//! x86-64 always), and where the caller's frame pointer is. A rule has nothing of other registers, so a frame whose CFA
//! depends on one of those ends the trace.
//!
//! ```text
//! bit 0      3      7     9     13        16               36               50          63
//!   kind   | base | fp  | extra |  -      | CFA offset / 8 | fp offset / 8 |  object   | -
//! ```
//!
//! # The cache
//!
//! Rules by program counter, in a table of fixed size that needs no lock.
//!
//! An entry is two words: the rule, and the program counter mixed with a hash of the rule. Any thread may write any
//! entry at any time, in a signal handler too. A reader that gets halves of two writes sees that they do not belong
//! together, and takes them for a miss. Two entries side by side serve one hash, and the newer rule takes the first.
//!
//! The table begins as one page. When as many rules were put into it as it has entries, it becomes eight times as long.
//! So the many small processes, and the children of a fork, touch no more of it than they need. After the change the
//! kept rules are looked up anew.
//!
//! A rule names the loaded object that it was read from. The reader has to check the object, since the table does not
//! know when a library is closed.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sys::vm;
use core::sync::atomic::AtomicU32;

/// The DWARF number of the frame pointer register, rbp.
pub const FP: u16 = 6;
/// The DWARF number of the stack pointer register, rsp.
pub const SP: u16 = 7;

/// What a frame is, and so how it is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Kind {
    /// The CFA is a register plus an offset.
    Offset = 1,
    /// The CFA is what lies at a register plus an offset, plus eight times `extra`: functions that align
    /// their stack.
    Indirect = 2,
    /// A linkage table's stub: rsp plus an offset, and 8 more from byte `extra` of each 16 on.
    Stub = 3,
    /// The kernel made the frame for a signal handler to return to.
    Signal = 4,
    /// The outermost frame.
    End = 5,
    /// There is no table for the code: the frame pointer may help.
    Guess = 6,
    /// There is a table, and nothing here understands it.
    Stop = 7,
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum CallerFp {
    /// In the register.
    Same = 0,
    /// On the stack, so many bytes from the CFA.
    AtCfa = 1,
    /// On the stack, so many bytes from where the register points.
    AtFp = 2,
    /// Nowhere that can be told.
    Lost = 3,
}

/// A rule. Zero is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Rule(u64);

const BASE: u32 = 3;
const CALLER_FP: u32 = 7;
const EXTRA: u32 = 9;
const CFA_OFFSET: u32 = 16;
const CFA_BITS: u32 = 20;
const FP_OFFSET: u32 = 36;
const FP_BITS: u32 = 14;
const OBJECT: u32 = 50;
/// Bits of an object's number.
pub const OBJECT_BITS: u32 = 13;

/// `bytes` as a field of `bits` bits that counts words; `None` if it does not fit.
const fn words(bytes: i64, bits: u32) -> Option<u64> {
    let (count, limit) = (bytes >> 3, 1 << (bits - 1));
    if bytes & 7 != 0 || count < -limit || count >= limit {
        return None;
    }
    Some(count.cast_unsigned() & ((1 << bits) - 1))
}

/// Takes [`words`] back.
#[inline(always)]
const fn bytes(word: u64, shift: u32, bits: u32) -> isize {
    (((word << (64 - shift - bits)).cast_signed() >> (64 - bits)) << 3) as isize
}

impl Rule {
    /// A rule that is its kind and nothing else.
    pub const fn plain(kind: Kind) -> Self {
        Self(kind as u64)
    }

    /// A frame whose CFA is reckoned from the register `base`; [`Kind::Stop`] where a number does not fit.
    pub fn frame(kind: Kind, base: u16, offset: i64, extra: u64, fp: CallerFp, fp_offset: i64) -> Self {
        let (Some(offset), Some(fp_offset)) = (words(offset, CFA_BITS), words(fp_offset, FP_BITS)) else {
            return Self::plain(Kind::Stop);
        };
        if base > 15 || extra > 15 {
            return Self::plain(Kind::Stop);
        }
        Self(
            kind as u64
                | u64::from(base) << BASE
                | (fp as u64) << CALLER_FP
                | extra << EXTRA
                | offset << CFA_OFFSET
                | fp_offset << FP_OFFSET,
        )
    }

    /// The rule, marked as one of the loaded object with this number.
    #[must_use]
    pub const fn of_object(self, object: u16) -> Self {
        Self(self.0 & !(((1 << OBJECT_BITS) - 1) << OBJECT) | (object as u64) << OBJECT)
    }

    /// The word that is kept.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// The rule that was kept as this word.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The kind.
    #[inline(always)]
    pub const fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::Offset,
            2 => Kind::Indirect,
            3 => Kind::Stub,
            4 => Kind::Signal,
            5 => Kind::End,
            6 => Kind::Guess,
            _ => Kind::Stop,
        }
    }

    /// The register that the CFA is reckoned from.
    #[inline(always)]
    pub const fn base(self) -> u16 {
        (self.0 >> BASE & 15) as u16
    }

    /// Where the caller's frame pointer is.
    #[inline(always)]
    pub const fn caller_fp(self) -> CallerFp {
        match self.0 >> CALLER_FP & 3 {
            0 => CallerFp::Same,
            1 => CallerFp::AtCfa,
            2 => CallerFp::AtFp,
            _ => CallerFp::Lost,
        }
    }

    /// The kind's extra number.
    #[inline(always)]
    pub const fn extra(self) -> usize {
        (self.0 >> EXTRA & 15) as usize
    }

    /// Bytes from the base register.
    #[inline(always)]
    pub const fn offset(self) -> isize {
        bytes(self.0, CFA_OFFSET, CFA_BITS)
    }

    /// Bytes to where the caller's frame pointer lies.
    #[inline(always)]
    pub const fn fp_offset(self) -> isize {
        bytes(self.0, FP_OFFSET, FP_BITS)
    }

    /// The object's number, 0 if it has none.
    #[inline(always)]
    pub const fn object(self) -> u16 {
        (self.0 >> OBJECT & ((1 << OBJECT_BITS) - 1)) as u16
    }
}

// Any length and any count that a thread reads serves it: not for the models.

/// log2 of the number of pairs at most.
const SHIFT: u32 = 15;
/// The same where address space is limited.
const SHIFT_LIMITED: u32 = 10;
/// The same at the beginning.
const SHIFT_FIRST: u32 = 7;
/// log2 of how much longer a table becomes.
const GROWTH: u32 = 3;

/// Two entries.
#[repr(C, align(32))]
struct Pair {
    entries: [Entry; 2],
}

/// Zero words are no rule of any program counter but 0.
#[repr(C)]
struct Entry {
    rule: AtomicU64,
    mixed: AtomicU64,
}

impl Entry {
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
// SAFETY: pairs are atomics, and a torn read of one is recognised and dropped.
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
        let [first, second] = &self.pair(pc)?.entries;
        first.get(pc).or_else(|| second.get(pc))
    }

    /// Keeps a rule for `pc`, which is not 0.
    pub fn set(&self, pc: usize, rule: Rule) {
        let pc = pc as u64;
        self.count();
        let Some(Pair { entries: [first, second] }) = self.pair(pc) else {
            return;
        };
        if first.get(pc).is_none() {
            let older = first.rule.load(Ordering::Relaxed);
            // What the two words of the older do not agree on stays so in its new entry.
            second.rule.store(older, Ordering::Relaxed);
            second.mixed.store(first.mixed.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        first.set(pc, rule.to_word());
    }

    /// Counts a rule that is to be kept; the table becomes longer if it has had as many as entries.
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
    use super::super::cache::{CallerFp, Kind, SP};
    use super::*;

    #[test]
    fn every_field_comes_back() {
        for (offset, fp_offset) in [(16, -16), (8, 0), (-4_194_304, 65_528), (4_194_296, -65_536)] {
            let rule = Rule::frame(Kind::Indirect, FP, offset, 9, CallerFp::AtFp, fp_offset).of_object(511);
            let rule = Rule::from_word(rule.to_word());
            assert_eq!((rule.kind(), rule.base(), rule.extra()), (Kind::Indirect, FP, 9));
            assert_eq!((rule.offset() as i64, rule.fp_offset() as i64), (offset, fp_offset));
            assert_eq!((rule.caller_fp(), rule.object()), (CallerFp::AtFp, 511));
            assert_eq!(rule.of_object(3).object(), 3);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_understood() {
        let stop = Rule::plain(Kind::Stop);
        assert_eq!(Rule::frame(Kind::Offset, SP, 12, 0, CallerFp::Same, 0), stop);
        assert_eq!(Rule::frame(Kind::Offset, SP, 1 << 40, 0, CallerFp::Same, 0), stop);
        assert_eq!(Rule::frame(Kind::Offset, SP, 8, 0, CallerFp::AtCfa, 1 << 20), stop);
        assert_eq!(Rule::frame(Kind::Offset, 17, 8, 0, CallerFp::Same, 0), stop);
        assert_eq!(Rule::from_word(0).kind(), Kind::Stop);
    }

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
        let other = (0x1001..).find(|pc| home(*pc) == home(0x1000)).expect("more than there are entries");
        cache.set(0x1000, rule(8));
        cache.set(other, rule(16));
        assert_eq!((cache.get(0x1000), cache.get(other)), (Some(rule(8)), Some(rule(16))));
        cache.set(other, rule(24));
        assert_eq!((cache.get(0x1000), cache.get(other)), (Some(rule(8)), Some(rule(24))));
    }

    #[test]
    fn halves_of_two_rules_are_none() {
        let (first, second) = (rule(8).to_word(), rule(16).to_word());
        let entry = Entry { rule: AtomicU64::new(0), mixed: AtomicU64::new(0) };
        entry.set(0x1000, first);
        entry.rule.store(second, Ordering::Relaxed);
        assert!((0..=u64::from(u16::MAX)).all(|pc| entry.get(pc).is_none()));
    }

    #[test]
    fn a_table_that_was_not_mapped_is_empty() {
        let empty = Cache::EMPTY;
        empty.set(1, rule(8));
        assert_eq!(empty.get(1), None);
    }
}
