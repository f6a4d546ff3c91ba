//! Objects in slots with poisoned bytes. `src/README.md` has the protocol.
//!
//! The state of such a slot is [`SlotState::POISONED`]. The state that it stands for lies in the table of poisoned
//! bytes. The fast paths do not know this state and leave the slot to the general paths, so they pay nothing for
//! poison.

use super::class::Place;
use super::layout::{ClassInfo, layout};
use super::lookup;
use super::state::SlotState;
use crate::addr::Addr;
use crate::meta::poison::{LOCK, SLOTS};
use core::ops::Range;

/// Marks `bytes`, which lie in the live object at `place`, as poisoned; `false` if there is no memory for the table, or
/// somebody frees the object, or a sweep looks at it at this moment.
pub fn poison(place: Place, bytes: &Range<usize>) -> bool {
    let Some(info) = layout().classes.get(place.class) else { return false };
    let cell = info.state(place.slot);
    if cell.load() != SlotState::POISONED {
        let Some(_lock) = LOCK.lock_signal_safe() else { return false };
        if !SLOTS.open(&lookup::region()) {
            return false;
        }
        let (start, state) = (info.address(place.slot), cell.load());
        if state.is_live() {
            SLOTS.clear(&(start..start + info.size));
            SLOTS.save(start, state.bits());
            if !cell.exchange(state, SlotState::POISONED) {
                return false;
            }
        } else if state != SlotState::POISONED {
            return false;
        }
    }
    SLOTS.set(bytes);
    true
}

/// Marks `bytes`, which lie in the object at `place`, as not poisoned.
pub fn unpoison(place: Place, bytes: &Range<usize>) {
    let poisoned = |info: &ClassInfo| info.load(place.slot).is_covered();
    if layout().classes.get(place.class).is_some_and(poisoned) {
        SLOTS.clear(bytes);
    }
}

/// Ends the poison of the object at `place`, if it has any, which is about to be freed or resized.
pub fn end(place: Place) {
    if let Some(info) = layout().classes.get(place.class)
        && info.load(place.slot) == SlotState::POISONED
    {
        end_in(info, place.slot);
    }
}

/// Ends the poison of the object in a slot whose state is [`SlotState::POISONED`]; the state that the slot has then.
#[cold]
#[inline(never)]
pub(super) fn end_in(info: &ClassInfo, slot: u32) -> SlotState {
    let (start, state) = (info.address(slot), info.unpoisoned(slot, SlotState::POISONED));
    SLOTS.forget(&(start..start + info.size));
    info.state(slot).exchange(SlotState::POISONED, state);
    info.state_of(slot)
}

/// Of `len` bytes from `address` on, which lie in the object at `place`, how many come before the first that is poisoned.
pub(super) fn room(info: &ClassInfo, slot: u32, address: usize, len: usize) -> usize {
    match info.load(slot).is_covered() {
        true => SLOTS.first(&(address..address + len)).map_or(len, |first| first - address),
        false => len,
    }
}

/// The poisoned bytes around `address`, if it is one of a live object's.
pub fn around(address: Addr) -> Option<Range<usize>> {
    let place = super::class::locate(layout(), address.get())?;
    let info = layout().classes.get(place.class)?;
    let (start, size) = lookup::around(address)?;
    info.load(place.slot)
        .is_covered()
        .then(|| SLOTS.around(address.get(), &(start.get()..start.get() + size)))
        .flatten()
}
