//! Large objects outside the arena, each a mapping of its own between two guard pages.
//!
//! For processes whose address space is limited: there the arena is small, and an object that does not
//! fit into it is mapped alone, as any allocator would. The table that leads from its address to its
//! record is a hash table by page number with linear probing. Less protection than in the arena: once
//! such an object is freed its address may be used again by anybody.

use crate::addr::{Addr, PAGE_SHIFT, PAGE_SIZE, PageCount, Span};
use crate::meta::{RecordId, Records};
use crate::sys::vm;

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
            detached.remove(span.start, *span);
        }
        for (index, (span, number)) in spans.iter().enumerate() {
            let expected = if index % 2 == 0 { 0 } else { *number };
            assert_eq!(detached.find(span.start), RecordId(expected));
        }
        assert_eq!(detached.records().count(), 300);
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
