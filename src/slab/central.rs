//! The central store of each class, under the class's lock, and the system calls that its slabs need.
//!
//! A thread's cache refills from the store when the quarantine has no slots for it. The quarantine flushes slots back
//! to the store. A slab is in the list of its class while it has a free slot. Slabs are opened a few at a time, and one
//! of the opened ones is chosen at random. System calls are made outside the lock.
//!
//! A slab without a slot in use is emptied: its memory goes back to the kernel, unless the class keeps the slab as one
//! of a few spare ones (about a MiB, or a quarter of the slabs in use).
//!
//! A signal handler may find a class's lock out of reach. Then it gets no slot of the class, and slots that it flushes
//! are [`deferred`]. A thread that only tries locks ([`only_tries`]) keeps this one while it opens slabs, and releases
//! no slab: it might not get the lock again.
//!
//! A forked child, and a thread that ends inside, rebuild the list and the counts from the bitmaps. A bitmap changes a
//! word at a time, under the lock, so no cache holds a slot whose bit is set.

use super::layout::{ClassInfo, layout};
use super::misuse::twice_freed;
use super::state::{SlotState, StateCell};
use super::store::{OPEN_MAX, SPREAD, SlabRun, Store};
use super::{class, deferred, front, sweep};
use crate::addr::{PageCount, Span};
use crate::fault::Fault;
use crate::rng::Rng;
use crate::sync::{Guard, Lock, Rank, only_tries};
use crate::sys::guard::Backend;
use crate::sys::{machine, vm};
use core::ops::Range;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

#[repr(align(128))]
struct Padded(Lock<Store>);

static STORES: [Padded; class::COUNT] = [const { Padded(Lock::new(Rank::Store, Store::NEW)) }; class::COUNT];

/// By class, how many slabs are open, to be read without the lock.
static OPENED: [AtomicU32; class::COUNT] = [const { AtomicU32::new(0) }; class::COUNT];

/// Slabs with guard pages under the `mprotect` backend, where each costs mappings.
static GUARDED: AtomicU32 = AtomicU32::new(0);
/// How many of those there may be; see [`init`].
static GUARDED_MAX: AtomicU32 = AtomicU32::new(0);

/// Finds out how many mappings there may be, where slabs take some. Called once, at start.
pub fn init(backend: Backend) {
    if backend.costs_mappings() {
        machine::look_at_mappings();
    }
    let quarter = machine::max_map_count() / 8;
    GUARDED_MAX.store(u32::try_from(quarter).unwrap_or(u32::MAX), Ordering::Relaxed);
}

/// Takes up to `out.len()` free slots of a class for a thread of `home`, in no particular order; how many it took. 0 when
/// the region is full, the kernel grants no memory or the lock is out of reach.
pub fn refill(class: usize, home: usize, out: &mut [u32], rng: &mut Rng) -> usize {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else {
        return 0;
    };
    let (mut taken, mut exhausted) = (0, false);
    while let Some(rest) = out.get_mut(taken..).filter(|rest| !rest.is_empty()) {
        let Some(mut store) = padded.0.enter() else { break };
        if !exhausted
            && store.wants_slab(info, home)
            && !store.take_over(info, home, SPREAD)
            && !store.use_pending(info, home, rng)
        {
            exhausted = !open_more(class, home, padded, info, store, rng);
            continue;
        }
        match store.allocate(info, home, rest) {
            0 if store.take_over(info, home, 0) => (),
            0 => break,
            some => taken += some,
        }
    }
    taken
}

/// Opens the first slabs of each class that has none, as far as the kernel grants them.
pub fn open_all(rng: &mut Rng) {
    for (class, opened) in OPENED.iter().enumerate() {
        let mut slot = [0];
        if opened.load(Ordering::Relaxed) == 0 && refill(class, 0, &mut slot, rng) != 0 {
            flush(class, &slot, &mut None);
        }
    }
}

/// Opens slabs outside the lock, unless it might not be had again; `false` if there are none to be had.
fn open_more(
    class: usize,
    home: usize,
    padded: &'static Padded,
    info: &ClassInfo,
    mut store: Guard<'_, Store>,
    rng: &mut Rng,
) -> bool {
    let Some(run) = store.plan(info) else { return false };
    let in_front = run.first == 0 && info.has_front();
    let kept = only_tries().then_some(store);
    let opened = if in_front { front::open(class, info, rng) } else { open(info, &run) };
    let Some(mut store) = kept.or_else(|| padded.0.enter()) else { return false };
    match opened {
        true => store.add_pending(info, &run, home),
        // The region has others.
        false if in_front => (),
        false => store.cancel(&run),
    }
    if let Some(opened) = OPENED.get(class) {
        opened.store(store.opened, Ordering::Relaxed);
    }
    opened || in_front
}

/// Gives slots back. The memory of a slab that this leaves empty may go back to the kernel; what is wrong in it then
/// goes to `found`, unless something is there, here and below.
pub fn flush(class: usize, slots: &[u32], found: &mut Option<Fault>) {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else { return };
    let mut rest = slots;
    let keep = only_tries();
    while !rest.is_empty() {
        let mut emptied = None;
        let Some(mut store) = padded.0.enter() else {
            deferred::add(class, rest);
            break;
        };
        while let (Some((slot, tail)), None) = (rest.split_first(), emptied) {
            rest = tail;
            emptied = store.free(info, *slot, keep);
        }
        drop(store);
        if let Some(slab) = emptied {
            release(info, slab, found);
            link(padded, info, slab);
        }
    }
}

/// Whether something is deferred.
#[inline]
pub fn any_deferred() -> bool {
    deferred::len() != 0
}

/// Gives back what is deferred, unless the lock of its class is still out of reach.
pub fn flush_deferred(found: &mut Option<Fault>) {
    while let Some((class, slot)) = deferred::pop() {
        let left = deferred::len();
        flush(class as usize, &[slot], found);
        if deferred::len() > left {
            break;
        }
    }
}

/// Puts a slab that was taken out of the list into it again.
fn link(padded: &Padded, info: &ClassInfo, slab: u32) {
    if let Some(mut store) = padded.0.enter() {
        store.link(info, slab);
    }
}

/// Checks an empty slab, which is in no list, and gives its memory back. A slot of it may be in use all the same: if two
/// threads freed one object at the same moment it was given twice. Then the memory stays.
fn release(info: &'static ClassInfo, slab: u32, found: &mut Option<Fault>) {
    let first = slab << info.slab_shift;
    let states = info.states_of(slab);
    let load = |word: &AtomicU16| SlotState::from_bits(word.load(Ordering::Relaxed));
    for (number, word) in states.iter().enumerate().skip(1) {
        let state = load(word);
        if state.is_freed() || state.is_untouched() {
            continue;
        }
        let slot = first + number as u32;
        let state = info.state_of(slot);
        if state.is_live() || state == SlotState::BUSY {
            found.get_or_insert_with(|| twice_freed(info, slot));
            return;
        }
    }
    sweep::check_freed(info, slab, found);
    for word in states.iter().skip(1).filter(|word| load(word).is_freed()) {
        StateCell::new(word).store(SlotState::RELEASED);
    }
    let span = info.slab_span(slab);
    let pages = PageCount::new(span.pages.get() - 1);
    vm::release(Span::new(span.start, pages));
}

/// Opens slabs: commits them and closes the guard page at the end of each.
fn open(info: &ClassInfo, run: &SlabRun) -> bool {
    let (first, last) = (info.slab_span(run.first), info.slab_span(run.first + run.count - 1));
    let bytes = last.end().offset_from(first.start).unwrap_or(0);
    if !vm::commit(Span::new(first.start, PageCount::holding(bytes))) {
        return false;
    }
    for slab in run.first..run.first + run.count {
        let affordable = match layout().backend {
            Backend::Madvise => true,
            Backend::Mprotect => {
                GUARDED.fetch_add(1, Ordering::Relaxed) < GUARDED_MAX.load(Ordering::Relaxed)
                    && machine::take_islands(1)
            }
        };
        // A guard that cannot be had leaves the canaries, which every slot has anyway.
        let _ = affordable && layout().backend.close(info.guard_span(slab));
    }
    true
}

/// The slots of a slab that may have been allocated; `None` past the last slab that is open. Slabs come and go
/// meanwhile; their states stay readable.
pub fn handed_out(class: usize, slab: u32) -> Option<Range<u32>> {
    // Without the lock, whose page is touched for the first time otherwise in a process that has none.
    if slab >= OPENED.get(class)?.load(Ordering::Relaxed) {
        return None;
    }
    let (padded, info) = (STORES.get(class)?, layout().classes.get(class)?);
    let mut store = padded.0.enter()?;
    (slab < store.opened).then(|| store.handed_out(info, slab))
}

/// The slots of every slab of a class that is open. No lock is taken: for when all other threads stand still.
pub fn opened_slots(class: usize) -> impl Iterator<Item = u32> {
    let info = layout().classes.get(class);
    let slabs = OPENED.get(class).map_or(0, |opened| opened.load(Ordering::Relaxed));
    info.into_iter().flat_map(move |info| {
        (0..slabs).flat_map(|slab| {
            let first = slab << info.slab_shift;
            first + 1..first + info.usable_end(slab)
        })
    })
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

/// Gives the memory of all spare slabs back to the kernel; how many that were.
pub fn trim(class: usize, found: &mut Option<Fault>) -> usize {
    let (Some(padded), Some(info)) = (STORES.get(class), layout().classes.get(class)) else { return 0 };
    let mut released = 0;
    loop {
        let mut run = [0; OPEN_MAX];
        let count = padded.0.enter().map_or(0, |mut store| store.take_spare(info, &mut run));
        for slab in run.iter().take(count) {
            release(info, *slab, found);
            link(padded, info, *slab);
        }
        released += count;
        if count == 0 {
            return released;
        }
    }
}

/// Runs `action` with the slabs of a class that were opened so far, none of which is opened meanwhile; `None` if the
/// class's lock is out of reach.
pub fn with_opened<R>(class: usize, action: impl FnOnce(u32) -> R) -> Option<R> {
    let store = STORES.get(class)?.0.enter()?;
    Some(action(store.opened))
}

/// In a forked child: releases what other threads had, and puts in order what they were in the middle of.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit_all() {
    // SAFETY: as the caller says.
    unsafe { deferred::inherit() };
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

#[cfg(test)]
mod tests {
    use super::super::state::SlotState;
    use super::super::{canary, layout};
    use super::*;
    use crate::addr::Addr;
    use crate::fault::Kind;
    use crate::request::Origin;

    /// The first slab of a class that no other test uses, with memory, its slots 1 and 2 freed.
    fn freed_in(class: usize) -> &'static ClassInfo {
        let layout = layout::for_tests();
        let info = layout.classes.get(class).expect("a class");
        assert!(vm::commit(info.slab_span(0)));
        for slot in [1, 2] {
            let end = info.address(slot) + info.size;
            // SAFETY: the slab was just committed, and nobody else uses it.
            unsafe { canary::set(Addr::new(end - 8).as_ptr(), canary::word(&layout.key, end)) };
            info.store(slot, SlotState::live(class::TAIL, Origin::Malloc).freed());
        }
        info
    }

    fn byte(info: &ClassInfo, slot: u32) -> *mut u8 {
        Addr::new(info.address(slot)).as_ptr()
    }

    /// Before a slab's memory goes, its freed slots are looked at.
    #[test]
    fn an_emptied_slab_is_looked_at() {
        let info = freed_in(34);
        let mut found = None;
        // SAFETY: slot 2 lies in the slab that was committed, which is this test's alone.
        unsafe { byte(info, 2).write(1) };
        release(info, 0, &mut found);
        let fault = found.expect("a byte was written");
        assert_eq!((fault.kind, fault.address.get()), (Kind::WriteAfterFree, info.address(2)));
        assert_eq!([1, 2].map(|slot| info.state_of(slot)), [SlotState::RELEASED; 2]);
        // SAFETY: the slab's memory stays accessible.
        assert_eq!(unsafe { byte(info, 2).read() }, 0, "its memory is gone");
        [1, 2].into_iter().for_each(|slot| info.store(slot, SlotState::FRESH));
    }

    /// A slot that was given back twice may have an owner: then the memory stays.
    #[test]
    fn a_slab_with_a_slot_in_use_is_not_emptied() {
        let info = freed_in(35);
        info.store(2, SlotState::live(class::TAIL, Origin::Malloc));
        // SAFETY: slot 2 lies in the slab that was committed, which is this test's alone.
        unsafe { byte(info, 2).write(7) };
        let mut found = None;
        release(info, 0, &mut found);
        assert_eq!(found.map(|fault| fault.kind), Some(Kind::DoubleFree));
        // SAFETY: as for the write.
        assert_eq!(unsafe { byte(info, 2).read() }, 7, "its memory is there");
        assert!(vm::release(info.slab_span(0)));
        [1, 2].into_iter().for_each(|slot| info.store(slot, SlotState::FRESH));
    }

    /// Says that this process runs one test alone.
    const ALONE: &str = "FENCEPOST_TEST_ALONE";

    /// Frees that cannot have the class's lock wait, and the next thread that comes by gives them back. In a process of its own,
    /// where no other test's thread comes by.
    #[test]
    fn what_could_not_be_given_back_is_given_back_later() {
        const CLASS: usize = 36;
        if std::env::var_os(ALONE).is_none() {
            let this = std::env::current_exe().expect("the system knows which file this is");
            let mut command = std::process::Command::new(this);
            command.args(["what_could_not_be_given_back", "--nocapture"]).env(ALONE, "1");
            let output = command.output().expect("the test runs");
            let said = std::string::String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let info = layout::for_tests().classes.get(CLASS).expect("a class");
        let (mut slots, mut found) = ([0; 3], None);
        assert_eq!(refill(CLASS, 0, &mut slots, &mut Rng::new()), slots.len());
        let taken = STORES.get(CLASS).and_then(|store| store.0.enter()).expect("nobody has it");
        flush(CLASS, &slots, &mut found);
        let (slab, index) = (slots[0] >> info.slab_shift, slots[0] & ((1 << info.slab_shift) - 1));
        let is_free = || info.free_bits(slab, index / 64).load(Ordering::Relaxed) & 1 << (index % 64) != 0;
        assert_eq!((deferred::len(), is_free()), (slots.len(), false));
        drop(taken);
        super::super::cache::for_tests().flush_deferred();
        assert!(!any_deferred() && is_free() && found.is_none());
    }
}
