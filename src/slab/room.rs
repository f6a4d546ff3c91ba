//! How many bytes may be accessed from an address on, for whoever is about to access them.
//!
//! | what is at the address | answer |
//! |---|---|
//! | a byte of a live object | what is left of it, up to its first poisoned byte |
//! | slack, a freed slot, one that never had an object | 0 |
//! | a slot in a thread's hands, a guard page, what no slab has | not told |

use super::class;
use super::layout::layout;
use super::place::{self, Place, Sight};
use super::poison;
use super::state::SlotState;
use crate::addr::Addr;
use crate::fault::Object;

/// The answer for what the arm says nothing of: no bound.
pub const UNTOLD: usize = usize::MAX;

/// Whether `len` bytes from `address` on are one live object's, as far as the slot's state tells at first sight; `None`
/// outside the regions.
#[inline(always)]
pub fn holds(address: usize, len: usize) -> Option<bool> {
    match place::room_at_sight(layout(), address) {
        Sight::Room(room) => Some(len <= room),
        Sight::Unclear => Some(false),
        Sight::Outside => None,
    }
}

/// Bytes from `place` on that may be accessed.
#[inline(always)]
pub fn room(place: Place) -> usize {
    let Some(info) = layout().classes.get(place.class) else { return UNTOLD };
    let state = info.load(place.slot);
    let end = info.size.wrapping_sub(state.slack());
    if state.is_live() && place.into < end {
        return end - place.into;
    }
    room_slow(place)
}

#[cold]
#[inline(never)]
fn room_slow(place: Place) -> usize {
    let Some(info) = layout().classes.get(place.class) else { return UNTOLD };
    let (slab, within) = (place.slot >> info.slab_shift, place.slot & ((1 << info.slab_shift) - 1));
    if slab >= info.slabs() || within >= info.usable_end(slab) {
        return UNTOLD;
    }
    match info.state_of(place.slot) {
        SlotState::BUSY => UNTOLD,
        // A sweep looked at it, or it was handed out just now, or has poisoned bytes.
        live if live.is_live() => {
            let left = info.size.saturating_sub(live.slack()).saturating_sub(place.into);
            poison::room(info, place.slot, info.address(place.slot) + place.into, left)
        }
        _ => 0,
    }
}

/// Whose access it is that begins at `address`, which is no live object's, and reaches over `len` bytes where that is
/// known.
///
/// The last word of a slot lies between two objects: an access there is the next object's underrun if it reaches into
/// that or is nearer to it.
pub fn object_meant(address: Addr, len: Option<usize>) -> Option<Object> {
    underrun(address, len).or_else(|| super::object_near(address))
}

fn underrun(address: Addr, len: Option<usize>) -> Option<Object> {
    let layout = layout();
    let place = place::locate(layout, address.get())?;
    let info = layout.classes.get(place.class)?;
    let next = place.slot.checked_add(1)?;
    let before = info.size - place.into;
    if before > class::TAIL || next >> info.slab_shift >= info.slabs() {
        return None;
    }
    let next_state = info.state_of(next);
    if !next_state.is_live() {
        return None;
    }
    let here = info.state_of(place.slot);
    let known = here.is_live() || here.is_freed() && !here.is_readied(info.size);
    // Without an object in this slot its end is as far away as can be.
    let behind =
        if known { place.into.saturating_sub(info.size.saturating_sub(here.slack())) } else { info.size };
    let reaches = len.is_some_and(|len| len > before);
    (reaches || before < behind)
        .then(|| place::object(Addr::new(info.address(next)), info.size, next_state))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Origin;
    use crate::sys::vm;

    /// A class that no other test puts states into.
    const CLASS: usize = 40;

    #[test]
    fn what_is_left_of_a_live_object_may_be_accessed() {
        let layout = crate::slab::layout::for_tests();
        let info = layout.classes.get(CLASS).expect("a class");
        assert!(vm::commit(info.slab_span(0)));
        let (slack, size) = (20, info.size - 20);
        let live = SlotState::live(slack, Origin::Malloc);
        let rows = [live, live.freed(), SlotState::BUSY, SlotState::FRESH, SlotState::RELEASED, live];
        for (slot, state) in (1..).zip(rows) {
            info.store(slot, state);
        }
        let at = |slot: u32, into: usize| {
            room(place::locate(layout, info.address(slot) + into).expect("in the regions"))
        };
        assert_eq!((at(1, 0), at(1, size - 1), at(1, size), at(1, info.size - 1)), (size, 1, 0, 0));
        for (slot, into) in
            [(1, 0), (1, 3), (1, size - 1), (1, size), (1, info.size - 1), (2, 0), (3, 0), (4, 0)]
        {
            for len in [0, 1, 2, size - 3, size - 2, size, size + 1, usize::MAX] {
                let told = holds(info.address(slot) + into, len);
                let expected = slot == 1 && into <= size && len <= at(slot, into);
                assert_eq!(told, Some(expected), "{len} bytes from {into} of {slot}");
            }
        }
        assert_eq!(holds(layout.base - 1, 1), None);
        assert_eq!((at(2, 0), at(2, size)), (0, 0), "freed");
        assert_eq!((at(3, 0), at(3, size)), (UNTOLD, UNTOLD), "in a thread's hands");
        assert_eq!((at(4, 0), at(5, 0)), (0, 0), "never handed out, given back");
        let guard = info.guard_span(0).start.get();
        assert_eq!(room(place::locate(layout, guard).expect("in the regions")), UNTOLD);
        let meant = |slot: u32, into: usize, len| {
            let object = object_meant(Addr::new(info.address(slot) + into), len).expect("an object");
            (object.start.get() - info.start) / info.size
        };
        // Between two live ones: by distance, or by where it reaches.
        info.store(7, live);
        assert_eq!(meant(6, size, None), 6);
        assert_eq!((meant(6, info.size - 1, None), meant(6, info.size - 1, Some(1))), (7, 7));
        info.store(6, SlotState::live(class::TAIL, Origin::Malloc));
        let end = info.size - class::TAIL;
        assert_eq!((meant(6, end, Some(4)), meant(6, end, Some(9)), meant(6, end, None)), (6, 7, 6));
        assert_eq!(meant(2, 0, Some(4)), 2, "a freed one's own bytes");
    }
}
