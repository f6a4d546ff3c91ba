//! The marks of poisoned bytes: a table for a region of addresses, out of line.
//!
//! ```text
//! table:  | a bit a byte | words of owners | a bit a page: dirty | a bit a page: closed |
//! ```
//!
//! | part | meaning | changed |
//! |---|---|---|
//! | bits | the byte is poisoned | by the byte's owner in the program, a word at a time, without a lock |
//! | saved | the state of a slot while its state word is `POISONED` | under [`LOCK`] |
//! | dirty | the page may have poisoned bytes; other pages are skipped | with the bits: set after them, cleared when they are all clear, and set again if they are not then; a fence lies between either two |
//! | closed | the page was closed because all its bytes are poisoned | under [`LOCK`] |
//!
//! The first poison maps the table. The table is far larger than the part that is ever touched. Its bits mean something
//! only for an object that is marked as having poisoned bytes, so a reader checks the object first. `src/README.md` has
//! the protocol.

use crate::addr::{Addr, PAGE_SHIFT, PAGE_SIZE, PageCount, Span};
use crate::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Lock, Rank};
use crate::sys::vm;
use core::ops::Range;

/// Taken by a thread that marks an object as having poisoned bytes, or closes or opens pages for it.
pub static LOCK: Lock<()> = Lock::new(Rank::Poison, ());

/// In a forked child: releases the lock of a thread that is not there. What it left needs no repair.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit() {
    // SAFETY: as the caller says.
    unsafe { LOCK.inherit(|()| ()) };
}

/// Of the slab allocator's region.
pub static SLOTS: Marks = Marks::NONE;
/// Of the page allocator's arena.
pub static PAGES: Marks = Marks::NONE;

const BITS: usize = u64::BITS as usize;
/// Bytes of a word of bits in the table, and of a saved state. The models' atomics are larger.
const WORD: usize = size_of::<AtomicU64>();
const STATE: usize = size_of::<AtomicU16>();
/// Words of the bits of a page.
const PAGE_WORDS: usize = PAGE_SIZE / BITS;
/// Bytes of a region for a page of its bits.
const TABLE_PAGE: usize = PAGE_SIZE * 8;

/// The marks of one region.
pub struct Marks {
    start: AtomicUsize,
    len: AtomicUsize,
    /// The table; 0 as long as there is none.
    table: AtomicUsize,
}

/// A mapped table.
#[derive(Clone, Copy)]
struct Table {
    start: usize,
    len: usize,
    base: Addr,
}

impl Marks {
    const NONE: Self =
        Self { start: AtomicUsize::new(0), len: AtomicUsize::new(0), table: AtomicUsize::new(0) };

    /// Maps the table for `region`, whose ends are multiples of a page, if there is none; `false` if the kernel refuses.
    /// The caller has [`LOCK`].
    pub fn open(&self, region: &Range<usize>) -> bool {
        if self.table().is_some() {
            return true;
        }
        let len = region.len();
        let Some(base) = bytes_of(len).and_then(vm::sparse_tables).filter(|_| len != 0) else { return false };
        self.start.store(region.start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.table.store(base.get(), Ordering::Release);
        true
    }

    fn table(&self) -> Option<Table> {
        let base = self.table.load(Ordering::Acquire);
        let (start, len) = (self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        (base != 0).then_some(Table { start, len, base: Addr::new(base) })
    }

    /// Marks bytes of one object as poisoned.
    pub fn set(&self, bytes: &Range<usize>) {
        let Some(table) = self.table() else { return };
        table.set_bits(bytes);
        // A thread that clears a page's dirty bit reads the bits again. Either it sees these bits, or this thread sees no dirty bit.
        fence(Ordering::SeqCst);
        table.set_dirty(bytes);
    }

    /// A mutation for the models: the look at the dirty bit may come before the bits are seen.
    #[cfg(loom)]
    pub fn set_without_fence(&self, bytes: &Range<usize>) {
        let Some(table) = self.table() else { return };
        table.set_bits(bytes);
        table.set_dirty(bytes);
    }

    /// A mutation for the models: the pages are marked first.
    #[cfg(loom)]
    pub fn set_dirty_first(&self, bytes: &Range<usize>) {
        let Some(table) = self.table() else { return };
        table.set_dirty(bytes);
        table.set_bits(bytes);
    }

    /// Marks bytes of one object as not poisoned.
    pub fn clear(&self, bytes: &Range<usize>) {
        let Some(table) = self.table() else { return };
        table.each_dirty_page(bytes, |page| {
            let part = page.start.max(bytes.start)..page.end.min(bytes.end);
            table.each_word(&part, |word, mask| match mask {
                u64::MAX => word.store(0, Ordering::Release),
                part => {
                    word.fetch_and(!part, Ordering::AcqRel);
                }
            });
            if table.is_clear(&page) {
                table.each_dirty(&page, |word, mask| {
                    word.fetch_and(!mask, Ordering::AcqRel);
                    fence(Ordering::SeqCst);
                    // Somebody may have poisoned another object's bytes, or others of this one, meanwhile.
                    if !table.is_clear(&page) {
                        word.fetch_or(mask, Ordering::AcqRel);
                    }
                });
            }
            true
        });
    }

    /// Marks no byte of an object as poisoned, whose life ends, and gives the table's memory for it back.
    pub fn forget(&self, bytes: &Range<usize>) {
        self.clear(bytes);
        self.release_memory(bytes);
    }

    /// Gives the memory back of that part of the table which is for `bytes` alone, and where nothing is marked.
    pub fn release_memory(&self, bytes: &Range<usize>) {
        let Some(table) = self.table() else { return };
        let first = (bytes.start - table.start).div_ceil(TABLE_PAGE);
        let end = (bytes.end - table.start) / TABLE_PAGE;
        if let Some(pages) = end.checked_sub(first).filter(|pages| *pages != 0) {
            // What the kernel does not take stays clear.
            let _ = vm::discard(Span::new(table.base.plus(first * PAGE_SIZE), PageCount::new(pages)));
        }
    }

    /// The first of some bytes that is poisoned.
    pub fn first(&self, bytes: &Range<usize>) -> Option<usize> {
        let table = self.table()?;
        let mut found = None;
        table.each_dirty_page(bytes, |page| {
            let part = page.start.max(bytes.start)..page.end.min(bytes.end);
            found = table.find(&part, |bits| bits);
            found.is_none()
        });
        found
    }

    /// The poisoned bytes around `at`, which is one of `object`'s; `None` if it is not poisoned.
    pub fn around(&self, at: usize, object: &Range<usize>) -> Option<Range<usize>> {
        let table = self.table()?;
        self.first(&(at..at + 1))?;
        let end = table.find(&(at..object.end), |bits| !bits).unwrap_or(object.end);
        let mut start = at;
        while start > object.start && self.first(&(start - 1..start)).is_some() {
            // A whole word at a time where all of it is poisoned.
            let whole = start - BITS.min(start - object.start);
            start = if table.find(&(whole..start), |bits| !bits).is_none() { whole } else { start - 1 };
        }
        Some(start..end)
    }

    /// Whether all bytes of the page at `page` are poisoned.
    pub fn is_full(&self, page: usize) -> bool {
        self.table().is_some_and(|table| table.find(&(page..page + PAGE_SIZE), |bits| !bits).is_none())
    }

    /// Whether the page at `page` was closed since it is full.
    pub fn is_closed(&self, page: usize) -> bool {
        let table = self.table();
        table.is_some_and(|table| {
            let (word, mask) = table.closed(page);
            word.load(Ordering::Acquire) & mask != 0
        })
    }

    /// Says whether a page is closed. The caller has [`LOCK`].
    pub fn set_closed(&self, page: usize, closed: bool) {
        let Some(table) = self.table() else { return };
        let (word, mask) = table.closed(page);
        match closed {
            true => word.fetch_or(mask, Ordering::AcqRel),
            false => word.fetch_and(!mask, Ordering::AcqRel),
        };
    }

    /// What is saved for the slot at `start`, a multiple of 16.
    pub fn saved(&self, start: usize) -> u16 {
        self.table().map_or(0, |table| table.saved(start).load(Ordering::Acquire))
    }

    /// Saves it. The caller has [`LOCK`].
    pub fn save(&self, start: usize, state: u16) {
        if let Some(table) = self.table() {
            table.saved(start).store(state, Ordering::Release);
        }
    }

    /// Gives back what is for none of the `parts` that are left of the region, in which all objects lie.
    pub fn cut<P: Iterator<Item = Range<usize>>>(&self, parts: impl Fn() -> P) {
        let Some(table) = self.table() else { return };
        let region_end = table.start + table.len;
        let mut at = table.start;
        while at < region_end {
            if let Some(inside) = parts().find(|part| part.contains(&at)) {
                at = inside.end;
                continue;
            }
            let next =
                parts().map(|part| part.start).filter(|start| *start > at).fold(region_end, usize::min);
            table.release(at - table.start..next - table.start);
            at = next;
        }
    }
}

/// Bytes of the table for a region of `len` bytes.
fn bytes_of(len: usize) -> Option<usize> {
    bits_of(len).checked_add(saved_of(len))?.checked_add(pages_of(len).checked_mul(2)?)
}

/// Bytes of the bits.
const fn bits_of(len: usize) -> usize {
    (len / BITS * WORD).next_multiple_of(PAGE_SIZE)
}

/// Bytes of the saved states: there is one for 16 bytes of the region.
const fn saved_of(len: usize) -> usize {
    (len / 16 * STATE).next_multiple_of(PAGE_SIZE)
}

/// Bytes of the bits of pages of one kind.
const fn pages_of(len: usize) -> usize {
    (len.div_ceil(PAGE_SIZE * BITS) * WORD).next_multiple_of(PAGE_SIZE)
}

impl Table {
    /// The word at `offset` bytes from the table's start.
    fn word(&self, offset: usize) -> &'static AtomicU64 {
        // SAFETY: the table has a word for every address of its region, is mapped for good but for what no object has any
        // more, and is changed by atomics alone. Callers pass offsets that addresses of the region lead to.
        unsafe { &*self.base.plus(offset).as_ptr::<AtomicU64>() }
    }

    fn pages_at(&self) -> usize {
        bits_of(self.len) + saved_of(self.len)
    }

    /// The slot's saved state.
    fn saved(&self, start: usize) -> &'static AtomicU16 {
        let offset = bits_of(self.len) + (start - self.start) / 16 * STATE;
        // SAFETY: the offset lies in the table, as callers pass starts of slots in the region, and is a
        // multiple of a state's size.
        unsafe { &*self.base.plus(offset).as_ptr::<AtomicU16>() }
    }

    /// The bit of a page in the part that says which are closed.
    fn closed(&self, page: usize) -> (&'static AtomicU64, u64) {
        let index = (page - self.start) >> PAGE_SHIFT;
        (self.word(self.pages_at() + pages_of(self.len) + index / BITS * WORD), 1 << (index % BITS))
    }

    /// Calls `visit` with each word of a bitmap at `at` and the mask of its bits from `first` to `end`.
    fn each_bit_word(
        &self,
        at: usize,
        first: usize,
        end: usize,
        mut visit: impl FnMut(&'static AtomicU64, u64),
    ) {
        let mut bit = first;
        while bit < end {
            let (within, left) = (bit % BITS, end - bit);
            let count = left.min(BITS - within);
            visit(self.word(at + bit / BITS * WORD), mask(within, count));
            bit += count;
        }
    }

    fn set_bits(&self, bytes: &Range<usize>) {
        self.each_word(bytes, |word, mask| match mask {
            u64::MAX => word.store(mask, Ordering::Release),
            part => {
                word.fetch_or(part, Ordering::AcqRel);
            }
        });
    }

    fn set_dirty(&self, bytes: &Range<usize>) {
        self.each_dirty(bytes, |word, mask| {
            if word.load(Ordering::Relaxed) & mask != mask {
                word.fetch_or(mask, Ordering::AcqRel);
            }
        });
    }

    fn each_word(&self, bytes: &Range<usize>, visit: impl FnMut(&'static AtomicU64, u64)) {
        self.each_bit_word(0, bytes.start - self.start, bytes.end - self.start, visit);
    }

    fn each_dirty(&self, bytes: &Range<usize>, visit: impl FnMut(&'static AtomicU64, u64)) {
        let first = (bytes.start - self.start) / PAGE_SIZE;
        let end = (bytes.end - self.start).div_ceil(PAGE_SIZE);
        self.each_bit_word(self.pages_at(), first, end, visit);
    }

    /// Calls `visit` with each page of `bytes` that may have poisoned ones, until it says `false`.
    fn each_dirty_page(&self, bytes: &Range<usize>, mut visit: impl FnMut(Range<usize>) -> bool) {
        let mut page = (bytes.start - self.start) / PAGE_SIZE;
        let end = (bytes.end - self.start).div_ceil(PAGE_SIZE);
        while page < end {
            let dirty =
                self.word(self.pages_at() + page / BITS * WORD).load(Ordering::Acquire) >> (page % BITS);
            if dirty == 0 {
                page = (page / BITS + 1) * BITS;
                continue;
            }
            page += dirty.trailing_zeros() as usize;
            let start = self.start + page * PAGE_SIZE;
            if page >= end || !visit(start..start + PAGE_SIZE) {
                return;
            }
            page += 1;
        }
    }

    /// Whether no byte of a page is poisoned.
    fn is_clear(&self, page: &Range<usize>) -> bool {
        let first = (page.start - self.start) / BITS;
        (first..first + PAGE_WORDS).all(|word| self.word(word * WORD).load(Ordering::Acquire) == 0)
    }

    /// The first of some bytes whose bit is set after `change`.
    fn find(&self, bytes: &Range<usize>, change: impl Fn(u64) -> u64) -> Option<usize> {
        let (mut bit, end) = (bytes.start - self.start, bytes.end.saturating_sub(self.start));
        while bit < end {
            let within = bit % BITS;
            let count = (end - bit).min(BITS - within);
            let bits = change(self.word(bit / BITS * WORD).load(Ordering::Acquire)) & mask(within, count);
            if bits != 0 {
                return Some(self.start + bit - within + bits.trailing_zeros() as usize);
            }
            bit += count;
        }
        None
    }

    /// Gives back the whole pages of all parts that are for a range of the region alone.
    fn release(&self, gap: Range<usize>) {
        let closed_at = self.pages_at() + pages_of(self.len);
        for (at, scale) in
            [(0, 8), (bits_of(self.len), 8), (self.pages_at(), PAGE_SIZE * 8), (closed_at, PAGE_SIZE * 8)]
        {
            let first = self.base.plus(at + gap.start.div_ceil(scale)).get().next_multiple_of(PAGE_SIZE);
            let end = self.base.plus(at + gap.end / scale).page_floor().get();
            if let Some(bytes) = end.checked_sub(first).filter(|bytes| *bytes != 0) {
                vm::unreserve(Span::new(Addr::new(first), PageCount::holding(bytes)));
            }
        }
    }
}

/// `count` bits from bit `first` on.
const fn mask(first: usize, count: usize) -> u64 {
    u64::MAX >> (BITS - count) << first
}

// The models' memory is mapped by nobody.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const START: usize = 0x7000_0000_0000;
    const LEN: usize = 64 << 20;

    fn marks() -> Marks {
        let marks = Marks::NONE;
        assert!(marks.open(&(START..START + LEN)));
        marks
    }

    fn at(from: usize, to: usize) -> Range<usize> {
        START + from..START + to
    }

    /// Beside a plain list of bytes, for ranges of any place and length around words and pages.
    #[test]
    fn bytes_are_marked_one_by_one() {
        let (marks, len) = (marks(), 5 * PAGE_SIZE);
        let mut expected = std::vec![false; len];
        let mut word = 1_u64;
        for round in 0..4000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let span = [3, 70, 700, 2 * PAGE_SIZE][round % 4];
            let from = (word >> 33) as usize % len;
            let to = (from + 1 + (word >> 17) as usize % span).min(len);
            let poisoned = word >> 63 != 0;
            match poisoned {
                true => marks.set(&at(from, to)),
                false => marks.clear(&at(from, to)),
            }
            expected[from..to].fill(poisoned);
            let (a, b) = (from.saturating_sub(80), (to + 80).min(len));
            let first = expected[a..b].iter().position(|byte| *byte).map(|index| START + a + index);
            assert_eq!(marks.first(&at(a, b)), first, "{round}");
            let run = expected[from].then(|| {
                let end = expected[from..].iter().position(|byte| !byte).map_or(len, |index| from + index);
                let start = expected[..from].iter().rposition(|byte| !byte).map_or(0, |index| index + 1);
                at(start, end)
            });
            assert_eq!(marks.around(START + from, &at(0, len)), run, "{round}");
            for page in 0..5 {
                let whole = expected[page * PAGE_SIZE..][..PAGE_SIZE].iter().all(|byte| *byte);
                assert_eq!(marks.is_full(START + page * PAGE_SIZE), whole);
            }
        }
        marks.forget(&at(0, len));
        assert_eq!(marks.first(&at(0, LEN)), None);
    }

    #[test]
    fn large_ranges_are_passed_over() {
        let marks = marks();
        marks.set(&at(LEN - 1, LEN));
        assert_eq!(marks.first(&at(0, LEN)), Some(START + LEN - 1));
        assert_eq!(marks.first(&at(0, LEN - 1)), None);
        marks.set(&at(1 << 20, 33 << 20));
        assert_eq!(marks.around(START + (20 << 20) + 7, &at(0, LEN)), Some(at(1 << 20, 33 << 20)));
        marks.forget(&at(0, LEN));
        assert_eq!(marks.first(&at(0, LEN)), None);
    }

    /// What is for the parts that are left stays as it is.
    #[test]
    fn a_cut_keeps_what_objects_have() {
        let marks = marks();
        let parts = [at(40 << 20, 41 << 20), at(3 << 20, (3 << 20) + 5 * PAGE_SIZE)];
        for part in &parts {
            marks.set(part);
            marks.save(part.start, 77);
            marks.set_closed(part.start, true);
        }
        marks.cut(|| parts.iter().cloned());
        for part in &parts {
            assert_eq!(marks.around(part.start, part), Some(part.clone()));
            assert!(
                marks.saved(part.start) == 77 && marks.is_closed(part.start) && marks.is_full(part.start)
            );
        }
        let gone = Addr::new(marks.table.load(Ordering::Relaxed) + (20 << 20) / 8);
        assert_eq!(vm::peek(gone, &mut [0]), 0);
    }
}
