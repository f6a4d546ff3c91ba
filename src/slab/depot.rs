//! Numbers of batches that wait for the next thread that needs slots of their class: what one thread frees and
//! another allocates goes through here, without a lock and without a look at the slabs' bitmaps.
//!
//! | place | meaning | next | by whom |
//! |---|---|---|---|
//! | 0 | empty | a number | [`Depot::put`], by one exchange |
//! | a number | a batch waits | 0 | [`Depot::take`], by one exchange |
//!
//! Nobody waits for a place. A fork, a thread that ends and a signal handler find each empty or with a batch.

use crate::sync::atomic::{AtomicU32, Ordering};

/// Places for numbers other than 0. All zero bytes are an empty depot.
#[repr(transparent)]
pub struct Depot<const PLACES: usize>([AtomicU32; PLACES]);

impl<const PLACES: usize> Depot<PLACES> {
    /// Puts a number; `false` if there is no empty place.
    #[must_use]
    pub fn put(&self, number: u32) -> bool {
        self.0.iter().any(|place| {
            place.load(Ordering::Relaxed) == 0
                && place.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed).is_ok()
        })
    }

    /// How many wait, about.
    pub fn len(&self) -> usize {
        self.0.iter().filter(|place| place.load(Ordering::Relaxed) != 0).count()
    }

    /// Takes a number; `None` if there is none.
    pub fn take(&self) -> Option<u32> {
        self.0.iter().find_map(|place| {
            let number = place.load(Ordering::Relaxed);
            let taken = number != 0
                && place.compare_exchange(number, 0, Ordering::Acquire, Ordering::Relaxed).is_ok();
            taken.then_some(number)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_in_and_out() {
        let depot = Depot([const { AtomicU32::new(0) }; 2]);
        assert_eq!(depot.take(), None);
        assert!(depot.put(7) && depot.put(8) && !depot.put(9));
        assert_eq!(depot.len(), 2);
        assert_eq!((depot.take(), depot.take(), depot.take()), (Some(7), Some(8), None));
    }
}
