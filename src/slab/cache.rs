//! A thread's cache of free slots, and the general paths over it. The paths that most requests take are in
//! [`fast`](super::fast).
//!
//! Each class has a magazine of free slots in random order and a stack of freed slots. An allocation takes the
//! magazine's next slot. A free puts the slot onto the stack, and a full stack flushes its oldest slots to the
//! [`quarantine`](super::quarantine). An empty magazine is refilled with slots that left the quarantine, or with slots
//! of the central store, and shuffled ([`refill`](super::refill)). So a freed slot comes back after as many bytes of
//! frees as the quarantine holds, in random order. An attacker who sees the address of one object knows the next one
//! only as one of the magazine. Without a quarantine a refill takes the slots that were freed last. Objects that were
//! allocated together lie close together.
//!
//! Only the `_slow` functions lock or make system calls. A cache belongs to one thread.
//!
//! A slot's state is written by the holder of the slot: the cache that it is in, or the thread that frees it. Two
//! threads that free one object at the same moment may both see it live. The slot then is in two lists, and the second
//! allocation of it finds it live and reports the double free.

use super::bin::{Bin, Lists, Slots};
use super::class::{Place, locate};
use super::layout::{ClassInfo, layout};
use super::misuse::{freed_object, is_untouched, misuse, overwritten, touched};
use super::state::SlotState;
use super::store::HOMES;
use super::warm::Warm;
use super::{bytes, canary, class, magazine, poison};
use crate::addr::Addr;
use crate::fault::{Fault, Kind};
use crate::request::{Claim, Origin};
use crate::rng::Rng;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Slots in a magazine of a class up to 1 KiB: with one of them known, the next is one of 71.
pub(super) const MAGAZINE: usize = magazine::LEN;
/// Freed slots on such a class's stack at most.
pub(super) const STACK: usize = 2 * MAGAZINE;
/// Slots that are left on a full stack when the oldest go to the quarantine, at most.
pub(super) const LEFT: usize = 8;
/// How many allocations ahead a slot's memory is fetched.
pub(super) const AHEAD: usize = 2;

/// A thread's cache. All zero bytes are a valid value that holds nothing; [`Cache::init`] readies it.
#[repr(C)]
pub struct Cache {
    pub(super) rng: *mut Rng,
    /// What the last call found; taken by the heap when a call says it failed.
    pub(super) fault: Option<Fault>,
    /// A slot that the fast path took and left to the slow one, with its class; 0 for none.
    pub(super) pending: u32,
    pending_class: u32,
    /// Whether the last allocation was of memory that nobody has cleared or checked.
    pub(super) fresh: bool,
    /// Slots that magazines had, less those that were flushed: what is not in a magazine any more was allocated.
    pub(super) filled: AtomicU64,
    /// The slots of the classes from [`class::LARGE`] on that were freed last.
    pub(super) warm: Warm,
    /// The home of the thread: see [`store`](super::store).
    pub(super) home: usize,
    pub(super) slots: Slots,
}

impl Cache {
    /// Readies the cache. `rng` is the thread's own and outlives it; `ordinal` is its number, and `waits` says whether there
    /// is a quarantine.
    pub fn init(&mut self, rng: *mut Rng, ordinal: usize, waits: bool) {
        self.home = ordinal % HOMES;
        self.rng = rng;
        self.fault = None;
        for ((class, bin), info) in self.slots.bins.iter_mut().enumerate().zip(&layout().classes) {
            bin.init(class, info, waits);
        }
    }

    /// What the last failed call found, if it failed for a misuse.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Objects that were allocated here. Other threads may ask: the figure is then of slightly different moments.
    pub fn allocated(&self) -> u64 {
        let left =
            |(class, bin): (usize, &Bin)| u64::from(bin.next.saturating_sub(Lists::magazine_at(class)));
        let left = self.slots.bins.iter().enumerate().map(left).sum();
        self.filled.load(Ordering::Relaxed).saturating_sub(left)
    }

    /// Whether a fault waits to be taken.
    pub fn has_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// A slot for an object of `size` bytes; null when there is no memory or a misuse was found.
    ///
    /// # Safety
    /// - `class` is below [`class::COUNT`] and its slots hold `size` bytes and the tail.
    /// - The cache is the calling thread's, and initialised.
    #[inline(always)]
    pub unsafe fn allocate(&mut self, size: usize, class: usize, origin: Origin) -> *mut u8 {
        if class >= class::LARGE {
            // SAFETY: as the caller says.
            return unsafe { self.allocate_large(size, class, origin) };
        }
        // SAFETY: the class is in range, as the caller says.
        let info = unsafe { layout().classes.get_unchecked(class) };
        let slot = if self.pending != 0 && self.pending_class as usize == class {
            core::mem::take(&mut self.pending)
        } else {
            // SAFETY: the class is in range.
            match unsafe { self.pick(class) } {
                // SAFETY: as the caller says.
                0 => return unsafe { self.allocate_slow(size, class, origin) },
                slot => slot,
            }
        };
        let state = info.state(slot);
        if !state.load().is_freed() || !layout().protection.zero || !layout().protection.canary {
            // SAFETY: the slot was in the magazine: it is this thread's.
            return unsafe { self.allocate_slot_slow(info, slot, size, origin) };
        }
        let start = info.address(slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        let word = canary::word(&layout().key, start + info.size);
        // SAFETY: the slot is this thread's, and a freed slot's memory is mapped.
        unsafe {
            if !is_untouched(pointer, info.size, word) {
                return self.report_slow(Kind::WriteAfterFree, info, slot);
            }
            state.store_busy();
            canary::fill(pointer, size, info.size, word);
            state.store(SlotState::live(info.size - size, origin));
        }
        pointer
    }

    /// Leaves a slot that the fast path took to the other paths.
    #[inline(always)]
    pub(super) fn leave(&mut self, slot: u32, size: usize) {
        (self.pending, self.pending_class) = (slot, class::of_small(size) as u32);
    }

    /// Takes the next slot of a magazine; 0 if it is used up.
    ///
    /// # Safety
    /// The class is below [`class::COUNT`].
    #[inline(always)]
    pub(super) unsafe fn pick(&mut self, class: usize) -> u32 {
        // SAFETY: the class is in range, and before each magazine there are zeros.
        unsafe {
            let bin = self.slots.bins.get_unchecked_mut(class);
            let slot = *self.slots.magazines.get_unchecked(bin.next as usize - 1);
            bin.next -= u32::from(slot != 0);
            slot
        }
    }

    /// Like [`Cache::allocate`], with the object's bytes zero.
    ///
    /// # Safety
    /// As [`Cache::allocate`].
    pub unsafe fn allocate_zeroed(&mut self, size: usize, class: usize, origin: Origin) -> *mut u8 {
        self.fresh = false;
        // SAFETY: the caller vouches for the same.
        let pointer = unsafe { self.allocate(size, class, origin) };
        if self.fresh && !pointer.is_null() {
            // SAFETY: the object is `size` bytes and this thread's.
            unsafe { pointer.write_bytes(0, size) };
        }
        pointer
    }

    /// Frees the object that `claim` names, which lies at `place`. `false` if a misuse was found, with
    /// nothing changed unless the misuse is an overwritten canary.
    #[inline(always)]
    pub fn free(&mut self, place: Place, claim: &Claim) -> bool {
        // SAFETY: `locate` makes places of existing classes only.
        let info = unsafe { layout().classes.get_unchecked(place.class) };
        let mut state = info.load(place.slot);
        if state.is_covered() && place.into == 0 {
            state = covered_state(info, place.slot, state);
        }
        if place.into != 0 || !state.is_live() {
            return self.refuse_slow(place, claim);
        }
        let size = info.size - state.slack();
        if (state.origin() != claim.origin && layout().protection.mismatch)
            || claim.size.is_some_and(|stated| stated != size)
        {
            return self.refuse_slow(place, claim);
        }
        info.store_busy(place.slot);
        let start = claim.address.get();
        let pointer = claim.address.as_ptr::<u8>();
        let key = &layout().key;
        // SAFETY: the slot was live, so it is mapped and whoever frees it owns it now; the word before
        // a slot that was ever allocated is its neighbour's last, and mapped.
        unsafe {
            if layout().protection.canary {
                let word = canary::word(key, start + info.size);
                let before = canary::get(pointer.sub(8));
                let intact = canary::intact(pointer, size, info.size, word);
                if !intact || before != canary::word(key, start) {
                    return self.overwritten_slow(info, place.slot, state);
                }
            }
            if layout().protection.zero {
                bytes::clear(pointer, info.size - 16);
                pointer.add(info.size - 16).cast::<u64>().write(0);
            }
        }
        info.store(place.slot, state.freed());
        match place.class {
            class::LARGE.. => self.push_large(place.class, place.slot),
            small => self.push(small, place.slot),
        }
        self.fault.is_none()
    }

    /// Puts a freed slot onto the stack.
    #[inline(always)]
    pub(super) fn push(&mut self, class: usize, slot: u32) {
        // SAFETY: the class comes from a place. `top` is below `end`, the stack's, when it is used as an index.
        unsafe {
            let bin = self.slots.bins.get_unchecked_mut(class);
            if bin.top == bin.end {
                self.flush_slow(class);
            }
            let bin = self.slots.bins.get_unchecked_mut(class);
            *self.slots.stacks.get_unchecked_mut(bin.top as usize) = slot;
            bin.top += 1;
        }
    }

    /// Changes the size of a live object in its slot, if the slot suits the new size. `false` otherwise, and nothing
    /// changed.
    pub fn resize(&mut self, place: Place, new_size: usize) -> bool {
        let Some(info) = layout().classes.get(place.class) else {
            return false;
        };
        let state = info.state_of(place.slot);
        if !state.is_live() || !suits(info.size, new_size) {
            return false;
        }
        let old_size = info.size - state.slack();
        let start = info.address(place.slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        let word = canary::word(&layout().key, start + info.size);
        // SAFETY: the slot is live and the caller owns the object; all offsets lie in the slot.
        unsafe {
            if layout().protection.canary && !canary::intact(pointer, old_size, info.size, word) {
                return false;
            }
            // Neither canary bytes nor old contents may be left in what was or becomes slack.
            info.store_busy(place.slot);
            match layout().protection.canary {
                true => canary::move_edge(pointer, old_size, new_size, info.size, word),
                false => {
                    let kept = old_size.min(new_size);
                    pointer.add(kept).write_bytes(0, info.size - class::TAIL - kept);
                }
            }
            info.store(place.slot, SlotState::live(info.size - new_size, state.origin()));
        }
        true
    }

    #[cold]
    #[inline(never)]
    pub(super) fn report_slow(&mut self, kind: Kind, info: &'static ClassInfo, slot: u32) -> *mut u8 {
        if kind == Kind::WriteAfterFree {
            self.fault = Some(touched(info, slot));
            return core::ptr::null_mut();
        }
        let address = Addr::new(info.address(slot));
        self.fault = Some(Fault::new(kind, address, Some(freed_object(info, slot))));
        core::ptr::null_mut()
    }

    /// Says why a free is refused.
    #[cold]
    #[inline(never)]
    fn refuse_slow(&mut self, place: Place, claim: &Claim) -> bool {
        self.fault = Some(misuse(place, claim));
        false
    }

    #[cold]
    #[inline(never)]
    fn overwritten_slow(&mut self, info: &'static ClassInfo, slot: u32, state: SlotState) -> bool {
        self.fault = overwritten(info, slot, state);
        self.fault.is_none()
    }
}

/// The state of a slot that is about to be freed, if what was found there stands for another.
#[cold]
#[inline(never)]
fn covered_state(info: &'static ClassInfo, slot: u32, state: SlotState) -> SlotState {
    match state {
        SlotState::LOOKED => info.state_of(slot),
        SlotState::POISONED => poison::end_in(info, slot),
        other => other,
    }
}

/// Whether a slot of `slot` bytes suits an object of `size` bytes that lies in it: it holds it, and not more than twice.
#[inline(always)]
pub(super) const fn suits(slot: usize, size: usize) -> bool {
    let needed = size.saturating_add(class::TAIL);
    needed <= slot && slot - size <= class::MAX_SLACK && (slot <= 64 || needed >= slot / 2)
}

/// The place of `address` if it is in the regions.
#[inline(always)]
pub fn place(address: Addr) -> Option<Place> {
    locate(layout(), address.get())
}

/// A cache of its own, which nobody else uses.
#[cfg(test)]
pub(super) fn for_tests() -> std::boxed::Box<Cache> {
    super::layout::for_tests();
    // SAFETY: a cache is made in zeroed memory.
    let mut cache: std::boxed::Box<Cache> = unsafe { std::boxed::Box::new_zeroed().assume_init() };
    cache.init(std::boxed::Box::leak(std::boxed::Box::new(Rng::new())), 0, true);
    cache
}
