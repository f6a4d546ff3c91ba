//! Which freed large slots keep their memory.
//!
//! A freed slot waits in a thread's cache, cleared. Large slots would keep megabytes in this way: a buffer that grows
//! passes through every class. So a thread keeps the memory of the large slots that it freed last. Of older ones it
//! gives the whole pages inside the slot back to the kernel. These pages read as zero afterwards, as a freed slot does.
//! The release would hide a write after the free, so the slot is checked first.

use super::layout::{ClassInfo, layout};
use super::sweep;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::Fault;
use crate::sys::vm;

/// Bytes of freed large slots that a thread keeps at most.
const MOST_BYTES: usize = 1 << 20;
/// Slots of which it does.
const MOST: usize = 64;

/// A thread's freed large slots that have their memory: class and slot, oldest first. All are in the thread's cache.
pub struct Warm {
    slots: [(u32, u32); MOST],
    len: usize,
    bytes: usize,
}

impl Warm {
    /// Notes a slot that the thread just freed, and releases the memory of those that are too many now, of
    /// which it says what [`Warm::release`] does.
    #[cold]
    pub fn keep(&mut self, class: usize, slot: u32) -> Result<(), Fault> {
        let Some(info) = layout().classes.get(class) else { return Ok(()) };
        let mut found = Ok(());
        while self.len == MOST || self.bytes + info.size > MOST_BYTES {
            let Some((class, slot)) = self.slots.first().copied().filter(|_| self.len != 0) else { break };
            found = found.and(self.release(class as usize, &[slot]));
        }
        if let Some(place) = self.slots.get_mut(self.len) {
            *place = (class as u32, slot);
            self.len += 1;
            self.bytes += info.size;
        }
        found
    }

    /// Forgets a slot, since it is allocated; `false` if it has no memory to speak of.
    #[cold]
    pub fn forget(&mut self, class: usize, slot: u32) -> bool {
        let known = self.slots.get(..self.len).unwrap_or(&[]);
        let Some(at) = known.iter().rposition(|entry| *entry == (class as u32, slot)) else {
            return false;
        };
        self.slots.copy_within(at + 1..self.len, at);
        self.len -= 1;
        self.bytes -= layout().classes.get(class).map_or(0, |info| info.size);
        true
    }

    /// Releases the memory of slots that are about to leave the cache, or are too many. What was written in one
    /// after its free is returned.
    pub fn release(&mut self, class: usize, slots: &[u32]) -> Result<(), Fault> {
        let Some(info) = layout().classes.get(class) else { return Ok(()) };
        let mut found = Ok(());
        for slot in slots {
            if self.forget(class, *slot) {
                found = found.and(sweep::check(info, *slot).map_or(Ok(()), Err));
                vm::release(inside(info, *slot));
            }
        }
        found
    }
}

/// The whole pages of a slot that hold nothing but zeros when it is freed: not those that it shares, nor that of
/// its canary.
fn inside(info: &ClassInfo, slot: u32) -> Span {
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

    /// The memory of the slots that were freed last is left alone; of the others that is gone which is theirs alone.
    #[test]
    fn the_oldest_lose_their_memory() {
        let class = class::LARGE + 3;
        let info = layout::for_tests().classes.get(class).expect("a class");
        let most = (MOST_BYTES / info.size) as u32;
        let slots = 1..1 + most + 2;
        let all = info.slab_span(0);
        assert!(vm::commit(all) && slots.end < info.usable_end(0));
        let bytes = |slot| info.address(slot)..info.address(slot) + info.size;
        let mut warm = Warm { slots: [(0, 0); MOST], len: 0, bytes: 0 };
        for slot in slots.clone() {
            for at in bytes(slot) {
                // SAFETY: the slab was just committed, and nobody else uses it.
                unsafe { Addr::new(at).as_ptr::<u8>().write(1) };
            }
            assert!(warm.keep(class, slot).is_ok(), "no slot was freed");
        }
        assert_eq!((warm.len, warm.bytes), (most as usize, most as usize * info.size));
        // SAFETY: the slab was committed, and this test alone uses it.
        let ones =
            |slot| bytes(slot).filter(|at| unsafe { Addr::new(*at).as_ptr::<u8>().read() } == 1).count();
        for (age, slot) in slots.clone().enumerate() {
            let expected = if age < 2 { info.size - inside(info, slot).bytes() } else { info.size };
            assert_eq!(ones(slot), expected, "slot {age}");
            assert_eq!(warm.forget(class, slot), age >= 2, "slot {age}");
        }
        assert_eq!((warm.len, warm.bytes), (0, 0));
        // Its last page has the canary, its first may have its neighbour's.
        let pages = inside(info, 1);
        assert!(pages.start.get() >= info.address(1) && pages.end().get() < info.address(2));
        assert!(pages.bytes() + 2 * PAGE_SIZE >= info.size);
        assert!(vm::release(all));
    }

    /// What was written in a freed slot is found before its memory goes.
    #[test]
    fn a_late_write_is_not_lost() {
        let class = class::LARGE + 1;
        let layout = layout::for_tests();
        let info = layout.classes.get(class).expect("a class");
        let all = info.slab_span(0);
        assert!(vm::commit(all));
        let mut warm = Warm { slots: [(0, 0); MOST], len: 0, bytes: 0 };
        for slot in [1, 2] {
            let end = info.address(slot) + info.size;
            // SAFETY: the slab was just committed, and nobody else uses it.
            unsafe { canary::set(Addr::new(end - 8).as_ptr(), canary::word(&layout.key, end)) };
            info.store(slot, SlotState::live(class::TAIL, Origin::Malloc).freed());
            assert!(warm.keep(class, slot).is_ok());
        }
        let written = info.address(2) + info.size / 2;
        // SAFETY: the byte is in slot 2 of the slab that was committed, which this test alone uses.
        unsafe { Addr::new(written).as_ptr::<u8>().write(1) };
        assert!(warm.release(class, &[1]).is_ok());
        let fault = warm.release(class, &[2]).expect_err("a byte was written");
        assert_eq!((fault.kind, fault.address), (Kind::WriteAfterFree, Addr::new(written)));
        for slot in [1, 2] {
            info.store(slot, SlotState::FRESH);
        }
        assert!(vm::release(all));
    }
}
