//! The quarantine: freed slots on their way to their next use, oldest first.
//!
//! ```text
//! frees -> a thread's stack -> batch -> queue, up to the budget -> depot of the class -> a thread's batch
//!                                                                  \-> the class's store, where enough wait
//! ```
//!
//! What a cache's stack cannot hold comes here as a batch, and waits in one queue of all classes and threads. When
//! the queue holds more bytes than the budget, its oldest batches leave it: so a freed slot comes back after as many
//! bytes of other frees as the budget is, whosever they are. A class that is not used any more loses its share to those
//! that are. With a budget of 0 every batch leaves at once.
//!
//! A thread that ends leaves fewer slots of a class than make a batch. They are collected in one open batch a class,
//! until that is full or some thread puts a batch of the class: so short-lived threads fill the queue with whole batches.
//!
//! | where a batch is | who has it | how it leaves |
//! |---|---|---|
//! | in hands | one thread, in one of the functions here | into one of the others |
//! | open, one a class | the word of the class in `open` | a thread swaps the word for 0, and adds to it |
//! | in the queue | [`fifo`](super::fifo) | taken by whoever put more than the budget allows, or found no other memory |
//! | in a depot | [`depot`](super::depot) | taken by whoever needs slots of the class |
//! | in the pool | [`batches`](super::batches) | taken by whoever has slots to put |
//!
//! Nothing here waits. A forked child has all batches but those that other threads had in hands, and a thread that
//! ends in the middle loses one: their slots are never used again. A signal handler that interrupts a thread here finds the open batch
//! gone, and opens another; what then does not fit goes into the queue as it is.
//!
//! Each home of threads has depots of its own (see [`store`](super::store)), and a batch goes to those of the thread that freed
//! its slots: so threads that free their own objects keep their slots. One that finds nothing in its own takes from others
//! in which several wait: so what one thread allocates and another frees comes back.
//!
//! The slots of a batch are freed, and are checked when they are handed out. Everything is in one sparse table.

use super::batches::{self, Batch, Owned, Pool};
use super::depot::Depot;
use super::fifo::{self, Ends, Fifo};
use super::layout::layout;
use super::store::HOMES;
use super::{central, class};
use crate::addr::Addr;
use crate::fault::Fault;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sys::vm;

/// Batches of a class that wait for a thread of a home at most.
const WAITING: usize = 4;
/// From so many on they may go to the threads of other homes.
const SHARED: usize = 2;
/// Bytes of a unit in which the queue weighs.
const UNIT: usize = 16;
/// Batches beyond those that the queue, the depots and the open ones hold: in so many threads' hands.
const IN_HANDS: usize = 256;
/// How often a batch is put into a queue that others fill as fast as its oldest are taken out.
const TRIES: usize = 64;
/// The largest budget in bytes.
const BUDGET_MAX: usize = 4 << 30;
/// A table of so many bytes is left out of core files.
const SPARSE: usize = 1 << 20;
/// The table takes at most this part of an address space that is limited.
const PART_OF_LIMIT: u64 = 128;

/// The table: this, the queue's cells, the batches. Zero bytes are an empty one without a queue.
#[repr(C)]
struct Quarantine {
    ends: Ends,
    words: batches::Words,
    /// Units that the queue may hold.
    budget: u32,
    cell_count: u32,
    batch_count: u32,
    /// Of each class, the batch that waits to be full, 0 for none.
    open: [AtomicU32; class::COUNT],
    /// Of each class, those that left the queue.
    depots: [[Depot<WAITING>; HOMES]; class::COUNT],
}

static QUARANTINE: AtomicPtr<Quarantine> = AtomicPtr::new(core::ptr::null_mut());

/// Where the cells begin in the table.
const CELLS_AT: usize = size_of::<Quarantine>().next_multiple_of(align_of::<AtomicU64>());

/// Maps the table for a budget in bytes; `limit` is what the process may map in all. Called once, at start. Without
/// memory for a table all slots go straight to the stores.
pub fn init(budget: usize, limit: Option<u64>) {
    let budget = budget.min(BUDGET_MAX);
    let mut cells = cells_for(budget);
    let affordable =
        limit.map_or(usize::MAX, |limit| usize::try_from(limit / PART_OF_LIMIT).unwrap_or(usize::MAX));
    while cells > 1 && table_bytes(cells) > affordable {
        cells /= 2;
    }
    let bytes = table_bytes(cells);
    let mapped = if bytes < SPARSE { vm::tables(bytes) } else { vm::sparse_tables(bytes) };
    let Some(start) = mapped else { return };
    let table = start.as_ptr::<Quarantine>();
    // SAFETY: the mapping is fresh, zero, large enough and this thread's; zero bytes are a valid table.
    let quarantine = unsafe { &mut *table };
    quarantine.budget = u32::try_from(budget / UNIT).unwrap_or(u32::MAX);
    quarantine.cell_count = cells as u32;
    quarantine.batch_count = batch_count(cells) as u32;
    QUARANTINE.store(table, Ordering::Release);
}

/// As many as there can be of the lightest full batches, each with an open one, so that the weight is what counts.
const fn cells_for(budget: usize) -> usize {
    (2 * budget / (batches::LEN * class::size(0))).next_power_of_two()
}

const fn batch_count(cells: usize) -> usize {
    cells + class::COUNT * (WAITING * HOMES + 1) + IN_HANDS
}

/// Bytes of a table with so many cells.
const fn table_bytes(cells: usize) -> usize {
    CELLS_AT + cells * size_of::<AtomicU64>() + batch_count(cells) * size_of::<Batch>()
}

const _: () = {
    assert!(batch_count(cells_for(BUDGET_MAX)) < fifo::NUMBERS as usize, "a batch's number fits into a cell");
    let mut class = 0;
    while class < class::COUNT {
        let weight = class::size(class) * batch_len(class) / UNIT;
        assert!(weight <= fifo::WEIGHT_MAX as usize && class::size(class).is_multiple_of(UNIT));
        class += 1;
    }
};

/// Slots in a full batch of a class.
pub const fn batch_len(class: usize) -> usize {
    match class::size(class) {
        0..=1024 => batches::LEN,
        1025..=8192 => 16,
        8193..=16384 => 4,
        _ => 2,
    }
}

/// Puts slots that a cache of `home` freed, a batch or less, and lets go of the oldest that are too many. What is wrong in a slab
/// that is emptied then goes to `found`, unless something is there, here and below.
pub fn put(class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
    match quarantine() {
        Some(quarantine) => quarantine.put(class, home, slots, found),
        None => central::give(class, slots, found),
    }
}

/// [`put`] for what a thread leaves that ends, any number of slots.
pub fn put_rest(class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
    match quarantine() {
        Some(quarantine) if quarantine.budget != 0 => quarantine.put_rest(class, home, slots, found),
        _ => central::give(class, slots, found),
    }
}

/// Takes a batch that left the quarantine, for a thread of `home`; how many slots it has, 0 if there is none.
pub fn take(class: usize, home: usize, out: &mut [u32]) -> usize {
    let Some(quarantine) = quarantine() else { return 0 };
    let Some(depots) = quarantine.depots.get(class) else { return 0 };
    let of_others = || depots.iter().filter(|depot| depot.len() >= SHARED).find_map(Depot::take);
    let number = depots.get(home).and_then(Depot::take).or_else(of_others);
    let batch = number.and_then(|number| quarantine.own(number));
    batch.map_or(0, |batch| quarantine.hand_out(batch, out))
}

/// Takes a batch of a class for which there is no other memory, before its time, and with it all that are older; how
/// many slots it has.
pub fn take_early(class: usize, out: &mut [u32], found: &mut Option<Fault>) -> usize {
    let Some(quarantine) = quarantine() else { return 0 };
    // Not more than there were: others may go on putting some.
    for _ in 0..quarantine.cell_count {
        let Some(batch) = quarantine.oldest() else { break };
        if batch.class() == class {
            return quarantine.hand_out(batch, out);
        }
        quarantine.give(batch, found);
    }
    quarantine.take_open(class).map_or(0, |batch| quarantine.hand_out(batch, out))
}

/// Gives the slots that left the quarantine and wait for a thread to their stores. What is in quarantine stays there.
pub fn give_waiting(found: &mut Option<Fault>) {
    let Some(quarantine) = quarantine() else { return };
    for depot in quarantine.depots.iter().flatten() {
        for _ in 0..WAITING {
            let Some(batch) = depot.take().and_then(|number| quarantine.own(number)) else { break };
            quarantine.give(batch, found);
        }
    }
}

/// The table, if there is one.
fn quarantine() -> Option<&'static Quarantine> {
    let table = QUARANTINE.load(Ordering::Acquire);
    // SAFETY: null, or the table that `init` mapped and filled before it stored the pointer; it stays mapped.
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
        let batches = Addr::of(core::ptr::from_ref(self)).plus(at).as_ptr::<Batch>();
        // SAFETY: the table has so many batches behind the cells, zero at first, which share themselves.
        Pool::new(&self.words, unsafe { core::slice::from_raw_parts(batches, self.batch_count as usize) })
    }

    /// The batch of a number that was just taken out of the queue, a depot or an open word.
    fn own(&self, number: u32) -> Option<Owned<'_>> {
        // SAFETY: numbers get to those places by `into_number` alone, each to one of them, by an exchange with release
        // order, and are taken out by one with acquire order that one thread wins.
        unsafe { self.pool().own(number) }
    }

    /// The oldest batch, out of the queue.
    fn oldest(&self) -> Option<Owned<'_>> {
        self.own(self.fifo()?.take()?)
    }

    fn put(&self, class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
        let Some(mut batch) = self.empty(found) else { return central::give(class, slots, found) };
        let rest = batch.add(class, home, slots, batches::LEN);
        self.enqueue(batch, found);
        // What threads left that ended is as old, and may never become a full batch.
        if self.open.get(class).is_some_and(|open| open.load(Ordering::Relaxed) != 0)
            && let Some(open) = self.take_open(class)
        {
            self.enqueue(open, found);
        }
        central::give(class, rest, found);
    }

    fn put_rest(&self, class: usize, home: usize, slots: &[u32], found: &mut Option<Fault>) {
        let mut rest = slots;
        while !rest.is_empty() {
            let batch = self.take_open(class).or_else(|| self.empty(found));
            let Some(mut batch) = batch else { return central::give(class, rest, found) };
            rest = batch.add(class, home, rest, batch_len(class));
            if batch.slots().len() < batch_len(class) {
                self.leave_open(class, batch, found);
            } else {
                self.enqueue(batch, found);
            }
        }
    }

    /// The open batch of a class, in hands.
    fn take_open(&self, class: usize) -> Option<Owned<'_>> {
        match self.open.get(class)?.swap(0, Ordering::Acquire) {
            0 => None,
            number => self.own(number),
        }
    }

    /// Opens a batch for others to add to. If there is one by now, this one goes into the queue.
    fn leave_open(&self, class: usize, batch: Owned<'_>, found: &mut Option<Fault>) {
        let Some(open) = self.open.get(class) else { return self.give(batch, found) };
        let number = batch.into_number();
        if open.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed).is_err()
            && let Some(batch) = self.own(number)
        {
            self.enqueue(batch, found);
        }
    }

    /// A batch without slots; if none is left, that of the oldest slots, which go to their store.
    fn empty(&self, found: &mut Option<Fault>) -> Option<Owned<'_>> {
        self.pool().take().or_else(|| {
            self.give(self.oldest()?, found);
            self.pool().take()
        })
    }

    /// Puts a batch into the queue and lets go of the oldest that are too many.
    fn enqueue(&self, batch: Owned<'_>, found: &mut Option<Fault>) {
        let Some(fifo) = self.fifo().filter(|_| self.budget != 0) else { return self.let_go(batch, found) };
        let size = layout().classes.get(batch.class()).map_or(0, |info| info.size);
        let weight = (batch.slots().len() * size / UNIT) as u32;
        let number = batch.into_number();
        let mut tries = 0;
        while !fifo.put(number, weight) {
            tries += 1;
            let leaving = if tries < TRIES { self.oldest() } else { self.own(number) };
            if let Some(batch) = leaving {
                self.let_go(batch, found);
            }
            if tries == TRIES {
                return;
            }
        }
        while fifo.weight() > self.budget
            && let Some(batch) = self.oldest()
        {
            self.let_go(batch, found);
        }
    }

    /// Lets a batch go to whoever needs slots of its class next, or back to the store if enough wait.
    fn let_go(&self, batch: Owned<'_>, found: &mut Option<Fault>) {
        let depot = self.depots.get(batch.class()).and_then(|depots| depots.get(batch.home()));
        let number = batch.into_number();
        if !depot.is_some_and(|depot| depot.put(number))
            && let Some(batch) = self.own(number)
        {
            self.give(batch, found);
        }
    }

    /// Gives a batch's slots to their store and the batch to the pool.
    fn give(&self, batch: Owned<'_>, found: &mut Option<Fault>) {
        central::give(batch.class(), batch.slots(), found);
        self.pool().give(batch);
    }

    /// Copies a batch's slots to `out`, which has room for a full one, and gives the batch to the pool.
    fn hand_out(&self, batch: Owned<'_>, out: &mut [u32]) -> usize {
        let slots = batch.slots();
        let count = slots.len().min(out.len());
        for (out, slot) in out.iter_mut().zip(slots) {
            *out = *slot;
        }
        self.pool().give(batch);
        count
    }
}
