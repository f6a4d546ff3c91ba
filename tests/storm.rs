//! Storms: forks under load, threads that come and go, signal handlers that allocate and fork, children of every
//! kind, threads and processes that end while they allocate, forks beside the C library's locks, checks of the whole heap
//! beside threads, bursts of a real-time thread, many threads at once. C programs under the preloaded library, which check
//! contents themselves and say which fork or interruption did not come to its end; what hangs all the same is
//! killed at the time limit.
//!
//! `FENCEPOST_STORM=N` makes N times as many: 100,000 forks are 1000, as many threads 100.

mod support;

use std::env;
use std::path::Path;
use std::time::Duration;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, Run};
use support::{compiler, library, skip};

/// For the smallest storms; larger ones get more in proportion.
const LIMIT: Duration = Duration::from_secs(60);

/// What a program ends with that may not do here what it is about.
const NOT_PERMITTED: End = End::Status(77);

const FORKS: u32 = 100;
/// Of each of the eight threads that allocate meanwhile, after fifty steps.
const PAUSE_MICROS: u32 = 1_000;
const THREADS: u32 = 1_000;
const INTERRUPTIONS: u32 = 2_000;
/// One handler in so many forks.
const FORKING: u32 = 50;
const ENDINGS: u32 = 15;
const CANCELLED: u32 = 300;
/// Beside threads that have the C library's locks.
const STREAM_FORKS: u32 = 60;
const SWEEP_SECONDS: u32 = 2;
const BURSTS: u32 = 500;
/// What none of them may exceed: where a thread waited for one that does not run, it was seconds.
const BURST_MILLIS: u32 = 250;

/// Threads at once, and hundredths of mappings for each; that the library maps for several at once comes to 25.
const MANY_AT_ONCE: u32 = 2_000;
const MAPPING_PERCENT: u32 = 300;

/// KiB by which resident memory may grow from a tenth of the threads to all. What grows at first is the history of
/// freed objects, which is kept short here.
const GROWTH: u32 = 12 << 10;

fn times() -> u32 {
    env::var("FENCEPOST_STORM").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// `None` without a compiler.
fn execute(program: &str, arguments: &[String], options: &str) -> Option<Run> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storm").join(program);
    let binary = compiler::program(&source, "-O1")?;
    let mut command = process::command(binary, Some(library::path()), options);
    let run = process::run(command.args(arguments), LIMIT * times());
    println!("{program} {arguments:?} {options}: {:?}\n{}", run.time, run.stdout);
    Some(run)
}

/// Runs a program that has to end well, and of which the library says nothing.
fn storm(program: &str, arguments: &[u32], options: &str) {
    let arguments: Vec<_> = arguments.iter().map(u32::to_string).collect();
    let Some(run) = execute(program, &arguments, options) else { return };
    let verdict = judge_silent(&run, End::Status(0));
    assert_eq!(verdict, Verdict::Match, "{program} {arguments:?} {options}\n{}{}", run.stdout, run.stderr);
}

/// A test for each storm with these options.
macro_rules! storms {
    ($($name:ident: $options:literal;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn forks() {
                storm("forks.c", &[FORKS * times(), PAUSE_MICROS], $options);
            }

            #[test]
            fn threads() {
                let options = concat!($options, ":history=1000");
                storm("threads.c", &[THREADS * times(), GROWTH], options);
            }

            #[test]
            fn handlers() {
                storm("handlers.c", &[INTERRUPTIONS * times(), 0], $options);
            }

            #[test]
            fn handlers_that_fork() {
                storm("handlers.c", &[INTERRUPTIONS * times(), FORKING], $options);
            }

            #[test]
            fn children() {
                storm("children.c", &[], $options);
                storm("children.c", &[], concat!($options, ":seed=1234"));
            }

            #[test]
            fn endings() {
                storm("endings.cc", &[ENDINGS * times()], $options);
            }

            #[test]
            fn forks_beside_streams() {
                storm("streams.c", &[STREAM_FORKS * times()], $options);
            }

            #[test]
            fn sweeps() {
                storm("sweeps.c", &[SWEEP_SECONDS * times()], $options);
            }

            #[test]
            fn cancelled() {
                storm("cancelled.c", &[CANCELLED * times()], $options);
            }

            #[test]
            fn a_report_names_the_child() {
                name_the_child($options);
            }
        }
    )+};
}

storms! {
    harden: "mode=harden";
    patrol: "mode=patrol:sample_rate=20";
    hunt: "mode=hunt";
    hunt_batch: "mode=hunt:unmap=batch:16";
}

/// The handlers run on their threads' alternate stacks, which are the library's.
#[test]
fn handlers_on_alternate_stacks() {
    storm("handlers.c", &[INTERRUPTIONS * times(), FORKING, 1], "mode=harden");
    storm("handlers.c", &[INTERRUPTIONS * times(), FORKING, 1], "mode=hunt");
}

/// Where guards are markers a thread takes no mapping but its stack's two, and a process has as many threads as without the
/// library.
#[test]
fn mappings() {
    storm("mappings.c", &[MANY_AT_ONCE, MAPPING_PERCENT], "mode=harden:guards=auto");
    storm("mappings.c", &[MANY_AT_ONCE, MAPPING_PERCENT], "mode=hunt:guards=auto");
}

/// A thread that always runs first waits for no other longer than that one takes.
#[test]
fn bursts_in_real_time() {
    for options in ["mode=harden", "mode=harden:guards=mprotect"] {
        let arguments = [BURSTS * times(), BURST_MILLIS].map(|number| number.to_string());
        let Some(run) = execute("realtime.c", &arguments, options) else { return };
        if run.end == NOT_PERMITTED {
            skip::skip("bursts in real time: SCHED_FIFO is not permitted");
            return;
        }
        assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{options}\n{}", run.stdout);
    }
}

/// With little address space there are few shards, and objects outside of the arena.
mod limited {
    use super::*;

    const OPTIONS: &str = "mode=hunt:reserve_gb=1";

    #[test]
    fn forks() {
        storm("forks.c", &[FORKS * times(), PAUSE_MICROS], OPTIONS);
    }

    #[test]
    fn handlers_that_fork() {
        storm("handlers.c", &[INTERRUPTIONS * times(), FORKING], OPTIONS);
    }
}

fn name_the_child(options: &str) {
    let Some(run) = execute("children.c", &["fault".to_owned()], options) else { return };
    let said = run.stdout.lines().find_map(|line| line.strip_prefix("child ")?.split_once(" of "));
    let (child, parent) = said.expect("it says its number and its parent's");
    let errors: Vec<_> = run.stderr.lines().filter(|line| line.contains("ERROR: ")).collect();
    let expected = format!("=={child}==ERROR: fencepost: double-free ");
    assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{expected}\n{}", run.stderr);
    for line in [format!("freed by thread T{child} "), format!("allocated by thread T{parent} ")] {
        assert!(run.stderr.contains(&line), "{line}\n{}", run.stderr);
    }
    assert!(run.stdout.contains("the child's signal is 6\n"), "{}", run.stdout);
    assert_eq!(run.end, End::Status(0));
}
