//! From an address to what is known of it: the object in or near it, live objects, accessible bytes, figures.
//!
//! # Accessible bytes
//!
//! How many bytes may be accessed from an address on:
//!
//! | at the address | answer |
//! |---|---|
//! | a byte of a live object | the rest of the object, up to its first poisoned byte |
//! | slack, a freed object's page, a guard | 0 |
//! | an address outside the arena, or with a record that is unused | unknown |

use super::{Found, PageAllocator, poison, shard};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::{Fault, Kind, Object};
use crate::meta::{Record, RecordId, State};
use crate::sync::atomic::Ordering;
use crate::sys::vm;

/// Pages on either side of an address in which reports look for objects.
const NEIGHBOURHOOD: isize = 64;

impl PageAllocator {
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
            (false, _) if self.arena.is_in_shard(address) => {
                Fault::new(Kind::HeapUseAfterFree, address, None)
            }
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
            (1..=NEIGHBOURHOOD).find_map(|pages| self.covering(shard::page_at(address, sign * pages)?))
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
        self.any_allowed.store(true, Ordering::Relaxed);
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

impl PageAllocator {
    /// The live object that `address` points into, and the number of its record.
    pub fn live_around(&self, address: Addr) -> Option<(u32, &Record)> {
        let id = self.arena.contains(address).then(|| self.arena.record_at(address))?;
        let record = self.live(id)?;
        let into = address.offset_from(record.address())?;
        (into < record.size().max(1)).then_some((id.0, record))
    }

    /// Calls `visit` with every live object and the number of its record.
    pub fn each_live(&self, mut visit: impl FnMut(u32, &Record)) {
        for number in 1..self.records.used() {
            if let Some(record) = self.live(RecordId(number)) {
                visit(number, record);
            }
        }
    }

    fn live(&self, id: RecordId) -> Option<&Record> {
        self.records.get(id).filter(|record| record.state() == State::Live)
    }

    /// One past the highest number of a record.
    pub fn records_used(&self) -> u32 {
        self.records.used()
    }

    /// Whether the object of `record` lies outside the arena: pointers into it do not lead to it.
    pub fn is_detached(&self, record: &Record) -> bool {
        !self.arena.contains(record.address())
    }
}

/// The answer for what the allocator says nothing of: no bound.
const UNTOLD: usize = usize::MAX;

impl PageAllocator {
    /// The addresses of the arena, as it was reserved.
    pub fn region(&self) -> Span {
        self.arena.region()
    }

    /// Whether `len` bytes from `address` on are one live object's, as far as its page tells at first sight; `None` outside
    /// the arena.
    #[inline(always)]
    pub fn holds(&self, address: Addr, len: usize) -> Option<bool> {
        let page = self.arena.page_at_sight(address)?;
        let record = self.records.get(page).filter(|record| record.is_plainly_live());
        Some(record.is_some_and(|record| len <= left(record, address)))
    }

    /// Bytes from `address` on that may be accessed; `usize::MAX` if the allocator says nothing of it.
    #[inline]
    pub fn room(&self, address: Addr) -> usize {
        match self.records.get(self.arena.record_at(address)) {
            Some(record) if record.is_plainly_live() && left(record, address) != 0 => left(record, address),
            _ => self.room_slow(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn room_slow(&self, address: Addr) -> usize {
        if !self.arena.contains(address) {
            return UNTOLD;
        }
        // A page that names no record, or one that has another object now, is a guard: see the allocator's invariants.
        match self.records.get(self.arena.record_at(address)) {
            Some(record) if record.state() == State::Unused => UNTOLD,
            Some(record) if record.is_live() => poison::room(record, address, left(record, address)),
            _ => 0,
        }
    }

    /// The live object that `address` lies in, one of zero bytes if it starts there. Objects outside the arena as well.
    pub fn live_at(&self, address: Addr) -> Option<Object> {
        if let Some((_, record)) = self.live_around(address) {
            return record.object();
        }
        let object = self.detached_near(address).filter(|object| !object.freed)?;
        let into = address.offset_from(object.start)?;
        (into < object.size.unwrap_or(0)).then_some(object)
    }
}

/// Bytes of the object of `record` from `address` on.
#[inline(always)]
fn left(record: &Record, address: Addr) -> usize {
    let into = address.get().wrapping_sub(record.address().get());
    record.size().saturating_sub(into)
}

/// Figures of live objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many there are.
    pub objects: usize,
    /// Bytes that were asked for.
    pub bytes: usize,
    /// Bytes of their pages.
    pub held: usize,
}

impl Sum {
    fn add(&mut self, bytes: usize, held: usize) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.held = self.held.saturating_add(held);
    }
}

/// Figures of the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects below [`LARGE`] bytes.
    pub small: Sum,
    /// The others.
    pub large: Sum,
}

/// From this size on other allocators give an object a mapping of its own, and programs that ask for figures know
/// it so: glibc's threshold.
pub const LARGE: usize = 128 << 10;

impl PageAllocator {
    /// Counts the live objects. Other threads may go on meanwhile.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for number in 1..self.records.used() {
            let Some(record) = self.records.get(RecordId(number)) else { break };
            if record.is_live() {
                let held = if record.is_opened() { record.span().bytes() } else { 0 };
                let sum = if record.size() < LARGE { &mut usage.small } else { &mut usage.large };
                sum.add(record.size(), held);
            }
        }
        usage
    }
}
