//! Records of guarded objects: one for each live object and for the freed ones that are remembered.
//!
//! Records lie in one table and are named by number. All fields are atomics: a report may read a
//! record at any moment, while its thread changes it or after it was damaged. A record's state is its
//! lock: whoever moves it from `Live` to `Freeing` frees the object.
//!
//! | from | to | by | when |
//! |---|---|---|---|
//! | `Unused`, `Freed` | `Live` | the allocating thread, which took the record off a lane's list | all else is written |
//! | `Live` | `Freeing` | one freeing thread, by compare and exchange | it starts to free |
//! | `Freeing` | `Freed` | the same | the pages are closed |
//! | `Freeing` | `Live` | the same | the free was refused, or it was a resize |
//! | `Live` | `Checking` | a sweep, by compare and exchange | it looks at the object's surroundings |
//! | `Checking` | `Live` | the same, by compare and exchange | it has looked |
//! | `Checking` | `Freeing` | a freeing thread | the sweep's thread is gone: the process was forked |

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::{Event, History, Object};
use crate::request::Origin;
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::sys::vm;
use core::mem::offset_of;

/// Where a record's object is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Never used.
    Unused = 0,
    /// Handed out.
    Live = 1,
    /// Being freed.
    Freeing = 2,
    /// Freed and remembered.
    Freed = 3,
    /// Live, and being looked at by a sweep: whoever wants to free or resize it waits.
    Checking = 4,
}

/// A record's number; 0 is no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct RecordId(pub u32);

/// A guarded object.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Record {
    address: AtomicUsize,
    size: AtomicUsize,
    span_start: AtomicUsize,
    span_pages: AtomicUsize,
    alloc_thread: AtomicU32,
    alloc_stack: AtomicU32,
    free_thread: AtomicU32,
    free_stack: AtomicU32,
    /// The next record in a lane's list.
    pub next: AtomicU32,
    /// The lane that accounts for the object.
    pub lane: AtomicU32,
    state: AtomicU8,
    origin: AtomicU8,
    /// Whether the object has pages that it may use: not if it has zero bytes or was moved away.
    opened: AtomicU8,
}

impl Record {
    /// Fills the record for a new object and makes it live.
    pub fn allocate(&self, address: Addr, size: usize, span: Span, origin: Origin, event: Event, lane: u32) {
        self.address.store(address.get(), Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
        self.span_start.store(span.start.get(), Ordering::Relaxed);
        self.span_pages.store(span.pages.get(), Ordering::Relaxed);
        self.alloc_thread.store(event.thread, Ordering::Relaxed);
        self.alloc_stack.store(event.stack, Ordering::Relaxed);
        self.free_thread.store(0, Ordering::Relaxed);
        self.free_stack.store(0, Ordering::Relaxed);
        self.lane.store(lane, Ordering::Relaxed);
        self.origin.store(origin as u8, Ordering::Relaxed);
        self.opened.store(u8::from(size != 0), Ordering::Relaxed);
        self.state.store(State::Live as u8, Ordering::Release);
    }

    /// Claims the object for freeing: `true` for exactly one of all threads that try.
    pub fn begin_free(&self) -> bool {
        self.exchange(State::Live, State::Freeing)
    }

    /// Claims the object for a look at its surroundings: not if it is being freed.
    pub fn begin_check(&self) -> bool {
        self.exchange(State::Live, State::Checking)
    }

    /// Takes [`Record::begin_check`] back.
    pub fn end_check(&self) {
        self.exchange(State::Checking, State::Live);
    }

    /// Claims the object for freeing from a sweep that does not end.
    pub fn begin_free_checked(&self) -> bool {
        self.exchange(State::Checking, State::Freeing)
    }

    fn exchange(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes [`Record::begin_free`] back.
    pub fn refuse_free(&self) {
        self.state.store(State::Live as u8, Ordering::Release);
    }

    /// Ends the object's life.
    pub fn end_free(&self, event: Event) {
        self.free_thread.store(event.thread, Ordering::Relaxed);
        self.free_stack.store(event.stack, Ordering::Relaxed);
        self.state.store(State::Freed as u8, Ordering::Release);
    }

    /// Gives a live object that the caller owns another size and span, at the same address.
    pub fn resize(&self, size: usize, span: Span) {
        self.size.store(size, Ordering::Relaxed);
        self.span_pages.store(span.pages.get(), Ordering::Relaxed);
    }

    /// The state.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            1 => State::Live,
            2 => State::Freeing,
            3 => State::Freed,
            4 => State::Checking,
            _ => State::Unused,
        }
    }

    /// The object's first byte.
    pub fn address(&self) -> Addr {
        Addr::new(self.address.load(Ordering::Relaxed))
    }

    /// Its requested size in bytes.
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// The pages it lies in.
    pub fn span(&self) -> Span {
        let start = Addr::new(self.span_start.load(Ordering::Relaxed));
        Span::new(start, PageCount::new(self.span_pages.load(Ordering::Relaxed)))
    }

    /// Who allocated it.
    pub fn origin(&self) -> Origin {
        Origin::from_tag(self.origin.load(Ordering::Relaxed))
    }

    /// Says that the object's pages were moved away: there is no slack to be checked.
    pub fn empty(&self) {
        self.opened.store(0, Ordering::Relaxed);
    }

    /// Names another family as its allocator.
    pub fn set_origin(&self, origin: Origin) {
        self.origin.store(origin as u8, Ordering::Relaxed);
    }

    /// Whether it has accessible pages while it lives.
    pub fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed) != 0
    }

    /// The record as reports show it; `None` for one that was never used.
    pub fn object(&self) -> Option<Object> {
        let state = self.state();
        (state != State::Unused).then(|| Object {
            start: self.address(),
            size: Some(self.size()),
            freed: !matches!(state, State::Live | State::Checking),
            origin: self.origin(),
            history: History {
                allocated: Event {
                    thread: self.alloc_thread.load(Ordering::Relaxed),
                    stack: self.alloc_stack.load(Ordering::Relaxed),
                },
                freed: Event {
                    thread: self.free_thread.load(Ordering::Relaxed),
                    stack: self.free_stack.load(Ordering::Relaxed),
                },
            },
        })
    }
}

impl Record {
    /// The record that these bytes are, read from another process's table: a copy to ask.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let number = |at: usize, len: usize| {
            (0..len).rev().fold(0_usize, |number, index| number << 8 | usize::from(byte(at + index)))
        };
        let word = |at| AtomicUsize::new(number(at, 8));
        let half = |at| AtomicU32::new(u32::try_from(number(at, 4)).unwrap_or(0));
        let tag = |at| AtomicU8::new(byte(at));
        Self {
            address: word(offset_of!(Self, address)),
            size: word(offset_of!(Self, size)),
            span_start: word(offset_of!(Self, span_start)),
            span_pages: word(offset_of!(Self, span_pages)),
            alloc_thread: half(offset_of!(Self, alloc_thread)),
            alloc_stack: half(offset_of!(Self, alloc_stack)),
            free_thread: half(offset_of!(Self, free_thread)),
            free_stack: half(offset_of!(Self, free_stack)),
            next: half(offset_of!(Self, next)),
            lane: half(offset_of!(Self, lane)),
            state: tag(offset_of!(Self, state)),
            origin: tag(offset_of!(Self, origin)),
            opened: tag(offset_of!(Self, opened)),
        }
    }
}

/// Records by which the open part of the table grows at least.
const OPEN_STEP: u32 = 1 << 14;

/// Bytes from which on the table may have huge pages: a large one is as long as the number of objects that ever
/// lived at once, and a fork copies its page tables.
const SMALL_BYTES: usize = 4 << 20;

/// The table of records.
pub struct Records {
    base: *const Record,
    /// How many there is room for.
    len: AtomicU32,
    /// Taken by whoever opens more of it, or gives the end of it back.
    bounds: Lock<()>,
    /// Records given out so far, from the front.
    used: AtomicU32,
    /// Records that may be touched, from the front; core files get these.
    opened: AtomicU32,
}

// SAFETY: the table is a mapping of atomics that lives as long as the process.
unsafe impl Send for Records {}
// SAFETY: as above.
unsafe impl Sync for Records {}

impl Records {
    /// A table without records.
    pub const EMPTY: Self = Self::new(core::ptr::null(), 0);

    const fn new(base: *const Record, len: u32) -> Self {
        Self {
            base,
            len: AtomicU32::new(len),
            bounds: Lock::new(()),
            used: AtomicU32::new(1),
            opened: AtomicU32::new(0),
        }
    }

    /// Maps a table of `len` records; `None` if the kernel refuses.
    pub fn map(len: u32) -> Option<Self> {
        let bytes = (len as usize).checked_mul(core::mem::size_of::<Record>())?;
        let base = vm::closed_tables(bytes)?.as_ptr::<Record>();
        let table = Self::new(base, len);
        table.open(1).then_some(table)
    }

    /// Opens the table up to `end`, and as much again; `false` if the kernel refuses.
    fn open(&self, end: u32) -> bool {
        if end <= self.opened.load(Ordering::Acquire) {
            return true;
        }
        let Some(_bounds) = self.bounds.enter() else { return false };
        let len = self.len.load(Ordering::Relaxed);
        if end > len {
            return false;
        }
        let part = end.next_multiple_of(OPEN_STEP).saturating_mul(2).min(len);
        let bytes = part as usize * size_of::<Record>();
        let opened = vm::commit(Span::new(Addr::of(self.base), PageCount::holding(bytes)));
        if opened {
            self.opened.fetch_max(part, Ordering::AcqRel);
            if let Some(bytes) = bytes.checked_sub(SMALL_BYTES) {
                vm::allow_huge_pages(Span::new(
                    Addr::of(self.base).plus(SMALL_BYTES),
                    PageCount::holding(bytes),
                ));
            }
        }
        opened
    }

    /// The record called `id`; `None` for 0 and for numbers that were not given out.
    pub fn get(&self, id: RecordId) -> Option<&Record> {
        if id.0 == 0 || id.0 >= self.opened.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the number is within the open part of the table, and zeroed memory is a valid record.
        Some(unsafe { &*self.base.add(id.0 as usize) })
    }

    /// Where the table is and how many records it has room for.
    pub fn table(&self) -> (Addr, u32) {
        (Addr::of(self.base), self.len.load(Ordering::Relaxed))
    }

    /// Gives back what is neither open nor among the first `least`.
    pub fn cut(&self, least: u32) {
        let Some(_bounds) = self.bounds.enter() else { return };
        let bytes = |count: u32| (count as usize * size_of::<Record>()).next_multiple_of(PAGE_SIZE);
        let had = self.len.load(Ordering::Relaxed);
        let kept = self.opened.load(Ordering::Relaxed).max(least).min(had);
        self.len.store(kept, Ordering::Relaxed);
        if let Some(more) = bytes(had).checked_sub(bytes(kept)).filter(|more| *more != 0) {
            let start = Addr::of(self.base).plus(bytes(kept));
            vm::give_back(Span::new(start, PageCount::holding(more)));
        }
    }

    /// Puts the lock in order in a forked child.
    ///
    /// # Safety
    /// As [`Lock::inherit`].
    pub unsafe fn inherit(&self) {
        // SAFETY: as the caller says. What is open is counted after it was opened, and what is gone before it went.
        unsafe { self.bounds.inherit(|()| ()) };
    }

    /// The same for what the calling thread has that does not come back to it.
    ///
    /// # Safety
    /// As [`Lock::abandon`].
    pub unsafe fn abandon(&self) {
        // SAFETY: as above.
        unsafe { self.bounds.abandon(|()| ()) };
    }

    /// One past the highest number given out.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed).min(self.len.load(Ordering::Relaxed))
    }

    /// Takes `count` consecutive records that were never used; the first's number.
    pub fn take_block(&self, count: u32) -> Option<RecordId> {
        let first = self.used.fetch_add(count, Ordering::Relaxed);
        let end = first.checked_add(count)?;
        if end > self.len.load(Ordering::Relaxed) {
            self.used.fetch_sub(count, Ordering::Relaxed);
            return None;
        }
        if !self.open(end) {
            return None;
        }
        Some(RecordId(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_use_survive_a_cut() {
        let records = Records::map(1 << 20).expect("mapping");
        let id = records.take_block(5).expect("room");
        records.cut(1 << 15);
        assert_eq!(records.table().1, 1 << 15);
        let span = Span::new(Addr::new(0x1000), PageCount::new(1));
        let record = records.get(id).expect("it was given out");
        record.allocate(span.start, 13, span, Origin::New, Event::default(), 0);
        assert_eq!(record.size(), 13);
        // What is left is given out, and no more than that.
        let mut given = 0;
        while records.take_block(64).is_some() {
            given += 64;
        }
        assert!((1 << 14..1 << 15).contains(&given), "{given}");
        assert!(records.get(RecordId((1 << 15) - 1)).is_some());
    }

    #[test]
    fn a_copy_says_what_the_record_says() {
        let record = Record::default();
        let span = Span::new(Addr::new(0x7000_0000_0000), PageCount::new(3));
        let event = Event { thread: 0x0102_0304, stack: 0x0506_0708 };
        record.allocate(Addr::new(0x7000_0000_0ff3), 13, span, Origin::New, event, 9);
        assert!(record.begin_free());
        record.end_free(Event { thread: 5, stack: 6 });
        // SAFETY: a record is plain integers, and the copy is made while nobody changes it.
        let bytes = unsafe { (&raw const record).cast::<[u8; size_of::<Record>()]>().read() };
        let copy = Record::from_bytes(&bytes);
        assert_eq!(std::format!("{:?}", copy.object()), std::format!("{:?}", record.object()));
        assert_eq!((copy.span(), copy.state()), (span, State::Freed));
        assert_eq!(Record::from_bytes(&[0; size_of::<Record>()]).state(), State::Unused);
    }
}
