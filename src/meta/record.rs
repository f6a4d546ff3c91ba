//! Records of guarded objects: one for each live object, and one for each freed object that is remembered.
//!
//! Records lie in one table and are named by number. All fields are atomics: a report may read a record at any moment,
//! while its thread changes it or after it was damaged. The object's address and its state are one word, the record's
//! lock. The thread that moves the word from `Live` to `Freeing` frees the object at that address, and no other object
//! that the record was used for meanwhile.
//!
//! | from | to | by | when |
//! |---|---|---|---|
//! | `Unused`, `Freed` | `Live` | the allocating thread, which took the record off a shard's list | all else is written |
//! | `Live` | `Freeing` | one freeing thread, by compare and exchange | it starts to free |
//! | `Freeing` | `Freed` | the same | the pages are closed |
//! | `Freeing` | `Live` | the same | the free was refused, or it was a resize |
//! | `Live` | `Live`, poisoned | the thread that poisons bytes of it, by compare and exchange | its bits are clear |
//! | `Live`, poisoned | `Live` | the thread that resizes it | its bits are clear |
//! | `Freeing`, poisoned | `Freeing` | the freeing thread | its bits are clear |
//! | `Live` | `Live`, claimed | a sweep, by compare and exchange | it begins to check the object's slack |
//! | claimed | not claimed | the same | it has checked |
//! | `Freeing`, claimed | `Left`, claimed | the freeing thread | the free is complete but for the pages, which the sweep still reads |
//! | `Left` | `Freed` | the sweep | it has checked, and closed the pages |
//!
//! No thread waits: a free leaves the closing to the sweep, and a resize in place is refused during a claim. A forked
//! child ends the claim of a sweep whose thread it does not have; it knows the record ([`super::super::page`]).

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::{Event, History, Object};
use crate::request::Origin;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
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
    /// Freed, with its pages still to be closed by the sweep that looks at them.
    Left = 4,
}

/// A record's address and state.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
struct Head(u64);

impl Head {
    /// Bits of the state, of [`Head::LOOKED`] and [`Head::POISONED`]: user addresses end at bit 47, or 56 with five levels of page
    /// tables, and so fit above.
    const STATE_BITS: u32 = 8;
    /// A sweep looks at the object's surroundings.
    const LOOKED: u64 = 1 << 7;
    /// The object has bytes that the program poisoned.
    const POISONED: u64 = 1 << 6;
    const STATE: u64 = Self::POISONED - 1;

    const fn new(address: Addr, state: State) -> Self {
        Self((address.get() as u64) << Self::STATE_BITS | state as u64)
    }

    const fn address(self) -> Addr {
        Addr::new((self.0 >> Self::STATE_BITS) as usize)
    }

    const fn state(self) -> State {
        match self.0 & Self::STATE {
            1 => State::Live,
            2 => State::Freeing,
            3 => State::Freed,
            4 => State::Left,
            _ => State::Unused,
        }
    }

    const fn with(self, state: State) -> Self {
        Self(self.0 & !Self::STATE | state as u64)
    }

    const fn is_poisoned(self) -> bool {
        self.0 & Self::POISONED != 0
    }

    const fn is_looked_at(self) -> bool {
        self.0 & Self::LOOKED != 0
    }
}

/// A record's number; 0 is no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct RecordId(pub u32);

/// A guarded object.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Record {
    head: AtomicU64,
    size: AtomicUsize,
    span_start: AtomicUsize,
    span_pages: AtomicUsize,
    alloc_thread: AtomicU32,
    alloc_stack: AtomicU32,
    free_thread: AtomicU32,
    free_stack: AtomicU32,
    /// The next record in a shard's list.
    pub next: AtomicU32,
    /// The shard that accounts for the object.
    pub shard: AtomicU32,
    origin: AtomicU8,
    /// Whether the object has pages that it may use: not if it has zero bytes or was moved away.
    opened: AtomicU8,
    /// How it was placed: log2 of the alignment asked for, and [`LEFT`].
    placing: AtomicU8,
}

/// The bit of [`Record::set_placement`]'s byte that says the object touches the guard before it.
const LEFT: u8 = 1 << 7;

impl Record {
    /// Fills the record for a new object and makes it live.
    pub fn allocate(&self, address: Addr, size: usize, span: Span, origin: Origin, event: Event, shard: u32) {
        self.size.store(size, Ordering::Relaxed);
        self.span_start.store(span.start.get(), Ordering::Relaxed);
        self.span_pages.store(span.pages.get(), Ordering::Relaxed);
        self.alloc_thread.store(event.thread, Ordering::Relaxed);
        self.alloc_stack.store(event.stack, Ordering::Relaxed);
        self.free_thread.store(0, Ordering::Relaxed);
        self.free_stack.store(0, Ordering::Relaxed);
        self.shard.store(shard, Ordering::Relaxed);
        self.origin.store(origin as u8, Ordering::Relaxed);
        self.opened.store(u8::from(size != 0), Ordering::Relaxed);
        self.head.store(Head::new(address, State::Live).0, Ordering::Release);
    }

    fn head(&self) -> Head {
        Head(self.head.load(Ordering::Acquire))
    }

    /// Says how a new object is placed, before it is made live: with which alignment, a power of two, and whether
    /// against the guard before it.
    pub fn set_placement(&self, align: usize, left: bool) {
        let shift = align.trailing_zeros() as u8 & !LEFT;
        self.placing.store(shift | if left { LEFT } else { 0 }, Ordering::Relaxed);
    }

    /// The alignment it was asked for with.
    pub fn align(&self) -> usize {
        1_usize.checked_shl((self.placing.load(Ordering::Relaxed) & !LEFT).into()).unwrap_or(0)
    }

    /// Whether it was placed against the guard before it.
    pub fn is_left(&self) -> bool {
        self.placing.load(Ordering::Relaxed) & LEFT != 0
    }

    /// Replaces the head by what `change` makes of it, until `None`; what it was then, or before the change.
    fn change(&self, change: impl Fn(Head) -> Option<Head>) -> Result<Head, Head> {
        loop {
            let head = self.head();
            let new = change(head).ok_or(head)?;
            if self.head.compare_exchange(head.0, new.0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(head);
            }
        }
    }

    /// Claims the object for freeing if it is live and at `address`: `true` for exactly one of all threads that
    /// try.
    pub fn begin_free(&self, address: Addr) -> bool {
        let live = |head: Head| head.state() == State::Live && head.address() == address;
        self.change(|head| live(head).then(|| head.with(State::Freeing))).is_ok()
    }

    /// Claims the object for a change of its pages: as [`Record::begin_free`], and not while a sweep looks at it.
    pub fn begin_resize(&self, address: Addr) -> bool {
        let live = Head::new(address, State::Live);
        self.change(|head| (head == live).then(|| head.with(State::Freeing))).is_ok()
    }

    /// Takes [`Record::begin_free`] or [`Record::begin_resize`] back.
    pub fn refuse_free(&self) {
        let _ = self.change(|head| Some(head.with(State::Live)));
    }

    /// Says who frees the object that this thread claimed. Whether its pages are this thread's to close, which then
    /// calls [`Record::end_free`]; else a sweep looks at them, and closes them.
    pub fn begin_close(&self, event: Event) -> bool {
        self.free_thread.store(event.thread, Ordering::Relaxed);
        self.free_stack.store(event.stack, Ordering::Relaxed);
        self.change(|head| head.is_looked_at().then(|| head.with(State::Left))).is_err()
    }

    /// Ends the object's life: its pages are closed.
    pub fn end_free(&self) {
        let freed = self.head().with(State::Freed);
        self.head.store(freed.0, Ordering::Release);
    }

    /// Claims the object for a look at its surroundings, if it is live and nobody looks.
    pub fn begin_check(&self) -> bool {
        let free = |head: Head| head.state() == State::Live && !head.is_looked_at();
        self.change(|head| free(head).then_some(Head(head.0 | Head::LOOKED))).is_ok()
    }

    /// Ends the look. Whether the object was freed meanwhile and its pages are left to this thread, which closes
    /// them and calls [`Record::end_free`].
    pub fn end_check(&self) -> bool {
        let before = self.change(|head| head.is_looked_at().then_some(Head(head.0 & !Head::LOOKED)));
        before.is_ok_and(|head| head.state() == State::Left)
    }

    /// Gives a live object that the caller owns another size and span, at the same address.
    pub fn resize(&self, size: usize, span: Span) {
        self.size.store(size, Ordering::Relaxed);
        self.span_pages.store(span.pages.get(), Ordering::Relaxed);
    }

    /// The state.
    pub fn state(&self) -> State {
        self.head().state()
    }

    /// Whether the object is live.
    pub fn is_live(&self) -> bool {
        self.state() == State::Live
    }

    /// Whether the object is live, and none of its bytes are poisoned.
    #[inline(always)]
    pub fn is_plainly_live(&self) -> bool {
        self.head().0 & (Head::STATE | Head::POISONED) == State::Live as u64
    }

    /// Whether the object may have poisoned bytes.
    #[inline(always)]
    pub fn is_poisoned(&self) -> bool {
        self.head().is_poisoned()
    }

    /// Says that the object at `address` may have poisoned bytes; `false` if it is not live there.
    pub fn mark_poisoned(&self, address: Addr) -> bool {
        let live = |head: Head| head.state() == State::Live && head.address() == address;
        self.change(|head| live(head).then_some(Head(head.0 | Head::POISONED))).is_ok()
    }

    /// Says that it has none.
    pub fn unmark_poisoned(&self) {
        let _ = self.change(|head| Some(Head(head.0 & !Head::POISONED)));
    }

    /// Whether the object is live and at `address`.
    pub fn is_live_at(&self, address: Addr) -> bool {
        let head = self.head();
        head.state() == State::Live && head.address() == address
    }

    /// The object's first byte.
    pub fn address(&self) -> Addr {
        self.head().address()
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
            freed: state != State::Live,
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
            head: AtomicU64::new(number(offset_of!(Self, head), 8) as u64),
            size: word(offset_of!(Self, size)),
            span_start: word(offset_of!(Self, span_start)),
            span_pages: word(offset_of!(Self, span_pages)),
            alloc_thread: half(offset_of!(Self, alloc_thread)),
            alloc_stack: half(offset_of!(Self, alloc_stack)),
            free_thread: half(offset_of!(Self, free_thread)),
            free_stack: half(offset_of!(Self, free_stack)),
            next: half(offset_of!(Self, next)),
            shard: half(offset_of!(Self, shard)),
            origin: tag(offset_of!(Self, origin)),
            opened: tag(offset_of!(Self, opened)),
            placing: tag(offset_of!(Self, placing)),
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
    /// Taken by a thread that opens more of it, or unmaps the end of it.
    bounds: Lock<()>,
    /// Records given out so far, from the front.
    used: AtomicU32,
    /// Records that may be touched, from the front; core files get these.
    opened: AtomicU32,
}

// SAFETY: the table is a mapping of atomics that lives as long as the process.
unsafe impl Send for Records {}
// SAFETY: records are atomics, and the other fields change under `bounds` or are atomics.
unsafe impl Sync for Records {}

impl Records {
    /// A table without records.
    pub const EMPTY: Self = Self::new(core::ptr::null(), 0);

    const fn new(base: *const Record, len: u32) -> Self {
        Self {
            base,
            len: AtomicU32::new(len),
            bounds: Lock::new(Rank::Records, ()),
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
            vm::unreserve(Span::new(start, PageCount::holding(more)));
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
        // SAFETY: no guard of this thread is used any more, as the caller says. The counts under the lock are
        // right after each step.
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
        record.set_placement(64, true);
        record.allocate(Addr::new(0x7000_0000_0ff3), 13, span, Origin::New, event, 9);
        assert!(!record.begin_free(Addr::new(0x7000_0000_0ff2)));
        assert!(record.begin_free(Addr::new(0x7000_0000_0ff3)));
        assert!(record.begin_close(Event { thread: 5, stack: 6 }));
        record.end_free();
        // SAFETY: a record is plain integers, and the copy is made while nobody changes it.
        let bytes = unsafe { (&raw const record).cast::<[u8; size_of::<Record>()]>().read() };
        let copy = Record::from_bytes(&bytes);
        assert_eq!(std::format!("{:?}", copy.object()), std::format!("{:?}", record.object()));
        assert_eq!((copy.span(), copy.state()), (span, State::Freed));
        assert_eq!((copy.align(), copy.is_left()), (64, true));
        assert_eq!(Record::from_bytes(&[0; size_of::<Record>()]).state(), State::Unused);
    }
}
