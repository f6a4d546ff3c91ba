//! Allocations that fail: the options, and `oom`, which lets each fail in its turn.

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;
use support::{Scratch, launcher, marked, program, run, text};

fn oom(flags: &[&str], program: &Path, arguments: &[&str]) -> Output {
    let mut command = launcher();
    run(command.arg("oom").args(flags).arg("--").arg(program).args(arguments))
}

/// The last line: runs, those that went well, aborted, were silent, went wrong, and in how many ways.
fn sums(output: &Output) -> [u64; 6] {
    let stderr = text(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default().strip_prefix("fencepost: ");
    let last = last.unwrap_or_else(|| panic!("{stderr}")).replace("status 0", "");
    let mut numbers = last.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    std::array::from_fn(|_| numbers.next().unwrap_or_else(|| panic!("{stderr}")))
}

#[test]
fn a_missing_check_is_found_and_named_by_the_allocation() {
    let Some(scarce) = program("scarce.c") else { return };
    let output = oom(&[], &scarce, &["careless"]);
    let stderr = text(&output.stderr);
    assert_eq!(sums(&output), [6, 5, 0, 0, 1, 1], "{stderr}");
    assert_eq!(output.status.code(), Some(99));
    let place = marked("scarce.c", "unchecked");
    assert!(
        stderr.contains(&format!("SUMMARY: fencepost: failed-allocation {place} in careless\n")),
        "{stderr}"
    );
    assert!(stderr.contains("NOTE: fencepost: refused allocation 4 (30 bytes, malloc, site 0x"), "{stderr}");
    // Where it was refused, and where it crashed: a line further.
    let refused =
        stderr.lines().position(|line| line.contains("#0 ") && line.ends_with(&place)).expect(&stderr);
    let crash = stderr
        .lines()
        .skip(refused)
        .position(|line| line.contains("the program ends by SIGSEGV on address 0x0"));
    assert!(crash.is_some_and(|crash| crash > 0), "{stderr}");
    assert!(stderr.contains("fencepost: failed-allocation 1: signal 11\n"), "{stderr}");
    let options = "mode=hunt:fail_after=3";
    assert!(stderr.contains(&format!("rerun with: FENCEPOST_OPTIONS={options}\n")), "{stderr}");
    let mut again = launcher();
    let again = run(again.env("FENCEPOST_OPTIONS", options).args(["run", "--"]).arg(&scarce).arg("careless"));
    assert_eq!(again.status.signal(), Some(libc::SIGSEGV), "{}", text(&again.stderr));
    // The program's own output is nobody's business.
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_careful_program_takes_it_well() {
    let Some(scarce) = program("scarce.c") else { return };
    let output = oom(&[], &scarce, &["careful"]);
    assert_eq!(sums(&output), [6, 6, 0, 0, 0, 0], "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_error_in_an_error_path_is_reported() {
    let Some(scarce) = program("scarce.c") else { return };
    let output = oom(&[], &scarce, &["twice"]);
    let stderr = text(&output.stderr);
    assert_eq!(sums(&output), [6, 5, 0, 0, 1, 1], "{stderr}");
    let place = marked("scarce.c", "twice");
    let summary = format!("SUMMARY: fencepost: failed-allocation {place} in twice (double-free)\n");
    assert!(
        stderr.contains(&summary) && stderr.contains("==ERROR: fencepost: double-free on address"),
        "{stderr}"
    );
    let scratch = Scratch::new("oom-sarif");
    let path = scratch.0.join("found.sarif");
    oom(&["--sarif", path.to_str().unwrap()], &scarce, &["twice"]);
    let log: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "failed-allocation", "{log:#}");
    let line = place.rsplit(':').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], line, "{log:#}");
    assert!(result["stacks"][0]["frames"].as_array().unwrap().len() > 1, "{log:#}");
}

#[test]
fn a_hang_ends_with_its_time() {
    let Some(scarce) = program("scarce.c") else { return };
    let output = oom(&["--timeout", "1"], &scarce, &["patient"]);
    let stderr = text(&output.stderr);
    assert_eq!(sums(&output), [5, 4, 0, 0, 1, 1], "{stderr}");
    let place = marked("scarce.c", "hang");
    assert!(stderr.contains("fencepost: failed-allocation 1: not within 1 s\n"), "{stderr}");
    assert!(
        stderr.contains(&format!("SUMMARY: fencepost: failed-allocation {place} in patient\n")),
        "{stderr}"
    );
}

#[test]
fn aborts_and_silence_are_told_and_are_no_errors() {
    let Some(scarce) = program("scarce.c") else { return };
    let proud = oom(&[], &scarce, &["proud"]);
    let stderr = text(&proud.stderr);
    assert_eq!((proud.status.code(), sums(&proud)), (Some(0), [5, 4, 1, 0, 0, 0]), "{stderr}");
    assert!(
        stderr.contains("aborts when this is refused: ") && stderr.contains(" in proud (refused "),
        "{stderr}"
    );
    let silent = oom(&[], &scarce, &["silent"]);
    let stderr = text(&silent.stderr);
    assert_eq!((silent.status.code(), sums(&silent)), (Some(0), [6, 4, 0, 2, 0, 0]), "{stderr}");
    assert!(stderr.contains("ends with status 0 and other output when this is refused: "), "{stderr}");
}

/// Which allocations are refused: a range, each n-th, or one of each stack.
#[test]
fn runs_are_as_many_as_asked_for() {
    let Some(scarce) = program("scarce.c") else { return };
    for (flags, runs, wrong) in [
        (&["--from", "2", "--to", "4"][..], 3, 1),
        (&["--from", "5"], 36, 0),
        (&["--step", "3", "--from", "4", "--to", "10"], 3, 1),
        (&["--sites"], 4, 1),
        (&["--each", "--jobs", "1"], 40, 1),
    ] {
        let output = oom(flags, &scarce, &["careless", "20"]);
        let [all, .., distinct] = sums(&output);
        assert_eq!((all, distinct), (runs, wrong), "{flags:?}: {}", text(&output.stderr));
    }
    let wrong = oom(&["--sites", "--from", "3"], &scarce, &["careful"]);
    assert_eq!(wrong.status.code(), Some(125), "{}", text(&wrong.stderr));
}

#[test]
fn what_fails_by_itself_is_not_judged() {
    let Some(layout) = program("layout.c") else { return };
    let output = oom(&["--guard-side", "left"], &layout, &["reads"]);
    assert_eq!(output.status.code(), Some(125));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("heap-buffer-underflow") && stderr.contains("nothing was refused yet"),
        "{stderr}"
    );
}

/// Exceptions, new-handlers and null: C++ sees what it would see without memory.
#[test]
fn operator_new_fails_as_it_should() {
    let Some(throws) = program("throws.cc") else { return };
    for what in ["plain", "handler"] {
        let output = oom(&[], &throws, &[what]);
        let stderr = text(&output.stderr);
        let [runs, well, aborted, silent, wrong, _] = sums(&output);
        assert!(runs > 20 && (aborted, silent, wrong) == (0, 0, 0) && well == runs, "{what}: {stderr}");
    }
    // A stack has the same name when it is counted and when it is refused.
    let output = oom(&["--sites"], &throws, &["plain"]);
    let [runs, well, ..] = sums(&output);
    assert!(runs > 5 && well == runs, "{}", text(&output.stderr));
    for site in ["--sites", "--each"] {
        let output = oom(&[site], &throws, &["thrown"]);
        let stderr = text(&output.stderr);
        let [_, _, aborted, ..] = sums(&output);
        assert!(
            aborted > 0 && stderr.contains(" in thrown (") && stderr.contains("operator new[], site"),
            "{site}: {stderr}"
        );
    }
    // Each way to end was taken: an exception, a handler that found room, null.
    for (what, expected) in [("plain", &[0, 1, 2][..]), ("handler", &[0, 1, 4])] {
        let mut seen: Vec<i32> = (0..60)
            .map(|after| {
                let mut command = launcher();
                command.args(["run", "--fail-after", &after.to_string(), "--"]).arg(&throws).arg(what);
                run(&mut command).status.code().unwrap()
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, expected, "{what}");
    }
}

#[test]
fn every_function_fails_with_its_errno() {
    let Some(scarce) = program("scarce.c") else { return };
    for mode in ["harden", "patrol", "hunt"] {
        for more in ["", ":canary=0:zero=0", ":backtrace=0", ":unmap_threshold=131072", ":align=exact"] {
            let options = format!("mode={mode}:fail_after=1:fail_every=1{more}");
            let mut command = launcher();
            let output = run(command
                .env("FENCEPOST_OPTIONS", &options)
                .args(["run", "--"])
                .arg(&scarce)
                .arg("family"));
            let stderr = text(&output.stderr);
            assert_eq!(text(&output.stdout), "wrong 0\n", "{options}: {stderr}");
            assert_eq!(
                stderr.matches("NOTE: fencepost: refused allocation ").count(),
                14,
                "{options}: {stderr}"
            );
        }
    }
}

/// Of very many refusals the first are said, in the form that reports have.
#[test]
fn refusals_are_not_said_for_ever() {
    let Some(scarce) = program("scarce.c") else { return };
    let mut command = launcher();
    let output = run(command.args(["run", "--fail-every", "1", "--"]).arg(&scarce).arg("stubborn"));
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "done\n".into()), "{stderr}");
    assert_eq!(stderr.matches("NOTE: fencepost: refused allocation ").count(), 16, "{stderr}");
    assert_eq!(stderr.matches("further allocations are refused without a word\n").count(), 1, "{stderr}");

    let mut command = launcher();
    command.args(["run", "--fail-every", "2", "--report", "json", "--"]);
    let output = run(command.arg(&scarce).arg("careful"));
    let stderr = text(&output.stderr);
    let notes: Vec<Value> = stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(notes.len(), 1, "{stderr}");
    let note = notes[0]["note"].as_str().unwrap();
    assert!(note.starts_with("refused allocation 2 (20 bytes, malloc, site 0x"), "{note}");
    assert_eq!(notes[0]["frames"][0]["function"], "careful");
}

/// One stack alone fails, whatever else is allocated; a table that nobody made is said and counts nothing.
#[test]
fn a_stack_can_be_named() {
    let Some(scarce) = program("scarce.c") else { return };
    let plain = |options: &str| {
        let mut command = launcher();
        run(command
            .env("FENCEPOST_OPTIONS", options)
            .args(["run", "--"])
            .arg(&scarce)
            .args(["careless", "9"]))
    };
    let first = text(&plain("fail_after=3").stderr);
    let site = first.split_once("site ").unwrap().1.split(')').next().unwrap().to_owned();
    for options in [format!("fail_site={site}"), format!("fail_site={site}-{site}:fail_after=0")] {
        let output = plain(&options);
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains("refused allocation 1 (30 bytes, malloc") && stderr.contains(" in careless "),
            "{stderr}"
        );
    }
    let after = plain(&format!("fail_site={site}:fail_after=1"));
    assert_eq!(
        (after.status.code(), text(&after.stdout), text(&after.stderr)),
        (Some(0), "done\n".into(), "".into())
    );
    let table = plain("site_table=/nonexistent/table");
    assert_eq!((table.status.code(), text(&table.stdout)), (Some(0), "done\n".into()));
    assert!(text(&table.stderr).contains("names no table of the launcher's"), "{}", text(&table.stderr));
}
