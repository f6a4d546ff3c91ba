//! The page allocator alone: whole allocators with a small arena, guards by `mprotect`, so that no kernel feature is needed.

use super::release::Cursor;
use super::*;
use crate::fault::{Fault, Kind};
use crate::meta::State;
use crate::request::Claim;
use crate::request::Origin;
use crate::sys::vm;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::vec::Vec;

/// 512 chunks: 32 shards of 8, the void, and 224 for large objects.
const RESERVE: usize = 1 << 30;

const CONFIG: Config = Config {
    backend: Backend::Mprotect,
    limit: None,
    reserve: RESERVE,
    exact: false,
    canary: true,
    reach: PAGE_SIZE,
    budget: PageCount::new(1 << 20),
    history: 1 << 20,
    batch: 1,
    close_poisoned: false,
};

fn made(config: Config) -> Box<PageAllocator> {
    let mut allocator = Box::new(PageAllocator::NONE);
    assert!(allocator.init(config, &mut Rng::new()), "address space");
    allocator.use_shard();
    allocator
}

impl PageAllocator {
    /// Calls `held` with the lock of shard 0; `false` if that is out of reach.
    pub fn while_placing(&self, held: &mut dyn FnMut()) -> bool {
        self.shards.first().and_then(|entry| entry.shard.enter()).map(|_shard| held()).is_some()
    }

    /// An object of shard 0, at the left end of its pages.
    fn place(&self, size: usize) -> Addr {
        self.try_place(size, false).expect("room")
    }

    fn try_place(&self, size: usize, optional: bool) -> Result<Addr, Refusal> {
        self.allocate(&Request::c(size), Side::Left, optional, false, 0, Event::default(), &mut Rng::new())
    }

    fn release(&self, address: Addr) -> Result<(), Fault> {
        let claim = Claim { address, size: None, align: None, origin: Origin::Malloc };
        self.free(&claim, true, 0, Event::default())
    }

    fn resized(&self, address: Addr, size: usize) -> bool {
        let found = self.find_live(address).expect("a live object");
        self.resize(found, &Request::c(size), false)
    }

    fn record_id(&self, address: Addr) -> RecordId {
        let id = self.record_at(address);
        assert_ne!(id.0, 0, "{address:?} is somebody's");
        id
    }
}

/// The bytes from an address on; none if the page is closed.
fn bytes(address: Addr, len: usize) -> Vec<u8> {
    let mut buffer = std::vec![0; len];
    let count = vm::peek(address, &mut buffer);
    buffer.truncate(count);
    buffer
}

fn is_closed(address: Addr) -> bool {
    bytes(address, 1).is_empty()
}

fn write(address: Addr, byte: u8, count: usize) {
    // SAFETY: tests write to pages of their own allocators that are open.
    unsafe { address.as_ptr::<u8>().write_bytes(byte, count) };
}

#[test]
fn keys_are_drawn() {
    let words: BTreeSet<u64> = (0..4).map(|_| made(CONFIG).key.word_without_zero(0x1234_5000)).collect();
    assert!(words.len() > 1, "{words:x?}");
}

/// Neither the chunk nor the page in it of a large object is told by the arena.
#[test]
fn large_objects_lie_anywhere() {
    let (mut chunks, mut pages) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..8 {
        let allocator = made(CONFIG);
        let first = allocator.place(1 << 20);
        let within = first.offset_from(allocator.arena.region().start).expect("in the arena");
        chunks.insert(within / arena::CHUNK_BYTES);
        for address in (0..8).map(|_| allocator.place(1 << 20)).chain([first]) {
            pages.insert(address.get() % arena::CHUNK_BYTES / PAGE_SIZE);
        }
    }
    assert!(chunks.len() > 2 && pages.len() > 20, "{chunks:?} {pages:?}");
}

/// Neither its shard's first chunk nor where in a chunk an object lies is told by those before.
#[test]
fn small_objects_lie_anywhere() {
    let mut chunks = BTreeSet::new();
    for _ in 0..12 {
        let allocator = made(CONFIG);
        let objects: Vec<Addr> = (0..20).map(|_| allocator.place(100)).collect();
        chunks.extend(objects.iter().filter_map(|object| allocator.arena.chunk_of(*object)));
        let runs: BTreeSet<usize> =
            objects.iter().map(|object| (object.get() % arena::CHUNK_BYTES) >> 18).collect();
        assert!(runs.len() > 2, "{runs:?}");
    }
    assert!(chunks.len() > 2, "{chunks:?}");
}

/// What large objects leave behind them is given back, once their records are used again: their chunks name nobody.
#[test]
fn large_objects_leave_nothing_behind() {
    // Blocks of 1 GiB, 20 of them.
    let allocator = made(Config { reserve: 40 << 30, history: 8, ..CONFIG });
    let kept = allocator.place(200 << 20);
    let named = || {
        let chunks = allocator.arena.large_chunks();
        let starts = chunks.map(|chunk| allocator.arena.chunk_span(chunk, 1).start);
        starts.filter(|start| allocator.arena.record_at(*start).0 != 0).count()
    };
    let mut most = 0;
    for _ in 0..400 {
        let object = allocator.place(200 << 20);
        write(object, 1, 1);
        assert!(allocator.release(object).is_ok());
        assert!(allocator.find_live(kept).is_some() && allocator.record_id(object).0 != 0);
        most = most.max(named());
    }
    // The area has some 9,000 chunks, through which all went several times. An object has 101, and 8 are remembered.
    assert!(most < 6_000 && allocator.find_live(kept).is_some(), "{most}");
}

/// The chunks of a freed large object are free, and its memory is gone.
#[test]
fn large_objects_come_and_go() {
    let allocator = made(CONFIG);
    let address = allocator.place(1 << 20);
    let (span, id) =
        (allocator.find_live(address).expect("live").record.span(), allocator.record_id(address));
    let (first, count) = allocator.large_chunks(span, id).expect("chunks");
    assert!(!allocator.arena.are_free(first, count));
    write(address, 1, 1 << 20);
    assert!(allocator.release(address).is_ok());
    assert!(allocator.arena.are_free(first, count) && is_closed(address));
    assert_eq!(allocator.release(address).map_err(|fault| fault.kind), Err(Kind::DoubleFree));
}

/// What an access wrote that was allowed to go on is in no object afterwards, and closed again around it.
#[test]
fn what_was_allowed_is_closed_before_it_is_used() {
    let allocator = made(Config { canary: false, ..CONFIG });
    let first = allocator.place(100).page_floor();
    let chunk = allocator.arena.chunk_of(first).expect("a chunk");
    let all = allocator.arena.chunk_span(chunk, 1);
    for page in
        (0..all.pages.get()).map(|page| all.start.plus(page * PAGE_SIZE)).filter(|page| *page != first)
    {
        assert!(allocator.open_for_access(page));
        write(page, 0x5a, PAGE_SIZE);
    }
    let object = allocator.place(2 * PAGE_SIZE);
    assert_eq!(allocator.arena.chunk_of(object), Some(chunk));
    let clear = |from: Addr, pages: usize| bytes(from, pages * PAGE_SIZE) == std::vec![0; pages * PAGE_SIZE];
    assert!(clear(object, 2), "an object has what an access left");
    let behind = object.plus(2 * PAGE_SIZE);
    assert!(is_closed(behind) && is_closed(object.minus(1)));
    for page in [behind, behind.plus(PAGE_SIZE)] {
        assert!(allocator.open_for_access(page));
        write(page, 0x5a, PAGE_SIZE);
    }
    assert!(allocator.resized(object, 3 * PAGE_SIZE));
    assert!(clear(behind, 1), "an object grew over what an access left");
    assert!(is_closed(behind.plus(PAGE_SIZE)));
}

#[test]
fn objects_of_no_bytes_are_closed() {
    let allocator = made(CONFIG);
    let nothing = [(); 3].map(|()| allocator.place(0));
    for address in nothing {
        assert!(is_closed(address) && allocator.is_in_void(address));
        assert!(allocator.release(address).is_ok());
        assert_eq!(allocator.release(address).map_err(|fault| fault.kind), Err(Kind::DoubleFree));
    }
}

#[test]
fn every_page_names_its_object() {
    let allocator = made(CONFIG);
    let object = allocator.place(5 * PAGE_SIZE);
    let id = allocator.record_id(object);
    assert!((0..5).all(|page| allocator.record_at(object.plus(page * PAGE_SIZE)) == id));
    assert!(allocator.resized(object, 6 * PAGE_SIZE));
    assert_eq!(allocator.record_at(object.plus(5 * PAGE_SIZE)), id);
    assert!(allocator.release(object).is_ok());
    let interior = allocator.release(object.plus(5 * PAGE_SIZE)).map_err(|fault| fault.kind);
    assert_eq!(interior, Err(Kind::InvalidFree));
}

/// In a shard of one chunk, which is used again once it is full and all is freed.
#[test]
fn a_chunk_that_is_used_again_names_nobody() {
    let allocator = made(Config { reserve: 8 << 20, ..CONFIG });
    let small: Vec<Addr> = (0..8).map(|_| allocator.place(100)).collect();
    let old: BTreeSet<u32> = small.iter().map(|object| allocator.record_id(*object).0).collect();
    assert!(small.iter().all(|object| allocator.release(*object).is_ok()));
    let chunk = allocator.arena.chunk_of(small[0]).expect("a chunk");
    let all = allocator.arena.chunk_span(chunk, 1);
    let named = || {
        let pages = (0..all.pages.get()).map(|page| all.start.plus(page * PAGE_SIZE));
        pages.filter(|page| old.contains(&allocator.record_at(*page).0)).count()
    };
    assert_eq!(named(), small.len());
    // One for each run of pages at most, and one that finds none.
    for _ in 0..9 {
        let object = allocator.place(60 * PAGE_SIZE);
        assert_eq!(allocator.arena.chunk_of(object), Some(chunk));
        assert!(allocator.release(object).is_ok());
    }
    assert_eq!(named(), 0);
}

/// Of so many freed objects the records are kept, and of no more.
#[test]
fn the_history_is_as_long_as_the_option_says() {
    const HISTORY: usize = 200;
    let allocator = made(Config { history: HISTORY as u64, ..CONFIG });
    let objects: Vec<Addr> = (0..900)
        .map(|_| {
            let object = allocator.place(100);
            assert!(allocator.release(object).is_ok());
            object
        })
        .collect();
    let known = |object: &Addr| {
        let record = allocator.records.get(allocator.record_at(*object));
        record.is_some_and(|record| record.address() == *object && record.state() == State::Freed)
    };
    let (old, new) = objects.split_at(objects.len() - HISTORY);
    assert!(new.iter().all(known), "{}", new.iter().filter(|object| !known(object)).count());
    assert!(
        old.iter().filter(|object| known(object)).count() < 70,
        "{}",
        old.iter().filter(|object| known(object)).count()
    );
}

/// A thread that frees an object of a shard it cannot have leaves its record for who has the shard next.
#[test]
fn records_freed_from_elsewhere_come_back() {
    let allocator = made(CONFIG);
    let objects: Vec<Addr> = (0..5).map(|_| allocator.place(100)).collect();
    let entry = &allocator.shards[0];
    let remembered = || entry.shard.enter().expect("nobody has it").remembered();
    let taken = entry.shard.enter();
    assert!(objects.iter().all(|object| allocator.release(*object).is_ok()));
    drop(taken);
    assert_eq!(remembered(), 0);
    allocator.place(100);
    assert_eq!(remembered(), 5);
}

/// What was taken for an object that found no room is given back.
#[test]
fn a_full_shard_costs_no_records() {
    let allocator = made(Config { reserve: 8 << 20, ..CONFIG });
    let mut placed = 0;
    while allocator.try_place(100, true).is_ok() {
        placed += 1;
    }
    assert!(placed > 200, "{placed}");
    let remembered = || allocator.shards[0].shard.enter().expect("nobody has it").remembered();
    let before = remembered();
    (0..10).for_each(|_| assert_eq!(allocator.try_place(100, true), Err(Refusal::Memory)));
    assert_eq!(remembered(), before + 10);
}

/// The budget is kept, and what is freed is of use again.
#[test]
fn guarded_memory_keeps_within_its_budget() {
    const BUDGET: usize = 3 * SHARDS;
    let allocator = made(Config { budget: PageCount::new(BUDGET), ..CONFIG });
    for _ in 0..3 {
        let objects: Vec<Addr> = (0..4 * BUDGET).map_while(|_| allocator.try_place(100, true).ok()).collect();
        assert_eq!(objects.len(), BUDGET);
        assert!(matches!(allocator.try_place(100, true), Err(Refusal::Budget)));
        // What must be guarded is.
        let more = allocator.place(100);
        assert!(objects.iter().chain([&more]).all(|object| allocator.release(*object).is_ok()));
        assert_eq!(allocator.live_pages(), 0);
        // For a while it is not even asked; once it was.
        assert!((1..REFUSALS).all(|_| allocator.try_place(100, true) == Err(Refusal::Budget)));
    }
}

/// More objects than there may be mappings, one after the other.
#[test]
fn a_freed_object_costs_no_mapping() {
    let allocator = made(CONFIG);
    let most = usize::try_from(machine::max_map_count()).expect("a number").min(70_000);
    for _ in 0..most / 2 + 1_000 {
        let object = allocator.try_place(100, true).expect("a mapping");
        assert!(allocator.release(object).is_ok());
    }
}

/// A resize shows nothing of the canary: neither where the object grows, nor where it moves.
#[test]
fn no_canary_becomes_part_of_an_object() {
    let allocator = made(CONFIG);
    let object = allocator.place(100);
    assert_eq!(bytes(object, 101)[..100], [0; 100]);
    assert_ne!(bytes(object, 101)[100], 0);
    assert!(allocator.resized(object, 3_000));
    assert_eq!(bytes(object, 3_000), std::vec![0; 3_000]);
    let large = allocator.place(300_000);
    let found = allocator.find_live(large).expect("live");
    let moved =
        allocator.relocate(found, &Request::c(3_000_000), false, 0, Event::default(), &mut Rng::new());
    let moved = moved.expect("room");
    assert_eq!(bytes(moved, 310_000), std::vec![0; 310_000]);
}

/// An object whose slack was written is not resized: its free finds the error.
#[test]
fn slack_is_looked_at_before_a_resize() {
    let allocator = made(CONFIG);
    let object = allocator.place(100);
    write(object.plus(100), 1, 1);
    assert!(!allocator.resized(object, 50) && !allocator.resized(object, 3_000));
    let fault = allocator.release(object).expect_err("the byte was written");
    assert_eq!((fault.kind, fault.address), (Kind::CanaryOverwritten, object.plus(100)));
}

#[test]
fn pages_that_a_shrink_gave_up_are_closed() {
    let allocator = made(CONFIG);
    let object = allocator.place(5 * PAGE_SIZE);
    assert!(allocator.resized(object, 2 * PAGE_SIZE));
    assert!(is_closed(object.plus(2 * PAGE_SIZE)) && is_closed(object.plus(4 * PAGE_SIZE)));
    assert_eq!(allocator.live_pages(), 2);
}

/// What is written into a batch's objects, or behind them, is found when the batch ends: at the latest by a check.
#[test]
fn a_batch_is_looked_at_when_it_ends() {
    for (at, kind) in [(7, Kind::WriteAfterFree), (100, Kind::CanaryOverwritten)] {
        for by_check in [false, true] {
            let allocator = made(Config { batch: 4, ..CONFIG });
            let objects: Vec<Addr> = (0..4).map(|_| allocator.place(100)).collect();
            let (last, first) = objects.split_last().expect("four");
            assert!(first.iter().all(|object| allocator.release(*object).is_ok()));
            assert_eq!(bytes(first[1], 100), [0; 100]);
            write(first[1].plus(at), 1, 1);
            let fault = match by_check {
                true => allocator.next_wrong(&mut { Cursor::START }),
                false => allocator.release(*last).err(),
            };
            let fault = fault.expect("a byte was written");
            assert_eq!((fault.kind, fault.address), (kind, first[1].plus(at)));
            assert!(is_closed(first[0]) && is_closed(first[1]));
        }
    }
}

/// A free beside a look leaves the pages open, and who looked closes them.
#[test]
fn who_looks_closes_what_was_freed_meanwhile() {
    let allocator = made(CONFIG);
    let object = allocator.place(100);
    let id = allocator.record_id(object);
    let record = allocator.records.get(id).expect("a record");
    assert!(record.begin_check() && !record.begin_check(), "one at a time looks");
    assert!(!record.begin_resize(object), "no resize beside a look");
    assert!(allocator.release(object).is_ok());
    assert!(!is_closed(object));
    allocator.end_look(id, record);
    assert!(is_closed(object));
    assert_eq!(record.state(), State::Freed);
}

#[test]
fn a_shard_that_was_abandoned_begins_anew() {
    let allocator = made(CONFIG);
    let objects: Vec<Addr> = (0..20).map(|_| allocator.place(100)).collect();
    assert!(objects.iter().take(10).all(|object| allocator.release(*object).is_ok()));
    let mut shard = allocator.shards[0].shard.enter().expect("nobody has it");
    assert!(shard.is_used() && shard.remembered() == 10);
    let chunks = shard.touched();
    shard.reset();
    assert!(shard.is_used() && shard.remembered() == 0);
    assert_ne!(shard.touched(), chunks);
    drop(shard);
    let more = allocator.place(100);
    assert!(objects.iter().skip(10).all(|object| *object != more && allocator.release(*object).is_ok()));
}
