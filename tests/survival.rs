//! Real programs under the preloaded library, in both modes and with both backends of the guards.
//!
//! `tests/preload/survive.sh` has the programs and runs them; by hand as well, one at a time. A program
//! that is not installed is named as skipped; in CI, which installs them all, that is a failure.

mod support;

use std::path::Path;
use std::time::Duration;
use support::process::{self, End, Run};
use support::{compiler, library, skip};

/// For all programs of one combination; they take half a minute.
const LIMIT: Duration = Duration::from_secs(600);

fn script(library: &Path, options: &str, only: Option<&str>) -> Run {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/survive.sh");
    let mut command = process::command("bash", None, "");
    command.arg(script);
    if let Some(name) = only {
        command.args(["--only", name]);
    }
    process::run(command.arg(library).arg(options), LIMIT)
}

fn survive(options: &str) {
    let run = script(library::path(), options, None);
    println!("{options}\n{}{}", run.stdout, run.stderr);
    for line in run.stdout.lines().filter(|line| line.contains(" skipped: ")) {
        skip::skip(&format!("{options}: {line}"));
    }
    assert!(run.stdout.contains("survive: "), "{options}: the script did not come to its end: {}", run.end);
    assert_eq!(run.end, End::Status(0), "{options}");
}

#[test]
fn harden_madvise() {
    survive("mode=harden:guards=madvise");
}

#[test]
fn harden_mprotect() {
    survive("mode=harden:guards=mprotect");
}

#[test]
fn hunt_madvise() {
    survive("mode=hunt:guards=madvise");
}

#[test]
fn hunt_mprotect() {
    survive("mode=hunt:guards=mprotect");
}

/// A library that spoils a program in one of three ways is caught in each, and passes when it does nothing.
#[test]
fn failures_are_seen() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/misbehave.c");
    let Some(library) = compiler::shared_library(&source) else { return };
    for (options, passes, says) in [
        ("nothing", true, "awk ok: "),
        ("report", false, "awk FAIL ==1==ERROR: fencepost: double-free"),
        ("die", false, "awk FAIL status 139"),
        ("print", false, "awk FAIL other output: "),
    ] {
        let run = script(&library, options, Some("awk"));
        assert!(run.stdout.contains(says), "{options}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.end, End::Status(i32::from(!passes)), "{options}");
    }
}
