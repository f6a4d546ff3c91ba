//! How long a freed slot is withheld: by the bytes of the frees that pass until an allocation gets it again, for one
//! thread and several, when threads end, in forked children, and when memory runs out.
//!
//! Options are a process's, so this binary executes itself for each set of them. The allocator serves these
//! allocations alone, so that every free is counted.

mod support;

use fencepost::Fencepost;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT};

static HEAP: Fencepost = Fencepost::new();

/// Says that this process is to run the named part.
const PART: &str = "FENCEPOST_QUARANTINE";
/// The quarantine that the parts are run with, in MiB.
const MEGABYTES: &str = "FENCEPOST_QUARANTINE_MB";
const MB: usize = 1 << 20;
/// Sizes of objects, and those of their slots.
const SIZES: [(usize, usize); 5] = [(8, 16), (56, 64), (500, 512), (1500, 1536), (4000, 4096)];
/// Freed bytes of one class on a thread's stack and in its batches at most: what a slot may come back later than the
/// budget says.
const LATE: usize = MB;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a small size")
}

fn try_allocate(size: usize) -> usize {
    // SAFETY: the size is not zero.
    unsafe { HEAP.alloc(layout(size)) }.addr()
}

fn allocate(size: usize) -> usize {
    let address = try_allocate(size);
    assert_ne!(address, 0, "there is no memory");
    address
}

fn free(address: usize, size: usize) {
    // SAFETY: the address is that of an object that `allocate` made with this size, freed once.
    unsafe { HEAP.dealloc(std::ptr::with_exposed_provenance_mut(address), layout(size)) };
}

/// Frees so many bytes of slots, one object after the other, or until `freed` is allocated; how many bytes it freed then.
fn churn(size: usize, slot: usize, freed: usize, most: usize) -> Option<usize> {
    for count in 1..=most / slot {
        let address = allocate(size);
        free(address, size);
        if address == freed {
            return Some(count * slot);
        }
    }
    None
}

fn budget() -> usize {
    env::var(MEGABYTES).expect("set with the part").parse::<usize>().expect("a number") * MB
}

fn in_thread<R: Send + 'static>(action: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(action).join().expect("no panic")
}

fn execute(part: &str, megabytes: usize, options: &str) {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["part", "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    command.env(MEGABYTES, megabytes.to_string());
    command.env("FENCEPOST_OPTIONS", format!("quarantine_mb={megabytes}:{options}"));
    let run = process::run(&mut command, LIMIT);
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{part}: {}{}", run.stdout, run.stderr);
}

#[test]
fn part() {
    match env::var(PART).as_deref() {
        Err(_) => {}
        Ok("one_thread") => one_thread(),
        Ok("threads") => threads(),
        Ok("thread_ends") => thread_ends(),
        Ok("short_threads") => short_threads(),
        Ok("classes") => classes(),
        Ok("off") => off(),
        Ok("touched") => touched(),
        Ok("memory") => memory(),
        Ok("no_memory") => no_memory(),
        Ok("forks") => forks(),
        Ok("start") => start(),
        Ok("large") => large(),
        Ok(other) => panic!("there is no part {other:?}"),
    }
    assert_eq!(HEAP.check(), 0);
}

#[test]
fn a_slot_is_withheld_for_as_many_bytes_as_the_option_says() {
    for megabytes in [1, 4, 16] {
        execute("one_thread", megabytes, "");
    }
    execute("one_thread", 4, "guards=mprotect");
    execute("one_thread", 4, "unmap_threshold=131072");
    execute("one_thread", 4, "canary=0");
    execute("one_thread", 4, "zero=0");
}

fn one_thread() {
    let large = [(9_000, 9216), (20_000, 20_480), (100_000, 106_496)];
    let wide = env::var("FENCEPOST_OPTIONS").is_ok_and(|options| options.contains("unmap_threshold"));
    for (size, slot) in SIZES.into_iter().chain(large.into_iter().filter(|_| wide)) {
        let freed = allocate(size);
        free(freed, size);
        let distance = churn(size, slot, freed, 3 * budget() + LATE);
        let distance = distance.unwrap_or_else(|| panic!("{size} bytes: the slot is lost"));
        assert!(distance >= budget(), "{size} bytes: back after {distance} bytes");
        assert!(distance <= budget() + LATE, "{size} bytes: back after {distance} bytes");
    }
}

/// A large slot comes back with its memory, after as many bytes of frees, and not always the same one.
#[test]
fn large_slots_come_back_without_page_faults() {
    execute("large", 1, "quarantine_mb=0.25:unmap_threshold=131072");
    execute("large", 1, "quarantine_mb=0.25:unmap_threshold=131072:guards=mprotect");
}

fn large() {
    const WITHHELD: usize = 1 << 18;
    const TURNS: usize = 2000;
    for (size, slot) in [(17_000, 18_432), (30_000, 30_720), (100_000, 106_496)] {
        let mut last = HashMap::new();
        let (mut least, mut waits) = (usize::MAX, HashSet::new());
        let mut before = 0;
        for turn in 0..2 * TURNS {
            if turn == TURNS {
                before = faults();
            }
            let address = allocate(size);
            // SAFETY: the object was just allocated with this size.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_bytes(1, size) };
            free(address, size);
            if let Some(then) = last.insert(address, turn) {
                least = least.min((turn - then - 1) * slot);
                waits.insert(turn - then);
            }
        }
        let faults = faults() - before;
        println!("{size} bytes: {faults} faults, back after {least} bytes at least, {} ways", waits.len());
        assert!(faults < TURNS / 4, "{size} bytes: {faults} faults in {TURNS} pairs");
        assert!(least >= WITHHELD, "{size} bytes: back after {least} bytes");
        assert!(waits.len() >= 3, "{size} bytes: back after {waits:?} frees");
    }
}

/// Page faults that this process had.
fn faults() -> usize {
    // SAFETY: zero bytes are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the place for the answer is live.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    usage.ru_minflt as usize
}

#[test]
fn all_threads_share_one_quarantine() {
    execute("threads", 4, "");
    execute("threads", 4, "guards=mprotect");
}

/// What one thread freed comes back after as many bytes of frees as the budget is, whichever threads free.
fn threads() {
    const THREADS: usize = 4;
    const SIZE: usize = 56;
    const SLOT: usize = 64;
    let freed = allocate(SIZE);
    free(freed, SIZE);
    // Out of this thread's stack.
    let before = 200 * SLOT;
    assert_eq!(churn(SIZE, SLOT, freed, before), None);
    let all = Arc::new(AtomicUsize::new(before));
    let back = Arc::new(AtomicUsize::new(usize::MAX));
    let start = Arc::new(Barrier::new(THREADS));
    let work = {
        let (all, back) = (all.clone(), back.clone());
        move || {
            start.wait();
            while all.load(Ordering::Relaxed) < 3 * budget() && back.load(Ordering::Relaxed) == usize::MAX {
                for _ in 0..64 {
                    let address = allocate(SIZE);
                    let bytes = all.fetch_add(SLOT, Ordering::Relaxed);
                    if address == freed {
                        back.fetch_min(bytes, Ordering::Relaxed);
                    }
                    free(address, SIZE);
                }
            }
        }
    };
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(work.clone())).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let back = back.load(Ordering::Relaxed);
    // Threads that find too much in quarantine at the same moment each let go of a batch.
    assert!(back >= budget() - budget() / 16, "back after {back} bytes");
    assert!(back <= budget() + THREADS * LATE, "back after {back} bytes");
}

#[test]
fn what_a_thread_freed_that_ended_is_withheld() {
    for guards in ["madvise", "mprotect"] {
        execute("thread_ends", 1, &format!("guards={guards}"));
    }
}

/// A thread frees its own object or another's and ends, or another frees its object after its end: no thread that
/// starts then gets the slot without frees between. After enough frees one does.
fn thread_ends() {
    const MANY: usize = 400;
    for (size, slot) in SIZES {
        let own = in_thread(move || {
            let address = allocate(size);
            free(address, size);
            address
        });
        let mine = allocate(size);
        in_thread(move || free(mine, size));
        let theirs = in_thread(move || allocate(size));
        free(theirs, size);
        let several = in_thread(move || {
            let all: Vec<_> = (0..100).map(|_| allocate(size)).collect();
            all.iter().for_each(|address| free(*address, size));
            all
        });
        let freed: HashSet<usize> = several.into_iter().chain([own, mine, theirs]).collect();
        assert_eq!(freed.len(), 103, "{size} bytes: a slot was handed out twice");
        let live: Vec<usize> = (0..3)
            .flat_map(|_| in_thread(move || (0..MANY).map(|_| allocate(size)).collect::<Vec<_>>()))
            .collect();
        let back = live.iter().filter(|address| freed.contains(address)).count();
        assert_eq!(back, 0, "{size} bytes: slots came back without a free");
        live.into_iter().for_each(|address| free(address, size));
        // After enough frees some allocation gets it, if not one of the next then one of many.
        let back = churn(size, slot, own, budget() + LATE).is_some();
        let most = if back { 0 } else { (3 * budget() + LATE) / slot + 4 * MANY };
        let live: Vec<usize> = (0..most).map(|_| allocate(size)).collect();
        assert!(back || live.contains(&own), "{size} bytes: the slot is lost");
        live.into_iter().for_each(|address| free(address, size));
    }
}

#[test]
fn threads_that_free_one_object_each_fill_the_quarantine_as_one_does() {
    execute("short_threads", 1, "");
}

fn short_threads() {
    let (size, slot) = (4000, 4096);
    let freed = in_thread(move || {
        let address = allocate(size);
        free(address, size);
        address
    });
    let mut bytes = 0;
    loop {
        let back = in_thread(move || {
            let address = allocate(size);
            free(address, size);
            address == freed
        });
        bytes += slot;
        if back {
            break;
        }
        assert!(bytes <= budget() + LATE, "not back after {bytes} bytes");
    }
    assert!(bytes >= budget(), "back after {bytes} bytes");
}

#[test]
fn a_class_used_later_gets_its_share() {
    execute("classes", 4, "");
}

/// A quarantine that is full of one class, and then another class: it is withheld as long, and the first comes back.
fn classes() {
    for (&(before, before_slot), &(size, slot)) in SIZES.iter().zip(SIZES.iter().skip(1)) {
        let first = allocate(before);
        free(first, before);
        churn(before, before_slot, 0, 2 * budget());
        let second = allocate(size);
        free(second, size);
        let distance = churn(size, slot, second, 3 * budget()).expect("it comes back");
        assert!((budget()..=budget() + LATE).contains(&distance), "{size} bytes: back after {distance}");
    }
    // Classes by turns have the budget together.
    let [(small, small_slot), (large, large_slot)] = [SIZES[1], SIZES[2]];
    let freed = allocate(small);
    free(freed, small);
    let mut bytes = 0;
    while bytes < 3 * budget() {
        bytes += small_slot + large_slot;
        let other = allocate(large);
        free(other, large);
        let address = allocate(small);
        free(address, small);
        if address == freed {
            break;
        }
    }
    assert!((budget()..=budget() + 2 * LATE).contains(&bytes), "back after {bytes} bytes");
}

#[test]
fn without_a_quarantine_nothing_waits() {
    execute("off", 0, "");
    execute("off", 0, "guards=mprotect");
}

fn off() {
    for (size, slot) in SIZES {
        let freed = allocate(size);
        free(freed, size);
        assert!(churn(size, slot, freed, 300 * slot).is_some(), "{size} bytes: withheld");
        let freed = in_thread(move || {
            let address = allocate(size);
            free(address, size);
            address
        });
        let found = in_thread(move || {
            let all: Vec<_> = (0..300).map(|_| allocate(size)).collect();
            let found = all.contains(&freed);
            all.into_iter().for_each(|address| free(address, size));
            found
        });
        assert!(found, "{size} bytes: withheld beyond the thread's end");
    }
}

/// Freed objects that [`touched`] writes to, of each size.
const TOUCHED: usize = 10;

#[test]
fn what_was_written_after_free_is_found_when_its_slot_comes() {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["part", "--exact", "--nocapture", "--test-threads=1"]).env(PART, "touched");
    command.env("FENCEPOST_OPTIONS", "quarantine_mb=0:on_error=continue:exitcode=0:unmap_threshold=131072");
    let run = process::run(&mut command, LIMIT);
    assert_eq!(run.end, End::Status(0), "{}", run.stderr);
    // One report, and how many there were in the summary.
    let found = format!(" {} write-after-free ", TOUCHED * SIZES.len());
    assert!(run.stderr.contains(&found), "{}", run.stderr);
}

fn touched() {
    for (size, _) in SIZES {
        let all: Vec<_> = (0..40).map(|_| allocate(size)).collect();
        all.iter().for_each(|address| free(*address, size));
        let touched: Vec<_> = all.iter().rev().take(TOUCHED).copied().collect();
        for address in &touched {
            // SAFETY: the slot was freed, and its memory is still there: that it is written to is what this is about.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(*address).write_volatile(1) };
        }
        // More than are in the cache, so that each slot comes once.
        let again: Vec<_> = (0..300).map(|_| allocate(size)).collect();
        assert!(touched.iter().all(|address| !again.contains(address)), "{size} bytes: handed out");
    }
    // What was found stays out of use, and a check would find it again.
    std::process::exit(0);
}

#[test]
fn memory_beyond_the_budget_is_given_back() {
    execute("memory", 4, "");
    execute("memory", 4, "unmap_threshold=131072");
}

fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("there is a /proc");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number of pages") * 4096
}

fn memory() {
    const LIVE: usize = 64 * MB;
    let wide = env::var("FENCEPOST_OPTIONS").is_ok_and(|options| options.contains("unmap_threshold"));
    for size in [1000, if wide { 50_000 } else { 3000 }] {
        let before = resident();
        let mut live: Vec<usize> = (0..LIVE / size).map(|_| allocate(size)).collect();
        live.iter().for_each(|address| {
            // SAFETY: a live object of this many bytes.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(*address).write_bytes(1, size) };
        });
        let full = resident();
        assert!(full - before > LIVE - LIVE / 8, "{size} bytes: {full} beside {before}");
        live.drain(..).for_each(|address| free(address, size));
        let left = resident().saturating_sub(before);
        // A quarter of the slabs that were in use may be kept without a slot in use.
        assert!(left < LIVE / 4 + 2 * budget(), "{size} bytes: {left} bytes are left");
    }
}

#[test]
fn the_quarantine_gives_way_before_an_allocation_fails() {
    execute("no_memory", 4096, "");
    execute("no_memory", 4096, "guards=mprotect");
}

fn no_memory() {
    const ROOM: usize = 48 * MB;
    const LIVE: usize = ROOM / 4 / 1024;
    // The limit is everybody's.
    let (mut live, mut different) = (Vec::with_capacity(LIVE), HashSet::with_capacity(LIVE));
    free(allocate(1000), 1000);
    let status = fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("how much data there is");
    let data: usize = data.trim().trim_end_matches(" kB").parse().expect("a number");
    let limit = libc::rlimit { rlim_cur: (data * 1024 + ROOM) as u64, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads the struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    assert_eq!(churn(1000, 1024, 0, 3 * ROOM), None);
    live.extend((0..LIVE).map(|_| allocate(1000)));
    // What lives is left alone meanwhile.
    assert_eq!(churn(1000, 1024, 0, 2 * ROOM), None);
    different.extend(live.iter().copied());
    assert_eq!(different.len(), LIVE);
    live.into_iter().for_each(|address| free(address, 1000));
}

#[test]
fn a_forked_child_goes_on_with_the_quarantine() {
    execute("forks", 1, "");
    execute("forks", 1, "guards=mprotect");
}

/// A thread starts the heap while another forks; in most runs the child finds it half made.
#[test]
fn a_child_forked_while_the_heap_starts_has_one() {
    for guards in ["auto", "mprotect"] {
        for _ in 0..40 {
            execute("start", 1, &format!("guards={guards}"));
        }
    }
}

fn start() {
    const CHILDREN: usize = 8;
    let ready = Arc::new(Barrier::new(2));
    let starter = ready.clone();
    let thread = thread::spawn(move || {
        starter.wait();
        free(allocate(8), 8);
    });
    ready.wait();
    let use_all = || SIZES.into_iter().for_each(|(size, _)| free(allocate(size), size));
    for _ in 0..CHILDREN {
        // SAFETY: as in `forks`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            use_all();
            // SAFETY: ends the child without its parent's handlers.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the status lives for the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
    }
    thread.join().expect("no panic");
    use_all();
}

/// Children of a process whose threads put and take all the time.
fn forks() {
    const CHILDREN: usize = 30;
    let going = Arc::new(AtomicUsize::new(1));
    let threads: Vec<_> = SIZES
        .into_iter()
        .take(3)
        .map(|(size, slot)| {
            let going = going.clone();
            thread::spawn(move || {
                while going.load(Ordering::Relaxed) != 0 {
                    churn(size, slot, 0, 1000 * slot);
                }
            })
        })
        .collect();
    for child in 0..CHILDREN {
        let (size, slot) = SIZES[child % SIZES.len()];
        // SAFETY: the child uses `HEAP` alone, which forks with the process, and ends.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            let freed = allocate(size);
            free(freed, size);
            let distance = churn(size, slot, freed, 3 * budget());
            let good = distance.is_some_and(|distance| (budget()..=budget() + LATE).contains(&distance));
            // SAFETY: ends the child without its parent's handlers.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        let mut status = 0;
        // SAFETY: the status lives for the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "child {child}: {size} bytes");
    }
    going.store(0, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}
