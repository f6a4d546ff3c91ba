//! The detection suite: every bug × allocator × mode × backend of the guards, in Rust.
//!
//! This binary runs under fencepost and executes itself: `victim` does nothing unless the environment
//! names a bug, which it then commits ([`victim`]'s table). A row ([`rows`]) passes only on the one report
//! with the exact kind, object size, relation, distance and access, in the right process, and on the
//! right signal. The suite proves itself: a program without a bug must come out clean, a bug that cannot
//! be seen must be judged a miss, and a row that expects something else a mismatch.
//!
//! One row by hand: `FENCEPOST_VICTIM="overflow_write 13" FENCEPOST_OPTIONS=mode=hunt cargo test --test
//! detect victim -- --exact --nocapture`.

#[path = "detect/rows.rs"]
mod rows;
mod support;
#[path = "detect/victim.rs"]
mod victims;

use fencepost::Fencepost;
use rows::Row;
use std::env;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::report::Access::{Read, Write};
use support::report::Side;

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// Names the bug that `victim` is to commit, with its arguments.
const VICTIM: &str = "FENCEPOST_VICTIM";

/// Objects of the slab allocator in `harden`.
const SMALL: [usize; 3] = [13, 16, 100];
/// Objects of the page allocator in every mode; the last has chunks of its own.
const LARGE: [usize; 3] = [4096, 5000, 300_000];

#[test]
fn victim() {
    if let Ok(bug) = env::var(VICTIM) {
        victims::commit(&HEAP, &bug);
        HEAP.finish();
    }
}

/// Runs the victim `bug` to its end.
fn execute(bug: &str, options: &str) -> Run {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["victim", "--exact", "--nocapture", "--test-threads=1"]);
    process::run(command.env(VICTIM, bug).env("FENCEPOST_OPTIONS", options), LIMIT)
}

/// Runs all rows with both backends and names every one that is not as expected.
fn detect(options: &str, rows: &[Row]) {
    let mut failures = Vec::new();
    for guards in ["madvise", "mprotect"] {
        let options = format!("{options}:guards={guards}");
        for row in rows {
            let run = execute(&row.bug, &options);
            let what = match row.expected.judge(&run) {
                Verdict::Match => continue,
                Verdict::Miss(what) => format!("MISS: {what}"),
                Verdict::Mismatch(what) => what,
            };
            let again = run.stderr.lines().find(|line| line.starts_with("rerun with: ")).unwrap_or_default();
            failures.push(format!("{} ({options}): {what} {again}", row.bug));
        }
    }
    assert!(failures.is_empty(), "{} not as expected:\n{}", failures.len(), failures.join("\n"));
}

fn for_sizes(sizes: &[usize], tables: &[fn(usize) -> Vec<Row>]) -> Vec<Row> {
    sizes.iter().flat_map(|size| tables.iter().flat_map(|table| table(*size))).collect()
}

/// The page allocator's rows for all sizes that are its in the mode.
fn page_allocator(sizes: &[usize], side: Side) -> Vec<Row> {
    match side {
        Side::Before => for_sizes(sizes, &[rows::page_any_side, rows::page_left]),
        _ => for_sizes(sizes, &[rows::page_any_side, rows::page_right]),
    }
}

#[test]
fn harden_slab_allocator() {
    detect("mode=harden", &for_sizes(&SMALL, &[rows::any_allocator, rows::slab, rows::slot_alignments]));
}

#[test]
fn harden_slab_allocator_up_to_the_border() {
    detect(
        "mode=harden:unmap_threshold=131072",
        &for_sizes(&[1000, 4096, 5000], &[rows::any_allocator, rows::slab]),
    );
}

#[test]
fn harden_page_allocator() {
    let any = for_sizes(&LARGE, &[rows::any_allocator, rows::guarded_alignments]);
    detect("mode=harden", &[any, page_allocator(&LARGE, Side::After)].concat());
}

#[test]
fn harden_page_allocator_left() {
    detect("mode=harden:guard_side=left", &page_allocator(&LARGE, Side::Before));
}

#[test]
fn patrol_without_a_sample() {
    let rows = [
        for_sizes(&[13, 5000], &[rows::any_allocator]),
        rows::slab(13),
        page_allocator(&[5000], Side::After),
    ]
    .concat();
    detect("mode=patrol:sample_rate=0", &rows);
}

/// With `sample_rate=1` at least every second small object is guarded, so a bug committed over and over is
/// found at an access.
#[test]
fn patrol_with_a_sample() {
    detect("mode=patrol:sample_rate=1", &for_sizes(&SMALL, &[rows::sampled]));
    detect("mode=patrol:sample_rate=1:guard_side=left", &for_sizes(&SMALL, &[rows::sampled_left]));
}

#[test]
fn hunt() {
    let sizes = [&SMALL[..], &LARGE[..]].concat();
    let any = for_sizes(&sizes, &[rows::any_allocator, rows::guarded_alignments]);
    detect("mode=hunt", &[any, page_allocator(&sizes, Side::After)].concat());
}

#[test]
fn hunt_left() {
    let sizes = [&SMALL[..], &LARGE[..]].concat();
    detect("mode=hunt:guard_side=left", &page_allocator(&sizes, Side::Before));
}

#[test]
fn hunt_in_batches() {
    let small = for_sizes(&SMALL, &[rows::any_allocator, rows::page_right, rows::written_later]);
    // Too large to wait for others.
    let large = for_sizes(&[5000], &[rows::any_allocator, rows::page_any_side]);
    detect("mode=hunt:unmap=batch:16", &[small, large].concat());
}

#[test]
fn pointers_to_no_object() {
    for mode in ["harden", "patrol", "hunt"] {
        detect(&format!("mode={mode}"), &rows::foreign());
    }
}

/// A program without a bug comes out clean.
#[test]
fn a_clean_victim_is_clean() {
    for mode in [
        "harden",
        "patrol:sample_rate=3",
        "hunt",
        "hunt:guard_side=left",
        "hunt:guard_side=random",
        "hunt:unmap=batch:64",
    ] {
        for guards in ["madvise", "mprotect"] {
            let options = format!("mode={mode}:guards={guards}");
            let run = execute("clean", &options);
            assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{options}");
        }
    }
}

/// What cannot be seen is judged a miss: reads next to a small object in a slab and on the side without a
/// guard, reads of freed slots, and a death that is not the allocator's.
#[test]
fn a_miss_is_seen() {
    for (options, bug) in [
        ("mode=harden", "overflow_read 13"),
        ("mode=harden", "underflow_read 13"),
        ("mode=harden", "uaf_read 13 6"),
        ("mode=hunt", "underflow_read 13"),
        ("mode=hunt:guard_side=left", "overflow_read 13"),
    ] {
        let run = execute(bug, options);
        assert_eq!(run.end, End::Status(0), "{bug} {options}: {}{}", run.stdout, run.stderr);
        for expected in [rows::overflow(Read, 0, 13), rows::use_after_free(Read, 6, 13)] {
            assert!(matches!(expected.judge(&run), Verdict::Miss(_)), "{bug} {options}");
        }
    }
    let run = execute("abort", "mode=hunt");
    assert_eq!(run.end, End::Signal(libc::SIGABRT));
    assert!(matches!(rows::double_free(13).judge(&run), Verdict::Miss(_)));
}

/// A report of another distance, size, access or kind is not the expected one, and no clean run.
#[test]
fn a_mismatch_is_seen() {
    let run = execute("overflow_write 13", "mode=hunt");
    assert_eq!(rows::overflow(Write, 0, 13).judge(&run), Verdict::Match, "{}", run.stderr);
    for wrong in [
        rows::overflow(Write, 1, 13),
        rows::overflow(Write, 0, 16),
        rows::overflow(Read, 0, 13),
        rows::canary_after(0, 13),
    ] {
        assert!(matches!(wrong.judge(&run), Verdict::Mismatch(_)));
    }
    assert!(matches!(judge_silent(&run, run.end), Verdict::Mismatch(_)));
}

/// A victim that does not know its bug ends badly: no row passes by a slip of the pen.
#[test]
fn an_unknown_bug_is_an_error() {
    for bug in ["overflow", "overflow_write", "overflow_write x"] {
        assert_eq!(execute(bug, "").end, End::Status(101), "{bug}");
    }
}
