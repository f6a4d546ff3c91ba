//! A thread's own quarantine of large slots: which freed ones keep their memory, and for whom.
//!
//! Large slots would keep megabytes if all of them kept their memory: a buffer that grows passes through every class.
//! Without memory a slot costs a page fault for each of its pages again. So a thread keeps the memory of the large slots
//! that it freed last, up to [`MOST_BYTES`], in the order of the frees. An allocation takes one of them at random, of
//! those after which the thread freed as many bytes of large slots as the quarantine's budget. So a slot is withheld as
//! long as elsewhere, and the next one is not certain: there must be two.
//!
//! The oldest slots beyond the limit leave. Their memory goes back to the kernel, but for the pages that they share and
//! that of their canary, and they go the way of other freed slots: the thread's stack, the quarantine, a magazine. Their
//! pages read as zero afterwards, as a freed slot's do. The release would hide a write after the free, so the slot is
//! checked first. A write after the release fills a page again. So an allocation checks the pages that are there.

use super::layout::{ClassInfo, layout};
use super::sweep;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::Fault;
use crate::rng::Rng;
use crate::sys::vm;

/// Bytes of freed large slots that a thread keeps at most.
pub const MOST_BYTES: usize = 1 << 20;
/// Slots of which it does.
const MOST: usize = 64;

/// A thread's freed large slots that have their memory: class and slot, oldest first.
pub struct Warm {
    slots: [(u32, u32); MOST],
    len: usize,
    bytes: usize,
}

/// Bytes of a slot of a class.
fn size(class: u32) -> usize {
    layout().classes.get(class as usize).map_or(0, |info| info.size)
}

impl Warm {
    /// The oldest slot, if there is no room for one of the class, which has to be let go first.
    pub fn excess(&self, class: usize) -> Option<(usize, u32)> {
        (self.len == MOST || self.bytes + size(class as u32) > MOST_BYTES).then(|| self.oldest()).flatten()
    }

    /// The slot that was freed first.
    pub fn oldest(&self) -> Option<(usize, u32)> {
        self.slots.get(..self.len)?.first().map(|(class, slot)| (*class as usize, *slot))
    }

    /// Adds a slot that the thread just freed. There is room for it.
    pub fn keep(&mut self, class: usize, slot: u32) {
        if let Some(place) = self.slots.get_mut(self.len) {
            *place = (class as u32, slot);
            self.len += 1;
            self.bytes += size(class as u32);
        }
    }

    /// Takes a slot of the class at random, of those after which `withheld` bytes were freed; `None` where there are
    /// fewer than `least`.
    pub fn take(&mut self, class: usize, withheld: usize, least: usize, rng: &mut Rng) -> Option<u32> {
        let (mut found, mut count, mut newer) = ([0_u8; MOST], 0, 0);
        let known = self.slots.get(..self.len).unwrap_or(&[]);
        for (at, (of, _)) in known.iter().enumerate().rev() {
            if *of == class as u32
                && newer >= withheld
                && let Some(place) = found.get_mut(count)
            {
                *place = at as u8;
                count += 1;
            }
            newer += size(*of);
        }
        if count < least.max(1) {
            return None;
        }
        let at = usize::from(*found.get(rng.below(count as u64) as usize)?);
        self.remove(at)
    }

    /// Takes the oldest slot out and gives its memory back. What was written in it after its free is returned.
    pub fn cool(&mut self) -> Result<(), Fault> {
        let Some((class, slot)) = self.oldest() else { return Ok(()) };
        self.remove(0);
        let Some(info) = layout().classes.get(class) else { return Ok(()) };
        let found = sweep::check(info, slot).map_or(Ok(()), Err);
        vm::release(inside(info, slot));
        found
    }

    fn remove(&mut self, at: usize) -> Option<u32> {
        let (class, slot) = *self.slots.get(..self.len)?.get(at)?;
        self.slots.copy_within(at + 1..self.len, at);
        self.len -= 1;
        self.bytes -= size(class);
        Some(slot)
    }
}

/// The whole pages of a slot that hold nothing but zeros when it is freed: not those that it shares, nor that of
/// its canary.
pub fn inside(info: &ClassInfo, slot: u32) -> Span {
    let start = info.address(slot);
    let first = start.next_multiple_of(PAGE_SIZE);
    let end = (start + info.size - super::class::TAIL) / PAGE_SIZE * PAGE_SIZE;
    Span::new(Addr::new(first), PageCount::new(end.saturating_sub(first) / PAGE_SIZE))
}

#[cfg(test)]
mod tests {
    use super::super::state::SlotState;
    use super::super::{canary, class, layout};
    use super::*;
    use crate::fault::Kind;
    use crate::request::Origin;

    const NONE: Warm = Warm { slots: [(0, 0); MOST], len: 0, bytes: 0 };

    /// Of the slots that are let go the memory is gone which is theirs alone; of the others all is there.
    #[test]
    fn the_oldest_lose_their_memory() {
        let class = class::LARGE + 3;
        let info = layout::for_tests().classes.get(class).expect("a class");
        let most = (MOST_BYTES / info.size) as u32;
        let slots = 1..1 + most + 2;
        let all = info.slab_span(0);
        assert!(vm::commit(all) && slots.end < info.usable_end(0));
        let bytes = |slot| info.address(slot)..info.address(slot) + info.size;
        let mut warm = NONE;
        for slot in slots.clone() {
            for at in bytes(slot) {
                // SAFETY: the slab was just committed, and nobody else uses it.
                unsafe { Addr::new(at).as_ptr::<u8>().write(1) };
            }
            if let Some(oldest) = warm.excess(class) {
                assert_eq!(oldest, (class, slot - most));
                assert!(warm.cool().is_ok(), "no slot was freed");
            }
            warm.keep(class, slot);
        }
        assert_eq!((warm.len, warm.bytes), (most as usize, most as usize * info.size));
        // SAFETY: the slab was committed, and this test alone uses it.
        let ones =
            |slot| bytes(slot).filter(|at| unsafe { Addr::new(*at).as_ptr::<u8>().read() } == 1).count();
        for (age, slot) in slots.clone().enumerate() {
            let expected = if age < 2 { info.size - inside(info, slot).bytes() } else { info.size };
            assert_eq!(ones(slot), expected, "slot {age}");
        }
        // Its last page has the canary, its first may have its neighbour's.
        let pages = inside(info, 1);
        assert!(pages.start.get() >= info.address(1) && pages.end().get() < info.address(2));
        assert!(pages.bytes() + 2 * PAGE_SIZE >= info.size);
        assert!(vm::release(all));
    }

    /// What is taken was freed so many bytes ago, and was one of several.
    #[test]
    fn a_slot_is_withheld_and_drawn() {
        let (class, other) = (class::LARGE, class::LARGE + 8);
        let classes = &layout::for_tests().classes;
        let (size, more) = (classes[class].size, classes[other].size);
        let mut rng = Rng::new();
        let mut warm = NONE;
        for slot in 1..=4 {
            warm.keep(class, slot);
        }
        warm.keep(other, 9);
        // Behind slot 1 there are three of its class and the other, behind slot 2 one less.
        assert_eq!(warm.take(class, 3 * size + more + 1, 1, &mut rng), None);
        assert_eq!(warm.take(class, 3 * size + more, 2, &mut rng), None);
        assert_eq!(warm.take(other, 1, 1, &mut rng), None);
        let mut seen = [0; 5];
        for _ in 0..200 {
            let mut copy = Warm { slots: warm.slots, ..warm };
            let slot =
                copy.take(class, 2 * size + more, 2, &mut rng).expect("two of them were withheld so long");
            seen[slot as usize] += 1;
            assert_eq!((copy.len, copy.bytes), (4, 3 * size + more));
        }
        assert!(seen[1] >= 50 && seen[2] >= 50 && seen[1] + seen[2] == 200, "{seen:?}");
        assert_eq!(warm.take(class, 3 * size + more, 1, &mut rng), Some(1));
        assert_eq!(warm.oldest(), Some((class, 2)));
    }

    /// What was written in a freed slot is found before its memory goes.
    #[test]
    fn a_late_write_is_not_lost() {
        let class = class::LARGE + 1;
        let layout = layout::for_tests();
        let info = layout.classes.get(class).expect("a class");
        let all = info.slab_span(0);
        assert!(vm::commit(all));
        let mut warm = NONE;
        for slot in [1, 2] {
            let end = info.address(slot) + info.size;
            // SAFETY: the slab was just committed, and nobody else uses it.
            unsafe { canary::set(Addr::new(end - 8).as_ptr(), canary::word(&layout.key, end)) };
            info.store(slot, SlotState::live(class::TAIL, Origin::Malloc).freed());
            warm.keep(class, slot);
        }
        let written = info.address(2) + info.size / 2;
        // SAFETY: the byte is in slot 2 of the slab that was committed, which this test alone uses.
        unsafe { Addr::new(written).as_ptr::<u8>().write(1) };
        assert!(warm.cool().is_ok());
        let fault = warm.cool().expect_err("a byte was written");
        assert_eq!((fault.kind, fault.address), (Kind::WriteAfterFree, Addr::new(written)));
        for slot in [1, 2] {
            info.store(slot, SlotState::FRESH);
        }
        assert!(vm::release(all));
    }
}
