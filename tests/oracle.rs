//! Operations beside an oracle, in parallel: random sequences of all functions of C and C++ that the preloaded library
//! brings, or of `GlobalAlloc`, by 1 to 8 threads, with forks, signal handlers, ends of threads, checks and trims in
//! between, under randomly drawn options; contents, places, alignments, sizes and zeros are compared.
//!
//! - `oracle/sequence.rs`: the steps, and how they are drawn;
//! - `oracle/driver.rs`: does them and compares, in a process of its own: this binary, executed again;
//! - `oracle/calls.rs`: the functions under test; `oracle/table.rs`, `oracle/contents.rs`: what the oracle knows;
//! - `oracle/shrink.rs`: makes a failing sequence shorter.
//!
//! A failure is shrunk, printed, and kept in a file that `FENCEPOST_ORACLE_REPLAY` names again. `FENCEPOST_ORACLE=N`
//! makes N sequences for each mode, kind of guards and front.

#[path = "oracle/calls.rs"]
mod calls;
#[path = "oracle/contents.rs"]
mod contents;
#[path = "oracle/driver.rs"]
mod driver;
#[path = "model/random.rs"]
mod random;
#[path = "oracle/sequence.rs"]
mod sequence;
#[path = "oracle/shrink.rs"]
mod shrink;
mod support;
#[path = "oracle/table.rs"]
mod table;

use calls::Front;
use random::Random;
use sequence::{Draw, Operation, Step};
use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, Run};
use support::{EVERY_MODE, library};

/// Names the file of the sequence that this process is to do.
const RUN: &str = "FENCEPOST_ORACLE_RUN";
/// `c` or `rust`.
const FRONT: &str = "FENCEPOST_ORACLE_FRONT";
/// How many sequences for each mode, kind of guards and front.
const COUNT: &str = "FENCEPOST_ORACLE";
/// Names the file of a failed case.
const REPLAY: &str = "FENCEPOST_ORACLE_REPLAY";

/// Sequences for each mode, kind of guards and front, if nothing else is said.
const SEQUENCES: usize = 24;
/// Sequences in one process.
const TOGETHER: usize = 12;
/// What the sequences of one process may take.
const LIMIT: Duration = Duration::from_secs(240);
/// Attempts to make a failing sequence shorter, and runs of each attempt where threads decide.
const TRIES: usize = 400;
const REPEATS: usize = 4;
/// What shrinking may take.
const SHRINKING: Duration = Duration::from_secs(500);

/// The driver's own memory: none of the heap's under test. What was allocated is never given back.
struct Own;

const OWN_BYTES: usize = 1 << 30;
static OWN_START: AtomicUsize = AtomicUsize::new(0);
static OWN_USED: AtomicUsize = AtomicUsize::new(0);
/// [`OWN_START`] in a process that is no driver.
const NO_DRIVER: usize = 1;

impl Own {
    fn start() -> usize {
        match OWN_START.load(Ordering::Acquire) {
            0 => Self::decide(),
            start => start,
        }
    }

    /// Whether this process is a driver, and its memory then. No thread but the first has started.
    fn decide() -> usize {
        // SAFETY: the name ends in NUL, and the mapping is a new one.
        let start = unsafe {
            if libc::getenv(c"FENCEPOST_ORACLE_RUN".as_ptr()).is_null() {
                NO_DRIVER
            } else {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(std::ptr::null_mut(), OWN_BYTES, access, flags, -1, 0).expose_provenance()
            }
        };
        OWN_START.store(start, Ordering::Release);
        start
    }

    fn take(start: usize, layout: Layout) -> *mut u8 {
        let room = layout.size() + layout.align();
        let at = OWN_USED.fetch_add(room, Ordering::Relaxed);
        if at + room > OWN_BYTES {
            return std::ptr::null_mut();
        }
        std::ptr::with_exposed_provenance_mut((start + at).next_multiple_of(layout.align()))
    }
}

// SAFETY: memory is the system's, or a part of a mapping that is used once.
unsafe impl GlobalAlloc for Own {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Self::start() {
            // SAFETY: as the caller vouches.
            NO_DRIVER => unsafe { System.alloc(layout) },
            start => Self::take(start, layout),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if Self::start() == NO_DRIVER {
            // SAFETY: the system allocated it, and the caller vouches for the rest.
            unsafe { System.dealloc(pointer, layout) };
        }
    }
}

#[global_allocator]
static OWN: Own = Own;

fn errno() -> i32 {
    // SAFETY: the place is this thread's.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: i32) {
    // SAFETY: the place is this thread's.
    unsafe { *libc::__errno_location() = value };
}

/// The driver: does nothing unless the environment names a sequence.
#[test]
fn steps() {
    let Ok(path) = env::var(RUN) else { return };
    let front = if env::var(FRONT).as_deref() == Ok("rust") { Front::Rust } else { Front::C };
    let exact = env::var("FENCEPOST_OPTIONS").is_ok_and(|options| options.contains("align=exact"));
    let text = fs::read_to_string(path).expect("the sequence is there");
    let steps = sequence::read(&text);
    let (sure, other) = driver::main(front, exact, &steps);
    println!("bugs: {sure} {other}");
    if front == Front::Rust {
        HEAP_AT_EXIT.finish();
    }
}

/// What the library does at exit by itself.
static HEAP_AT_EXIT: fencepost::Fencepost = fencepost::Fencepost::new();

/// A process's worth of work.
#[derive(Clone)]
struct Case {
    front: Front,
    options: Vec<String>,
    steps: Vec<Step>,
}

impl Case {
    fn text(&self) -> String {
        format!("{:?} {}\n{}", self.front, self.options.join(":"), sequence::write(&self.steps))
    }

    fn read(text: &str) -> Self {
        let (head, steps) = text.split_once('\n').expect("a case has lines");
        let (front, options) = head.split_once(' ').expect("a case has a front and options");
        let front = if front == "Rust" { Front::Rust } else { Front::C };
        let options = options.split(':').map(str::to_owned).collect();
        // Two options have a colon in their value.
        let options = join_batches(options);
        Self { front, options, steps: sequence::read(steps) }
    }

    /// What is wrong with a run of it.
    fn fails(&self) -> Option<String> {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = scratch().join(format!("steps-{}-{number}", std::process::id()));
        fs::write(&path, sequence::write(&self.steps)).expect("the build's temporary directory is writable");
        let this = env::current_exe().expect("the system knows which file this is");
        let preload = (self.front == Front::C).then(library::path);
        let mut command = process::command(this, preload, &self.options.join(":"));
        command.args(["steps", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(RUN, &path).env(FRONT, if preload.is_some() { "c" } else { "rust" });
        command.env("FENCEPOST_OPTIONS", self.options.join(":"));
        let run = process::run(&mut command, LIMIT);
        let _ = fs::remove_file(&path);
        self.judge(&run)
    }

    fn judge(&self, run: &Run) -> Option<String> {
        let said = format!("{}{}", run.stdout, run.stderr);
        // Line by line: the test harness writes without a line's end.
        let bugs = run.stdout.lines().find_map(|line| line.split_once("bugs: ")).map(|(_, rest)| {
            let mut numbers = rest.split(' ').map(|word| word.parse::<usize>().unwrap_or(0));
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
        });
        let Some((sure, other)) = bugs else { return Some(format!("{}: {said}", run.end)) };
        let good = match (sure, other) {
            (0, 0) => {
                return match judge_silent(run, End::Status(0)) {
                    Verdict::Match => None,
                    Verdict::Miss(what) | Verdict::Mismatch(what) => Some(format!("{what}\n{said}")),
                };
            }
            (0, _) => matches!(run.end, End::Status(0 | 99)),
            _ => run.end == End::Status(99),
        };
        (!good).then(|| format!("{} after {sure} and {other} bugs: {said}", run.end))
    }

    /// The shortest case found that fails.
    fn shrink(self) -> Self {
        let alone = |steps: &[Step]| steps.iter().all(|step| step.thread == 0);
        let begin = Instant::now();
        let fails = |case: &Self| {
            let repeats = if alone(&case.steps) { 1 } else { REPEATS };
            // Attempts that hang are not to take hours.
            begin.elapsed() < SHRINKING && (0..repeats).any(|_| case.fails().is_some())
        };
        let mut best = self.clone();
        best.steps = shrink::shrink(self.steps.clone(), TRIES, |steps| {
            fails(&Self { steps: steps.to_vec(), ..self.clone() })
        });
        for index in (2..best.options.len()).rev() {
            // Without these a bug ends the process, or looks like another.
            if ["on_error", "quarantine_mb"].iter().any(|name| best.options[index].starts_with(name)) {
                continue;
            }
            let mut candidate = best.clone();
            candidate.options.remove(index);
            if fails(&candidate) {
                best = candidate;
            }
        }
        best
    }
}

/// `unmap=batch` and `7` are one option.
fn join_batches(words: Vec<String>) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for word in words {
        match options.last_mut() {
            Some(last) if !word.contains('=') => {
                last.push(':');
                last.push_str(&word);
            }
            _ => options.push(word),
        }
    }
    options
}

fn scratch() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
    fs::create_dir_all(&directory).expect("the build's directory for temporary files is writable");
    directory
}

/// Options that change a path, each with its values.
const AXES: &[&[&str]] = &[
    &["zero=0"],
    &["canary=0"],
    &["quarantine_mb=0", "quarantine_mb=0.01", "quarantine_mb=4"],
    &["unmap_threshold=131072", "unmap_threshold=16384", "unmap_threshold=1024"],
    &["align=exact"],
    &["guard_side=left", "guard_side=random"],
    &["unmap=batch:2", "unmap=batch:7", "unmap=batch:64"],
    &["seal=pkey"],
    &["backtrace=0", "backtrace=2", "backtrace=32"],
    &["intercept=off", "intercept=copy", "intercept=syscalls", "intercept=all"],
    &["budget_mb=1"],
    &["history=64"],
    &["reserve_gb=1"],
    &["sample_rate=1", "sample_rate=7"],
    &["fill=0xa5"],
    &["mismatch=0"],
    &["check_at_exit=0"],
];

fn draw(random: &mut Random, base: &str, front: Front, sequences: usize) -> Case {
    let mut options: Vec<String> = base.split(':').map(str::to_owned).collect();
    let bugs = random.below(6) == 0;
    for axis in AXES {
        if random.below(5) == 0 {
            options.push(axis[random.below(axis.len())].to_owned());
        }
    }
    if bugs {
        // What is freed must not come back at once, and what is written behind an object must be slack.
        let kept = |option: &String| {
            !["canary", "quarantine_mb", "reserve_gb", "mismatch"].iter().any(|name| option.starts_with(name))
        };
        options.retain(kept);
        options.extend(["quarantine_mb=64".to_owned(), "on_error=continue".to_owned()]);
        options.push(["report=json", "report=text"][random.below(2)].to_owned());
    }
    let threads = [1, 1, 2, 3, 4, 8][random.below(6)];
    let most = [2_000, 40_000, 3 << 20][random.below(3)];
    let steps = sequence::draw(random, &Draw { sequences, threads, most, bugs });
    Case { front, options, steps }
}

fn count() -> usize {
    env::var(COUNT).map_or(SEQUENCES, |count| count.parse().expect("the count is a number"))
}

/// Draws and runs cases of one mode, kind of guards and front. The first that fails is shrunk and shown.
fn search(base: &str, front: Front) {
    let seed = random::seed();
    println!("repeat with {}", random::again(seed));
    let begin = Instant::now();
    let mut random = Random::new(seed);
    let (mut done, count) = (0, count());
    while done < count {
        let sequences = TOGETHER.min(count - done);
        let case = draw(&mut random, base, front, sequences);
        if let Some(what) = case.fails() {
            show(case, &what);
        }
        done += sequences;
    }
    println!("{base} {front:?}: {done} sequences in {:.0} s, no finding", begin.elapsed().as_secs_f64());
}

/// The first two options, as part of a file's name.
fn base_name(options: &[String]) -> String {
    options.iter().take(2).filter_map(|option| option.split('=').nth(1)).collect::<Vec<_>>().join("-")
}

fn show(case: Case, what: &str) -> ! {
    let name = base_name(&case.options);
    let path = scratch().join(format!("failed-{name}-{:?}-{}", case.front, std::process::id()));
    fs::write(&path, case.text()).expect("the build's temporary directory is writable");
    let whole = case.steps.len();
    let short = case.shrink();
    let text = short.text();
    let shrunk = path.with_extension("short");
    fs::write(&shrunk, &text).expect("the build's temporary directory is writable");
    panic!(
        "{what}\n{whole} steps became these, repeat with {REPLAY}={} (all: {}):\n{text}",
        shrunk.display(),
        path.display()
    );
}

/// Does a failed case again.
#[test]
fn replay() {
    let Ok(path) = env::var(REPLAY) else { return };
    let case = Case::read(&fs::read_to_string(path).expect("the case is there"));
    for _ in 0..20 {
        if let Some(what) = case.fails() {
            panic!("{what}");
        }
    }
}

/// What failed once, each several times.
#[test]
fn known_cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/cases");
    let entries = fs::read_dir(directory).expect("the cases are in the source tree");
    for path in entries.map(|entry| entry.expect("a directory can be read").path()) {
        let case = Case::read(&fs::read_to_string(&path).expect("the case is there"));
        for _ in 0..10 {
            if let Some(what) = case.fails() {
                panic!("{}: {what}", path.display());
            }
        }
    }
}

/// A test for each mode, kind of guards and front.
macro_rules! searches {
    ($($name:ident: $number:literal;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn c() {
                search(EVERY_MODE[$number], Front::C);
            }

            #[test]
            fn rust() {
                search(EVERY_MODE[$number], Front::Rust);
            }
        }
    )+};
}

searches! {
    harden_madvise: 0;
    harden_mprotect: 1;
    patrol_madvise: 2;
    patrol_mprotect: 3;
    hunt_madvise: 4;
    hunt_mprotect: 5;
}

/// The oracle's own test: a change that it does not know of is found, and shrinks to what matters.
#[test]
fn a_planted_change_is_found() {
    let mut random = Random::new(7);
    let mut case = draw(&mut random, "mode=harden:guards=auto", Front::C, 2);
    case.options.truncate(2);
    case.steps.retain(|step| step.operation != Operation::Signal);
    case.steps.iter_mut().for_each(|step| step.thread = 0);
    let middle = case.steps.len() / 2;
    let step = |operation, a, b| Step { thread: 0, operation, place: 63, a, b };
    let planted = [
        step(Operation::Free, 5, 0),
        step(Operation::Allocate, 0, 100),
        step(Operation::Plant, 0, 0),
        step(Operation::Free, 5, 0),
    ];
    case.steps.splice(middle..middle, planted);
    let what = case.fails().expect("the change is seen");
    assert!(what.contains("changed at 0"), "{what}");
    let short = case.shrink();
    let left: Vec<Operation> = short.steps.iter().map(|step| step.operation).collect();
    assert!(left.len() <= 3 && left[..2] == [Operation::Allocate, Operation::Plant], "{}", short.text());
}
