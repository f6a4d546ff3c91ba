//! The objects of all threads: who has one in hand, and where each lies.
//!
//! | a place's state | who changes it |
//! |---|---|
//! | `EMPTY` | any thread → `BUSY`, by compare and exchange |
//! | `BUSY` | its holder → `EMPTY` or `FULL` |
//! | `FULL` | any thread → `BUSY`, by compare and exchange |
//!
//! Nothing here waits for a place: whoever finds it busy goes without. A forked child finds the places that other
//! threads had in hand busy for ever.

use crate::calls::{Family, Object};
use crate::sequence::PLACES;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const FULL: u8 = 2;

/// Places of signal handlers, behind the others.
pub const HANDLER_PLACES: usize = 16;
const ALL: usize = PLACES + HANDLER_PLACES;

/// What the oracle knows of an object.
#[derive(Clone, Copy)]
pub struct Known {
    pub object: Object,
    /// What its contents are made of.
    pub seed: usize,
    pub poisoned: bool,
}

struct Place {
    state: AtomicU8,
    /// 0 while there is no object.
    address: AtomicUsize,
    size: AtomicUsize,
    align: AtomicUsize,
    family: AtomicUsize,
    seed: AtomicUsize,
    poisoned: AtomicBool,
}

static TABLE: [Place; ALL] = [const {
    Place {
        state: AtomicU8::new(EMPTY),
        address: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        align: AtomicUsize::new(0),
        family: AtomicUsize::new(0),
        seed: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
    }
}; ALL];

/// Held while objects are put into the table or taken out, so that places can be compared.
static COMPARING: AtomicBool = AtomicBool::new(false);

/// A place in hand.
pub struct Held(usize);

/// The place, if it is empty.
pub fn take_empty(index: usize) -> Option<Held> {
    take(index, EMPTY)
}

/// The place, if it has an object.
pub fn take_full(index: usize) -> Option<(Held, Known)> {
    let held = take(index, FULL)?;
    let known = held.known();
    Some((held, known))
}

fn take(index: usize, from: u8) -> Option<Held> {
    let state = &TABLE[index].state;
    state.compare_exchange(from, BUSY, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| Held(index))
}

/// Every place's number, those of handlers too.
pub fn indices() -> std::ops::Range<usize> {
    0..ALL
}

impl Held {
    fn place(&self) -> &'static Place {
        &TABLE[self.0]
    }

    fn known(&self) -> Known {
        let place = self.place();
        let object = Object {
            address: place.address.load(Ordering::Relaxed),
            size: place.size.load(Ordering::Relaxed),
            align: place.align.load(Ordering::Relaxed),
            family: Family::of(place.family.load(Ordering::Relaxed)),
            zeroed: false,
        };
        let (seed, poisoned) = (place.seed.load(Ordering::Relaxed), place.poisoned.load(Ordering::Relaxed));
        Known { object, seed, poisoned }
    }

    /// Keeps what is new of the object and lets go of the place.
    pub fn keep(self, known: &Known) {
        let place = self.place();
        place.align.store(known.object.align, Ordering::Relaxed);
        place.family.store(known.object.family.number(), Ordering::Relaxed);
        place.seed.store(known.seed, Ordering::Relaxed);
        place.poisoned.store(known.poisoned, Ordering::Relaxed);
        place.state.store(FULL, Ordering::Release);
    }

    /// Says where the object lies. What it overlaps, if anything.
    pub fn put(&self, object: &Object, may_wait: bool) -> Result<(), Object> {
        let lock = Comparing::lock(may_wait);
        let place = self.place();
        // The address last: only from then on does anybody look at the size.
        place.size.store(object.size, Ordering::Relaxed);
        place.address.store(object.address, Ordering::Release);
        match lock {
            Some(_lock) => self.overlapped(object).map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    /// The object is about to be freed or moved.
    pub fn forget(&self, may_wait: bool) {
        let _lock = Comparing::lock(may_wait);
        self.place().address.store(0, Ordering::Release);
    }

    /// Lets go of the place, which has no object now.
    pub fn empty(self) {
        self.place().state.store(EMPTY, Ordering::Release);
    }

    fn overlapped(&self, object: &Object) -> Option<Object> {
        let end = object.address + object.size.max(1);
        for (index, place) in TABLE.iter().enumerate() {
            let address = place.address.load(Ordering::Acquire);
            let size = place.size.load(Ordering::Acquire);
            let still = place.address.load(Ordering::Relaxed) == address;
            if index != self.0
                && address != 0
                && still
                && address < end
                && object.address < address + size.max(1)
            {
                return Some(Object { address, size, ..*object });
            }
        }
        None
    }
}

struct Comparing;

impl Comparing {
    /// `None` if it may not wait and another has it.
    fn lock(may_wait: bool) -> Option<Self> {
        loop {
            if COMPARING.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(Self);
            }
            if !may_wait {
                return None;
            }
            std::hint::spin_loop();
            std::thread::yield_now();
        }
    }
}

impl Drop for Comparing {
    fn drop(&mut self) {
        COMPARING.store(false, Ordering::Release);
    }
}

/// In a forked child: nobody compares.
pub fn after_fork() {
    COMPARING.store(false, Ordering::Release);
}
