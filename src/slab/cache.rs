//! A thread's cache of free slots, and the fast paths over it.
//!
//! Each class has a batch of free slots in random order and a stack of freed ones. An allocation takes the batch's next
//! slot. A free puts the slot onto the stack. The oldest of a full stack go to the [`quarantine`](super::quarantine). When
//! the batch is used up, the next one is made of slots that left the quarantine or of the central store's, and shuffled
//! ([`exchange`](super::exchange)): so a freed slot comes back after as many bytes of frees as the quarantine holds, and
//! then at random, and who sees the address of one object knows the next one's as one of the batch. Without a quarantine
//! the next batch is made of what was freed last. What was allocated together lies close together.
//!
//! Nothing here locks or makes system calls but the `_slow` functions. A cache belongs to one thread.
//!
//! A slot's state is written by whoever holds the slot: the cache it is in, or the freeing thread.
//! Two threads that free one object at the same moment can both see it live; the slot then stands in
//! two places, and the allocation that takes it second finds it live and reports the double free.

#[path = "places.rs"]
mod places;

use super::layout::{ClassInfo, layout};
use super::misuse::{freed_object, is_untouched, misuse, overwritten, touched};
use super::place::{self, Place, locate};
use super::state::SlotState;
use super::warm::Warm;
use super::{batches, bytes, canary, class, poison, quarantine};
use crate::addr::Addr;
use crate::fault::{Fault, Kind};
use crate::request::{Claim, Origin};
use crate::rng::Rng;
use crate::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use crate::sys::cpu;

/// Slots in a batch of a class up to 1 KiB: with one of them known, the next is one of 71.
pub(super) const BATCH: usize = batches::LEN;
/// Freed slots on such a class's stack at most.
const STACK: usize = 2 * BATCH;
/// Slots that are left on a full stack when the oldest go to the quarantine, at most.
const LEFT: usize = 8;
/// How many allocations ahead a slot's memory is fetched.
const AHEAD: usize = 2;

/// Zeros before each batch: a batch that is used up has slot 0 as its next, which is never handed out, and so have those
/// that are fetched ahead of it.
const PAD: usize = AHEAD + 1;

/// One class's places in the lists; the slots lie apart so that a new cache touches little memory.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Bin {
    /// One past the next slot of the batch, in [`Slots::batches`].
    next: u32,
    /// Where the next freed slot goes, in [`Slots::stacks`].
    top: u32,
    /// One past the most that the stack holds.
    end: u32,
    /// Slots in a full batch.
    pub batch: u16,
    /// Whether what is freed waits: the stack's slots go to the quarantine and to no batch.
    pub waits: bool,
}

/// A thread's cache. All zero bytes are a valid value that holds nothing; [`Cache::init`] readies it.
#[repr(C)]
pub struct Cache {
    pub(super) rng: *mut Rng,
    /// What the last call found; taken by the heap when a call says it failed.
    pub(super) fault: Option<Fault>,
    /// A slot that the fast path took and left to the slow one, with its class; 0 for none.
    pending: u32,
    pending_class: u32,
    /// Whether the last allocation was of memory that nobody has cleared or checked.
    pub(super) fresh: bool,
    /// Slots that batches had, but for those that were given back: what is not in a batch any more was handed out.
    pub(super) filled: AtomicU64,
    /// The freed slots of the classes from [`class::LARGE`] on that have their memory.
    pub(super) warm: Warm,
    pub(super) slots: Slots,
}

/// The slots that a cache has.
#[repr(C)]
pub(super) struct Slots {
    bins: [Bin; class::COUNT],
    /// By class, freed slots in the order of their frees.
    stacks: [u32; class::COUNT * STACK],
    /// By class, [`PAD`] zeros, and slots in random order, taken from the end.
    batches: [u32; class::COUNT * (PAD + BATCH)],
}

impl Slots {
    /// The lists of a class.
    pub fn lists(&mut self, class: usize) -> Option<Lists<'_>> {
        let (stack_at, batch_at) = (Lists::stack_at(class) as usize, Lists::batch_at(class) as usize);
        let bin = self.bins.get_mut(class)?;
        let stack = self.stacks.get_mut(stack_at..)?.first_chunk_mut()?;
        let batch = self.batches.get_mut(batch_at..)?.first_chunk_mut()?;
        let (freed, len) = (bin.top as usize - stack_at, bin.next as usize - batch_at);
        Some(Lists { bin, stack, batch, freed, len, class })
    }
}

/// One class's lists.
pub(super) struct Lists<'a> {
    pub bin: &'a mut Bin,
    /// As long as it may become.
    pub stack: &'a mut [u32; STACK],
    /// As long as it may become.
    pub batch: &'a mut [u32; BATCH],
    /// Slots on the stack.
    pub freed: usize,
    /// Slots left in the batch.
    pub len: usize,
    class: usize,
}

impl Lists<'_> {
    const fn stack_at(class: usize) -> u32 {
        (class * STACK) as u32
    }

    const fn batch_at(class: usize) -> u32 {
        (class * (PAD + BATCH) + PAD) as u32
    }

    /// Moves the slots that were freed last from the stack to the batch, which is empty; how many.
    pub fn pop(&mut self) -> usize {
        let count = self.freed.min(self.bin.batch.into());
        self.freed -= count;
        if let (Some(last), Some(room)) = (self.stack.get(self.freed..), self.batch.get_mut(..count)) {
            room.iter_mut().zip(last).for_each(|(room, slot)| *room = *slot);
        }
        count
    }

    /// Says how many slots the stack and the batch have now.
    pub fn set(self, freed: usize, len: usize) {
        self.bin.top = Self::stack_at(self.class) + freed as u32;
        self.bin.next = Self::batch_at(self.class) + len as u32;
    }
}

impl Cache {
    /// Readies the cache. `rng` is the thread's own and outlives it; `waits` says whether there is a quarantine.
    pub fn init(&mut self, rng: *mut Rng, waits: bool) {
        self.rng = rng;
        self.fault = None;
        for (class, bin) in self.slots.bins.iter_mut().enumerate() {
            let batch = quarantine::batch_len(class);
            let left = if waits { batch.min(LEFT) } else { batch };
            (bin.top, bin.next) = (Lists::stack_at(class), Lists::batch_at(class));
            bin.end = bin.top + (batch + left) as u32;
            bin.batch = batch as u16;
            bin.waits = waits;
        }
    }

    /// What the last failed call found, if it failed for a misuse.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Objects that were allocated here. Other threads may ask: the figure is then of slightly different moments.
    pub fn allocated(&self) -> u64 {
        let left = |(class, bin): (usize, &Bin)| u64::from(bin.next.saturating_sub(Lists::batch_at(class)));
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
            // SAFETY: the slot was in the batch: it is this thread's.
            return unsafe { self.hand_out_slow(info, slot, size, origin) };
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

    /// The fast path with every protection on; null when another path has to serve the request: the
    /// batch is used up, or the slot is not as a freed one should be. For small classes it calls nothing,
    /// so that it needs no stack.
    ///
    /// # Safety
    /// - `size` is at most [`class::SMALL_MAX`] if `SMALL`, else [`class::TABLE_MAX`].
    /// - Canary and zero are on. The cache is the calling thread's, and initialised.
    #[inline(always)]
    pub unsafe fn allocate_plain<const SMALL: bool>(&mut self, size: usize, origin: Origin) -> *mut u8 {
        let class = if SMALL { class::of_tiny(size) } else { class::of_small(size) };
        // SAFETY: the class is one of the table's, and before each batch there are PAD zeros.
        let (slot, ahead) = unsafe {
            let bin = self.slots.bins.get_unchecked_mut(class);
            let next = bin.next as usize - 1;
            let slot = *self.slots.batches.get_unchecked(next);
            if slot == 0 {
                return core::ptr::null_mut();
            }
            bin.next = next as u32;
            (slot, *self.slots.batches.get_unchecked(next - AHEAD))
        };
        // SAFETY: the class is one of the table's. The slot was in the batch: it is this thread's, in
        // an opened slab.
        unsafe {
            let info = layout().classes.get_unchecked(class);
            let slot_size = info.size;
            let (origin_of_slots, state) = info.whereabouts(class, slot);
            // If that slot is one of the few in or out of the front where this is none, nothing is fetched.
            let next = origin_of_slots + ahead as usize * slot_size;
            cpu::fetch(Addr::new(next));
            cpu::fetch(Addr::new(next + slot_size - 16));
            let start = origin_of_slots + slot as usize * slot_size;
            let pointer = Addr::new(start).as_ptr::<u8>();
            let word = canary::word(&layout().key, start + slot_size);
            let untouched = || {
                let end = pointer.add(slot_size - 16);
                let zero = if SMALL { bytes::is_zero_small } else { bytes::is_zero };
                end.cast::<u64>().read() | (canary::get(end.add(8)) ^ word) == 0
                    && zero(pointer, slot_size - 16)
            };
            if !state.load().is_freed() || !untouched() {
                self.pending = slot;
                self.pending_class = class as u32;
                return core::ptr::null_mut();
            }
            state.store_busy();
            match SMALL {
                true => canary::fill_small(pointer, size, slot_size, word),
                false => canary::fill(pointer, size, slot_size, word),
            }
            state.store(SlotState::live(slot_size - size, origin));
            pointer
        }
    }

    /// The fast path of a free with every protection on; `false`, and nothing changed, when another
    /// path has to look at it. Like [`Cache::allocate_plain`] it calls nothing for small classes.
    ///
    /// # Safety
    /// The cache is the calling thread's and initialised, and canary and zero are on.
    #[inline(always)]
    pub unsafe fn free_plain<const SMALL: bool>(
        &mut self,
        address: Addr,
        stated: Option<usize>,
        origin: Origin,
    ) -> bool {
        let layout = layout();
        let start = address.get();
        let Some(place::Start { info, class, slot, state: cell }) = place::find::<SMALL>(layout, start)
        else {
            return false;
        };
        // SAFETY: the class exists.
        let bin = unsafe { self.slots.bins.get_unchecked_mut(class) };
        let slot_size = info.size;
        let state = cell.load();
        let most = if SMALL { class::SMALL_SLACK } else { class::MAX_SLACK };
        let Some(over) = state.live_over_up_to(most, origin) else {
            return false;
        };
        let size = (slot_size - class::TAIL).wrapping_sub(over);
        if !SMALL && class >= class::LARGE
            || bin.top == bin.end
            || stated.is_some_and(|stated| stated != size)
        {
            return false;
        }
        let pointer = address.as_ptr::<u8>();
        // SAFETY: the slot is live, so it and the word before it are mapped, and whoever frees it owns
        // it. `top` is below the stack's end.
        unsafe {
            let before = canary::word(&layout.key, start);
            if before != canary::get(pointer.sub(class::TAIL)) {
                return false;
            }
            // The key is read again: as operands in memory its parts take no registers, which there are too few of.
            compiler_fence(Ordering::SeqCst);
            let word = canary::word(&layout.key, start + slot_size);
            let intact = if SMALL { canary::intact_small } else { canary::intact };
            if !intact(pointer, size, slot_size, word) {
                return false;
            }
            cell.store_busy();
            let clear = if SMALL { bytes::clear_small } else { bytes::clear };
            clear(pointer, slot_size - 16);
            pointer.add(slot_size - 16).cast::<u64>().write(0);
            cell.store(state.freed());
            *self.slots.stacks.get_unchecked_mut(bin.top as usize) = slot as u32;
            bin.top += 1;
        }
        true
    }

    /// Takes the next slot of a batch; 0 if it is used up.
    ///
    /// # Safety
    /// The class is below [`class::COUNT`].
    #[inline(always)]
    pub(super) unsafe fn pick(&mut self, class: usize) -> u32 {
        // SAFETY: the class is in range, and before each batch there are zeros.
        let slot = unsafe {
            let bin = self.slots.bins.get_unchecked_mut(class);
            let slot = *self.slots.batches.get_unchecked(bin.next as usize - 1);
            bin.next -= u32::from(slot != 0);
            slot
        };
        if class >= class::LARGE && slot != 0 {
            self.warm.forget(class, slot);
        }
        slot
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
        // a slot that was ever handed out is its neighbour's last, and mapped.
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
        self.push(place.class, place.slot);
        if place.class >= class::LARGE
            && let Err(fault) = self.warm.keep(place.class, place.slot)
        {
            self.fault = Some(fault);
        }
        self.fault.is_none()
    }

    /// Puts a freed slot onto the stack.
    #[inline(always)]
    fn push(&mut self, class: usize, slot: u32) {
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

    /// [`Cache::resize`] with every protection on, for an object that is named by its address; `false`, and nothing
    /// changed, when another path has to look at it.
    ///
    /// # Safety
    /// Canary and zero are on, and the caller owns the object if there is one.
    #[inline(always)]
    pub unsafe fn resize_plain(
        address: Addr,
        stated: Option<usize>,
        new_size: usize,
        origin: Origin,
    ) -> bool {
        let layout = layout();
        let Some(place::Start { info, state: cell, .. }) = place::find::<false>(layout, address.get()) else {
            return false;
        };
        let state = cell.load();
        let Some(over) = state.live_over_up_to(class::MAX_SLACK, origin) else {
            return false;
        };
        let old_size = (info.size - class::TAIL).wrapping_sub(over);
        if !suits(info.size, new_size) || stated.is_some_and(|stated| stated != old_size) {
            return false;
        }
        let word = canary::word(&layout.key, address.get() + info.size);
        // SAFETY: the slot is live and the caller owns the object; all offsets lie in the slot.
        unsafe {
            let pointer = address.as_ptr::<u8>();
            if !canary::intact(pointer, old_size, info.size, word) {
                return false;
            }
            cell.store_busy();
            canary::move_edge(pointer, old_size, new_size, info.size, word);
            cell.store(SlotState::live(info.size - new_size, origin));
        }
        true
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
const fn suits(slot: usize, size: usize) -> bool {
    let needed = size.saturating_add(class::TAIL);
    needed <= slot && slot - size <= class::MAX_SLACK && (slot <= 64 || needed >= slot / 2)
}

/// The place of `address` if it is in the regions.
#[inline(always)]
pub fn place(address: Addr) -> Option<Place> {
    locate(layout(), address.get())
}
