//! Guarded objects that change their size: in place, or by moving their pages.

use super::{Found, PageArm, Side, lane, large, take};
use crate::addr::{Addr, PageCount, Span};
use crate::fault::Event;
use crate::request::Request;
use crate::rng::Rng;
use crate::sync::atomic::Ordering;
use crate::sys::vm;

impl PageArm {
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
        let grown = self.grow_taken(found, request, self.lane_of(lane), event, rng);
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
        let movable = from_large && old.pages <= span.pages;
        let relocation = if movable { vm::relocate(old, span.start) } else { vm::Relocation::Refused };
        if relocation == vm::Relocation::Lost {
            // Its record stays taken, so that its chunks serve nobody any more.
            return None;
        }
        if relocation == vm::Relocation::Done {
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
}
