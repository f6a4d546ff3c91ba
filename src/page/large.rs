//! Large objects: whole chunks of address space, opened exactly as far as the object reaches.
//!
//! The pages around a large object are reserved and were never opened, so no guard is installed. The object is a
//! mapping of its own, as in any allocator, and huge pages may serve it. The rest of its chunks is room to grow in
//! place. Chunks are used in order, round and round.
//!
//! # Outside the arena
//!
//! Where address space is limited the arena is small. A large object that does not fit into it is mapped alone, between
//! two guard pages. A hash table by page number with linear probing leads from its address to its record. Such an
//! object has less protection than one in the arena: after its free the kernel may give its addresses to any other
//! mapping.

use super::arena::{Arena, CHUNK_BYTES, CHUNK_PAGES};
use super::placement::{address, alignment};
use super::{PageAllocator, Side};
use crate::addr::{Addr, PAGE_SHIFT, PAGE_SIZE, PageCount, Span};
use crate::fault::Event;
use crate::meta::{Record, RecordId, Records};
use crate::request::Request;
use crate::rng::Rng;
use crate::sync::atomic::Ordering;
use crate::sys::vm;
use core::ops::Range;

/// The most guard pages before an object, chosen at random.
const MAX_GAP: u64 = 64;

/// Blocks that are looked at when objects come to lie in another.
const LOOKS: usize = 2;

/// Chunks behind the last object that are left alone: of those objects many still live.
const LAG: usize = 8 * 512;

/// Objects of so many pages at most get room to double in place,
const ROOMY_PAGES: usize = 16 << 10;
/// in an arena that has so many chunks for large ones at least.
const ROOMY_CHUNKS: usize = 1 << 15;

/// The area's state, under its lock.
pub struct Large {
    /// The next chunk to look at; 0 before the first object.
    next: usize,
    /// The first that was looked at.
    origin: usize,
    /// Whether it came round already.
    went_round: bool,
    /// Whether there are no chunks for further objects.
    closed: bool,
    /// The chunks from which on page tables and names are to be given back; see [`Large::forget_old`].
    tables_from: usize,
    names_from: usize,
    /// Whether an object reached the end of its block since then.
    left: bool,
}

impl Large {
    /// An area that has not been used.
    pub const NEW: Self = Self {
        next: 0,
        origin: 0,
        went_round: false,
        closed: false,
        tables_from: 0,
        names_from: 0,
        left: false,
    };

    /// Places no more objects; the chunks that it may have used.
    pub fn close(&mut self) -> Range<usize> {
        self.closed = true;
        if self.went_round { 0..usize::MAX - 1 } else { self.origin..self.next }
    }

    /// Finds chunks for an object of `pages` pages with room for `room` pages in all, aligned to
    /// `align` bytes, and hands them to `claim` under the lock. The object's span, closed.
    pub fn reserve(
        &mut self,
        arena: &Arena,
        pages: PageCount,
        room: PageCount,
        align: usize,
        rng: &mut Rng,
        claim: impl FnOnce(usize, usize),
    ) -> Option<Span> {
        let area = arena.large_chunks();
        let aligned = align.max(PAGE_SIZE);
        let gap = PageCount::new(1 + rng.below(MAX_GAP) as usize).bytes();
        // Gap before, the object wherever alignment puts it, and a guard page behind.
        let bytes =
            gap.checked_add(aligned)?.checked_add(room.get().max(pages.get()).checked_mul(PAGE_SIZE)?)?;
        let count = bytes.div_ceil(CHUNK_BYTES);
        if self.closed || count > area.len() {
            return None;
        }
        if self.next < area.start {
            self.next = area.start + rng.below((area.len() - count + 1) as u64 / 2) as usize;
            self.origin = self.next;
            (self.tables_from, self.names_from) = (self.next, self.next);
        }
        let first = self.find(arena, &area, count)?;
        self.left |= first + count >= arena.block_at(first).end;
        self.went_round |= first < self.next;
        self.next = first + count;
        claim(first, count);
        let low = arena.chunk_span(first, 1).start.plus(gap);
        let start = low.plus(aligned - 1).align_floor(aligned);
        Some(Span::new(start, pages))
    }

    /// Chunks that freed objects left behind cost memory: page tables, and the names of their records. Whoever reaches
    /// the end of a block of address space looks at the two oldest, unless they lie near. Page tables stay where an object
    /// lies in the block. Names of objects that are remembered stay, and are waited for through half of the area.
    pub fn forget_old(&mut self, arena: &Arena, records: &Records) {
        let stale = |id, chunk: Span| {
            records.get(id).is_none_or(|record| {
                let span = record.span();
                span.end() <= chunk.start || span.start >= chunk.end()
            })
        };
        let area = arena.large_chunks();
        let next = self.next;
        let passed = |from: usize| next.checked_sub(from).unwrap_or_else(|| area.len() - (from - next));
        let left = |from: usize| Some(arena.block_at(from)).filter(|block| passed(from) >= block.len() + LAG);
        let after = |block: &Range<usize>| if block.end < area.end { block.end } else { area.start };
        for _ in 0..if core::mem::take(&mut self.left) { LOOKS } else { 0 } {
            if let Some(block) = left(self.tables_from) {
                arena.release_tables(&block);
                self.tables_from = after(&block);
            }
            if let Some(block) = left(self.names_from)
                && (arena.forget_large(&block, stale) || passed(self.names_from) > area.len() / 2)
            {
                self.names_from = after(&block);
            }
        }
    }

    /// The next run of free chunks, from where the last ended, once round.
    fn find(&self, arena: &Arena, area: &Range<usize>, count: usize) -> Option<usize> {
        let search = |mut first: usize, end: usize| {
            while first + count <= end {
                if arena.are_free(first, count) {
                    return Some(first);
                }
                first += 1;
            }
            None
        };
        search(self.next, area.end).or_else(|| search(area.start, (self.next + count).min(area.end)))
    }
}

/// The chunks that the object in `span` has: first and number.
pub fn chunks(arena: &Arena, span: Span, owned: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let mut first = arena.chunk_of(span.start)?;
    while first > arena.large_chunks().start && owned(first - 1) {
        first -= 1;
    }
    let mut end = arena.chunk_of(span.start)? + 1;
    while owned(end) {
        end += 1;
    }
    Some((first, end - first))
}

/// Pages that the object in `span` may grow to in place: up to the last page of its chunks.
pub fn room(arena: &Arena, span: Span, first: usize, count: usize) -> PageCount {
    let end = arena.chunk_span(first, count).end().minus(PAGE_SIZE);
    PageCount::new(end.offset_from(span.start).unwrap_or(0) / PAGE_SIZE)
}

/// Gives a large object's pages another length; `false` if the kernel refuses to open more.
pub fn resize(span: Span, pages: PageCount) -> bool {
    let new_end = span.start.plus(pages.bytes());
    match pages.get().checked_sub(span.pages.get()) {
        Some(0) => true,
        Some(more) => vm::commit(Span::new(span.end(), PageCount::new(more))),
        None => vm::decommit(Span::new(new_end, PageCount::new(span.pages.get() - pages.get()))),
    }
}

const _: () = assert!(CHUNK_PAGES > MAX_GAP as usize + 2, "a chunk holds gap, object and guard");

/// log2 of the table's length.
const TABLE_SHIFT: u32 = 16;
const TABLE_LEN: usize = 1 << TABLE_SHIFT;
/// Of which so many are used at most, so that probing ends soon.
const MOST: usize = TABLE_LEN / 4 * 3;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The page number of the object's address; 0 for an unused entry.
    page: usize,
    record: u32,
}

const UNUSED: Entry = Entry { page: 0, record: 0 };

/// The objects, under their lock.
pub struct Detached {
    table: Option<&'static mut [Entry; TABLE_LEN]>,
    count: usize,
}

impl Detached {
    /// No objects.
    pub const NEW: Self = Self { table: None, count: 0 };

    /// Maps `pages` pages between two guards and opens them, aligned to `align` bytes if that is more than a page; the
    /// object is added by [`Detached::add`].
    pub fn map(&mut self, pages: PageCount, align: usize) -> Option<Span> {
        if self.table.is_none() {
            let base = vm::tables(core::mem::size_of::<[Entry; TABLE_LEN]>())?;
            // SAFETY: a fresh zeroed mapping of this size, never unmapped, referred to from here alone;
            // zero bytes are unused entries.
            self.table = Some(unsafe { &mut *base.as_ptr::<[Entry; TABLE_LEN]>() });
        }
        if self.count >= MOST {
            return None;
        }
        let guarded = pages.get().checked_add(2)?.checked_mul(PAGE_SIZE)?;
        let room = align.max(PAGE_SIZE) - PAGE_SIZE;
        let outer = vm::reserve(guarded.checked_add(room)?, PAGE_SIZE)?;
        let start = outer.start.plus(PAGE_SIZE + room).align_floor(align.max(PAGE_SIZE));
        let span = Span::new(start, pages);
        if !vm::commit(span) {
            vm::unmap(outer);
            return None;
        }
        let inner = Span::new(start.minus(PAGE_SIZE), PageCount::holding(guarded));
        let before = inner.start.offset_from(outer.start)?;
        vm::unmap(Span::new(outer.start, PageCount::holding(before)));
        vm::unmap(Span::new(inner.end(), PageCount::holding(room.saturating_sub(before))));
        Some(span)
    }

    /// Names the record of the object at `address`.
    pub fn add(&mut self, address: Addr, record: RecordId) {
        let page = address.get() >> PAGE_SHIFT;
        let Some(table) = &mut self.table else { return };
        for index in probes(page) {
            if let Some(entry) = table.get_mut(index).filter(|entry| entry.page == 0) {
                *entry = Entry { page, record: record.0 };
                self.count += 1;
                return;
            }
        }
    }

    /// The record of the object whose first byte lies in the page of `address`.
    pub fn find(&self, address: Addr) -> RecordId {
        let page = address.get() >> PAGE_SHIFT;
        let Some(table) = &self.table else { return RecordId(0) };
        for index in probes(page) {
            match table.get(index) {
                Some(entry) if entry.page == page => return RecordId(entry.record),
                Some(entry) if entry.page != 0 => {}
                _ => break,
            }
        }
        RecordId(0)
    }

    /// Unmaps the object at `address` in `span`, guards included.
    pub fn remove(&mut self, address: Addr, span: Span) {
        let page = address.get() >> PAGE_SHIFT;
        let Some(table) = &mut self.table else { return };
        let Some(mut hole) =
            probes(page).find(|index| table.get(*index).is_some_and(|entry| entry.page == page))
        else {
            return;
        };
        self.count -= 1;
        // Entries behind the hole move up unless they already stand at or after their home.
        let mut next = hole;
        loop {
            next = (next + 1) % TABLE_LEN;
            let entry = table.get(next).copied().unwrap_or(UNUSED);
            if entry.page == 0 {
                break;
            }
            let home = home(entry.page);
            let reach = next.wrapping_sub(home) % TABLE_LEN;
            if reach >= next.wrapping_sub(hole) % TABLE_LEN {
                table[hole % TABLE_LEN] = entry;
                hole = next;
            }
        }
        table[hole % TABLE_LEN] = UNUSED;
        vm::unmap(Span::new(span.start.minus(PAGE_SIZE), PageCount::new(span.pages.get() + 2)));
    }

    /// Makes the table anew of those entries that a live record confirms: a thread that was in the middle of a change
    /// may have left an entry twice, or half written.
    pub fn rebuild(&mut self, records: &Records) {
        let Some(table) = &mut self.table else { return };
        let is_known = |entry: &Entry| {
            let live = records.get(RecordId(entry.record)).filter(|record| record.is_live());
            entry.page != 0 && live.is_some_and(|record| record.address().get() >> PAGE_SHIFT == entry.page)
        };
        // From a place on that is unused, over which no search leads: what is put in again comes to lie at or before
        // the place where it was, and what lies before that was put in again already.
        let start = table.iter().position(|entry| entry.page == 0).unwrap_or(0);
        self.count = 0;
        for step in 0..TABLE_LEN {
            let Some(place) = table.get_mut((start + step) % TABLE_LEN) else { return };
            let entry = core::mem::replace(place, UNUSED);
            if !is_known(&entry) {
                continue;
            }
            for index in probes(entry.page) {
                match table.get_mut(index) {
                    Some(place) if place.page == 0 => {
                        *place = entry;
                        self.count += 1;
                    }
                    Some(place) if *place != entry => continue,
                    _ => {}
                }
                break;
            }
        }
    }

    /// The records of all objects, for reports.
    pub fn records(&self) -> impl Iterator<Item = RecordId> + '_ {
        let entries = self.table.iter().flat_map(|table| table.iter());
        entries.filter(|entry| entry.page != 0).map(|entry| RecordId(entry.record))
    }
}

fn home(page: usize) -> usize {
    ((page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_SHIFT)) as usize
}

fn probes(page: usize) -> impl Iterator<Item = usize> {
    let home = home(page);
    (0..TABLE_LEN).map(move |step| (home + step) % TABLE_LEN)
}

impl PageAllocator {
    /// Allocates in whole chunks, or where these are used up, in a mapping apart.
    pub(super) fn allocate_large(
        &self,
        request: &Request,
        side: Side,
        pages: PageCount,
        shard: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        let align = alignment(request, self.config.exact);
        // Alignments of a page and more place the object at the start of its pages, whichever side was asked for.
        if let Some((id, record, span)) = self.reserve_large(pages, align, shard, rng) {
            // What has zero bytes has nothing that could be opened.
            if request.size != 0 && !vm::commit(span) {
                self.cancel_large(span, id, shard);
                return None;
            }
            let start = address(span, request.size, align, side);
            self.finish(record, start, request, span, side, event, shard);
            return Some(start);
        }
        if request.size == 0 {
            return None;
        }
        let id = self.new_record(shard)?;
        let (record, span) = (self.records.get(id)?, self.detached.lock_signal_safe()?.map(pages, align));
        let Some(span) = span else {
            self.remember(shard, id);
            return None;
        };
        let start = address(span, request.size, align, side);
        self.finish(record, start, request, span, side, event, shard);
        self.detached.lock_signal_safe()?.add(start, id);
        self.any_detached.store(true, Ordering::Release);
        Some(start)
    }

    /// Claims whole chunks for an object of `pages` pages, with room to grow to twice as many where there is
    /// enough address space. The object's pages are closed, and nobody knows its record yet.
    pub(super) fn reserve_large(
        &self,
        pages: PageCount,
        align: usize,
        shard: usize,
        rng: &mut Rng,
    ) -> Option<(RecordId, &Record, Span)> {
        let roomy = pages.get() <= ROOMY_PAGES && self.arena.large_chunks().len() >= ROOMY_CHUNKS;
        let room = PageCount::new(if roomy { 2 * pages.get() } else { pages.get() });
        let id = self.new_record(shard)?;
        let record = self.records.get(id)?;
        let span = self.large.enter().and_then(|mut large| {
            let span = large.reserve(&self.arena, pages, room, align, rng, |first, count| {
                self.arena.set_large(first, count, Some(id));
            });
            large.forget_old(&self.arena, &self.records);
            span
        });
        let Some(span) = span else {
            self.remember(shard, id);
            return None;
        };
        let clean = !self.any_allowed.load(Ordering::Relaxed)
            || self
                .large_chunks(span, id)
                .is_some_and(|(first, count)| vm::decommit(self.arena.chunk_span(first, count)));
        if !clean {
            self.cancel_large(span, id, shard);
            return None;
        }
        Some((id, record, span))
    }

    /// Takes [`PageAllocator::reserve_large`] back.
    pub(super) fn cancel_large(&self, span: Span, id: RecordId, shard: usize) {
        self.free_chunks(span, id);
        self.remember(shard, id);
    }

    pub(super) fn free_chunks(&self, span: Span, id: RecordId) {
        if let Some((first, count)) = self.large_chunks(span, id) {
            self.arena.set_large(first, count, None);
        }
    }

    pub(super) fn large_chunks(&self, span: Span, id: RecordId) -> Option<(usize, usize)> {
        chunks(&self.arena, span, |chunk| self.arena.is_large(chunk, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_until_they_are_removed() {
        let mut detached = Detached::NEW;
        let mut spans = std::vec::Vec::new();
        for number in 1..=600 {
            let span =
                detached.map(PageCount::new(1 + number as usize % 3), 1 << (number % 17)).expect("mapping");
            assert!(span.start.is_aligned(1 << (number % 17)));
            detached.add(span.start, RecordId(number));
            spans.push((span, number));
        }
        for (span, number) in spans.iter().step_by(2) {
            assert_eq!(detached.find(span.start.plus(100)), RecordId(*number));
            // SAFETY: the mapping is this test's.
            unsafe { span.start.as_ptr::<u64>().write(0x5eed) };
            detached.remove(span.start, *span);
            // It is gone, and what others mapped there is not it.
            let mut word = [0; 8];
            assert!(vm::peek(span.start, &mut word) == 0 || u64::from_le_bytes(word) != 0x5eed);
        }
        for (index, (span, number)) in spans.iter().enumerate() {
            let expected = if index % 2 == 0 { 0 } else { *number };
            assert_eq!(detached.find(span.start), RecordId(expected));
        }
        assert_eq!(detached.records().count(), 300);
    }

    /// Objects whose pages have one home lie side by side in the table: the others are found when one goes.
    #[test]
    fn objects_of_one_home_stay_when_one_goes() {
        let mut detached = Detached::NEW;
        let first = detached.map(PageCount::new(1), 1).expect("mapping");
        // Beyond the address space, so that nothing is unmapped there.
        let beyond = (1 << 36)..1 << 37;
        let pages: std::vec::Vec<usize> =
            beyond.filter(|page| home(*page) == TABLE_LEN - 3).take(7).collect();
        let span = |page: usize| Span::new(Addr::new(page << PAGE_SHIFT), PageCount::new(1));
        for (page, number) in pages.iter().zip(1..) {
            detached.add(span(*page).start, RecordId(number));
        }
        for gone in [0, 3, 1, 6] {
            detached.remove(span(pages[gone]).start, span(pages[gone]));
            assert_eq!(detached.find(span(pages[gone]).start), RecordId(0));
        }
        for left in [2, 4, 5] {
            assert_eq!(detached.find(span(pages[left]).start), RecordId(left as u32 + 1));
        }
        vm::unmap(first);
    }

    /// Whatever half of a change another thread left, exactly the live objects are found.
    #[test]
    fn a_table_is_made_anew_from_live_records() {
        use crate::request::Origin;
        let records = Records::map(2048).expect("mapping");
        let mut detached = Detached::NEW;
        let mut spans = std::vec::Vec::new();
        for number in 1..=600 {
            let id = records.take_block(1).expect("room");
            assert_eq!(id.0, number);
            let span = detached.map(PageCount::new(1), 1).expect("mapping");
            let record = records.get(id).expect("in the table");
            record.allocate(span.start, 1, span, Origin::Malloc, Default::default(), 0);
            detached.add(span.start, id);
            spans.push(span);
        }
        // Freed, and still in the table.
        for number in (1..=600).step_by(3) {
            assert!(
                records.get(RecordId(number)).expect("known").begin_free(spans[number as usize - 1].start)
            );
        }
        // An entry twice, and one of which half was written.
        let table = detached.table.as_mut().expect("mapped");
        let at = table.iter().position(|entry| entry.record == 2).expect("known");
        let after = (at + 1..).find(|index| table[index % TABLE_LEN].page == 0).expect("room") % TABLE_LEN;
        table[after] = table[at];
        let torn = (after + 1..).find(|index| table[index % TABLE_LEN].page == 0).expect("room") % TABLE_LEN;
        table[torn] = Entry { page: table[at].page + 7, record: 0 };
        detached.count += 99;
        detached.rebuild(&records);
        assert_eq!((detached.count, detached.records().count()), (400, 400));
        for (index, span) in spans.iter().enumerate() {
            let expected = if index % 3 == 0 { 0 } else { index as u32 + 1 };
            assert_eq!(detached.find(span.start), RecordId(expected));
        }
    }
}
