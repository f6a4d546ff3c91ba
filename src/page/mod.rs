//! The page allocator: objects on pages of their own, between guard pages, unmapped when they are freed.
//!
//! - [`arena`]: the reservation, its chunks, address to record; [`chunk`]: the states of a chunk.
//! - [`shard`]: objects up to a quarter of a megabyte, and objects of zero bytes; [`large`]: larger objects, in the
//!   arena or, where that has no room, outside.
//! - [`placement`]: how an object lies in its pages, and the canaries around it.
//! - [`cut`]: which chunks there are, and what is left when the process limits its address space.
//! - [`remote`]: the remote free list, of records whose shard's lock is out of reach.
//! - [`release`]: frees, alone or in a batch, and sweeps; [`resize`]: other sizes.
//! - [`lookup`]: what is known of an address; [`poison`]: bytes of an object that nobody may access.
//!
//! Invariants:
//! 1. A page in an opened chunk is a guard, unless a live object or an object in a batch has it. In `hunt` a page of a
//!    live object is closed as well if the program poisoned all of its bytes.
//! 2. A live object has a record in state `Live`, and its pages name the record. After the free the pages go on naming
//!    the record until the record or the address is used again.
//! 3. System calls that open and close an object's pages are made outside the shards' locks. Those that open a chunk
//!    (one in some two hundred objects) and decommit one are made inside.
//!
//! # Forks and ends of threads
//!
//! A forked child, and a thread that ends inside the allocator, release the locks and repair what they guard:
//! [`PageAllocator::inherit_all`], [`PageAllocator::abandon_all`].

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::canary::Key;
use crate::fault::Event;
use crate::meta::{Record, RecordId, Records};
use crate::request::Request;
use crate::rng::Rng;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use crate::sys::guard::Backend;
use crate::sys::machine;
use arena::{Arena, SHARDS};
use large::{Detached, Large};
use placement::{Slack, address, alignment, pages};
use release::Batch;
use remote::RemoteFreeList;
use shard::Shard;

#[cfg(test)]
#[path = "../../tests/unit/page.rs"]
mod tests;

pub mod arena;
mod chunk;
mod cut;
mod large;
mod lookup;
pub mod placement;
mod poison;
mod release;
mod remote;
mod resize;
mod shard;

pub use lookup::Usage;
pub use placement::Side;
pub use release::{Cursor, MOST as BATCH_MAX};

/// What is decided at start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How guard pages are made.
    pub backend: Backend,
    /// Bytes that the process may map in all, if that is limited.
    pub limit: Option<u64>,
    /// Bytes to reserve.
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
    /// Freed objects whose pages are taken away together.
    pub batch: usize,
    /// Whether pages are closed all of whose bytes the program poisoned.
    pub close_poisoned: bool,
}

/// One shard and what is counted for it.
#[repr(align(128))]
struct ShardEntry {
    shard: Lock<Shard>,
    batch: Lock<Batch>,
    remote: RemoteFreeList,
    /// Pages of live objects.
    live_pages: AtomicUsize,
    /// Optional objects that are still refused before the budget is looked at again.
    refusals: AtomicU32,
}

/// The allocator.
pub struct PageAllocator {
    config: Config,
    arena: Arena,
    records: Records,
    /// By number; behind them the void's.
    shards: [ShardEntry; SHARDS + 1],
    large: Lock<Large>,
    detached: Lock<Detached>,
    /// One sweep at a time looks at an object: this one's record, 0 for none.
    look: Lock<RecordId>,
    /// Whether there are detached objects, so that the table need not be asked when there are none.
    any_detached: AtomicBool,
    /// Whether pages were opened for an access that is no object's: what is allocated from then on does not
    /// rely on its pages being closed and empty.
    any_allowed: AtomicBool,
    /// Shards in use: the history is shared among them.
    shards_used: AtomicU32,
    key: Key,
    /// Bytes of resized objects that may yet be shifted so that they touch their guards.
    shifts: AtomicU64,
}

/// Optional objects are refused so many times before the budget is looked at again.
const REFUSALS: u32 = 256;
/// From so many pages on an object gets a mapping even when those for smaller ones have run out.
const ALONE_PAGES: usize = 16;
/// The most records: enough for 256 GiB of small live objects.
const MAX_RECORDS: u32 = 1 << 26;

/// Why an object did not get guarded pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The live objects that could be in slabs as well have all the memory they may have.
    Budget,
    /// The process has nearly as many mappings as the kernel allows (`mprotect` backend).
    Mappings,
    /// The kernel grants no memory or address space, or the request is larger than either.
    Memory,
}

/// Whether an object of `size` bytes is too large for a shard.
pub fn is_large(size: usize) -> bool {
    PageCount::holding(size).get() > shard::MAX_PAGES
}

/// A guarded object as the heap sees it.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Its record.
    pub record: &'a Record,
    id: RecordId,
    address: Addr,
}

impl PageAllocator {
    /// An allocator that has nothing.
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
            batch: 1,
            close_poisoned: false,
        },
        arena: Arena::NONE,
        records: Records::EMPTY,
        shards: [const {
            ShardEntry {
                shard: Lock::new(Rank::Shard, Shard::NEW),
                batch: Lock::new(Rank::Batch, Batch::NEW),
                remote: RemoteFreeList::NEW,
                live_pages: AtomicUsize::new(0),
                refusals: AtomicU32::new(0),
            }
        }; SHARDS + 1],
        large: Lock::new(Rank::Large, Large::NEW),
        detached: Lock::new(Rank::Detached, Detached::NEW),
        look: Lock::new(Rank::Look, RecordId(0)),
        any_detached: AtomicBool::new(false),
        any_allowed: AtomicBool::new(false),
        shards_used: AtomicU32::new(0),
        key: Key::new(0, 0),
        shifts: AtomicU64::new(resize::ADVANCE),
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
        self.key = Key::new(rng.next_u64(), rng.next_u64());
        true
    }

    /// Where everything lies, for tools: the arena with its tables, and the table of records.
    pub fn geometry(&self) -> (arena::Geometry, (Addr, u32)) {
        (self.arena.geometry(), self.records.table())
    }

    /// The number of shards that threads are spread over.
    pub const SHARDS: usize = SHARDS;

    /// Says that one more shard is in use.
    pub fn use_shard(&self) {
        self.shards_used.fetch_add(1, Ordering::Relaxed);
    }

    /// Allocates on `shard`; `optional` objects respect the budget. The bytes are zero. An object that is known to
    /// `grow` is placed where it can.
    #[allow(clippy::too_many_arguments, reason = "what is asked, and where the caller stands")]
    pub fn allocate(
        &self,
        request: &Request,
        side: Side,
        optional: bool,
        grows: bool,
        shard: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Result<Addr, Refusal> {
        let align = alignment(request, self.config.exact);
        if request.size == 0
            && align <= PAGE_SIZE
            && let Some(nothing) = self.allocate_nothing(request, event, rng)
        {
            return Ok(nothing);
        }
        // Where the void is full, a page of a shard does as well: it is not opened.
        let shard = self.shard_of(shard);
        let pages = pages(request.size, align).ok_or(Refusal::Memory)?;
        let mut large = || {
            let placed = self.allocate_large(request, side, pages, shard, event, rng);
            placed.ok_or(Refusal::Memory)
        };
        if pages.get() > shard::MAX_PAGES || align > PAGE_SIZE {
            return large();
        }
        let room = if grows { PageCount::new((2 * pages.get()).min(shard::MAX_PAGES)) } else { pages };
        let entry = self.shards.get(shard).ok_or(Refusal::Memory)?;
        if optional && !self.within_budget(entry) {
            return Err(Refusal::Budget);
        }
        if !self.take_island() {
            // Beyond what slabs hold, an object needs a mapping of its own in any case.
            return if !optional && pages.get() >= ALONE_PAGES { large() } else { Err(Refusal::Mappings) };
        }
        let Some(mut state) = entry.shard.enter() else {
            // In a signal handler: chunks of its own need no shard.
            self.release_island();
            return large();
        };
        let record = self.take_record(entry, &mut state);
        let spot = record.and_then(|_| state.reserve(&self.arena, &self.records, shard, pages, room, rng));
        if let (Some(unused), None) = (record, spot) {
            state.remember(&self.records, unused);
        }
        let placed = record.zip(spot);
        drop(state);
        let Some((id, spot)) = placed else {
            self.release_island();
            // A full shard is no reason to refuse what slabs cannot serve.
            let mut large = || self.allocate_large(request, side, pages, shard, event, rng);
            return if optional { None } else { large() }.ok_or(Refusal::Memory);
        };
        let record = self.records.get(id).ok_or(Refusal::Memory)?;
        let clean = !self.any_allowed.load(Ordering::Relaxed) || self.close_around(spot.span);
        let ready = clean && (request.size == 0 || self.config.backend.open(spot.span));
        if !ready {
            self.arena.leave_chunk(spot.chunk);
            self.release_island();
            return Err(Refusal::Memory);
        }
        let start = address(spot.span, request.size, align, side);
        entry.live_pages.fetch_add(pages.get(), Ordering::Relaxed);
        self.finish(record, start, request, spot.span, side, event, shard);
        self.arena.set_record(spot.span, id);
        Ok(start)
    }

    /// A record for a new object that is to lie in no shard.
    fn new_record(&self, shard: usize) -> Option<RecordId> {
        let entry = self.shards.get(shard)?;
        match entry.shard.enter() {
            Some(mut state) => self.take_record(entry, &mut state),
            None => self.records.take_block(1),
        }
    }

    /// A record for a new object on a shard.
    fn take_record(&self, entry: &ShardEntry, shard: &mut Shard) -> Option<RecordId> {
        entry.remote.take(&self.records, |id| shard.remember(&self.records, id));
        shard.take_record(&self.records, self.history_share())
    }

    /// Remembers the record of an object that was freed: on its own shard, which uses it again, whichever thread frees.
    fn remember_freed(&self, record: &Record, id: RecordId) {
        self.remember(record.shard.load(Ordering::Relaxed) as usize, id);
    }

    /// Puts an unused record onto a shard's list.
    fn remember(&self, shard: usize, id: RecordId) {
        let Some(entry) = self.shards.get(shard) else { return };
        match entry.shard.enter() {
            Some(mut shard) => shard.remember(&self.records, id),
            None => entry.remote.push(&self.records, id),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    fn finish(
        &self,
        record: &Record,
        start: Addr,
        request: &Request,
        span: Span,
        side: Side,
        event: Event,
        shard: usize,
    ) {
        if self.config.canary && request.size != 0 {
            // SAFETY: the pages were just opened for this object.
            unsafe { self.slack(span, start, request.size).fill() };
        }
        record.set_placement(request.align, side == Side::Left);
        record.allocate(start, request.size, span, request.origin, event, shard as u32);
    }

    fn slack(&self, span: Span, start: Addr, size: usize) -> Slack {
        Slack::of(&self.key, span, start, size, self.config.reach)
    }

    fn history_share(&self) -> u64 {
        self.config.history / u64::from(self.shards_used.load(Ordering::Relaxed).clamp(1, SHARDS as u32))
    }

    /// Whether optional objects may have pages: looks at the sum of all shards, but after a refusal only
    /// now and then.
    fn within_budget(&self, entry: &ShardEntry) -> bool {
        let left = entry.refusals.load(Ordering::Relaxed);
        if left > 0 {
            entry.refusals.store(left - 1, Ordering::Relaxed);
            return false;
        }
        let own = entry.live_pages.load(Ordering::Relaxed);
        // Cheap first: a shard within its share need not ask the others.
        if own <= self.config.budget.get() / SHARDS {
            return true;
        }
        let live: usize = self.shards.iter().map(|entry| entry.live_pages.load(Ordering::Relaxed)).sum();
        if live < self.config.budget.get() {
            return true;
        }
        entry.refusals.store(REFUSALS, Ordering::Relaxed);
        false
    }

    fn take_island(&self) -> bool {
        !self.config.backend.costs_mappings() || machine::take_islands(1)
    }

    fn release_island(&self) {
        if self.config.backend.costs_mappings() {
            machine::release_islands(1);
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
            true => self.detached.lock_signal_safe().map_or(RecordId(0), |objects| objects.find(address)),
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

    /// The overwritten byte around an object whose pages are open.
    fn wrong_slack(&self, record: &Record) -> Option<Addr> {
        if !self.config.canary || !record.is_opened() {
            return None;
        }
        // SAFETY: the object is live or being freed by this thread: its pages are open.
        unsafe { self.slack(record.span(), record.address(), record.size()).wrong() }
    }

    /// Closes the pages of an object that is about to be placed, and the page on either side, which are
    /// nobody's: an access may have been allowed there.
    fn close_around(&self, span: Span) -> bool {
        let wide = Span::new(span.start.minus(PAGE_SIZE), PageCount::new(span.pages.get() + 2));
        self.config.backend.close(wide)
    }

    /// Takes the arena out of locked memory, in which guards cannot be installed.
    pub fn unlock_memory(&self) {
        self.arena.unlock_memory();
    }

    /// Pages of live objects in shards.
    pub fn live_pages(&self) -> usize {
        self.shards.iter().map(|entry| entry.live_pages.load(Ordering::Relaxed)).sum()
    }
}

impl PageAllocator {
    /// In a forked child: releases what other threads had, and puts in order what they were in the middle of.
    ///
    /// # Safety
    /// As [`Lock::inherit`](crate::sync::Lock::inherit).
    pub unsafe fn inherit_all(&self) {
        // SAFETY: as the caller says.
        unsafe {
            self.arena.inherit();
            self.records.inherit();
            self.records.inherit();
            self.large.inherit(|_| ());
            for entry in &self.shards {
                entry.shard.inherit(Shard::reset);
                entry.batch.inherit(|batch| *batch = Batch::NEW);
            }
            self.detached.inherit(|objects| objects.rebuild(&self.records));
            // Last: it may close an object.
            self.look.inherit(|looking| self.end_lost_look(looking));
        }
    }

    /// Releases what the calling thread has, and puts in order what it was in the middle of. What it had with signals
    /// blocked it has no more.
    ///
    /// # Safety
    /// As [`Lock::abandon`](crate::sync::Lock::abandon).
    pub unsafe fn abandon_all(&self) {
        // SAFETY: as the caller says.
        unsafe {
            self.arena.abandon();
            self.records.abandon();
            self.records.abandon();
            self.large.abandon(|_| ());
            for entry in &self.shards {
                entry.shard.abandon(Shard::reset);
                entry.batch.abandon(|batch| *batch = Batch::NEW);
            }
            self.look.abandon(|looking| self.end_lost_look(looking));
        }
    }
}
