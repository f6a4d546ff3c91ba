//! Canaries under the preloaded library: that one is not forged from another, that nothing else hangs on the option
//! `canary`, that what was written before an object is told as that, and that reports do not show one.
//!
//! The programs are among those of `tests/preload/programs`.

mod support;

use std::fmt::Write;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::report::{Relation, Report, Side};
use support::{compiler, library};

/// A C program under the library, `None` without a compiler.
fn execute(program: &str, arguments: &str, options: &str) -> Option<Run> {
    let binary = compiler::binary(program, "-O1")?;
    let mut command = process::command(binary, Some(library::path()), options);
    Some(process::run(command.args(arguments.split_whitespace()), LIMIT))
}

fn first_report(run: &Run) -> Option<Report> {
    Report::parse_all(&run.stderr).into_iter().next()
}

const ABORTED: End = End::Signal(libc::SIGABRT);
const FAULTED: End = End::Signal(libc::SIGSEGV);

/// Rules that lead from one word to another if words are copies, sums, or turned and mixed with the address.
#[test]
fn a_word_that_was_read_forges_no_other() {
    for rule in (0..68).filter(|rule| *rule < 8 || rule % 9 == 4) {
        let Some(run) = execute("canary_forge", &rule.to_string(), "mode=harden") else { return };
        let kind = first_report(&run).map(|report| report.kind);
        assert_eq!(
            (kind.as_deref(), run.end),
            (Some("canary-overwritten"), ABORTED),
            "{rule}: {}",
            run.stderr
        );
    }
}

/// A string that is read past its slot's object ends within two bytes, silently.
#[test]
fn a_string_without_an_end_stops_behind_its_object() {
    let Some(run) = execute("text_past_end", "", "mode=harden") else { return };
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{}", run.stdout);
}

/// What protections are left on decides what is found, and `calloc`'s memory is zero with all of them.
#[test]
fn protections_stand_alone() {
    let mut failures = String::new();
    for bits in 0..16 {
        let [canary, zero, mismatch, quarantine] = [0, 1, 2, 3].map(|bit| bits >> bit & 1);
        let quarantine = 64 * quarantine;
        let options =
            format!("mode=harden:canary={canary}:zero={zero}:mismatch={mismatch}:quarantine_mb={quarantine}");
        for size in [24, 64, 1000, 4000] {
            let mut expect = |program: &str, arguments: &str, more: &str, found: bool| {
                let options = format!("{options}{more}");
                let Some(run) = execute(program, arguments, &options) else { return };
                let report = first_report(&run);
                let right = match found {
                    true => report.as_ref().is_some_and(|report| {
                        let inside = Some(Relation { distance: 8, side: Side::Inside, object_size: size });
                        report.kind == "write-after-free" && report.relation == inside
                    }),
                    false => report.is_none(),
                };
                let ends = if found && more.is_empty() { ABORTED } else { End::Status(0) };
                if !right || run.end != ends {
                    let _ = writeln!(
                        failures,
                        "{program} {arguments} {options}: {}, {report:?} {}",
                        run.end, run.stdout
                    );
                }
            };
            expect("stale_calloc", &size.to_string(), "", zero == 1);
            expect("stale_calloc", &size.to_string(), ":on_error=continue:exitcode=0", zero == 1);
            expect("waf_exit", &format!("{size} 8"), "", zero == 1);
        }
        let Some(run) = execute("clean_calloc", "", &options) else { return };
        assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{options}: {}", run.stdout);
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Writes before an object, whatever lies there, by name, place and object.
#[test]
fn what_was_written_before_an_object_is_told_as_that() {
    let mut failures = String::new();
    for (options, exact) in [
        ("mode=hunt", true),
        ("mode=hunt:guards=mprotect", true),
        ("mode=hunt:guard_side=left", true),
        ("mode=harden", false),
        ("mode=patrol", false),
        ("mode=harden:guards=mprotect", false),
    ] {
        for size in [1, 16, 24, 100, 1000, 4096] {
            for distance in [1, 7, 8, 12, 33, 64] {
                for before in ["live", "freed", "unused"] {
                    let arguments = format!("{size} {distance} {before}");
                    let Some(run) = execute("underrun", &arguments, options) else { return };
                    let certain = exact || size >= 4096 || distance < 8;
                    if let Some(wrong) = misnamed(&run, size, distance, before, certain) {
                        let _ = writeln!(failures, "{arguments} {options}: {wrong}");
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// What is wrong with the first report of a write `distance` bytes before an object, or with that there is none.
fn misnamed(run: &Run, size: u64, distance: u64, before: &str, certain: bool) -> Option<String> {
    let Some(report) = first_report(run) else {
        return certain.then(|| format!("a miss, {}", run.end));
    };
    let end = match report.kind.as_str() {
        "canary-overwritten" => ABORTED,
        "heap-buffer-underflow" => FAULTED,
        // Within a freed object that lies there: whose write it was cannot be told.
        "write-after-free" if before != "live" && !certain => {
            let inside = report.relation.is_some_and(|relation| relation.side == Side::Inside);
            return (!inside).then(|| format!("{report:?}"));
        }
        _ => return Some(format!("{report:?}")),
    };
    // Further away lie other objects and their slack.
    let expected = Some(Relation { distance, side: Side::Before, object_size: size });
    (run.end != end || certain && report.relation != expected).then(|| format!("{report:?}, {}", run.end))
}

/// Bytes that reach from one live object to the next may have been written from either side: both are named, whichever
/// is freed first. Of fewer bytes it is known.
#[test]
fn both_objects_are_named_where_either_may_have_been_run_over() {
    let mut failures = String::new();
    for size in [8_u64, 24, 100, 1000] {
        for length in [4_i64, 8, 33, -4, -8, -33] {
            for first in ["before", "behind"] {
                // What reaches beyond the other object is a third one's as well.
                if length.unsigned_abs() > size {
                    continue;
                }
                let arguments = format!("{size} {length} {first}");
                let Some(run) = execute("touching", &arguments, "mode=harden") else { return };
                let step: u64 = run.stdout.trim().parse().expect("a distance");
                let between = step - size;
                let all = length.unsigned_abs() >= between;
                let is_before = if all { first == "before" } else { length < 0 };
                // Of a few bytes of the last word it is not known, and they are told as the freed object's.
                let alone = !all && is_before && between == 8 && first == "behind";
                let (distance, side) = match is_before {
                    true if alone => (5, Side::Before),
                    true => (0, Side::After),
                    false => (1, Side::Before),
                };
                let place = Relation { distance, side, object_size: size };
                let (distance, side) = if is_before { (between, "before") } else { (between - 1, "after") };
                let other = format!("\nor {distance} bytes {side} {size}-byte region [");
                let right = first_report(&run).is_some_and(|report| {
                    report.kind == "canary-overwritten"
                        && report.relation == Some(place)
                        && run.stderr.contains(&other) == all
                        && run.stderr.contains("\nor ") == all
                });
                if !right {
                    let _ = writeln!(failures, "{arguments}: {place:?}, {between} between\n{}", run.stderr);
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    let Some(run) = execute("touching", "24 16 before", "mode=harden:report=json") else { return };
    let other = ",\"size\":24,\"relation\":\"before\",\"distance\":8}";
    assert!(
        run.stderr.contains("\"other_object\":{\"start\":\"0x") && run.stderr.contains(other),
        "{}",
        run.stderr
    );
}

/// The picture of a report, without its addresses.
fn picture(run: &Run) -> String {
    let lines = run.stderr.lines().skip_while(|line| !line.starts_with("Memory around it"));
    let rows = lines.skip(1).take_while(|line| line.starts_with("  ") || line.starts_with("=>"));
    rows.map(|row| row.split_once("  0x").map_or(row, |(_, row)| row))
        .map(|row| row.split_once("=>0x").map_or(row, |(_, row)| row))
        .filter_map(|row| row.get(12..))
        .fold(String::new(), |all, row| all + row + "\n")
}

/// Bytes of memory are shown where they are wanted, and those of a canary never. The objects are full of 0x6f.
#[test]
fn reports_show_bytes_if_they_may_and_no_canary() {
    for (options, dump) in [
        ("mode=harden", false),
        ("mode=patrol", false),
        ("mode=hunt", true),
        ("mode=harden:dump=1", true),
        ("dump=1:mode=patrol:guards=mprotect", true),
        ("mode=hunt:dump=0", false),
        ("mode=hunt:guards=mprotect:dump=0", false),
    ] {
        for (program, arguments, wrong) in [
            ("overflow_write", "100", "42"),
            ("overflow_write", "13", "42"),
            ("underflow_write", "24 2", "42"),
        ] {
            let Some(run) = execute(program, arguments, options) else { return };
            let (picture, what) = (picture(&run), format!("{program} {arguments} {options}: {}", run.stderr));
            assert!(picture.contains("##"), "no canary, {what}");
            assert_eq!(picture.contains("6f"), dump, "the object, {what}");
            assert_eq!(picture.contains(wrong), dump, "the overwritten byte, {what}");
            assert_eq!(picture.contains("!!") && picture.contains(".."), !dump, "{what}");
            let bytes =
                picture.split(|other: char| !other.is_ascii_hexdigit()).filter(|cell| cell.len() == 2);
            for byte in bytes.filter_map(|cell| u8::from_str_radix(cell, 16).ok()) {
                assert!(byte & 0xc1 != 0x81, "a canary's byte, {what}");
            }
            let Some(run) = execute(program, arguments, &format!("{options}:report=json")) else { return };
            assert!(!run.stderr.contains("6f6f") && !run.stderr.contains("6f 6f"), "{}", run.stderr);
        }
    }
}
