//! Soak: mixed load for minutes, in each mode, under a limit on memory; afterwards the process has the mappings, the resident
//! memory, the page tables and the descriptors that it had early on.
//!
//! By default some seconds, after which figures are not yet flat and only contents are compared. `FENCEPOST_SOAK=N` takes N
//! minutes for each mode, prints the figures of each minute, and demands that the median of the last six is within 15 % of
//! that of the sixth to the eleventh (memory swings by as much, for which slots wait in quarantine is chance); page tables may
//! grow, but slowly. At the end of a minute all threads end and all is freed; what is counted then is what stays. The history
//! of freed objects is kept short, so that it is full by then.

#[path = "model/random.rs"]
mod random;
mod support;

use fencepost::Fencepost;
use random::Random;
use std::env;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// Minutes for each mode.
const MINUTES: &str = "FENCEPOST_SOAK";
/// Says that this process is to make the load, for so many seconds.
const SECONDS: &str = "FENCEPOST_SOAK_SECONDS";
/// What a mode takes if nothing else is said.
const SHORT: u64 = 2;
const THREADS: u64 = 4;
/// Objects and bytes that a thread keeps at most.
const OBJECTS: usize = 3_000;
const BYTES: usize = 24 << 20;
/// The minutes whose figures the last ones are compared with.
const EARLY: std::ops::Range<usize> = 5..11;
/// KiB of page tables that may stay for each minute, of addresses which were in use: those of the tables' names, and the upper
/// ones of shards. They end when the arena was gone through once.
const TABLES_KIB: u64 = 200;
/// Bytes of data that the process may have, in all.
const LIMIT: u64 = 4 << 30;

/// What must not grow.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    mappings: u64,
    resident_kib: u64,
    tables_kib: u64,
    descriptors: u64,
}

impl Figures {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let maps = fs::read_to_string("/proc/self/maps").expect("the kernel tells");
        Self {
            mappings: maps.lines().count() as u64,
            resident_kib: field("VmRSS:"),
            tables_kib: field("VmPTE:"),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        }
    }

    const NAMES: [&str; 4] = ["mappings", "resident memory", "page tables", "descriptors"];

    fn all(self) -> [u64; 4] {
        [self.mappings, self.resident_kib, self.tables_kib, self.descriptors]
    }
}

/// An object whose bytes are all the same, but for its first, which are its length.
struct Parcel(Vec<u8>);

impl Parcel {
    fn new(random: &mut Random) -> Self {
        let most = match random.below(100) {
            0 => 900_000,
            1..=9 => 30_000,
            _ => 900,
        };
        let size = 8 + random.size(most);
        let mut bytes = vec![size as u8; size];
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        Self(bytes)
    }

    fn is_intact(&self) -> bool {
        let size = self.0.len();
        self.0[..8] == size.to_le_bytes() && self.0[8..].iter().all(|byte| *byte == size as u8)
    }

    fn grow(self, random: &mut Random) -> Self {
        let mut bytes = self.0;
        let size = 8 + random.size(2 * bytes.len());
        let old = bytes.len().min(size);
        bytes.resize(size, 0);
        assert!(bytes[8..old].windows(2).all(|pair| pair[0] == pair[1]), "a resize kept the contents");
        bytes[8..].fill(size as u8);
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        Self(bytes)
    }
}

/// The load: does nothing unless the environment asks for it.
#[test]
fn load() {
    let Ok(seconds) = env::var(SECONDS) else { return };
    let seconds = seconds.parse().expect("a number");
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the limit is live for the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    let seed = random::seed();
    println!("repeat with {}", random::again(seed));
    let (mut random, mut minute, begin) = (Random::new(seed), 0, Instant::now());
    let end = Duration::from_secs(seconds);
    while begin.elapsed() < end {
        minute += 1;
        work_until(begin, end.min(Duration::from_secs(60) * minute), &mut random);
        // The threads are gone, all is freed, and empty slabs are given back: moments do not differ in what lives.
        fencepost::heap::trim();
        println!("minute {minute} {:?}", Figures::now());
    }
    assert_eq!(HEAP.check(), 0);
    println!("done");
}

/// Threads make and free objects until so much time has passed since `begin`, and forks go on beside them.
fn work_until(begin: Instant, end: Duration, random: &mut Random) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (stop, seed) = (&stop, random.next());
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    // Threads end as well.
                    scope_of(&mut random, stop);
                }
            });
        }
        while begin.elapsed() < end {
            thread::sleep(Duration::from_millis(100));
            fork_once();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A thread's life: some ten thousand steps, in which it frees what it made.
fn scope_of(random: &mut Random, stop: &AtomicBool) {
    let seed = random.next();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random::new(seed);
            let (mut live, mut bytes) = (Vec::new(), 0);
            for _ in 0..20_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let full = live.len() >= OBJECTS || bytes >= BYTES;
                if !full && random.below(2) == 0 {
                    let parcel = Parcel::new(&mut random);
                    bytes += parcel.0.len();
                    live.push(parcel);
                } else if !live.is_empty() {
                    let parcel: Parcel = live.swap_remove(random.below(live.len()));
                    assert!(parcel.is_intact());
                    bytes -= parcel.0.len();
                    if random.below(4) == 0 {
                        let parcel = parcel.grow(&mut random);
                        bytes += parcel.0.len();
                        live.push(parcel);
                    }
                }
            }
            assert!(live.iter().all(Parcel::is_intact));
        });
    });
}

/// A child that allocates and ends.
fn fork_once() {
    // SAFETY: the child allocates, which is what is tested, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut random = Random::new(1);
        let intact = (0..50).all(|_| Parcel::new(&mut random).is_intact());
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!intact)) };
    }
    let mut status = 0;
    // SAFETY: the status is live, the child is this process's.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child's wait status");
}

fn soak(options: &str) {
    let minutes: Option<u64> = env::var(MINUTES).ok().map(|text| text.parse().expect("a number"));
    let seconds = minutes.map_or(SHORT, |minutes| minutes * 60 + 5);
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["load", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(SECONDS, seconds.to_string()).env("FENCEPOST_OPTIONS", options);
    let run = process::run(&mut command, Duration::from_secs(seconds + 120));
    let verdict = judge_silent(&run, End::Status(0));
    assert_eq!(verdict, Verdict::Match, "{options}\n{}{}", run.stdout, run.stderr);
    let figures: Vec<Figures> = run.stdout.lines().filter_map(parse).collect();
    for (minute, figures) in figures.iter().enumerate() {
        println!("{options} minute {}: {figures:?}", minute + 1);
    }
    if figures.len() < EARLY.end + EARLY.len() {
        return;
    }
    // Which slots wait in quarantine, and so which slabs stay, is chance.
    let (early, late) = (figures.get(EARLY).unwrap_or(&[]), figures.split_at(figures.len() - EARLY.len()).1);
    let minutes = (figures.len() - EARLY.end) as u64;
    for (index, name) in Figures::NAMES.into_iter().enumerate() {
        let median = |figures: &[Figures]| {
            let mut values: Vec<u64> = figures.iter().map(|figures| figures.all()[index]).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().expect("some minutes")
        };
        let (early, late) = (median(early), median(late));
        let more = match name {
            "descriptors" => 0,
            "page tables" => TABLES_KIB * minutes,
            _ => (early * 15 / 100).max(64),
        };
        assert!(late <= early + more, "{options}: {name} grew from {early} to {late}");
    }
}

/// `minute N Figures { name: value, … }`
fn parse(line: &str) -> Option<Figures> {
    let (_, rest) = line.split_once("Figures {")?;
    let mut values = rest
        .split(',')
        .filter_map(|field| field.split(':').nth(1)?.trim_end_matches([' ', '}']).trim().parse().ok());
    Some(Figures {
        mappings: values.next()?,
        resident_kib: values.next()?,
        tables_kib: values.next()?,
        descriptors: values.next()?,
    })
}

/// A test for each set of options.
macro_rules! soaks {
    ($($name:ident: $options:literal;)+) => {$(
        #[test]
        fn $name() {
            soak($options);
        }
    )+};
}

soaks! {
    harden: "mode=harden:history=4000";
    patrol: "mode=patrol:sample_rate=100:history=4000";
    hunt: "mode=hunt:history=4000";
    hunt_mprotect: "mode=hunt:guards=mprotect:history=4000";
}

/// Objects with chunks of their own leave no page tables behind: one of 4 KiB each would be 2.4 MiB.
#[test]
fn large_objects_leave_no_page_tables() {
    let before = Figures::now().tables_kib;
    for _ in 0..600 {
        drop(std::hint::black_box(vec![1_u8; 600_000]));
    }
    let after = Figures::now().tables_kib;
    assert!(after < before + 1_024, "{before} KiB, then {after} KiB");
}

/// The figures are read as they were written.
#[test]
fn figures_come_back() {
    let figures = Figures { mappings: 1, resident_kib: 22, tables_kib: 333, descriptors: 4 };
    let read = parse(&format!("minute 7 {figures:?}")).expect("figures");
    assert_eq!(format!("{read:?}"), format!("{figures:?}"));
}
