//! Large objects: whole chunks of address space, opened exactly as far as the object reaches.
//!
//! The pages around a large object are reserved and were never opened, so no guard is installed: the
//! object is a mapping of its own, as it would be in any allocator, and huge pages may serve it. The
//! rest of its chunks is room to grow in place. Chunks are used in order, round and round.

use super::arena::{Arena, CHUNK_BYTES, CHUNK_PAGES};
use crate::addr::{PAGE_SIZE, PageCount, Span};
use crate::rng::Rng;
use crate::sys::vm;
use core::ops::Range;

/// The most guard pages before an object, chosen at random.
const MAX_GAP: u64 = 64;

/// The area's state, under its lock.
pub struct Large {
    /// The next chunk to look at; 0 before the first object.
    next: usize,
    /// The first that was looked at.
    origin: usize,
    /// Whether it came round already.
    went_round: bool,
    /// Whether there are no chunks for further objects.
    closed: bool,
}

impl Large {
    /// An area that has not been used.
    pub const NEW: Self = Self { next: 0, origin: 0, went_round: false, closed: false };

    /// Places no more objects; the chunks that it may have used.
    pub fn close(&mut self) -> Range<usize> {
        self.closed = true;
        if self.went_round { 0..usize::MAX - 1 } else { self.origin..self.next }
    }

    /// Finds chunks for an object of `pages` pages with room for `room` pages in all, aligned to
    /// `align` bytes, and hands them to `claim` under the lock. The object's span, closed.
    pub fn place(
        &mut self,
        arena: &Arena,
        pages: PageCount,
        room: PageCount,
        align: usize,
        rng: &mut Rng,
        claim: impl FnOnce(usize, usize),
    ) -> Option<Span> {
        let area = arena.large_chunks();
        let aligned = align.max(PAGE_SIZE);
        let gap = PageCount::new(1 + rng.below(MAX_GAP) as usize).bytes();
        // Gap before, the object wherever alignment puts it, and a guard page behind.
        let bytes =
            gap.checked_add(aligned)?.checked_add(room.get().max(pages.get()).checked_mul(PAGE_SIZE)?)?;
        let count = bytes.div_ceil(CHUNK_BYTES);
        if self.closed || count > area.len() {
            return None;
        }
        if self.next < area.start {
            self.next = area.start + rng.below((area.len() - count + 1) as u64 / 2) as usize;
            self.origin = self.next;
        }
        let first = self.find(arena, &area, count)?;
        self.went_round |= first < self.next;
        self.next = first + count;
        claim(first, count);
        let low = arena.chunk_span(first, 1).start.plus(gap);
        let start = low.plus(aligned - 1).align_floor(aligned);
        Some(Span::new(start, pages))
    }

    /// The next run of free chunks, from where the last ended, once round.
    fn find(&self, arena: &Arena, area: &Range<usize>, count: usize) -> Option<usize> {
        let search = |mut first: usize, end: usize| {
            while first + count <= end {
                if arena.are_free(first, count) {
                    return Some(first);
                }
                first += 1;
            }
            None
        };
        search(self.next, area.end).or_else(|| search(area.start, (self.next + count).min(area.end)))
    }
}

/// The chunks that the object in `span` has: first and number.
pub fn chunks(arena: &Arena, span: Span, owned: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let mut first = arena.chunk_of(span.start)?;
    while first > arena.large_chunks().start && owned(first - 1) {
        first -= 1;
    }
    let mut end = arena.chunk_of(span.start)? + 1;
    while owned(end) {
        end += 1;
    }
    Some((first, end - first))
}

/// Pages that the object in `span` may grow to in place: up to the last page of its chunks.
pub fn room(arena: &Arena, span: Span, first: usize, count: usize) -> PageCount {
    let end = arena.chunk_span(first, count).end().minus(PAGE_SIZE);
    PageCount::new(end.offset_from(span.start).unwrap_or(0) / PAGE_SIZE)
}

/// Gives a large object's pages another length; `false` if the kernel refuses to open more.
pub fn resize(span: Span, pages: PageCount) -> bool {
    let new_end = span.start.plus(pages.bytes());
    match pages.get().checked_sub(span.pages.get()) {
        Some(0) => true,
        Some(more) => vm::commit(Span::new(span.end(), PageCount::new(more))),
        None => vm::decommit(Span::new(new_end, PageCount::new(span.pages.get() - pages.get()))),
    }
}

const _: () = assert!(CHUNK_PAGES > MAX_GAP as usize + 2, "a chunk holds gap, object and guard");
