//! Poison: bytes of live objects that the program declares inaccessible, until it takes the declaration back.
//!
//! It is for pools. A pool serves its own allocations from one object of the heap, and the heap does not see them.
//! Poisoned bytes are marked (`meta/poison.rs`). Functions that check bounds know the marks, and in `hunt` a page is
//! closed when all of its bytes are poisoned. `src/README.md` has the protocol.
//!
//! | the range | poison and unpoison |
//! |---|---|
//! | is empty | do nothing |
//! | is not the heap's, as a whole or where it begins | do nothing, and say so |
//! | lies in one live object | mark or unmark its bytes, whatever they were before |
//! | goes beyond the object's end | report a `heap-buffer-overflow`, and do nothing |
//! | begins in freed memory | report a `heap-use-after-free`, and do nothing |
//! | begins beside an object | report a `wild-access`, and do nothing |
//!
//! The object's free ends its poison. So does a resize, whether or not it succeeds.

use super::heap;
use super::start::is_started;
use crate::addr::Addr;
use crate::fault::{Fault, Kind};
use crate::request::Site;
use crate::slab::{self, cache};
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;
use core::ops::Range;

/// What is to be done with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nobody may touch it.
    Poison,
    /// Everybody may.
    Unpoison,
}

/// Poisons `len` bytes from `address` on, or takes that back, for a caller of the function `name`. Whether it
/// was done.
pub fn change(change: Change, address: Addr, len: usize, name: &'static str, site: Site) -> bool {
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    if !is_started() {
        return false;
    }
    if len == 0 {
        return true;
    }
    let place = cache::place(address);
    let object = match place {
        Some(_) => slab::lookup::around(address),
        None => heap().page.live_at(address).and_then(|object| Some((object.start, object.size?))),
    };
    let Some((start, size)) = object else {
        return refuse(question(address), name, site);
    };
    let left = start.plus(size).offset_from(address).unwrap_or(0);
    if len > left {
        let object = match place {
            Some(_) => slab::object_near(address),
            None => heap().page.live_at(address),
        };
        let fault = Fault::new(Kind::HeapBufferOverflow, address.plus(left), object);
        return refuse(Some(fault), name, site);
    }
    let bytes = address.get()..address.get() + len;
    match (change, place) {
        (Change::Poison, Some(place)) => slab::poison::poison(place, &bytes),
        (Change::Poison, None) => heap().page.poison(&bytes),
        (Change::Unpoison, Some(place)) => {
            slab::poison::unpoison(place, &bytes);
            true
        }
        (Change::Unpoison, None) => {
            heap().page.unpoison(&bytes);
            true
        }
    }
}

/// What is wrong with a range that begins at `address`, where no live object is; `None` where the heap says nothing.
fn question(address: Addr) -> Option<Fault> {
    if super::query::room(address) == usize::MAX {
        return None;
    }
    Some(match cache::place(address) {
        Some(place) => slab::misuse::question(place, address),
        None => heap().page.question(address),
    })
}

#[cold]
#[inline(never)]
fn refuse(fault: Option<Fault>, name: &'static str, site: Site) -> bool {
    if let Some(fault) = fault {
        heap().misuse_of(name, fault, site);
    }
    false
}

/// The poisoned bytes around `address`, if it is one of a live object's.
pub(super) fn around(address: Addr) -> Option<Range<usize>> {
    match cache::place(address) {
        Some(_) => slab::poison::around(address),
        None => heap().page.poisoned_around(address),
    }
}

/// Ends the poison of the object at `address`, which is about to be resized.
pub(super) fn end(address: Addr) {
    match cache::place(address) {
        Some(place) => slab::poison::end(place),
        None => heap().page.end_poison_at(address),
    }
}
