//! Stress: four threads that free each other's objects, hundreds of short threads, and forks under load,
//! with fencepost as the global allocator, in every mode and with both backends of the guards.
//!
//! Every object is filled by who allocates it and compared by who frees it; the allocator checks itself
//! meanwhile and at the end. Options are a process's, so this binary executes itself for each set of them.

#[path = "model/random.rs"]
mod random;
mod support;

use fencepost::Fencepost;
use random::Random;
use std::env;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// Says that this process is to run the named scenario.
const SCENARIO: &str = "FENCEPOST_STRESS";

const THREADS: usize = 4;
/// Objects that each of the threads makes.
const PARCELS: usize = 5_000;
/// Threads that start and end, and how many at a time.
const SHORT_THREADS: usize = 300;
const AT_ONCE: usize = 6;
/// Forks, and objects of the parent's that each child frees.
const FORKS: usize = 24;
const INHERITED: usize = 200;
/// How long the check runs beside threads that change everything.
const CHECKING: Duration = Duration::from_millis(1_500);
/// Seconds after which a child that hangs is ended by SIGALRM.
const CHILD_SECONDS: u32 = 10;

#[test]
fn scenario() {
    let Ok(name) = env::var(SCENARIO) else { return };
    let seed = random::seed();
    println!("repeat with {}", random::again(seed));
    match name.as_str() {
        "exchange" => exchange(seed),
        "short_threads" => short_threads(seed),
        "forks" => forks(seed),
        "check" => check_under_load(seed),
        _ => panic!("there is no scenario {name:?}"),
    }
    assert_eq!(HEAP.check(), 0, "false alarm at the end");
}

/// Objects of several alignments and sizes with known contents.
enum Parcel {
    Bytes(Vec<u8>),
    Words(Vec<u64>),
    Wide(Vec<u128>),
    Line(Box<Line>),
}

#[repr(align(64))]
struct Line([u8; 192]);

impl Parcel {
    fn make(random: &mut Random) -> Self {
        // Mostly small, now and then past a page, rarely past what shards hold.
        let most = match random.below(64) {
            0 => 400_000,
            1..=8 => 20_000,
            _ => 1_000,
        };
        let size = random.size(most);
        let mut parcel = match random.below(4) {
            0 => Self::Words(vec![size as u64; size.div_ceil(8)]),
            1 => Self::Wide(vec![size as u128; size.div_ceil(16)]),
            2 => Self::Line(Box::new(Line([size as u8; 192]))),
            _ => Self::Bytes(vec![size as u8; size]),
        };
        if random.below(4) == 0 {
            parcel.grow(random.below(3_000));
        }
        parcel
    }

    /// Adds elements like those that are there, so that the vector is resized.
    fn grow(&mut self, more: usize) {
        match self {
            Self::Bytes(bytes) => bytes.resize(bytes.len() + more, bytes[0]),
            Self::Words(words) => words.resize(words.len() + more / 8, words[0]),
            Self::Wide(words) => words.resize(words.len() + more / 16, words[0]),
            Self::Line(_) => {}
        }
    }

    fn is_intact(&self) -> bool {
        fn uniform<T: PartialEq>(elements: &[T]) -> bool {
            elements.iter().all(|element| *element == elements[0])
        }
        match self {
            Self::Bytes(bytes) => uniform(bytes),
            Self::Words(words) => uniform(words),
            Self::Wide(words) => uniform(words),
            Self::Line(line) => uniform(&line.0) && std::ptr::from_ref(&**line).addr().is_multiple_of(64),
        }
    }
}

/// Four threads make objects and send each to one of the four, which compares and frees it.
fn exchange(seed: u64) {
    let (senders, receivers): (Vec<Sender<Parcel>>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    let workers: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(index, inbox)| {
            let senders = senders.clone();
            thread::spawn(move || work(Random::new(seed ^ index as u64), inbox, senders))
        })
        .collect();
    drop(senders);
    let received: usize = workers.into_iter().map(|worker| worker.join().expect("no worker fails")).sum();
    assert_eq!(received, THREADS * PARCELS);
}

fn work(mut random: Random, inbox: Receiver<Parcel>, senders: Vec<Sender<Parcel>>) -> usize {
    let mut received = 0;
    let mut accept = |parcel: Parcel| {
        assert!(parcel.is_intact());
        received += 1;
    };
    for _ in 0..PARCELS {
        let parcel = Parcel::make(&mut random);
        // An inbox is gone once its owner failed, which its join tells.
        let _ = senders[random.below(THREADS)].send(parcel);
        inbox.try_iter().take(2).for_each(&mut accept);
    }
    drop(senders);
    inbox.iter().for_each(&mut accept);
    received
}

/// Hundreds of threads that start, allocate, and end; what they made is freed when they are gone.
fn short_threads(seed: u64) {
    let mut left = Vec::new();
    for first in (0..SHORT_THREADS).step_by(AT_ONCE) {
        let threads: Vec<_> = (first..first + AT_ONCE)
            .map(|index| {
                let inherited = left.pop();
                thread::spawn(move || short_life(Random::new(seed ^ index as u64), inherited))
            })
            .collect();
        left.extend(threads.into_iter().map(|thread| thread.join().expect("no thread fails")));
    }
    assert!(left.iter().flatten().all(Parcel::is_intact));
}

/// Frees what another left and half of its own; the rest goes on to others.
fn short_life(mut random: Random, inherited: Option<Vec<Parcel>>) -> Vec<Parcel> {
    thread_local! {
        // Freed by the thread's destructors, after most of its life is over.
        static LATE: std::cell::RefCell<Vec<Parcel>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let mut own: Vec<_> = (0..40).map(|_| Parcel::make(&mut random)).collect();
    assert!(inherited.iter().flatten().all(Parcel::is_intact));
    drop(inherited);
    let late = own.split_off(30);
    LATE.with_borrow_mut(|kept| kept.extend(late));
    own.truncate(20);
    own
}

/// Runs `action` beside threads that allocate, free and exchange objects all the time.
fn under_load(seed: u64, action: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for index in 1..THREADS {
            let stop = &stop;
            scope.spawn(move || {
                let mut random = Random::new(seed ^ index as u64);
                let mut live: Vec<Parcel> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    live.push(Parcel::make(&mut random));
                    if live.len() > 100 {
                        assert!(live.swap_remove(random.below(100)).is_intact());
                    }
                }
            });
        }
        action();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Forks while other threads are inside the allocator: the child must be able to free what the parent
/// made and to allocate on.
fn forks(seed: u64) {
    under_load(seed, || {
        let mut random = Random::new(seed);
        for _ in 0..FORKS {
            let parcels: Vec<_> = (0..INHERITED).map(|_| Parcel::make(&mut random)).collect();
            // SAFETY: the child allocates, which is what is tested, and leaves by `_exit`.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "{}", std::io::Error::last_os_error());
            if child == 0 {
                let status = i32::from(!in_child(parcels, &mut random));
                // SAFETY: ends the process.
                unsafe { libc::_exit(status) };
            }
            let mut status = 0;
            // SAFETY: the status is live, the child is this process's.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((waited, status), (child, 0), "the child's wait status");
            assert!(parcels.iter().all(Parcel::is_intact));
        }
    });
}

/// What a forked child does; whether all was well.
fn in_child(parcels: Vec<Parcel>, random: &mut Random) -> bool {
    // SAFETY: only sets a timer.
    unsafe { libc::alarm(CHILD_SECONDS) };
    let mut intact = true;
    for parcel in parcels {
        intact &= parcel.is_intact() && Parcel::make(random).is_intact();
    }
    intact && HEAP.check() == 0
}

/// The check of everything, by two threads at once, beside threads that free and resize objects of both allocators
/// as fast as they can: no false alarm, for the check, a free or a resize.
fn check_under_load(seed: u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for index in 0..2 {
            let stop = &stop;
            scope.spawn(move || {
                let mut random = Random::new(seed ^ index);
                while !stop.load(Ordering::Relaxed) {
                    (0..50).for_each(|_| drop(black_box(vec![1_u8; 5_000])));
                    resize_a_lot(&mut random);
                }
            });
        }
        let checks = scope.spawn(|| check_repeatedly(CHECKING));
        let found = check_repeatedly(CHECKING) + checks.join().expect("no panic");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(found, 0, "false alarms");
    });
}

fn check_repeatedly(time: Duration) -> usize {
    let begin = Instant::now();
    let mut found = 0;
    while begin.elapsed() < time {
        found += HEAP.check();
    }
    found
}

/// Grows and shrinks within pages, over pages, and from shards to chunks of their own.
fn resize_a_lot(random: &mut Random) {
    let mut bytes = vec![7_u8; 20_000];
    for step in 0..20 {
        bytes.resize(20_000 + 3_000 * step + random.below(100), 7);
        assert!(bytes.iter().step_by(100).all(|byte| *byte == 7));
        bytes.truncate(5_000 + 17 * step);
        bytes.shrink_to_fit();
    }
}

fn run(scenario: &str, options: &str) {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["scenario", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(SCENARIO, scenario).env("FENCEPOST_OPTIONS", options);
    let run = process::run(&mut command, LIMIT);
    let verdict = judge_silent(&run, End::Status(0));
    assert_eq!(verdict, Verdict::Match, "{scenario} {options}\n{}{}", run.stdout, run.stderr);
}

/// A test for each scenario with these options.
macro_rules! scenarios {
    ($($name:ident: $options:literal;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn exchange() {
                run("exchange", $options);
            }

            #[test]
            fn short_threads() {
                run("short_threads", $options);
            }

            #[test]
            fn forks() {
                run("forks", $options);
            }

            #[test]
            fn check_under_load() {
                run("check", $options);
            }
        }
    )+};
}

scenarios! {
    harden_madvise: "mode=harden:guards=madvise";
    harden_mprotect: "mode=harden:guards=mprotect";
    patrol_madvise: "mode=patrol:sample_rate=10:guards=madvise";
    patrol_mprotect: "mode=patrol:sample_rate=10:guards=mprotect";
    hunt_madvise: "mode=hunt:guards=madvise";
    hunt_mprotect: "mode=hunt:guards=mprotect";
    hunt_batch: "mode=hunt:unmap=batch:32";
}
