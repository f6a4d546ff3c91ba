//! Refill and flush: how a thread's cache gets magazines from the quarantine and the central store and gives freed
//! slots back, and how fresh slots are readied.

use super::cache::{Cache, MAGAZINE};
use super::layout::{ClassInfo, layout};
use super::misuse::{is_as_freed, overwritten};
use super::state::{SlotState, StateCell};
use super::{bytes, canary, central, class, quarantine, warm};
use crate::addr::Addr;
use crate::fault::{Fault, Kind};
use crate::request::Origin;
use crate::rng::Rng;
use crate::sync::atomic::{AtomicU16, Ordering};
use crate::sync::only_tries;
use crate::sys::{machine, vm};

impl Cache {
    /// [`Cache::allocate`] for a class whose magazine is used up.
    ///
    /// # Safety
    /// As [`Cache::allocate`].
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn allocate_slow(&mut self, size: usize, class: usize, origin: Origin) -> *mut u8 {
        self.flush_deferred();
        let Some(info) = layout().classes.get(class) else {
            return core::ptr::null_mut();
        };
        if info.size > bytes::FEW {
            machine::detect();
        }
        self.refill(class);
        if self.has_fault() {
            return core::ptr::null_mut();
        }
        // SAFETY: the class is in range, as the caller says; the slot was in the magazine: it is this thread's.
        unsafe {
            match self.pick(class) {
                0 => core::ptr::null_mut(),
                slot => {
                    prepare_check(info, slot);
                    self.allocate_slot_slow(info, slot, size, origin)
                }
            }
        }
    }

    /// [`Cache::allocate`] for a large class: a slot that the thread freed lately and that has its memory, else as for other
    /// classes.
    ///
    /// # Safety
    /// As [`Cache::allocate`].
    #[inline(never)]
    pub(super) unsafe fn allocate_large(&mut self, size: usize, class: usize, origin: Origin) -> *mut u8 {
        let (Some(info), Some(bin)) = (layout().classes.get(class), self.slots.bins.get(class)) else {
            return core::ptr::null_mut();
        };
        // Where nothing waits, the last one that was freed may come next.
        let (withheld, least) = if bin.waits { (quarantine::budget(), 2) } else { (0, 1) };
        // SAFETY: `init` set the generator, which is this thread's.
        let warm = self.warm.take(class, withheld, least, unsafe { &mut *self.rng });
        let slot = match warm {
            Some(slot) => {
                let filled = self.filled.load(Ordering::Relaxed);
                self.filled.store(filled.wrapping_add(1), Ordering::Relaxed);
                slot
            }
            // SAFETY: the class is in range, as the caller says.
            None => match unsafe { self.pick(class) } {
                // SAFETY: as the caller says.
                0 => return unsafe { self.allocate_slow(size, class, origin) },
                slot => slot,
            },
        };
        if warm.is_none() {
            prepare_check(info, slot);
        }
        // SAFETY: the slot was in the thread's own list or in its magazine: it is this thread's. The class holds the size, as
        // the caller says.
        unsafe { self.allocate_slot_slow(info, slot, size, origin) }
    }

    /// Makes a new magazine where there is none: of what was freed last if nothing waits, else of what left the quarantine;
    /// for the rest, of the central store's slots.
    fn refill(&mut self, class: usize) {
        let Some(mut lists) = self.slots.lists(class).filter(|lists| lists.len == 0) else { return };
        // SAFETY: `init` set the generator, which is this thread's.
        let rng = unsafe { &mut *self.rng };
        let wanted = usize::from(lists.bin.magazine);
        let mut count = if lists.bin.waits { 0 } else { lists.pop() };
        if count == 0
            && let Some(room) = lists.magazine.get_mut(..wanted)
        {
            count = quarantine::take(class, self.home, room);
        }
        if let Some(room) = lists.magazine.get_mut(count..wanted)
            && !room.is_empty()
        {
            let taken = central::refill(class, self.home, room, rng);
            if let Some(fresh) = room.get(..taken) {
                self.fault = self.fault.or_else(|| ready(class, fresh));
            }
            count += taken;
        }
        // A thread that only tries locks may lack memory for that reason alone. It leaves the quarantine as it is.
        if count == 0
            && !only_tries()
            && let Some(room) = lists.magazine.get_mut(..wanted)
        {
            count = match quarantine::take_early(class, room, &mut self.fault) {
                0 => lists.pop(),
                early => early,
            };
            if count == 0
                && let Some(slot) = self.warm.take(class, 0, 1, rng)
                && let Some(room) = lists.magazine.first_mut()
            {
                (*room, count) = (slot, 1);
            }
        }
        shuffle(lists.magazine, count, rng);
        let freed = lists.freed;
        lists.set(freed, count);
        let filled = self.filled.load(Ordering::Relaxed);
        self.filled.store(filled.wrapping_add(count as u64), Ordering::Relaxed);
    }

    /// Draws a new order for what is left of the magazines: a forked child would go on in its parent's.
    pub fn reorder(&mut self) {
        // SAFETY: `init` set the generator, which is this thread's.
        let rng = unsafe { &mut *self.rng };
        for class in 0..class::COUNT {
            if let Some(lists) = self.slots.lists(class) {
                shuffle(lists.magazine, lists.len, rng);
            }
        }
    }

    /// Makes a slot live, whatever its state and the protections.
    ///
    /// # Safety
    /// The slot is this thread's, and its class holds `size` bytes and the tail.
    #[inline(never)]
    pub(super) unsafe fn allocate_slot_slow(
        &mut self,
        info: &'static ClassInfo,
        slot: u32,
        size: usize,
        origin: Origin,
    ) -> *mut u8 {
        let start = info.address(slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        let protection = layout().protection;
        let word = canary::word(&layout().key, start + info.size);
        let state = info.state_of(slot);
        if state.is_live() || state == SlotState::BUSY {
            return self.report_slow(Kind::DoubleFree, info, slot);
        }
        // SAFETY: the slot is this thread's, in an opened slab. The word before it belongs to the slot
        // before it in the same slab, whose last word always holds its canary once touched.
        unsafe {
            if state.is_freed() {
                if !is_as_freed(info, slot) {
                    return self.report_slow(Kind::WriteAfterFree, info, slot);
                }
                self.fresh = !protection.zero;
            } else {
                self.fresh = true;
                if protection.canary {
                    self.fault = fence_fresh(info, slot);
                    if self.has_fault() {
                        return core::ptr::null_mut();
                    }
                }
            }
            info.store_busy(slot);
            if protection.canary {
                if state.is_freed() && !protection.zero {
                    // Its last object's canary is not to be read through the next.
                    let old = info.size.saturating_sub(state.slack());
                    pointer.add(old).write_bytes(0, (info.size - class::TAIL).saturating_sub(old));
                }
                canary::fill(pointer, size, info.size, word);
            }
            info.store(slot, SlotState::live(info.size - size, origin));
        }
        pointer
    }

    /// Gives the oldest of a full stack to the quarantine.
    #[cold]
    #[inline(never)]
    pub(super) fn flush_slow(&mut self, class: usize) {
        let Some(lists) = self.slots.lists(class) else { return };
        let (oldest, freed, len) = (usize::from(lists.bin.magazine), lists.freed, lists.len);
        let slots = lists.stack.get(..oldest).unwrap_or(&[]);
        quarantine::put(class, self.home, slots, &mut self.fault);
        lists.stack.copy_within(oldest..freed, 0);
        lists.set(freed - oldest, len);
    }

    /// Puts a freed slot of a large class where its memory is kept, and lets the oldest go for it.
    #[inline(never)]
    pub(super) fn push_large(&mut self, class: usize, slot: u32) {
        while self.warm.excess(class).is_some() {
            self.cool();
        }
        self.warm.keep(class, slot);
        // None would ever be withheld long enough here.
        if quarantine::budget() >= warm::MOST_BYTES {
            self.cool();
        }
    }

    /// Puts the oldest large slot that has its memory onto its class's stack without it; `false` if there is none.
    fn cool(&mut self) -> bool {
        let Some((class, slot)) = self.warm.oldest() else { return false };
        if let Err(fault) = self.warm.cool() {
            self.fault = Some(fault);
        }
        self.push(class, slot);
        true
    }

    /// Gives back what other caches could not; see [`central::flush_deferred`].
    #[inline]
    pub fn flush_deferred(&mut self) {
        if central::any_deferred() {
            central::flush_deferred(&mut self.fault);
        }
    }

    /// Gives the free slots back to their stores, those that wait for other threads as well. What is in quarantine or
    /// on the way there stays.
    pub fn flush_free(&mut self) {
        self.flush_all(false);
        quarantine::flush_transfer(&mut self.fault);
    }

    /// Gives everything away, at thread exit: free slots to their stores, freed ones to the quarantine.
    pub fn drain(&mut self) {
        self.flush_all(true);
    }

    fn flush_all(&mut self, ends: bool) {
        while self.cool() {}
        for class in 0..class::COUNT {
            let Some(lists) = self.slots.lists(class) else { continue };
            let left = if ends || !lists.bin.waits { 0 } else { lists.freed };
            let freed = lists.stack.get(..lists.freed - left).unwrap_or(&[]);
            let free = lists.magazine.get(..lists.len).unwrap_or(&[]);
            quarantine::put_rest(class, self.home, freed, &mut self.fault);
            central::flush(class, free, &mut self.fault);
            let given = lists.len as u64;
            lists.set(left, 0);
            let filled = self.filled.load(Ordering::Relaxed);
            self.filled.store(filled.wrapping_sub(given), Ordering::Relaxed);
        }
    }
}

/// Makes ready to check a slot that may be a large one without memory.
fn prepare_check(info: &ClassInfo, slot: u32) {
    if info.size >= class::LARGE_SIZE && info.state_of(slot).is_freed() {
        vm::prepare_read(warm::inside(info, slot));
    }
}

/// Puts the first `count` slots of a magazine in random order.
fn shuffle(magazine: &mut [u32; MAGAZINE], count: usize, rng: &mut Rng) {
    let mut random = [0; MAGAZINE];
    let count = count.min(MAGAZINE);
    rng.fill(random.get_mut(..count).unwrap_or_default());
    for last in (1..count).rev() {
        // SAFETY: `last` is below MAGAZINE, and a byte's share of `last + 1` is at most `last`.
        unsafe {
            let other = (usize::from(*random.get_unchecked(last)) * (last + 1)) >> 8;
            let slot = *magazine.get_unchecked(other);
            *magazine.get_unchecked_mut(other) = *magazine.get_unchecked(last);
            *magazine.get_unchecked_mut(last) = slot;
        }
    }
}

/// Makes fresh slots of a small class like freed ones: their canary written, their state freed. It costs the
/// page faults that their use would cost a moment later, and the fast path need not know fresh slots. What
/// was found overwritten.
#[inline(never)]
fn ready(class: usize, slots: &[u32]) -> Option<Fault> {
    let protection = layout().protection;
    if class >= class::SMALL_COUNT || !protection.canary || !protection.zero {
        return None;
    }
    let info = layout().classes.get(class)?;
    let mut found = None;
    for slot in slots.iter().copied() {
        let part = info.part(slot);
        // SAFETY: the slot was just taken: it is the caller's, in an opened slab. Its state lies in the table of its part.
        unsafe {
            let state = StateCell::new(&*part.1.add(slot as usize));
            if state.load().is_untouched() {
                match fence(info, part, slot) {
                    true => state.store(SlotState::readied(info.size)),
                    false => found = before_next(info, slot),
                }
            }
        }
    }
    found
}

/// Writes the canaries before and at the end of a slot that was never allocated. When a neighbour is live, both words
/// already hold canaries. So the word at the end is checked before it is written, and a fault is returned if the
/// neighbour overwrote it.
///
/// # Safety
/// The slot is the caller's.
unsafe fn fence_fresh(info: &'static ClassInfo, slot: u32) -> Option<Fault> {
    // SAFETY: as the caller says.
    let intact = unsafe { fence(info, info.part(slot), slot) };
    if intact { None } else { before_next(info, slot) }
}

/// What is wrong with the word before the object in the next slot.
#[cold]
fn before_next(info: &'static ClassInfo, slot: u32) -> Option<Fault> {
    let next = slot.wrapping_add(1);
    overwritten(info, next, info.state_of(next))
}

/// [`fence_fresh`] for a slot of this part of its class; `false` if the word at its end was overwritten.
///
/// # Safety
/// The slot is the caller's.
#[inline(always)]
unsafe fn fence(info: &ClassInfo, (origin, states): (usize, *const AtomicU16), slot: u32) -> bool {
    let key = &layout().key;
    let start = origin + slot as usize * info.size;
    let pointer = Addr::new(start).as_ptr::<u8>();
    // SAFETY: the word before the slot is the last of the slot before it in the same slab, where the
    // first is never allocated; the last word is the slot's own. The slots on both sides have states in the same table: behind the
    // last that is allocated lies at least the number of the guard page.
    unsafe {
        let state_at = |slot: u32| StateCell::new(&*states.add(slot as usize)).load();
        if state_at(slot.wrapping_sub(1)).is_untouched() {
            canary::set(pointer.sub(8), canary::word(key, start));
        }
        let word = canary::word(key, start + info.size);
        let last = pointer.add(info.size - class::TAIL);
        let next = slot.wrapping_add(1);
        let state = state_at(next);
        let is_free = state.is_freed() || state.is_untouched();
        if !is_free && info.state_of(next).is_live() && canary::get(last) != word {
            return false;
        }
        // Before the slot leaves its state: a thread that allocates the next slot relies on the canary once this
        // slot is touched.
        canary::set(last, word);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;
    use crate::sys::vm;

    /// A slot that is used for the first time does not hide what was written before the object in the next.
    #[test]
    fn what_was_written_before_a_neighbour_is_seen() {
        const CLASS: usize = 37;
        let layout = layout::for_tests();
        let info = layout.classes.get(CLASS).expect("a class");
        assert!(vm::commit(info.slab_span(0)));
        let end = info.address(1) + info.size;
        let last = Addr::new(end - class::TAIL).as_ptr::<u8>();
        info.store(2, SlotState::live(class::TAIL, Origin::Malloc));
        // SAFETY: slots 1 and 2 lie in the slab that was just committed, which is this test's alone.
        unsafe {
            canary::fill(
                Addr::new(end).as_ptr(),
                info.size - class::TAIL,
                info.size,
                canary::word(&layout.key, end + info.size),
            );
            canary::set(
                Addr::new(end + info.size - class::TAIL).as_ptr(),
                canary::word(&layout.key, end + info.size),
            );
            canary::set(last, canary::word(&layout.key, end));
            assert!(fence_fresh(info, 1).is_none());
            last.add(3).write(7);
            let fault = fence_fresh(info, 1).expect("a byte was written");
            assert_eq!((fault.kind, fault.address), (Kind::CanaryOverwritten, Addr::of(last).plus(3)));
            assert_eq!(last.add(3).read(), 7, "it is left as it is");
        }
        info.store(2, SlotState::FRESH);
        assert!(vm::release(info.slab_span(0)));
    }
}
