//! The fast paths over a thread's cache, for a heap with every protection on.
//!
//! Each changes nothing, and says so, when another path has to look at the request.

use super::bin::{Slots, Start, find};
use super::cache::{AHEAD, Cache, suits};
use super::layout::layout;
use super::state::SlotState;
use super::{bytes, canary, class};
use crate::addr::Addr;
use crate::request::Origin;
use crate::sync::atomic::{Ordering, compiler_fence};
use crate::sys::machine;
use core::hint;

/// Bytes of a slot's last two words: when it was freed they are a clear one and the canary.
const LAST: usize = 16;

impl Cache {
    /// The fast path of an allocation; null when another path has to serve the request: the
    /// magazine is used up, or the slot is not as a freed one should be. The object's bytes are zero. For small classes it calls
    /// nothing, so that it needs no stack.
    ///
    /// # Safety
    /// - `size` is at most [`class::SMALL_MAX`] if `SMALL`, else [`class::TABLE_MAX`].
    /// - Canary and zero are on. The cache is the calling thread's, and initialised.
    #[inline(always)]
    pub unsafe fn allocate_plain<const SMALL: bool>(&mut self, size: usize, origin: Origin) -> *mut u8 {
        // SAFETY: the class is one of the table's, and before each magazine there are PAD zeros. The slot was in the magazine: it
        // is this thread's, in an opened slab.
        unsafe {
            // The slot's size without its last two words.
            let (bin, most) = if SMALL {
                self.slots.of_tiny(size)
            } else {
                let bin = self.slots.bins.as_mut_ptr().add(class::of_small(size));
                (bin, (*bin).size as usize - LAST)
            };
            // A slot that was left comes first.
            if !SMALL && self.pending != 0 {
                return core::ptr::null_mut();
            }
            let bin = &mut *bin;
            let next = bin.next as usize - 1;
            let slot = *self.slots.magazines.get_unchecked(next);
            if slot == 0 {
                return core::ptr::null_mut();
            }
            bin.next = next as u32;
            let ahead = *self.slots.magazines.get_unchecked(next - AHEAD);
            let (origin_of_slots, state) = bin.whereabouts(slot);
            // If that slot is one of the few in or out of the front where this is none, nothing is fetched.
            let next = ahead as usize * (most + LAST);
            machine::fetch_at(origin_of_slots, next);
            if !SMALL {
                machine::fetch_at(origin_of_slots, next + most);
            }
            let start = origin_of_slots + slot as usize * (most + LAST);
            let pointer = Addr::new(start).as_ptr::<u8>();
            hint::assert_unchecked(!pointer.is_null());
            // What is made of them above is not kept but made again: there are too few registers.
            let most = machine::kept(most);
            let word = canary::word(&layout().key, start + most + LAST);
            if !state.is_of_freed()
                || !canary::is_last_of_clear(pointer, most, word)
                || !(if SMALL { bytes::is_zero_small(pointer, most) } else { bytes::is_zero(pointer, most) })
            {
                self.leave(slot, size);
                return core::ptr::null_mut();
            }
            state.store_busy();
            match SMALL {
                true => canary::fill_small(pointer, size, most + LAST, word),
                false => canary::fill_any(pointer, size, most + LAST, word),
            }
            state.store(SlotState::live(most + LAST - size, origin));
            pointer
        }
    }

    /// The fast path of a free; `false` when another path has to look at it. Like [`Cache::allocate_plain`] it calls nothing
    /// for small classes.
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
        let Slots { bins, stacks, .. } = &mut self.slots;
        let Some(Start { bin, slot, state: cell }) = find::<SMALL>(bins, layout, start) else {
            return false;
        };
        let slot_size = bin.size as usize;
        let state = cell.load();
        let most = if SMALL { class::SMALL_SLACK } else { class::MAX_SLACK };
        let Some(over) = state.live_over_up_to(most, origin) else {
            return false;
        };
        let size = (slot_size - class::TAIL).wrapping_sub(over);
        let top = bin.top;
        if !SMALL && slot_size >= class::LARGE_SIZE
            || top == bin.end
            || stated.is_some_and(|stated| stated != size)
        {
            return false;
        }
        let pointer = address.as_ptr::<u8>();
        // SAFETY: the slot is live, so it and the word before it are mapped, and whoever frees it owns
        // it. `top` is below the stack's end.
        unsafe {
            // On the stack, but for the number of what is on it.
            *stacks.get_unchecked_mut(top as usize) = slot as u32;
            if !canary::is_before(pointer, canary::word(&layout.key, start)) {
                return false;
            }
            // The key is read again: as operands in memory its parts take no registers, which there are too few of.
            compiler_fence(Ordering::SeqCst);
            let word = canary::word(&layout.key, start + slot_size);
            let intact = if SMALL { canary::intact_small } else { canary::intact_any };
            if !intact(pointer, size, slot_size, word) {
                return false;
            }
            cell.store_busy();
            let clear = if SMALL { bytes::clear_small } else { bytes::clear };
            clear(pointer, slot_size - LAST);
            pointer.add(slot_size - LAST).cast::<u64>().write(0);
            cell.store(state.freed());
            bin.top += 1;
        }
        true
    }

    /// [`Cache::resize`] for an object that is named by its address; `false` when another path has to look at it.
    ///
    /// # Safety
    /// Canary and zero are on, and the caller owns the object if there is one.
    #[inline(always)]
    pub unsafe fn resize_plain(
        &mut self,
        address: Addr,
        stated: Option<usize>,
        new_size: usize,
        origin: Origin,
    ) -> bool {
        let layout = layout();
        let Some(Start { bin, state: cell, .. }) = find::<false>(&mut self.slots.bins, layout, address.get())
        else {
            return false;
        };
        let slot_size = bin.size as usize;
        let state = cell.load();
        let Some(over) = state.live_over_up_to(class::MAX_SLACK, origin) else {
            return false;
        };
        let old_size = (slot_size - class::TAIL).wrapping_sub(over);
        if !suits(slot_size, new_size) || stated.is_some_and(|stated| stated != old_size) {
            return false;
        }
        let word = canary::word(&layout.key, address.get() + slot_size);
        // SAFETY: the slot is live and the caller owns the object; all offsets lie in the slot.
        unsafe {
            let pointer = address.as_ptr::<u8>();
            if !canary::intact(pointer, old_size, slot_size, word) {
                return false;
            }
            cell.store_busy();
            canary::move_edge(pointer, old_size, new_size, slot_size, word);
            cell.store(SlotState::live(slot_size - new_size, origin));
        }
        true
    }
}
