//! The quarantine: freed slots on their way to their next use, oldest first.
//!
//! ```text
//! frees -> a thread's stack -> magazine -> queue, up to the budget -> transfer cache of the class -> a thread's magazine
//!                                                                         \-> the class's store, when the cache is full
//! ```
//!
//! A thread's full stack flushes its oldest slots here, as one magazine. The magazine waits in one queue for all
//! classes and threads. When the queue holds more bytes than the budget, its oldest magazines leave it. So a freed slot
//! comes back after as many bytes of other frees as the budget, whichever threads made them. A class that is no longer
//! used loses its share to the others. With a budget of 0 every magazine leaves at once.
//!
//! A thread that ends leaves fewer slots of a class than fill a magazine. One open magazine a class collects them,
//! until it is full or some thread puts a magazine of the class. So short-lived threads fill the queue with whole
//! magazines.
//!
//! | where a magazine is | who has it | how it leaves |
//! |---|---|---|
//! | owned | one thread, in one of the functions here | into one of the others |
//! | open, one a class | the word of the class in `open` | a thread swaps the word for 0, and adds to it |
//! | in the queue | [`fifo`](super::fifo) | taken by a thread that put more than the budget allows, or found no other memory |
//! | in a transfer cache | [`transfer`](super::transfer) | taken by a thread that needs slots of the class |
//! | in the pool | [`magazine`](super::magazine) | taken by a thread that has slots to put |
//!
//! No thread waits here. A forked child has all magazines but those that other threads owned. A thread that ends in the
//! middle loses one. The slots of a lost magazine are never used again. A signal handler that interrupts a thread here
//! finds no open magazine and opens another; the one that does not fit afterwards goes into the queue as it is.
//!
//! Each home of threads has transfer caches of its own (see [`store`](super::store)). A magazine goes to those of the
//! thread that freed its slots, so threads that free their own objects keep their slots. A thread that finds its home's
//! cache empty takes from another home's that holds several, so slots that one thread allocates and another frees come
//! back.
//!
//! The slots of a magazine are in state freed, and each is checked when it is allocated. Everything lies in one sparse
//! table.

use super::fifo::{self, Ends, Fifo};
use super::layout::layout;
use super::magazine::{self, Magazine, Owned, Pool};
use super::store::HOMES;
use super::transfer::TransferCache;
use super::{central, class};
use crate::addr::Addr;
use crate::fault::Fault;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sys::vm;

/// Magazines of a class that wait for a thread of a home at most.
const WAITING: usize = 4;
/// From so many on they may go to the threads of other homes.
const SHARED: usize = 2;
/// Bytes of a unit in which the queue weighs.
const UNIT: usize = 16;
/// Magazines beyond those that the queue, the transfer caches and the open ones hold: in so many threads' hands.
const IN_HANDS: usize = 256;
/// How often a magazine is put into a queue that others fill as fast as its oldest are taken out.
const TRIES: usize = 64;
/// The largest budget in bytes.
const BUDGET_MAX: usize = 4 << 30;
/// A table of so many bytes is left out of core files.
const SPARSE: usize = 1 << 20;
/// The table takes at most this part of an address space that is limited.
const PART_OF_LIMIT: u64 = 128;

/// The table: this, the queue's cells, the magazines. Zero bytes are an empty one without a queue.
#[repr(C)]
struct Quarantine {
    ends: Ends,
    words: magazine::Words,
    /// Units that the queue may hold.
    budget: u32,
    cell_count: u32,
    magazine_count: u32,
    /// Of each class, the magazine that waits to be full, 0 for none.
    open: [AtomicU32; class::COUNT],
    /// Of each class, those that left the queue.
    transfer_caches: [[TransferCache<WAITING>; HOMES]; class::COUNT],
}

static QUARANTINE: AtomicPtr<Quarantine> = AtomicPtr::new(core::ptr::null_mut());

/// Where the cells begin in the table.
const CELLS_AT: usize = size_of::<Quarantine>().next_multiple_of(align_of::<AtomicU64>());

/// Maps the table for a budget in bytes; `limit` is what the process may map in all. Called once, at start. Without
/// memory for a table all slots go straight to the stores.
pub fn init(budget: usize, limit: Option<u64>) {
    if let Some(table) = map(budget, limit) {
        QUARANTINE.store(table, Ordering::Release);
    }
}

/// A new table.
fn map(budget: usize, limit: Option<u64>) -> Option<*mut Quarantine> {
    let budget = budget.min(BUDGET_MAX);
    let mut cells = cells_for(budget);
    let affordable =
        limit.map_or(usize::MAX, |limit| usize::try_from(limit / PART_OF_LIMIT).unwrap_or(usize::MAX));
    while cells > 1 && table_bytes(cells) > affordable {
        cells /= 2;
    }
    let bytes = table_bytes(cells);
    let mapped = if bytes < SPARSE { vm::tables(bytes) } else { vm::sparse_tables(bytes) };
    let table = mapped?.as_ptr::<Quarantine>();
    // SAFETY: the mapping is fresh, zero, large enough and this thread's; zero bytes are a valid table.
    let quarantine = unsafe { &mut *table };
    quarantine.budget = u32::try_from(budget / UNIT).unwrap_or(u32::MAX);
    quarantine.cell_count = cells as u32;
    quarantine.magazine_count = magazine_count(cells) as u32;
    Some(table)
}

/// As many as there can be of the lightest full magazines, each with an open one, so that the weight is what counts.
const fn cells_for(budget: usize) -> usize {
    (2 * budget / (magazine::LEN * class::size(0))).next_power_of_two()
}

const fn magazine_count(cells: usize) -> usize {
    cells + class::COUNT * (WAITING * HOMES + 1) + IN_HANDS
}

/// Bytes of a table with so many cells.
const fn table_bytes(cells: usize) -> usize {
    CELLS_AT + cells * size_of::<AtomicU64>() + magazine_count(cells) * size_of::<Magazine>()
}

const _: () = {
    assert!(
        magazine_count(cells_for(BUDGET_MAX)) < fifo::NUMBERS as usize,
        "a magazine's number fits into a cell"
    );
    let mut class = 0;
    while class < class::COUNT {
        let weight = class::size(class) * magazine_len(class) / UNIT;
        assert!(weight <= fifo::WEIGHT_MAX as usize && class::size(class).is_multiple_of(UNIT));
        class += 1;
    }
};

/// Slots in a full magazine of a class.
pub const fn magazine_len(class: usize) -> usize {
    match class::size(class) {
        0..=1024 => magazine::LEN,
        1025..=8192 => 16,
        8193..=16384 => 4,
        _ => 2,
    }
}

/// Bytes of frees that a slot is withheld for.
pub fn budget() -> usize {
    quarantine().map_or(0, |quarantine| quarantine.budget as usize * UNIT)
}

/// Puts slots that a cache of `home` freed, a magazine or less, and lets go of the oldest that are too many. What is wrong in a slab
/// that is emptied then goes to `found`, unless something is there, here and below.
pub fn put(class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
    match quarantine() {
        Some(quarantine) => quarantine.put(class, home, slots, found),
        None => central::flush(class, slots, found),
    }
}

/// [`put`] for what a thread leaves that ends, any number of slots.
pub fn put_rest(class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
    match quarantine() {
        Some(quarantine) if quarantine.budget != 0 => quarantine.put_rest(class, home, slots, found),
        _ => central::flush(class, slots, found),
    }
}

/// Takes a magazine that left the quarantine, for a thread of `home`; how many slots it has, 0 if there is none.
pub fn take(class: usize, home: usize, out: &mut [u32]) -> usize {
    let Some(quarantine) = quarantine() else { return 0 };
    let Some(transfer_caches) = quarantine.transfer_caches.get(class) else { return 0 };
    let of_others =
        || transfer_caches.iter().filter(|cache| cache.len() >= SHARED).find_map(TransferCache::take);
    let number = transfer_caches.get(home).and_then(TransferCache::take).or_else(of_others);
    let magazine = number.and_then(|number| quarantine.own(number));
    magazine.map_or(0, |magazine| quarantine.unload(magazine, out))
}

/// Takes a magazine of a class for which there is no other memory, before its time, and with it all that are older; how
/// many slots it has.
pub fn take_early(class: usize, out: &mut [u32], found: &mut Option<Fault>) -> usize {
    let Some(quarantine) = quarantine() else { return 0 };
    // Not more than there were: others may go on putting some.
    for _ in 0..quarantine.cell_count {
        let Some(magazine) = quarantine.oldest() else { break };
        if magazine.class() == class {
            return quarantine.unload(magazine, out);
        }
        quarantine.flush(magazine, found);
    }
    quarantine.take_open(class).map_or(0, |magazine| quarantine.unload(magazine, out))
}

/// Gives the slots that left the quarantine and wait for a thread to their stores. What is in quarantine stays there.
pub fn flush_transfer(found: &mut Option<Fault>) {
    let Some(quarantine) = quarantine() else { return };
    for cache in quarantine.transfer_caches.iter().flatten() {
        for _ in 0..WAITING {
            let Some(magazine) = cache.take().and_then(|number| quarantine.own(number)) else { break };
            quarantine.flush(magazine, found);
        }
    }
}

/// The table, if there is one.
fn quarantine() -> Option<&'static Quarantine> {
    let table = QUARANTINE.load(Ordering::Acquire);
    // SAFETY: null, or the table that `map` filled before `init` stored the pointer; it stays mapped.
    unsafe { table.as_ref() }
}

impl Quarantine {
    fn fifo(&self) -> Option<Fifo<'_>> {
        let cells = Addr::of(core::ptr::from_ref(self)).plus(CELLS_AT).as_ptr::<AtomicU64>();
        // SAFETY: the table has so many cells behind this struct, zero at first, and all of them are atomics.
        Fifo::new(&self.ends, unsafe { core::slice::from_raw_parts(cells, self.cell_count as usize) })
    }

    fn pool(&self) -> Pool<'_> {
        let at = CELLS_AT + self.cell_count as usize * size_of::<AtomicU64>();
        let magazines = Addr::of(core::ptr::from_ref(self)).plus(at).as_ptr::<Magazine>();
        // SAFETY: the table has so many magazines behind the cells, zero at first, which share themselves.
        Pool::new(&self.words, unsafe {
            core::slice::from_raw_parts(magazines, self.magazine_count as usize)
        })
    }

    /// The magazine of a number that was just taken out of the queue, a transfer cache or an open word.
    fn own(&self, number: u32) -> Option<Owned<'_>> {
        // SAFETY: numbers get to those places by `into_number` alone, each to one of them, by an exchange with release
        // order, and are taken out by one with acquire order that one thread wins.
        unsafe { self.pool().own(number) }
    }

    /// The oldest magazine, out of the queue.
    fn oldest(&self) -> Option<Owned<'_>> {
        self.own(self.fifo()?.take()?)
    }

    fn put(&self, class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
        let Some(mut magazine) = self.empty(found) else { return central::flush(class, slots, found) };
        let rest = magazine.add(class, home, slots, magazine::LEN);
        self.enqueue(magazine, found);
        // What threads left that ended is as old, and may never become a full magazine.
        if self.open.get(class).is_some_and(|open| open.load(Ordering::Relaxed) != 0)
            && let Some(open) = self.take_open(class)
        {
            self.enqueue(open, found);
        }
        central::flush(class, rest, found);
    }

    fn put_rest(&self, class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
        let mut rest = slots;
        while !rest.is_empty() {
            let magazine = self.take_open(class).or_else(|| self.empty(found));
            let Some(mut magazine) = magazine else { return central::flush(class, rest, found) };
            rest = magazine.add(class, home, rest, magazine_len(class));
            if magazine.slots().len() < magazine_len(class) {
                self.leave_open(class, magazine, found);
            } else {
                self.enqueue(magazine, found);
            }
        }
    }

    /// The open magazine of a class, owned by the caller.
    fn take_open(&self, class: usize) -> Option<Owned<'_>> {
        match self.open.get(class)?.swap(0, Ordering::Acquire) {
            0 => None,
            number => self.own(number),
        }
    }

    /// Opens a magazine for others to add to. If there is one by now, this one goes into the queue.
    fn leave_open(&self, class: usize, magazine: Owned<'_>, found: &mut Option<Fault>) {
        let Some(open) = self.open.get(class) else { return self.flush(magazine, found) };
        let number = magazine.into_number();
        if open.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed).is_err()
            && let Some(magazine) = self.own(number)
        {
            self.enqueue(magazine, found);
        }
    }

    /// A magazine without slots; if none is left, that of the oldest slots, which go to their store.
    fn empty(&self, found: &mut Option<Fault>) -> Option<Owned<'_>> {
        self.pool().take().or_else(|| {
            self.flush(self.oldest()?, found);
            self.pool().take()
        })
    }

    /// Puts a magazine into the queue and lets go of the oldest that are too many.
    fn enqueue(&self, magazine: Owned<'_>, found: &mut Option<Fault>) {
        let Some(fifo) = self.fifo().filter(|_| self.budget != 0) else {
            return self.transfer(magazine, found);
        };
        let size = layout().classes.get(magazine.class()).map_or(0, |info| info.size);
        let weight = (magazine.slots().len() * size / UNIT) as u32;
        let number = magazine.into_number();
        let mut tries = 0;
        while !fifo.put(number, weight) {
            tries += 1;
            let leaving = if tries < TRIES { self.oldest() } else { self.own(number) };
            if let Some(magazine) = leaving {
                self.transfer(magazine, found);
            }
            if tries == TRIES {
                return;
            }
        }
        while fifo.weight() > self.budget
            && let Some(magazine) = self.oldest()
        {
            self.transfer(magazine, found);
        }
    }

    /// Passes a magazine on to the next thread that needs slots of its class, or to the store if enough magazines wait.
    fn transfer(&self, magazine: Owned<'_>, found: &mut Option<Fault>) {
        let cache = self
            .transfer_caches
            .get(magazine.class())
            .and_then(|transfer_caches| transfer_caches.get(magazine.home()));
        let number = magazine.into_number();
        if !cache.is_some_and(|cache| cache.put(number))
            && let Some(magazine) = self.own(number)
        {
            self.flush(magazine, found);
        }
    }

    /// Gives a magazine's slots to their store and the magazine to the pool.
    fn flush(&self, magazine: Owned<'_>, found: &mut Option<Fault>) {
        central::flush(magazine.class(), magazine.slots(), found);
        self.pool().put(magazine);
    }

    /// Copies a magazine's slots to `out`, which has room for a full one, and gives the magazine to the pool.
    fn unload(&self, magazine: Owned<'_>, out: &mut [u32]) -> usize {
        let slots = magazine.slots();
        let count = slots.len().min(out.len());
        for (out, slot) in out.iter_mut().zip(slots) {
            *out = *slot;
        }
        self.pool().put(magazine);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads end at once. Neither finds an open magazine, so both leave one, and no slot is lost. The next full stack of the
    /// class takes both into the queue.
    #[test]
    fn two_open_magazines_are_kept() {
        const CLASS: usize = 3;
        super::super::layout::for_tests();
        let table = map(1 << 20, None).expect("address space");
        // SAFETY: the table was just made, and stays mapped.
        let quarantine = unsafe { &*table };
        let mut found = None;
        let [first, second] = [[1, 2], [3, 4]].map(|slots| {
            let mut magazine = quarantine.empty(&mut None).expect("all are in the pool");
            assert!(magazine.add(CLASS, 0, &slots, magazine::LEN).is_empty());
            magazine
        });
        quarantine.leave_open(CLASS, first, &mut found);
        quarantine.leave_open(CLASS, second, &mut found);
        let queued = |slots: &[u32]| {
            let magazine = quarantine.oldest().expect("it is in the queue");
            assert_eq!((magazine.class(), magazine.slots()), (CLASS, slots));
        };
        queued(&[3, 4]);
        quarantine.put(CLASS, 0, &[5, 6], &mut found);
        queued(&[5, 6]);
        queued(&[1, 2]);
        assert!(quarantine.oldest().is_none() && quarantine.take_open(CLASS).is_none() && found.is_none());
    }
}
