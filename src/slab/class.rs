//! Size classes: which slot size serves which request, and how slots lie in slabs. Pure arithmetic.
//!
//! Slot sizes step by 16 bytes up to 256, and then in eight steps per doubling, so rounding wastes an eighth at most.
//! Behind each power of two there is a class 16 bytes larger: programs ask for powers of two, and with the tail these
//! would take the next step. Every slot ends in at least [`TAIL`] bytes that are not the object's. They hold the canary
//! behind the object, which is also the canary before the next slot.
//!
//! Slots of a class are numbered from a random place in its region on, without a break between slabs: slot `i` starts
//! `i × size` bytes behind that place. A slab has a power of two of slot numbers. Its first slot is never allocated:
//! its last word is the canary before the second slot. The last slots are not allocated either: the guard page at the
//! end of the slab takes their place.
//!
//! ```text
//! slab:  | slot 0: unused | slot 1 | slot 2 | ... | last usable | rest, guard page |
//! slot:  | object: n bytes | slack, at least 8 bytes: canary |
//! ```
//!
//! # From an address to a slot
//!
//! The region gives the class by a shift; in the front, the owner of the page gives it. A multiplication with the
//! class's reciprocal gives the slot.

use super::front::{self, NOBODY};
use super::layout::Layout;
use super::state::{SlotState, StateCell};
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::Object;

/// Canary bytes behind every object at least.
pub const TAIL: usize = 8;
/// The number of size classes.
pub const COUNT: usize = 98;
/// The largest slot.
pub const LARGEST: usize = 128 * 1024 + 16;
/// Requests up to this many bytes find their class by table.
pub const TABLE_MAX: usize = 8192 - TAIL;
/// The first of the classes above 16 KiB, whose freed slots keep their memory for a while only.
pub const LARGE: usize = smallest_holding(16 * 1024 + 1);
/// The largest alignment that slots offer; the page allocator serves larger ones.
pub const MAX_ALIGN: usize = 1024;
/// Their smallest slots, in bytes.
pub const LARGE_SIZE: usize = size(LARGE);

/// Bytes between the slot sizes of the small classes.
pub const FINE_STEP: usize = 16;
const FINE_CLASSES: usize = 16;
const STEPS_PER_DOUBLING: usize = 8;
const CLASSES_PER_DOUBLING: usize = 1 + STEPS_PER_DOUBLING;

/// The slot size of class `class`, in bytes.
pub const fn size(class: usize) -> usize {
    if class < FINE_CLASSES {
        return (class + 1) * FINE_STEP;
    }
    let beyond = class - FINE_CLASSES;
    let base = (FINE_CLASSES * FINE_STEP) << (beyond / CLASSES_PER_DOUBLING);
    match beyond % CLASSES_PER_DOUBLING {
        0 => base + FINE_STEP,
        step => base + base / STEPS_PER_DOUBLING * step,
    }
}

/// The smallest class whose slots hold `bytes` bytes, tail included; `COUNT` if none does.
const fn smallest_holding(bytes: usize) -> usize {
    let mut class = 0;
    while class < COUNT && size(class) < bytes {
        class += 1;
    }
    class
}

const TABLE_LEN: usize = (TABLE_MAX + TAIL) / FINE_STEP + 1;

static TABLE: [u8; TABLE_LEN] = {
    let mut table = [0; TABLE_LEN];
    let mut units = 0;
    while units < TABLE_LEN {
        table[units] = smallest_holding(units * FINE_STEP) as u8;
        units += 1;
    }
    table
};

/// The classes that step by 16 bytes, whose requests find them without a table: the first two beyond the fine
/// ones do as well.
pub const SMALL_COUNT: usize = FINE_CLASSES + 2;
/// The largest request that such a class serves.
pub const SMALL_MAX: usize = SMALL_COUNT * FINE_STEP - TAIL;
/// Their largest slots.
pub const SMALL_SIZE: usize = SMALL_COUNT * FINE_STEP;
/// The most slack in such a class unless an object shrank in its slot.
pub const SMALL_SLACK: usize = TAIL + FINE_STEP - 1;

/// The class for a request of `size` bytes with the ABI's alignment, at most [`TABLE_MAX`] bytes.
#[inline(always)]
pub fn of_small(size: usize) -> usize {
    let units = (size.wrapping_add(TAIL + FINE_STEP - 1)) / FINE_STEP;
    // SAFETY: callers pass at most TABLE_MAX, and the table has an entry for that many units.
    usize::from(unsafe { *TABLE.get_unchecked(units) })
}

/// The class for `size` bytes aligned to `align`; `None` if slots do not serve it.
pub fn of(size: usize, align: usize) -> Option<usize> {
    if align > MAX_ALIGN || size > LARGEST - TAIL {
        return None;
    }
    let mut class = if size <= TABLE_MAX { of_small(size) } else { smallest_holding(size + TAIL) };
    while class < COUNT && !self::size(class).is_multiple_of(align) {
        class += 1;
    }
    (class < COUNT && self::size(class) - size <= MAX_SLACK).then_some(class)
}

/// The most slack that a slot's state can express.
pub const MAX_SLACK: usize = (1 << 13) - 1 + TAIL - 1;

static SLAB_SHIFTS: [u8; COUNT] = {
    let mut shifts = [0; COUNT];
    let mut class = 0;
    while class < COUNT {
        shifts[class] = shift_for(class) as u8;
        class += 1;
    }
    shifts
};

/// log2 of the slot numbers in a slab of class `class`: slabs of about 64 KiB, at least 128 slots, and
/// so many that the slab is a whole number of pages.
pub fn slab_shift(class: usize) -> u32 {
    SLAB_SHIFTS.get(class).copied().unwrap_or(0).into()
}

const fn shift_for(class: usize) -> u32 {
    let slots = (64 * 1024 / size(class)).next_power_of_two();
    let mut shift = if slots < 128 { 7 } else { slots.trailing_zeros() };
    while !(size(class) << shift).is_multiple_of(PAGE_SIZE) {
        shift += 1;
    }
    shift
}

/// Bytes from one slab to the next.
pub fn slab_bytes(class: usize) -> usize {
    size(class) << slab_shift(class)
}

/// One past the last slot of a slab that can be allocated.
pub fn usable_end(class: usize) -> usize {
    (slab_bytes(class) - PAGE_SIZE) / size(class)
}

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

/// [`locate`] and the slot's state in one, for callers that ask about nearly every address.
#[inline(always)]
pub fn room_at_sight(layout: &Layout, address: usize) -> Sight {
    let offset = address.wrapping_sub(layout.base);
    // SAFETY: the classes are below COUNT. Without a front all of its pages are nobody's. The tables have a state for each slot
    // number below `front_end` in the front, and for each that a byte of a region leads to and that is not beyond.
    unsafe {
        let (info, within, slot, states) = if offset < front::BYTES {
            let class = usize::from(front::owner(offset));
            if class >= COUNT {
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

    #[test]
    fn sizes_ascend_in_small_steps() {
        for class in 1..COUNT {
            assert!(size(class) > size(class - 1));
            assert!(size(class).is_multiple_of(16));
            if class > 8 {
                assert!(size(class) * 8 <= size(class - 1) * 9, "class {class}");
            }
        }
        assert_eq!(size(COUNT - 1), LARGEST);
    }

    #[test]
    fn small_classes_step_by_16() {
        for class in 0..SMALL_COUNT {
            assert_eq!(size(class), (class + 1) * FINE_STEP);
        }
    }

    #[test]
    fn every_request_fits_and_no_smaller_class_would() {
        for bytes in 0..=SMALL_MAX {
            let slot = (bytes + TAIL).next_multiple_of(FINE_STEP);
            assert_eq!((slot, slot % FINE_STEP), (size(of_small(bytes)), 0));
            assert!(slot - bytes <= SMALL_SLACK);
        }
        for bytes in 0..=TABLE_MAX {
            let class = of_small(bytes);
            assert!(size(class) >= bytes + TAIL);
            assert!(class == 0 || size(class - 1) < bytes + TAIL);
        }
    }

    #[test]
    fn alignment_is_kept() {
        for align in [16, 32, 64, 128, 256, 512, 1024] {
            for bytes in [0, 1, 16, 63, 64, 65, 1000, 5000] {
                if let Some(class) = of(bytes, align) {
                    assert!(size(class).is_multiple_of(align) && slab_bytes(class).is_multiple_of(align));
                }
            }
        }
    }

    #[test]
    fn slabs_are_whole_pages_with_room() {
        for class in 0..COUNT {
            assert!(slab_bytes(class).is_multiple_of(PAGE_SIZE), "class {class}");
            assert!(usable_end(class) > 64, "class {class}: too few slots to choose from");
        }
    }

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
