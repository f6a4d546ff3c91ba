//! What a thread's cache keeps for each class: the state of its lists, and the numbers that the fast paths need.
//!
//! A class's [`Bin`] fills one cache line of the processor, so a fast path touches no other line for it. The slot
//! numbers lie apart, so a new cache touches little memory.
//!
//! # Counts for tools
//!
//! [`CountPlaces`] says where the counts of a cache lie in its bytes. Tools read them from another process.

use super::cache::{AHEAD, Cache, LEFT, MAGAZINE, STACK};
use super::layout::{ClassInfo, Layout};
use super::state::StateCell;
use super::{class, front, quarantine};
use crate::sys::machine;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU16, Ordering};

/// Zeros before each magazine: a magazine that is used up has slot 0 as its next, which is never allocated, and so have those
/// that are fetched ahead of it.
const PAD: usize = AHEAD + 1;

/// Where the slots of a class's region or of its slab in the front are, and their states.
#[repr(C)]
#[derive(Clone, Copy)]
struct Part {
    /// Where slot 0 begins, were it in this part.
    start: usize,
    /// Where its state is.
    states: *const AtomicU16,
}

impl Part {
    /// Where the slot's state is.
    ///
    /// # Safety
    /// The part's table has the slot.
    #[inline(always)]
    unsafe fn state(&self, slot: usize) -> StateCell {
        // SAFETY: the caller vouches for the slot. Tables are there as long as the process.
        unsafe { StateCell::new(&*machine::kept_pointer(self.states.add(slot))) }
    }
}

const REGION: usize = 0;
const FRONT: usize = 1;

/// One class's line.
#[repr(C, align(64))]
pub(super) struct Bin {
    /// Those of the region, and those of the front as of the last magazine.
    parts: [Part; 2],
    /// See [`ClassInfo`].
    reciprocal: u64,
    /// Slot size in bytes.
    pub size: u32,
    /// Slot numbers of the slab in the front.
    front_end: u32,
    /// One past the next slot of the magazine, in [`Slots::magazines`].
    pub next: u32,
    /// Where the next freed slot goes, in [`Slots::stacks`].
    pub top: u32,
    /// One past the most that the stack holds.
    pub end: u32,
    /// Slots in a full magazine.
    pub magazine: u16,
    /// Whether what is freed waits: the stack's slots go to the quarantine and to no magazine.
    pub waits: bool,
}

const _: () = assert!(size_of::<Bin>() == 64);

impl Bin {
    /// Readies the line of class `class`, with nothing in its lists.
    pub fn init(&mut self, class: usize, info: &ClassInfo, waits: bool) {
        let magazine = quarantine::magazine_len(class);
        let left = if waits { magazine.min(LEFT) } else { magazine };
        *self = Self {
            parts: [
                Part { start: info.start, states: info.states },
                Part { start: front::start(class), states: info.front_states },
            ],
            reciprocal: info.reciprocal,
            size: info.size as u32,
            front_end: info.front_end,
            next: Lists::magazine_at(class),
            top: Lists::stack_at(class),
            end: Lists::stack_at(class) + (magazine + left) as u32,
            magazine: magazine as u16,
            waits,
        };
    }

    /// Where the slot numbers are counted from that a slot of a magazine has, and the slot's state.
    ///
    /// # Safety
    /// The slot is in the class's magazine.
    #[inline(always)]
    pub unsafe fn whereabouts(&self, slot: u32) -> (usize, StateCell) {
        // SAFETY: there are two parts. The tables cover every slot that was opened, and those of magazines were.
        unsafe {
            let part = self.parts.get_unchecked(usize::from(slot < self.front_end));
            (part.start, part.state(slot as usize))
        }
    }

    /// The index of the slot that begins at the byte at `offset` from slot 0; `None` if none does.
    #[inline(always)]
    fn slot_of_start(&self, offset: usize) -> Option<usize> {
        let product = offset as u128 * self.reciprocal as u128;
        // The low half counts the reciprocal's error once a slot, less than an offset's bytes, and each byte from the
        // slot's first adds the reciprocal, more than any offset.
        (product as u64 <= offset as u64).then_some((product >> 64) as usize)
    }
}

/// The slots that a cache has.
#[repr(C)]
pub(super) struct Slots {
    pub bins: [Bin; class::COUNT],
    /// By class, freed slots in the order of their frees.
    pub stacks: [u32; class::COUNT * STACK],
    /// By class, [`PAD`] zeros, and slots in random order, taken from the end.
    pub magazines: [u32; class::COUNT * (PAD + MAGAZINE)],
}

/// A slot that begins at an address.
pub(super) struct Start<'a> {
    /// Its class's line.
    pub bin: &'a mut Bin,
    /// Its number in the class.
    pub slot: usize,
    /// Where its state is; where no slab is the state says that nothing lives there.
    pub state: StateCell,
}

impl Slots {
    /// The lists of a class.
    pub fn lists(&mut self, class: usize) -> Option<Lists<'_>> {
        let (stack_at, magazine_at) = (Lists::stack_at(class) as usize, Lists::magazine_at(class) as usize);
        let bin = self.bins.get_mut(class)?;
        let stack = self.stacks.get_mut(stack_at..)?.first_chunk_mut()?;
        let magazine = self.magazines.get_mut(magazine_at..)?.first_chunk_mut()?;
        let (freed, len) = (bin.top as usize - stack_at, bin.next as usize - magazine_at);
        Some(Lists { bin, stack, magazine, freed, len, class })
    }

    /// The line of the class of a request of `size` bytes, at most [`class::SMALL_MAX`], and the slots' size of the class before.
    #[inline(always)]
    pub fn of_tiny(&mut self, size: usize) -> (*mut Bin, usize) {
        let before = machine::plus::<{ class::TAIL - 1 }>(size) & !(class::FINE_STEP - 1);
        // SAFETY: the classes up to that of SMALL_MAX bytes step by FINE_STEP, so that this is the class's line.
        let bin = unsafe { self.bins.as_mut_ptr().byte_add(before * (size_of::<Bin>() / class::FINE_STEP)) };
        (bin, before)
    }
}

/// The fast paths' [`locate`](super::class::locate), in a class with small slots if `SMALL`: the slot that begins at
/// the address; `None` if none begins there.
#[inline(always)]
pub fn find<'a, const SMALL: bool>(
    bins: &'a mut [Bin; class::COUNT],
    layout: &Layout,
    address: usize,
) -> Option<Start<'a>> {
    let offset = address.wrapping_sub(layout.regions);
    let span = layout.fast_spans[usize::from(!SMALL)].load(Ordering::Relaxed);
    // SAFETY: the classes are below COUNT. The tables have a state for each slot number that a byte of a region that was not
    // cut leads to, or of a slab of the front.
    unsafe {
        if offset >= span {
            return find_in_front::<SMALL>(bins, address, offset);
        }
        let bin = bins.get_unchecked_mut(offset >> layout.region_shift);
        let slot = bin.slot_of_start(address.wrapping_sub(bin.parts[REGION].start) & layout.region_mask)?;
        // Those of the front have no state in this table.
        let state = bin.parts[REGION].state(slot);
        Some(Start { bin, slot, state })
    }
}

/// [`find`] at so many bytes behind the start of the regions, or before it.
#[inline(always)]
fn find_in_front<const SMALL: bool>(
    bins: &mut [Bin; class::COUNT],
    address: usize,
    offset: usize,
) -> Option<Start<'_>> {
    let offset = offset.wrapping_add(front::BYTES);
    if offset >= front::BYTES {
        return None;
    }
    let classes = if SMALL { class::SMALL_COUNT } else { class::COUNT };
    // SAFETY: the class is below COUNT. The table has a state for each slot number that a byte of the slab leads to.
    unsafe {
        let class = usize::from(front::owner(offset));
        if class >= classes {
            return None;
        }
        let bin = bins.get_unchecked_mut(class);
        // A page that has an owner lies in its slab. The guard page has the numbers behind those of the slots.
        let slot = bin.slot_of_start(address.wrapping_sub(front::start_unchecked(class)))?;
        let state = bin.parts[FRONT].state(slot);
        Some(Start { bin, slot, state })
    }
}

/// One class's lists.
pub(super) struct Lists<'a> {
    pub bin: &'a mut Bin,
    /// As long as it may become.
    pub stack: &'a mut [u32; STACK],
    /// As long as it may become.
    pub magazine: &'a mut [u32; MAGAZINE],
    /// Slots on the stack.
    pub freed: usize,
    /// Slots left in the magazine.
    pub len: usize,
    class: usize,
}

impl Lists<'_> {
    const fn stack_at(class: usize) -> u32 {
        (class * STACK) as u32
    }

    pub const fn magazine_at(class: usize) -> u32 {
        (class * (PAD + MAGAZINE) + PAD) as u32
    }

    /// Moves the slots that were freed last from the stack to the magazine, which is empty; how many.
    pub fn pop(&mut self) -> usize {
        let count = self.freed.min(self.bin.magazine.into());
        self.freed -= count;
        if let (Some(last), Some(room)) = (self.stack.get(self.freed..), self.magazine.get_mut(..count)) {
            room.iter_mut().zip(last).for_each(|(room, slot)| *room = *slot);
        }
        count
    }

    /// Says how many slots the stack and the magazine have now.
    pub fn set(self, freed: usize, len: usize) {
        self.bin.parts[FRONT].start = front::start(self.class);
        self.bin.top = Self::stack_at(self.class) + freed as u32;
        self.bin.next = Self::magazine_at(self.class) + len as u32;
    }
}

/// Offsets in bytes from a cache's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountPlaces {
    /// The word that counts the slots that magazines had.
    pub filled: usize,
    /// The first class's bin.
    pub bins: usize,
    /// From one bin to the next.
    pub stride: usize,
    /// In a bin, the 32-bit word that says how far its magazine is used.
    pub next: usize,
    /// How many bins there are.
    pub count: usize,
}

impl Cache {
    /// See [`CountPlaces`].
    pub const COUNT_PLACES: CountPlaces = CountPlaces {
        filled: offset_of!(Self, filled),
        bins: offset_of!(Self, slots) + offset_of!(Slots, bins),
        stride: size_of::<Bin>(),
        next: offset_of!(Bin, next),
        count: class::COUNT,
    };

    /// [`Cache::allocated`] of a cache whose words another process was asked for: what magazines had, and how far they are
    /// used, by class.
    pub fn allocated_by(filled: u64, next: impl Iterator<Item = u32>) -> u64 {
        let left = |(class, next): (usize, u32)| u64::from(next.saturating_sub(Lists::magazine_at(class)));
        filled.saturating_sub(next.enumerate().map(left).sum())
    }
}
