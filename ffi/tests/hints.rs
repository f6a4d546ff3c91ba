//! What a report says of a run that would show more, and of frames without lines.

mod support;

use serde_json::Value;
use std::fs;
use std::process::{Command, Output};
use support::{Scratch, launcher, marked, program, program_source, run, skip, text};

fn commit(options: &str, what: &str) -> Option<Output> {
    let late = program("late.c")?;
    let mut command = launcher();
    Some(run(command.env("FENCEPOST_OPTIONS", options).args(["run", "--"]).arg(late).arg(what)))
}

/// The line that starts so.
fn line<'a>(report: &'a str, begin: &str) -> Option<&'a str> {
    report.lines().find(|line| line.starts_with(begin))
}

#[test]
fn what_is_found_late_names_the_run_that_stops_at_once() {
    let at_once = "hint: to stop at the access that did it: FENCEPOST_OPTIONS=";
    let stacks = "hint: for the stacks of the object: FENCEPOST_OPTIONS=";
    for (options, what, kind, hint) in [
        ("mode=harden", "slack", "canary-overwritten", Some(format!("{at_once}mode=hunt:align=exact:"))),
        ("mode=patrol", "slack", "canary-overwritten", Some(format!("{at_once}mode=hunt:align=exact:"))),
        (
            "mode=hunt:intercept=off",
            "slack",
            "canary-overwritten",
            Some(format!("{at_once}mode=hunt:align=exact:intercept=off:")),
        ),
        ("mode=hunt", "before", "canary-overwritten", Some(format!("{at_once}mode=hunt:guard_side=left:"))),
        ("mode=harden", "again", "double-free", Some(format!("{stacks}mode=hunt:"))),
        ("mode=hunt", "again", "double-free", None),
        ("mode=hunt:align=exact:intercept=off", "slack", "heap-buffer-overflow", None),
    ] {
        let Some(output) = commit(options, what) else { return };
        let report = text(&output.stderr);
        assert!(report.contains(&format!("ERROR: fencepost: {kind} on ")), "{options} {what}: {report}");
        match (hint, line(&report, "hint: ")) {
            (None, None) => {}
            (Some(hint), Some(line)) if line.starts_with(&hint) => {}
            other => panic!("{options} {what}: {other:?}\n{report}"),
        }
        // What repeats the run is another thing.
        let rerun = line(&report, "rerun with: ").unwrap_or_else(|| panic!("{report}"));
        assert!(rerun.contains(&format!("FENCEPOST_OPTIONS={options}:")), "{report}");
    }
}

/// The run that the hint names stops at the access.
#[test]
fn the_run_that_is_named_does_what_is_said() {
    let Some(output) = commit("mode=harden:report=json", "slack") else { return };
    let report: Value = serde_json::from_str(&text(&output.stderr)).unwrap();
    let output =
        commit(&report["hint"].as_str().unwrap().replace("report=json", "report=text"), "slack").unwrap();
    let report = text(&output.stderr);
    assert!(report.contains("ERROR: fencepost: heap-buffer-overflow on "), "{report}");
}

/// What the call says is known there; what only its bounds tell, a run that looks at them shows.
#[test]
fn a_fault_in_the_c_library_is_told_as_its_call() {
    for mode in ["harden", "hunt:intercept=off"] {
        let Some(output) = commit(&format!("mode={mode}"), "library") else { return };
        let report = text(&output.stderr);
        assert!(line(&report, "WRITE of size 8194 by memcpy() at 0x").is_some(), "{mode}: {report}");
        let summary =
            format!("SUMMARY: fencepost: heap-buffer-overflow {} in copy", marked("late.c", "copied"));
        assert_eq!(line(&report, "SUMMARY: "), Some(&*summary), "{report}");
        assert_eq!(line(&report, "hint: "), None, "{report}");
        let report = text(&commit(&format!("mode={mode}"), "string").unwrap().stderr);
        assert!(
            line(&report, "READ at 0x")
                .is_some_and(|line| line.contains(" in strlen() of the C library by "))
        );
        let hint = line(&report, "hint: for the function, its size and its object: ");
        assert!(hint.is_some_and(|hint| hint.contains(":intercept=all:")), "{report}");
    }
    let Some(output) = commit("mode=harden:intercept=all", "library") else { return };
    let report = text(&output.stderr);
    assert!(report.contains("WRITE of size 8194 by memcpy() at 0x"), "{report}");
}

#[test]
fn the_summary_names_a_function_without_a_line_and_what_would_give_one() {
    if Command::new("cc").arg("--version").output().is_err() {
        return skip("there is no cc");
    }
    let scratch = Scratch::new("lines");
    for (level, function) in [("-O0", "copy"), ("-O2", "copy")] {
        let program = scratch.0.join(format!("late{level}"));
        let mut command = Command::new("cc");
        command.args([level, "-w", "-fno-optimize-sibling-calls"]);
        let output = run(command.arg(program_source("late.c")).arg("-o").arg(&program));
        assert!(output.status.success(), "{}", text(&output.stderr));
        for (mode, what) in [("harden", "library"), ("hunt", "library")] {
            let mut command = launcher();
            let log = scratch.0.join("log.sarif");
            command.args(["run", "--mode", mode, "--sarif"]).arg(&log).arg("--").arg(&program).arg(what);
            let report = text(&run(&mut command).stderr);
            let summary = line(&report, "SUMMARY: ").unwrap_or_else(|| panic!("{report}"));
            let begin = format!("SUMMARY: fencepost: heap-buffer-overflow ({}+0x", program.display());
            assert!(
                summary.starts_with(&begin) && summary.ends_with(&format!(") in {function}")),
                "{report}"
            );
            let advice = format!("no line is known in {}: compile it with -g ", program.display());
            assert_eq!(report.lines().filter(|line| line.starts_with(&advice)).count(), 1, "{report}");
            let log: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
            let place = &log["runs"][0]["results"][0]["locations"][0];
            assert_eq!(place["logicalLocations"][0]["fullyQualifiedName"], function, "{place:#}");
        }
    }
}
