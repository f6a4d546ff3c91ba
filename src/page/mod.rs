//! The page arm: objects on pages of their own, between guard pages, unmapped the moment they are
//! freed.
//!
//! - [`arena`]: the reservation, its chunks, address to record.
//! - [`lane`]: where objects up to a quarter of a megabyte go; [`large`]: the others;
//!   [`detached`]: those that find no room in the arena.
//! - [`placement`], [`slack`]: how an object lies in its pages and what is around it.
//!
//! Invariants:
//! 1. Pages in an opened chunk are guards unless a live object has them.
//! 2. A live object has a record in state `Live` that its pages name; after the free the pages go on
//!    naming the record until the record or the address is used again.
//! 3. System calls that open and close an object's pages are made outside the lanes' locks; those that
//!    open a chunk (one in some two hundred objects) and bury one are made inside.

pub mod arena;
mod detached;
mod lane;
mod large;
pub mod placement;
mod slack;

pub use placement::Side;

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::{Event, Fault, Kind, Object};
use crate::meta::{Record, RecordId, Records, State};
use crate::request::{Claim, Request};
use crate::rng::Rng;
use crate::sync::Lock;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sys::guard::Backend;
use crate::sys::{limits, vm};
use arena::{Arena, LANES};
use detached::Detached;
use lane::Lane;
use large::Large;
use placement::{address, alignment, pages};
use slack::Slack;

/// What is decided at start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How guard pages are made.
    pub backend: Backend,
    /// Bytes that the process may map in all, if that is limited.
    pub limit: Option<u64>,
    /// Bytes to reserve, 0 for as many as possible.
    pub reserve: usize,
    /// C objects end exactly at their guard.
    pub exact: bool,
    /// Whether slack is filled and checked.
    pub canary: bool,
    /// How far before an object its canary reaches, in bytes.
    pub reach: usize,
    /// Live pages for objects that could be in slabs as well.
    pub budget: PageCount,
    /// Freed objects that are remembered.
    pub history: u64,
}

/// One lane and what is counted for it.
#[repr(align(128))]
struct Slot {
    lane: Lock<Lane>,
    /// Pages of live objects.
    live_pages: AtomicUsize,
    /// Optional objects that are still refused before the budget is looked at again.
    refusals: AtomicU32,
}

/// The arm.
pub struct PageArm {
    config: Config,
    arena: Arena,
    records: Records,
    lanes: [Slot; LANES],
    large: Lock<Large>,
    detached: Lock<Detached>,
    /// Whether there are detached objects, so that the table need not be asked when there are none.
    any_detached: AtomicBool,
    /// Lanes in use: the history is shared among them.
    lanes_used: AtomicU32,
    /// Under the `mprotect` backend: objects that have mappings of their own, and how many may.
    islands: AtomicU64,
    islands_max: u64,
    secret: u64,
}

/// Optional objects are refused so many times before the budget is looked at again.
const REFUSALS: u32 = 256;
/// From so many pages on an object gets a mapping even when those for smaller ones have run out.
const ALONE_PAGES: usize = 16;
/// Mappings left to the program and the loader under the `mprotect` backend.
const SPARE_MAPPINGS: u64 = 8192;
/// Pages on either side of an address in which reports look for objects.
const NEIGHBOURHOOD: isize = 64;
/// The most records: enough for 256 GiB of small live objects.
const MAX_RECORDS: u32 = 1 << 26;

/// A guarded object as the heap sees it.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Its record.
    pub record: &'a Record,
    id: RecordId,
}

impl PageArm {
    /// An arm that has nothing.
    pub const NONE: Self = Self {
        config: Config {
            backend: Backend::Mprotect,
            limit: None,
            reserve: 0,
            exact: false,
            canary: false,
            reach: 0,
            budget: PageCount::new(0),
            history: 0,
        },
        arena: Arena::NONE,
        records: Records::EMPTY,
        lanes: [const {
            Slot { lane: Lock::new(Lane::NEW), live_pages: AtomicUsize::new(0), refusals: AtomicU32::new(0) }
        }; LANES],
        large: Lock::new(Large::NEW),
        detached: Lock::new(Detached::NEW),
        any_detached: AtomicBool::new(false),
        lanes_used: AtomicU32::new(0),
        islands: AtomicU64::new(0),
        islands_max: 0,
        secret: 0,
    };

    /// Reserves the arena and its tables; `false` if the kernel grants not even the smallest.
    pub fn init(&mut self, config: Config, rng: &mut Rng) -> bool {
        let Some(arena) = Arena::reserve(config.backend, config.reserve, config.limit) else {
            return false;
        };
        // A small part of a limit for records.
        let affordable =
            config.limit.map_or(u64::MAX, |limit| limit / 40 / core::mem::size_of::<Record>() as u64);
        let mut count = MAX_RECORDS.min(u32::try_from(affordable).unwrap_or(u32::MAX)).max(1024);
        let records = loop {
            match Records::map(count) {
                Some(records) => break records,
                None if count > 1024 => count /= 2,
                None => return false,
            }
        };
        self.config = config;
        self.arena = arena;
        self.records = records;
        self.islands_max = limits::max_map_count().saturating_sub(SPARE_MAPPINGS) / 2;
        self.secret = rng.next_u64();
        true
    }

    /// The number of lanes that threads are spread over.
    pub const LANES: usize = LANES;

    /// Says that one more lane is in use.
    pub fn use_lane(&self) {
        self.lanes_used.fetch_add(1, Ordering::Relaxed);
    }

    /// Allocates on `lane`; `optional` objects respect the budget. The bytes are zero. `None` when the
    /// kernel or the budget does not grant it.
    pub fn allocate(
        &self,
        request: &Request,
        side: Side,
        optional: bool,
        lane: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        let align = alignment(request, self.config.exact);
        let lane = lane % self.arena.lanes();
        let pages = pages(request.size, align)?;
        if pages.get() > lane::MAX_PAGES || align > PAGE_SIZE {
            return self.allocate_large(request, side, pages, pages, lane, event, rng);
        }
        let slot = self.lanes.get(lane)?;
        if optional && !self.within_budget(slot) {
            return None;
        }
        if !self.take_island() {
            // Beyond what slabs hold, an object needs a mapping of its own in any case.
            let alone = !optional && pages.get() >= ALONE_PAGES;
            let mut large = || self.allocate_large(request, side, pages, pages, lane, event, rng);
            return if alone { large() } else { None };
        }
        let placed = {
            let mut state = slot.lane.lock();
            let record = state.take_record(&self.records, self.history_share());
            let spot = record.and_then(|_| state.place(&self.arena, lane, pages, rng));
            record.zip(spot)
        };
        let Some((id, spot)) = placed else {
            self.return_island();
            // A full lane is no reason to refuse what slabs cannot serve.
            let mut large = || self.allocate_large(request, side, pages, pages, lane, event, rng);
            return if optional { None } else { large() };
        };
        let record = self.records.get(id)?;
        if request.size != 0 && !self.config.backend.open(spot.span) {
            self.arena.leave_chunk(spot.chunk);
            self.return_island();
            return None;
        }
        let start = address(spot.span, request.size, align, side);
        slot.live_pages.fetch_add(pages.get(), Ordering::Relaxed);
        self.finish(record, start, request, spot.span, event, lane);
        self.arena.set_record(spot.span, id);
        Some(start)
    }

    /// Allocates in whole chunks with room to grow to `room` pages.
    #[allow(clippy::too_many_arguments, reason = "one private caller more would not make it clearer")]
    fn allocate_large(
        &self,
        request: &Request,
        side: Side,
        pages: PageCount,
        room: PageCount,
        lane: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        let align = alignment(request, self.config.exact);
        let slot = self.lanes.get(lane)?;
        let id = slot.lane.lock().take_record(&self.records, self.history_share())?;
        let record = self.records.get(id)?;
        let span = self.large.lock().place(&self.arena, pages, room, align, rng, |first, count| {
            self.arena.set_large(first, count, Some(id));
        });
        let Some(span) = span else {
            let mapped = (align <= PAGE_SIZE).then(|| self.detached.lock().map(pages)).flatten();
            if let Some(span) = mapped {
                let start = address(span, request.size, align, side);
                self.finish(record, start, request, span, event, lane);
                self.detached.lock().add(start, id);
                self.any_detached.store(true, Ordering::Release);
                return Some(start);
            }
            slot.lane.lock().remember(&self.records, id);
            return None;
        };
        if !vm::commit(span) {
            self.free_chunks(span, id);
            slot.lane.lock().remember(&self.records, id);
            return None;
        }
        // Alignments above a page place the object at the start of its pages.
        let start = if align > PAGE_SIZE { span.start } else { address(span, request.size, align, side) };
        self.finish(record, start, request, span, event, lane);
        Some(start)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    fn finish(&self, record: &Record, start: Addr, request: &Request, span: Span, event: Event, lane: usize) {
        if self.config.canary && request.size != 0 {
            // SAFETY: the pages were just opened for this object.
            unsafe { self.slack(span, start, request.size).fill() };
        }
        record.allocate(start, request.size, span, request.origin, event, lane as u32);
    }

    fn slack(&self, span: Span, start: Addr, size: usize) -> Slack {
        Slack::of(self.secret, span, start, size, self.config.reach)
    }

    fn history_share(&self) -> u64 {
        self.config.history / u64::from(self.lanes_used.load(Ordering::Relaxed).clamp(1, LANES as u32))
    }

    /// Whether optional objects may have pages: looks at the sum of all lanes, but after a refusal only
    /// now and then.
    fn within_budget(&self, slot: &Slot) -> bool {
        let left = slot.refusals.load(Ordering::Relaxed);
        if left > 0 {
            slot.refusals.store(left - 1, Ordering::Relaxed);
            return false;
        }
        let own = slot.live_pages.load(Ordering::Relaxed);
        // Cheap first: a lane within its share need not ask the others.
        if own <= self.config.budget.get() / LANES {
            return true;
        }
        let live: usize = self.lanes.iter().map(|slot| slot.live_pages.load(Ordering::Relaxed)).sum();
        if live < self.config.budget.get() {
            return true;
        }
        slot.refusals.store(REFUSALS, Ordering::Relaxed);
        false
    }

    fn take_island(&self) -> bool {
        if self.config.backend == Backend::Madvise {
            return true;
        }
        if self.islands.fetch_add(1, Ordering::Relaxed) < self.islands_max {
            return true;
        }
        self.return_island();
        false
    }

    fn return_island(&self) {
        if self.config.backend == Backend::Mprotect {
            self.islands.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether `address` lies in the arena.
    #[inline(always)]
    pub fn contains(&self, address: Addr) -> bool {
        self.arena.contains(address) || self.detached_record(address).0 != 0
    }

    /// The record of the detached object that starts in the page of `address`.
    fn detached_record(&self, address: Addr) -> RecordId {
        match self.any_detached.load(Ordering::Acquire) {
            true => self.detached.lock().find(address),
            false => RecordId(0),
        }
    }

    /// The record that `address` leads to, wherever its object is.
    fn record_at(&self, address: Addr) -> RecordId {
        match self.arena.contains(address) {
            true => self.arena.record_at(address),
            false => self.detached_record(address),
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

    /// The live object that starts at `address`.
    pub fn find_live(&self, address: Addr) -> Option<Found<'_>> {
        let id = self.record_at(address);
        let record = self.records.get(id)?;
        let live = matches!(record.state(), State::Live | State::Checking);
        (live && record.address() == address).then_some(Found { record, id })
    }

    /// Frees the object that `claim` names: closes its pages, so that it is gone when this returns.
    pub fn free(&self, claim: &Claim, mismatch: bool, lane: usize, event: Event) -> Result<(), Fault> {
        let id = self.record_at(claim.address);
        let Some(record) = self.records.get(id) else {
            return Err(self.misuse(claim));
        };
        if record.address() != claim.address || !take(record) {
            return Err(self.refusal(record, claim));
        }
        let kind = if mismatch && record.origin() != claim.origin {
            Some(Kind::AllocDeallocMismatch)
        } else if claim.size.is_some_and(|stated| stated != record.size()) {
            Some(Kind::BadSize)
        } else {
            None
        };
        if let Some(kind) = kind {
            record.refuse_free();
            let (freed_by, stated) = (Some(claim.origin), claim.size);
            return Err(Fault { kind, address: claim.address, object: record.object(), freed_by, stated });
        }
        if let Some(wrong) = self.wrong_slack(record) {
            record.refuse_free();
            return Err(Fault::new(Kind::CanaryOverwritten, wrong, record.object()));
        }
        self.close(record, id);
        record.end_free(event);
        if let Some(slot) = self.lanes.get(lane % self.arena.lanes()) {
            slot.lane.lock().remember(&self.records, id);
        }
        Ok(())
    }

    /// The overwritten byte around an object whose pages are open.
    fn wrong_slack(&self, record: &Record) -> Option<Addr> {
        if !self.config.canary || !record.is_opened() {
            return None;
        }
        // SAFETY: the object is live or being freed by this thread: its pages are open.
        unsafe { self.slack(record.span(), record.address(), record.size()).wrong() }
    }

    fn close(&self, record: &Record, id: RecordId) {
        let span = record.span();
        let Some(chunk) = self.arena.chunk_of(span.start) else {
            self.detached.lock().remove(record.address(), span);
            return;
        };
        if self.arena.large_chunks().contains(&chunk) {
            // Refused only when mappings have run out: then at least the memory goes.
            if !vm::decommit(span) {
                vm::release(span);
            }
            self.free_chunks(span, id);
            return;
        }
        if record.is_opened() && !self.config.backend.close(span) {
            vm::release(span);
        }
        if let Some(slot) = self.lanes.get(record.lane.load(Ordering::Relaxed) as usize) {
            slot.live_pages.fetch_sub(span.pages.get(), Ordering::Relaxed);
        }
        self.return_island();
        self.arena.leave_chunk(chunk);
    }

    fn free_chunks(&self, span: Span, id: RecordId) {
        if let Some((first, count)) = self.large_chunks(span, id) {
            self.arena.set_large(first, count, None);
        }
    }

    fn large_chunks(&self, span: Span, id: RecordId) -> Option<(usize, usize)> {
        large::chunks(&self.arena, span, |chunk| self.arena.is_large(chunk, id))
    }

    /// Why the pointer of `claim` cannot be freed.
    pub fn misuse(&self, claim: &Claim) -> Fault {
        match self.records.get(self.arena.record_at(claim.address)) {
            Some(record) => self.refusal(record, claim),
            None => Fault::new(Kind::InvalidFree, claim.address, self.object_near(claim.address)),
        }
    }

    /// Why the object that `record` describes cannot be freed as `claim` says.
    fn refusal(&self, record: &Record, claim: &Claim) -> Fault {
        let object = record.object();
        let same = record.address() == claim.address;
        let freed = record.state() != State::Live;
        let covers = record.span().contains(claim.address);
        if same && !freed {
            // Only a size that the caller stated can be wrong then.
            return Fault { stated: claim.size, ..Fault::new(Kind::BadSize, claim.address, object) };
        }
        let kind = match (same, freed, covers) {
            (true, true, _) => Kind::DoubleFree,
            // The page was used once, and its record has been used for another object since.
            (false, _, false) => return Fault::new(Kind::DoubleFree, claim.address, None),
            _ => Kind::InvalidFree,
        };
        Fault::new(kind, claim.address, object)
    }

    /// Changes the size of a live object in place. `false`, and nothing changed, if its pages do not
    /// allow it. With `exact_end` the object must go on ending at its guard.
    pub fn resize(&self, found: Found<'_>, new_size: usize, exact_end: bool) -> bool {
        if !take(found.record) {
            return false;
        }
        let resized = self.resize_taken(found, new_size, exact_end);
        found.record.refuse_free();
        resized
    }

    fn resize_taken(&self, found: Found<'_>, new_size: usize, exact_end: bool) -> bool {
        let (record, id) = (found.record, found.id);
        let span = record.span();
        let start = record.address();
        let Some(offset) = start.offset_from(span.start) else { return false };
        let Some(end) = offset.checked_add(new_size) else { return false };
        let pages = PageCount::holding(end);
        if new_size == 0 || !record.is_opened() || self.wrong_slack(record).is_some() {
            return false;
        }
        let Some(chunk) = self.arena.chunk_of(span.start) else {
            return false;
        };
        if self.arena.large_chunks().contains(&chunk) {
            let Some((first, count)) = self.large_chunks(span, id) else { return false };
            let fits = pages <= large::room(&self.arena, span, first, count);
            // An object that shrinks to a fraction moves to where it belongs.
            if !fits || pages.get() <= lane::MAX_PAGES / 2 && pages.get() * 4 < span.pages.get() {
                return false;
            }
            if !large::resize(span, pages) {
                return false;
            }
        } else {
            if exact_end || pages > span.pages {
                return false;
            }
            let tail = PageCount::new(span.pages.get() - pages.get());
            if tail.get() != 0 {
                let tail_span = Span::new(span.start.plus(pages.bytes()), tail);
                if !self.config.backend.close(tail_span) {
                    return false;
                }
                if let Some(slot) = self.lanes.get(record.lane.load(Ordering::Relaxed) as usize) {
                    slot.live_pages.fetch_sub(tail.get(), Ordering::Relaxed);
                }
            }
        }
        let new_span = Span::new(span.start, pages);
        if new_size > record.size() && self.config.canary {
            // What was canary becomes the object's: it must not read as the canary.
            let old_end = start.plus(record.size());
            let until = span.end().min(start.plus(new_size));
            if let Some(len) = until.offset_from(old_end) {
                // SAFETY: bytes of the object's own open pages.
                unsafe { old_end.as_ptr::<u8>().write_bytes(0, len) };
            }
        }
        record.resize(new_size, new_span);
        if self.config.canary {
            // SAFETY: the object's pages, open and the caller's.
            unsafe { self.slack(new_span, start, new_size).fill() };
        }
        true
    }

    /// Moves a live object to whole chunks with room to double, taking its pages along where that is
    /// possible. The new address; the old object is still to be freed.
    pub fn grow(
        &self,
        found: Found<'_>,
        request: &Request,
        lane: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        if !take(found.record) {
            return None;
        }
        let grown = self.grow_taken(found, request, lane % self.arena.lanes(), event, rng);
        found.record.refuse_free();
        grown
    }

    fn grow_taken(
        &self,
        found: Found<'_>,
        request: &Request,
        lane: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        let old = found.record.span();
        let start = found.record.address();
        let offset = start.offset_from(old.start)?;
        let new_pages = PageCount::holding(offset.checked_add(request.size)?);
        let room = PageCount::new(new_pages.get().checked_mul(2)?);
        // Its free is to find what is wrong with it.
        if self.wrong_slack(found.record).is_some() {
            return None;
        }
        let old_size = found.record.size();
        let moved = self.allocate_large(request, Side::Left, new_pages, room, lane, event, rng)?;
        let new = self.find_live(moved).filter(|new| take(new.record))?;
        let span = new.record.span();
        let from_large =
            self.arena.chunk_of(old.start).is_some_and(|chunk| self.arena.large_chunks().contains(&chunk));
        if from_large && old.pages <= span.pages && vm::relocate(old, span.start) {
            let address = span.start.plus(offset);
            found.record.empty();
            self.finish(new.record, address, request, span, event, lane);
            let old_end = address.plus(old_size);
            let stale =
                old.bytes().saturating_sub(offset + old_size).min(request.size.saturating_sub(old_size));
            // SAFETY: the object's own pages: what was the old object's canary becomes its bytes.
            unsafe { old_end.as_ptr::<u8>().write_bytes(0, stale) };
            return Some(address);
        }
        new.record.refuse_free();
        // SAFETY: the old object is live and the caller's, the new one fresh and at least as long.
        unsafe {
            core::ptr::copy_nonoverlapping(
                start.as_ptr::<u8>(),
                moved.as_ptr::<u8>(),
                old_size.min(request.size),
            );
        }
        Some(moved)
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

    /// The page of `address` opened again, so that an access to it goes through; for
    /// `on_error=continue`.
    pub fn open_for_access(&self, address: Addr) -> bool {
        let span = Span::new(address.page_floor(), PageCount::new(1));
        self.config.backend.open(span) && vm::commit(span)
    }

    /// Takes the arena out of locked memory, in which guards cannot be installed.
    pub fn unlock_memory(&self) {
        self.arena.unlock_memory();
    }

    /// Names another family as the allocator of a live object.
    pub fn set_origin(&self, address: Addr, origin: crate::request::Origin) {
        if let Some(found) = self.find_live(address) {
            found.record.set_origin(origin);
        }
    }

    /// Pages of live objects in lanes.
    pub fn live_pages(&self) -> usize {
        self.lanes.iter().map(|slot| slot.live_pages.load(Ordering::Relaxed)).sum()
    }

    /// Checks the slack of every live object; hands what is wrong to `found` until it says `false`.
    /// Other threads may go on: each object is claimed while it is looked at, and whoever wants to free
    /// or resize it meanwhile waits.
    pub fn sweep(&self, mut found: impl FnMut(Fault) -> bool) {
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

    /// Takes every lock, for `fork`.
    pub fn lock_all(&self) {
        for slot in &self.lanes {
            core::mem::forget(slot.lane.lock());
        }
        core::mem::forget(self.large.lock());
        core::mem::forget(self.detached.lock());
        self.arena.lock_all();
    }

    /// Releases every lock after [`PageArm::lock_all`].
    ///
    /// # Safety
    /// The calling thread, or the thread it is the copy of, holds them all.
    pub unsafe fn unlock_all(&self) {
        // SAFETY: held, as the caller says.
        unsafe {
            self.arena.unlock_all();
            self.detached.force_unlock();
            self.large.force_unlock();
            for slot in &self.lanes {
                slot.lane.force_unlock();
            }
        }
    }
}

/// Claims a live object for freeing or resizing, after a sweep that looks at it; `false` if it is not
/// live. A sweep whose thread is gone, in a forked child, is overruled after a while.
fn take(record: &Record) -> bool {
    for _ in 0..SWEEP_LOOKS {
        if record.begin_free() {
            return true;
        }
        if record.state() != State::Checking {
            return false;
        }
        crate::sys::thread::yield_now();
    }
    record.begin_free_checked()
}

/// So often a freeing thread yields to a sweep that looks at its object.
const SWEEP_LOOKS: u32 = 10_000;

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
