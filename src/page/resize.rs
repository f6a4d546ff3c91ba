//! Resizes of guarded objects: in place, or by moving their pages.
//!
//! | object | in place | otherwise |
//! |---|---|---|
//! | in a shard | pages behind the object, while no other object was placed there | copied, to where it can double |
//! | in whole chunks | the rest of its chunks | its pages are moved to chunks with room to double |
//! | either, with `exact_end` | if it still touches its guard as a new object would | large ones: pages moved, bytes shifted |
//!
//! An object that grows by a small part of itself again and again is shifted for one GiB in all, and then each time
//! that it grew by 1/16. In between it ends where its page allows, with canary behind it.

use super::placement::{address, alignment, pages};
use super::{Found, PageAllocator, Side, large, shard};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::Event;
use crate::meta::{Record, RecordId};
use crate::request::Request;
use crate::rng::Rng;
use crate::sync::atomic::Ordering;
use crate::sys::vm::{self, Relocation};

/// Bytes that may be shifted before any are earned, and saved up at most.
pub(super) const ADVANCE: u64 = 1 << 30;
/// Bytes that may be shifted for each that an object grew or shrank by.
const SHIFTED_A_BYTE: u64 = 16;

impl PageAllocator {
    /// Changes the size of a live object in place. `false`, and nothing changed, if its pages do not
    /// allow it, or a sweep looks at it. With `exact_end` the object must go on touching its guard.
    pub fn resize(&self, found: Found<'_>, request: &Request, exact_end: bool) -> bool {
        if !found.record.begin_resize(found.address) {
            return false;
        }
        let resized = self.resize_taken(found, request, exact_end);
        found.record.refuse_free();
        resized
    }

    fn resize_taken(&self, found: Found<'_>, request: &Request, exact_end: bool) -> bool {
        let (record, id) = (found.record, found.id);
        let new_size = request.size;
        let span = record.span();
        let start = record.address();
        let Some(offset) = start.offset_from(span.start) else { return false };
        let Some(end) = offset.checked_add(new_size) else { return false };
        let new_span = Span::new(span.start, PageCount::holding(end));
        if new_size == 0 || !record.is_opened() || self.wrong_slack(record).is_some() {
            return false;
        }
        let Some(chunk) = self.arena.chunk_of(span.start) else {
            return false;
        };
        let fits = match self.arena.large_chunks().contains(&chunk) {
            true => {
                let touches = || {
                    let align = alignment(request, self.config.exact);
                    start == address(new_span, new_size, align, side(record))
                };
                let (kept, change) = (new_size.min(record.size()), new_size.abs_diff(record.size()));
                let stays = !exact_end || touches() || !self.affords_shift(kept, change);
                stays && self.resize_in_chunks(span, id, new_span.pages)
            }
            false => !exact_end && self.resize_in_shard(found, new_span),
        };
        if !fits {
            return false;
        }
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

    /// Whether the `bytes` of an object are to be shifted for the guard's sake, since it changed by `change` bytes.
    /// An object that grows by small steps would be copied once a step: what is shifted beyond an advance has to be
    /// earned by growing, so that all of it stays in proportion to what the program itself writes.
    fn affords_shift(&self, bytes: usize, change: usize) -> bool {
        let earned = (change as u64).saturating_mul(SHIFTED_A_BYTE);
        let mut affords = false;
        let _ = self.shifts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| {
            let credit = credit.saturating_add(earned).min(ADVANCE);
            affords = credit >= bytes as u64;
            Some(if affords { credit - bytes as u64 } else { credit })
        });
        affords
    }

    /// Gives a large object's pages another length within its chunks.
    fn resize_in_chunks(&self, span: Span, id: RecordId, pages: PageCount) -> bool {
        let Some((first, count)) = self.large_chunks(span, id) else { return false };
        let fits = pages <= large::room(&self.arena, span, first, count);
        // An object that shrinks to a fraction moves to where it belongs.
        let belongs = pages.get() > shard::MAX_PAGES / 2 || pages.get() * 4 >= span.pages.get();
        fits && belongs && large::resize(span, pages)
    }

    /// Opens pages behind an object in a shard, or closes its last ones.
    fn resize_in_shard(&self, found: Found<'_>, new: Span) -> bool {
        let old = found.record.span();
        let Some(entry) = self.shards.get(found.record.shard.load(Ordering::Relaxed) as usize) else {
            return false;
        };
        let Some(more) = new.pages.get().checked_sub(old.pages.get()) else {
            let tail = PageCount::new(old.pages.get() - new.pages.get());
            if !self.config.backend.close(Span::new(new.end(), tail)) {
                return false;
            }
            entry.live_pages.fetch_sub(tail.get(), Ordering::Relaxed);
            return true;
        };
        if more == 0 {
            return true;
        }
        let more = Span::new(old.end(), PageCount::new(more));
        let granted = entry.shard.enter().is_some_and(|mut shard| shard.extend(&self.arena, old, more.pages));
        // What is granted and not opened serves nobody until the shard comes round.
        if !granted || self.any_allowed.load(Ordering::Relaxed) && !self.close_behind(more) {
            return false;
        }
        if !self.config.backend.open(more) {
            return false;
        }
        entry.live_pages.fetch_add(more.pages.get(), Ordering::Relaxed);
        self.arena.set_record(more, found.id);
        true
    }

    /// Closes pages that an object is about to get, and the page behind them: an access may have been allowed.
    fn close_behind(&self, more: Span) -> bool {
        self.config.backend.close(Span::new(more.start, PageCount::new(more.pages.get() + 1)))
    }

    /// Moves a live object to whole chunks, taking its pages along where that is possible. With `exact_end` it touches
    /// its guard there, on the side where it did. The new address; the old object is still to be freed.
    pub fn relocate(
        &self,
        found: Found<'_>,
        request: &Request,
        exact_end: bool,
        shard: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        if !found.record.begin_resize(found.address) {
            return None;
        }
        let moved = self.relocate_taken(found, request, exact_end, shard % self.arena.shards(), event, rng);
        found.record.refuse_free();
        moved
    }

    fn relocate_taken(
        &self,
        found: Found<'_>,
        request: &Request,
        exact_end: bool,
        shard: usize,
        event: Event,
        rng: &mut Rng,
    ) -> Option<Addr> {
        let old = Extent::of(found.record)?;
        // Its free is to find what is wrong with it.
        if self.wrong_slack(found.record).is_some() {
            return None;
        }
        let align = alignment(request, self.config.exact);
        let movable = found.record.is_opened() && self.is_large(old.span.start);
        // Where it need not touch its guard it stays where it was in its page, and its pages are moved as they are.
        let stays = movable && !exact_end && old.offset.is_multiple_of(align.min(PAGE_SIZE));
        let side = if exact_end { side(found.record) } else { Side::Left };
        let new_pages = match stays {
            true => PageCount::holding(old.offset.checked_add(request.size)?),
            false => pages(request.size, align)?,
        };
        if new_pages.get() <= shard::MAX_PAGES {
            return None;
        }
        let (id, record, span) = self.reserve_large(new_pages, align, shard, rng)?;
        let start = match stays {
            true => span.start.plus(old.offset),
            false => address(span, request.size, align, side),
        };
        let kept = old.size.min(request.size);
        let taken = PageCount::holding(old.offset.saturating_add(kept));
        let Some(relocation) = take_along(old, taken, span, movable && taken <= span.pages) else {
            // What was opened of it is closed again, else it serves nobody any more.
            if vm::decommit(span) {
                self.cancel_large(span, id, shard);
            }
            return None;
        };
        match relocation {
            Relocation::Done => {
                found.record.empty();
                let from = span.start.plus(old.offset);
                let stale = span.start.plus(taken.bytes()).offset_from(start.plus(kept)).unwrap_or(0);
                // SAFETY: the object's bytes, within its new pages wherever they begin there. Behind them, up to the
                // end of what was taken along or of the object, lies what was canary or is left of the bytes.
                unsafe {
                    if from != start {
                        core::ptr::copy(from.as_ptr::<u8>(), start.as_ptr::<u8>(), kept);
                    }
                    start.plus(kept).as_ptr::<u8>().write_bytes(0, stale.min(request.size - kept));
                }
            }
            // SAFETY: the old object is live and the caller's, the new one fresh, and both have so many bytes.
            Relocation::Refused => unsafe {
                core::ptr::copy_nonoverlapping(old.start().as_ptr::<u8>(), start.as_ptr::<u8>(), kept);
            },
            // Its record stays as it is, so that its chunks serve nobody any more.
            Relocation::Lost => return None,
        }
        self.finish(record, start, request, span, side, event, shard);
        Some(start)
    }

    fn is_large(&self, address: Addr) -> bool {
        self.arena.chunk_of(address).is_some_and(|chunk| self.arena.large_chunks().contains(&chunk))
    }
}

/// Opens `new`, closed pages, with the first `taken` pages of `old` as its first if these can be moved; `None` if the
/// kernel refuses to open it.
fn take_along(old: Extent, taken: PageCount, new: Span, movable: bool) -> Option<Relocation> {
    let head = Span::new(new.start, if movable { taken } else { PageCount::new(0) });
    let rest = Span::new(head.end(), PageCount::new(new.pages.get() - head.pages.get()));
    if rest.pages.get() != 0 && !vm::commit(rest) {
        return None;
    }
    if !movable {
        return Some(Relocation::Refused);
    }
    match vm::relocate(Span::new(old.span.start, taken), new.start) {
        Relocation::Refused => vm::commit(head).then_some(Relocation::Refused),
        relocation => Some(relocation),
    }
}

/// Which guard an object touches.
fn side(record: &Record) -> Side {
    if record.is_left() { Side::Left } else { Side::Right }
}

/// Where an object is.
#[derive(Clone, Copy)]
struct Extent {
    span: Span,
    /// From the start of its pages to its first byte.
    offset: usize,
    size: usize,
}

impl Extent {
    fn of(record: &Record) -> Option<Self> {
        let span = record.span();
        let offset = record.address().offset_from(span.start)?;
        Some(Self { span, offset, size: record.size() })
    }

    fn start(self) -> Addr {
        self.span.start.plus(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_steps_are_shifted_until_the_advance_is_used_up_and_large_ones_always() {
        let allocator = PageAllocator::NONE;
        let size = 100 << 20;
        let shifted = (0..1_000).filter(|_| allocator.affords_shift(size, 16)).count();
        assert_eq!(shifted, ADVANCE as usize / size);
        for _ in 0..100 {
            assert!(allocator.affords_shift(size, size / 16));
        }
        assert!(!allocator.affords_shift(size, 16));
    }
}
