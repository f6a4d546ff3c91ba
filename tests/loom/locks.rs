//! The lock, its sleepers, and what a forked child makes of it.

use super::*;

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
    let output =
        command.args(["locks::lost_wake", "--exact", "--ignored"]).output().expect("it can be executed");
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
