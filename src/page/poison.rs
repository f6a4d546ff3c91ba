//! Guarded objects with poisoned bytes. `src/README.md` has the protocol.
//!
//! With `close_poisoned` a page is closed like a guard when all of its bytes are poisoned, and its contents are lost.
//! Where closing costs mappings, each closed page counts as one object with mappings of its own. When none are left the
//! page stays open.

use super::PageAllocator;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::meta::Record;
use crate::meta::poison::{LOCK, PAGES};
use crate::sys::machine;
use core::ops::Range;

impl PageAllocator {
    /// Marks `bytes`, which lie in a live object, as poisoned; `false` if there is no memory for the table, or the object
    /// is not in the arena, or somebody frees it.
    pub fn poison(&self, bytes: &Range<usize>) -> bool {
        let Some(record) = self.record_of(bytes) else { return false };
        let object = bytes_of(record);
        let _lock = if record.is_poisoned() && !self.config.close_poisoned {
            None
        } else {
            let Some(lock) = LOCK.lock_signal_safe() else { return false };
            let region = self.region();
            if !PAGES.open(&(region.start.get()..region.end().get())) {
                return false;
            }
            if !record.is_poisoned() {
                PAGES.clear(&object);
            }
            if !record.mark_poisoned(Addr::new(object.start)) {
                return false;
            }
            Some(lock)
        };
        PAGES.set(bytes);
        if self.config.close_poisoned && record.is_opened() {
            // Pages that are the object's alone: others have bytes that nobody poisons.
            let pages = whole(bytes, &object);
            runs(&pages, |page| PAGES.is_full(page) && !PAGES.is_closed(page), |run| self.close_full(run));
        }
        true
    }

    /// Marks `bytes`, which lie in an object, as not poisoned, and opens their pages.
    pub fn unpoison(&self, bytes: &Range<usize>) {
        let Some(record) = self.record_of(bytes).filter(|record| record.is_poisoned()) else { return };
        let _lock = self.config.close_poisoned.then(|| LOCK.lock_signal_safe());
        self.open_closed(bytes, &bytes_of(record));
        PAGES.clear(bytes);
    }

    /// Ends the poison of an object that this thread frees or resizes.
    #[cold]
    #[inline(never)]
    pub(super) fn end_poison(&self, record: &Record) {
        let object = bytes_of(record);
        let _lock = LOCK.lock_signal_safe();
        self.open_closed(&object, &object);
        PAGES.forget(&object);
        record.unmark_poisoned();
    }

    /// The same for the object at `address`, if it has any.
    pub fn end_poison_at(&self, address: Addr) {
        if let Some(found) = self.find_live(address).filter(|found| found.record.is_poisoned()) {
            self.end_poison(found.record);
        }
    }

    /// The record of the live object in the arena that has `bytes`.
    fn record_of(&self, bytes: &Range<usize>) -> Option<&Record> {
        let (_, record) = self.live_around(Addr::new(bytes.start))?;
        let object = bytes_of(record);
        (object.start <= bytes.start && bytes.end <= object.end).then_some(record)
    }

    fn close_full(&self, run: Span) {
        let each = || (0..run.pages.get()).map(|page| run.start.get() + page * PAGE_SIZE);
        let counted = self.config.backend.costs_mappings();
        if counted && !machine::take_islands(run.pages.get() as u64) {
            return;
        }
        each().for_each(|page| PAGES.set_closed(page, true));
        if !self.config.backend.close(run) {
            each().for_each(|page| PAGES.set_closed(page, false));
            self.uncount(run);
        }
    }

    /// Opens the pages of `bytes` that are closed.
    fn open_closed(&self, bytes: &Range<usize>, object: &Range<usize>) {
        if !self.config.close_poisoned {
            return;
        }
        let pages = whole(bytes, object);
        runs(
            &pages,
            |page| PAGES.is_closed(page),
            |run| {
                let mut run = run;
                if !self.config.backend.open(run) {
                    // Opening a part of what is closed takes more mappings than opening all of it.
                    run = closed_around(run, object);
                    let _ = self.config.backend.open(run);
                }
                (0..run.pages.get())
                    .for_each(|page| PAGES.set_closed(run.start.get() + page * PAGE_SIZE, false));
                self.uncount(run);
            },
        );
    }

    fn uncount(&self, run: Span) {
        if self.config.backend.costs_mappings() {
            machine::release_islands(run.pages.get() as u64);
        }
    }

    /// The poisoned bytes around `address`, if it is one of a live object's.
    pub fn poisoned_around(&self, address: Addr) -> Option<Range<usize>> {
        let (_, record) = self.live_around(address).filter(|(_, record)| record.is_poisoned())?;
        PAGES.around(address.get(), &bytes_of(record))
    }

    /// Whether the page of `address`, of a live object, was closed since all of it is poisoned.
    pub fn is_closed_by_poison(&self, address: Addr) -> bool {
        let poisoned = self.live_around(address).is_some_and(|(_, record)| record.is_poisoned());
        poisoned && PAGES.is_closed(address.page_floor().get())
    }
}

/// Of `left` bytes of a live object from `address` on, how many come before the first that is poisoned.
pub(super) fn room(record: &Record, address: Addr, left: usize) -> usize {
    let start = address.get();
    match record.is_poisoned() && left != 0 {
        true => PAGES.first(&(start..start + left)).map_or(left, |first| first - start),
        false => left,
    }
}

fn bytes_of(record: &Record) -> Range<usize> {
    let start = record.address().get();
    start..start.saturating_add(record.size())
}

/// The pages that `bytes` have a part of and that lie in `object` as a whole.
fn whole(bytes: &Range<usize>, object: &Range<usize>) -> Range<usize> {
    let start = Addr::new(bytes.start).page_floor().get().max(object.start.next_multiple_of(PAGE_SIZE));
    let end = bytes.end.next_multiple_of(PAGE_SIZE).min(Addr::new(object.end).page_floor().get());
    start..end
}

/// Calls `visit` with the runs of pages that are as `wanted`.
fn runs(pages: &Range<usize>, wanted: impl Fn(usize) -> bool, mut visit: impl FnMut(Span)) {
    let mut page = pages.start;
    while page < pages.end {
        let start = page;
        while page < pages.end && wanted(page) {
            page += PAGE_SIZE;
        }
        match page - start {
            0 => page += PAGE_SIZE,
            bytes => visit(Span::new(Addr::new(start), PageCount::holding(bytes))),
        }
    }
}

/// The run of closed pages of `object` around one.
fn closed_around(run: Span, object: &Range<usize>) -> Span {
    let pages = whole(object, object);
    let (mut start, mut end) = (run.start.get(), run.end().get());
    while start > pages.start && PAGES.is_closed(start - PAGE_SIZE) {
        start -= PAGE_SIZE;
    }
    while end < pages.end && PAGES.is_closed(end) {
        end += PAGE_SIZE;
    }
    Span::new(Addr::new(start), PageCount::holding(end - start))
}
