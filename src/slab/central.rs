//! The shared store of each class under its lock, and what its slabs ask of the kernel.
//!
//! Thread caches take and return slots in batches under the class's lock, or leave a few for each other
//! ([`depot`](super::depot)). A slab is in the list of
//! its class while it has a free slot. Slabs are opened a few at a time and taken from those at
//! random; system calls are made outside the lock.
//!
//! When a slab has no slot in use it is emptied: its memory goes back to the kernel, unless the class
//! keeps it as one of a few spare ones (about a MiB, or a quarter of the slabs in use).
//!
//! A class's lock may be out of reach, in a signal handler: then there is no slot to be had from it, and what
//! is given is parked ([`parked`]). Whoever may not wait keeps the lock while it opens slabs and releases none,
//! since it might not get the lock again.

use super::cache::BATCH as CACHE_BATCH;
use super::class;
use super::depot::Depot;
use super::layout::{ClassInfo, SlotState, layout};
use super::parked;
use super::store::{BATCH, Batch, Store};
use super::sweep;
use crate::addr::{Addr, PageCount, Span};
use crate::fault::Fault;
use crate::rng::Rng;
use crate::sync::{Guard, Lock, Patience, is_impatient};
use crate::sys::guard::Backend;
use crate::sys::{limits, vm};
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

#[repr(align(128))]
struct Padded(Lock<Store>);

static STORES: [Padded; class::COUNT] = [const { Padded(Lock::new(Store::NEW)) }; class::COUNT];

/// Batches of a class that wait for a thread at most.
const WAITING: usize = 4;

/// A class's batches on their way from thread to thread.
type Batches = Depot<WAITING, CACHE_BATCH>;

/// The table of them, by class.
static BATCHES: AtomicPtr<Batches> = AtomicPtr::new(core::ptr::null_mut());

fn batches(class: usize) -> Option<&'static Batches> {
    let table = BATCHES.load(Ordering::Relaxed);
    // SAFETY: the table, once it is there, has one for each class, and zero bytes are a valid one.
    (class < class::COUNT && !table.is_null()).then(|| unsafe { &*table.add(class) })
}

/// Slabs with guard pages under the `mprotect` backend, where each costs mappings.
static GUARDED: AtomicU32 = AtomicU32::new(0);
/// How many of those there may be; see [`init`].
static GUARDED_MAX: AtomicU32 = AtomicU32::new(0);

/// Maps the depots. Called once, at start.
pub fn init() {
    let depots = vm::tables(class::COUNT * size_of::<Batches>());
    BATCHES.store(depots.map_or(core::ptr::null_mut(), Addr::as_ptr), Ordering::Relaxed);
    let quarter = limits::max_map_count() / 8;
    GUARDED_MAX.store(u32::try_from(quarter).unwrap_or(u32::MAX), Ordering::Relaxed);
}

/// Takes up to `out.len()` free slots of a class, in no particular order; how many it took. 0 when
/// the region is full, the kernel grants no memory or the lock is out of reach.
pub fn take(class: usize, out: &mut [u32], rng: &mut Rng) -> usize {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return 0;
    };
    let (mut taken, mut exhausted) = (0, false);
    while let Some(rest) = out.get_mut(taken..).filter(|rest| !rest.is_empty()) {
        let Some(mut store) = padded.0.enter() else { break };
        if !exhausted && store.wants_slab(info) && !store.use_pending(info, rng) {
            exhausted = !open_more(padded, info, store);
            continue;
        }
        match store.take(info, rest) {
            0 => break,
            some => taken += some,
        }
    }
    taken
}

/// Opens slabs outside the lock, unless it might not be had again; `false` if there are none to be had.
fn open_more(padded: &'static Padded, info: &ClassInfo, mut store: Guard<'_, Store>) -> bool {
    let Some(batch) = store.plan(info) else { return false };
    let kept = is_impatient().then_some(store);
    let opened = open(info, &batch);
    let Some(mut store) = kept.or_else(|| padded.0.enter()) else { return false };
    match opened {
        true => store.add_pending(info, &batch),
        false => store.take_back(&batch),
    }
    opened
}

/// Takes a batch that a thread gave, if there is one that fits; how many slots it has.
pub fn take_batch(class: usize, out: &mut [u32]) -> usize {
    batches(class).map_or(0, |depot| depot.take(out))
}

/// Gives a batch for the next thread that needs one; `false` if there are enough.
pub fn give_batch(class: usize, slots: &[u32]) -> bool {
    batches(class).is_some_and(|depot| depot.put(slots))
}

/// Gives slots back. The memory of a slab that this leaves empty may go back to the kernel; what is
/// found written in it then is returned.
pub fn give(class: usize, slots: &[u32]) -> Result<(), Fault> {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return Ok(());
    };
    let mut found = Ok(());
    let mut rest = slots;
    let keep = is_impatient();
    while !rest.is_empty() {
        let mut emptied = None;
        let Some(mut store) = padded.0.enter() else {
            parked::add(class, rest);
            break;
        };
        while let (Some((slot, tail)), None) = (rest.split_first(), emptied) {
            rest = tail;
            emptied = store.give(info, *slot, keep);
        }
        drop(store);
        if let Some(slab) = emptied {
            found = found.and(release(info, slab));
            link(padded, info, slab);
        }
    }
    found
}

/// Whether something is parked.
#[inline]
pub fn any_parked() -> bool {
    parked::len() != 0
}

/// Gives back what is parked, unless the lock of its class is still out of reach.
pub fn give_parked() -> Result<(), Fault> {
    let mut found = Ok(());
    while let Some((class, slot)) = parked::pop() {
        let left = parked::len();
        found = found.and(give(class as usize, &[slot]));
        if parked::len() > left {
            break;
        }
    }
    found
}

/// Puts a slab that was taken out of the list into it again.
fn link(padded: &Padded, info: &ClassInfo, slab: u32) {
    if let Some(mut store) = padded.0.enter() {
        store.link(info, slab);
    }
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

/// Calls `visit` with the slots of every slab of a class that may have been handed out, until it returns `false`.
/// Slabs come and go meanwhile; their states stay readable.
pub fn each_slab(class: usize, mut visit: impl FnMut(&'static ClassInfo, Range<u32>) -> bool) {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return;
    };
    let Some(opened) = padded.0.enter().map(|store| store.opened) else { return };
    for slab in 0..opened {
        let Some(slots) = padded.0.enter().map(|mut store| store.handed_out(info, slab)) else { return };
        if !slots.is_empty() && !visit(info, slots) {
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
    let store = STORES.get(class).and_then(|padded| padded.0.enter());
    store.map_or(Held::default(), |store| Held { active: store.active, spare: store.spare })
}

/// Gives the memory of all spare slabs back to the kernel; how many that were, and what was found written
/// in one.
pub fn trim(class: usize) -> (usize, Result<(), Fault>) {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return (0, Ok(()));
    };
    let (mut released, mut found) = (0, Ok(()));
    let mut waiting = [0; CACHE_BATCH];
    for _ in 0..WAITING {
        let count = take_batch(class, &mut waiting);
        found = found.and(waiting.get(..count).map_or(Ok(()), |slots| give(class, slots)));
    }
    loop {
        let mut batch = [0; BATCH];
        let count = padded.0.enter().map_or(0, |mut store| store.take_spare(info, &mut batch));
        for slab in batch.iter().take(count) {
            found = found.and(release(info, *slab));
            link(padded, info, *slab);
        }
        released += count;
        if count == 0 {
            return (released, found);
        }
    }
}

/// Runs `action` with the slabs of a class that were opened so far, none of which is opened meanwhile; `None` if the
/// class's lock is out of reach.
pub fn with_opened<R>(class: usize, action: impl FnOnce(u32) -> R) -> Option<R> {
    let store = STORES.get(class)?.0.enter()?;
    Some(action(store.opened))
}

pub use parked::{hold as hold_quiet, release as release_quiet};

/// Takes every lock that is to be had, for `fork`, but for that of [`hold_quiet`].
pub fn hold_all(patience: &mut Patience) {
    for store in &STORES {
        store.0.hold(patience);
    }
}

/// Takes [`hold_all`] back.
pub fn release_all() {
    for store in &STORES {
        store.0.release();
    }
}

/// [`release_all`] in a forked child, which puts in order what another thread was in the middle of.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit_all() {
    for (store, info) in STORES.iter().zip(&layout().classes) {
        // SAFETY: as the caller says.
        unsafe { store.0.inherit(|store| store.rebuild(info)) };
    }
}

/// Releases what the calling thread has, and puts in order what it was in the middle of.
///
/// # Safety
/// As [`Lock::abandon`].
pub unsafe fn abandon_all() {
    for (store, info) in STORES.iter().zip(&layout().classes) {
        // SAFETY: as the caller says.
        unsafe { store.0.abandon(|store| store.rebuild(info)) };
    }
}
