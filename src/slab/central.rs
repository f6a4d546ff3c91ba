//! The shared store of each class: its slabs and which of their slots are free.
//!
//! Thread caches take and return slots in batches under the class's lock. A slab is in the list of
//! its class while it has a free slot. Slabs are opened a few at a time and taken from those at
//! random; system calls are made outside the lock.
//!
//! When a slab has no slot in use it is emptied: its memory goes back to the kernel, unless the class
//! keeps it as one of a few spare ones (about a MiB, or a quarter of the slabs in use).

use super::class;
use super::layout::{ClassInfo, SlotState, layout};
use super::sweep;
use crate::addr::{PageCount, Span};
use crate::fault::Fault;
use crate::rng::Rng;
use crate::sync::Lock;
use crate::sys::guard::Backend;
use crate::sys::{limits, vm};
use core::sync::atomic::{AtomicU32, Ordering};

/// Slabs opened at once at most.
const BATCH: usize = 16;
/// About how many bytes are opened at once.
const BATCH_BYTES: usize = 1 << 20;
/// About how many bytes of empty slabs a class keeps, and one slab at least.
const SPARE_BYTES: usize = 1 << 20;
/// Opened slabs that wait for use at most.
const PENDING: usize = 2 * BATCH;

/// A slab's record, in a table by slab number.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Slab {
    /// Free slots, those in caches excluded.
    free: u32,
    /// Neighbours in the list of slabs with free slots: slab number plus one, 0 for none.
    next: u32,
    previous: u32,
    /// Whether slots were taken since it was opened or emptied.
    used: bool,
}

/// One class's store.
struct Store {
    slabs: *mut Slab,
    /// First slab with a free slot, plus one.
    head: u32,
    /// Slabs opened so far.
    opened: u32,
    /// Opened and never used.
    pending: [u32; PENDING],
    pending_len: usize,
    /// Slabs that hold memory: in use or spare.
    active: u32,
    /// Slabs without a slot in use that keep their memory.
    spare: u32,
}

// SAFETY: the pointer is to the class's own table, reached under the lock only.
unsafe impl Send for Store {}

#[repr(align(128))]
struct Padded(Lock<Store>);

static STORES: [Padded; class::COUNT] = [const {
    Padded(Lock::new(Store {
        slabs: core::ptr::null_mut(),
        head: 0,
        opened: 0,
        pending: [0; PENDING],
        pending_len: 0,
        active: 0,
        spare: 0,
    }))
}; class::COUNT];

/// Slabs with guard pages under the `mprotect` backend, where each costs mappings.
static GUARDED: AtomicU32 = AtomicU32::new(0);
/// How many of those there may be; see [`init`].
static GUARDED_MAX: AtomicU32 = AtomicU32::new(0);

/// Maps the tables of slab records; `false` if the kernel refuses. Called once, at start.
pub fn init() -> bool {
    let infos = &layout().classes;
    let total: usize = infos.iter().map(|info| info.end_slab as usize).sum();
    let Some(table) = vm::sparse_tables((total + 1) * core::mem::size_of::<Slab>()) else {
        return false;
    };
    let mut at = table.as_ptr::<Slab>();
    for (store, info) in STORES.iter().zip(infos) {
        store.0.lock().slabs = at;
        // SAFETY: the table has room for every class's slabs.
        at = unsafe { at.add(info.end_slab as usize) };
    }
    let quarter = limits::max_map_count() / 8;
    GUARDED_MAX.store(u32::try_from(quarter).unwrap_or(u32::MAX), Ordering::Relaxed);
    true
}

/// Takes up to `out.len()` free slots of a class, in no particular order; how many it took. 0 when
/// the region is full or the kernel grants no memory.
pub fn take(class: usize, out: &mut [u32], rng: &mut Rng) -> usize {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return 0;
    };
    let mut taken = 0;
    while taken < out.len() {
        let mut store = padded.0.lock();
        if store.head == 0 && !store.use_pending(info, rng) {
            let batch = store.plan(info);
            drop(store);
            let Some(batch) = batch else { break };
            if !open(info, &batch) {
                padded.0.lock().take_back(info, &batch);
                break;
            }
            padded.0.lock().add_pending(info, &batch);
            continue;
        }
        let Some(rest) = out.get_mut(taken..) else { break };
        taken += store.take_from_head(info, rest);
    }
    taken
}

/// Gives slots back. The memory of a slab that this leaves empty may go back to the kernel; what is
/// found written in it then is returned.
pub fn give(class: usize, slots: &[u32]) -> Result<(), Fault> {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return Ok(());
    };
    let mut found = Ok(());
    let mut rest = slots;
    while !rest.is_empty() {
        let mut emptied = None;
        let mut store = padded.0.lock();
        while let (Some((slot, tail)), None) = (rest.split_first(), emptied) {
            rest = tail;
            emptied = store.give(info, *slot);
        }
        drop(store);
        if let Some(slab) = emptied {
            found = found.and(release(info, slab));
            padded.0.lock().link(slab);
        }
    }
    found
}

/// Checks an empty slab, which is in no list, and gives its memory back.
fn release(info: &'static ClassInfo, slab: u32) -> Result<(), Fault> {
    let checked = sweep::check_freed(info, slab);
    let first = slab << info.slab_shift;
    for slot in first + 1..first + info.usable_end {
        if info.load(slot).is_freed() {
            info.store(slot, SlotState::RELEASED);
        }
    }
    let span = info.slab_span(slab);
    let pages = PageCount::new(span.pages.get() - 1);
    vm::release(Span::new(span.start, pages));
    checked
}

/// Opens slabs: commits them and closes the guard page at the end of each.
fn open(info: &ClassInfo, batch: &Batch) -> bool {
    let (first, last) = (info.slab_span(batch.first), info.slab_span(batch.first + batch.count - 1));
    let bytes = last.end().offset_from(first.start).unwrap_or(0);
    if !vm::commit(Span::new(first.start, PageCount::holding(bytes))) {
        return false;
    }
    for slab in batch.first..batch.first + batch.count {
        let affordable = match layout().backend {
            Backend::Madvise => true,
            Backend::Mprotect => {
                GUARDED.fetch_add(1, Ordering::Relaxed) < GUARDED_MAX.load(Ordering::Relaxed)
            }
        };
        // A guard that cannot be had leaves the canaries, which every slot has anyway.
        let _ = affordable && layout().backend.close(info.guard_span(slab));
    }
    true
}

/// Calls `visit` with every slab of a class that was ever used, until it returns `false`. Slabs come
/// and go meanwhile; their states stay readable.
pub fn each_slab(class: usize, mut visit: impl FnMut(&'static ClassInfo, u32) -> bool) {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return;
    };
    let opened = padded.0.lock().opened;
    for slab in info.first_slab..info.first_slab.saturating_add(opened) {
        if !visit(info, slab) {
            return;
        }
    }
}

/// How many slabs of a class hold memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// All of them.
    pub active: u32,
    /// Those without a slot in use.
    pub spare: u32,
}

/// How many slabs of a class hold memory.
pub fn held(class: usize) -> Held {
    STORES.get(class).map_or(Held::default(), |padded| {
        let store = padded.0.lock();
        Held { active: store.active, spare: store.spare }
    })
}

/// Gives the memory of all spare slabs back to the kernel; how many that were, and what was found written
/// in one.
pub fn trim(class: usize) -> (usize, Result<(), Fault>) {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return (0, Ok(()));
    };
    let (mut released, mut found) = (0, Ok(()));
    loop {
        let mut batch = [0; BATCH];
        let count = padded.0.lock().take_spare(info, &mut batch);
        for slab in batch.iter().take(count) {
            found = found.and(release(info, *slab));
            padded.0.lock().link(*slab);
        }
        released += count;
        if count == 0 {
            return (released, found);
        }
    }
}

/// Takes every lock, for `fork`.
pub fn lock_all() {
    for store in &STORES {
        core::mem::forget(store.0.lock());
    }
}

/// Releases every lock after [`lock_all`], in parent and child.
///
/// # Safety
/// The calling thread, or the thread it is the copy of, holds them all.
pub unsafe fn unlock_all() {
    for store in &STORES {
        // SAFETY: held, as the caller says.
        unsafe { store.0.force_unlock() };
    }
}

impl Store {
    fn slab(&mut self, slab: u32) -> &mut Slab {
        // SAFETY: slab numbers come from the region's own numbering, which the table covers.
        unsafe { &mut *self.slabs.add(slab as usize) }
    }

    /// The slabs to open next, fewer than asked for at the end of the region.
    fn plan(&mut self, info: &ClassInfo) -> Option<Batch> {
        let slab_bytes = info.size << info.slab_shift;
        let count = (BATCH_BYTES / slab_bytes).clamp(1, BATCH) as u32;
        let first = info.first_slab.checked_add(self.opened)?;
        let count = count.min(info.end_slab.checked_sub(first)?);
        if count == 0 {
            return None;
        }
        self.opened += count;
        Some(Batch { first, count })
    }

    /// Forgets slabs that could not be opened, if none were planned after them.
    fn take_back(&mut self, info: &ClassInfo, batch: &Batch) {
        if info.first_slab + self.opened == batch.first + batch.count {
            self.opened -= batch.count;
        }
    }

    fn add_pending(&mut self, info: &ClassInfo, batch: &Batch) {
        for slab in batch.first..batch.first + batch.count {
            match self.pending.get_mut(self.pending_len) {
                Some(place) => {
                    *place = slab;
                    self.pending_len += 1;
                }
                // Several threads opened at once: what does not fit is used right away.
                None => self.activate(info, slab),
            }
        }
    }

    /// Puts one of the opened slabs to use, chosen at random; `false` if there is none.
    fn use_pending(&mut self, info: &ClassInfo, rng: &mut Rng) -> bool {
        let Some(last) = self.pending_len.checked_sub(1) else {
            return false;
        };
        let chosen = rng.below(self.pending_len as u64) as usize;
        self.pending.swap(chosen.min(last), last);
        self.pending_len = last;
        let slab = self.pending.get(last).copied().unwrap_or(0);
        self.activate(info, slab);
        true
    }

    /// Puts a slab that was never used into the list, all its slots free.
    fn activate(&mut self, info: &ClassInfo, slab: u32) {
        for word in 0..words(info) {
            info.free_bits(slab, word).store(usable_bits(info, word), Ordering::Relaxed);
        }
        self.slab(slab).free = info.usable_end - 1;
        self.link(slab);
    }

    /// Takes free slots of the first slab in the list, lowest addresses first: which of them is handed
    /// out when is the batch's choice, and what is in use stays close together.
    fn take_from_head(&mut self, info: &ClassInfo, out: &mut [u32]) -> usize {
        let Some(slab) = self.head.checked_sub(1) else {
            return 0;
        };
        if self.slab(slab).free == info.usable_end - 1 {
            match core::mem::replace(&mut self.slab(slab).used, true) {
                true => self.spare = self.spare.saturating_sub(1),
                false => self.active += 1,
            }
        }
        let mut taken = 0;
        for word in 0..words(info) {
            let bits = info.free_bits(slab, word);
            let mut free = bits.load(Ordering::Relaxed);
            while free != 0
                && let Some(place) = out.get_mut(taken)
            {
                *place = (slab << info.slab_shift) + word * 64 + free.trailing_zeros();
                free &= free - 1;
                taken += 1;
            }
            bits.store(free, Ordering::Relaxed);
            if taken == out.len() {
                break;
            }
        }
        let record = self.slab(slab);
        record.free = record.free.saturating_sub(taken as u32);
        if record.free == 0 || taken == 0 {
            self.unlink(slab);
        }
        taken
    }

    /// Marks a slot free. The slab, taken out of the list, if it is empty now and no spare one is
    /// wanted: the caller releases its memory and links it again.
    fn give(&mut self, info: &ClassInfo, slot: u32) -> Option<u32> {
        let slab = slot >> info.slab_shift;
        let index = slot & ((1 << info.slab_shift) - 1);
        let bits = info.free_bits(slab, index / 64);
        let old = bits.load(Ordering::Relaxed);
        if old & (1 << (index % 64)) != 0 {
            return None;
        }
        bits.store(old | 1 << (index % 64), Ordering::Relaxed);
        let record = self.slab(slab);
        record.free += 1;
        let free = record.free;
        if free == 1 {
            self.link(slab);
        }
        if free < info.usable_end - 1 {
            return None;
        }
        if self.spare < (self.active / 4).max(spare_slabs(info)) {
            self.spare += 1;
            return None;
        }
        self.unlink(slab);
        self.slab(slab).used = false;
        self.active = self.active.saturating_sub(1);
        Some(slab)
    }

    /// Takes spare slabs out of the list, as [`Store::give`] does; how many.
    fn take_spare(&mut self, info: &ClassInfo, out: &mut [u32]) -> usize {
        let mut taken = 0;
        let mut next = self.head;
        while let (Some(slab), Some(place)) = (next.checked_sub(1), out.get_mut(taken)) {
            let Slab { free, used, .. } = *self.slab(slab);
            next = self.slab(slab).next;
            if used && free == info.usable_end - 1 {
                self.unlink(slab);
                self.slab(slab).used = false;
                self.active = self.active.saturating_sub(1);
                self.spare = self.spare.saturating_sub(1);
                *place = slab;
                taken += 1;
            }
        }
        taken
    }

    fn link(&mut self, slab: u32) {
        let head = self.head;
        if head != 0 {
            self.slab(head - 1).previous = slab + 1;
        }
        let record = self.slab(slab);
        record.next = head;
        record.previous = 0;
        self.head = slab + 1;
    }

    fn unlink(&mut self, slab: u32) {
        let Slab { next, previous, .. } = *self.slab(slab);
        if next != 0 {
            self.slab(next - 1).previous = previous;
        }
        match previous {
            0 => self.head = next,
            previous => self.slab(previous - 1).next = next,
        }
    }
}

/// Slabs with consecutive numbers.
struct Batch {
    first: u32,
    count: u32,
}

/// How many empty slabs of a class keep their memory however few are in use.
fn spare_slabs(info: &ClassInfo) -> u32 {
    1 + (SPARE_BYTES / (info.size << info.slab_shift)) as u32
}

/// Words of a slab's bitmap.
fn words(info: &ClassInfo) -> u32 {
    1 << (info.slab_shift - 6)
}

/// The bits of word `word` whose slots are handed out: not the first, not those in the guard.
fn usable_bits(info: &ClassInfo, word: u32) -> u64 {
    let below = |end: u32| match end.saturating_sub(word * 64) {
        0 => 0,
        bits @ 1..64 => (1 << bits) - 1,
        _ => u64::MAX,
    };
    below(info.usable_end) & !below(1)
}
