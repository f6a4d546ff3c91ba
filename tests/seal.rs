//! `seal=pkey`: nobody but the allocator writes its tables, and programs run as they do without.
//!
//! The first needs a processor with protection keys; where there is none a line on stderr says so, in CI as well,
//! and the programs run with the option changing nothing.

#[allow(dead_code)]
#[path = "preload/rows.rs"]
mod rows;
mod support;

use rows::Row;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::report::{Access, Report};
use support::{compiler, library};

const MODES: [&str; 3] = ["mode=harden", "mode=patrol:sample_rate=20", "mode=hunt"];
const NO_KEYS: &str = "fencepost: no protection keys here: seal=pkey changes nothing";

/// Whether the machine has keys, which is asked of the kernel and not of the library.
fn has_keys() -> bool {
    // SAFETY: takes numbers; the key is given back at once.
    unsafe {
        let key = libc::syscall(libc::SYS_pkey_alloc, 0, 0);
        key >= 0 && libc::syscall(libc::SYS_pkey_free, key) == 0
    }
}

/// Whether there are keys; says what is not tested if not. No set of packages brings them.
fn has_keys_for(what: &str) -> bool {
    let keys = has_keys();
    if !keys {
        let line = format!("skipped: {what}: this machine has no memory protection keys\n");
        let _ = io::stderr().write_all(line.as_bytes());
    }
    keys
}

/// `None` without a compiler.
fn execute(program: &str, arguments: &[&str], options: &str, limit: Duration) -> Option<Run> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(program);
    let stem = source.file_stem().and_then(|stem| stem.to_str()).expect("a plain name");
    let binary = compiler::with_flags(&source, &["-O1"], &format!("seal-{stem}"))?;
    let mut command = process::command(binary, Some(library::path()), options);
    Some(process::run(command.args(arguments), limit))
}

fn scribble(arguments: &[&str], options: &str) -> Option<Run> {
    execute("seal/scribble.c", arguments, options, LIMIT)
}

const TABLES: [&str; 4] = ["pages", "records", "states", "stacks"];
const PLACES: [&str; 3] = ["main", "thread", "handler"];

#[test]
fn without_the_option_tables_can_be_written() {
    for (table, place) in TABLES.iter().flat_map(|table| PLACES.map(|place| (*table, place))) {
        let Some(run) = scribble(&[table, place], "mode=harden") else { return };
        let verdict = judge_silent(&run, End::Status(0));
        assert_eq!((verdict, run.stdout.as_str()), (Verdict::Match, "written\n"), "{table} {place}");
    }
}

#[test]
fn nobody_else_writes_sealed_tables() {
    if !has_keys_for("writing sealed tables") {
        return;
    }
    for mode in MODES {
        for (table, place) in TABLES.iter().flat_map(|table| PLACES.map(|place| (*table, place))) {
            let Some(run) = scribble(&[table, place], &format!("{mode}:seal=pkey")) else { return };
            let what = format!("{mode} {table} {place}: {}\n{}{}", run.end, run.stdout, run.stderr);
            assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{what}");
            let reports = Report::parse_all(&run.stderr);
            let [report] = reports.as_slice() else { panic!("{what}") };
            assert_eq!(report.kind, "wild-access", "{what}");
            // A handler may not even read.
            let access = if place == "handler" { Access::Read } else { Access::Write };
            assert_eq!(report.access, Some((access, Some(1))), "{what}");
            assert!(run.stderr.contains(" is in the allocator's own tables, which are sealed\n"), "{what}");
        }
    }
}

#[test]
fn a_sealed_table_is_not_opened_to_go_on() {
    if !has_keys_for("going on after a write to a sealed table") {
        return;
    }
    let Some(run) = scribble(&["states", "main"], "seal=pkey:on_error=continue") else { return };
    assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{}", run.stderr);
    assert_eq!(Report::parse_all(&run.stderr).len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("fencepost: the access cannot be allowed\n"), "{}", run.stderr);
}

#[test]
fn a_key_of_the_programs_own_is_its_own_business() {
    if !has_keys_for("a program with a key of its own") {
        return;
    }
    for options in ["mode=harden", "mode=harden:seal=pkey", "mode=hunt:seal=pkey"] {
        let Some(run) = scribble(&["own"], options) else { return };
        let verdict = judge_silent(&run, End::Status(0));
        let said = run.stdout.as_str();
        assert_eq!((verdict, said), (Verdict::Match, "the program's own key\n"), "{options}");
    }
}

/// Where there are keys nothing is said; else one line, once.
#[test]
fn a_machine_without_keys_is_told_of() {
    let Some(run) = execute("preload/programs/clean_threads.c", &[], "seal=pkey", LIMIT) else { return };
    let expected = if has_keys() { String::new() } else { format!("{NO_KEYS}\n") };
    assert_eq!((run.end, run.stderr), (End::Status(0), expected));
}

/// Runs a program that has to end well, and of which the library says no more than that there are no keys.
fn runs(program: &str, arguments: &[&str]) {
    for mode in MODES {
        let options = format!("{mode}:seal=pkey");
        let Some(run) = execute(program, arguments, &options, 3 * LIMIT) else { return };
        let verdict = judge_silent(&run, End::Status(0));
        let what = format!("{program} {arguments:?} {options}\n{}{}", run.stdout, run.stderr);
        assert_eq!(verdict, Verdict::Match, "{what}");
    }
}

#[test]
fn threads_come_and_go() {
    runs("storm/threads.c", &["300", "65536"]);
}

#[test]
fn threads_are_cancelled() {
    runs("storm/cancelled.c", &["100"]);
}

#[test]
fn threads_fork() {
    runs("storm/forks.c", &["30", "1000"]);
    runs("storm/children.c", &[]);
}

#[test]
fn handlers_allocate_and_fork() {
    runs("storm/handlers.c", &["500", "50"]);
    runs("storm/handlers.c", &["500", "50", "1"]);
}

/// The kernel gives a handler no right to read what is sealed either, nor a thread that began before the key was taken.
#[test]
fn handlers_call_every_function() {
    runs("seal/handler.c", &[]);
}

#[test]
fn processes_end_while_threads_allocate() {
    runs("storm/endings.cc", &["4"]);
}

#[test]
fn faults_are_handled() {
    for program in
        ["clean_segv_handler", "clean_signals", "clean_usable_size", "clean_trim", "clean_mlockall"]
    {
        runs(&format!("preload/programs/{program}.c"), &[]);
    }
}

/// Bugs are reported as they are without.
#[test]
fn bugs_are_found() {
    let harden = rows::ALWAYS.iter().chain(rows::SLAB).step_by(3);
    detect("mode=harden:quarantine_mb=1:seal=pkey", harden);
    let hunt = rows::ALWAYS.iter().chain(rows::HUNT).chain(rows::EXACT).step_by(5);
    detect("mode=hunt:intercept=off:align=exact:seal=pkey", hunt);
}

fn detect<'a>(options: &str, rows: impl Iterator<Item = &'a Row>) {
    for Row { program, arguments, expected } in rows {
        let source = compiler::source(program);
        let source = source.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
        let program = source.ok().and_then(Path::to_str).expect("the programs are among the tests");
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let Some(run) = execute(program, &arguments, options, LIMIT) else { return };
        let expected = if options.contains("harden") { expected.in_harden() } else { *expected };
        let verdict = expected.judge(&run);
        assert_eq!(verdict, Verdict::Match, "{program} {arguments:?} {options}\n{}", run.stderr);
    }
}
