//! The remote free list of a shard: records of freed objects whose shard's lock was out of reach, in a signal handler.
//!
//! The records are linked by their `next` field into a list without a lock. The next thread that takes a record from
//! the shard takes the whole list.

use crate::meta::{RecordId, Records};
use crate::sync::atomic::{AtomicU32, Ordering};

/// The first record's number, 0 for none.
pub struct RemoteFreeList(AtomicU32);

impl RemoteFreeList {
    /// None.
    pub const NEW: Self = Self(AtomicU32::new(0));

    /// Adds a record.
    pub fn push(&self, records: &Records, id: RecordId) {
        let Some(record) = records.get(id) else { return };
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            record.next.store(first, Ordering::Relaxed);
            match self.0.compare_exchange(first, id.0, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    /// Takes all of them and hands each to `visit`.
    pub fn take(&self, records: &Records, mut visit: impl FnMut(RecordId)) {
        // Mostly there are none, and a look costs less than an exchange.
        if self.0.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut next = self.0.swap(0, Ordering::Acquire);
        while let Some(record) = records.get(RecordId(next)) {
            let id = RecordId(next);
            next = record.next.load(Ordering::Relaxed);
            visit(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn all_are_taken_once() {
        let records = Records::map(100).expect("mapping");
        let remote = RemoteFreeList::NEW;
        (1..50).for_each(|number| remote.push(&records, RecordId(number)));
        let mut taken = Vec::new();
        remote.take(&records, |id| taken.push(id.0));
        taken.sort_unstable();
        assert_eq!(taken, (1..50).collect::<Vec<_>>());
        remote.take(&records, |id| panic!("{id:?} again"));
    }
}
