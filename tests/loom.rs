//! Models of the lock-free parts, run by loom under every interleaving and every outcome that the memory
//! orderings permit.
//!
//! The code itself is under test: `meta::record`, `trace::depot`, `trace::cache`, `page::chunk`, `page::returns`, `slab::batches`,
//! `slab::depot`, `slab::fifo`, `slab::look` and `sync::lock` are included as they are, with small modules here in the place
//! of what they use. Their atomics are [`sync::atomic`]'s, which are loom's inside a model; unlike loom's own they can be
//! constants and lie in zeroed memory.
//!
//! Each protocol has a mutation: the same model with a step left out or two swapped, which has to fail.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom --target-dir target/loom`; without the flag this
//! file is empty.

#![cfg(loom)]
// Each included file is used in part.
#![allow(dead_code)]

#[path = "../src/addr.rs"]
mod addr;
#[path = "../src/slab/batches.rs"]
mod batches;
#[path = "../src/page/chunk.rs"]
mod chunk;
#[path = "../src/fault.rs"]
mod fault;
#[path = "../src/slab/fifo.rs"]
mod fifo;
#[path = "../src/slab/look.rs"]
mod look;
#[path = "../src/meta/record.rs"]
mod record;
#[path = "../src/request.rs"]
mod request;
#[path = "../src/page/returns.rs"]
mod returns;
#[path = "../src/slab/depot.rs"]
mod slab_depot;
#[path = "loom/sync.rs"]
mod sync;
#[path = "loom/sys.rs"]
mod sys;
/// As `src/meta/mod.rs` has them.
mod meta {
    pub use crate::record::*;
}
/// As `src/trace/mod.rs` has them.
#[path = "../src/trace"]
mod trace {
    pub mod cache;
    pub mod depot;
    pub mod frames;
    pub mod rule;
}

use addr::{Addr, PageCount, Span};
use fault::Event;
use loom::sync::Arc;
use loom::thread;
use record::{Record, RecordId, Records, State};
use request::Origin;
use returns::Returns;
use sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
use sync::{Guard, Lock, Rank};
use trace::cache::Cache;
use trace::depot::Depot;
use trace::frames::Frames;
use trace::rule::{CallerFp, Kind, Rule, SP};

/// Runs `model` under loom. Threads are interrupted elsewhere than where they wait at most three times:
/// without a bound the larger models take hours.
fn model(model: impl Fn() + Sync + Send + 'static) {
    bounded_model(3, model);
}

fn bounded_model(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(move || {
        let model_here = sync::enter();
        model();
        drop(model_here);
        sys::vm::unmap_all();
    });
}

/// What an object's first, second, … life in one record looks like: all fields tell which it is.
fn begin_life(record: &Record, life: usize) {
    let span = Span::new(Addr::new(life * 0x10_000), PageCount::new(life));
    record.allocate(start_of(life), life * 100, span, Origin::Rust, event(life), 0);
}

fn start_of(life: usize) -> Addr {
    Addr::new(life * 0x10_000 + life)
}

fn event(life: usize) -> Event {
    Event { thread: life as u32, stack: life as u32 + 10 }
}

/// A record that was never used. Loom wants atomics made before there are threads that race for them, and
/// they are made when they are first used.
fn unused_record() -> Arc<Record> {
    let record = Arc::new(Record::default());
    assert!(!record.is_opened() && record.state() == State::Unused && record.object().is_none());
    record.lane.store(0, Ordering::Relaxed);
    assert!(record.begin_close(Event::default()));
    record.end_free();
    assert!(record.object().is_some() && record.span() == Span::default());
    record
}

fn live_record() -> Arc<Record> {
    let record = unused_record();
    begin_life(&record, 1);
    record
}

/// An object, and whether its pages are open.
struct Guarded {
    record: Arc<Record>,
    open: AtomicU32,
}

impl Guarded {
    fn new() -> Arc<Self> {
        let open = AtomicU32::new(0);
        open.store(1, Ordering::Relaxed);
        Arc::new(Self { record: live_record(), open })
    }

    fn close(&self) {
        assert_eq!(self.open.swap(0, Ordering::AcqRel), 1, "closed twice");
        self.record.end_free();
    }

    /// As the page arm frees; whether this thread freed it.
    fn free(&self, thread: usize) -> bool {
        let won = self.record.begin_free(start_of(1));
        if won && self.record.begin_close(event(thread)) {
            self.close();
        }
        won
    }

    /// As a sweep looks.
    fn look(&self) {
        if self.record.begin_check() {
            assert_eq!(self.open.load(Ordering::Relaxed), 1, "closed under the look");
            if self.record.end_check() {
                self.close();
            }
        }
    }
}

#[test]
fn one_of_two_frees_wins() {
    model(|| {
        let object = Guarded::new();
        let other = object.clone();
        let second = thread::spawn(move || other.free(2));
        let first = object.free(1);
        let second = second.join().expect("no panic");
        assert!(first ^ second, "freed by {}", u8::from(first) + u8::from(second));
        assert_eq!(object.record.state(), State::Freed);
        let known = object.record.object().expect("it was used");
        assert_eq!(known.history.freed, event(if first { 1 } else { 2 }));
    });
}

fn sweep_and_free(free: fn(&Guarded, usize) -> bool) {
    model(move || {
        let object = Guarded::new();
        let other = object.clone();
        let sweep = thread::spawn(move || other.look());
        let other = object.clone();
        let second = thread::spawn(move || free(&other, 2));
        let first = free(&object, 1);
        let second = second.join().expect("no panic");
        sweep.join().expect("no panic");
        assert!(first ^ second);
        assert_eq!(object.record.state(), State::Freed);
        assert_eq!(object.open.load(Ordering::Relaxed), 0, "closed by one of the three");
    });
}

/// A sweep looks at an object while two threads free it: one of them does, nobody closes pages under the look, and
/// somebody closes them.
#[test]
fn a_free_leaves_the_closing_to_who_looks() {
    sweep_and_free(Guarded::free);
}

/// The mutation: a free that closes whether or not somebody looks.
#[test]
#[should_panic(expected = "closed")]
fn a_free_that_overrules_a_look_is_found() {
    sweep_and_free(|object, thread| {
        let won = object.record.begin_free(start_of(1));
        if won {
            object.record.begin_close(event(thread));
            object.open.store(0, Ordering::Release);
            object.record.end_free();
        }
        won
    });
}

/// Pages of an object that somebody looks at are not changed by a resize, nor looked at while they are.
#[test]
fn a_resize_and_a_look_exclude_each_other() {
    model(|| {
        let object = Guarded::new();
        let other = object.clone();
        let sweep = thread::spawn(move || other.look());
        if object.record.begin_resize(start_of(1)) {
            assert_eq!(object.open.swap(0, Ordering::AcqRel), 1);
            object.open.store(1, Ordering::Release);
            object.record.refuse_free();
        }
        sweep.join().expect("no panic");
        assert!(object.record.is_live_at(start_of(1)));
    });
}

fn reuse(stale: fn(&Record) -> bool) {
    model(move || {
        let record = live_record();
        let other = record.clone();
        let owner = thread::spawn(move || {
            let freed = free(&other, 1);
            if freed {
                begin_life(&other, 2);
            }
            freed
        });
        let stale = stale(&record);
        let owner = owner.join().expect("no panic");
        assert!(stale ^ owner, "the object of the first life is freed once");
        assert_eq!(record.is_live_at(start_of(2)), owner, "the second life is untouched");
    });
}

/// Frees the object of the record's first life as the page arm does, without a sweep.
fn free(record: &Record, thread: usize) -> bool {
    let won = record.begin_free(start_of(1));
    if won && record.begin_close(event(thread)) {
        record.end_free();
    }
    won
}

/// A free of an object whose record has another one by the time frees nothing.
#[test]
fn a_stale_free_does_not_free_what_came_after() {
    reuse(|record| free(record, 3));
}

/// The mutation: the address is compared before the record is claimed and not with it.
#[test]
#[should_panic]
fn a_comparison_before_the_claim_is_found() {
    reuse(|record| {
        let same = record.address() == start_of(1);
        thread::yield_now();
        let won = same && record.begin_free(record.address());
        if won && record.begin_close(event(3)) {
            record.end_free();
        }
        won
    });
}

/// Whoever sees a record live sees everything of that life, and whoever sees it freed who freed it.
#[test]
fn a_reader_sees_the_whole_life() {
    model(|| {
        let record = unused_record();
        let writer = {
            let record = record.clone();
            thread::spawn(move || {
                begin_life(&record, 1);
                assert!(free(&record, 1));
            })
        };
        let object = record.object().expect("it ended a life of nothing");
        if !object.freed {
            assert_eq!((object.start, object.size), (start_of(1), Some(100)));
            assert_eq!(object.history.allocated, event(1));
        }
        writer.join().expect("no panic");
        assert_eq!(record.object().map(|object| object.history.freed), Some(event(1)));
    });
}

/// A record that is used again: once it is seen live after it was seen freed, it has nothing of the life
/// before. (A reader that began in the first life may see fields of the second: reports bear that.)
#[test]
fn a_reader_sees_nothing_stale() {
    model(|| {
        let record = live_record();
        let writer = {
            let record = record.clone();
            thread::spawn(move || {
                assert!(free(&record, 1));
                begin_life(&record, 2);
            })
        };
        if record.state() == State::Freed && record.state() == State::Live {
            assert_eq!((record.address(), record.size()), (start_of(2), 200));
            assert_eq!(record.span().pages, PageCount::new(2));
        }
        writer.join().expect("no panic");
    });
}

/// The stack with these program counters.
fn stack(pcs: &[usize]) -> Frames {
    let mut frames = Frames::EMPTY;
    pcs.iter().for_each(|pc| frames.push(*pc));
    frames
}

/// Where a stack's search in the depot's table starts: the depot's own function.
fn home(pcs: &[usize]) -> usize {
    let hash = pcs.iter().fold(pcs.len() as u64, |hash, pc| {
        (hash.rotate_left(5) ^ *pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (hash >> 46) as usize
}

/// Two stacks whose searches start at one place: there two threads meet.
fn colliding() -> [usize; 2] {
    let first = 0x5555_0000;
    let second = (first + 1..).find(|pc| home(&[*pc]) == home(&[first]));
    [first, second.expect("there are more stacks than places")]
}

/// A depot, and all atomics made that `stacks` take; as for [`unused_record`].
fn empty_depot(stacks: &[&[usize]]) -> Arc<Depot> {
    let depot = Depot::map(true).expect("the stub maps");
    assert!((1..16).all(|number| depot.get(number).as_slice().is_empty()));
    let table = sys::vm::nth(0).as_ptr::<AtomicU32>();
    for place in stacks.iter().flat_map(|pcs| home(pcs)..home(pcs) + stacks.len()) {
        // SAFETY: the stub maps more than the table's places, and zero bytes are an atomic.
        assert_eq!(unsafe { (*table.add(place)).load(Ordering::Relaxed) }, 0);
    }
    assert_ne!(depot.insert(&stack(&[0x5555_3000])), 0);
    Arc::new(depot)
}

fn insert_on_two_threads(first: Vec<usize>, second: Vec<usize>) {
    model(move || {
        let depot = empty_depot(&[&first, &second]);
        let other = {
            let (depot, pcs) = (depot.clone(), second.clone());
            thread::spawn(move || insert(&depot, &pcs))
        };
        let number = insert(&depot, &first);
        let other = other.join().expect("no panic");
        assert_eq!(number == other, first == second, "{number} {other}");
        assert_eq!(depot.get(number).as_slice(), first);
        assert_eq!(depot.get(other).as_slice(), second);
        assert_eq!(depot.insert(&stack(&first)), number, "a stack keeps its number");
    });
}

/// Inserts and reads back.
fn insert(depot: &Depot, pcs: &[usize]) -> u32 {
    let number = depot.insert(&stack(pcs));
    assert_ne!(number, 0);
    assert_eq!(depot.get(number).as_slice(), pcs, "readable by whoever was told the number");
    number
}

#[test]
fn equal_stacks_get_one_number() {
    insert_on_two_threads(vec![0x5555_1000, 0x5555_2000], vec![0x5555_1000, 0x5555_2000]);
}

#[test]
fn different_stacks_get_two_numbers() {
    insert_on_two_threads(vec![0x5555_1000, 0x5555_2000], vec![0x5555_1000]);
}

#[test]
fn different_stacks_of_one_place_get_two_numbers() {
    let [first, second] = colliding();
    insert_on_two_threads(vec![first], vec![second]);
}

/// Three threads, two of them with equal stacks, at one place of the table.
#[test]
fn equal_stacks_get_one_number_beside_a_third() {
    let [first, second] = colliding();
    bounded_model(1, move || {
        let depot = empty_depot(&[&[first], &[second], &[first]]);
        let spawn = |pc: usize| {
            let depot = depot.clone();
            thread::spawn(move || insert(&depot, &[pc]))
        };
        let (same, other) = (spawn(first), spawn(second));
        let number = insert(&depot, &[first]);
        assert_eq!(same.join().expect("no panic"), number);
        assert_ne!(other.join().expect("no panic"), number);
    });
}

/// The rule that is kept for a program counter: each has another.
fn rule_of(pc: usize) -> Rule {
    Rule::frame(Kind::Offset, SP, 8 * (pc as i64 & 0xff), 0, CallerFp::Same, 0)
}

/// Program counters of one pair of the cache's places: its own function.
fn of_one_pair<const N: usize>() -> [usize; N] {
    let home = |pc: &usize| (*pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 10);
    let first = 0x5555_0001;
    let mut all = (first..).filter(|pc| home(pc) == home(&first));
    [(); N].map(|()| all.next().expect("there are more than pairs"))
}

/// Two threads keep rules in one pair of places, where they displace each other; one reads meanwhile, and
/// finds the right rule or none.
#[test]
fn a_rule_is_read_whole_or_not_at_all() {
    bounded_model(3, || {
        let pcs: [usize; 3] = of_one_pair();
        let cache = Arc::new(Cache::map(true).expect("the stub maps"));
        cache.set(pcs[2], rule_of(pcs[2]));
        let other = {
            let cache = cache.clone();
            thread::spawn(move || cache.set(pcs[0], rule_of(pcs[0])))
        };
        cache.set(pcs[1], rule_of(pcs[1]));
        assert!(cache.get(pcs[0]).is_none_or(|rule| rule == rule_of(pcs[0])));
        other.join().expect("no panic");
        assert!(pcs.iter().all(|pc| cache.get(*pc).is_none_or(|rule| rule == rule_of(*pc))));
    });
}

/// A number that only one thread at a time may change: a change in two steps, of which none is lost.
fn count(number: &AtomicU32) {
    let before = number.load(Ordering::Relaxed);
    number.store(before + 1, Ordering::Relaxed);
}

/// A lock over a number, both made.
fn lock() -> Arc<Lock<AtomicU32>> {
    let lock = Arc::new(Lock::new(Rank::Store, AtomicU32::new(0)));
    lock.prepare();
    count(&taken(&lock));
    lock
}

fn taken(lock: &Lock<AtomicU32>) -> Guard<'_, AtomicU32> {
    lock.enter().expect("another's is waited for")
}

fn counted(lock: &Lock<AtomicU32>) -> u32 {
    taken(lock).load(Ordering::Relaxed) - 1
}

#[test]
fn one_thread_at_a_time_has_the_lock() {
    model(|| {
        let lock = lock();
        let other = lock.clone();
        let second = thread::spawn(move || {
            count(&taken(&other));
            other.try_lock().map_or(0, |number| {
                count(&number);
                1
            })
        });
        count(&taken(&lock));
        let more = second.join().expect("no panic");
        assert_eq!(counted(&lock), 2 + more);
    });
}

fn three_wait(last: fn(&Lock<AtomicU32>)) {
    bounded_model(2, move || {
        let lock = lock();
        let wait = || {
            let lock = lock.clone();
            thread::spawn(move || count(&taken(&lock)))
        };
        let threads = [wait(), wait()];
        last(&lock);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(counted(&lock), 3);
    });
}

/// Whoever sleeps is woken, however many do. (A sleeper that nobody wakes is a deadlock to loom.)
#[test]
fn nobody_sleeps_for_ever() {
    three_wait(|lock| count(&taken(lock)));
}

/// Nor beside one who is woken and does not take the lock at once.
#[test]
fn who_only_slept_wakes_the_next() {
    three_wait(|lock| {
        let number = loop {
            match lock.try_lock() {
                Some(number) => break number,
                None => lock.sleep(0),
            }
        };
        count(&number);
    });
}

/// The mutation: a lock that is let go without a look at who waits. Loom ends the process where it finds a deadlock.
#[test]
fn a_lost_wake_is_found() {
    let mut command = std::process::Command::new(std::env::current_exe().expect("a test has a name"));
    let output = command.args(["lost_wake", "--exact", "--ignored"]).output().expect("it can be executed");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("deadlock"), "{text}");
}

#[test]
#[ignore = "is to fail; run by `a_lost_wake_is_found`"]
fn lost_wake() {
    three_wait(|lock| {
        let number = taken(lock);
        count(&number);
        std::mem::forget(number);
        lock.let_go_unseen();
    });
}

/// A handler that interrupts its thread in the lock gets nothing, at once, while another thread waits.
#[test]
fn nobody_waits_for_himself() {
    model(|| {
        let lock = lock();
        let other = lock.clone();
        let second = thread::spawn(move || count(&taken(&other)));
        let held = taken(&lock);
        assert!(lock.enter().is_none() && lock.is_mine());
        count(&held);
        drop(held);
        assert!(!lock.is_mine());
        second.join().expect("no panic");
        assert_eq!(counted(&lock), 2);
    });
}

/// A pair of numbers that only agree outside of the lock, and a thread that is cut off anywhere, as a fork cuts the
/// threads off that the child does not have.
fn fork(repair: fn(&mut [AtomicU32; 2])) {
    model(move || {
        let pair = Arc::new(Lock::new(Rank::Store, [AtomicU32::new(0), AtomicU32::new(0)]));
        pair.prepare();
        let own = lock();
        pair.enter().expect("it is free").iter().for_each(|number| number.store(0, Ordering::Relaxed));
        let cut = Arc::new(AtomicU32::new(0));
        cut.store(0, Ordering::Relaxed);
        let ghost = {
            let (pair, cut) = (pair.clone(), cut.clone());
            thread::spawn(move || {
                let goes_on = || cut.load(Ordering::Acquire) == 0;
                let Some(numbers) = goes_on().then(|| pair.enter()).flatten() else { return };
                for number in numbers.iter() {
                    if !goes_on() {
                        // It is not there any more to let the lock go.
                        std::mem::forget(numbers);
                        return;
                    }
                    number.store(1, Ordering::Relaxed);
                }
                if !goes_on() {
                    std::mem::forget(numbers);
                }
            })
        };
        let held = taken(&own);
        cut.store(1, Ordering::Release);
        ghost.join().expect("no panic");
        sys::thread::fork();
        // SAFETY: the ghost ended, and this is the one thread.
        unsafe {
            pair.inherit(repair);
            own.inherit(|_| unreachable!("the forking thread's own"));
        }
        assert!(own.is_mine() && own.enter().is_none());
        count(&held);
        drop(held);
        assert_eq!(counted(&own), 1);
        let pair = pair.enter().expect("nobody has it");
        assert_eq!(pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed));
    });
}

/// The child of a fork that took no lock repairs what others had, and keeps what its own thread has.
#[test]
fn a_child_repairs_what_others_had() {
    fork(|pair| pair.iter().for_each(|number| number.store(7, Ordering::Relaxed)));
}

/// The mutation: a lock that is released without repair.
#[test]
#[should_panic]
fn a_child_that_repairs_nothing_is_found() {
    fork(|_| ());
}

/// A chunk whose lane was left, with one object, and the lock of the order.
fn left_chunk() -> Arc<(chunk::Chunk, Lock<()>)> {
    let chunk: chunk::Chunk = unsafe_zeroed();
    let order = Lock::new(Rank::Order, ());
    order.prepare();
    let guard = order.enter();
    assert_eq!(chunk.open(guard.as_ref()), chunk::Opening::Unready);
    drop(guard);
    chunk.enter();
    assert!(!chunk.retire());
    Arc::new((chunk, order))
}

fn unsafe_zeroed<T>() -> T {
    // SAFETY: called for chunks, of which all zero bytes are a valid value.
    unsafe { std::mem::zeroed() }
}

fn open_and_bury(open: fn(&chunk::Chunk, &Lock<()>) -> bool) {
    model(move || {
        let shared = left_chunk();
        let other = shared.clone();
        let last = thread::spawn(move || {
            let (chunk, order) = &*other;
            if chunk.leave()
                && let Some(_order) = order.enter()
                && chunk.die()
            {
                chunk.begin_bury();
                drop(_order);
                chunk.end_bury(true);
            }
        });
        let (chunk, order) = &*shared;
        let opened = open(chunk, order);
        last.join().expect("no panic");
        let live = chunk.live.load(Ordering::Relaxed);
        assert_eq!((chunk.state() == chunk::OPEN, live != 0), (opened, opened), "a live chunk is open");
    });
}

/// A lane comes round to a chunk whose last object goes at that moment: either it finds the chunk in use or being
/// buried, or it has it, and nobody buries it.
#[test]
fn a_chunk_that_is_opened_is_not_buried() {
    open_and_bury(|chunk, order| {
        let order = order.enter();
        chunk.open(order.as_ref()) != chunk::Opening::Occupied
    });
}

/// The mutation: the order is let go before the chunk is said to be in use.
#[test]
#[should_panic(expected = "a live chunk is open")]
fn a_chunk_that_is_said_to_be_in_use_too_late_is_found() {
    open_and_bury(|chunk, order| {
        let order = order.enter();
        let opened = chunk.open(order.as_ref()) != chunk::Opening::Occupied;
        if opened {
            chunk.live.store(0, Ordering::Relaxed);
            drop(order);
            chunk.live.store(chunk::ACTIVE, Ordering::Release);
        }
        opened
    });
}

const SLOT: look::Name = look::Name::of(0x1230);
const LIVE: [u16; 2] = [5, 6];
const BUSY: u16 = 1 << 13;

/// A slot's state and two words of its memory, which hold what the state says while it is not busy.
struct Slot {
    looks: look::Looks,
    state: AtomicU16,
    memory: [AtomicU32; 2],
}

impl Slot {
    fn new() -> Arc<Self> {
        let slot = Self {
            looks: look::Looks::NEW,
            state: AtomicU16::new(0),
            memory: [const { AtomicU32::new(0) }; 2],
        };
        slot.looks.prepare();
        slot.state.store(LIVE[0], Ordering::Relaxed);
        slot.memory.iter().for_each(|word| word.store(LIVE[0].into(), Ordering::Relaxed));
        assert_eq!(slot.looks.at(&slot.state, SLOT, |_| false, |_| ()), None);
        Arc::new(slot)
    }

    /// As the slot's owner changes it, finding it in whatever state.
    fn change(&self, to: u16) {
        assert!(LIVE.contains(&self.looks.state(&self.state, SLOT)), "the owner finds its slot live");
        // A plain store in the allocator. Loom lets a compare-and-exchange come after a plain store that it was
        // before, and not after an exchange.
        self.state.swap(BUSY, Ordering::AcqRel);
        fence(Ordering::Release);
        self.memory.iter().for_each(|word| word.store(to.into(), Ordering::Relaxed));
        self.state.store(to, Ordering::Release);
    }
}

fn look_at_changes(change: fn(&Slot, u16)) {
    model(move || {
        let slot = Slot::new();
        let other = slot.clone();
        let owner = thread::spawn(move || {
            change(&other, LIVE[1]);
            change(&other, LIVE[0]);
        });
        let seen = slot.looks.at(
            &slot.state,
            SLOT,
            |state| LIVE.contains(&state),
            |state| slot.memory.iter().all(|word| word.load(Ordering::Relaxed) == state.into()),
        );
        assert_ne!(seen, Some(false), "what counts is what the state says");
        owner.join().expect("no panic");
        assert_eq!(slot.state.load(Ordering::Relaxed), LIVE[0]);
    });
}

/// What a look saw counts only if nobody changed the slot, and its owner is never held up nor surprised.
#[test]
fn a_look_counts_if_nobody_changed_the_slot() {
    look_at_changes(Slot::change);
}

/// The mutation: an owner that changes the memory before the state.
#[test]
#[should_panic(expected = "what counts")]
fn a_change_before_the_state_is_found() {
    look_at_changes(|slot, to| {
        assert!(LIVE.contains(&slot.looks.state(&slot.state, SLOT)));
        slot.memory.iter().for_each(|word| word.store(to.into(), Ordering::Relaxed));
        slot.state.swap(BUSY, Ordering::AcqRel);
        slot.state.store(to, Ordering::Release);
    });
}

/// Records that two threads return while a third takes them come out once each.
#[test]
fn returned_records_are_taken_once() {
    bounded_model(2, || {
        let records = Arc::new(Records::map(8).expect("the stub maps"));
        let returns = Arc::new(Returns::NEW);
        returns.take(&records, |_| ());
        (1..4).for_each(|number| {
            records.get(RecordId(number)).expect("in the table").next.store(0, Ordering::Relaxed);
        });
        let spawn = |ids: &'static [u32]| {
            let (records, returns) = (records.clone(), returns.clone());
            thread::spawn(move || ids.iter().for_each(|id| returns.push(&records, RecordId(*id))))
        };
        let (first, second) = (spawn(&[1, 2]), spawn(&[3]));
        let mut taken = Vec::new();
        returns.take(&records, |id| taken.push(id.0));
        first.join().expect("no panic");
        second.join().expect("no panic");
        returns.take(&records, |id| taken.push(id.0));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
    });
}

/// A number from 1 to 7 per thread, and what its thread wrote before it put the number anywhere.
type Written = Arc<[AtomicU32; 8]>;

fn nothing_written() -> Written {
    let written = Arc::new([const { AtomicU32::new(0) }; 8]);
    written.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    written
}

fn write(written: &Written, number: u32) {
    written[number as usize].store(number, Ordering::Relaxed);
}

/// Notes a number that was taken: what was written before it was put is seen.
fn note(written: &Written, taken: &mut Vec<u32>, number: Option<u32>) {
    if let Some(number) = number {
        assert_eq!(written[number as usize].load(Ordering::Relaxed), number, "seen with its number");
        taken.push(number);
    }
}

/// Numbers that two threads put into a depot while a third takes some come out once each, and with them what their
/// giver wrote before.
#[test]
fn a_depot_hands_each_number_on_once() {
    bounded_model(2, || {
        // SAFETY: all zero bytes are an empty depot.
        let depot: Arc<slab_depot::Depot<2>> = Arc::new(unsafe { std::mem::zeroed() });
        let written = nothing_written();
        // All atomics are used once before there are threads.
        assert!(depot.put(1) && depot.put(1) && depot.take().is_some() && depot.take().is_some());
        let give = |number: u32| {
            let (depot, written) = (depot.clone(), written.clone());
            thread::spawn(move || {
                write(&written, number);
                assert!(depot.put(number), "two places for two numbers");
            })
        };
        let (first, second) = (give(2), give(4));
        let mut taken = Vec::new();
        note(&written, &mut taken, depot.take());
        first.join().expect("no panic");
        second.join().expect("no panic");
        (0..2).for_each(|_| note(&written, &mut taken, depot.take()));
        taken.sort_unstable();
        assert_eq!(taken, [2, 4]);
    });
}

/// A queue's parts, of `LEN` cells, all used once.
struct Queue<const LEN: usize>(fifo::Ends, [sync::atomic::AtomicU64; LEN]);

impl<const LEN: usize> Queue<LEN> {
    fn new() -> Arc<Self> {
        // SAFETY: all zero bytes are an empty queue.
        let queue: Arc<Self> = Arc::new(unsafe { std::mem::zeroed() });
        for _ in 0..LEN {
            assert!(queue.fifo().put(0, 5));
            assert_eq!((queue.fifo().take(), queue.fifo().weight()), (Some(0), 0));
        }
        queue
    }

    fn fifo(&self) -> fifo::Fifo<'_> {
        fifo::Fifo::new(&self.0, &self.1).expect("a power of two")
    }
}

/// Numbers that two threads put while a third takes some come out once each, those of one thread in their order, and the
/// weight is at no time more than what was put and zero in the end.
#[test]
fn a_queue_hands_each_number_on_once_and_in_order() {
    bounded_model(2, || {
        let queue = Queue::<4>::new();
        let written = nothing_written();
        let put = |numbers: &'static [u32]| {
            let (queue, written) = (queue.clone(), written.clone());
            thread::spawn(move || {
                for number in numbers {
                    write(&written, *number);
                    assert!(queue.fifo().put(*number, *number), "there is room for all");
                }
            })
        };
        let (first, second) = (put(&[1, 2]), put(&[4]));
        let mut taken = Vec::new();
        for _ in 0..2 {
            assert!(queue.fifo().weight() <= 7, "{}", queue.fifo().weight());
            note(&written, &mut taken, queue.fifo().take());
        }
        first.join().expect("no panic");
        second.join().expect("no panic");
        assert_eq!(queue.fifo().weight(), 7 - taken.iter().sum::<u32>());
        (0..3).for_each(|_| note(&written, &mut taken, queue.fifo().take()));
        let place = |number| taken.iter().position(|taken| *taken == number);
        assert!(taken.len() == 3 && place(1) < place(2) && place(4).is_some(), "{taken:?}");
        assert_eq!((queue.fifo().take(), queue.fifo().weight()), (None, 0));
    });
}

/// A ring of one cell and of two, gone through while two threads put and take: a full one refuses, none is lost, none
/// comes twice, and the ends count the weight of each number, whoever moves them.
#[test]
fn a_full_queue_refuses_and_serves_again() {
    fn beside_another<const LEN: usize>() {
        bounded_model(3, || {
            let queue = Queue::<LEN>::new();
            assert!(queue.fifo().put(1, 1) && (LEN == 1 || queue.fifo().put(2, 2)));
            let held = (1..=LEN as u32).collect::<Vec<_>>();
            let other = thread::spawn({
                let queue = queue.clone();
                move || {
                    let taken = queue.fifo().take();
                    let put = queue.fifo().put(4, 4);
                    (taken, put)
                }
            });
            // In this order: a `put` finds what the other took and has not said so yet.
            let put = queue.fifo().put(5, 5);
            let mine = queue.fifo().take();
            let (theirs, theirs_put) = other.join().expect("no panic");
            let put =
                [(put, 5), (theirs_put, 4)].into_iter().filter_map(|(put, number)| put.then_some(number));
            let mut expected: Vec<u32> = held.into_iter().chain(put).collect();
            let mut taken: Vec<u32> = mine.into_iter().chain(theirs).collect();
            let left = expected.iter().sum::<u32>() - taken.iter().sum::<u32>();
            assert_eq!(queue.fifo().weight(), left);
            taken.extend(std::iter::from_fn(|| queue.fifo().take()));
            (taken.sort_unstable(), expected.sort_unstable());
            assert_eq!(taken, expected);
            assert_eq!(queue.fifo().weight(), 0);
        });
    }
    beside_another::<1>();
    beside_another::<2>();
}

/// A pool's words and its batches, all used once.
struct Batches(batches::Words, [batches::Batch; 2]);

impl Batches {
    fn new() -> Arc<Self> {
        // SAFETY: all zero bytes are a pool whose batches were never used.
        let all: Arc<Self> = Arc::new(unsafe { std::mem::zeroed() });
        let both = [all.pool().take(), all.pool().take()].map(|batch| batch.expect("two"));
        both.into_iter().for_each(|batch| all.pool().give(batch));
        all
    }

    fn pool(&self) -> batches::Pool<'_> {
        batches::Pool::new(&self.0, &self.1)
    }
}

/// While one thread takes a batch, another takes both and gives the first back: nobody gets what another has.
#[test]
fn a_batch_has_one_owner() {
    model(|| {
        let all = Batches::new();
        let owners = Arc::new([const { AtomicU32::new(0) }; 3]);
        owners.iter().for_each(|owner| owner.store(0, Ordering::Relaxed));
        let own = |owners: &[AtomicU32; 3], batch: batches::Owned<'_>| {
            let number = batch.into_number();
            assert_eq!(owners[number as usize].swap(1, Ordering::Relaxed), 0, "{number} has an owner");
            number
        };
        let other = thread::spawn({
            let (all, owners) = (all.clone(), owners.clone());
            move || {
                let first = all.pool().take().map(|batch| own(&owners, batch));
                let second = all.pool().take().map(|batch| own(&owners, batch));
                if let Some(number) = first {
                    owners[number as usize].store(0, Ordering::Relaxed);
                    // SAFETY: the number is this thread's.
                    all.pool().give(unsafe { all.pool().own(number) }.expect("a batch"));
                }
                second.is_some()
            }
        });
        let mine = all.pool().take().map(|batch| own(&owners, batch));
        let kept = other.join().expect("no panic");
        let left = std::iter::from_fn(|| all.pool().take()).count();
        assert_eq!(left + usize::from(kept) + usize::from(mine.is_some()), 2);
    });
}
