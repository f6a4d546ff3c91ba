//! Batches of freed slots on their way from a thread that frees more than it allocates to the next that needs some:
//! what one thread allocates and another frees goes back through here, without a lock and without a look at the
//! slabs' bitmaps.
//!
//! A depot has a few places, each empty, full or in somebody's hands. A batch is put and taken as a whole. A place
//! whose holder ended, or is not there in a forked child, stays in its hands: the batch is lost to the process.

use crate::sync::atomic::{AtomicU32, Ordering};

/// The state of a place without a batch; with one it is the batch's length.
const EMPTY: u32 = 0;
/// The state of a place that somebody fills or empties.
const HELD: u32 = u32::MAX;

struct Place<const LEN: usize> {
    state: AtomicU32,
    slots: [AtomicU32; LEN],
}

/// Places for `PLACES` batches of at most `LEN` slots. All zero bytes are a valid value: an empty depot.
pub struct Depot<const PLACES: usize, const LEN: usize>([Place<LEN>; PLACES]);

impl<const PLACES: usize, const LEN: usize> Depot<PLACES, LEN> {
    /// Puts a batch, of one slot at least; `false` if it is too long or there is no empty place.
    pub fn put(&self, slots: &[u32]) -> bool {
        let len = slots.len() as u32;
        if slots.len() > LEN {
            return false;
        }
        let Some(place) = self.0.iter().find(|place| place.hold(EMPTY)) else { return false };
        for (kept, slot) in place.slots.iter().zip(slots) {
            kept.store(*slot, Ordering::Relaxed);
        }
        place.state.store(len, Ordering::Release);
        true
    }

    /// Takes the first batch that fits into `out`; how many slots it has, 0 if there is none.
    pub fn take(&self, out: &mut [u32]) -> usize {
        for place in &self.0 {
            let len = place.state.load(Ordering::Relaxed);
            if len == EMPTY || len as usize > out.len() || !place.hold(len) {
                continue;
            }
            for (slot, kept) in out.iter_mut().zip(&place.slots).take(len as usize) {
                *slot = kept.load(Ordering::Relaxed);
            }
            place.state.store(EMPTY, Ordering::Release);
            return len as usize;
        }
        0
    }
}

impl<const LEN: usize> Place<LEN> {
    /// Takes the place into the caller's hands if its state is `expected`.
    fn hold(&self, expected: u32) -> bool {
        self.state.load(Ordering::Relaxed) == expected
            && self.state.compare_exchange(expected, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_go_in_and_out_whole() {
        let depot: Depot<2, 3> = Depot(
            [const { Place { state: AtomicU32::new(EMPTY), slots: [const { AtomicU32::new(0) }; 3] } }; 2],
        );
        let mut out = [0; 3];
        assert_eq!(depot.take(&mut out), 0);
        assert!(!depot.put(&[1, 2, 3, 4]));
        assert!(depot.put(&[1, 2, 3]) && depot.put(&[4]) && !depot.put(&[5]));
        // What does not fit is left for somebody with more room.
        assert_eq!((depot.take(&mut out[..2]), out), (1, [4, 0, 0]));
        assert_eq!((depot.take(&mut out), out), (3, [1, 2, 3]));
        assert_eq!(depot.take(&mut out), 0);
    }
}
