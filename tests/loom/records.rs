//! A guarded object's record: frees, sweeps, resizes, and another life.

use super::*;

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
    record.shard.store(0, Ordering::Relaxed);
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

    /// As the page allocator frees; whether this thread freed it.
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

/// Frees the object of the record's first life as the page allocator does, without a sweep.
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
