//! Frees of guarded objects, refused frees, and sweeps.
//!
//! # Batches
//!
//! With `unmap=batch:N` the pages of N freed objects are taken away together.
//!
//! Taking pages away interrupts every processor that runs a thread of the process. A batch empties the pages of N
//! objects in one call. Closing them afterwards interrupts no processor any more. The price: until its batch is full, a
//! freed object's pages stay open. Its bytes are cleared, so a stale read finds zeros. They are checked when the batch
//! ends, so a stale write is reported then. Double frees are found at once in any case.
//!
//! # Sweeps
//!
//! A sweep checks the slack of every live object, one at a time, while other threads go on. It claims each object. A
//! thread that frees a claimed object leaves the closing of its pages to the sweep; a thread that resizes one moves it.
//! The claimed object is noted under a lock, so a forked child can end the claim of a thread that it does not have.

use super::PageAllocator;
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::{Detail, Event, Fault, Kind};
use crate::meta::{Record, RecordId, State};
use crate::request::Claim;
use crate::sync::atomic::Ordering;
use crate::sys::vm;

impl PageAllocator {
    /// Frees the object that `claim` names: closes its pages, so that it is gone when this returns. With
    /// batches what is wrong may be another object of the batch; the claimed one is freed then.
    pub fn free(&self, claim: &Claim, mismatch: bool, shard: usize, event: Event) -> Result<(), Fault> {
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
        let shard = self.shard_of(shard);
        if self.may_wait(record) {
            return self.defer(record, id, shard);
        }
        self.close(record, id);
        record.end_free();
        self.remember_freed(record, id);
        Ok(())
    }

    pub(super) fn close(&self, record: &Record, id: RecordId) {
        let span = record.span();
        let Some(chunk) = self.arena.chunk_of(span.start) else {
            if let Some(mut objects) = self.detached.lock_signal_safe() {
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
        if let Some(entry) = self.shards.get(record.shard.load(Ordering::Relaxed) as usize) {
            entry.live_pages.fetch_sub(span.pages.get(), Ordering::Relaxed);
        }
        self.release_island();
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

/// The most objects that wait together.
pub const MOST: usize = 64;
/// Larger objects are not worth clearing: their pages go at once.
const LARGEST: usize = PAGE_SIZE;

/// The freed objects of one shard that wait, under their lock.
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

impl PageAllocator {
    /// Whether the object that is being freed may wait for others.
    pub(super) fn may_wait(&self, record: &Record) -> bool {
        self.config.batch > 1
            && record.is_opened()
            && record.size() <= LARGEST
            && self.arena.is_in_shard(record.span().start)
    }

    /// Ends the life of an object whose pages stay open until its batch is full; then what is wrong with
    /// one of the batch.
    pub(super) fn defer(&self, record: &Record, id: RecordId, shard: usize) -> Result<(), Fault> {
        // SAFETY: the object is being freed by this thread, and its pages are open.
        unsafe { record.address().as_ptr::<u8>().write_bytes(0, record.size()) };
        record.end_free();
        let Some(mut batch) = self.shards.get(shard).and_then(|entry| entry.batch.enter()) else {
            // In a signal handler: it waits for nobody.
            self.close(record, id);
            self.remember_freed(record, id);
            return Ok(());
        };
        let full = batch.add(id, self.config.batch);
        drop(batch);
        full.map_or(Ok(()), |batch| self.revoke(&batch))
    }

    /// Ends a shard's batch; what is wrong with one of it.
    pub(super) fn end_batch(&self, shard: usize) -> Result<(), Fault> {
        if self.config.batch <= 1 {
            return Ok(());
        }
        let Some(mut waiting) = self.shards.get(shard).and_then(|entry| entry.batch.enter()) else {
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

/// Where a sweep is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cursor {
    /// At the batch of this shard.
    Batch(usize),
    /// At this record.
    Record(u32),
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self::Batch(0);
}

impl PageAllocator {
    /// Goes on from `cursor` to the next thing that is wrong: what waits in batches first, which ends them, and then
    /// the slack of every live object. `None` at the end.
    pub fn next_wrong(&self, cursor: &mut Cursor) -> Option<Fault> {
        loop {
            match *cursor {
                Cursor::Batch(shard) if shard >= self.shards.len() => *cursor = Cursor::Record(1),
                Cursor::Batch(shard) => {
                    *cursor = Cursor::Batch(shard + 1);
                    if let Err(fault) = self.end_batch(shard) {
                        return Some(fault);
                    }
                }
                Cursor::Record(number) => {
                    if number >= self.records.used() {
                        return None;
                    }
                    *cursor = Cursor::Record(number + 1);
                    let id = RecordId(number);
                    let record = self.records.get(id).filter(|record| record.is_live());
                    let wrong = record.and_then(|record| self.look_at(id, record));
                    if wrong.is_some() {
                        return wrong;
                    }
                }
            }
        }
    }

    fn look_at(&self, id: RecordId, record: &Record) -> Option<Fault> {
        // In a handler that interrupted a look of its own thread there is none to be had.
        let mut looking = self.look.enter()?;
        *looking = id;
        let claimed = record.begin_check();
        let wrong: Option<Addr> = if claimed { self.wrong_slack(record) } else { None };
        let fault = wrong.map(|wrong| Fault::new(Kind::CanaryOverwritten, wrong, record.object()));
        if claimed {
            self.end_look(id, record);
        }
        *looking = RecordId(0);
        fault
    }

    /// Ends a look, and the object's life if that was left to it.
    pub(super) fn end_look(&self, id: RecordId, record: &Record) {
        if record.end_check() {
            self.close(record, id);
            record.end_free();
            self.remember_freed(record, id);
        }
    }

    /// Ends the look that a thread was in the middle of that does not come back to it.
    pub(super) fn end_lost_look(&self, looking: &mut RecordId) {
        let id = core::mem::take(looking);
        if let Some(record) = self.records.get(id) {
            self.end_look(id, record);
        }
    }
}
