//! What is wrong with a slot or with a free of one, as a report says it.

use super::layout::{ClassInfo, Place, SlotState, layout, object_at};
use super::{bytes, canary, class};
use crate::addr::{ABI_ALIGN, Addr};
use crate::fault::{Fault, Kind, Object};
use crate::request::Claim;

/// What is wrong with a free of the slot at `place`.
pub fn misuse(place: Place, claim: &Claim) -> Fault {
    let layout = layout();
    let object = object_at(layout, place);
    let kind = match object {
        None => Kind::InvalidFree,
        Some(object) if object.freed && place.into == 0 => Kind::DoubleFree,
        Some(_) if place.into != 0 => Kind::InvalidFree,
        Some(object) if object.origin != claim.origin => Kind::AllocDeallocMismatch,
        Some(_) => Kind::BadSize,
    };
    Fault { kind, address: claim.address, object, freed_by: Some(claim.origin), stated: claim.size }
}

/// What is wrong with a free that states an alignment: the live object at `place` cannot have been asked for with it,
/// since it would be in another class. Alignments that share a class are not told apart.
#[inline(always)]
pub fn other_alignment(place: Place, claim: &Claim) -> Option<Fault> {
    let align = claim.align.filter(|align| *align > ABI_ALIGN)?;
    let info = layout().classes.get(place.class)?;
    let wrong = place.into == 0 && info.load(place.slot).is_live() && !info.size.is_multiple_of(align);
    wrong.then(|| Fault::of_alignment(claim, object_at(layout(), place)))
}

/// What is wrong with a question about `address`, at `place`, where no live object starts.
pub fn question(place: Place, address: Addr) -> Fault {
    let object = object_at(layout(), place);
    let state = layout().classes.get(place.class).map(|info| info.load(place.slot));
    // Of a slot whose memory was given back it is known that it was freed, and no more.
    let freed =
        object.is_some_and(|object| object.freed) || object.is_none() && state == Some(SlotState::RELEASED);
    let kind = if freed { Kind::HeapUseAfterFree } else { Kind::WildAccess };
    Fault::new(kind, address, object)
}

/// The overwritten canary around a slot whose state is or was `state`: behind the object or before it.
///
/// The last word of the slack is also the canary before the next slot. It is taken for overwritten from
/// there if the next slot is live and the bytes right behind this object are intact.
pub fn overwritten(info: &'static ClassInfo, slot: u32, state: SlotState) -> Option<Fault> {
    let start = info.address(slot);
    let size = info.size - state.slack();
    let secret = layout().secret;
    let pointer = Addr::new(start).as_ptr::<u8>();
    let fault = |at, object| Some(Fault::new(Kind::CanaryOverwritten, Addr::new(at), Some(object)));
    // SAFETY: the slot is or was live, so it and the word before it are mapped.
    unsafe {
        let word = canary::word(secret, start + info.size);
        if !canary::intact(pointer, size, info.size, word) {
            let wrong = canary::first_wrong(pointer, size, info.size, word);
            let next = slot.wrapping_add(1);
            let next_state = info.load(next);
            if wrong > size && wrong >= info.size - class::TAIL && next_state.is_live() {
                return fault(wrong_before(info, next), object_in(info, next, next_state, false));
            }
            return fault(start + wrong, object_in(info, slot, state, false));
        }
        let before = pointer.sub(8).cast::<u64>().read();
        (before != canary::word(secret, start))
            .then(|| fault(wrong_before(info, slot), object_in(info, slot, state, false)))
            .flatten()
    }
}

/// The overwritten byte of the canary word before a slot that is nearest to it.
///
/// # Safety
/// The slot was handed out: the word before it is mapped.
unsafe fn wrong_before(info: &ClassInfo, slot: u32) -> usize {
    let start = info.address(slot);
    // SAFETY: as the caller says.
    let before = unsafe { Addr::new(start).minus(8).as_ptr::<u64>().read() };
    let wrong = before ^ canary::word(layout().secret, start);
    start - 1 - (wrong.leading_zeros() / 8).min(7) as usize
}

fn object_in(info: &ClassInfo, slot: u32, state: SlotState, freed: bool) -> Object {
    Object {
        start: Addr::new(info.address(slot)),
        size: info.size.checked_sub(state.slack()),
        freed,
        origin: state.origin(),
        history: Default::default(),
    }
}

/// A freed slot's object as a report shows it.
pub fn freed_object(info: &ClassInfo, slot: u32) -> Object {
    object_in(info, slot, info.load(slot), true)
}

/// What was written to a freed slot that is not as its free left it. If only its last word was, which is
/// the canary before the next slot, and that slot is live, then it was written from there.
pub fn touched(info: &'static ClassInfo, slot: u32) -> Fault {
    let start = info.address(slot);
    let word = canary::word(layout().secret, start + info.size);
    let next = slot.wrapping_add(1);
    let next_state = info.load(next);
    // SAFETY: a freed slot's slab is open: its memory is mapped, and the next slot is live where it is
    // asked for the word before it.
    unsafe {
        let at = first_touched(Addr::new(start).as_ptr(), info.size, word);
        if at >= info.size - class::TAIL && next_state.is_live() {
            let object = object_in(info, next, next_state, false);
            return Fault::new(Kind::CanaryOverwritten, Addr::new(wrong_before(info, next)), Some(object));
        }
        Fault::new(Kind::WriteAfterFree, Addr::new(start + at), Some(freed_object(info, slot)))
    }
}

/// Whether a freed slot is as [`Cache::free`] left it: clear, with its canary as the last word.
///
/// # Safety
/// The slot of `slot` bytes is mapped and aligned to 16.
#[inline(always)]
pub unsafe fn is_untouched(start: *const u8, slot: usize, word: u64) -> bool {
    // SAFETY: all within the slot, as the caller says.
    unsafe {
        let end = start.add(slot - 16).cast::<u64>();
        bytes::is_zero(start, slot - 16) && end.read() | (end.add(1).read() ^ word) == 0
    }
}

/// The first byte of a freed slot that was written, as an offset.
///
/// # Safety
/// As [`is_untouched`].
pub unsafe fn first_touched(start: *const u8, slot: usize, word: u64) -> usize {
    let tail = slot - class::TAIL;
    for at in 0..slot {
        let expected = match at.checked_sub(tail) {
            None => 0,
            Some(index) => word.to_le_bytes().get(index).copied().unwrap_or(0),
        };
        // SAFETY: `at` is within the slot.
        if unsafe { start.add(at).read() } != expected {
            return at;
        }
    }
    0
}
