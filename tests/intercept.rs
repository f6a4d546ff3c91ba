//! Functions of the C library under `intercept`: every one of the table with every fault, guarded and in a slab, gives
//! the report that names it; and what correct programs do comes out as without the library.

mod support;

use std::path::{Path, PathBuf};
use std::thread;
use support::process::{self, End, LIMIT};
use support::report::{Access, Relation, Report, Side};
use support::{EVERY_MODE, compiler, library};

/// Nothing is inlined, so that each row calls what it names.
const PLAIN: &[&str] = &["-O1", "-fno-builtin"];
/// As distributions build: the compiler chooses what it calls.
const FORTIFIED: &[&str] = &["-O2", "-D_FORTIFY_SOURCE=2"];
/// The object of every row, in bytes.
const SIZE: u64 = 100;
/// Of the row's that has poisoned bytes behind so many.
const POOL: u64 = 4096;

fn program(name: &str, flags: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/intercept").join(format!("{name}.c"));
    compiler::with_flags(&source, flags, &format!("intercept-{name}{}", flags.concat()))
}

fn run(binary: &Path, options: &str, arguments: &[&str]) -> process::Run {
    let mut command = process::command(binary, Some(library::path()), options);
    process::run(command.args(arguments), LIMIT)
}

/// A row of the program.
struct Row {
    number: String,
    function: String,
    /// The access where the object is too small, and where the pointer is wrong from the start.
    accesses: [Access; 2],
}

fn rows(binary: &Path) -> Vec<Row> {
    let list = process::run(process::command(binary, None, "").arg("--list"), LIMIT);
    assert_eq!(list.end, End::Status(0), "{}", list.stderr);
    let access = |word: &str| if word == "W" { Access::Write } else { Access::Read };
    let row = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [number, function, over, wrong] = words[..] else { panic!("{line}") };
        Row {
            number: number.to_owned(),
            function: function.to_owned(),
            accesses: [access(over), access(wrong)],
        }
    };
    list.stdout.lines().map(row).collect()
}

/// What is wrong with the report of a row.
fn verdict(binary: &Path, row: &Row, fault: &str, options: &str, named: bool) -> Option<String> {
    let [over, wrong] = row.accesses;
    let (kind, access, relation) = match fault {
        "over" => ("heap-buffer-overflow", over, (0, Side::After)),
        "under" => ("heap-buffer-underflow", wrong, (1, Side::Before)),
        "poisoned" => ("use-after-poison", over, (SIZE, Side::Inside)),
        _ => ("heap-use-after-free", wrong, (0, Side::Inside)),
    };
    let object_size = if fault == "poisoned" { POOL } else { SIZE };
    let relation = Relation { distance: relation.0, side: relation.1, object_size };
    let run = run(binary, options, &[&row.number, fault]);
    let reports = Report::parse_all(&run.stderr);
    let headline = match named {
        true => format!(" by {}() at 0x", row.function),
        false => "() at 0x".to_owned(),
    };
    let right = |report: &&Report| {
        report.kind == kind
            && report.relation == Some(relation)
            && report.access.is_some_and(|(found, size)| found == access && size.is_some())
            && report.summary.as_ref().is_some_and(|summary| summary.contains("intercept-rows"))
            && (!options.contains("hunt")
                || report.has_alloc_stack && report.has_free_stack == (fault == "freed"))
    };
    let seen = reports.len() == 1
        && reports.first().as_ref().is_some_and(right)
        && run.stderr.contains(&headline)
        && run.end == End::Signal(libc::SIGABRT)
        && !run.stdout.contains("ok");
    (!seen).then(|| format!("{} {fault} {options}: {}\n{}{}", row.function, run.end, run.stdout, run.stderr))
}

/// Every row with every fault, and with none.
fn detect(flags: &[&str], options: &str, named: bool) {
    let Some(binary) = program("rows", flags) else { return };
    let rows = rows(&binary);
    assert!(rows.len() > 90, "{} rows", rows.len());
    let missed = |part: &[Row]| {
        let mut missed = Vec::new();
        for row in part {
            let all_well = run(&binary, options, &[&row.number, "fits"]);
            if (all_well.end, all_well.stdout.as_str(), all_well.stderr.as_str())
                != (End::Status(0), "ok\n", "")
            {
                missed.push(format!("{} fits {options}: {}{}", row.function, all_well.end, all_well.stderr));
            }
            let faults = ["over", "under", "freed", "poisoned"].into_iter();
            missed.extend(faults.filter_map(|fault| verdict(&binary, row, fault, options, named)));
        }
        missed
    };
    let missed: Vec<String> = thread::scope(|scope| {
        let parts = rows.chunks(rows.len().div_ceil(2));
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| missed(part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(missed.is_empty(), "{} missed of {}:\n{}", missed.len(), 5 * rows.len(), missed.join("\n"));
}

#[test]
fn every_function_and_fault_in_slabs() {
    detect(PLAIN, "mode=harden:intercept=all", true);
}

#[test]
fn every_function_and_fault_between_guards() {
    detect(PLAIN, "mode=hunt", true);
}

#[test]
fn every_function_and_fault_against_left_guards() {
    detect(PLAIN, "mode=hunt:guard_side=left:guards=mprotect", true);
}

#[test]
fn every_function_as_distributions_build_them() {
    detect(FORTIFIED, "mode=harden:intercept=all", false);
}

/// What the program prints without the library.
fn compare(name: &str, flags: &[&str], all: &[String]) {
    let Some(binary) = program(name, flags) else { return };
    let plain = process::run(&mut process::command(&binary, None, ""), LIMIT);
    assert_eq!((plain.end, plain.stderr.as_str()), (End::Status(0), ""), "{name} alone: {}", plain.stdout);
    for options in all {
        let run = run(&binary, options, &[]);
        assert_eq!(run.stdout, plain.stdout, "{options}: {}", run.stderr);
        let no_keys = "fencepost: no protection keys here: seal=pkey changes nothing\n";
        let errors =
            run.stderr.strip_prefix(no_keys).filter(|_| options.contains("seal")).unwrap_or(&run.stderr);
        assert_eq!((run.end, errors), (End::Status(0), ""), "{options}");
    }
}

fn every_mode_and(option: &str) -> Vec<String> {
    EVERY_MODE.iter().map(|mode| format!("{mode}:{option}")).collect()
}

#[test]
fn correct_programs_do_what_they_do() {
    for flags in [PLAIN, FORTIFIED] {
        compare("correct", flags, &every_mode_and("intercept=all"));
        compare(
            "correct",
            flags,
            &["mode=harden:intercept=copy", "mode=harden:intercept=syscalls"].map(str::to_owned),
        );
        compare(
            "correct",
            flags,
            &["mode=harden:intercept=off", "mode=harden:seal=pkey:intercept=all"].map(str::to_owned),
        );
    }
}

/// What each value of the option switches on.
#[test]
fn the_option_says_who_looks() {
    let Some(binary) = program("rows", PLAIN) else { return };
    let rows = rows(&binary);
    for (options, seen) in [
        ("mode=harden", [false, false, false]),
        ("mode=harden:intercept=copy", [true, false, false]),
        ("mode=harden:intercept=syscalls", [false, true, false]),
        ("mode=harden:intercept=all", [true, true, true]),
        ("mode=patrol:sample_rate=0", [false, true, false]),
        ("mode=hunt:intercept=off", [false, false, false]),
        ("mode=hunt", [true, true, true]),
    ] {
        for (function, seen) in ["memcpy", "fread", "strnlen"].iter().zip(seen) {
            let row = rows.iter().find(|row| row.function == *function).expect("a row");
            let run = run(&binary, options, &[&row.number, "over"]);
            // A fault inside the function is told as the call as well; then its own frame is the first.
            let told = run.stderr.contains(&format!(" by {function}() at 0x"));
            let first =
                run.stderr.lines().find(|line| line.trim_start().starts_with("#0 ")).unwrap_or_default();
            assert_eq!(told && !first.contains("libc.so"), seen, "{function} {options}: {}", run.stderr);
        }
    }
}

/// With `on_error=continue` the call goes on as it was made, and a suppression covers it by the function that calls.
#[test]
fn the_program_may_go_on() {
    let Some(binary) = program("rows", PLAIN) else { return };
    let suppressions = Path::new(env!("CARGO_TARGET_TMPDIR")).join("intercept.supp");
    std::fs::write(&suppressions, "heap-*:intercept-rows\n").expect("the directory can be written");
    let suppressed = format!(":suppressions={}", suppressions.display());
    for row in rows(&binary) {
        for mode in
            ["mode=harden:intercept=all:check_at_exit=0:exitcode=0", "mode=hunt:check_at_exit=0:exitcode=0"]
        {
            let goes_on = run(&binary, &format!("{mode}:on_error=continue"), &[&row.number, "over"]);
            assert_eq!(goes_on.stdout, "ok\n", "{} {mode}: {}{}", row.function, goes_on.end, goes_on.stderr);
            assert!(goes_on.stderr.contains(&format!(" by {}() at 0x", row.function)), "{}", goes_on.stderr);
        }
        let options = format!("mode=hunt:check_at_exit=0{suppressed}");
        let quiet = run(&binary, &options, &[&row.number, "over"]);
        assert_eq!(quiet.stdout, "ok\n", "{} {options}: {}{}", row.function, quiet.end, quiet.stderr);
    }
}

/// The heap tells a program the bounds of its objects.
#[test]
fn the_bounds_of_objects_can_be_asked_for() {
    let Some(binary) = program("bounds", PLAIN) else { return };
    let sides = ["guard_side=left", "align=exact", "intercept=all"].iter();
    for options in sides.flat_map(|option| every_mode_and(option)) {
        let run = run(&binary, &options, &[]);
        assert_eq!((run.stdout.as_str(), run.end), ("ok\n", End::Status(0)), "{options}: {}", run.stderr);
    }
}

/// What may be poisoned, and what a program may do with the rest.
#[test]
fn pools_poison_what_nobody_may_touch() {
    let Some(binary) = program("poison", PLAIN) else { return };
    let kinds = ["guard_side=left", "align=exact", "intercept=all", "guards=mprotect", "unmap=batch:8"];
    let all = kinds.iter().flat_map(|option| every_mode_and(option));
    for options in all.chain(["mode=hunt:seal=pkey", "mode=harden:seal=pkey"].map(str::to_owned)) {
        let run = run(&binary, &options, &["semantics"]);
        assert_eq!((run.stdout.as_str(), run.end), ("ok\n", End::Status(0)), "{options}: {}", run.stderr);
        assert!(!run.stderr.contains("ERROR"), "{options}: {}", run.stderr);
    }
}

/// Threads, handlers and forked children that share the pages of one pool lose nothing of what is theirs.
#[test]
fn pools_are_shared() {
    let Some(binary) = program("poison", PLAIN) else { return };
    for options in ["guards=auto", "guards=mprotect"].iter().flat_map(|option| every_mode_and(option)) {
        let run = run(&binary, &options, &["storm"]);
        assert_eq!((run.stdout.as_str(), run.end), ("ok\n", End::Status(0)), "{options}: {}", run.stderr);
    }
}

/// A process that limits its address space has it although there is a table of what was poisoned.
#[test]
fn pools_leave_address_space() {
    let Some(binary) = program("poison", PLAIN) else { return };
    for options in every_mode_and("intercept=all") {
        let run = run(&binary, &options, &["limit"]);
        assert_eq!((run.stdout.as_str(), run.end), ("ok\n", End::Status(0)), "{options}: {}", run.stderr);
    }
}

/// A range that is no live object's is a misuse, and nothing is done to it.
#[test]
fn ranges_that_are_no_objects_are_reported() {
    let Some(binary) = program("poison", PLAIN) else { return };
    let relation = |distance, side| Some(Relation { distance, side, object_size: 1000 });
    for (misuse, kind, expected, what) in [
        ("freed", "heap-use-after-free", relation(10, Side::Inside), "a freed pointer"),
        ("over", "heap-buffer-overflow", relation(0, Side::After), "a range that goes beyond its object"),
        ("behind", "wild-access", relation(0, Side::After), "a pointer to no object"),
    ] {
        for (call, options) in [
            ("poison", "mode=hunt"),
            ("unpoison", "mode=hunt"),
            ("poison", "mode=harden"),
            ("unpoison", "mode=harden"),
        ] {
            let run = run(&binary, options, &[misuse, call]);
            let reports = Report::parse_all(&run.stderr);
            assert_eq!(reports.len(), 1, "{misuse} {options}: {}", run.stderr);
            assert_eq!((reports[0].kind.as_str(), reports[0].relation), (kind, expected), "{}", run.stderr);
            let headline = format!("{what} was passed to fencepost_{call} by thread T");
            assert!(run.stderr.contains(&headline), "{headline}: {}", run.stderr);
            assert!(
                reports[0].summary.as_ref().is_some_and(|line| line.contains("intercept-poison")),
                "{}",
                run.stderr
            );
            assert_eq!((run.end, run.stdout.as_str()), (End::Signal(libc::SIGABRT), ""));
        }
        let options = "mode=hunt:on_error=continue:exitcode=0";
        let goes_on = run(&binary, options, &[misuse, "poison"]);
        assert_eq!((goes_on.end, goes_on.stdout.as_str()), (End::Status(0), "0\n"), "{}", goes_on.stderr);
    }
}

/// What a page has none of but poisoned bytes, no instruction touches in `hunt`; and the report has the range.
#[test]
fn whole_pages_of_pools_are_closed() {
    let Some(binary) = program("poison", PLAIN) else { return };
    for guards in ["madvise", "mprotect"] {
        for (how, access) in [("store", Access::Write), ("load", Access::Read)] {
            let options = format!("mode=hunt:guards={guards}");
            let run = run(&binary, &options, &[how]);
            let reports = Report::parse_all(&run.stderr);
            assert_eq!(reports.len(), 1, "{how} {options}: {}", run.stderr);
            let report = &reports[0];
            assert_eq!(
                (report.kind.as_str(), report.access),
                ("use-after-poison", Some((access, Some(4)))),
                "{}",
                run.stderr
            );
            let inside = Relation { distance: 9000, side: Side::Inside, object_size: 40_000 };
            assert_eq!(report.relation, Some(inside));
            assert!(
                report.has_alloc_stack && !report.has_free_stack && run.end == End::Signal(libc::SIGSEGV)
            );
            let start = report.address - 9000;
            let range = format!(
                ", of which the program poisoned [0x{:012x},0x{:012x})\n",
                start + 100,
                start + 20_000
            );
            assert!(run.stderr.contains(&range), "{range}{}", run.stderr);
            // Reported once, then allowed; and open again, whatever it holds.
            let goes_on = self::run(&binary, &format!("{options}:on_error=continue:exitcode=0"), &[how]);
            assert_eq!(
                (goes_on.end, goes_on.stdout.as_str()),
                (End::Status(0), "on\n"),
                "{}",
                goes_on.stderr
            );
            assert_eq!(Report::parse_all(&goes_on.stderr).len(), 1, "{}", goes_on.stderr);
        }
    }
    // A slot has no pages to close, and a fault in the program's own closed page stays its own.
    for options in ["mode=harden", "mode=harden:intercept=all"] {
        let run = run(&binary, options, &["store"]);
        assert_eq!((run.end, run.stdout.as_str()), (End::Status(0), "on\n"), "{}", run.stderr);
    }
    let own = run(&binary, "mode=hunt", &["barrier"]);
    assert_eq!((own.end, own.stdout.as_str()), (End::Status(0), "ok\n"), "{}", own.stderr);
}

/// What another preloaded library puts before the C library's functions is called, whether or not its hash table can be read.
#[test]
fn a_library_behind_is_found_first() {
    let Some(binary) = program("behind_host", PLAIN) else { return };
    for style in ["-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv"] {
        let Some(other) = program("behind", &["-shared", "-fPIC", "-fno-builtin", style]) else { return };
        for options in ["mode=harden", "mode=harden:intercept=all", "mode=hunt"] {
            let mut command = process::command(&binary, None, options);
            command.env("LD_PRELOAD", format!("{}:{}", library::path().display(), other.display()));
            let run = process::run(&mut command, LIMIT);
            assert_eq!(
                (run.end, run.stdout.as_str()),
                (End::Status(0), "77 behind\n"),
                "{style} {options}: {}",
                run.stderr
            );
        }
    }
}

/// The range in JSON.
#[test]
fn poisoned_bytes_are_in_json() {
    let Some(binary) = program("poison", PLAIN) else { return };
    let run = run(&binary, "mode=hunt:report=json", &["store"]);
    let line = run.stderr.lines().next().unwrap_or_default();
    assert!(
        line.contains("\"kind\":\"use-after-poison\"") && line.contains("\"poisoned_size\":19900"),
        "{line}"
    );
}

/// The function's name in JSON.
#[test]
fn the_function_is_named_in_json() {
    let Some(binary) = program("rows", PLAIN) else { return };
    let run = run(&binary, "mode=hunt:report=json", &["0", "over"]);
    let line = run.stderr.lines().next().unwrap_or_default();
    assert!(line.contains("\"access\":\"write\"") && line.contains("\"made_by\":\"memcpy\""), "{line}");
    assert!(line.contains("\"access_size\":128"), "{line}");
}
