//! Records and magazines of slots on their way from thread to thread.

use super::*;

/// Records that two threads return while a third takes them come out once each.
#[test]
fn returned_records_are_taken_once() {
    bounded_model(2, || {
        let records = Arc::new(Records::map(8).expect("the stub maps"));
        let returns = Arc::new(RemoteFreeList::NEW);
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

/// Numbers that two threads put into a transfer cache while a third takes some come out once each, and with them what their
/// giver wrote before.
#[test]
fn a_transfer_cache_hands_each_number_on_once() {
    bounded_model(2, || {
        // SAFETY: all zero bytes are an empty transfer cache.
        let cache: Arc<transfer::TransferCache<2>> = Arc::new(unsafe { std::mem::zeroed() });
        let written = nothing_written();
        // All atomics are used once before there are threads.
        assert!(cache.put(1) && cache.put(1) && cache.take().is_some() && cache.take().is_some());
        let give = |number: u32| {
            let (cache, written) = (cache.clone(), written.clone());
            thread::spawn(move || {
                write(&written, number);
                assert!(cache.put(number), "two places for two numbers");
            })
        };
        let (first, second) = (give(2), give(4));
        let mut taken = Vec::new();
        note(&written, &mut taken, cache.take());
        first.join().expect("no panic");
        second.join().expect("no panic");
        (0..2).for_each(|_| note(&written, &mut taken, cache.take()));
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

/// A pool's words and its magazines, all used once.
struct Magazines(magazine::Words, [magazine::Magazine; 2]);

impl Magazines {
    fn new() -> Arc<Self> {
        // SAFETY: all zero bytes are a pool whose magazines were never used.
        let all: Arc<Self> = Arc::new(unsafe { std::mem::zeroed() });
        let both = [all.pool().take(), all.pool().take()].map(|magazine| magazine.expect("two"));
        both.into_iter().for_each(|magazine| all.pool().put(magazine));
        all
    }

    fn pool(&self) -> magazine::Pool<'_> {
        magazine::Pool::new(&self.0, &self.1)
    }
}

/// While one thread takes a magazine, another takes both and gives the first back: nobody gets what another has.
#[test]
fn a_magazine_has_one_owner() {
    model(|| {
        let all = Magazines::new();
        let owners = Arc::new([const { AtomicU32::new(0) }; 3]);
        owners.iter().for_each(|owner| owner.store(0, Ordering::Relaxed));
        let own = |owners: &[AtomicU32; 3], magazine: magazine::Owned<'_>| {
            let number = magazine.into_number();
            assert_eq!(owners[number as usize].swap(1, Ordering::Relaxed), 0, "{number} has an owner");
            number
        };
        let other = thread::spawn({
            let (all, owners) = (all.clone(), owners.clone());
            move || {
                let first = all.pool().take().map(|magazine| own(&owners, magazine));
                let second = all.pool().take().map(|magazine| own(&owners, magazine));
                if let Some(number) = first {
                    owners[number as usize].store(0, Ordering::Relaxed);
                    // SAFETY: the number is this thread's.
                    all.pool().put(unsafe { all.pool().own(number) }.expect("a magazine"));
                }
                second.is_some()
            }
        });
        let mine = all.pool().take().map(|magazine| own(&owners, magazine));
        let kept = other.join().expect("no panic");
        let left = std::iter::from_fn(|| all.pool().take()).count();
        assert_eq!(left + usize::from(kept) + usize::from(mine.is_some()), 2);
    });
}
