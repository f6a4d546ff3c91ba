//! A shard: a stretch of the arena in which one thread, or a few, place objects.
//!
//! A shard goes through its chunks in order, round and round. So a freed address is used again only after the whole
//! shard was, and the oldest first. A chunk is cut into [`RUNS`] runs. An object goes into a random run with room,
//! after a gap of one guard page or two. So the page before an object is always a guard. The page behind it is a gap,
//! the first page of the next run or the first page of the next chunk, and each of these is a guard.
//!
//! A shard also keeps the records of objects that were freed on it, oldest first. When there are more than the history
//! holds, the oldest are used again.
//!
//! # Objects of zero bytes
//!
//! An object of zero bytes has an address of its own, and nobody may access it. It is a record and the number of a page
//! in the void, the part of the arena that is never opened. So it costs no system call, no mapping, no part of the
//! budget, and no memory but its record and its page's number (some 75 bytes). There can be millions of them. It is
//! freed like any other object, and its record is remembered.
//!
//! In everything else the void is a shard: oldest addresses first, records that are remembered.

use super::arena::{Arena, CHUNK_PAGES, CHUNKS_A_TABLE_PAGE, VOID};
use super::{PageAllocator, Side};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::Event;
use crate::meta::{RecordId, Records};
use crate::request::Request;
use crate::rng::Rng;
use crate::sync::atomic::Ordering;
use core::ops::Range;

/// Runs of a chunk. A power of two.
const RUNS: usize = 8;
const RUN_PAGES: usize = CHUNK_PAGES / RUNS;
/// The most pages of an object in a shard: a run less the largest gap.
pub const MAX_PAGES: usize = RUN_PAGES - MAX_GAP;
/// The most guard pages before an object.
const MAX_GAP: usize = 2;
/// Of so many objects one has the larger gap: a denser chunk costs less an object.
const GAPS: usize = 4;
/// Chunks behind the one in use whose names are left alone: the page of the table may be shared.
const MARGIN: usize = 4;
/// Chunks looked at for one that is free, when a shard comes round.
const MAX_OCCUPIED: usize = 4096;
/// Records taken from the table at once.
const RECORD_BLOCK: u32 = 64;

/// A shard's state, under its lock.
pub struct Shard {
    /// First chunk and number of chunks; 0 before the shard is used.
    first: usize,
    len: usize,
    /// The chunk in use, from `first`; `None` before the shard's first object.
    chunk: Option<usize>,
    /// Pages used of each run of it.
    used: [u16; RUNS],
    /// The chunk, from `first`, at which old names are looked for next.
    cursor: usize,
    /// The first chunk, from `first`, that the shard used.
    origin: usize,
    /// Whether the shard came round already.
    went_round: bool,
    /// Unused records: the rest of a block.
    fresh: u32,
    fresh_left: u32,
    /// Freed records, oldest first, linked by their `next`.
    oldest: u32,
    newest: u32,
    remembered: u64,
}

/// Where an object goes.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Its pages, closed.
    pub span: Span,
    /// Its chunk.
    pub chunk: usize,
}

impl Shard {
    /// A shard that has not been used.
    pub const NEW: Self = Self {
        first: 0,
        len: 0,
        chunk: None,
        used: [0; RUNS],
        cursor: 0,
        origin: 0,
        went_round: false,
        fresh: 0,
        fresh_left: 0,
        oldest: 0,
        newest: 0,
        remembered: 0,
    };

    /// Forgets where it was and what it remembered, whatever was going on: the chunk in use and those records
    /// are lost to the process.
    pub fn reset(&mut self) {
        let (first, len) = (self.first, self.len);
        *self = Self { first, len, ..Self::NEW };
    }

    /// Freed objects whose records it keeps.
    #[cfg(test)]
    pub fn remembered(&self) -> u64 {
        self.remembered
    }

    /// Whether objects were placed in it.
    pub fn is_used(&self) -> bool {
        self.len != 0
    }

    /// Chunks that it may have opened so far.
    pub fn touched(&self) -> Range<usize> {
        match self.chunk {
            _ if self.len == 0 => 0..0,
            Some(chunk) if !self.went_round => self.first + self.origin..self.first + chunk + 1,
            _ => self.first..self.first + self.len,
        }
    }

    /// Goes on in `share` chunks and the one in use, of those that it has, or where it has none in `whole`; these
    /// chunks. With a share of 0 it has none.
    pub fn shrink(&mut self, whole: &Range<usize>, share: usize, rng: &mut Rng) -> Range<usize> {
        if share == 0 {
            (self.first, self.len, self.chunk) = (whole.start, 0, None);
            return whole.start..whole.start;
        }
        let all = if self.len == 0 { whole.clone() } else { self.first..self.first + self.len };
        let len = share.saturating_add(1).min(all.len());
        let start = match self.chunk {
            Some(chunk) => all.start + chunk,
            None => all.start + rng.below((all.len() - len + 1) as u64) as usize,
        };
        let start = start.min(all.end - len);
        let chunk = self.chunk.map(|chunk| all.start + chunk - start);
        self.origin = chunk.unwrap_or(0);
        (self.first, self.len, self.chunk) = (start, len, chunk);
        (self.cursor, self.went_round) = (0, false);
        start..start + len
    }

    /// Finds room for an object of `pages` pages, at most [`MAX_PAGES`], where it could grow to `room` pages as
    /// long as nothing is placed behind it. `None` if the kernel grants nothing more or every chunk of the shard
    /// has live objects.
    pub fn reserve(
        &mut self,
        arena: &Arena,
        records: &Records,
        index: usize,
        pages: PageCount,
        room: PageCount,
        rng: &mut Rng,
    ) -> Option<Spot> {
        if self.len == 0 {
            let chunks = arena.chunks_of_shard(index);
            (self.first, self.len) = (chunks.start, chunks.len());
        }
        loop {
            if let Some(chunk) = self.chunk
                && let Some(page) = self.reserve_in_chunk(pages, room, rng)
            {
                let number = self.first + chunk;
                arena.enter_chunk(number);
                let start = arena.chunk_span(number, 1).start.plus(page * PAGE_SIZE);
                return Some(Spot { span: Span::new(start, pages), chunk: number });
            }
            self.advance(arena, rng)?;
            self.forget_old(arena, records);
        }
    }

    /// Gives the object in `span`, on this shard, `more` pages behind its own, closed; `false` if others have them.
    pub fn extend(&mut self, arena: &Arena, span: Span, more: PageCount) -> bool {
        let current = self.chunk.map(|chunk| arena.chunk_span(self.first + chunk, 1).start);
        let Some(first) = current.and_then(|start| span.start.offset_from(start)) else { return false };
        let (run, start) = (first / PAGE_SIZE / RUN_PAGES, first / PAGE_SIZE % RUN_PAGES);
        let Some(used) = self.used.get_mut(run) else { return false };
        let end = start.saturating_add(span.pages.get());
        let wanted = end.saturating_add(more.get());
        if usize::from(*used) != end || wanted > RUN_PAGES {
            return false;
        }
        *used = wanted as u16;
        true
    }

    fn reserve_in_chunk(&mut self, pages: PageCount, room: PageCount, rng: &mut Rng) -> Option<usize> {
        let draw = usize::from(rng.byte());
        let gap = if (draw / RUNS).is_multiple_of(GAPS) { MAX_GAP } else { 1 };
        for step in 0..RUNS {
            let run = (draw + step) % RUNS;
            let used = self.used.get_mut(run)?;
            let start = usize::from(*used) + gap;
            if start + pages.get().max(room.get()) <= RUN_PAGES {
                *used = u16::try_from(start + pages.get()).ok()?;
                return Some(run * RUN_PAGES + start);
            }
        }
        None
    }

    /// Leaves the chunk and opens the next that is free.
    fn advance(&mut self, arena: &Arena, rng: &mut Rng) -> Option<()> {
        // The last chunk of a shard stays closed: it is the guard behind the one before.
        let round = self.len.checked_sub(1).filter(|round| *round > 0)?;
        let mut next = match self.chunk.take() {
            Some(chunk) => {
                arena.retire_chunk(self.first + chunk);
                (chunk + 1) % round
            }
            None => {
                self.origin = rng.below(round as u64) as usize;
                self.origin
            }
        };
        for _ in 0..round.min(MAX_OCCUPIED) {
            match arena.open_chunk(self.first + next) {
                Some(true) => {
                    self.went_round |= next < self.origin;
                    self.chunk = Some(next);
                    self.used = [0; RUNS];
                    return Some(());
                }
                Some(false) => next = (next + 1) % round,
                None => return None,
            }
        }
        None
    }

    /// Goes on looking for names that are of no use any more, round and round in what the shard used.
    fn forget_old(&mut self, arena: &Arena, records: &Records) {
        let Some(chunk) = self.chunk else { return };
        // The part in use: from the first chunk on, and after a round everything but the chunk itself.
        let (low, high) = match self.went_round {
            false => (self.origin, chunk.saturating_sub(MARGIN)),
            true => (0, self.len),
        };
        if self.cursor < low || self.cursor >= high {
            self.cursor = low;
        }
        let from = (self.first + self.cursor).next_multiple_of(CHUNKS_A_TABLE_PAGE);
        let stale = |id, page| records.get(id).is_none_or(|record| !record.span().contains(page));
        let reached = arena.forget_old(from, self.first + high, stale);
        self.cursor =
            if reached + CHUNKS_A_TABLE_PAGE > self.first + high { low } else { reached - self.first };
    }

    /// A record for a new object: the oldest remembered one if more than `history` are, else one that
    /// was never used, else the oldest after all.
    pub fn take_record(&mut self, records: &Records, history: u64) -> Option<RecordId> {
        if self.remembered > history {
            return self.forget_oldest(records);
        }
        if self.fresh_left == 0 {
            match records.take_block(RECORD_BLOCK) {
                Some(first) => {
                    self.fresh = first.0;
                    self.fresh_left = RECORD_BLOCK;
                }
                None => return self.forget_oldest(records),
            }
        }
        let id = RecordId(self.fresh);
        self.fresh += 1;
        self.fresh_left -= 1;
        Some(id)
    }

    fn forget_oldest(&mut self, records: &Records) -> Option<RecordId> {
        let id = RecordId(self.oldest);
        let record = records.get(id)?;
        self.oldest = record.next.load(Ordering::Relaxed);
        if self.oldest == 0 {
            self.newest = 0;
        }
        self.remembered -= 1;
        Some(id)
    }

    /// Remembers the record of an object that was just freed.
    pub fn remember(&mut self, records: &Records, id: RecordId) {
        let Some(record) = records.get(id) else { return };
        record.next.store(0, Ordering::Relaxed);
        match records.get(RecordId(self.newest)) {
            Some(newest) => newest.next.store(id.0, Ordering::Relaxed),
            None => self.oldest = id.0,
        }
        self.newest = id.0;
        self.remembered += 1;
    }
}

/// An address that lies `pages` pages from `address`, if there is one.
pub fn page_at(address: Addr, pages: isize) -> Option<Addr> {
    let bytes = pages.checked_mul(PAGE_SIZE.cast_signed())?;
    address.page_floor().get().checked_add_signed(bytes).map(Addr::new)
}

impl PageAllocator {
    /// Allocates an object of zero bytes, aligned to a page. `None` if the void is full, or out of reach of a signal
    /// handler.
    pub(super) fn allocate_nothing(&self, request: &Request, event: Event, rng: &mut Rng) -> Option<Addr> {
        let entry = self.shards.get(VOID)?;
        let mut state = entry.shard.enter()?;
        let id = self.take_record(entry, &mut state)?;
        let page = PageCount::new(1);
        let Some(spot) = state.reserve(&self.arena, &self.records, VOID, page, page, rng) else {
            state.remember(&self.records, id);
            return None;
        };
        drop(state);
        let record = self.records.get(id)?;
        if self.any_allowed.load(Ordering::Relaxed) && !self.close_around(spot.span) {
            // An access may have been allowed here, and cannot be kept out any more.
            self.arena.leave_chunk(spot.chunk);
            self.remember(VOID, id);
            return None;
        }
        self.finish(record, spot.span.start, request, spot.span, Side::Left, event, VOID);
        self.arena.set_record(spot.span, id);
        Some(spot.span.start)
    }

    /// Whether `address` is one of an object of zero bytes.
    pub fn is_in_void(&self, address: Addr) -> bool {
        self.arena.is_in_void(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::guard::Backend;

    /// Where an object of so many pages comes to lie that has room to grow.
    fn spot(shard: &mut Shard, arena: &Arena, pages: usize, room: usize) -> Spot {
        let (records, mut rng) = (Records::map(64).expect("a table"), Rng::new());
        let (pages, room) = (PageCount::new(pages), PageCount::new(room));
        shard.reserve(arena, &records, 0, pages, room, &mut rng).expect("room")
    }

    #[test]
    fn an_object_grows_until_others_lie_behind_it_or_its_run_ends() {
        let arena = Arena::reserve(Backend::Mprotect, 1 << 30, None).expect("address space");
        let mut shard = Shard::NEW;
        let first = spot(&mut shard, &arena, 2, MAX_PAGES).span;
        assert!(shard.extend(&arena, first, PageCount::new(3)));
        // Its end is another one now.
        assert!(!shard.extend(&arena, first, PageCount::new(1)));
        let grown = Span::new(first.start, PageCount::new(5));
        assert!(shard.extend(&arena, grown, PageCount::new(MAX_PAGES - 5)));
        let full = Span::new(first.start, PageCount::new(MAX_PAGES));
        assert!(!shard.extend(&arena, full, PageCount::new(MAX_GAP)));
        // The page before the next run stays closed only as that run's gap.
        for _ in 0..RUNS {
            spot(&mut shard, &arena, 1, 1);
        }
        assert!(!shard.extend(&arena, full, PageCount::new(RUN_PAGES)));
        let elsewhere = Span::new(Addr::new(PAGE_SIZE), PageCount::new(1));
        assert!(!shard.extend(&arena, elsewhere, PageCount::new(1)));
    }
}
