//! From an address to its slot, and to what is known of the object in it.
//!
//! It is arithmetic: the region by a shift, or whose the page of the front is; the slot by a multiplication with the
//! class's reciprocal.

use super::class;
use super::front::{self, NOBODY};
use super::layout::Layout;
use super::state::{SlotState, StateCell};
use crate::addr::Addr;
use crate::fault::Object;

/// A place in the regions.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The class.
    pub class: usize,
    /// The slot in it.
    pub slot: u32,
    /// Bytes from the slot's start.
    pub into: usize,
}

/// The slot that `address` lies in; `None` outside the front and the regions.
#[inline(always)]
pub fn locate(layout: &Layout, address: usize) -> Option<Place> {
    let offset = address.wrapping_sub(layout.base);
    if offset < front::BYTES {
        return locate_in_front(layout, address, offset);
    }
    let offset = offset - front::BYTES;
    if offset >= layout.span {
        return None;
    }
    let class = offset >> layout.region_shift;
    // SAFETY: the span is COUNT regions long.
    let info = unsafe { layout.classes.get_unchecked(class) };
    // What lies below slot 0 has numbers that no slab has.
    let within = address.wrapping_sub(info.start) & layout.region_mask;
    let slot = info.slot_at(within);
    if slot < info.front_end {
        return nowhere(layout, class);
    }
    if info.is_beyond(slot) {
        return None;
    }
    Some(Place { class, slot, into: within - slot as usize * info.size })
}

/// What the shortest look at an address tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// So many bytes are left of the live object there; none behind its end.
    Room(usize),
    /// More has to be asked: it is a byte of no object, or one that the shortest look does not know.
    Unclear,
    /// It is outside the regions.
    Outside,
}

/// [`locate`] and the slot's state in one, for those who pass by with nearly every address.
#[inline(always)]
pub fn room_at_sight(layout: &Layout, address: usize) -> Sight {
    let offset = address.wrapping_sub(layout.base);
    // SAFETY: the classes are below COUNT. Without a front all of its pages are nobody's. The tables have a state for each slot
    // number below `front_end` in the front, and for each that a byte of a region leads to and that is not beyond.
    unsafe {
        let (info, within, slot, states) = if offset < front::BYTES {
            let class = usize::from(front::owner(offset));
            if class >= class::COUNT {
                return Sight::Unclear;
            }
            let info = layout.classes.get_unchecked(class);
            let within = address.wrapping_sub(front::start_unchecked(class));
            let slot = info.index_at(within);
            // What lies in the gap before the slab leads to numbers that are far too large.
            if slot >= info.front_end as usize {
                return Sight::Unclear;
            }
            (info, within, slot, info.front_states)
        } else {
            let offset = offset - front::BYTES;
            if offset >= layout.span {
                return Sight::Outside;
            }
            let info = layout.classes.get_unchecked(offset >> layout.region_shift);
            let within = address.wrapping_sub(info.start) & layout.region_mask;
            let slot = info.index_at(within);
            if slot < info.front_end as usize || info.is_beyond(slot as u32) {
                return Sight::Unclear;
            }
            (info, within, slot, info.states)
        };
        let Some(slack) = StateCell::new(&*states.add(slot)).load().live_slack() else {
            return Sight::Unclear;
        };
        let end = (slot * info.size + info.size).wrapping_sub(slack);
        end.checked_sub(within).map_or(Sight::Unclear, Sight::Room)
    }
}

/// [`locate`] for the byte at `offset` from the front's first.
fn locate_in_front(layout: &Layout, address: usize, offset: usize) -> Option<Place> {
    if !layout.has_front {
        return None;
    }
    let class = match front::owner(offset) {
        NOBODY => return nowhere(layout, 0),
        class => usize::from(class),
    };
    let info = layout.classes.get(class)?;
    let within = address.wrapping_sub(front::start(class));
    if within >= front::SLAB_BYTES {
        return nowhere(layout, class);
    }
    let slot = info.slot_at(within);
    if slot >= info.front_end {
        return nowhere(layout, class);
    }
    Some(Place { class, slot, into: within - slot as usize * info.size })
}

/// A place where no slot is or ever was. A class that was cut has none.
fn nowhere(layout: &Layout, class: usize) -> Option<Place> {
    let info = layout.classes.get(class)?;
    let slot = info.no_slot(layout);
    (!info.is_beyond(slot)).then_some(Place { class, slot, into: 1 })
}

/// What reports can say of the slot at `place`: `None` if no object ever lay there.
pub fn object_at(layout: &Layout, place: Place) -> Option<Object> {
    let info = layout.classes.get(place.class)?;
    if place.slot >> info.slab_shift >= info.slabs() {
        return None;
    }
    object(Addr::new(info.address(place.slot)), info.size, info.state_of(place.slot))
}

/// What a slot's state says of the object in it: `None` if none ever lay there.
pub fn object(start: Addr, slot_size: usize, state: SlotState) -> Option<Object> {
    if !state.is_live() && !state.is_freed() || state.is_readied(slot_size) {
        return None;
    }
    Some(Object {
        start,
        size: slot_size.checked_sub(state.slack()),
        freed: state.is_freed(),
        origin: state.origin(),
        history: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::layout;

    /// An address below the class's first slot leads to a slot that no slab has.
    #[test]
    fn nothing_lies_before_the_first_slab() {
        let layout = layout::for_tests();
        for (class, info) in layout.classes.iter().enumerate() {
            let region = layout.base.wrapping_add(front::BYTES) + (class << layout.region_shift);
            // Where that is the region's first byte there is nothing.
            let below = [region, (region + info.start) / 2, info.start - 1];
            for address in below.into_iter().filter(|address| (region..info.start).contains(address)) {
                let Some(place) = locate(layout, address) else {
                    assert!(address + info.size >= info.start, "{class}: only what `WHOLE` leaves out");
                    continue;
                };
                assert!(place.class == class && place.slot >> info.slab_shift >= info.slabs(), "{class}");
                assert!(object_at(layout, place).is_none());
            }
            let place = locate(layout, info.address(5) + 3).expect("in the regions");
            assert_eq!((place.class, place.slot, place.into), (class, 5, 3));
        }
    }
}
