//! Captured stacks, and the stack depot, in which equal stacks are kept once.
//!
//! # The depot
//!
//! The depot is an append-only store in a mapping of its own: a hash table of offsets into a log of stacks. Insertion
//! is lock-free. When the depot is full, further stacks are not kept and get number 0.

use crate::addr::{Addr, PageCount, Span};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sys::vm;
use core::ops::Range;

/// The most frames of one stack.
pub const MAX_FRAMES: usize = 32;

/// Frames, innermost first. A frame's number is one past its code: the return address behind a call, or
/// one more than the program counter of code that a signal interrupted. The first of a fault's frames is
/// the faulting instruction itself.
#[derive(Clone, Copy)]
pub struct Frames {
    pcs: [usize; MAX_FRAMES],
    len: usize,
}

impl Frames {
    /// No frames.
    pub const EMPTY: Self = Self { pcs: [0; MAX_FRAMES], len: 0 };

    /// The program counters.
    pub fn as_slice(&self) -> &[usize] {
        self.pcs.get(..self.len).unwrap_or(&[])
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frames from the first on that is not in `own`, all if there is none.
    #[must_use]
    pub fn without(&self, own: &Range<usize>) -> Self {
        let mut outer = Self::EMPTY;
        self.as_slice().iter().skip_while(|pc| own.contains(*pc)).for_each(|pc| outer.push(*pc));
        if outer.is_empty() { *self } else { outer }
    }

    /// Adds the next frame outwards; one too many is dropped.
    pub fn push(&mut self, pc: usize) {
        if let Some(place) = self.pcs.get_mut(self.len) {
            *place = pc;
            self.len += 1;
        }
    }
}

/// log2 of the hash table's length.
const TABLE_SHIFT: u32 = 18;
/// Words of the log, a power of two: one stack takes its frames and one word.
const LOG_WORDS: usize = 1 << 23;
/// The same where address space is limited.
const LOG_WORDS_LIMITED: usize = 1 << 17;
/// Places tried before a stack is given up.
const PROBES: usize = 16;

/// The depot. The table's entries are offsets into the log, 0 for none; an entry, once set, stays.
pub struct Depot {
    table: *const AtomicU32,
    log: *const AtomicU64,
    /// A power of two.
    log_words: AtomicUsize,
    /// Words of the log in use; word 0 is never used.
    used: AtomicUsize,
}

// SAFETY: both mappings hold atomics and live as long as the process.
unsafe impl Send for Depot {}
// SAFETY: entries and log are atomics, and a set entry never changes, so shared use needs no exclusive
// access.
unsafe impl Sync for Depot {}

impl Depot {
    /// A depot that keeps nothing.
    pub const EMPTY: Self = Self {
        table: core::ptr::null(),
        log: core::ptr::null(),
        log_words: AtomicUsize::new(1),
        used: AtomicUsize::new(1),
    };

    /// Maps a depot, a small one if address space is limited; `None` if the kernel refuses.
    pub fn map(limited: bool) -> Option<Self> {
        let log_words = if limited { LOG_WORDS_LIMITED } else { LOG_WORDS };
        let table = vm::tables(4 << TABLE_SHIFT)?;
        let log = vm::tables(log_words * 8)?;
        Some(Self {
            table: table.as_ptr(),
            log: log.as_ptr(),
            log_words: AtomicUsize::new(log_words),
            used: AtomicUsize::new(1),
        })
    }

    fn log_words(&self) -> usize {
        self.log_words.load(Ordering::Relaxed)
    }

    /// Gives back what is not in use of the log, but for what one has where address space is limited. Stacks that
    /// others insert meanwhile are not kept.
    pub fn cut(&self) {
        if self.log.is_null() {
            return;
        }
        // A thread that took a place before has it in the part that stays. From here on no thread gets one.
        let used = self.used.swap(usize::MAX / 2, Ordering::AcqRel);
        let had = self.log_words();
        let kept = used.min(had).next_power_of_two().clamp(LOG_WORDS_LIMITED.min(had), had);
        self.log_words.store(kept, Ordering::Relaxed);
        if kept < had {
            let part = Addr::of(self.log).plus(kept * size_of::<u64>());
            vm::unreserve(Span::new(part, PageCount::holding((had - kept) * size_of::<u64>())));
        }
        // A thread that takes a place from here on sees the new length.
        self.used.store(used, Ordering::Release);
    }

    fn entry(&self, index: usize) -> &AtomicU32 {
        // SAFETY: masked to the table's length; zeroed memory is a valid atomic.
        unsafe { &*self.table.add(index & ((1 << TABLE_SHIFT) - 1)) }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: masked to the log's length; zeroed memory is a valid atomic.
        unsafe { &*self.log.add(index & (self.log_words() - 1)) }
    }

    /// The number of a stack, the same for equal stacks; 0 if it is empty or not kept.
    pub fn insert(&self, frames: &Frames) -> u32 {
        let pcs = frames.as_slice();
        if pcs.is_empty() || self.table.is_null() {
            return 0;
        }
        let hash = pcs.iter().fold(pcs.len() as u64, |hash, pc| {
            (hash.rotate_left(5) ^ *pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let home = (hash >> (64 - TABLE_SHIFT)) as usize;
        let mut written = 0;
        for probe in 0..PROBES {
            let entry = self.entry(home + probe);
            let mut known = entry.load(Ordering::Acquire);
            if known == 0 {
                if written == 0 {
                    written = self.append(pcs);
                    if written == 0 {
                        return 0;
                    }
                }
                match entry.compare_exchange(0, written, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return written,
                    Err(other) => known = other,
                }
            }
            if self.holds(known, pcs) {
                return known;
            }
        }
        0
    }

    /// Appends a stack to the log; its offset, 0 if the log is full.
    fn append(&self, pcs: &[usize]) -> u32 {
        let at = self.used.fetch_add(pcs.len() + 1, Ordering::AcqRel);
        if at.saturating_add(pcs.len() + 1) > self.log_words() {
            return 0;
        }
        self.word(at).store(pcs.len() as u64, Ordering::Relaxed);
        for (index, pc) in pcs.iter().enumerate() {
            self.word(at + 1 + index).store(*pc as u64, Ordering::Relaxed);
        }
        at as u32
    }

    fn holds(&self, at: u32, pcs: &[usize]) -> bool {
        let at = at as usize;
        self.word(at).load(Ordering::Relaxed) == pcs.len() as u64
            && pcs
                .iter()
                .enumerate()
                .all(|(i, pc)| self.word(at + 1 + i).load(Ordering::Relaxed) == *pc as u64)
    }

    /// The stack called `number`; empty if there is none. Any number may be asked for.
    pub fn get(&self, number: u32) -> Frames {
        if self.log.is_null() {
            return Frames::EMPTY;
        }
        Self::decode(number, self.log_words(), |index| Some(self.word(index).load(Ordering::Relaxed)))
    }

    /// The stack called `number` in a log of `log_words` words, wherever `word` reads them from.
    pub fn decode(number: u32, log_words: usize, word: impl Fn(usize) -> Option<u64>) -> Frames {
        let mut frames = Frames::EMPTY;
        let at = number as usize;
        if at == 0 || at >= log_words {
            return frames;
        }
        let len = word(at).unwrap_or(0).min(MAX_FRAMES as u64) as usize;
        for index in 0..len {
            let Some(pc) = word(at + 1 + index) else { break };
            frames.push(pc as usize);
        }
        frames
    }

    /// Where the log is and how many words it has.
    pub fn log(&self) -> (Addr, usize) {
        (Addr::of(self.log), if self.log.is_null() { 0 } else { self.log_words() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(pcs: &[usize]) -> Frames {
        let mut frames = Frames::EMPTY;
        pcs.iter().for_each(|pc| frames.push(*pc));
        frames
    }

    #[test]
    fn equal_stacks_have_one_number() {
        let depot = Depot::map(true).expect("mapping");
        let first = depot.insert(&frames(&[1, 2, 3]));
        let second = depot.insert(&frames(&[1, 2]));
        assert_ne!(first, 0);
        assert_ne!(first, second);
        assert_eq!(depot.insert(&frames(&[1, 2, 3])), first);
        assert_eq!(depot.get(first).as_slice(), [1, 2, 3]);
        assert_eq!(depot.get(second).as_slice(), [1, 2]);
    }

    #[test]
    fn stacks_survive_a_cut() {
        let depot = Depot::map(false).expect("mapping");
        let first = depot.insert(&frames(&[1, 2, 3]));
        depot.cut();
        assert_eq!(depot.log().1, LOG_WORDS_LIMITED);
        assert_eq!(depot.get(first).as_slice(), [1, 2, 3]);
        let second = depot.insert(&frames(&[4, 5]));
        assert_eq!(depot.get(second).as_slice(), [4, 5]);
        assert_eq!(depot.insert(&frames(&[1, 2, 3])), first);
    }

    #[test]
    fn wild_numbers_are_harmless() {
        let depot = Depot::map(true).expect("mapping");
        assert!(depot.get(u32::MAX).as_slice().is_empty());
        assert!(depot.get(12345).as_slice().is_empty());
    }
}
