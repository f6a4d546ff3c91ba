//! The heap as tools see it that look into another process, or into a core file: which object an address
//! belongs to, by the same records, states and stacks that reports are made of.
//!
//! The process holds one [`Anchor`]: a magic, a version, its own address and where everything lies. Tools find
//! it by scanning the writable data of the process's modules. It is no exported symbol: a program with
//! the crate under the preloaded library has two heaps, and one anchor must not take the other's place.
//!
//! A tool refuses an anchor of another version. [`VERSION`] changes with the anchor, with
//! [`Record`](crate::meta::Record), the tables of the page allocator, the states of slots, `ClassInfo` and
//! the log of stacks. All that is read is as damaged as memory may be: what does not fit is not found.

use super::{Heap, thread};
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::Object;
use crate::meta::Record;
use crate::options::{self, Options, ROWS};
use crate::page::arena::{CHUNK_BYTES, Geometry};
use crate::report::tally;
use crate::slab::{self, Cache, ClassGeometry, SlotState, front};
use crate::stats::Totals;
use crate::sys::guard::Backend;
use crate::trace::{Depot, Frames};
use core::cell::UnsafeCell;

/// The version of all that is reached from an anchor.
pub const VERSION: u64 = 5;
/// What an anchor begins with.
pub const MAGIC: [u8; 16] = *b"fencepost anchor";
/// What the address of an anchor is a multiple of.
pub const ALIGN: usize = 64;
/// Pages on either side of an address in which objects are looked for.
const NEIGHBOURHOOD: usize = 64;
/// Records that are read at once when all are searched.
const BLOCK: usize = 64;
/// Records that are searched at most, whatever an anchor says.
const MOST_RECORDS: usize = 1 << 26;

/// Threads whose counts are summed up at most.
const MOST_THREADS: usize = 1 << 20;
/// Classes that a cache has at most, whatever an anchor says.
const MOST_CLASSES: usize = 1 << 10;

/// Where everything lies. Little-endian words throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Anchor {
    magic: [u8; 16],
    version: u64,
    /// Its own address: tells it from a copy, and from the constant that it is compared with.
    itself: u64,
    arena: u64,
    arena_bytes: u64,
    pages: u64,
    chunks: u64,
    records: u64,
    record_count: u64,
    slabs: u64,
    slabs_bytes: u64,
    region_shift: u64,
    classes: u64,
    class_count: u64,
    log: u64,
    log_words: u64,
    front_bytes: u64,
    front_starts: u64,
    front_owners: u64,
    options: u64,
    options_bytes: u64,
    errors: u64,
    suppressed: u64,
    guards: u64,
    threads: u64,
    thread_next: u64,
    thread_counts: u64,
    thread_cache: u64,
    cache_filled: u64,
    cache_bins: u64,
    bin_stride: u64,
    bin_next: u64,
    bin_count: u64,
    release: u64,
}

/// The version of this package: major, minor and patch, 16 bits each.
const RELEASE: u64 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 32
    | number(env!("CARGO_PKG_VERSION_MINOR")) << 16
    | number(env!("CARGO_PKG_VERSION_PATCH"));

/// Decimal digits as a number.
const fn number(digits: &str) -> u64 {
    let (mut number, mut index) = (0, 0);
    while index < digits.len() {
        number = number * 10 + (digits.as_bytes()[index] - b'0') as u64;
        index += 1;
    }
    number
}

const WORDS: usize = (size_of::<Anchor>() - 16) / 8;

impl Anchor {
    const EMPTY: Self = Self {
        magic: MAGIC,
        version: VERSION,
        itself: 0,
        arena: 0,
        arena_bytes: 0,
        pages: 0,
        chunks: 0,
        records: 0,
        record_count: 0,
        slabs: 0,
        slabs_bytes: 0,
        front_bytes: 0,
        front_starts: 0,
        front_owners: 0,
        region_shift: 0,
        classes: 0,
        class_count: 0,
        log: 0,
        log_words: 0,
        options: 0,
        options_bytes: 0,
        errors: 0,
        suppressed: 0,
        guards: 0,
        threads: 0,
        thread_next: 0,
        thread_counts: 0,
        thread_cache: 0,
        cache_filled: 0,
        cache_bins: 0,
        bin_stride: 0,
        bin_next: 0,
        bin_count: 0,
        release: RELEASE,
    };

    fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let mut words = [0; WORDS];
        let (magic, rest) = bytes.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        for (word, bytes) in words.iter_mut().zip(rest.chunks_exact(8)) {
            *word = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }
        let [
            version,
            itself,
            arena,
            arena_bytes,
            pages,
            chunks,
            records,
            record_count,
            slabs,
            slabs_bytes,
            region_shift,
            classes,
            class_count,
            log,
            log_words,
            front_bytes,
            front_starts,
            front_owners,
            options,
            options_bytes,
            errors,
            suppressed,
            guards,
            threads,
            thread_next,
            thread_counts,
            thread_cache,
            cache_filled,
            cache_bins,
            bin_stride,
            bin_next,
            bin_count,
            release,
            ..,
        ] = words;
        Self {
            magic: *magic,
            version,
            itself,
            arena,
            arena_bytes,
            pages,
            chunks,
            records,
            record_count,
            slabs,
            slabs_bytes,
            front_bytes,
            front_starts,
            front_owners,
            region_shift,
            classes,
            class_count,
            log,
            log_words,
            options,
            options_bytes,
            errors,
            suppressed,
            guards,
            threads,
            thread_next,
            thread_counts,
            thread_cache,
            cache_filled,
            cache_bins,
            bin_stride,
            bin_next,
            bin_count,
            release,
        }
    }
}

struct Static(UnsafeCell<Anchor>);

// SAFETY: written by `drop_anchor` alone, once, at start; this process never reads it.
unsafe impl Sync for Static {}

/// The anchor. In writable data with its magic from the start, so that a core file has it.
#[used]
static ANCHOR: Static = Static(UnsafeCell::new(Anchor::EMPTY));

/// Bytes of [`GIVEN`].
const GIVEN_BYTES: usize = 1024;

struct GivenText(UnsafeCell<[u8; GIVEN_BYTES]>);

// SAFETY: written by `write_given` alone, once, at start; this process never reads it.
unsafe impl Sync for GivenText {}

/// The options that somebody set, as [`crate::options::apply`] reads them.
static GIVEN: GivenText = GivenText(UnsafeCell::new([0; GIVEN_BYTES]));

/// Fills [`GIVEN`] with whole items, as many as find room; the bytes that are used.
#[inline(never)]
fn write_given(options: &Options) -> usize {
    let mut len = 0;
    for row in ROWS.iter().filter(|row| (row.is_given)(options)) {
        let start = len;
        let mut fits = true;
        let mut push = |bytes: &[u8]| {
            fits &= bytes.len() <= GIVEN_BYTES - len;
            if fits {
                // SAFETY: the start gate makes this the one writer, and the bytes fit between `len` and the end.
                unsafe {
                    GIVEN.0.get().cast::<u8>().add(len).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
                };
                len += bytes.len();
            }
        };
        if start != 0 {
            push(b":");
        }
        options::item(row, options, &mut push);
        if !fits {
            len = start;
        }
    }
    len
}

/// Says where everything of `heap` lies. Called once, at start, when it is set up.
pub(super) fn drop_anchor(heap: &Heap) {
    let word = |number: usize| number as u64;
    let (arena, (records, record_count)) = heap.page.geometry();
    let layout = slab::layout::layout();
    let (log, log_words) = heap.depot.log();
    let itself = ANCHOR.0.get();
    let [errors, suppressed] = tally::counters();
    let [threads, thread_next, thread_counts, thread_cache] = thread::offsets();
    let anchor = Anchor {
        itself: word(Addr::of(itself).get()),
        arena: word(arena.span.start.get()),
        arena_bytes: word(arena.span.bytes()),
        pages: word(arena.pages.get()),
        chunks: word(arena.chunks.get()),
        records: word(records.get()),
        record_count: u64::from(record_count),
        slabs: word(layout.base),
        slabs_bytes: word(layout.span),
        front_bytes: word(front::BYTES),
        front_starts: word(Addr::of(front::starts()).get()),
        front_owners: word(Addr::of(front::owners()).get()),
        region_shift: u64::from(layout.region_shift),
        classes: word(Addr::of(layout.classes.as_ptr()).get()),
        class_count: word(layout.classes.len()),
        log: word(log.get()),
        log_words: word(log_words),
        options: word(Addr::of(GIVEN.0.get()).get()),
        options_bytes: word(write_given(&heap.options)),
        errors: word(Addr::of(core::ptr::from_ref(errors)).get()),
        suppressed: word(Addr::of(core::ptr::from_ref(suppressed)).get()),
        guards: u64::from(layout.backend == Backend::Madvise),
        threads: word(threads),
        thread_next: word(thread_next),
        thread_counts: word(thread_counts),
        thread_cache: word(thread_cache),
        cache_filled: word(Cache::COUNT_PLACES.filled),
        cache_bins: word(Cache::COUNT_PLACES.bins),
        bin_stride: word(Cache::COUNT_PLACES.stride),
        bin_next: word(Cache::COUNT_PLACES.next),
        bin_count: word(Cache::COUNT_PLACES.count),
        ..Anchor::EMPTY
    };
    // SAFETY: the start gate makes this the one writer, and nobody reads it in this process.
    unsafe { itself.write_volatile(anchor) };
}

/// The memory of a process.
pub trait Memory {
    /// Fills `buffer` with the bytes at `address`; `false` if not all of them are there.
    fn read(&self, address: usize, buffer: &mut [u8]) -> bool;
}

/// Why an anchor is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is none at this address.
    None,
    /// Its process has not set a heap up, or it is a copy.
    Unused,
    /// It is of this version, and not of [`VERSION`].
    Version(u64),
}

/// The heap of a process.
pub struct Image<'m, M> {
    memory: &'m M,
    anchor: Anchor,
}

/// What lies at an address.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Nothing of this heap.
    Nothing,
    /// The page allocator's memory, and the nearest object that is remembered.
    Guarded(Option<Object>),
    /// A slot of the slab allocator, and the object that lies or last lay in it.
    Slot {
        /// The slot's first byte.
        start: Addr,
        /// Its length in bytes.
        size: usize,
        /// Whether objects were in it, and whether its memory is still what they left. Core files
        /// have the states in the front alone.
        state: Option<SlotState>,
        /// The object.
        object: Option<Object>,
    },
}

impl<'m, M: Memory> Image<'m, M> {
    /// The heap whose anchor is at `address`.
    pub fn open(memory: &'m M, address: usize) -> Result<Self, Refusal> {
        let mut bytes = [0; size_of::<Anchor>()];
        if !memory.read(address, &mut bytes) || !bytes.starts_with(&MAGIC) {
            return Err(Refusal::None);
        }
        let anchor = Anchor::from_bytes(&bytes);
        // The first words are those of every version.
        match anchor {
            Anchor { itself, .. } if itself != address as u64 => Err(Refusal::Unused),
            Anchor { version: VERSION, .. } => Ok(Self { memory, anchor }),
            Anchor { version, .. } => Err(Refusal::Version(version)),
        }
    }

    fn array<const N: usize>(&self, base: u64, stride: usize, index: usize) -> Option<[u8; N]> {
        let address = usize::try_from(base).ok()?.checked_add(stride.checked_mul(index)?)?;
        let mut bytes = [0; N];
        (base != 0 && self.memory.read(address, &mut bytes)).then_some(bytes)
    }

    /// What lies at `address`.
    pub fn find(&self, address: Addr) -> Found {
        if self.in_arena(address).is_some() {
            return Found::Guarded(self.guarded(address).or_else(|| self.search(address)));
        }
        match self.slot(address) {
            Some(found) => found,
            None => self.search(address).map_or(Found::Nothing, |object| Found::Guarded(Some(object))),
        }
    }

    /// The options that somebody set, as [`crate::options::apply`] reads them; what `buffer` holds of them.
    pub fn options<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let bytes = usize::try_from(self.anchor.options_bytes).ok()?;
        let text = buffer.get_mut(..bytes)?;
        self.memory.read(usize::try_from(self.anchor.options).ok()?, text).then_some(&*text)
    }

    /// The version of the package that the heap is of: major, minor, patch.
    pub fn release(&self) -> [u64; 3] {
        [32, 16, 0].map(|shift| self.anchor.release >> shift & 0xffff)
    }

    /// Whether guard pages are markers and not mappings.
    pub fn has_markers(&self) -> bool {
        self.anchor.guards != 0
    }

    /// Errors so far, and those that suppressions cover.
    pub fn errors(&self) -> Option<[u64; 2]> {
        let count = |place| self.array(place, 8, 0).map(u64::from_le_bytes);
        Some([count(self.anchor.errors)?, count(self.anchor.suppressed)?])
    }

    /// What was allocated how, in all threads. `None` if the list of threads does not end, or leads out of memory.
    pub fn totals(&self) -> Option<Totals> {
        let word = |place: u64| self.array(place, 8, 0).map(u64::from_le_bytes);
        let mut totals = Totals::default();
        let mut thread = word(self.anchor.threads)?;
        for _ in 0..MOST_THREADS {
            if thread == 0 {
                return Some(totals);
            }
            let at = |offset: u64| thread.checked_add(offset);
            let counts: [u8; 32] = self.array(at(self.anchor.thread_counts)?, 1, 0)?;
            let sums = [
                &mut totals.guarded,
                &mut totals.over_budget,
                &mut totals.no_mappings,
                &mut totals.no_memory,
            ];
            for (sum, count) in sums.into_iter().zip(counts.as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*count));
            }
            let cache = at(self.anchor.thread_cache)?;
            let filled = word(cache.checked_add(self.anchor.cache_filled)?)?;
            let bins = cache.checked_add(self.anchor.cache_bins)?.checked_add(self.anchor.bin_next)?;
            let stride = usize::try_from(self.anchor.bin_stride).ok()?;
            let count = usize::try_from(self.anchor.bin_count).ok()?.min(MOST_CLASSES);
            let next = |class| self.array(bins, stride, class).map_or(0, u32::from_le_bytes);
            totals.slab = totals.slab.wrapping_add(Cache::allocated_by(filled, (0..count).map(next)));
            thread = word(at(self.anchor.thread_next)?)?;
        }
        None
    }

    /// The stack called `number`.
    pub fn stack(&self, number: u32) -> Frames {
        let words = usize::try_from(self.anchor.log_words).unwrap_or(0);
        Depot::decode(number, words, |index| self.array(self.anchor.log, 8, index).map(u64::from_le_bytes))
    }

    /// Bytes from the arena's start.
    fn in_arena(&self, address: Addr) -> Option<usize> {
        let offset = address.get().checked_sub(usize::try_from(self.anchor.arena).ok()?)?;
        ((offset as u64) < self.anchor.arena_bytes).then_some(offset)
    }

    fn record(&self, id: u32) -> Option<Record> {
        let known = id != 0 && u64::from(id) < self.anchor.record_count;
        let bytes = known.then(|| self.array(self.anchor.records, size_of::<Record>(), id as usize))??;
        Some(Record::from_bytes(&bytes))
    }

    /// The record of the object that has, or last had, the page of `address`.
    fn record_at(&self, address: Addr) -> Option<Record> {
        let offset = self.in_arena(address)?;
        let page = self.array(self.anchor.pages, 4, offset / PAGE_SIZE).map_or(0, u32::from_le_bytes);
        if page != 0 {
            return self.record(page);
        }
        let entry = self.anchor.chunks.checked_add(Geometry::CHUNK_RECORD as u64)?;
        self.record(u32::from_le_bytes(self.array(entry, Geometry::CHUNK_STRIDE, offset / CHUNK_BYTES)?))
    }

    fn guarded(&self, address: Addr) -> Option<Object> {
        let here = self.record_at(address);
        if let Some(record) = here.filter(|record| record.span().contains(address)) {
            return record.object();
        }
        // A large object's chunks are its own to their end.
        let near = |at: Addr| self.record_at(at).and_then(|record| record.object());
        near(address).or_else(|| {
            (1..=NEIGHBOURHOOD).find_map(|pages| {
                let below = near(address.minus(pages * PAGE_SIZE));
                let above = near(address.plus(pages * PAGE_SIZE));
                [below, above].into_iter().flatten().min_by_key(|object| distance(address, object))
            })
        })
    }

    /// The nearest object in or next to whose pages the address lies, found by looking at all records: it is
    /// outside the arena, or the arena's tables are not in the core file.
    fn search(&self, address: Addr) -> Option<Object> {
        const STRIDE: usize = size_of::<Record>();
        let count = usize::try_from(self.anchor.record_count).unwrap_or(0).min(MOST_RECORDS);
        let mut best: Option<Object> = None;
        for first in (0..count).step_by(BLOCK) {
            let Some(block) = self.array::<{ BLOCK * STRIDE }>(self.anchor.records, STRIDE, first) else {
                break;
            };
            // Records are given out from the front, in blocks of this size.
            if block.iter().all(|byte| *byte == 0) {
                break;
            }
            for record in block.as_chunks::<STRIDE>().0.iter().map(Record::from_bytes) {
                let span = record.span();
                let near = address.plus(PAGE_SIZE) >= span.start && address < span.end().plus(PAGE_SIZE);
                if near {
                    let objects = [best, record.object()].into_iter().flatten();
                    best = objects.min_by_key(|object| (distance(address, object), object.freed));
                }
            }
        }
        best
    }

    fn slot(&self, address: Addr) -> Option<Found> {
        let offset = (address.get() as u64).checked_sub(self.anchor.slabs)?;
        let (class, in_front) = match offset.checked_sub(self.anchor.front_bytes) {
            None => (self.owner(offset)?, true),
            Some(offset) if offset < self.anchor.slabs_bytes => {
                (offset.checked_shr(u32::try_from(self.anchor.region_shift).ok()?)?, false)
            }
            Some(_) => return None,
        };
        let class = usize::try_from(class).ok().filter(|class| (*class as u64) < self.anchor.class_count)?;
        let info = self.array(self.anchor.classes, size_of::<slab::layout::ClassInfo>(), class)?;
        let info = ClassGeometry::from_bytes(&info);
        let (start, states, slots) = match in_front {
            true => {
                let start = self.array(self.anchor.front_starts, size_of::<usize>(), class)?;
                (usize::from_le_bytes(start), info.front_states, 0..info.front_slots)
            }
            false => (info.start, info.states, info.front_slots..info.slots),
        };
        let slot = address.get().checked_sub(start)?.checked_div(info.size)?;
        if !slots.contains(&slot) {
            return None;
        }
        let state = self.array(states as u64, 2, slot);
        let state = state.map(|bits| SlotState::from_bits(u16::from_le_bytes(bits)));
        let start = Addr::new(start.checked_add(slot.checked_mul(info.size)?)?);
        let object = state.and_then(|state| slab::class::object(start, info.size, state));
        Some(Found::Slot { start, size: info.size, state, object })
    }

    /// The class that has the byte at `offset` from the front's first.
    fn owner(&self, offset: u64) -> Option<u64> {
        let page = usize::try_from(offset).ok()? / PAGE_SIZE;
        let [owner] = self.array(self.anchor.front_owners, 1, page)?;
        Some(owner.into())
    }
}

/// Bytes from an address to the nearest of an object.
fn distance(address: Addr, object: &Object) -> usize {
    let end = object.start.plus(object.size.unwrap_or(0));
    let before = object.start.get().saturating_sub(address.get());
    before.max(address.get().saturating_sub(end.get()))
}

#[cfg(test)]
#[path = "../../tests/fuzz/image.rs"]
mod fuzz;

#[cfg(test)]
#[path = "../../tests/unit/image.rs"]
mod tests;
