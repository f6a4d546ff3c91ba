//! What is alive in the page arm, for the search for leaks.

use super::PageArm;
use crate::addr::Addr;
use crate::meta::{Record, RecordId, State};

impl PageArm {
    /// The live object that `address` points into, and the number of its record.
    pub fn live_around(&self, address: Addr) -> Option<(u32, &Record)> {
        let id = self.arena.contains(address).then(|| self.arena.record_at(address))?;
        let record = self.live(id)?;
        let into = address.offset_from(record.address())?;
        (into < record.size().max(1)).then_some((id.0, record))
    }

    /// Calls `visit` with every live object and the number of its record.
    pub fn each_live(&self, mut visit: impl FnMut(u32, &Record)) {
        for number in 1..self.records.used() {
            if let Some(record) = self.live(RecordId(number)) {
                visit(number, record);
            }
        }
    }

    fn live(&self, id: RecordId) -> Option<&Record> {
        self.records.get(id).filter(|record| record.state() == State::Live)
    }

    /// One past the highest number of a record.
    pub fn records_used(&self) -> u32 {
        self.records.used()
    }

    /// Whether the object of `record` lies outside the arena: pointers into it do not lead to it.
    pub fn is_detached(&self, record: &Record) -> bool {
        !self.arena.contains(record.address())
    }
}
