//! Where everything of the slab allocator lies: regions, slots, and their out-of-line state.
//!
//! ```text
//! regions: | front | class 0 | class 1 | ... | class 97 |    one reservation, equal parts, inaccessible
//! region:  |   ...   | slab 0 | slab 1 | slab 2 | ...        opened from a random place on
//! table:   | ... | block 1 | block 0 | states |              one a class, in another mapping
//! block:   | the slab's record | one free bit a slot |       states: one u16 a slot
//! ```
//!
//! Slots and slabs are numbered from the random first slab, and a class's blocks lie below its states. So the used part
//! of each table is contiguous: two pages at first, and one page of page tables.
//!
//! Slab 0 of a small class lies in the [`front`], with the first slabs of the other small classes. Its block and its
//! states lie in front of the tables. The part of the region where slab 0 would lie is never opened. Under a limit
//! there is no front, and slab 0 lies in its region.
//!
//! The step from an address to its slot is arithmetic ([`class`](super::class)).
//!
//! The layout is written once, before the first allocation, and then made read-only. Only the size of each region
//! changes later ([`cut`](super::cut)).

use super::class;
use super::front;
use super::look::{LOOKS, Name};
use super::state::{SlotState, StateCell};
use super::store::Slab;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::canary::Key;
use crate::meta::poison;
use crate::rng::Rng;
use crate::sys::guard::Backend;
use crate::sys::vm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Which protections are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protection {
    /// Canaries in the slack.
    pub canary: bool,
    /// Clear at free, check at reuse.
    pub zero: bool,
    /// Compare the families that allocate and free.
    pub mismatch: bool,
}

/// What the fast paths need to know of a class.
#[repr(C, align(64))]
pub struct ClassInfo {
    /// Slot size in bytes.
    pub size: usize,
    /// ceil(2^64 / size): the high half of `offset × reciprocal` is `offset / size`.
    pub(super) reciprocal: u64,
    /// The first byte of slot 0, were it not for the front.
    pub start: usize,
    /// The states of the slots from `front_end` on, and below them the slabs' blocks.
    pub(super) states: *const AtomicU16,
    /// Those of the slots before.
    pub(super) front_states: *const AtomicU16,
    /// log2 of the slot numbers in a slab.
    pub slab_shift: u32,
    /// One past the last slot of a slab that is allocated, counted from the slab's first.
    usable_end: u32,
    /// Slabs from slot 0 to the end of the region, or to where it was cut off.
    pub(super) slabs: AtomicU32,
    /// One past the last slot number that has a state; all have while the region is whole.
    pub(super) end: AtomicU32,
    /// Slot numbers of the slab in the front; 0 if it has none.
    pub front_end: u32,
    /// [`ClassInfo::usable_end`] of the slab in the front, which may be shorter.
    front_usable_end: u32,
}

/// [`ClassInfo::end`] of a whole region. In one of the largest size it leaves out a number: that of the bytes right below
/// slot 0, which is never allocated.
pub(super) const WHOLE: u32 = u32::MAX;

impl ClassInfo {
    /// Slabs that there are address space and a table for.
    pub fn slabs(&self) -> u32 {
        self.slabs.load(Ordering::Relaxed)
    }

    /// Whether a slot number that an address leads to has no state: the region was cut off before it.
    #[inline(always)]
    pub fn is_beyond(&self, slot: u32) -> bool {
        slot >= self.end.load(Ordering::Relaxed)
    }

    /// The class's number.
    fn class(&self) -> usize {
        let first = Addr::of(layout().classes.as_ptr());
        Addr::of(core::ptr::from_ref(self)).offset_from(first).unwrap_or(0) / size_of::<Self>()
    }

    /// Where the state of slot `slot` is.
    #[inline(always)]
    pub fn state(&self, slot: u32) -> StateCell {
        let states = if slot < self.front_end { self.front_states } else { self.states };
        // SAFETY: the tables cover every slot number of the front's slab and of the region, or those below `end`. Slot numbers
        // come from `locate`, which bounds them by both, or from the bitmaps of slabs that were opened.
        StateCell::new(unsafe { &*states.add(slot as usize) })
    }

    /// The state of slot `slot`, whether or not a sweep looks at it or its object has poisoned bytes.
    #[inline]
    pub fn state_of(&self, slot: u32) -> SlotState {
        let state = self.load(slot);
        if state.is_covered() { self.covered_state(slot) } else { state }
    }

    #[cold]
    #[inline(never)]
    fn covered_state(&self, slot: u32) -> SlotState {
        loop {
            let state = match self.load(slot) {
                SlotState::LOOKED => {
                    SlotState::from_bits(LOOKS.state(self.state(slot).word(), Name::of(self.address(slot))))
                }
                state => state,
            };
            if state != SlotState::POISONED {
                return state;
            }
            let saved = self.unpoisoned(slot, state);
            // Else what was saved may be of a later object.
            if matches!(self.load(slot), SlotState::POISONED | SlotState::LOOKED) {
                return saved;
            }
        }
    }

    /// What `state`, slot `slot`'s, stands for if its object has poisoned bytes.
    pub fn unpoisoned(&self, slot: u32, state: SlotState) -> SlotState {
        match state {
            SlotState::POISONED => {
                // The state was saved before it became this one.
                fence(Ordering::Acquire);
                SlotState::from_bits(poison::SLOTS.saved(self.address(slot)))
            }
            other => other,
        }
    }

    /// The state of slot `slot`, loaded: for the fast paths, to which a slot that a sweep looks at is one for the
    /// others.
    #[inline(always)]
    pub fn load(&self, slot: u32) -> SlotState {
        self.state(slot).load()
    }

    /// [`StateCell::store`] for slot `slot`.
    #[inline(always)]
    pub fn store(&self, slot: u32, state: SlotState) {
        self.state(slot).store(state);
    }

    /// [`StateCell::store_busy`] for slot `slot`.
    #[inline(always)]
    pub fn store_busy(&self, slot: u32) {
        self.state(slot).store_busy();
    }

    /// Where the slot numbers are counted from that slot `slot` has, and where slot 0's state would be.
    #[inline(always)]
    pub(super) fn part(&self, slot: u32) -> (usize, *const AtomicU16) {
        match slot < self.front_end {
            true => (front::start(self.class()), self.front_states),
            false => (self.start, self.states),
        }
    }

    /// The states of a slab's slots from its first number on, up to the last that is allocated.
    pub(super) fn states_of(&self, slab: u32) -> &'static [AtomicU16] {
        let first = slab << self.slab_shift;
        let (_, states) = self.part(first);
        // SAFETY: the tables cover every slot number of the front's slab and of the region; slabs lie in one of them.
        unsafe { core::slice::from_raw_parts(states.add(first as usize), self.usable_end(slab) as usize) }
    }

    /// Slab `slab`'s block.
    fn block(&self, slab: u32) -> *const u8 {
        let bytes = (slab as usize + 1) * block_bytes(self.slab_shift);
        let states = if slab == 0 && self.has_front() { self.front_states } else { self.states };
        // SAFETY: below the states the table has a block for each slab of the region, and the front's for the one there.
        unsafe { states.cast::<u8>().sub(bytes) }
    }

    /// Whether slab 0 lies in the front, if anywhere.
    pub fn has_front(&self) -> bool {
        self.front_end != 0
    }

    /// One past the last slot of slab `slab` that is allocated, counted from the slab's first.
    pub fn usable_end(&self, slab: u32) -> u32 {
        if slab == 0 && self.has_front() { self.front_usable_end } else { self.usable_end }
    }

    /// Bytes from slab `slab`'s first slot to the end of its guard page.
    pub fn slab_bytes(&self, slab: u32) -> usize {
        let bytes = self.size << self.slab_shift;
        if slab == 0 && self.has_front() { bytes.min(front::SLAB_BYTES) } else { bytes }
    }

    /// Where the slot numbers are counted from that slot `slot` has.
    #[inline(always)]
    fn origin(&self, slot: u32) -> usize {
        match slot < self.front_end {
            true => front::start(self.class()),
            false => self.start,
        }
    }

    /// Slab `slab`'s record; reached under the class's lock only.
    pub fn record(&self, slab: u32) -> *mut Slab {
        self.block(slab).cast_mut().cast()
    }

    /// Word `word` of slab `slab`'s free bits; changed under the class's lock only.
    pub fn free_bits(&self, slab: u32, word: u32) -> &'static AtomicU64 {
        // SAFETY: the block has a bit for each slot of the slab behind the record.
        unsafe { &*self.block(slab).add(RECORD_BYTES).cast::<AtomicU64>().add(word as usize) }
    }

    /// Slot `slot`'s first byte.
    #[inline(always)]
    pub fn address(&self, slot: u32) -> usize {
        self.origin(slot) + slot as usize * self.size
    }

    /// A slot number that no slab has and a state has: that of the region's last byte.
    pub(super) fn no_slot(&self, layout: &Layout) -> u32 {
        self.slot_at(layout.region_mask)
    }

    /// The slot that contains the byte at `offset` from slot 0.
    #[inline(always)]
    pub fn slot_at(&self, offset: usize) -> u32 {
        self.index_at(offset) as u32
    }

    /// The same as a number of the address space's width.
    #[inline(always)]
    pub fn index_at(&self, offset: usize) -> usize {
        ((offset as u128 * self.reciprocal as u128) >> 64) as usize
    }

    /// The pages of slab `slab`, guard included.
    pub fn slab_span(&self, slab: u32) -> Span {
        let bytes = self.size << self.slab_shift;
        let origin = self.origin(slab << self.slab_shift);
        Span::new(Addr::new(origin + slab as usize * bytes), PageCount::holding(self.slab_bytes(slab)))
    }

    /// The guard page of slab `slab`.
    pub fn guard_span(&self, slab: u32) -> Span {
        let span = self.slab_span(slab);
        Span::new(span.end().minus(PAGE_SIZE), PageCount::new(1))
    }
}

/// The place of everything.
#[repr(C, align(4096))]
pub struct Layout {
    /// The first byte of the front, or where it would be; `usize::MAX` before [`init`], so that nothing is in it.
    pub base: usize,
    /// The length of the regions in bytes; they lie behind the front.
    pub span: usize,
    /// Whether there is a front.
    pub has_front: bool,
    /// log2 of a region's length.
    pub region_shift: u32,
    /// A region's length less one.
    pub region_mask: usize,
    /// The first byte of the regions; `usize::MAX` before [`init`], so that nothing is in them.
    pub regions: usize,
    /// What the fast paths know of the regions, in bytes from the first: those of the small classes, which come first, and
    /// all. Both are 0 when regions were cut: the general paths tell what is left.
    pub(super) fast_spans: [AtomicUsize; 2],
    /// The first byte of the tables.
    pub(super) tables: usize,
    /// How guard pages are made.
    pub backend: Backend,
    /// Which protections are on.
    pub protection: Protection,
    /// The key of the canary words.
    pub key: Key,
    /// By class.
    pub classes: [ClassInfo; class::COUNT],
}

struct Sealed(UnsafeCell<Layout>);

// SAFETY: written by `init` alone, before any other thread can reach the allocator (the heap's start
// gate orders it), and read-only afterwards.
unsafe impl Sync for Sealed {}

#[unsafe(link_section = ".data.rel.ro.sealed")]
static LAYOUT: Sealed = Sealed(UnsafeCell::new(Layout {
    base: usize::MAX,
    span: 0,
    has_front: false,
    region_shift: 36,
    region_mask: (1 << 36) - 1,
    regions: usize::MAX,
    fast_spans: [const { AtomicUsize::new(0) }; 2],
    tables: 0,
    backend: Backend::Mprotect,
    protection: Protection { canary: true, zero: true, mismatch: true },
    key: Key::new(0, 0),
    classes: [const {
        ClassInfo {
            size: 16,
            reciprocal: 0,
            start: usize::MAX,
            states: core::ptr::null(),
            front_states: core::ptr::null(),
            slab_shift: 7,
            usable_end: 0,
            slabs: AtomicU32::new(0),
            end: AtomicU32::new(WHOLE),
            front_end: 0,
            front_usable_end: 0,
        }
    }; class::COUNT],
}));

/// The layout.
#[inline(always)]
pub fn layout() -> &'static Layout {
    // SAFETY: `fill` writes the layout before the start gate opens, and nobody writes it afterwards. Callers
    // passed the gate.
    unsafe { &*LAYOUT.0.get() }
}

/// log2 of the largest region: 64 GiB of slots a class.
const REGION_SHIFT_MAX: u32 = 36;
/// log2 of the smallest where nothing is limited.
const REGION_SHIFT_FREE: u32 = 33;
/// log2 of the smallest: a slab of the small classes; those with larger slabs have none.
const REGION_SHIFT_MIN: u32 = 16;
/// log2 of the smallest where the limit is [`MODEST`] or more.
const REGION_SHIFT_MODEST: u32 = 19;
/// From so many bytes on, a fifth of a limit may be the regions'.
const MODEST: u64 = 256 << 20;

/// What is decided at start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How guard pages are made.
    pub backend: Backend,
    /// Bytes that the process may map in all, if that is limited.
    pub limit: Option<u64>,
    /// Bytes of memory that there are, if that is known.
    pub memory: Option<u64>,
    /// Whether the first slabs of small classes lie together.
    pub front: bool,
    /// Which protections are on.
    pub protection: Protection,
    /// Whether the caller opened the pages of [`constants`] and will close them.
    pub opened: bool,
}

/// log2 of a region where address space is not limited: three quarters of it, what is left at least, are as much as the
/// memory in most cases.
fn free_shift(memory: Option<u64>) -> u32 {
    let ample = |memory: u64| memory.max(1).next_power_of_two().ilog2();
    memory.map_or(REGION_SHIFT_MAX, |memory| ample(memory).clamp(REGION_SHIFT_FREE, REGION_SHIFT_MAX))
}

/// Bytes that [`init`] reserves where address space is not limited, and a little more.
pub fn wanted(memory: Option<u64>) -> usize {
    let shift = free_shift(memory);
    (class::COUNT << shift) + front::BYTES + table_bytes(shift) + (8 << 20)
}

/// Reserves the regions and their tables. `false` if not even the smallest reservation can be had. Called once, at start.
pub fn init(config: Config, rng: &mut Rng) -> bool {
    let most = match config.limit {
        None => free_shift(config.memory),
        // An eighth for the regions.
        Some(limit) => {
            let share = share_of(limit).max(1).ilog2();
            share.max(least_shift(limit))
        }
    };
    let mut shift = most.clamp(REGION_SHIFT_MIN, REGION_SHIFT_MAX);
    // It lies among constants; see `sys::seal`.
    if !config.opened && !vm::commit(constants()) {
        return false;
    }
    while shift >= REGION_SHIFT_MIN {
        if let Some(mapped) = map(shift, config.front) {
            fill(config, shift, mapped, rng);
            return true;
        }
        shift -= 1;
    }
    false
}

/// A class's part of the eighth of a limit that the regions have.
pub(super) const fn share_of(limit: u64) -> u64 {
    limit / 8 / class::COUNT as u64
}

/// log2 of the smallest region where so much may be mapped.
pub(super) const fn least_shift(limit: u64) -> u32 {
    if limit >= MODEST { REGION_SHIFT_MODEST } else { REGION_SHIFT_MIN }
}

/// Where everything was mapped.
struct Mapped {
    /// The front, if there is one, and the regions.
    span: Span,
    /// The regions' tables.
    tables: Addr,
    /// The front's, which lie among other small ones.
    front_tables: Option<Addr>,
}

fn map(shift: u32, front: bool) -> Option<Mapped> {
    let front_tables = if front { Some(vm::tables(front_tables(0).1)?) } else { None };
    let bytes = (class::COUNT << shift) + if front { front::BYTES } else { 0 };
    let tables = vm::sparse_tables(table_bytes(shift))?;
    // Whole units of 2 MiB: see `sys::guard`.
    match vm::reserve(bytes.next_multiple_of(1 << 21), 1 << 21) {
        Some(span) => {
            vm::name(span, c"fencepost slabs");
            Some(Mapped { span, tables, front_tables })
        }
        None => {
            vm::unmap_sparse(tables, table_bytes(shift));
            None
        }
    }
}

/// Whole slabs of class `class` in a region.
fn region_slabs(class: usize, shift: u32) -> usize {
    (1 << shift) / class::slab_bytes(class)
}

/// Bytes at the start of a block that the record has.
const RECORD_BYTES: usize = 32;
const _: () = assert!(size_of::<Slab>() <= RECORD_BYTES && align_of::<Slab>() <= align_of::<u64>());

/// Bytes of a slab's block: the record and a bit for each slot number.
pub(super) const fn block_bytes(slab_shift: u32) -> usize {
    RECORD_BYTES + (1 << (slab_shift - 3))
}

/// Bytes that one page of page tables maps.
const TABLE_SPAN: usize = 1 << 21;
/// log2 of the smallest region whose table may be as long as it takes to begin in the middle of such a span.
const ROOMY_SHIFT: u32 = 30;
/// Where in it the states begin, in the middle of a page.
const STATES_AT: usize = (1 << 20) + PAGE_SIZE / 4;

/// Where the states of class `class` begin and where its table ends, if that begins at `at`.
pub(super) fn table_of(class: usize, shift: u32, at: usize) -> (usize, usize) {
    let blocks = at + region_slabs(class, shift) * block_bytes(class::slab_shift(class));
    let states = match shift >= ROOMY_SHIFT {
        true => blocks.next_multiple_of(TABLE_SPAN) + STATES_AT,
        false => blocks.next_multiple_of(align_of::<ClassInfo>()),
    };
    // One for every number that an address of the region leads to.
    let slots = ((1 << shift) / class::size(class)) + 1;
    (states, (states + slots * 2).next_multiple_of(align_of::<ClassInfo>()))
}

/// Bytes of all tables, if they begin at a multiple of [`TABLE_SPAN`] at worst.
fn table_bytes(shift: u32) -> usize {
    let all = (0..class::COUNT).fold(0, |at, class| table_of(class, shift, at).1);
    if shift >= ROOMY_SHIFT { all + TABLE_SPAN } else { all }
}

/// Where each class's states for the front begin, 0 for none, and where they end, if the first table begins at `at`.
fn front_tables(mut at: usize) -> ([usize; class::COUNT], usize) {
    let mut places = [0; class::COUNT];
    for (class, place) in places.iter_mut().enumerate().filter(|(class, _)| front::is_for(*class)) {
        *place = at + block_bytes(class::slab_shift(class));
        at = (*place + front::slots(class) * size_of::<u16>()).next_multiple_of(align_of::<u64>());
    }
    (places, at)
}

fn fill(config: Config, shift: u32, mapped: Mapped, rng: &mut Rng) {
    // SAFETY: `fill` runs once, before the start gate opens, so no other reference to the layout exists.
    let layout = unsafe { &mut *LAYOUT.0.get() };
    let has_front = mapped.front_tables.is_some();
    let regions = mapped.span.start.get() + if has_front { front::BYTES } else { 0 };
    layout.base = regions.wrapping_sub(front::BYTES);
    layout.has_front = has_front;
    layout.span = class::COUNT << shift;
    layout.region_shift = shift;
    layout.region_mask = (1 << shift) - 1;
    layout.regions = regions;
    layout.fast_spans = [class::SMALL_COUNT, class::COUNT].map(|classes| AtomicUsize::new(classes << shift));
    let (fronts, _) = front_tables(mapped.front_tables.map_or(0, Addr::get));
    layout.tables = mapped.tables.get();
    layout.backend = config.backend;
    layout.protection = config.protection;
    layout.key = Key::new(rng.next_u64(), rng.next_u64());
    let mut table = layout.tables;
    for ((class, info), front) in layout.classes.iter_mut().enumerate().zip(fronts) {
        let slabs = region_slabs(class, shift);
        // In the lowest quarter, so that the rest of the region is left to grow.
        let first = rng.below((slabs as u64 / 4).max(1)) as usize;
        info.size = class::size(class);
        info.reciprocal = (u64::MAX / class::size(class) as u64) + 1;
        info.start = regions + (class << shift) + first * class::slab_bytes(class);
        let (states, end) = table_of(class, shift, table);
        info.states = Addr::new(states).as_ptr();
        info.front_states = Addr::new(front).as_ptr();
        table = end;
        info.slab_shift = class::slab_shift(class);
        info.usable_end = class::usable_end(class) as u32;
        if has_front && front != 0 {
            info.front_end = 1 << class::slab_shift(class);
            info.front_usable_end = ((info.slab_bytes(0) - PAGE_SIZE) / info.size) as u32;
        }
        info.slabs = AtomicU32::new((slabs - first) as u32);
        info.end = AtomicU32::new(WHOLE);
    }
    if !config.opened {
        vm::seal(constants());
    }
}

/// The pages of the layout itself, which are read-only but in [`init`] and where it is cut.
pub fn constants() -> Span {
    let pages = PageCount::holding(core::mem::size_of::<Layout>());
    Span::new(Addr::of(LAYOUT.0.get().cast_const()), pages)
}

/// What tools that look into another process need to know of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassGeometry {
    /// Slot size in bytes.
    pub size: usize,
    /// The first byte of slot 0.
    pub start: usize,
    /// The table of states, two bytes a slot.
    pub states: usize,
    /// Slots from there to the end of the region, whole slabs only.
    pub slots: usize,
    /// Those of the first slots that lie in the front.
    pub front_slots: usize,
    /// The table of their states.
    pub front_states: usize,
}

impl ClassGeometry {
    /// What these bytes of a [`ClassInfo`] say, read from another process.
    pub fn from_bytes(bytes: &[u8; size_of::<ClassInfo>()]) -> Self {
        let number = |at: usize, len: usize| {
            let part = bytes.get(at..at + len).unwrap_or(&[]);
            part.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
        };
        let shift = number(offset_of!(ClassInfo, slab_shift), 4) & 31;
        Self {
            size: number(offset_of!(ClassInfo, size), 8),
            start: number(offset_of!(ClassInfo, start), 8),
            states: number(offset_of!(ClassInfo, states), 8),
            slots: number(offset_of!(ClassInfo, slabs), 4) << shift,
            front_slots: number(offset_of!(ClassInfo, front_end), 4),
            front_states: number(offset_of!(ClassInfo, front_states), 8),
        }
    }
}

/// The layout, made for the process's unit tests.
#[cfg(test)]
pub fn for_tests() -> &'static Layout {
    static MADE: std::sync::Once = std::sync::Once::new();
    let protection = Protection { canary: true, zero: true, mismatch: true };
    let config = Config {
        backend: Backend::Mprotect,
        limit: None,
        memory: None,
        front: false,
        protection,
        opened: false,
    };
    MADE.call_once(|| assert!(init(config, &mut Rng::new())));
    layout()
}

#[cfg(test)]
#[path = "../../tests/unit/layout.rs"]
mod tests;
