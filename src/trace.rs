//! Where calls came from: capturing frames, and a depot in which equal stacks are kept once.
//!
//! Frames are found by the chain of frame pointers, starting from the caller's registers ([`Site`]).
//! Every step is checked to stay within the running thread's stack and to go upwards, so that code
//! without frame pointers yields a short stack and never a fault.
//!
//! The depot is an append-only store in a mapping of its own: a hash table of offsets into a log of
//! stacks. Insertion is lock-free; when it is full, further stacks are not kept (number 0).

use crate::addr::{Addr, PAGE_SIZE};
use crate::request::Site;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(test)]
use crate::sys::thread;
use crate::sys::vm;

/// The most frames of one stack.
pub const MAX_FRAMES: usize = 32;

/// The most bytes of stack that are walked.
const MAX_DEPTH: usize = 64 << 20;

/// Frames, innermost first.
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

    fn push(&mut self, pc: usize) {
        if let Some(place) = self.pcs.get_mut(self.len) {
            *place = pc;
            self.len += 1;
        }
    }
}

/// A thread's stack: the addresses from its lowest to one past its highest byte. From a stack pointer in
/// it up to its end all is mapped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stack {
    /// The lowest address it may grow to.
    pub low: usize,
    /// One past the highest.
    pub end: usize,
}

impl Stack {
    const fn holds(self, sp: usize) -> bool {
        self.low <= sp && sp < self.end
    }
}

/// The first thread's stack, which the C library can tell by reading /proc only. Written once at start,
/// so that there is nothing in it to model.
static FIRST_LOW: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
static FIRST_END: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

/// Remembers where the first thread's stack is. Called once, at start.
pub fn init() {
    let end = crate::sys::aux::stack_end().get();
    let size = crate::sys::limits::stack().min(MAX_DEPTH);
    FIRST_LOW.store(end.saturating_sub(size), Ordering::Relaxed);
    FIRST_END.store(end, Ordering::Relaxed);
}

/// One past the last stack byte that may be read from `sp` on: `sp`, if it lies in neither stack. Code
/// that runs on a stack of its own making is not followed.
fn stack_end(sp: usize, stack: Stack) -> usize {
    let first = Stack { low: FIRST_LOW.load(Ordering::Relaxed), end: FIRST_END.load(Ordering::Relaxed) };
    [stack, first].into_iter().find(|stack| stack.holds(sp)).map_or(sp, |stack| stack.end)
}

/// Up to `depth` frames from `site` outwards; `stack` is the running thread's, empty if unknown.
pub fn capture(site: Site, depth: usize, stack: Stack) -> Frames {
    let mut frames = Frames::EMPTY;
    if depth == 0 {
        return frames;
    }
    if site.pc != 0 {
        frames.push(site.pc);
    }
    let end = stack_end(site.sp, stack);
    let mut low = site.sp;
    let mut frame = site.fp;
    while frames.len < depth.min(MAX_FRAMES) {
        let in_stack = frame >= low && frame.is_multiple_of(8) && frame.saturating_add(16) <= end;
        if !in_stack {
            break;
        }
        // SAFETY: both words lie between the thread's stack pointer and the end of its stack.
        let (next, pc) = unsafe {
            let words = Addr::new(frame).as_ptr::<usize>();
            (words.read_volatile(), words.add(1).read_volatile())
        };
        // A return address in the first page is none: the frame is not one.
        if pc < PAGE_SIZE {
            break;
        }
        frames.push(pc);
        low = frame + 16;
        frame = next;
    }
    frames
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
    log_words: usize,
    /// Words of the log in use; word 0 is never used.
    used: AtomicUsize,
}

// SAFETY: both mappings hold atomics and live as long as the process.
unsafe impl Send for Depot {}
// SAFETY: as above.
unsafe impl Sync for Depot {}

impl Depot {
    /// A depot that keeps nothing.
    pub const EMPTY: Self =
        Self { table: core::ptr::null(), log: core::ptr::null(), log_words: 1, used: AtomicUsize::new(1) };

    /// Maps a depot, a small one if address space is limited; `None` if the kernel refuses.
    pub fn map(limited: bool) -> Option<Self> {
        let log_words = if limited { LOG_WORDS_LIMITED } else { LOG_WORDS };
        let table = vm::tables(4 << TABLE_SHIFT)?;
        let log = vm::tables(log_words * 8)?;
        Some(Self { table: table.as_ptr(), log: log.as_ptr(), log_words, used: AtomicUsize::new(1) })
    }

    fn entry(&self, index: usize) -> &AtomicU32 {
        // SAFETY: masked to the table's length; zeroed memory is a valid atomic.
        unsafe { &*self.table.add(index & ((1 << TABLE_SHIFT) - 1)) }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: masked to the log's length; zeroed memory is a valid atomic.
        unsafe { &*self.log.add(index & (self.log_words - 1)) }
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
        let at = self.used.fetch_add(pcs.len() + 1, Ordering::Relaxed);
        if at.saturating_add(pcs.len() + 1) > self.log_words {
            self.used.store(self.log_words, Ordering::Relaxed);
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
        let mut frames = Frames::EMPTY;
        let at = number as usize;
        if self.log.is_null() || at == 0 || at >= self.log_words {
            return frames;
        }
        let len = self.word(at).load(Ordering::Relaxed).min(MAX_FRAMES as u64) as usize;
        for index in 0..len {
            frames.push(self.word(at + 1 + index).load(Ordering::Relaxed) as usize);
        }
        frames
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
    fn wild_numbers_are_harmless() {
        let depot = Depot::map(true).expect("mapping");
        assert!(depot.get(u32::MAX).as_slice().is_empty());
        assert!(depot.get(12345).as_slice().is_empty());
    }

    #[test]
    fn garbage_frame_pointers_end_the_walk() {
        let (_, _, sp) = thread::frame();
        for fp in [0, 1, 8, usize::MAX - 7, sp + 1] {
            let stack = Stack { low: sp - 4096, end: sp + 64 };
            assert_eq!(capture(Site { pc: 4096, sp, fp }, 16, stack).as_slice(), [4096]);
            assert_eq!(capture(Site { pc: 4096, sp, fp }, 16, Stack::default()).as_slice(), [4096]);
        }
    }
}
