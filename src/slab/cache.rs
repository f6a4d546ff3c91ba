//! A thread's cache of free slots, and the fast paths over it.
//!
//! Each class has a magazine of free slots and a quarantine ring. An allocation takes a random slot
//! of the magazine, which for slots up to 1 KiB never holds fewer than 64 to choose from. A free puts
//! the slot into the ring and moves the slot it displaces there into the magazine: so a freed slot
//! comes back after at least as many frees as the ring is long, and then at random. The magazine is
//! the random-replacement part of the quarantine.
//!
//! Nothing here locks or makes system calls but the `_slow` functions, which exchange batches with
//! [`central`]. A cache belongs to one thread.
//!
//! A slot's state is written by whoever holds the slot: the cache it is in, or the freeing thread.
//! Two threads that free one object at the same moment can both see it live; the slot then stands in
//! two places, and the allocation that takes it second finds it live and reports the double free.

use super::layout::{ClassInfo, Place, SlotState, layout, locate, object_at};
use super::{bytes, canary, central, class};
use crate::addr::Addr;
use crate::fault::{Fault, Kind, Object};
use crate::request::{Claim, Origin};
use crate::rng::Rng;

const MAGAZINE: usize = 128;
const RING: usize = 32;
/// Slots exchanged with the central store at once.
const EXCHANGE: usize = 64;

/// One class's counters; the slots lie apart so that a new cache touches little memory.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Bin {
    /// Slots in the magazine.
    len: u16,
    /// The magazine is refilled when it has no more than this many.
    low: u16,
    /// The most it holds.
    capacity: u16,
    /// Where the ring's next slot goes.
    ring_at: u16,
    /// The ring's length less one.
    ring_mask: u16,
    /// Whether there is a ring: 0 or 1.
    ring: u16,
    /// To a power of two, so that a bin is found by a shift.
    unused: [u16; 2],
}

/// A thread's cache. All zero bytes are a valid value that holds nothing; [`Cache::init`] readies it.
#[repr(C)]
pub struct Cache {
    rng: *mut Rng,
    /// What the last call found; taken by the heap when a call says it failed.
    fault: Option<Fault>,
    /// A slot that the fast path took and left to the slow one, with its class; 0 for none.
    pending: u32,
    pending_class: u32,
    /// Whether the last allocation was of memory that nobody has cleared or checked.
    fresh: bool,
    bins: [Bin; class::COUNT],
    magazines: [[u32; MAGAZINE]; class::COUNT],
    rings: [[u32; RING]; class::COUNT],
}

impl Cache {
    /// Readies the cache. `rng` is the thread's own and outlives it; `quarantine` bounds the bytes its
    /// rings may hold, 0 for no rings.
    pub fn init(&mut self, rng: *mut Rng, quarantine: usize) {
        self.rng = rng;
        self.fault = None;
        let share = quarantine / class::COUNT;
        for (class, bin) in self.bins.iter_mut().enumerate() {
            let size = class::size(class);
            let (low, capacity) = match size {
                0..=1024 => (64, MAGAZINE),
                1025..=8192 => (16, 48),
                _ => (4, 12),
            };
            bin.low = low;
            bin.capacity = capacity as u16;
            let affordable = (share / size).next_power_of_two().min(RING);
            let wanted = if size <= 1024 { RING } else { 16 };
            bin.ring = u16::from(quarantine != 0);
            bin.ring_mask = affordable.min(wanted) as u16 - 1;
        }
    }

    /// What the last failed call found, if it failed for a misuse.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
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
        let (info, bin) =
            unsafe { (layout().classes.get_unchecked(class), self.bins.get_unchecked_mut(class)) };
        let slot = if self.pending != 0 && self.pending_class as usize == class {
            core::mem::take(&mut self.pending)
        } else if bin.len <= bin.low {
            // SAFETY: as for this function.
            return unsafe { self.allocate_slow(size, class, origin) };
        } else {
            self.pick(class)
        };
        if !info.load(slot).is_freed() || !layout().protection.zero || !layout().protection.canary {
            // SAFETY: the slot was in the magazine: it is this thread's.
            return unsafe { self.hand_out_slow(info, slot, size, origin) };
        }
        let start = info.address(slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        let word = canary::word(layout().secret, start + info.size);
        // SAFETY: the slot is this thread's, and a freed slot's memory is mapped.
        unsafe {
            if !is_untouched(pointer, info.size, word) {
                return self.report_slow(Kind::WriteAfterFree, info, slot);
            }
            info.store_busy(slot);
            canary::fill(pointer, size, info.size, word);
            info.store(slot, SlotState::live(info.size - size, origin));
        }
        pointer
    }

    /// The fast path with every protection on; null when another path has to serve the request: the
    /// magazine or the random numbers run low, or the slot is not as a freed one should be. For small
    /// classes it calls nothing, so that it needs no stack.
    ///
    /// # Safety
    /// - `size` is at most [`class::SMALL_MAX`] if `SMALL`, else [`class::TABLE_MAX`].
    /// - Canary, zero and quarantine are on. The cache is the calling thread's, and initialised.
    #[inline(always)]
    pub unsafe fn allocate_plain<const SMALL: bool>(&mut self, size: usize, origin: Origin) -> *mut u8 {
        let class = if SMALL { class::of_tiny(size) } else { class::of_small(size) };
        // SAFETY: the class is one of the table's; `init` set the generator; `len` is more than `low` and
        // at most MAGAZINE, and the index is a fraction below one of it.
        let slot = unsafe {
            let bin = self.bins.get_unchecked_mut(class);
            let len = usize::from(bin.len);
            if bin.len <= bin.low {
                return core::ptr::null_mut();
            }
            let Some(byte) = (*self.rng).ready_byte() else {
                return core::ptr::null_mut();
            };
            let magazine = self.magazines.get_unchecked_mut(class);
            let place: *mut u32 = magazine.get_unchecked_mut((usize::from(byte) * len) >> 8);
            bin.len = (len - 1) as u16;
            let slot = *place;
            *place = *magazine.get_unchecked(len - 1);
            slot
        };
        // SAFETY: the class is one of the table's. The slot was in the magazine: it is this thread's, in
        // an opened slab.
        unsafe {
            let info = layout().classes.get_unchecked(class);
            let slot_size = if SMALL { (class + 1) * 16 } else { info.size };
            let start = info.base + slot as usize * slot_size;
            let pointer = Addr::new(start).as_ptr::<u8>();
            let word = canary::word(layout().secret, start + slot_size);
            let untouched = || {
                let end = pointer.add(slot_size - 16).cast::<u64>();
                let zero = if SMALL { bytes::is_zero_small } else { bytes::is_zero };
                end.read() | (end.add(1).read() ^ word) == 0 && zero(pointer, slot_size - 16)
            };
            if !info.load(slot).is_freed() || !untouched() {
                self.pending = slot;
                self.pending_class = class as u32;
                return core::ptr::null_mut();
            }
            info.store_busy(slot);
            match SMALL {
                true => canary::fill_small(pointer, size, slot_size, word),
                false => canary::fill(pointer, size, slot_size, word),
            }
            info.store(slot, SlotState::live(slot_size - size, origin));
            pointer
        }
    }

    /// The fast path of a free with every protection on; `false`, and nothing changed, when another
    /// path has to look at it. Like [`Cache::allocate_plain`] it calls nothing for small classes.
    ///
    /// # Safety
    /// The cache is the calling thread's and initialised, and canary, zero and quarantine are on.
    #[inline(always)]
    pub unsafe fn free_plain<const SMALL: bool>(
        &mut self,
        address: Addr,
        stated: Option<usize>,
        origin: Origin,
    ) -> bool {
        let layout = layout();
        let start = address.get();
        let offset = start.wrapping_sub(layout.base);
        if offset >= if SMALL { layout.small_span } else { layout.span } {
            return false;
        }
        let class = offset >> layout.region_shift;
        // SAFETY: the offset is within the regions.
        let (info, bin) =
            unsafe { (layout.classes.get_unchecked(class), self.bins.get_unchecked_mut(class)) };
        let slot_size = if SMALL { (class + 1) * 16 } else { info.size };
        let within = offset & layout.region_mask;
        let slot = info.slot_at(within);
        let state = info.load(slot);
        let most = if SMALL { class::SMALL_SLACK } else { class::MAX_SLACK };
        let slack = state.live_slack_up_to(most, origin);
        let size = slot_size.wrapping_sub(slack);
        if slack == usize::MAX
            || slot as usize * slot_size != within
            || bin.len == bin.capacity
            || stated.is_some_and(|stated| stated != size)
        {
            return false;
        }
        let pointer = address.as_ptr::<u8>();
        // SAFETY: the slot is live, so it and the word before it are mapped, and whoever frees it owns
        // it. `ring_at` is below the ring's length and `len` below the magazine's.
        unsafe {
            let word = canary::word(layout.secret, start + slot_size);
            let before = pointer.sub(8).cast::<u64>().read() ^ canary::word(layout.secret, start);
            let intact = if SMALL { canary::intact_small } else { canary::intact };
            if !intact(pointer, size, slot_size, word) || before != 0 {
                return false;
            }
            info.store_busy(slot);
            let clear = if SMALL { bytes::clear_small } else { bytes::clear };
            clear(pointer, slot_size - 16);
            pointer.add(slot_size - 16).cast::<u64>().write(0);
            info.store(slot, state.freed());
            let at = usize::from(bin.ring_at);
            bin.ring_at = (bin.ring_at + 1) & bin.ring_mask;
            let ring = self.rings.get_unchecked_mut(class).get_unchecked_mut(at);
            let displaced = core::mem::replace(ring, slot);
            if displaced != 0 {
                *self.magazines.get_unchecked_mut(class).get_unchecked_mut(usize::from(bin.len)) = displaced;
                bin.len += 1;
            }
        }
        true
    }

    /// Takes a random slot out of a magazine that has one.
    #[inline(always)]
    fn pick(&mut self, class: usize) -> u32 {
        // SAFETY: the class is in range; `init` set the generator; `len` is at most MAGAZINE and at
        // least one, so that the index, a fraction below one of it, is below it.
        unsafe {
            let bin = self.bins.get_unchecked_mut(class);
            let magazine = self.magazines.get_unchecked_mut(class);
            let len = usize::from(bin.len);
            let index = (usize::from((*self.rng).byte()) * len) >> 8;
            let last = len - 1;
            bin.len = last as u16;
            let slot = *magazine.get_unchecked(index);
            *magazine.get_unchecked_mut(index) = *magazine.get_unchecked(last);
            slot
        }
    }

    /// # Safety
    /// As [`Cache::allocate`].
    #[cold]
    #[inline(never)]
    unsafe fn allocate_slow(&mut self, size: usize, class: usize, origin: Origin) -> *mut u8 {
        let (Some(info), Some(bin), Some(magazine)) =
            (layout().classes.get(class), self.bins.get_mut(class), self.magazines.get_mut(class))
        else {
            return core::ptr::null_mut();
        };
        let len = usize::from(bin.len);
        let end = (len + EXCHANGE).min(usize::from(bin.capacity));
        if let Some(room) = magazine.get_mut(len..end) {
            // SAFETY: `init` set the generator, which is this thread's.
            let taken = central::take(class, room, unsafe { &mut *self.rng });
            bin.len += taken as u16;
            self.ready(class, len, len + taken);
        }
        if self.bins.get(class).is_none_or(|bin| bin.len == 0) || self.has_fault() {
            return core::ptr::null_mut();
        }
        let slot = self.pick(class);
        // SAFETY: the slot was in the magazine: it is this thread's.
        unsafe { self.hand_out_slow(info, slot, size, origin) }
    }

    /// Makes fresh slots of a small class, at positions `from..to` of its magazine, like freed ones:
    /// their canary written, their state freed. It costs the page faults that their use would cost a
    /// moment later, and the fast path need not know fresh slots.
    fn ready(&mut self, class: usize, from: usize, to: usize) {
        let protection = layout().protection;
        if class >= class::SMALL_COUNT || !protection.canary || !protection.zero {
            return;
        }
        let Some(info) = layout().classes.get(class) else { return };
        for index in from..to {
            let slot = self.magazines.get(class).and_then(|magazine| magazine.get(index)).copied();
            let Some(slot) = slot.filter(|slot| info.load(*slot).is_untouched()) else { continue };
            // SAFETY: the slot was just taken: it is this thread's, in an opened slab.
            unsafe {
                if self.fence_fresh(info, slot) {
                    info.store(slot, SlotState::live(class::TAIL, Origin::Malloc).freed());
                }
            }
        }
    }

    /// Makes a slot live, whatever its state and the protections.
    ///
    /// # Safety
    /// The slot is this thread's, and its class holds `size` bytes and the tail.
    #[inline(never)]
    unsafe fn hand_out_slow(
        &mut self,
        info: &'static ClassInfo,
        slot: u32,
        size: usize,
        origin: Origin,
    ) -> *mut u8 {
        let start = info.address(slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        let secret = layout().secret;
        let word = canary::word(secret, start + info.size);
        let state = info.load(slot);
        if state.is_live() || state == SlotState::BUSY {
            return self.report_slow(Kind::DoubleFree, info, slot);
        }
        // SAFETY: the slot is this thread's, in an opened slab. The word before it belongs to the slot
        // before it in the same slab, whose last word always holds its canary once touched.
        unsafe {
            if state.is_freed() {
                if layout().protection.zero
                    && layout().protection.canary
                    && !is_untouched(pointer, info.size, word)
                {
                    return self.report_slow(Kind::WriteAfterFree, info, slot);
                }
                self.fresh = !layout().protection.zero;
            } else {
                self.fresh = true;
                if layout().protection.canary && !self.fence_fresh(info, slot) {
                    return core::ptr::null_mut();
                }
            }
            info.store_busy(slot);
            if layout().protection.canary {
                canary::fill(pointer, size, info.size, word);
            }
            info.store(slot, SlotState::live(info.size - size, origin));
        }
        pointer
    }

    /// Readies the words before and at the end of a slot that was never handed out: both are canaries
    /// as soon as a neighbour lives, and what the neighbour did to one of them must not be mended
    /// unseen. `false` if the one at the end was overwritten.
    ///
    /// # Safety
    /// The slot is this thread's.
    unsafe fn fence_fresh(&mut self, info: &'static ClassInfo, slot: u32) -> bool {
        let secret = layout().secret;
        let start = info.address(slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        // SAFETY: the word before the slot is the last of the slot before it in the same slab, where the
        // first is never handed out; the last word is the slot's own.
        unsafe {
            if info.load(slot.wrapping_sub(1)).is_untouched() {
                pointer.sub(8).cast::<u64>().write(canary::word(secret, start));
            }
            let next = slot.wrapping_add(1);
            let word = canary::word(secret, start + info.size);
            let last = pointer.add(info.size - class::TAIL).cast::<u64>();
            let state = info.load(next);
            if state.is_live() && last.read() != word {
                self.fault = overwritten(info, next, state);
                return self.fault.is_none();
            }
            // Before the slot leaves its state: whoever hands out the next slot and finds this one
            // touched relies on it.
            last.write(word);
        }
        true
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
        let state = info.load(place.slot);
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
        let secret = layout().secret;
        // SAFETY: the slot was live, so it is mapped and whoever frees it owns it now; the word before
        // a slot that was ever handed out is its neighbour's last, and mapped.
        unsafe {
            if layout().protection.canary {
                let word = canary::word(secret, start + info.size);
                let before = pointer.sub(8).cast::<u64>().read();
                let intact = canary::intact(pointer, size, info.size, word);
                if !intact || before != canary::word(secret, start) {
                    return self.overwritten_slow(info, place.slot, state);
                }
            }
            if layout().protection.zero {
                bytes::clear(pointer, info.size - 16);
                pointer.add(info.size - 16).cast::<u64>().write(0);
            }
        }
        info.store(place.slot, state.freed());
        self.quarantine(place.class, place.slot);
        self.fault.is_none()
    }

    /// Puts a freed slot into the ring and what it displaces into the magazine.
    #[inline(always)]
    fn quarantine(&mut self, class: usize, slot: u32) {
        // SAFETY: the class comes from a place. `ring_at` stays below the ring's length, at most RING, and
        // `len` below `capacity`, at most MAGAZINE, when it is used as an index.
        unsafe {
            let bin = self.bins.get_unchecked_mut(class);
            let mut out = slot;
            if bin.ring != 0 {
                let at = usize::from(bin.ring_at);
                out = core::mem::replace(self.rings.get_unchecked_mut(class).get_unchecked_mut(at), slot);
                bin.ring_at = (bin.ring_at + 1) & bin.ring_mask;
                // Slot 0 of a region is never handed out: it marks an empty place.
                if out == 0 {
                    return;
                }
            }
            if bin.len == bin.capacity {
                self.flush_slow(class);
            }
            let bin = self.bins.get_unchecked_mut(class);
            *self.magazines.get_unchecked_mut(class).get_unchecked_mut(usize::from(bin.len)) = out;
            bin.len += 1;
        }
    }

    /// Gives half of a full magazine back.
    #[cold]
    #[inline(never)]
    fn flush_slow(&mut self, class: usize) {
        let (Some(bin), Some(magazine)) = (self.bins.get_mut(class), self.magazines.get_mut(class)) else {
            return;
        };
        let half = usize::from(bin.capacity / 2);
        let len = usize::from(bin.len);
        if let Some(slots) = magazine.get(..half)
            && let Err(fault) = central::give(class, slots)
        {
            self.fault = Some(fault);
        }
        magazine.copy_within(half..len, 0);
        bin.len = (len - half) as u16;
    }

    /// Gives the magazines back; what is in quarantine stays there.
    pub fn give_magazines(&mut self) {
        for class in 0..class::COUNT {
            let (Some(bin), Some(magazine)) = (self.bins.get_mut(class), self.magazines.get(class)) else {
                continue;
            };
            let len = usize::from(core::mem::take(&mut bin.len));
            if let Some(slots) = magazine.get(..len)
                && let Err(fault) = central::give(class, slots)
            {
                self.fault = Some(fault);
            }
        }
    }

    /// Gives everything back, at thread exit.
    pub fn drain(&mut self) {
        for class in 0..class::COUNT {
            let (Some(bin), Some(magazine), Some(ring)) =
                (self.bins.get_mut(class), self.magazines.get_mut(class), self.rings.get_mut(class))
            else {
                continue;
            };
            let (len, ring_len) = (usize::from(bin.len), usize::from(bin.ring_mask) + 1);
            bin.len = 0;
            let mut results = [Ok(()), Ok(())];
            if let Some(slots) = magazine.get(..len) {
                results[0] = central::give(class, slots);
            }
            let mut held = [0; RING];
            let mut count = 0;
            // A ring that was never touched is not touched now: its first place tells.
            for place in ring.iter_mut().take(ring_len) {
                if *place == 0 {
                    break;
                }
                if let Some(to) = held.get_mut(count) {
                    *to = core::mem::take(place);
                    count += 1;
                }
            }
            if let Some(slots) = held.get(..count) {
                results[1] = central::give(class, slots);
            }
            for result in results {
                if let Err(fault) = result {
                    self.fault = Some(fault);
                }
            }
        }
    }

    /// Changes the size of a live object in its slot, if the slot suits the new size: it holds it, and
    /// not more than twice. `false` otherwise, and nothing changed.
    pub fn resize(&mut self, place: Place, new_size: usize) -> bool {
        let Some(info) = layout().classes.get(place.class) else {
            return false;
        };
        let state = info.load(place.slot);
        let needed = new_size.saturating_add(class::TAIL);
        if !state.is_live() || needed > info.size || info.size - new_size > class::MAX_SLACK {
            return false;
        }
        if info.size > 64 && needed < info.size / 2 {
            return false;
        }
        let old_size = info.size - state.slack();
        let start = info.address(place.slot);
        let pointer = Addr::new(start).as_ptr::<u8>();
        let word = canary::word(layout().secret, start + info.size);
        // SAFETY: the slot is live and the caller owns the object; all offsets lie in the slot.
        unsafe {
            if layout().protection.canary && !canary::intact(pointer, old_size, info.size, word) {
                return false;
            }
            // Neither canary bytes nor old contents may be left in what was or becomes slack.
            let kept = old_size.min(new_size);
            info.store_busy(place.slot);
            pointer.add(kept).write_bytes(0, info.size - class::TAIL - kept);
            if layout().protection.canary {
                canary::fill_behind(pointer, new_size, info.size, word);
            }
            info.store(place.slot, SlotState::live(info.size - new_size, state.origin()));
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn report_slow(&mut self, kind: Kind, info: &'static ClassInfo, slot: u32) -> *mut u8 {
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

/// The place of `address` if it is in the regions.
#[inline(always)]
pub fn place(address: Addr) -> Option<Place> {
    locate(layout(), address.get())
}
