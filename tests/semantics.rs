//! What the C functions do at the edges, beside the C library's own in the same test run.
//!
//! `tests/preload/semantics.c` prints a line for each row of its tables. Without the library and with it, in
//! each mode, the lines must be the same but for those in [`DIFFERENT`], which `ffi/README.md` lists as well.

mod support;

use std::fs;
use std::path::Path;
use support::process::{self, End, LIMIT};
use support::{compiler, library, skip};

/// Rows that may differ: how they begin, and what stands in the README about them.
const DIFFERENT: &[(&str, &str)] =
    &[("malloc_usable_size: exactly what was asked for ", "`malloc_usable_size`")];

/// The lines of the program; `None` without a compiler.
fn rows(library: Option<&Path>, options: &str) -> Option<Vec<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/semantics.c");
    let binary = compiler::program(&source, "-O1")?;
    let run = process::run(&mut process::command(binary, library, options), LIMIT);
    assert_eq!((run.end, run.stderr.as_str()), (End::Status(0), ""), "{options}");
    Some(run.stdout.lines().map(str::to_owned).collect())
}

fn compare(options: &str) {
    let (Some(plain), Some(ours)) = (rows(None, ""), rows(Some(library::path()), options)) else {
        skip::skip("semantics: there is no C compiler");
        return;
    };
    assert!(plain.len() > 300, "{} rows", plain.len());
    assert_eq!(plain.len(), ours.len(), "{options}");
    let allowed = |row: &str| DIFFERENT.iter().any(|(start, _)| row.starts_with(start));
    let differences: Vec<String> = plain
        .iter()
        .zip(&ours)
        .filter(|(plain, ours)| plain != ours && !(allowed(plain) && allowed(ours)))
        .map(|(plain, ours)| format!("C library: {plain}\nfencepost: {ours}"))
        .collect();
    assert!(differences.is_empty(), "{options}:\n{}", differences.join("\n"));
}

#[test]
fn harden() {
    compare("mode=harden");
}

#[test]
fn patrol() {
    compare("mode=patrol:sample_rate=10");
}

#[test]
fn hunt() {
    compare("mode=hunt");
}

#[test]
fn hunt_mprotect() {
    compare("mode=hunt:guards=mprotect");
}

/// The rows tell libraries apart: with objects that end at their guard, alignments differ.
#[test]
fn a_difference_is_seen() {
    let (Some(plain), Some(ours)) = (rows(None, ""), rows(Some(library::path()), "mode=hunt:align=exact"))
    else {
        return;
    };
    let row = "malloc(0x7): pointer, aligned ";
    let of = |rows: &[String]| rows.iter().find(|line| line.starts_with(row)).cloned();
    assert_eq!(of(&plain).as_deref(), Some("malloc(0x7): pointer, aligned 1, errno untouched"));
    assert_eq!(of(&ours).as_deref(), Some("malloc(0x7): pointer, aligned 0, errno untouched"));
}

/// Each allowed difference has its row in the README.
#[test]
fn the_differences_are_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi/README.md");
    let text = fs::read_to_string(path).expect("the README is in the source tree");
    let section = text.split("### Where it differs from glibc").nth(1).expect("the README has the section");
    for (_, row) in DIFFERENT {
        assert!(section.contains(&format!("| {row} |")), "{row}");
    }
}
