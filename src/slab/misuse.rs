//! What is wrong with a slot or with a free of one, as a report says it.

use super::class::{Place, object, object_at};
use super::layout::{ClassInfo, Protection, layout};
use super::state::SlotState;
use super::{bytes, canary, class};
use crate::addr::{ABI_ALIGN, Addr, PAGE_SIZE};
use crate::canary::Content;
use crate::fault::{Detail, Fault, Kind, Object};
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
    Fault { kind, address: claim.address, object, detail: Detail::of_claim(claim.origin, claim.size) }
}

/// A slot that is free and in use at once: its object was freed twice, at the same moment.
pub fn twice_freed(info: &ClassInfo, slot: u32) -> Fault {
    let object = object_in(info, slot, info.state_of(slot), true);
    Fault::new(Kind::DoubleFree, Addr::new(info.address(slot)), Some(object))
}

/// What is wrong with a free that states an alignment: the live object at `place` cannot have been asked for with it,
/// since it would be in another class. Alignments that share a class are not told apart.
#[inline(always)]
pub fn other_alignment(place: Place, claim: &Claim) -> Option<Fault> {
    let align = claim.align.filter(|align| *align > ABI_ALIGN)?;
    let info = layout().classes.get(place.class)?;
    let wrong = place.into == 0 && info.state_of(place.slot).is_live() && !info.size.is_multiple_of(align);
    wrong.then(|| Fault::of_alignment(claim, object_at(layout(), place)))
}

/// What is wrong with a question about `address`, at `place`, where no live object starts.
pub fn question(place: Place, address: Addr) -> Fault {
    let object = object_at(layout(), place);
    let state = layout().classes.get(place.class).map(|info| info.state_of(place.slot));
    // Of a slot whose memory was released it is known that it was freed, and no more.
    let freed =
        object.is_some_and(|object| object.freed) || object.is_none() && state == Some(SlotState::RELEASED);
    let kind = if freed { Kind::HeapUseAfterFree } else { Kind::WildAccess };
    Fault::new(kind, address, object)
}

/// The overwritten canary around a slot whose state is or was `state`: behind the object or before it.
///
/// The last word of a slot lies between two objects, and both may have written it. Whose write it was:
///
/// | wrong bytes | next slot live | blamed |
/// |---|---|---|
/// | the one right behind the object | | the object: it was overrun |
/// | none before the last word | yes | the next: it was underrun |
/// | some before the last word | yes | whose end is nearer to them |
/// | any | no | the object |
///
/// Found from the other side, at the free of the next slot, it is that one's underrun, unless the wrong bytes begin right
/// behind the live object before and end before this one: in more than the last word, or with a string's end.
///
/// Where all bytes between two live objects are wrong, canaries cannot tell an overrun of the one from an underrun of the
/// other: what was written inside of either is not known. Both are named then.
pub fn overwritten(info: &'static ClassInfo, slot: u32, state: SlotState) -> Option<Fault> {
    let start = info.address(slot);
    // SAFETY: the slot is or was live, so it and the word before it are mapped.
    unsafe {
        if let Some(wrong) = wrong_slack(info, slot, state) {
            let next = slot.wrapping_add(1);
            let next_state = info.state_of(next);
            let size = info.size.saturating_sub(state.slack());
            let (behind, before) = (wrong.first.saturating_sub(size), info.size - wrong.last);
            let tail = wrong.first >= info.size - class::TAIL;
            if behind != 0 && next_state.is_live() && (tail || before <= behind) {
                return around(start + wrong.last, object_in(info, next, next_state, false));
            }
            let all = behind == 0 && before == 1;
            let detail =
                if all && next_state.is_live() { region(info, next, next_state) } else { Detail::None };
            let fault = around(start + wrong.first, object_in(info, slot, state, false));
            return fault.map(|fault| Fault { detail, ..fault });
        }
        let word = canary::word(&layout().key, start);
        let last =
            canary::wrong_bytes(Addr::new(start - class::TAIL).as_ptr(), 0, class::TAIL, word).last()?;
        let previous = slot.wrapping_sub(1);
        let state_before = info.state_of(previous);
        let wrong = if state_before.is_live() { wrong_slack(info, previous, state_before) } else { None };
        let from_its_end = wrong.filter(|wrong| wrong.first == info.size - state_before.slack());
        if let Some(wrong) = from_its_end
            && last + 1 < class::TAIL
            && (state_before.slack() > class::TAIL
                || canary::byte_at(Addr::new(info.address(previous)).as_ptr(), wrong.first) == 0)
        {
            let object = object_in(info, previous, state_before, false);
            return around(info.address(previous) + wrong.first, object);
        }
        let detail = match from_its_end {
            Some(_) if last + 1 == class::TAIL => region(info, previous, state_before),
            _ => Detail::None,
        };
        let fault = around(start - class::TAIL + last, object_in(info, slot, state, false));
        fault.map(|fault| Fault { detail, ..fault })
    }
}

/// Start and size of the live object in a slot.
fn region(info: &ClassInfo, slot: u32, state: SlotState) -> Detail {
    Detail::Other(Addr::new(info.address(slot)), info.size.saturating_sub(state.slack()) as u32)
}

fn around(at: usize, object: Object) -> Option<Fault> {
    Some(Fault::new(Kind::CanaryOverwritten, Addr::new(at), Some(object)))
}

/// The first and the last of some bytes of a slot, as offsets.
#[derive(Clone, Copy)]
struct Bytes {
    first: usize,
    last: usize,
}

impl Bytes {
    fn of(mut offsets: impl DoubleEndedIterator<Item = usize>) -> Option<Self> {
        let first = offsets.next()?;
        Some(Self { first, last: offsets.next_back().unwrap_or(first) })
    }
}

/// The overwritten bytes behind the object in a slot.
///
/// # Safety
/// The slot is or was live: it is mapped.
unsafe fn wrong_slack(info: &ClassInfo, slot: u32, state: SlotState) -> Option<Bytes> {
    let start = info.address(slot);
    let size = info.size.checked_sub(state.slack())?;
    let word = canary::word(&layout().key, start + info.size);
    // SAFETY: as the caller says.
    unsafe {
        let pointer = Addr::new(start).as_ptr();
        match canary::intact(pointer, size, info.size, word) {
            true => None,
            false => Bytes::of(canary::wrong_bytes(pointer, size, info.size, word)),
        }
    }
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
    object_in(info, slot, info.state_of(slot), true)
}

/// What was written to a freed slot that is not as its free left it. Not all of it was written by the freed
/// object's user:
///
/// | written bytes | blamed |
/// |---|---|
/// | from the first on, and the live slot before was overrun up to there | the slot before |
/// | behind the freed object | the next slot if it has or had an object: it was underrun |
/// | in it, and up to the slot's last | the next slot if it is live |
/// | others | the freed object; where none ever was, the nearest one |
pub fn touched(info: &'static ClassInfo, slot: u32) -> Fault {
    let start = info.address(slot);
    let state = info.state_of(slot);
    // SAFETY: a freed slot's slab is open: its memory is mapped.
    let written = Bytes::of(unsafe { touched_bytes(info, slot) }).unwrap_or(Bytes { first: 0, last: 0 });
    let previous = slot.wrapping_sub(1);
    let before = info.state_of(previous);
    if written.first == 0
        && layout().protection.canary
        && before.is_live()
        // SAFETY: a live slot is mapped.
        && let Some(wrong) = unsafe { wrong_slack(info, previous, before) }
        && wrong.last + 1 == info.size
    {
        let object = object_in(info, previous, before, false);
        return Fault::new(
            Kind::CanaryOverwritten,
            Addr::new(info.address(previous) + wrong.first),
            Some(object),
        );
    }
    if state.is_readied(info.size) {
        return beside(info, slot, written);
    }
    let next = slot.wrapping_add(1);
    let after = info.state_of(next);
    let size = info.size.saturating_sub(state.slack());
    let (behind, before) = (written.first >= size, info.size - written.last);
    let underrun = object(Addr::new(info.address(next)), info.size, after)
        .filter(|object| behind || before == 1 && !object.freed);
    if underrun.is_some() {
        return Fault::new(Kind::CanaryOverwritten, Addr::new(start + written.last), underrun);
    }
    Fault::new(Kind::WriteAfterFree, Addr::new(start + written.first), Some(freed_object(info, slot)))
}

/// Whose write it was that a slot which no object ever had was written: that of the nearest object, before or behind.
fn beside(info: &'static ClassInfo, slot: u32, written: Bytes) -> Fault {
    let start = Addr::new(info.address(slot));
    let (first, last) = (start.plus(written.first), start.plus(written.last));
    match nearest(info, slot, first, last) {
        Some(object) => {
            let at = if object.start > last { last } else { first };
            Fault::new(Kind::CanaryOverwritten, at, Some(object))
        }
        None => Fault::new(Kind::WildAccess, first, None),
    }
}

/// Slots on either side in which an object is looked for: more than a guard page has of the smallest.
const NEIGHBOURS: u32 = (PAGE_SIZE / 16) as u32 + 8;

/// What lies at a place in a slab as far as the slot's state tells, or `object`, if it is the slot's: a slot whose canary was
/// found overwritten stays busy.
pub fn content(info: &ClassInfo, place: Place, object: Option<&Object>) -> Content {
    let Protection { canary, zero, .. } = layout().protection;
    if !canary {
        return Content::Program;
    }
    let state = info.state_of(place.slot);
    let word = canary::word(&layout().key, info.address(place.slot) + info.size);
    let tail = info.size - class::TAIL;
    let size = info.size.saturating_sub(state.slack());
    let from = |first: usize, size: usize| match place.into >= first {
        true => Content::Canary(canary::byte(word, size, place.into)),
        false => Content::Program,
    };
    match state {
        SlotState::BUSY => {
            let own = object.filter(|object| object.start.get() == info.address(place.slot));
            own.and_then(|object| object.size).map_or(Content::Withheld, |size| from(size, size))
        }
        live if live.is_live() => from(size, size),
        freed if freed.is_freed() && !zero => from(size, size),
        freed if freed.is_freed() => from(tail, tail),
        // Its last word is a canary if the next slot was allocated, which that slot tells for certain while it is in use.
        _ if place.into >= tail => {
            let (next, byte) = (place.slot + 1, canary::byte(word, tail, place.into));
            let known = next >> info.slab_shift < info.slabs() && !info.state_of(next).is_untouched();
            if known { Content::Canary(byte) } else { Content::Perhaps(byte) }
        }
        _ => Content::Program,
    }
}

/// Of the objects in the slots around `slot`, the one nearest to the bytes from `first` to `last`, a live one if others are
/// as near.
pub fn nearest(info: &'static ClassInfo, slot: u32, first: Addr, last: Addr) -> Option<Object> {
    let object = |slot: u32| {
        let known = slot >> info.slab_shift < info.slabs();
        known.then(|| object(Addr::new(info.address(slot)), info.size, info.state_of(slot))).flatten()
    };
    let below = (1..=NEIGHBOURS).find_map(|away| object(slot.checked_sub(away)?));
    let above = (1..=NEIGHBOURS).find_map(|away| object(slot.checked_add(away)?));
    let distance = |object: &Object| {
        let end = object.start.plus(object.size.unwrap_or(0));
        let bytes = match object.start > last {
            true => object.start.offset_from(last),
            false => first.offset_from(end),
        };
        (bytes.unwrap_or(0), object.freed)
    };
    [below, above].into_iter().flatten().min_by_key(distance)
}

/// Whether a freed slot is as its free left it, as far as the protections tell: clear, and its canary as the last
/// word.
///
/// # Safety
/// The slot is mapped.
pub unsafe fn is_as_freed(info: &ClassInfo, slot: u32) -> bool {
    // SAFETY: as the caller says.
    unsafe { is_as_freed_at(info, info.address(slot)) }
}

/// [`is_as_freed`] for the slot that begins at `start`.
///
/// # Safety
/// The slot's memory is mapped.
#[inline(always)]
pub unsafe fn is_as_freed_at(info: &ClassInfo, start: usize) -> bool {
    let pointer = Addr::new(start).as_ptr::<u8>();
    let protection = layout().protection;
    // SAFETY: all within the slot, which is aligned to 16 and mapped.
    unsafe {
        let clear =
            || bytes::is_zero(pointer, info.size - 16) && canary::get(pointer.add(info.size - 16)) == 0;
        let last = || canary::get(pointer.add(info.size - class::TAIL));
        (!protection.zero || clear())
            && (!protection.canary || last() == canary::word(&layout().key, start + info.size))
    }
}

/// [`is_as_freed`] with both protections on.
///
/// # Safety
/// The slot of `slot` bytes is mapped and aligned to 16.
#[inline(always)]
pub unsafe fn is_untouched(start: *const u8, slot: usize, word: u64) -> bool {
    // SAFETY: all within the slot, as the caller says.
    unsafe {
        let end = start.add(slot - 16);
        bytes::is_zero(start, slot - 16) && canary::get(end) | (canary::get(end.add(8)) ^ word) == 0
    }
}

/// The bytes of a freed slot that were written, as offsets.
///
/// # Safety
/// The slot is mapped while the iterator is used.
unsafe fn touched_bytes(info: &ClassInfo, slot: u32) -> impl DoubleEndedIterator<Item = usize> {
    let start = info.address(slot);
    let pointer = Addr::new(start).as_ptr::<u8>();
    let protection = layout().protection;
    let (size, tail) = (info.size, info.size - class::TAIL);
    let word = canary::word(&layout().key, start + size);
    (0..size).filter(move |at| {
        let (known, expected) = match *at < tail {
            true => (protection.zero, 0),
            false => (protection.canary, canary::byte(word, tail, *at)),
        };
        // SAFETY: `at` is within the slot.
        known && unsafe { canary::byte_at(pointer, *at) } != expected
    })
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;
    use crate::request::Origin;
    use crate::sys::vm;
    use std::vec::Vec;

    /// The state of a slot before the test's write.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Was {
        Live(usize),
        Freed(usize),
        Readied,
    }
    use Was::{Freed, Live, Readied};

    /// Puts the slots of a class from 1 on into `states`, writes 0x42 at `written`, offsets from slot 2, and says
    /// what the check of `slot` finds: the kind, the offset, and the slot of the object.
    fn found(class: usize, states: [Was; 3], written: &[isize], slot: u32) -> Option<(Kind, isize, u32)> {
        told(class, states, written, slot).map(|(kind, offset, object, _)| (kind, offset, object))
    }

    /// The same, and the slot of the other object that may have been run over.
    fn told(
        class: usize,
        states: [Was; 3],
        written: &[isize],
        slot: u32,
    ) -> Option<(Kind, isize, u32, Option<u32>)> {
        let layout = layout::for_tests();
        let info = layout.classes.get(class).expect("a class");
        assert!(vm::commit(info.slab_span(0)));
        let start = info.address(0);
        // SAFETY: the slab was just committed, and no other test uses the class.
        unsafe { Addr::new(start).as_ptr::<u8>().write_bytes(0, 6 * info.size) };
        for (slot, was) in (1..).zip(states) {
            let (at, end) = (info.address(slot), info.address(slot) + info.size);
            let word = canary::word(&layout.key, end);
            // SAFETY: slots 1 to 3 and the words before them lie in the slab that was committed, which is
            // this test's alone.
            unsafe {
                let pointer = Addr::new(at).as_ptr::<u8>();
                canary::set(pointer.add(info.size - class::TAIL), word);
                canary::set(pointer.sub(class::TAIL), canary::word(&layout.key, at));
                if let Live(size) = was {
                    canary::fill(pointer, size, info.size, word);
                }
            }
            info.store(
                slot,
                match was {
                    Live(size) => SlotState::live(info.size - size, Origin::Malloc),
                    Freed(size) => SlotState::live(info.size - size, Origin::Malloc).freed(),
                    Readied => SlotState::readied(info.size),
                },
            );
        }
        for offset in written {
            // SAFETY: tests write near slot 2, within the slab that was committed.
            unsafe { Addr::new(info.address(2).wrapping_add_signed(*offset)).as_ptr::<u8>().write(0x42) };
        }
        let state = info.state_of(slot);
        let fault = match state.is_live() {
            true => overwritten(info, slot, state),
            // SAFETY: the slot lies in the slab that was committed, which is this test's alone.
            false => (!unsafe { is_as_freed(info, slot) }).then(|| touched(info, slot)),
        };
        for slot in 1..4 {
            info.store(slot, SlotState::FRESH);
        }
        assert!(vm::release(info.slab_span(0)));
        fault.map(|fault| {
            let object = fault.object.expect("an object is named");
            let offset = fault.address.get().cast_signed() - info.address(2).cast_signed();
            let slot = |object: Addr| ((object.get() - start) / info.size) as u32;
            (fault.kind, offset, slot(object.start), fault.detail.other().map(|(start, _)| slot(start)))
        })
    }

    /// In slots of 96 bytes.
    #[test]
    fn a_write_between_objects_is_blamed_by_its_place() {
        const CLASS: usize = 5;
        let overrun = |offset, slot| Some((Kind::CanaryOverwritten, offset, slot));
        let stale = |offset, slot| Some((Kind::WriteAfterFree, offset, slot));
        let run = |from: isize, to: isize| (from..to).collect::<Vec<_>>();
        let full = Live(88);
        for (states, written, slot, expected) in [
            // Nothing is wrong.
            ([full, full, full], Vec::new(), 1, None),
            ([Readied, Freed(40), Readied], Vec::new(), 2, None),
            // Right behind a live object, and over it.
            ([full, full, full], std::vec![88], 2, overrun(88, 2)),
            ([full, Live(75), full], run(75, 110), 2, overrun(75, 2)),
            ([full, Live(75), Readied], std::vec![90], 2, overrun(90, 2)),
            // Right before one, found from either side.
            ([full, full, full], std::vec![-1], 2, overrun(-1, 2)),
            ([full, full, full], std::vec![-1], 1, overrun(-1, 2)),
            ([full, full, full], std::vec![-7], 1, overrun(-7, 2)),
            ([Live(70), full, full], run(-12, 0), 1, overrun(-1, 2)),
            // In the slack between two, nearer to one.
            ([Live(70), full, full], std::vec![-9], 1, overrun(-9, 2)),
            ([Live(70), full, full], std::vec![-20], 1, overrun(-20, 1)),
            // An overrun that ends in the last word, found by the next slot.
            ([Live(80), full, full], run(-16, -4), 2, overrun(-16, 1)),
            // In a freed slot.
            ([full, Freed(40), full], std::vec![8], 2, stale(8, 2)),
            ([full, Freed(40), full], std::vec![39], 2, stale(39, 2)),
            ([full, Freed(40), full], std::vec![60], 2, overrun(60, 3)),
            ([full, Freed(40), full], std::vec![95], 2, overrun(95, 3)),
            ([full, Freed(88), full], run(80, 96), 2, overrun(95, 3)),
            ([full, Freed(40), Readied], std::vec![60], 2, stale(60, 2)),
            ([full, Freed(40), Freed(88)], std::vec![90], 2, overrun(90, 3)),
            ([Live(80), Freed(88), full], run(-16, 4), 2, overrun(-16, 1)),
            // In a slot that no object ever had.
            ([full, Readied, full], std::vec![64], 2, overrun(64, 3)),
            ([full, Readied, full], std::vec![20], 2, overrun(20, 1)),
            ([Readied, Readied, full], std::vec![20], 2, overrun(20, 3)),
            ([Readied, Readied, Freed(88)], std::vec![50], 2, overrun(50, 3)),
        ] {
            assert_eq!(found(CLASS, states, &written, slot), expected, "{states:?} {written:?} {slot}");
        }
    }

    /// Bytes that reach from one live object to the next may be written from either side, and no others.
    #[test]
    fn both_objects_are_named_where_either_may_be_meant() {
        const CLASS: usize = 6;
        let run = |from: isize, to: isize| (from..to).collect::<Vec<_>>();
        let full = Live(104);
        for (before, written, found_at, expected) in [
            // Found from the object before the bytes, and from the one behind them.
            (full, run(-8, 0), 1, (-8, 1, Some(2))),
            (full, run(-40, 0), 1, (-8, 1, Some(2))),
            (full, run(-8, 0), 2, (-1, 2, Some(1))),
            (full, run(-8, 24), 2, (-1, 2, Some(1))),
            (Live(90), run(-22, 0), 1, (-22, 1, Some(2))),
            (Live(90), run(-22, 0), 2, (-1, 2, Some(1))),
            // They end before the next, or begin behind the first.
            (full, run(-8, -1), 1, (-8, 1, None)),
            (full, run(-7, 0), 1, (-1, 2, None)),
            (full, run(-7, 0), 2, (-1, 2, None)),
            (Live(90), run(-21, 0), 1, (-1, 2, None)),
            (Live(90), run(-21, 0), 2, (-1, 2, None)),
            (Live(90), run(-22, -1), 2, (-22, 1, None)),
            // There is but one.
            (Freed(104), run(-8, 0), 2, (-1, 2, None)),
        ] {
            let (offset, slot, other) = expected;
            assert_eq!(
                told(CLASS, [before, full, full], &written, found_at),
                Some((Kind::CanaryOverwritten, offset, slot, other)),
                "{before:?} {written:?} {found_at}"
            );
        }
        assert_eq!(
            told(CLASS, [full, full, Readied], &run(104, 112), 2),
            Some((Kind::CanaryOverwritten, 104, 2, None))
        );
    }

    /// What a picture of memory is told: no byte of a canary passes for the program's.
    #[test]
    fn canaries_are_known_wherever_they_are() {
        let layout = layout::for_tests();
        let info = layout.classes.get(7).expect("a class");
        let (slot, tail) = (5, info.size - class::TAIL);
        let word = canary::word(&layout.key, info.address(slot) + info.size);
        for (state, from) in [
            (SlotState::live(info.size - 33, Origin::New), 33),
            (SlotState::live(info.size - 33, Origin::New).freed(), tail),
            (SlotState::readied(info.size), tail),
            (SlotState::FRESH, tail),
            (SlotState::BUSY, 0),
        ] {
            info.store(slot, state);
            for into in 0..info.size {
                let expected = canary::byte(word, from, into);
                let expected = match state {
                    SlotState::BUSY => Content::Withheld,
                    _ if into < from => Content::Program,
                    SlotState::FRESH => Content::Perhaps(expected),
                    _ => Content::Canary(expected),
                };
                assert_eq!(content(info, Place { class: 7, slot, into }, None), expected, "{state:?} {into}");
            }
        }
        info.store(slot, SlotState::BUSY);
        let object = object_in(info, slot, SlotState::live(info.size - 33, Origin::New), false);
        for into in 0..info.size {
            let expected = match into < 33 {
                true => Content::Program,
                false => Content::Canary(canary::byte(word, 33, into)),
            };
            assert_eq!(content(info, Place { class: 7, slot, into }, Some(&object)), expected, "{into}");
        }
        info.store(slot, SlotState::FRESH);
    }
}
