//! The page allocator's address space: one reservation, cut into shards and an area for large objects, and the tables
//! that lead from an address to a record.
//!
//! ```text
//! arena:  | shard 0 | shard 1 | ... | shard 31 | void | large objects (to the end) |
//! shard:  | chunk | chunk | chunk | ...      chunks of 2 MiB, opened one after another
//! ```
//!
//! One table has a record number for each page, for objects in shards. The other has an entry for each chunk: how many
//! objects live in it, and for a large object its record. Both are sparse mappings, read with one load.
//!
//! The void is the shard of objects of zero bytes. Its chunks are used in the same order as those of other shards, but
//! are never opened: they stay inaccessible address space, without page tables and in state `EMPTY`.
//!
//! [`chunk`](super::chunk) has the states of a chunk. Neighbouring dead chunks are decommitted together, in one call
//! for a run of [`SHORTEST_RUN`] or more. Decommitting a run splits a mapping, unless the run touches inaccessible
//! space. So the more gaps there are, the longer a run must be to be worth another gap; a run that lies alone between two
//! gaps makes one of them, and goes however short it is: see [`worth`].
//!
//! A process that limits its address space while it runs keeps the chunks in use and a few more. The others are
//! unmapped and no longer belong to the arena: [`Arena::has`] tells them by [`Parts`].
//!
//! A page keeps the number of its last record until the record has been used again for another object. Then
//! [`Arena::forget_old`], which follows each shard, releases that part of the table.

use super::chunk::{ACTIVE, Chunk, DEAD, DECOMMITTING, OPEN, Opening};
use super::cut::Parts;
use crate::addr::{Addr, PAGE_SHIFT, PAGE_SIZE, PageCount, Span};
use crate::meta::{RecordId, poison};
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use crate::sync::{Guard, Lock, Rank};
use crate::sys::guard::Backend;
use crate::sys::vm;
use core::mem::offset_of;
use core::ops::Range;

/// Pairs of chunks of which [`Arena::forget_old`] looks at the names in one call.
const LOOKS: usize = 4;
/// Pairs that it passes at most. What a shard used grows with every chunk, so it must go round the faster the more that is.
const PASSES: usize = 512;
/// Chunks whose entries in the table of records fill a page of it.
pub const CHUNKS_A_TABLE_PAGE: usize = PAGE_SIZE / (CHUNK_PAGES * core::mem::size_of::<AtomicU32>());
/// log2 of a chunk's pages.
const CHUNK_PAGE_SHIFT: u32 = 9;
/// Pages of a chunk.
pub const CHUNK_PAGES: usize = 1 << CHUNK_PAGE_SHIFT;
/// Bytes of a chunk.
pub const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_SIZE;
/// Address space of one page of page tables that points to others.
const BLOCK_BYTES: usize = 1 << 30;
/// The most shards.
pub const SHARDS: usize = 32;
/// The shard of objects of zero bytes.
pub const VOID: usize = SHARDS;
/// The part of what shards leave that is the void's: one in so many chunks.
const VOID_SHARE: usize = 8;
/// Chunks of a shard at least, where that leaves one shard.
const SHARD_CHUNKS: usize = 8;
/// Dead chunks that are decommitted at once at least.
const SHORTEST_RUN: usize = 4;
/// Gaps between open chunks that decommitting may leave, by the length of the run that would add one.
const MAX_HOLES: [(usize, i64); 3] = [(SHORTEST_RUN, 64), (32, 1024), (256, 8192)];
/// The longest run that is looked for: longer ones are decommitted in parts.
const LONGEST_RUN: usize = 256;
/// Chunks of the smallest arena: a shard of two, and as many for large objects.
const MIN_CHUNKS: usize = 4;
/// Bytes of the largest arena: 32 TiB.
const MAX_BYTES: usize = 1 << 45;

/// Whether a run of dead chunks is worth the gaps that decommitting it adds, with `holes` there already.
fn worth(run: usize, added: i64, holes: i64) -> bool {
    added < 0
        || run >= SHORTEST_RUN
            && (added <= 0 || MAX_HOLES.iter().any(|(length, most)| run >= *length && holes + added <= *most))
}

/// Where the arena and its tables lie, as tools that look into another process need to know it.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// The arena.
    pub span: Span,
    /// The table of record numbers, four bytes a page.
    pub pages: Addr,
    /// The table of chunks.
    pub chunks: Addr,
}

impl Geometry {
    /// Bytes from one chunk's entry to the next.
    pub const CHUNK_STRIDE: usize = size_of::<Chunk>();
    /// Where in it the record number of a large object is, four bytes.
    pub const CHUNK_RECORD: usize = offset_of!(Chunk, record);
}

/// The arena.
pub struct Arena {
    span: Span,
    /// How guards are made.
    pub backend: Backend,
    pages: *const AtomicU32,
    chunks: *const Chunk,
    chunk_count: usize,
    /// Gaps between open chunks.
    holes: AtomicI64,
    /// Under it chunks change their states; see [`chunk`](super::chunk).
    order: Lock<()>,
    /// Whether address space was unmapped; [`Arena::parts`] are what is left then.
    pub(super) is_cut: AtomicBool,
    /// By shard, and behind them the void's.
    pub(super) parts: [Parts<SHARD_PARTS>; SHARDS + 1],
    pub(super) large_parts: Parts<LARGE_PARTS>,
    /// Shards that there still are, a bit each.
    pub(super) kept_shards: AtomicU32,
}

/// Dead chunks that are being decommitted, and the gaps that it adds.
struct Run {
    first: usize,
    count: usize,
    gaps: i64,
}

/// Runs of chunks that are left of a shard, and of the area of large objects.
pub(super) const SHARD_PARTS: usize = 8;
const LARGE_PARTS: usize = 64;

// SAFETY: the tables are mappings of atomics that live as long as the process.
unsafe impl Send for Arena {}
// SAFETY: the tables hold atomics alone, and the other fields are set before threads share the arena.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena without address space.
    pub const NONE: Self = Self {
        span: Span::new(Addr::NULL, PageCount::new(0)),
        backend: Backend::Mprotect,
        pages: core::ptr::null(),
        chunks: core::ptr::null(),
        chunk_count: 0,
        holes: AtomicI64::new(0),
        order: Lock::new(Rank::Order, ()),
        is_cut: AtomicBool::new(false),
        parts: [const { Parts::NONE }; SHARDS + 1],
        large_parts: Parts::NONE,
        kept_shards: AtomicU32::new(0),
    };

    /// Reserves the largest arena up to `wanted` bytes that the kernel and
    /// `limit`, the bytes the process may map in all, grant.
    pub fn reserve(backend: Backend, wanted: usize, limit: Option<u64>) -> Option<Self> {
        let wanted = wanted.min(MAX_BYTES);
        let most = match limit {
            None => wanted,
            Some(limit) => wanted.min(usize::try_from(limit / 8).unwrap_or(usize::MAX)),
        };
        let mut chunk_count = (most / CHUNK_BYTES).max(MIN_CHUNKS);
        while chunk_count >= MIN_CHUNKS {
            if let Some(arena) = Self::try_reserve(backend, chunk_count) {
                return Some(arena);
            }
            chunk_count /= 2;
        }
        None
    }

    fn try_reserve(backend: Backend, chunk_count: usize) -> Option<Self> {
        let page_bytes = chunk_count * CHUNK_PAGES * core::mem::size_of::<AtomicU32>();
        let chunk_bytes = chunk_count * core::mem::size_of::<Chunk>();
        let tables = vm::sparse_tables(page_bytes + chunk_bytes)?;
        let Some(span) = vm::reserve(chunk_count * CHUNK_BYTES, CHUNK_BYTES) else {
            vm::unmap_sparse(tables, page_bytes + chunk_bytes);
            return None;
        };
        let arena = Self {
            span,
            backend,
            pages: tables.as_ptr(),
            chunks: tables.plus(page_bytes).as_ptr(),
            chunk_count,
            ..Self::NONE
        };
        // Said once for all shards: mappings that differ in it would not merge. Without guard markers
        // an object's mapping is too short for a huge page anyway.
        if backend == Backend::Madvise {
            vm::no_huge_pages(arena.chunk_span(0, arena.large_chunks().start));
        }
        Some(arena)
    }

    /// Where everything lies, for tools.
    pub fn geometry(&self) -> Geometry {
        Geometry { span: self.span, pages: Addr::of(self.pages), chunks: Addr::of(self.chunks) }
    }

    /// All of it, as it was reserved.
    pub fn region(&self) -> Span {
        self.span
    }

    /// Whether `address` lies in the arena.
    #[inline(always)]
    pub fn contains(&self, address: Addr) -> bool {
        let offset = address.get().wrapping_sub(self.span.start.get());
        offset < self.span.bytes() && self.has(offset / CHUNK_BYTES)
    }

    /// Whether a chunk of those that were reserved was not unmapped.
    #[inline(always)]
    fn has(&self, chunk: usize) -> bool {
        !self.is_cut.load(Ordering::Acquire) || self.has_in_parts(chunk)
    }

    #[cold]
    fn has_in_parts(&self, chunk: usize) -> bool {
        let shard = chunk / self.shard_chunks().max(1);
        let own = match shard < self.shards() {
            true => self.parts.get(shard),
            false => self.parts.get(VOID).filter(|_| self.void_chunks().contains(&chunk)),
        };
        own.map_or_else(|| self.large_parts.have(chunk), |parts| parts.have(chunk))
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        (self.chunk_count / 2 / SHARD_CHUNKS).clamp(1, SHARDS)
    }

    /// The chunks of each shard.
    pub fn shard_chunks(&self) -> usize {
        self.chunk_count / 2 / self.shards()
    }

    /// The chunk numbers of shard `index`, or of the void.
    pub fn chunks_of_shard(&self, index: usize) -> Range<usize> {
        match index {
            VOID => self.void_chunks(),
            _ => index * self.shard_chunks()..(index + 1) * self.shard_chunks(),
        }
    }

    /// The chunk numbers of the void; none in the smallest arenas.
    pub fn void_chunks(&self) -> Range<usize> {
        let start = self.shard_chunks() * self.shards();
        start..start + (self.chunk_count - start) / VOID_SHARE
    }

    /// The chunk numbers that large objects use.
    pub fn large_chunks(&self) -> Range<usize> {
        self.void_chunks().end..self.chunk_count
    }

    /// Whether `address` lies in the void.
    pub fn is_in_void(&self, address: Addr) -> bool {
        self.chunk_of(address).is_some_and(|chunk| self.void_chunks().contains(&chunk))
    }

    /// Whether `address` lies in a shard.
    pub fn is_in_shard(&self, address: Addr) -> bool {
        self.chunk_of(address).is_some_and(|chunk| chunk < self.large_chunks().start)
    }

    /// The span of `count` chunks from `chunk` on.
    pub fn chunk_span(&self, chunk: usize, count: usize) -> Span {
        let start = self.span.start.plus(chunk * CHUNK_BYTES);
        Span::new(start, PageCount::new(count * CHUNK_PAGES))
    }

    /// The number of the chunk that `address` lies in; `None` outside the arena.
    pub fn chunk_of(&self, address: Addr) -> Option<usize> {
        self.contains(address)
            .then(|| (address.get() - self.span.start.get()) >> (PAGE_SHIFT + CHUNK_PAGE_SHIFT))
    }

    fn page_entry(&self, address: Addr) -> Option<&AtomicU32> {
        let offset = self.contains(address).then(|| address.get() - self.span.start.get())?;
        // SAFETY: the table has an entry for every page of the arena that was not unmapped.
        Some(unsafe { &*self.pages.add(offset >> PAGE_SHIFT) })
    }

    fn chunk(&self, chunk: usize) -> Option<&Chunk> {
        // SAFETY: the table has an entry for every chunk number below the count that was not unmapped.
        (chunk < self.chunk_count && self.has(chunk)).then(|| unsafe { &*self.chunks.add(chunk) })
    }

    /// The record of the object that has, or last had, the page of `address`.
    #[inline(always)]
    pub fn record_at(&self, address: Addr) -> RecordId {
        let page = self.page_entry(address).map_or(0, |entry| entry.load(Ordering::Acquire));
        if page != 0 {
            return RecordId(page);
        }
        let chunk = self.chunk_of(address).and_then(|chunk| self.chunk(chunk));
        RecordId(chunk.map_or(0, |chunk| chunk.record.load(Ordering::Acquire)))
    }

    /// The record that the page of `address` names, or its chunk, by the fewest loads; 0 where more has to be asked; `None`
    /// outside the arena.
    #[inline(always)]
    pub fn page_at_sight(&self, address: Addr) -> Option<RecordId> {
        let offset = address.get().wrapping_sub(self.span.start.get());
        if offset >= self.span.pages.get() << PAGE_SHIFT {
            return None;
        }
        if self.is_cut.load(Ordering::Acquire) {
            return Some(RecordId(0));
        }
        // SAFETY: the tables have an entry for every page and every chunk of the arena, nothing of which was unmapped.
        let (page, chunk) = unsafe {
            (
                &*self.pages.add(offset >> PAGE_SHIFT),
                &*self.chunks.add(offset >> (PAGE_SHIFT + CHUNK_PAGE_SHIFT)),
            )
        };
        let named = page.load(Ordering::Acquire);
        Some(RecordId(if named != 0 { named } else { chunk.record.load(Ordering::Acquire) }))
    }

    /// Names the record of the pages of `span`, or with 0 forgets it.
    pub fn set_record(&self, span: Span, record: RecordId) {
        for page in 0..span.pages.get() {
            if let Some(entry) = self.page_entry(span.start.plus(page * PAGE_SIZE)) {
                entry.store(record.0, Ordering::Release);
            }
        }
    }

    /// Readies a shard's next chunk: closed all over, with no record of what lay there before. `None` if the kernel
    /// refuses, `Some(false)` if the chunk is in use still.
    pub fn open_chunk(&self, number: usize) -> Option<bool> {
        let chunk = self.chunk(number)?;
        if self.void_chunks().contains(&number) {
            return Some(self.use_void_chunk(chunk, number));
        }
        let order = self.order.enter();
        let opening = chunk.open(order.as_ref());
        let change = self.gap_change(number, 1);
        if opening == Opening::Unready {
            self.holes.fetch_sub(change, Ordering::Relaxed);
        }
        drop(order);
        let span = self.chunk_span(number, 1);
        if opening == Opening::Occupied {
            return Some(false);
        }
        if opening == Opening::Unready && !self.backend.prepare(span) {
            chunk.refuse();
            self.holes.fetch_add(change, Ordering::Relaxed);
            return None;
        }
        if chunk.named.swap(1, Ordering::Relaxed) != 0 {
            self.set_record(span, RecordId(0));
        }
        Some(true)
    }

    /// [`Arena::open_chunk`] of the void, where nothing is opened.
    fn use_void_chunk(&self, chunk: &Chunk, number: usize) -> bool {
        let free = chunk.live.load(Ordering::Acquire) == 0;
        if free {
            chunk.live.store(ACTIVE, Ordering::Release);
            if chunk.named.swap(1, Ordering::Relaxed) != 0 {
                self.set_record(self.chunk_span(number, 1), RecordId(0));
            }
        }
        free
    }

    /// Counts an object that is about to be placed in the chunk.
    pub fn enter_chunk(&self, number: usize) {
        if let Some(chunk) = self.chunk(number) {
            chunk.enter();
        }
    }

    /// Counts an object out whose pages are closed.
    pub fn leave_chunk(&self, number: usize) {
        if self.chunk(number).is_some_and(Chunk::leave) {
            self.decommit(number, false);
        }
    }

    /// Says that the chunk's shard places nothing more in it.
    pub fn retire_chunk(&self, number: usize) {
        if self.chunk(number).is_some_and(Chunk::retire) {
            self.decommit(number, true);
        }
    }

    /// The lock under which chunks are decommitted; `None` if it is out of reach.
    pub(super) fn order(&self) -> Option<Guard<'_, ()>> {
        self.order.enter()
    }

    /// Whether a chunk has live objects, or is to be decommitted by the thread that freed the last one, or is being decommitted.
    pub(super) fn is_in_use(&self, number: usize) -> bool {
        self.chunk(number).is_some_and(|chunk| {
            chunk.live.load(Ordering::Acquire) != 0 || matches!(chunk.state(), OPEN | DECOMMITTING)
        })
    }

    fn is_dead(&self, number: usize) -> bool {
        self.chunk(number).is_some_and(|chunk| chunk.state() == DEAD)
    }

    /// By how much decommitting `count` chunks from `first` on changes the number of gaps: one more between
    /// two accessible neighbours, one less between two inaccessible ones.
    fn gap_change(&self, first: usize, count: usize) -> i64 {
        let accessible = |number| i64::from(self.chunk(number).is_some_and(Chunk::is_accessible));
        first.checked_sub(1).map_or(0, accessible) + accessible(first + count) - 1
    }

    /// Marks a chunk dead whose last object is gone, and frees the page tables of the run of dead chunks
    /// around it, if that is long enough. Where the lock is out of reach the chunk stays open, and empty,
    /// until its shard comes round. `advances` says that the shard opens the next chunk now.
    fn decommit(&self, number: usize, advances: bool) {
        let Some(run) = self.claim_dead(number, advances) else { return };
        let span = self.chunk_span(run.first, run.count);
        poison::PAGES.release_memory(&(span.start.get()..span.end().get()));
        let decommitted = vm::decommit(span);
        if decommitted && self.backend == Backend::Madvise {
            vm::no_huge_pages(span);
        }
        // What is being decommitted is this thread's: it needs no lock.
        (run.first..run.first + run.count)
            .filter_map(|number| self.chunk(number))
            .for_each(|chunk| chunk.end_decommit(decommitted));
        if !decommitted {
            self.holes.fetch_sub(run.gaps, Ordering::Relaxed);
        }
    }

    /// Marks a chunk dead, and claims the run of dead chunks that it is in if that is worth being decommitted.
    fn claim_dead(&self, number: usize, advances: bool) -> Option<Run> {
        let _order = self.order.enter()?;
        if !self.chunk(number)?.die() {
            return None;
        }
        let (mut first, mut end) = (number, number + 1);
        while end - first < LONGEST_RUN && self.is_dead(end) {
            end += 1;
        }
        while end - first < LONGEST_RUN
            && let Some(before) = first.checked_sub(1)
            && self.is_dead(before)
        {
            first = before;
        }
        let run = Run { first, count: end - first, gaps: self.gap_change(first, end - first) };
        // What the shard opens next ends the gap, and is counted when it does.
        let ends_soon = advances && end == number + 1 && !self.chunk(end).is_some_and(Chunk::is_accessible);
        if !worth(run.count, run.gaps + i64::from(ends_soon), self.holes.load(Ordering::Relaxed)) {
            return None;
        }
        (first..end).filter_map(|number| self.chunk(number)).for_each(Chunk::begin_decommit);
        self.holes.fetch_add(run.gaps, Ordering::Relaxed);
        Some(run)
    }

    /// Goes on from chunk `cursor` of a shard towards its chunk `end` and gives back the parts of the
    /// table of records that name only what `is_stale` says of; the new cursor. It passes what has live objects, or
    /// names that are remembered still, and finds it again when it comes round.
    pub fn forget_old(&self, cursor: usize, end: usize, is_stale: impl Fn(RecordId, Addr) -> bool) -> usize {
        let (mut at, mut looks) = (cursor, 0);
        for _ in 0..PASSES {
            // Two chunks' entries fill a page of the table.
            let pair = at..at + CHUNKS_A_TABLE_PAGE;
            if pair.end > end || looks == LOOKS {
                break;
            }
            let states = || pair.clone().filter_map(|number| self.chunk(number));
            at = pair.end;
            if states().any(|chunk| chunk.live.load(Ordering::Acquire) != 0)
                || states().all(|chunk| chunk.named.load(Ordering::Relaxed) == 0)
            {
                continue;
            }
            looks += 1;
            let span = self.chunk_span(pair.start, CHUNKS_A_TABLE_PAGE);
            let known = (0..span.pages.get()).map(|page| span.start.plus(page * PAGE_SIZE)).any(|page| {
                let record = self.page_entry(page).map_or(0, |entry| entry.load(Ordering::Relaxed));
                record != 0 && !is_stale(RecordId(record), page)
            });
            if known {
                continue;
            }
            if let Some(entries) = self.page_entry(span.start)
                && !vm::discard(Span::new(Addr::of(core::ptr::from_ref(entries)), PageCount::new(1)))
            {
                self.set_record(span, RecordId(0));
            }
            states().for_each(|chunk| chunk.named.store(0, Ordering::Relaxed));
        }
        at
    }

    /// Whether no object lives in any of `count` chunks from `first` on.
    pub fn are_free(&self, first: usize, count: usize) -> bool {
        (first..first + count)
            .all(|number| self.chunk(number).is_some_and(|chunk| chunk.live.load(Ordering::Acquire) == 0))
    }

    /// Gives `count` chunks to a large object, or with record 0 marks them free; what they last held
    /// stays known until they are used again.
    pub fn set_large(&self, first: usize, count: usize, record: Option<RecordId>) {
        for number in first..first + count {
            let Some(chunk) = self.chunk(number) else { return };
            match record {
                Some(record) => {
                    chunk.record.store(record.0, Ordering::Release);
                    chunk.live.store(1, Ordering::Release);
                }
                None => chunk.live.store(0, Ordering::Release),
            }
        }
    }

    /// Large chunks from `first` to the next border of [`BLOCK_BYTES`], or to the end of the area.
    pub fn block_at(&self, first: usize) -> Range<usize> {
        let start = self.chunk_span(first, 1).start;
        let left = BLOCK_BYTES - start.get() % BLOCK_BYTES;
        first..(first + left / CHUNK_BYTES).min(self.large_chunks().end)
    }

    /// Gives back the page tables of a block without an object. The area's lock is held, so no chunk is taken meanwhile.
    pub fn release_tables(&self, block: &Range<usize>) {
        let span = self.chunk_span(block.start, block.len());
        if span.bytes() == BLOCK_BYTES && self.are_free(block.start, block.len()) {
            let _ = vm::decommit(span);
        }
    }

    /// Gives back the memory of a block's names, where these are of stale records and of free chunks; `false` if free chunks
    /// have other names. The area's lock is held.
    pub fn forget_large(&self, block: &Range<usize>, is_stale: impl Fn(RecordId, Span) -> bool) -> bool {
        let is_free = |chunk: &&Chunk| chunk.live.load(Ordering::Acquire) == 0;
        let is_forgotten = |number: usize| {
            self.chunk(number).filter(is_free).is_some_and(|chunk| {
                let record = chunk.record.load(Ordering::Acquire);
                record == 0 || is_stale(RecordId(record), self.chunk_span(number, 1))
            })
        };
        // Pages of the table that end in the block's part of it; they may begin in that of the block before.
        let entry = |number: usize| Addr::of(self.chunks).plus(number * size_of::<Chunk>());
        let area = entry(self.large_chunks().start).get().next_multiple_of(PAGE_SIZE);
        let pages = entry(block.start).page_floor().get().max(area)..entry(block.end).page_floor().get();
        for page in pages.step_by(PAGE_SIZE) {
            let within = page - Addr::of(self.chunks).get();
            let mut numbers = within / size_of::<Chunk>()..(within + PAGE_SIZE).div_ceil(size_of::<Chunk>());
            if numbers.all(is_forgotten) {
                let _ = vm::discard(Span::new(Addr::new(page), PageCount::new(1)));
            }
        }
        block
            .clone()
            .all(|number| is_forgotten(number) || !self.chunk(number).is_some_and(|chunk| is_free(&chunk)))
    }

    /// Takes the whole arena out of locked memory.
    pub fn unlock_memory(&self) {
        self.each_part().for_each(vm::unlock);
    }

    /// Whether a chunk belongs to the live large object with this record.
    pub fn is_large(&self, number: usize, record: RecordId) -> bool {
        self.large_chunks().contains(&number)
            && self.chunk(number).is_some_and(|chunk| {
                chunk.live.load(Ordering::Acquire) != 0 && chunk.record.load(Ordering::Acquire) == record.0
            })
    }

    /// Releases it in a forked child.
    ///
    /// # Safety
    /// As [`Lock::inherit`].
    pub unsafe fn inherit(&self) {
        // SAFETY: as the caller says.
        unsafe { self.order.inherit(|()| ()) };
    }

    /// Releases it if the calling thread has it.
    ///
    /// # Safety
    /// As [`Lock::abandon`].
    pub unsafe fn abandon(&self) {
        // SAFETY: as the caller says.
        unsafe { self.order.abandon(|()| ()) };
    }
}
