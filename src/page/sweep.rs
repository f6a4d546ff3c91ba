//! A look at the surroundings of every live object.
//!
//! Other threads go on. An object is claimed while it is looked at, one at a time: who frees it meanwhile leaves the
//! closing of its pages to the sweep, who resizes it moves it. Who looks is noted under a lock, so that a
//! forked child can end what a thread that it does not have was in the middle of.

use super::PageArm;
use crate::addr::Addr;
use crate::fault::{Fault, Kind};
use crate::meta::{Record, RecordId};

/// Where a sweep is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cursor {
    /// At the batch of this lane.
    Batch(usize),
    /// At this record.
    Record(u32),
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self::Batch(0);
}

impl PageArm {
    /// Goes on from `cursor` to the next thing that is wrong: what waits in batches first, which ends them, and then
    /// the slack of every live object. `None` at the end.
    pub fn next_wrong(&self, cursor: &mut Cursor) -> Option<Fault> {
        loop {
            match *cursor {
                Cursor::Batch(lane) if lane >= self.lanes.len() => *cursor = Cursor::Record(1),
                Cursor::Batch(lane) => {
                    *cursor = Cursor::Batch(lane + 1);
                    if let Err(fault) = self.end_batch(lane) {
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
    fn end_look(&self, id: RecordId, record: &Record) {
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
