//! Objects of zero bytes: an address each that is nobody else's, and that nobody may touch.
//!
//! Such an object is a record and the number of a page in the void, a part of the arena that is never opened. So
//! it costs no system call, no memory but its record and its page's name (some 75 bytes), and neither a mapping nor a
//! part of the budget, and there can be millions. It is freed like any other, and a freed one goes on being known.
//!
//! The void is a lane in everything else: oldest addresses first, records that are remembered.

use super::arena::VOID;
use super::{PageArm, Side};
use crate::addr::{Addr, PageCount};
use crate::fault::Event;
use crate::request::Request;
use crate::rng::Rng;
use crate::sync::atomic::Ordering;

impl PageArm {
    /// Allocates an object of zero bytes, aligned to a page. `None` if the void is full, or out of reach of a signal
    /// handler.
    pub(super) fn allocate_nothing(&self, request: &Request, event: Event, rng: &mut Rng) -> Option<Addr> {
        let slot = self.lanes.get(VOID)?;
        let mut state = slot.lane.enter()?;
        let id = self.take_record(slot, &mut state)?;
        let page = PageCount::new(1);
        let Some(spot) = state.place(&self.arena, &self.records, VOID, page, page, rng) else {
            state.remember(&self.records, id);
            return None;
        };
        drop(state);
        let record = self.records.get(id)?;
        if self.let_through.load(Ordering::Relaxed) && !self.close_around(spot.span) {
            // An access may have been let through here, and cannot be kept out any more.
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
