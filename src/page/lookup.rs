//! From an address to what reports and sweeps say of it.

use super::{Found, PageArm, lane};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::Object;
use crate::meta::Record;
use crate::sync::atomic::Ordering;
use crate::sys::vm;

/// Pages on either side of an address in which reports look for objects.
const NEIGHBOURHOOD: isize = 64;

impl PageArm {
    /// The live object that starts at `address`.
    pub fn find_live(&self, address: Addr) -> Option<Found<'_>> {
        let id = self.record_at(address);
        let record = self.records.get(id)?;
        record.is_live_at(address).then_some(Found { record, id, address })
    }

    /// Names another family as the allocator of a live object.
    pub fn set_origin(&self, address: Addr, origin: crate::request::Origin) {
        if let Some(found) = self.find_live(address) {
            found.record.set_origin(origin);
        }
    }

    /// The detached object that `address`, a fault's, lies in or next to.
    pub fn detached_near(&self, address: Addr) -> Option<Object> {
        let objects =
            self.any_detached.load(Ordering::Acquire).then(|| self.detached.try_lock()).flatten()?;
        objects.records().find_map(|id| {
            let record = self.records.get(id)?;
            let span = record.span();
            let near = Span::new(span.start.minus(PAGE_SIZE), PageCount::new(span.pages.get() + 2));
            near.contains(address).then(|| record.object()).flatten()
        })
    }

    /// What reports say of `address`: the object that has or had its page, else the nearest one.
    pub fn object_near(&self, address: Addr) -> Option<Object> {
        let covering = |at: Addr| {
            let object = self.records.get(self.arena.record_at(at))?;
            let span = object.span();
            (span.contains(at) || self.arena.chunk_of(at) == self.arena.chunk_of(span.start))
                .then(|| object.object())
                .flatten()
        };
        if let Some(record) = self.records.get(self.arena.record_at(address))
            && (record.span().contains(address) || self.is_large_record(record))
        {
            return record.object();
        }
        (1..=NEIGHBOURHOOD).find_map(|distance| {
            let below = lane::page_at(address, -distance).and_then(covering);
            let above = lane::page_at(address, distance).and_then(covering);
            nearer(address, below, above)
        })
    }

    fn is_large_record(&self, record: &Record) -> bool {
        let chunk = self.arena.chunk_of(record.span().start);
        chunk.is_some_and(|chunk| self.arena.large_chunks().contains(&chunk))
    }

    /// Opens the page of `address`, so that an access to it goes through; for `on_error=continue`. It stays
    /// open until an object is placed in it or beside it.
    pub fn open_for_access(&self, address: Addr) -> bool {
        let span = Span::new(address.page_floor(), PageCount::new(1));
        self.let_through.store(true, Ordering::Relaxed);
        (!self.arena.contains(address) || self.config.backend.open(span)) && vm::commit(span)
    }
}

/// Of an object below and one above an address, the nearer; the one below when it is as near.
fn nearer(address: Addr, below: Option<Object>, above: Option<Object>) -> Option<Object> {
    match (below, above) {
        (Some(below), Some(above)) => {
            let after = address.offset_from(below.start.plus(below.size.unwrap_or(0))).unwrap_or(0);
            let before = above.start.offset_from(address).unwrap_or(0);
            Some(if after <= before { below } else { above })
        }
        (below, above) => below.or(above),
    }
}
