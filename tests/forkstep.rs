//! Proof that a fork may happen at any instruction of the library's: one thread is traced and does an instruction at a
//! time, while it stands still another forks, and the child uses the whole heap that it finds. `forkstep/tracer.c` says
//! which instructions are drawn; a failure names the one.
//!
//! `FENCEPOST_FORKSTEP=N` makes a fork N times as likely; from some 10,000 on there is one at every step.
//! `FENCEPOST_TEST_SEED` repeats a draw.

mod support;

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::process::{self, End};
use support::{compiler, library, skip};

/// What the tracer ends with where it may not trace.
const NOT_PERMITTED: i32 = 77;
/// The chance of a fork where an instruction runs for the first time.
const CHANCE: f64 = 0.002;
/// For the tracer's own limits to end it first.
const LIMIT: Duration = Duration::from_secs(300);

/// The operations of `forkstep/forkstep.h`, by their numbers there.
const SMALL: u8 = 0;
const FLUSH: u8 = 1;
const PAGES: u8 = 2;
const LARGE: u8 = 3;
const CROSS: u8 = 4;
const TRIM: u8 = 5;
const SWEEP: u8 = 6;
const SIGNALS: u8 = 7;

fn times() -> u32 {
    env::var("FENCEPOST_FORKSTEP").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn seed() -> u64 {
    let given = env::var("FENCEPOST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        u64::from(since.subsec_nanos())
    })
}

/// `None` without a compiler.
fn program(name: &str) -> Option<std::path::PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forkstep").join(name);
    compiler::with_flags(&source, &["-O1"], &format!("forkstep-{name}.bin"))
}

/// The functions at the place that a line of the tracer's names, innermost first, as far as it can be found out.
fn functions(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("library+")?;
    let offset = rest.split(' ').next()?;
    let mut command = Command::new("addr2line");
    command.args(["-Cfipe"]).arg(library::path()).arg(offset);
    let found = command.output().ok()?;
    Some(String::from_utf8_lossy(&found.stdout).into_owned())
}

/// Forks within `operations` with these options, in a process that limits itself to so many MiB of address space if that
/// is not 0.
fn step(options: &str, operations: &[u8], limit: u32) {
    let (Some(tracer), Some(tracee)) = (program("tracer.c"), program("tracee.c")) else { return };
    let seed = seed();
    let numbers: String = operations.iter().map(|number| char::from(b'0' + number)).collect();
    let chance = CHANCE * f64::from(times());
    let mut command = process::command(tracer, None, "");
    command.arg(library::path()).arg(options).arg(tracee);
    command.args([numbers, limit.to_string(), chance.to_string(), seed.to_string()]);
    let run = process::run(&mut command, LIMIT * times());
    println!("{options}: {:?}, repeat with FENCEPOST_TEST_SEED={seed}\n{}", run.time, run.stdout);
    if run.end == End::Status(NOT_PERMITTED) {
        skip::skip("forks at each instruction: tracing is not permitted");
        return;
    }
    let place = functions(&run.stdout).unwrap_or_default();
    assert!(
        run.end == End::Status(0) && run.stderr.is_empty(),
        "{options}: {}, repeat with FENCEPOST_TEST_SEED={seed}\n{}{place}{}",
        run.end,
        run.stdout,
        run.stderr
    );
    // The tracer sees locks, and forks while they are held: else nothing was proved.
    let with_lock = |line: &str| {
        let (_, counts) = line.split_once(" forks, ").expect("a line of counts for each operation");
        counts.split(' ').next().and_then(|count| count.parse::<u32>().ok()).expect("a count")
    };
    let held: u32 = run.stdout.lines().map(with_lock).sum();
    assert_eq!(run.stdout.lines().count(), operations.len(), "{}", run.stdout);
    assert!(held >= 10, "{held} forks with a lock held\n{}", run.stdout);
}

#[test]
fn harden() {
    step("mode=harden", &[SMALL, FLUSH, PAGES, LARGE, CROSS, TRIM, SWEEP, SIGNALS], 0);
}

#[test]
fn harden_without_madvise() {
    step("mode=harden:guards=mprotect", &[PAGES, LARGE, CROSS, SIGNALS], 0);
}

/// Slabs become empty and go back; there is no quarantine between a free and its store.
#[test]
fn harden_slabs() {
    step("mode=harden:unmap_threshold=32768:quarantine_mb=0", &[FLUSH, CROSS, TRIM, SWEEP], 0);
}

#[test]
fn patrol() {
    step("mode=patrol:sample_rate=5", &[FLUSH, CROSS, SIGNALS], 0);
}

#[test]
fn hunt() {
    step("mode=hunt", &[PAGES, LARGE, CROSS, SWEEP, SIGNALS], 0);
}

#[test]
fn hunt_without_madvise() {
    step("mode=hunt:guards=mprotect", &[PAGES, LARGE], 0);
}

#[test]
fn hunt_batch() {
    step("mode=hunt:unmap=batch:16", &[PAGES, SWEEP], 0);
}

/// Objects outside of the arena.
#[test]
fn limited() {
    step("mode=harden", &[PAGES, LARGE], 700);
    step("mode=hunt", &[LARGE], 700);
}
