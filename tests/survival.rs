//! Real programs under the preloaded library, in both modes and with both backends of the guards.
//!
//! `tests/preload/survive.sh` has the programs and runs them; by hand as well, one at a time. A program
//! that is not installed is named as skipped; in CI, which installs them all, that is a failure.

mod support;

use std::path::Path;
use std::time::Duration;
use support::process::{self, End};
use support::{library, skip};

/// For all programs of one combination; they take half a minute.
const LIMIT: Duration = Duration::from_secs(600);

fn survive(options: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/survive.sh");
    let mut command = process::command("bash", None, "");
    command.arg(script).arg(library::path()).arg(options);
    let run = process::run(&mut command, LIMIT);
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
