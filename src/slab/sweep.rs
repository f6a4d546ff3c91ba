//! The check of all slots at rest: live slots' canaries, freed slots' contents.
//!
//! A sweep runs at exit and on request, while other threads go on allocating. A slot that a thread is changing looks
//! wrong, too. So a slot that looks wrong is looked at again under a claim ([`look`](super::look)).

use super::central;
use super::class::locate;
use super::layout::{ClassInfo, layout};
use super::look::{LOOKS, Name};
use super::misuse::{is_as_freed, is_as_freed_at, overwritten, touched};
use super::state::SlotState;
use crate::fault::Fault;
use crate::sync::atomic::{AtomicU16, Ordering};

/// Where a sweep is: the slot that it looks at next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    class: usize,
    slab: u32,
    slot: u32,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self { class: 0, slab: 0, slot: 0 };
}

/// Goes on from `cursor` to the next slot with which something is wrong; `None` at the end.
pub fn next_wrong(cursor: &mut Cursor) -> Option<Fault> {
    while let Some(info) = layout().classes.get(cursor.class) {
        let Some(slots) = central::handed_out(cursor.class, cursor.slab) else {
            *cursor = Cursor { class: cursor.class + 1, ..Cursor::START };
            continue;
        };
        let first = cursor.slab << info.slab_shift;
        let (origin, states) = (info.address(first), info.states_of(cursor.slab));
        for slot in slots.start.max(cursor.slot)..slots.end {
            let number = (slot - first) as usize;
            if states.get(number).is_some_and(|state| is_at_rest(info, state, origin + number * info.size)) {
                continue;
            }
            if let Some(fault) = settled(info, slot) {
                cursor.slot = slot + 1;
                return Some(fault);
            }
        }
        cursor.slab += 1;
    }
    None
}

/// Whether a slot is free and as such a one should be, as most are.
#[inline(always)]
fn is_at_rest(info: &ClassInfo, state: &AtomicU16, start: usize) -> bool {
    let state = SlotState::from_bits(state.load(Ordering::Relaxed));
    // SAFETY: a freed slot's slab is open: its memory is mapped.
    state.is_untouched() || state.is_freed() && unsafe { is_as_freed_at(info, start) }
}

/// Checks the freed slots of a slab that no thread uses, until something is `found`.
pub fn check_freed(info: &'static ClassInfo, slab: u32, found: &mut Option<Fault>) {
    if found.is_some() {
        return;
    }
    let first = slab << info.slab_shift;
    let origin = info.address(first);
    for (number, state) in info.states_of(slab).iter().enumerate().skip(1) {
        let freed = SlotState::from_bits(state.load(Ordering::Relaxed)).is_freed();
        // SAFETY: a freed slot's slab is open: its memory is mapped.
        if freed && !unsafe { is_as_freed_at(info, origin + number * info.size) } {
            *found = Some(touched(info, first + number as u32));
            return;
        }
    }
}

/// What is wrong with a slot that others may be changing.
fn settled(info: &'static ClassInfo, slot: u32) -> Option<Fault> {
    let worth = |state| match SlotState::from_bits(state) {
        SlotState::POISONED => true,
        state => state.is_live() || state.is_freed(),
    };
    // Each round more means that another thread changed the slot.
    while check(info, slot).is_some() {
        let name = Name::of(info.address(slot));
        let look = |state| check_in(info, slot, info.unpoisoned(slot, SlotState::from_bits(state)));
        if let Some(found) = LOOKS.at(info.state(slot).word(), name, worth, look) {
            return found;
        }
    }
    None
}

fn word_of(name: Name) -> Option<&'static AtomicU16> {
    let place = locate(layout(), name.address())?;
    Some(layout().classes.get(place.class)?.state(place.slot).word())
}

/// Calls `held` while it looks at a slot.
#[cfg(test)]
pub fn while_looking(held: &mut dyn FnMut()) {
    let info = layout().classes.get(41).expect("a class");
    // Of the second slab, whose place is known before it is opened.
    let slot = (1 << info.slab_shift) + 1;
    let name = Name::of(info.address(slot));
    let worth = |state| SlotState::from_bits(state) != SlotState::LOOKED;
    LOOKS.at(info.state(slot).word(), name, worth, |_| held());
}

/// In a forked child: ends the look of a thread that is not there.
///
/// # Safety
/// As [`Lock::inherit`](crate::sync::Lock::inherit).
pub unsafe fn inherit() {
    // SAFETY: as the caller says.
    unsafe { LOOKS.inherit(word_of) };
}

/// Ends the calling thread's look.
///
/// # Safety
/// As [`Lock::abandon`](crate::sync::Lock::abandon).
pub unsafe fn abandon() {
    // SAFETY: as the caller says.
    unsafe { LOOKS.abandon(word_of) };
}

/// What is wrong with a slot now.
pub fn check(info: &'static ClassInfo, slot: u32) -> Option<Fault> {
    check_in(info, slot, info.state_of(slot))
}

/// What is wrong with a slot in this state.
fn check_in(info: &'static ClassInfo, slot: u32, state: SlotState) -> Option<Fault> {
    match state {
        // SAFETY: a freed slot's slab is open: its memory is mapped.
        freed if freed.is_freed() => (!unsafe { is_as_freed(info, slot) }).then(|| touched(info, slot)),
        live if live.is_live() && layout().protection.canary => overwritten(info, slot, live),
        _ => None,
    }
}
