//! From an address to what reports and sweeps say of it.

use super::{Found, PageArm, lane};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::{Fault, Kind, Object};
use crate::meta::{Record, RecordId, State};
use crate::sync::atomic::Ordering;
use crate::sys::vm;

/// Pages on either side of an address in which reports look for objects.
const NEIGHBOURHOOD: isize = 64;

impl PageArm {
    /// The live object that starts at `address`.
    pub fn find_live(&self, address: Addr) -> Option<Found<'_>> {
        let id = self.record_at(address);
        let record = self.records.get(id)?;
        let live = matches!(record.state(), State::Live | State::Checking);
        (live && record.address() == address).then_some(Found { record, id })
    }

    /// What is wrong with a question about `address`, where no live object starts.
    pub fn question(&self, address: Addr) -> Fault {
        let Some(record) = self.records.get(self.record_at(address)) else {
            return Fault::new(Kind::WildAccess, address, self.object_near(address));
        };
        let live = matches!(record.state(), State::Live | State::Checking);
        match (record.span().contains(address), live) {
            (true, false) => Fault::new(Kind::HeapUseAfterFree, address, record.object()),
            (true, true) => Fault::new(Kind::WildAccess, address, record.object()),
            // The page was used once, and its record has been used for another object since.
            (false, _) if self.arena.is_in_lane(address) => Fault::new(Kind::HeapUseAfterFree, address, None),
            (false, _) => Fault::new(Kind::WildAccess, address, self.object_near(address)),
        }
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

    /// Checks the slack of every live object, and what waits in batches; hands what is wrong to `found` until it says `false`.
    /// Other threads may go on: each object is claimed while it is looked at, and whoever wants to free
    /// or resize it meanwhile waits.
    pub fn sweep(&self, mut found: impl FnMut(Fault) -> bool) {
        self.end_batches(&mut found);
        for number in 1..self.records.used() {
            let Some(record) = self.records.get(RecordId(number)) else { return };
            if !record.begin_check() {
                continue;
            }
            let wrong = self.wrong_slack(record);
            record.end_check();
            if let Some(wrong) = wrong
                && !found(Fault::new(Kind::CanaryOverwritten, wrong, record.object()))
            {
                return;
            }
        }
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
