//! C and C++ programs under the preloaded library, one bug each, and correct ones.
//!
//! The programs are `tests/preload/programs`, what must come of them is the table in
//! `tests/preload/rows.rs`. Every row runs at -O0 and at -O2, with both backends of the guards. A row
//! passes only on the exact kind, relation, access, stacks, process and signal. The suite proves itself:
//! a bug that runs without the library must be judged a miss, and a row that expects another distance a
//! mismatch.

#[path = "preload/rows.rs"]
mod rows;
mod support;

use rows::Row;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use support::expectation::{Verdict, is_degraded, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::report::Access::Write;
use support::{compiler, library, skip};

const LEVELS: [&str; 2] = ["-O0", "-O2"];
const BACKENDS: [&str; 2] = ["madvise", "mprotect"];
/// What a program says that may not do here what it is about.
const NOT_PERMITTED: End = End::Status(77);

/// Runs a program at a level; `None` if it could not be compiled for want of a compiler.
fn execute(
    program: &str,
    arguments: &str,
    level: &str,
    preload: Option<&Path>,
    options: &str,
) -> Option<Run> {
    let binary = compiler::binary(program, level)?;
    let mut command = process::command(binary, preload, options);
    Some(process::run(command.args(arguments.split_whitespace()), LIMIT))
}

/// Runs all rows of `tables` and reports every one that is not as expected.
fn detect(options: &str, tables: &[&[Row]]) {
    let mut failures = Vec::new();
    let harden = options.starts_with("mode=harden");
    for row in tables.iter().copied().flatten() {
        for level in LEVELS {
            let Some(run) = execute(row.program, row.arguments, level, Some(library::path()), options) else {
                continue;
            };
            let expected = if harden { row.expected.in_harden() } else { row.expected };
            let verdict = expected.judge(&run);
            note(&mut failures, row.program, row.arguments, level, verdict, &run);
        }
    }
    conclude(options, &failures);
}

/// Runs programs that must end with `end` and of which the library must say nothing.
fn stay_silent(options: &str, programs: impl IntoIterator<Item = (&'static str, End)>) {
    let mut failures = Vec::new();
    for (program, end) in programs {
        for level in LEVELS {
            let Some(run) = execute(program, "", level, Some(library::path()), options) else {
                continue;
            };
            if run.end == NOT_PERMITTED && run.stderr.is_empty() {
                skip::skip(&format!("{program}{level}: not permitted here"));
                continue;
            }
            note(&mut failures, program, "", level, judge_silent(&run, end), &run);
        }
    }
    conclude(options, &failures);
}

fn note(
    failures: &mut Vec<String>,
    program: &str,
    arguments: &str,
    level: &str,
    verdict: Verdict,
    run: &Run,
) {
    let what = match verdict {
        Verdict::Match => return,
        Verdict::Miss(what) => format!("MISS: {what}"),
        Verdict::Mismatch(what) => what,
    };
    let again = run.stderr.lines().find(|line| line.starts_with("rerun with: ")).unwrap_or_default();
    failures.push(format!("{program}{level} {arguments}: {what} {again}"));
}

fn conclude(options: &str, failures: &[String]) {
    assert!(failures.is_empty(), "{options}: {} not as expected:\n{}", failures.len(), failures.join("\n"));
}

/// A test for each backend.
macro_rules! with_both_backends {
    ($($name:ident: $run:expr;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn madvise() {
                ($run)("guards=madvise");
            }

            #[test]
            fn mprotect() {
                ($run)("guards=mprotect");
            }
        }
    )+};
}

with_both_backends! {
    // What guards alone find: functions that look at bounds are `tests/intercept.rs`'s.
    hunt_exact: |guards| detect(
        &format!("mode=hunt:intercept=off:align=exact:{guards}"),
        &[rows::ALWAYS, rows::PAGE_ALLOCATOR, rows::HUNT, rows::EXACT],
    );
    hunt_abi: |guards| detect(
        &format!("mode=hunt:intercept=off:align=abi:{guards}"),
        &[rows::ALWAYS, rows::PAGE_ALLOCATOR, rows::HUNT, rows::ABI],
    );
    hunt_left: |guards| detect(
        &format!("mode=hunt:intercept=off:guard_side=left:{guards}"),
        &[rows::ALWAYS, rows::LEFT],
    );
    // Little quarantine, so that a slot is reused while a program runs.
    harden: |guards| detect(
        &format!("mode=harden:quarantine_mb=1:{guards}"),
        &[rows::ALWAYS, rows::PAGE_ALLOCATOR, rows::SLAB],
    );
    hunt_calls: |guards| detect(&format!("mode=hunt:{guards}"), &[rows::CALLS]);
    harden_calls: |guards| detect(&format!("mode=harden:intercept=all:{guards}"), &[rows::CALLS]);
    clean_harden: |guards| stay_silent(&format!("mode=harden:{guards}"), clean());
    clean_hunt: |guards| stay_silent(&format!("mode=hunt:{guards}"), clean());
    clean_calls: |guards| stay_silent(&format!("mode=harden:intercept=all:{guards}"), clean());
    clean_left: |guards| stay_silent(&format!("mode=hunt:guard_side=left:{guards}"), clean());
    foreign_harden: |guards| stay_silent(&format!("mode=harden:{guards}"), foreign());
    foreign_hunt: |guards| stay_silent(&format!("mode=hunt:{guards}"), foreign());
}

fn clean() -> impl Iterator<Item = (&'static str, End)> {
    rows::CLEAN.iter().map(|program| (*program, End::Status(0)))
}

fn foreign() -> impl Iterator<Item = (&'static str, End)> {
    rows::FOREIGN.iter().map(|(program, signal)| (*program, End::Signal(*signal)))
}

/// The end of the mappings is said once, and only where guard pages are mappings.
#[test]
fn the_end_of_the_mappings_is_said_once() {
    for (guards, times) in [("madvise", 0), ("mprotect", 1)] {
        let options = format!("mode=hunt:guards={guards}");
        let library = Some(library::path());
        let Some(run) = execute("clean_many", "", LEVELS[0], library, &options) else { continue };
        assert_eq!(run.stderr.lines().filter(|line| is_degraded(line)).count(), times, "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), times, "{}", run.stderr);
    }
}

/// The correct programs are correct with libc's allocator, else they prove nothing.
#[test]
fn clean_without_the_library() {
    for program in rows::CLEAN {
        for level in LEVELS {
            let Some(run) = execute(program, "", level, None, "") else { continue };
            let good = run.end == NOT_PERMITTED || judge_silent(&run, End::Status(0)) == Verdict::Match;
            assert!(good, "{program}{level}: {}: {}{}", run.end, run.stdout, run.stderr);
        }
    }
}

/// A bug that nobody looks for is a miss.
#[test]
fn a_miss_is_seen() {
    let expected = rows::overflow(Write, 0, 13);
    for level in LEVELS {
        let Some(run) = execute("overflow_write", "13", level, None, "") else { continue };
        assert!(matches!(expected.judge(&run), Verdict::Miss(_)), "{level}");
    }
}

/// A report of another distance, or of another size, is not the expected one.
#[test]
fn a_mismatch_is_seen() {
    for backend in BACKENDS {
        let options = format!("mode=hunt:align=exact:guards={backend}");
        let library = Some(library::path());
        let Some(run) = execute("overflow_write", "13", LEVELS[0], library, &options) else { continue };
        assert_eq!(rows::overflow(Write, 0, 13).judge(&run), Verdict::Match, "{}", run.stderr);
        for wrong in [rows::overflow(Write, 1, 13), rows::overflow(Write, 0, 16)] {
            assert!(matches!(wrong.judge(&run), Verdict::Mismatch(_)), "{options}");
        }
        assert!(matches!(judge_silent(&run, run.end), Verdict::Mismatch(_)), "{options}");
    }
}

/// No program is without a row, and no row without a program.
#[test]
fn the_table_is_complete() {
    let tables =
        [rows::ALWAYS, rows::PAGE_ALLOCATOR, rows::HUNT, rows::EXACT, rows::ABI, rows::LEFT, rows::SLAB];
    let mut named: BTreeSet<&str> = tables.into_iter().flatten().map(|row| row.program).collect();
    named.extend(rows::CLEAN);
    named.extend(rows::ENDING);
    named.extend(rows::CANARIES);
    named.extend(rows::FOREIGN.iter().map(|(program, _)| program));
    let files: Vec<_> = fs::read_dir(compiler::sources())
        .expect("the programs are in the source tree")
        .map(|entry| entry.expect("a directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "h"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(named, files.iter().map(String::as_str).collect());
}
