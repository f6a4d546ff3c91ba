//! Faults inside functions of the C library: what a report says of the call that made them.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Scratch, library, program_source, run, skip, text};

/// The program, so compiled that each function is called.
fn copies(scratch: &Scratch) -> Option<PathBuf> {
    if Command::new("cc").arg("--version").output().is_err() {
        skip("there is no cc");
        return None;
    }
    let program = scratch.0.join("copies");
    let mut command = Command::new("cc");
    command.args(["-g", "-O1", "-w", "-fno-builtin", "-U_FORTIFY_SOURCE"]);
    let output = run(command.arg(program_source("copies.c")).arg("-o").arg(&program));
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(program)
}

/// What the program says it does, and what it is told, a line each.
fn told(program: &Path, what: &str, options: &str, tunables: &str) -> (Vec<String>, Vec<String>) {
    let mut command = Command::new("prlimit");
    command
        .arg("--core=0:")
        .arg(program)
        .arg(what)
        .env("LD_PRELOAD", library())
        .env_remove("FENCEPOST_COLLECTOR");
    let output = run(command.env("FENCEPOST_OPTIONS", options).env("GLIBC_TUNABLES", tunables));
    let lines = |bytes: &[u8]| text(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    let said = lines(&output.stdout);
    let accesses = |line: &String| line.starts_with("READ ") || line.starts_with("WRITE ");
    let reports: Vec<_> = lines(&output.stderr).into_iter().filter(accesses).collect();
    assert_eq!(
        said.len(),
        reports.len(),
        "{what} {options}: a report for each access:\n{}",
        text(&output.stderr)
    );
    (said, reports)
}

/// The C library has several functions for each, of which the processor decides.
const KINDS: [&str; 3] = [
    "",
    "glibc.cpu.hwcaps=-AVX512VL,-AVX512BW",
    "glibc.cpu.hwcaps=-AVX512VL,-AVX512BW,-AVX2,-AVX2_Usable,-ERMS",
];

#[test]
fn a_copy_is_told_with_its_own_size_and_place() {
    let scratch = Scratch::new("copies");
    let Some(program) = copies(&scratch) else { return };
    for (options, tunables) in
        [("mode=harden", KINDS[0]), ("mode=harden", KINDS[1]), ("mode=hunt:intercept=off", KINDS[2])]
    {
        let (said, reports) = told(&program, "copies", options, tunables);
        let mut without_size = 0;
        for (said, report) in said.iter().zip(&reports) {
            let function = said.split_once(" by ").and_then(|(_, rest)| rest.split_once(" at ")).unwrap().0;
            let verb = said.split(' ').next().unwrap();
            // A store under a mask has a size that only the mask tells.
            if report.starts_with(&format!("{verb} at 0x"))
                && report.contains(&format!(" in {function} of the C library by "))
            {
                without_size += 1;
                continue;
            }
            assert!(
                report.starts_with(&format!("{said} by thread T")),
                "{options} {tunables}: {said}: {report}"
            );
        }
        assert!(
            without_size * 20 <= said.len(),
            "{options} {tunables}: {without_size} of {} without a size",
            said.len()
        );
    }
}

#[test]
fn a_string_function_is_named_and_its_pieces_have_no_size() {
    let scratch = Scratch::new("strings");
    let Some(program) = copies(&scratch) else { return };
    for tunables in [KINDS[0], KINDS[2]] {
        let (said, reports) = told(&program, "strings", "mode=harden", tunables);
        for (function, report) in said.iter().zip(&reports) {
            let is_named = report.contains(&format!(" in {function}() of the C library by thread T"));
            assert!(is_named && !report.contains("of size"), "{function}: {report}");
        }
    }
}

#[test]
fn json_has_the_call_too() {
    let scratch = Scratch::new("calls-json");
    let Some(program) = copies(&scratch) else { return };
    let mut command = Command::new("prlimit");
    command
        .arg("--core=0:")
        .arg(program)
        .arg("strings")
        .env("LD_PRELOAD", library())
        .env_remove("FENCEPOST_COLLECTOR");
    let output = run(command.env("FENCEPOST_OPTIONS", "mode=harden:report=json"));
    let (said, reports) = (text(&output.stdout), text(&output.stderr));
    let reports: Vec<Value> = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), said.lines().count());
    for (function, report) in said.lines().zip(&reports) {
        assert_eq!(report["called"], function, "{report:#}");
        assert!(report.get("access_size").is_none() && report.get("made_by").is_none(), "{report:#}");
    }
}
