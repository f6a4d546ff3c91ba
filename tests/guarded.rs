//! The page allocator over the lifetime of a process: mappings, page tables, memory and `fork` do not grow with
//! the objects that live or were freed, and addresses come back oldest first.
//!
//! CI runs small numbers. `FENCEPOST_SCALE=LIVE,FREED cargo test --release --test guarded scale --
//! --nocapture` runs those of the bar (5000000,50000000: 21 GiB and ten minutes) and prints what it finds.

#[expect(dead_code, reason = "one seed does here")]
#[path = "model/random.rs"]
mod random;
mod support;

use fencepost::Fencepost;
use random::Random;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{HashMap, VecDeque};
use std::env;
use std::fs;
use std::time::{Duration, Instant};
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, Run};

/// Says that this process is to run the named part.
const PART: &str = "FENCEPOST_GUARDED";
/// Live and freed objects of the scale test.
const SCALE: &str = "FENCEPOST_SCALE";
const SMALL_SCALE: &str = "150000,150000";
/// Ten minutes of the largest scale, and as much again.
const LIMIT: Duration = Duration::from_secs(1800);
const OBJECT: Layout = match Layout::from_size_align(64, 16) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

static HEAP: Fencepost = Fencepost::new();

fn execute(part: &str, options: &str) -> Run {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["part", "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    command.env("FENCEPOST_OPTIONS", options);
    let run = process::run(&mut command, LIMIT);
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{}{}", run.stdout, run.stderr);
    print!("{}", run.stdout);
    run
}

#[test]
fn part() {
    match env::var(PART).as_deref() {
        Err(_) => {}
        Ok("churn") => churn(),
        Ok("scale") => scale(),
        Ok("scattered") => scattered(),
        Ok("passed") => passed(),
        Ok(other) => panic!("there is no part {other:?}"),
    }
}

/// A GiB of address space in 32 shards of 8 chunks, the last of which is a guard: a process that uses its
/// shard 60 times over.
#[test]
fn churn_reuses_the_oldest_addresses_and_does_not_grow() {
    execute("churn", "mode=hunt:backtrace=0:reserve_gb=1");
}

#[test]
fn scale_takes_no_mappings() {
    execute("scale", "mode=hunt:backtrace=0:budget_mb=22000");
}

#[test]
fn scattered_objects_have_as_many_mappings_as_they_are() {
    execute("scattered", "mode=hunt:backtrace=0");
}

#[test]
fn objects_that_outlive_the_history_leave_no_names() {
    execute("passed", "mode=hunt:backtrace=0:history=100");
}

fn allocate() -> *mut u8 {
    // SAFETY: the layout has a size.
    let object = unsafe { HEAP.alloc(OBJECT) };
    assert!(!object.is_null());
    // SAFETY: the object is this long.
    unsafe { object.write(1) };
    object
}

fn free(object: *mut u8) {
    // SAFETY: every object here comes from `allocate` and is freed once.
    unsafe { HEAP.dealloc(object, OBJECT) };
}

fn churn() {
    const ROUND: usize = 7 * 512 / 3;
    const ROUNDS: usize = 60;
    let mut freed = HashMap::new();
    let mut resident = 0;
    let (mut nearest, mut reused) = (usize::MAX, 0);
    for count in 0..ROUNDS * ROUND {
        let object = allocate();
        free(object);
        if let Some(before) = freed.insert(object as usize / 4096, count) {
            nearest = nearest.min(count - before);
            reused += 1;
        }
        if count == 10 * ROUND {
            resident = status("VmRSS:") + status("VmPTE:");
        }
    }
    // A chunk holds 512 pages, of which an object takes two or three: five chunks lie between.
    assert!(reused > 30 * ROUND, "{reused} addresses came back");
    assert!(nearest > 5 * 512 / 3, "an address came back after {nearest} others");
    let grown = (status("VmRSS:") + status("VmPTE:")).saturating_sub(resident);
    // The oracle's own table and the history of freed objects, which is not full after ten rounds.
    assert!(grown < 12 << 10, "{grown} KiB more after {ROUNDS} rounds than after 10");
    println!("churn: {reused} addresses reused, each after {nearest} others at least, {grown} KiB grown");
}

/// Objects that live long, each in a chunk far from the others': few that are replaced again and again, and then more
/// than there may be gaps so short.
fn scattered() {
    const FEW: usize = 12;
    const MANY: usize = 240;
    /// Six chunks of them.
    const BETWEEN: usize = 6 * 512 / 3;
    /// Gaps that so few chunks may leave (`page/arena.rs`).
    const GAPS: usize = 64;
    let allocate_far = || {
        (0..BETWEEN).for_each(|_| free(allocate()));
        allocate()
    };
    let mut kept: VecDeque<_> = (0..FEW).map(|_| allocate()).collect();
    let before = mappings();
    for _ in 0..MANY / 3 {
        kept.push_back(allocate_far());
        free(kept.pop_front().expect("some are kept"));
    }
    let few = mappings().saturating_sub(before);
    kept.extend((0..MANY).map(|_| allocate_far()));
    let many = mappings().saturating_sub(before);
    println!("scattered: {few} more mappings for {FEW} objects, {many} for {MANY} more");
    // The chunk of each is a mapping, and so is the gap behind it. The tables take a few.
    assert!(few < 2 * FEW + 24, "{few} more mappings");
    assert!(many < 2 * GAPS + 24, "{many} more mappings");
    kept.into_iter().for_each(free);
}

/// Objects of which most outlive those that are remembered, in no order: all chunks have live ones when their names are
/// first looked at.
fn passed() {
    const LIVE: usize = 6_000;
    const COUNT: usize = 800_000;
    let mut random = Random::new(7);
    let mut kept: Vec<_> = (0..LIVE).map(|_| allocate()).collect();
    let (mut early, mut late) = (0, 0);
    for count in 0..COUNT {
        let place = random.below(LIVE);
        free(std::mem::replace(&mut kept[place], allocate()));
        // The names go in rounds: the most that there are of them.
        let half = if count < COUNT / 8 { &mut early } else { &mut late };
        if count % 500 == 0 {
            *half = status("RssAnon:").max(*half);
        }
    }
    println!("passed: {early} KiB, then {late} KiB");
    // All names that there ever were would be 8 MiB.
    assert!(late < early + 256, "{early} KiB, then {late} KiB");
    kept.into_iter().for_each(free);
}

fn scale() {
    let text = env::var(SCALE).unwrap_or(SMALL_SCALE.to_owned());
    let (live, freed) = text.split_once(',').expect("two numbers");
    let [live, freed] = [live, freed].map(|text| text.parse::<usize>().expect("a number"));
    // Warm: the history is full, the tables are there.
    for _ in 0..70_000 {
        free(allocate());
    }
    let before = say("before");
    let objects: Vec<_> = (0..live).map(|_| allocate()).collect();
    let full = say("live");
    objects.into_iter().for_each(free);
    say("freed");
    for _ in 0..freed {
        free(allocate());
    }
    let after = say("after");
    assert!(full.mappings < 200 && after.mappings < 200);
    // Of each 4 KiB: one of the table of names for 2 GiB of addresses, which is some 220,000 objects; one of the
    // upper level for each GiB; one of the table of records for 32,768 that lived at once.
    let tables = 1024 + (live + freed) / 50_000 + (live + freed) / 25_000 + live / 8_000;
    assert!(after.tables < before.tables + tables, "{} KiB of page tables", after.tables);
    assert!(after.fork < 2 * before.fork + Duration::from_millis(2), "fork: {:?}", after.fork);
}

struct State {
    mappings: usize,
    tables: usize,
    fork: Duration,
}

/// What the process is made of now, printed.
fn say(when: &str) -> State {
    let state = State {
        mappings: mappings(),
        tables: status("VmPTE:"),
        fork: (0..5).map(|_| fork()).min().expect("five"),
    };
    let resident = status("VmRSS:");
    println!(
        "scale, {when}: {} mappings, {resident} KiB resident, {} KiB of page tables, fork {:?}",
        state.mappings, state.tables, state.fork
    );
    state
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("/proc is there").lines().count()
}

/// A line of /proc/self/status, in KiB.
fn status(key: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn fork() -> Duration {
    let began = Instant::now();
    // SAFETY: the child does nothing but end.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: ends the child without its parent's handlers.
        unsafe { libc::_exit(0) };
    }
    let took = began.elapsed();
    let mut end = 0;
    // SAFETY: the status lives for the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut end, 0) }, child);
    took
}
