//! Freed objects whose pages are taken away together (`unmap=batch:N`).
//!
//! Taking pages away interrupts every processor that runs a thread of the process. A batch empties the
//! pages of N objects in one call and closes them then, which interrupts nobody any more. What it gives
//! up: until its batch is full a freed object's pages stay open. Its bytes are cleared, so that a stale
//! read finds zeros, and checked when the batch ends, so that a stale write is reported then. Double
//! frees are found at once as ever.

use super::PageArm;
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::{Fault, Kind};
use crate::meta::{Record, RecordId};

/// The most objects that wait together.
pub const MOST: usize = 64;
/// Larger objects are not worth clearing: their pages go at once.
const LARGEST: usize = PAGE_SIZE;

/// The freed objects of one lane that wait, under their lock.
pub struct Batch {
    records: [u32; MOST],
    len: usize,
}

impl Batch {
    /// None.
    pub const NEW: Self = Self { records: [0; MOST], len: 0 };

    /// Adds an object; the whole batch when `limit` are together.
    fn add(&mut self, id: RecordId, limit: usize) -> Option<Self> {
        if let Some(place) = self.records.get_mut(self.len) {
            *place = id.0;
            self.len += 1;
        }
        (self.len >= limit.min(MOST)).then(|| core::mem::replace(self, Self::NEW))
    }
}

impl PageArm {
    /// Whether the object that is being freed may wait for others.
    pub(super) fn may_wait(&self, record: &Record) -> bool {
        self.config.batch > 1
            && record.is_opened()
            && record.size() <= LARGEST
            && self.arena.is_in_lane(record.span().start)
    }

    /// Ends the life of an object whose pages stay open until its batch is full; then what is wrong with
    /// one of the batch.
    pub(super) fn defer(&self, record: &Record, id: RecordId, lane: usize) -> Result<(), Fault> {
        // SAFETY: the object is being freed by this thread, and its pages are open.
        unsafe { record.address().as_ptr::<u8>().write_bytes(0, record.size()) };
        record.end_free();
        let Some(mut batch) = self.lanes.get(lane).and_then(|slot| slot.batch.enter()) else {
            // In a signal handler: it waits for nobody.
            self.close(record, id);
            self.remember_freed(record, id);
            return Ok(());
        };
        let full = batch.add(id, self.config.batch);
        drop(batch);
        full.map_or(Ok(()), |batch| self.revoke(&batch))
    }

    /// Ends a lane's batch; what is wrong with one of it.
    pub(super) fn end_batch(&self, lane: usize) -> Result<(), Fault> {
        if self.config.batch <= 1 {
            return Ok(());
        }
        let Some(mut waiting) = self.lanes.get(lane).and_then(|slot| slot.batch.enter()) else {
            return Ok(());
        };
        let batch = core::mem::replace(&mut *waiting, Batch::NEW);
        drop(waiting);
        self.revoke(&batch)
    }

    fn revoke(&self, batch: &Batch) -> Result<(), Fault> {
        let mut result = Ok(());
        let ids = batch.records.iter().take(batch.len).map(|number| RecordId(*number));
        let records = || ids.clone().filter_map(|id| self.records.get(id).map(|record| (id, record)));
        for (_, record) in records() {
            let wrong = self.written(record).map(|address| (Kind::WriteAfterFree, address));
            let wrong = wrong.or_else(|| Some((Kind::CanaryOverwritten, self.wrong_slack(record)?)));
            if let Some((kind, address)) = wrong {
                result = result.and(Err(Fault::new(kind, address, record.object())));
            }
        }
        self.config.backend.empty(records().map(|(_, record)| record.span()));
        for (id, record) in records() {
            self.close(record, id);
            self.remember_freed(record, id);
        }
        result
    }

    /// The first byte of a cleared object that is not zero.
    fn written(&self, record: &Record) -> Option<Addr> {
        let start = record.address();
        let byte = |at: usize| {
            // SAFETY: within the object, whose pages are open until its batch ends.
            unsafe { start.plus(at).as_ptr::<u8>().read() }
        };
        let size = record.size();
        match (0..size).fold(0, |seen, at| seen | byte(at)) {
            0 => None,
            _ => (0..size).find(|at| byte(*at) != 0).map(|at| start.plus(at)),
        }
    }
}
