//! `hunt --passes=all`: what several layouts and two fills show, and what they must not show.

mod support;

use serde_json::Value;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::{Scratch, launcher, marked, program, run, skip, text};

/// The launcher with all passes over a program.
fn hunt(flags: &[&str], program: &Path, arguments: &[&str]) -> Command {
    let mut command = launcher();
    command.args(["hunt", "--passes=all"]).args(flags).arg("--").arg(program).args(arguments);
    command
}

/// The lines of standard error that say so.
fn lines<'a>(stderr: &'a str, what: &str) -> Vec<&'a str> {
    stderr.lines().filter(|line| line.contains(what)).collect()
}

fn summaries(output: &Output) -> Vec<String> {
    let stderr = text(&output.stderr);
    stderr.lines().filter_map(|line| line.strip_prefix("SUMMARY: fencepost: ")).map(str::to_owned).collect()
}

#[test]
fn all_passes_find_what_one_cannot() {
    let Some(layout) = program("layout.c") else { return };
    let mut one = launcher();
    let one = run(one.args(["hunt", "--"]).arg(&layout).arg("reads"));
    assert_eq!(
        (one.status.code(), text(&one.stdout), text(&one.stderr)),
        (Some(0), "done\n".into(), "".into())
    );

    let all = run(&mut hunt(&[], &layout, &["reads"]));
    let stderr = text(&all.stderr);
    assert_eq!((all.status.code(), text(&all.stdout)), (Some(99), "done\n".into()), "{stderr}");
    let underflow = format!("heap-buffer-underflow {} in underread", marked("layout.c", "underread"));
    let overflow = format!("heap-buffer-overflow {} in slack_read", marked("layout.c", "slack"));
    assert_eq!(summaries(&all), [underflow, overflow], "{stderr}");
    for (what, pass) in [
        ("is located 1 bytes before 48-byte region", "pass 2, left: 1 error, 1 new"),
        ("is located 0 bytes after 13-byte region", "pass 3, exact: 1 error, 1 new"),
    ] {
        assert_eq!(lines(&stderr, what).len(), 1, "{what}: {stderr}");
        assert_eq!(lines(&stderr, pass).len(), 1, "{pass}: {stderr}");
    }
    assert!(stderr.contains("pass 1, right: nothing found; cannot see "), "{stderr}");
    assert_eq!(lines(&stderr, "; the last of its kind").len(), 1, "{stderr}");
    assert!(stderr.contains("2 errors in 6 passes. No pass sees "), "{stderr}");
    // The reports of one run are enough to repeat it.
    assert!(
        stderr.contains("guard_side=left") && stderr.contains("align=exact:guard_side=right"),
        "{stderr}"
    );
}

#[test]
fn the_status_says_whether_there_were_errors() {
    let Some(layout) = program("layout.c") else { return };
    for (flags, status) in [(&["--exitcode", "7"][..], 7), (&["--exitcode", "0"], 0), (&[], 99)] {
        let output = run(&mut hunt(flags, &layout, &["reads"]));
        assert_eq!(output.status.code(), Some(status), "{flags:?}: {}", text(&output.stderr));
        assert_eq!(summaries(&output).len(), 2);
    }
    let three = run(&mut hunt(&[], &layout, &["three"]));
    assert_eq!((three.status.code(), summaries(&three).len()), (Some(3), 0));
    let term = run(&mut hunt(&[], &layout, &["term"]));
    assert_eq!((term.status.signal(), summaries(&term).len()), (Some(15), 0), "{}", text(&term.stderr));
}

#[test]
fn a_read_of_memory_that_was_never_written_is_named_by_its_allocation() {
    let Some(layout) = program("layout.c") else { return };
    let place = marked("layout.c", "forgotten");
    for (what, effect, status) in [
        (
            "forgotten",
            "standard output differs: line 1 is \u{2018}7 1515870810\u{2019}, not \u{2018}7 0\u{2019}",
            0,
        ),
        ("branch", "end differs: status 3, not status 0", 0),
    ] {
        let output = run(&mut hunt(&[], &layout, &[what]));
        let stderr = text(&output.stderr);
        assert_eq!(summaries(&output), [format!("uninitialised-memory {place} in make")], "{stderr}");
        assert!(stderr.contains(&format!("with fill=0x5a the program's {effect}")), "{stderr}");
        assert!(stderr.contains("40 bytes allocated here (fill_site=0x"), "{stderr}");
        assert!(lines(&stderr, " in make ").iter().any(|line| line.contains(&place)), "{stderr}");
        assert_eq!(output.status.code(), Some(99));
        // What it says to run again with shows it again.
        let options = lines(&stderr, "rerun with: ")[0].split_once("FENCEPOST_OPTIONS=").unwrap().1;
        let mut again = launcher();
        let again = run(again.env("FENCEPOST_OPTIONS", options).args(["run", "--"]).arg(&layout).arg(what));
        match what {
            "forgotten" => assert_eq!(text(&again.stdout), "7 1515870810\n"),
            _ => assert_eq!(again.status.code(), Some(3)),
        }
        assert!(text(&again.stderr).contains("NOTE: fencepost: filled with 0x5a: 40 bytes"), "{again:?}");
        let plain = run(Command::new(&layout).arg(what));
        assert_eq!(plain.status.code(), Some(status));
    }
}

/// Two reads that show only if both objects are filled are told together.
#[test]
fn what_several_allocations_show_together_is_told() {
    let Some(layout) = program("layout.c") else { return };
    let output = run(&mut hunt(&[], &layout, &["both"]));
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), summaries(&output).len()), (Some(99), 1), "{stderr}");
    assert!(stderr.contains(" allocation stacks make the difference together:\n"), "{stderr}");
    assert!(
        stderr.contains("100 bytes allocated here") && stderr.contains("40 bytes allocated here"),
        "{stderr}"
    );
    assert!(
        stderr.contains("standard output differs: line 1 is \u{2018}1\u{2019}, not \u{2018}0\u{2019}"),
        "{stderr}"
    );
}

/// Objects with flags in their addresses, memory of `calloc`, what `realloc` keeps: nothing of it is an error.
#[test]
fn correct_programs_have_no_errors_in_any_pass() {
    let Some(layout) = program("layout.c") else { return };
    for what in ["tagged", "cleared", "three", "copy"] {
        let plain = run(Command::new(&layout).arg(what).stdin(Stdio::null()));
        let output = run(&mut hunt(&[], &layout, &[what]));
        let stderr = text(&output.stderr);
        assert_eq!((output.status, &output.stdout), (plain.status, &plain.stdout), "{what}: {stderr}");
        assert!(stderr.contains("0 errors in 6 passes") && !stderr.contains("differs"), "{what}: {stderr}");
    }
}

#[test]
fn a_difference_without_an_error_is_told() {
    let Some(layout) = program("layout.c") else { return };
    let place = run(&mut hunt(&[], &layout, &["place"]));
    let stderr = text(&place.stderr);
    let told = "pass 2, left: nothing was found, and yet the program's standard output differs from the first pass's: \
                line 1 is \u{2018}0\u{2019}, not ";
    assert_eq!(lines(&stderr, told).len(), 1, "{stderr}");
    assert_eq!(place.status.code(), Some(0), "{stderr}");
    // What is different each time is nothing to be told of a pass.
    let pid = run(&mut hunt(&[], &layout, &["pid"]));
    let stderr = text(&pid.stderr);
    let told = "the program's standard output differs from run to run: it is not judged";
    assert_eq!((lines(&stderr, told).len(), lines(&stderr, "and yet").len()), (1, 0), "{stderr}");
    assert!(stderr.contains("0 errors in 6 passes"), "{stderr}");
}

/// A file from where it stands, a pipe as a whole: each pass reads the same.
#[test]
fn each_pass_reads_the_same() {
    let Some(layout) = program("layout.c") else { return };
    let scratch = Scratch::new("passes-input");
    let path = scratch.0.join("input");
    fs::write(&path, "skipped\nfirst\nsecond\n").unwrap();
    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start(8)).unwrap();
    let output = run(hunt(&[], &layout, &["copy"]).stdin(file));
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), "first\nsecond\n", "{stderr}");
    assert!(stderr.contains("13 bytes\n") && stderr.contains("0 errors in 6 passes"), "{stderr}");
    assert!(!stderr.contains("differs"), "{stderr}");

    let mut child = hunt(&[], &layout, &["copy"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through a pipe\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), "through a pipe\n", "{stderr}");
    assert!(stderr.contains("0 errors in 6 passes") && !stderr.contains("differs"), "{stderr}");
}

#[test]
fn sarif_has_each_error_once() {
    let Some(layout) = program("layout.c") else { return };
    let scratch = Scratch::new("passes-sarif");
    let path = scratch.0.join("found.sarif");
    for (what, expected) in [
        ("reads", &["heap-buffer-underflow", "heap-buffer-overflow"][..]),
        ("forgotten", &["uninitialised-memory"]),
        ("three", &[]),
    ] {
        run(&mut hunt(&["--sarif", path.to_str().unwrap()], &layout, &[what]));
        let log: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap();
        let kinds: Vec<_> = results.iter().filter_map(|result| result["ruleId"].as_str()).collect();
        assert_eq!(kinds, expected, "{log:#}");
    }
}

#[test]
fn a_pass_may_have_a_time() {
    let Some(layout) = program("layout.c") else { return };
    let output = run(&mut hunt(&["--timeout", "1"], &layout, &["loop"]));
    let stderr = text(&output.stderr);
    assert_eq!(lines(&stderr, "fencepost: killed after 1 s").len(), 6, "{stderr}");
    assert_eq!(output.status.signal(), Some(9), "{stderr}");
    let mut alone = launcher();
    let alone = run(alone.args(["hunt", "--timeout", "1", "--", "true"]));
    assert_eq!(alone.status.code(), Some(125), "{}", text(&alone.stderr));
}

#[test]
fn reports_come_to_the_launcher() {
    let output = run(&mut hunt(&["--log-path", "/tmp/x"], Path::new("true"), &[]));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("log_path cannot be set"), "{}", text(&output.stderr));
    let missing = run(&mut hunt(&[], Path::new("/nonexistent/program"), &[]));
    assert_eq!(missing.status.code(), Some(127));
}

/// Real programs that are right: nothing is found, and no pass and no fill changes what they write.
#[test]
fn clean_programs_show_no_difference() {
    let scratch = Scratch::new("passes-clean");
    let (json, lua) = (scratch.0.join("t.json"), scratch.0.join("t.lua"));
    fs::write(&json, "{\"a\":[1,2,{\"b\":null}],\"c\":\"x\"}\n").unwrap();
    fs::write(
        &lua,
        "local t = {} for i = 1, 200 do t[#t + 1] = string.rep('x', i % 37) .. i end table.sort(t)\n\
         print(#t, table.concat(t, ','):sub(1, 60), pcall(error, 'e'))\n",
    )
    .unwrap();
    let (json, lua) = (json.to_str().unwrap(), lua.to_str().unwrap());
    let sql =
        "create table t(a, b); insert into t values (1, 'x'), (2, 'y'); select a, b from t order by b desc;";
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|name| Path::new(name).exists());
    for command in [
        &["jq", "-c", ".a[2], (.c | ascii_upcase)", json][..],
        &["lua5.4", lua],
        &["sqlite3", ":memory:", sql],
        &[
            "perl",
            "-e",
            "my %h = map { $_ => $_ ** 2 } 1 .. 90; print join(',', map { $h{$_} } sort keys %h), \"\\n\"",
        ],
        &[
            python.unwrap_or("python3"),
            "-S",
            "-c",
            "print(sum(x * x for x in range(1000)), sorted('fencepost'))",
        ],
        &["gawk", "BEGIN { for (i = 0; i < 50; i++) a[i] = i * i; print length(a), a[7], toupper(\"x\") }"],
    ] {
        let (name, arguments) = command.split_first().unwrap();
        let Ok(plain) = Command::new(name).args(arguments).stdin(Stdio::null()).output() else {
            skip(&format!("there is no {name}"));
            continue;
        };
        let output = run(&mut hunt(&[], Path::new(name), arguments));
        let stderr = text(&output.stderr);
        assert_eq!(
            (output.status, text(&output.stdout)),
            (plain.status, text(&plain.stdout)),
            "{name}: {stderr}"
        );
        assert!(plain.status.success(), "{name}: {}", text(&plain.stderr));
        let ends = lines(&stderr, "0 errors in 6 passes").len();
        assert!(ends == 1 && lines(&stderr, "differs").is_empty(), "{name}: {stderr}");
    }
}
