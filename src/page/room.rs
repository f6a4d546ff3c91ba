//! How many bytes may be accessed from an address on, for whoever is about to access them.
//!
//! | what is at the address | answer |
//! |---|---|
//! | a byte of a live object | what is left of it, up to its first poisoned byte |
//! | slack, a freed object's page, a guard | 0 |
//! | what is not in the arena, or has a record that nobody used | not told |

use super::{PageArm, poison};
use crate::addr::{Addr, Span};
use crate::fault::Object;
use crate::meta::{Record, State};

/// The answer for what the arm says nothing of: no bound.
const UNTOLD: usize = usize::MAX;

impl PageArm {
    /// The addresses of the arena, as it was reserved.
    pub fn region(&self) -> Span {
        self.arena.region()
    }

    /// Whether `len` bytes from `address` on are one live object's, as far as its page tells at first sight; `None` outside
    /// the arena.
    #[inline(always)]
    pub fn holds(&self, address: Addr, len: usize) -> Option<bool> {
        let page = self.arena.page_at_sight(address)?;
        let record = self.records.get(page).filter(|record| record.is_plainly_live());
        Some(record.is_some_and(|record| len <= left(record, address)))
    }

    /// Bytes from `address` on that may be accessed; `usize::MAX` if the arm says nothing of it.
    #[inline]
    pub fn room(&self, address: Addr) -> usize {
        match self.records.get(self.arena.record_at(address)) {
            Some(record) if record.is_plainly_live() && left(record, address) != 0 => left(record, address),
            _ => self.room_slow(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn room_slow(&self, address: Addr) -> usize {
        if !self.arena.contains(address) {
            return UNTOLD;
        }
        // A page that names no record, or one that has another object now, is a guard: see the arm's invariants.
        match self.records.get(self.arena.record_at(address)) {
            Some(record) if record.state() == State::Unused => UNTOLD,
            Some(record) if record.is_live() => poison::room(record, address, left(record, address)),
            _ => 0,
        }
    }

    /// The live object that `address` lies in, one of zero bytes if it starts there. Objects outside the arena as well.
    pub fn live_at(&self, address: Addr) -> Option<Object> {
        if let Some((_, record)) = self.live_around(address) {
            return record.object();
        }
        let object = self.detached_near(address).filter(|object| !object.freed)?;
        let into = address.offset_from(object.start)?;
        (into < object.size.unwrap_or(0)).then_some(object)
    }
}

/// Bytes of the object of `record` from `address` on.
#[inline(always)]
fn left(record: &Record, address: Addr) -> usize {
    let into = address.get().wrapping_sub(record.address().get());
    record.size().saturating_sub(into)
}
