//! From an address to what reports and sweeps say of it.

use super::{Found, PageArm, lane};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::{Fault, Kind, Object};
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

    /// What is wrong with a question about `address`, where no live object starts.
    pub fn question(&self, address: Addr) -> Fault {
        let Some(record) = self.records.get(self.record_at(address)) else {
            return Fault::new(Kind::WildAccess, address, self.object_near(address));
        };
        let live = record.is_live();
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
        let near = objects.records().filter_map(|id| {
            let record = self.records.get(id)?;
            let span = record.span();
            let near = Span::new(span.start.minus(PAGE_SIZE), PageCount::new(span.pages.get() + 2));
            near.contains(address).then(|| record.object()).flatten()
        });
        near.min_by_key(|object| (distance(address, object), object.freed))
    }

    /// What reports say of `address`: the object whose bytes are or were there, else the nearest one.
    pub fn object_near(&self, address: Addr) -> Option<Object> {
        let here = self.covering(address);
        if let Some(object) = here
            && (!object.freed || into(address, &object).is_some())
        {
            return here;
        }
        // The freed object that had this page is not always meant: the page may be another's guard now.
        let towards = |sign: isize| {
            (1..=NEIGHBOURHOOD).find_map(|pages| self.covering(lane::page_at(address, sign * pages)?))
        };
        let all = [here, towards(-1), towards(1)].into_iter().flatten();
        all.min_by_key(|object| (distance(address, object), object.freed))
    }

    /// The object that has or had the page of `address`, if its record still says so.
    fn covering(&self, address: Addr) -> Option<Object> {
        let record = self.records.get(self.arena.record_at(address))?;
        (record.span().contains(address) || self.is_large_record(record)).then(|| record.object()).flatten()
    }

    /// What the canary of a guarded object at `address` holds there, if there is one.
    pub fn canary_at(&self, address: Addr) -> Option<u8> {
        if !self.config.canary {
            return None;
        }
        let expected = |id| {
            let record = self.records.get(id)?;
            let covered = record.is_opened() && record.span().contains(address);
            let slack = covered.then(|| self.slack(record.span(), record.address(), record.size()))?;
            slack.expected(address)
        };
        if self.arena.contains(address) {
            return expected(self.arena.record_at(address));
        }
        self.any_detached
            .load(Ordering::Acquire)
            .then(|| self.detached.try_lock())
            .flatten()?
            .records()
            .find_map(expected)
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

/// Bytes from an object's start to `address`, if it is one of its bytes.
fn into(address: Addr, object: &Object) -> Option<usize> {
    address.offset_from(object.start).filter(|into| *into < object.size.unwrap_or(0))
}

/// Bytes from `address` to the nearest of an object.
fn distance(address: Addr, object: &Object) -> usize {
    let end = object.start.plus(object.size.unwrap_or(0));
    let before = object.start.offset_from(address);
    // One past the end is as far away as one before the start.
    before.or_else(|| Some(address.offset_from(end)?.saturating_add(1))).unwrap_or(0)
}
