//! Freeing a guarded object, and what is wrong with a free that cannot be.

use super::PageArm;
use crate::fault::{Detail, Event, Fault, Kind};
use crate::meta::{Record, RecordId, State};
use crate::request::Claim;
use crate::sync::atomic::Ordering;
use crate::sys::vm;

impl PageArm {
    /// Frees the object that `claim` names: closes its pages, so that it is gone when this returns. With
    /// batches what is wrong may be another object of the batch; the claimed one is freed then.
    pub fn free(&self, claim: &Claim, mismatch: bool, lane: usize, event: Event) -> Result<(), Fault> {
        let id = self.record_at(claim.address);
        let Some(record) = self.records.get(id) else {
            return Err(self.misuse(claim));
        };
        if !record.begin_free(claim.address) {
            return Err(self.refusal(record, claim));
        }
        if record.is_poisoned() {
            self.end_poison(record);
        }
        let kind = if mismatch && record.origin() != claim.origin {
            Some(Kind::AllocDeallocMismatch)
        } else if claim.align.is_some_and(|stated| stated != record.align()) {
            record.refuse_free();
            return Err(Fault::of_alignment(claim, record.object()));
        } else if claim.size.is_some_and(|stated| stated != record.size()) {
            Some(Kind::BadSize)
        } else {
            None
        };
        if let Some(kind) = kind {
            record.refuse_free();
            let detail = Detail::of_claim(claim.origin, claim.size);
            return Err(Fault { kind, address: claim.address, object: record.object(), detail });
        }
        if let Some(wrong) = self.wrong_slack(record) {
            record.refuse_free();
            return Err(Fault::new(Kind::CanaryOverwritten, wrong, record.object()));
        }
        if !record.begin_close(event) {
            return Ok(());
        }
        let lane = self.lane_of(lane);
        if self.may_wait(record) {
            return self.defer(record, id, lane);
        }
        self.close(record, id);
        record.end_free();
        self.remember_freed(record, id);
        Ok(())
    }

    pub(super) fn close(&self, record: &Record, id: RecordId) {
        let span = record.span();
        let Some(chunk) = self.arena.chunk_of(span.start) else {
            if let Some(mut objects) = self.detached.lock_quietly() {
                objects.remove(record.address(), span);
            }
            return;
        };
        if self.arena.large_chunks().contains(&chunk) {
            // Whole chunks, whose page tables go with them. Refused only when mappings have run out: then at least the
            // memory goes.
            let chunks = self.large_chunks(span, id);
            let all = chunks.map_or(span, |(first, count)| self.arena.chunk_span(first, count));
            if !vm::decommit(all) {
                vm::release(span);
            }
            self.free_chunks(span, id);
            return;
        }
        if self.is_in_void(span.start) {
            self.arena.leave_chunk(chunk);
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
            let detail = Detail::of_claim(claim.origin, claim.size);
            return Fault { detail, ..Fault::new(Kind::BadSize, claim.address, object) };
        }
        let kind = match (same, freed, covers) {
            (true, true, _) => Kind::DoubleFree,
            // The page was used once, and its record has been used for another object since.
            (false, _, false) => return Fault::new(Kind::DoubleFree, claim.address, None),
            _ => Kind::InvalidFree,
        };
        Fault::new(kind, claim.address, object)
    }
}
