//! Questions about slots: which objects are live, which bytes may be accessed, how much is in use.
//!
//! # Accessible bytes
//!
//! How many bytes may be accessed from an address on:
//!
//! | at the address | answer |
//! |---|---|
//! | a byte of a live object | the rest of the object, up to its first poisoned byte |
//! | slack, a freed slot, a slot that never had an object | 0 |
//! | a slot that a thread is allocating or freeing, a guard page, an address in no slab | unknown |
//!
//! # Usage
//!
//! The memory that the allocator holds, and the part in use, counted on request.

use super::class::{self, Place, Sight};
use super::layout::layout;
use super::state::SlotState;
use super::{cache, central, front, poison};
use crate::addr::Addr;
use crate::fault::Object;
use core::ops::Range;

/// The live object that `address` points into: its start and its size.
pub fn around(address: Addr) -> Option<(Addr, usize)> {
    let place = cache::place(address)?;
    let info = layout().classes.get(place.class)?;
    if place.slot >> info.slab_shift >= info.slabs() {
        return None;
    }
    let state = info.state_of(place.slot);
    let size = state.is_live().then(|| info.size.checked_sub(state.slack())).flatten()?;
    (place.into < size.max(1)).then(|| (Addr::new(info.address(place.slot)), size))
}

/// Calls `visit` with the start and the size of every live object.
pub fn each(mut visit: impl FnMut(Addr, usize)) {
    for (class, info) in layout().classes.iter().enumerate() {
        for slot in central::opened_slots(class) {
            let state = info.state_of(slot);
            if let Some(size) = info.size.checked_sub(state.slack()).filter(|_| state.is_live()) {
                visit(Addr::new(info.address(slot)), size);
            }
        }
    }
}

/// From the front, or the first region, to the end of the last.
pub fn region() -> Range<usize> {
    let front = front();
    front.start..front.end.saturating_add(layout().span)
}

/// The front; nothing before the first region where there is none.
fn front() -> Range<usize> {
    let layout = layout();
    let end = layout.base.wrapping_add(front::BYTES);
    if layout.has_front { layout.base..end } else { end..end }
}

/// Where slots lie: one range, or the front and what each class has left.
pub fn regions() -> impl Iterator<Item = Range<usize>> {
    let is_cut = super::cut::is_cut();
    let each = layout().classes.iter().map(super::cut::kept).filter(move |_| is_cut);
    [if is_cut { front() } else { region() }].into_iter().chain(each)
}

/// The answer for what the allocator says nothing of: no bound.
pub const UNTOLD: usize = usize::MAX;

/// Whether `len` bytes from `address` on are one live object's, as far as the slot's state tells at first sight; `None`
/// outside the regions.
#[inline(always)]
pub fn holds(address: usize, len: usize) -> Option<bool> {
    match class::room_at_sight(layout(), address) {
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
        // A sweep looked at it, or it was allocated just now, or has poisoned bytes.
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
    let place = class::locate(layout, address.get())?;
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
        .then(|| class::object(Addr::new(info.address(next)), info.size, next_state))
        .flatten()
}

/// Figures of all classes. Other threads may go on meanwhile: the sum is then of slightly different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live objects.
    pub objects: usize,
    /// Bytes that were asked for, of all live objects.
    pub bytes: usize,
    /// Bytes of the slabs that hold memory.
    pub held: usize,
    /// Bytes of those of them that have no slot in use.
    pub spare: usize,
    /// Slots of held slabs that no object has, those in caches and quarantines included.
    pub free_slots: usize,
}

/// Counts everything.
pub fn count() -> Usage {
    let mut usage = Usage::default();
    for class in 0..class::COUNT {
        let slabs = central::held(class);
        let Some(info) = layout().classes.get(class) else { continue };
        let slab_bytes = info.size << info.slab_shift;
        let slots = info.usable_end(1).saturating_sub(1) as usize;
        // The one in the front may be shorter.
        let in_front = central::handed_out(class, 0).is_some_and(|slots| !slots.is_empty());
        let (short_bytes, short_slots) = match in_front {
            true => (slab_bytes - info.slab_bytes(0), (info.usable_end(1) - info.usable_end(0)) as usize),
            false => (0, 0),
        };
        let held = (slabs.active as usize).saturating_mul(slab_bytes).saturating_sub(short_bytes);
        usage.held = usage.held.saturating_add(held);
        usage.spare = usage.spare.saturating_add((slabs.spare as usize).saturating_mul(slab_bytes));
        let mut live = 0_usize;
        let mut slab = 0;
        while let Some(slots) = central::handed_out(class, slab) {
            for state in slots.map(|slot| info.state_of(slot)).filter(|state| state.is_live()) {
                live += 1;
                usage.bytes = usage.bytes.saturating_add(info.size.saturating_sub(state.slack()));
            }
            slab += 1;
        }
        usage.objects += live;
        let held = (slabs.active as usize).saturating_mul(slots).saturating_sub(short_slots);
        usage.free_slots += held.saturating_sub(live);
    }
    usage
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
            room(class::locate(layout, info.address(slot) + into).expect("in the regions"))
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
        assert_eq!(room(class::locate(layout, guard).expect("in the regions")), UNTOLD);
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
