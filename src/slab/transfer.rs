//! The transfer cache of a class: full magazines for the next thread that needs slots of the class.
//!
//! Slots that one thread frees and another allocates pass through it, without a lock and without the slabs' bitmaps.
//!
//! | entry | meaning | next | by |
//! |---|---|---|---|
//! | 0 | empty | a number | [`TransferCache::put`], by one exchange |
//! | a number | a magazine waits | 0 | [`TransferCache::take`], by one exchange |
//!
//! No thread waits for an entry. A fork, a thread that ends and a signal handler find each entry empty or with a
//! magazine.

use crate::sync::atomic::{AtomicU32, Ordering};

/// Places for numbers other than 0. All zero bytes are an empty transfer cache.
#[repr(transparent)]
pub struct TransferCache<const ENTRIES: usize>([AtomicU32; ENTRIES]);

impl<const ENTRIES: usize> TransferCache<ENTRIES> {
    /// Puts a number; `false` if there is no empty entry.
    #[must_use]
    pub fn put(&self, number: u32) -> bool {
        self.0.iter().any(|entry| {
            entry.load(Ordering::Relaxed) == 0
                && entry.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed).is_ok()
        })
    }

    /// How many wait, about.
    pub fn len(&self) -> usize {
        self.0.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0).count()
    }

    /// Takes a number; `None` if there is none.
    pub fn take(&self) -> Option<u32> {
        self.0.iter().find_map(|entry| {
            let number = entry.load(Ordering::Relaxed);
            let taken = number != 0
                && entry.compare_exchange(number, 0, Ordering::Acquire, Ordering::Relaxed).is_ok();
            taken.then_some(number)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_in_and_out() {
        let cache = TransferCache([const { AtomicU32::new(0) }; 2]);
        assert_eq!(cache.take(), None);
        assert!(cache.put(7) && cache.put(8) && !cache.put(9));
        assert_eq!(cache.len(), 2);
        assert_eq!((cache.take(), cache.take(), cache.take()), (Some(7), Some(8), None));
    }
}
