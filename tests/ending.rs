//! What comes after an error, and at the end: going on, suppressions, leaks, the exit status, reports that
//! cannot be written, and programs that handle faults themselves.
//!
//! Programs in C are among those of `tests/preload/programs`; Go, Java, Node and Python programs are in
//! `tests/ending`.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::report::Report;
use support::{compiler, library, skip};

const BACKENDS: [&str; 2] = ["madvise", "mprotect"];

fn scratch(name: &str) -> PathBuf {
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ending-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the build's directory for temporary files is writable");
    directory
}

/// A C program under the library, `None` without a compiler.
fn prepare(program: &str, options: &str) -> Option<Command> {
    let binary = compiler::binary(program, "-O1")?;
    Some(process::command(binary, Some(library::path()), options))
}

fn execute(program: &str, arguments: &[&str], options: &str) -> Option<Run> {
    Some(process::run(prepare(program, options)?.args(arguments), LIMIT))
}

fn kinds(run: &Run) -> Vec<String> {
    Report::parse_all(&run.stderr).into_iter().map(|report| report.kind).collect()
}

/// The three numbers of the line that sums up: errors, distinct ones, suppressed ones.
fn summary(run: &Run) -> Option<[u64; 3]> {
    let rest = run.stderr.lines().find_map(|line| line.split_once("==SUMMARY: fencepost: "))?.1;
    let numbers: Vec<u64> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}

/// What the errors of `many_errors` are, each place once.
const MANY: [&str; 7] = [
    "heap-buffer-overflow",
    "heap-use-after-free",
    "double-free",
    "double-free",
    "invalid-free",
    "double-free",
    "heap-use-after-free",
];

#[test]
fn one_run_collects_many_errors() {
    for backend in BACKENDS {
        let options = format!("mode=hunt:on_error=continue:guards={backend}");
        let Some(run) = execute("many_errors", &[], &options) else { return };
        assert_eq!(run.end, End::Status(99), "{}", run.stderr);
        assert_eq!(run.stdout, "begin\nend\n", "the program came to its end, and its output with it");
        assert_eq!(kinds(&run), MANY, "{}", run.stderr);
        assert_eq!(summary(&run), Some([10, 7, 0]), "{}", run.stderr);
        let counted = run.stderr.lines().filter(|line| line.starts_with("    3 heap-buffer-overflow ("));
        assert_eq!(counted.count(), 1, "{}", run.stderr);
    }
}

/// A loop with a length that was overwritten goes on for as long as there is address space.
#[test]
fn an_access_without_end_ends_the_program() {
    for (options, size) in [
        ("mode=hunt", "24"),
        ("mode=hunt:guards=mprotect", "24"),
        ("mode=harden", "24"),
        ("mode=harden", "5000"),
    ] {
        let options = format!("{options}:on_error=continue");
        let Some(run) = execute("overflow_run", &[size, "1000000000000"], &options) else { return };
        assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{options} {size}: {}", run.stderr);
        let lines =
            run.stderr.lines().filter(|line| line.starts_with("fencepost: an access without end at pc "));
        assert_eq!(lines.count(), 1, "{options} {size}: {}", run.stderr);
        let found = kinds(&run);
        assert!((1..=8).contains(&found.len()), "{options} {size}: {found:?}");
    }
}

#[test]
fn going_on_ends_with_a_status_that_says_so() {
    for (arguments, exitcode, end) in [
        (&["0"][..], "", End::Status(99)),
        (&["5"], "", End::Status(99)),
        (&["5"], ":exitcode=42", End::Status(42)),
        (&["5"], ":exitcode=0", End::Status(5)),
        (&["_exit"], "", End::Status(99)),
        (&["_exit"], ":exitcode=0", End::Status(7)),
    ] {
        let options = format!("mode=harden:on_error=continue{exitcode}");
        let Some(run) = execute("many_errors", arguments, &options) else { return };
        assert_eq!(run.end, end, "{arguments:?} {exitcode}");
        assert_eq!(summary(&run), Some([10, 7, 0]), "{arguments:?} {exitcode}: {}", run.stderr);
    }
    let Some(run) = execute("clean_exit", &[], "mode=hunt:on_error=continue") else { return };
    assert_eq!((run.end, run.stderr.as_str()), (End::Status(0), ""));
}

/// A rule may name the function of a frame, if the module exports it.
#[test]
fn a_function_is_suppressed() {
    let file = scratch("suppressed-function").join("rules");
    fs::write(&file, "heap-buffer-overflow:^run_over$\n").unwrap();
    let source = compiler::source("many_errors");
    for (flags, left) in [(&["-O1", "-rdynamic", "-DEXPORTED"][..], 0), (&["-O1"][..], 1)] {
        let name = format!("many_errors-exports-{left}");
        let Some(program) = compiler::with_flags(&source, flags, &name) else { return };
        let options = format!("mode=hunt:on_error=continue:suppressions=\"{}\"", file.display());
        let run = process::run(&mut process::command(program, Some(library::path()), &options), LIMIT);
        let overflows = kinds(&run).into_iter().filter(|kind| kind == "heap-buffer-overflow").count();
        assert_eq!(overflows, left, "{}", run.stderr);
    }
}

#[test]
fn suppressed_errors_are_let_through_and_counted() {
    let directory = scratch("suppressions");
    let file = directory.join("rules");
    fs::write(&file, "# known\nheap-buffer-overflow:many_errors\nheap-use-*:many_errors-O1$\nno rule\n")
        .unwrap();
    let suppressions = format!("suppressions=\"{}\"", file.display());
    let Some(run) = execute("many_errors", &[], &format!("mode=hunt:on_error=continue:{suppressions}"))
    else {
        return;
    };
    assert_eq!(kinds(&run), ["double-free", "double-free", "invalid-free", "double-free"], "{}", run.stderr);
    assert_eq!(summary(&run), Some([5, 4, 5]), "{}", run.stderr);
    assert!(run.stderr.contains("    3 suppressed by heap-buffer-overflow:many_errors\n"), "{}", run.stderr);
    assert!(run.stderr.contains("suppressions: not kind:pattern"), "{}", run.stderr);
    assert_eq!(run.end, End::Status(99));

    // What is left ends the program, as it does without suppressions.
    let run = execute("many_errors", &[], &format!("mode=hunt:{suppressions}")).unwrap();
    assert_eq!((kinds(&run), run.end), (vec!["double-free".to_owned()], End::Signal(libc::SIGABRT)));

    // Nothing is left: the program's own end.
    fs::write(&file, "*:many_errors").unwrap();
    let run = execute("many_errors", &["3"], &format!("mode=hunt:{suppressions}")).unwrap();
    assert_eq!((kinds(&run), run.end), (vec![], End::Status(3)), "{}", run.stderr);
    assert_eq!(summary(&run), Some([0, 0, 10]));

    let run = execute("clean_exit", &[], "suppressions=/no/such/file").unwrap();
    assert_eq!(run.stderr, "fencepost: suppressions: cannot read /no/such/file\n");
    assert_eq!(run.end, End::Status(0));
    fs::remove_dir_all(directory).unwrap();
}

/// Bytes by kind and by object size.
fn leaks(run: &Run) -> BTreeMap<u64, &'static str> {
    let mut found = BTreeMap::new();
    for line in run.stderr.lines() {
        for (prefix, kind) in [
            ("Direct leak of ", "direct"),
            ("Indirect leak of ", "indirect"),
            ("Still reachable: ", "reachable"),
        ] {
            if let Some(rest) = line.strip_prefix(prefix) {
                assert!(rest.contains(" in 1 object(s)"), "{line}");
                found.insert(rest.split(' ').next().unwrap().parse().unwrap(), kind);
            }
        }
    }
    found
}

#[test]
fn leaks_are_told_from_what_can_be_reached() {
    for mode in ["hunt", "harden", "harden:unmap_threshold=65536"] {
        let Some(run) = execute("leak_kinds", &["thread"], &format!("mode={mode}:leaks=1")) else { return };
        assert_eq!((run.end, run.stdout.as_str()), (End::Status(0), "end\n"), "{mode}: {}", run.stderr);
        let found = leaks(&run);
        let kind = |size: u64| found.get(&size).copied().unwrap_or("missing");
        assert_eq!((kind(1001), kind(501)), ("direct", "indirect"), "{mode}: {}", run.stderr);
        let mut ring = [kind(2001), kind(2002)];
        ring.sort_unstable();
        assert_eq!(ring, ["direct", "indirect"], "{mode}: {}", run.stderr);
        for size in [3001, 3002, 4001, 4002, 5001] {
            assert_eq!(kind(size), "reachable", "{mode}: {size}: {}", run.stderr);
        }
        assert!(run.stderr.contains("    directly lost: 3"), "{mode}: {}", run.stderr);
        assert!(
            run.stderr.contains("SUMMARY: fencepost: 5505 byte(s) leaked in 4 allocation(s).\n"),
            "{mode}"
        );
        if mode == "hunt" {
            let stacks =
                run.stderr.lines().filter(|line| line.contains("#1 0x") && line.contains("leak_kinds"));
            assert!(stacks.count() >= 9, "{}", run.stderr);
        }
    }
}

#[test]
fn leaks_decide_the_status_where_that_is_wanted() {
    let directory = scratch("leaks");
    let file = directory.join("rules");
    let suppressions = format!("suppressions=\"{}\"", file.display());
    for (options, rules, end) in [
        ("leaks=1", "", End::Status(0)),
        ("leaks=2", "", End::Status(99)),
        ("leaks=2:exitcode=23", "", End::Status(23)),
        ("leaks=2", "leak:no-such-module", End::Status(99)),
        ("leaks=2", "leak:leak_kinds", End::Status(0)),
    ] {
        fs::write(&file, rules).unwrap();
        let options = format!("mode=hunt:{options}:{suppressions}");
        let Some(run) = execute("leak_kinds", &[], &options) else { return };
        assert_eq!(run.end, end, "{options} {rules}: {}", run.stderr);
    }
    let Some(run) = execute("leak_kinds", &[], "mode=hunt:leaks=1:report=json") else { return };
    assert!(
        run.stderr.lines().all(|line| line.starts_with("{\"tool\":\"fencepost\"") && line.ends_with('}'))
    );
    assert!(run.stderr.contains("\"leaks\":{\"direct\":{\"bytes\":3"), "{}", run.stderr);
    let run = execute("clean_exit", &[], "leaks=2").unwrap();
    assert!(run.stderr.contains("    directly lost: 0 bytes in 0 objects\n"), "{}", run.stderr);
    assert_eq!(run.end, End::Status(0));
    fs::remove_dir_all(directory).unwrap();
}

/// Runs `script` in a shell, with `$P` a program under the library and `$O` for options of its own.
fn shell(program: &str, options: &str, script: &str) -> Option<Run> {
    let binary = compiler::binary(program, "-O1")?;
    let mut command = process::command("bash", None, "");
    command.arg("-c").arg(script).env("P", binary).env("LIB", library::path()).env("O", options);
    Some(process::run(&mut command, LIMIT))
}

/// A report that cannot be written where it should be leaves a line where one can be written, and the
/// program ends by the signal that it would end by.
#[test]
fn reports_that_cannot_be_written_change_nothing_else() {
    for (program, argument, signal) in [("uaf_read", "5000 0", 139), ("double_free", "5000", 134)] {
        for (redirection, options, says) in [
            ("2>&-", "", ""),
            ("2>/dev/full", "", ""),
            ("2>/dev/full", ":log_path=/dev/full", ""),
            ("", ":log_path=/dev/full", "fencepost: cannot write to /dev/full (errno 28); the report:\n"),
            ("", ":log_path=/no/such/file.%p", "fencepost: cannot write to /no/such/file."),
            // A reader that is gone.
            ("2> >(exec true)", "", ""),
        ] {
            let options = format!("mode=harden{options}");
            let script = format!("LD_PRELOAD=$LIB FENCEPOST_OPTIONS=$O $P {argument} {redirection}; echo $?");
            let Some(run) = shell(program, &options, &script) else { return };
            assert_eq!(run.stdout.lines().last(), Some(signal.to_string().as_str()), "{script} {options}");
            assert!(run.stderr.contains(says), "{script} {options}: {}", run.stderr);
            assert_eq!(
                kinds(&run).len(),
                usize::from(!says.is_empty()),
                "{script} {options}: {}",
                run.stderr
            );
        }
    }
}

#[test]
fn a_stack_overflow_is_named_and_ends_by_its_signal() {
    for argument in ["main", "thread"] {
        for mode in ["harden", "hunt"] {
            let Some(run) = execute("stack_overflow", &[argument], &format!("mode={mode}")) else { return };
            assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{argument}");
            assert!(
                run.stderr.starts_with("fencepost: stack overflow at pc 0x"),
                "{argument}: {}",
                run.stderr
            );
            assert_eq!(run.stderr.lines().count(), 1);
        }
    }
}

/// A page that the program closed is its own to handle: a line, and the end by the signal, whatever `on_error` says.
#[test]
fn a_fault_inside_a_live_object_is_not_the_heaps() {
    for backend in BACKENDS {
        for (mode, size) in [("harden", "4096"), ("hunt", "4096"), ("hunt", "1048576"), ("patrol", "65536")] {
            for on_error in ["abort", "exit", "continue"] {
                let options = format!("mode={mode}:guards={backend}:on_error={on_error}");
                let Some(run) = execute("fault_inside", &[size], &options) else { return };
                assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{options}: {}", run.stderr);
                let inside = format!(" is 7 bytes inside the live {size}-byte object at 0x");
                assert!(run.stderr.starts_with("fencepost: fault at pc 0x"), "{options}: {}", run.stderr);
                assert!(run.stderr.contains(&inside), "{options}: {}", run.stderr);
                assert_eq!(run.stderr.lines().count(), 1, "{options}: {}", run.stderr);
            }
        }
    }
}

/// The process ends though the instruction would go through once the report is written.
#[test]
fn a_fault_that_was_reported_ends_the_process() {
    for backend in BACKENDS {
        let options = format!("mode=hunt:guards={backend}:sleep_before_dying=1");
        let Some(run) = execute("overflow_mended", &[], &options) else { return };
        assert_eq!((run.end, run.stdout.as_str()), (End::Signal(libc::SIGSEGV), ""), "{}", run.stderr);
        assert_eq!(kinds(&run), ["heap-buffer-overflow"], "{}", run.stderr);
    }
}

/// A report that waits for its reader holds nobody up who ends the process.
#[test]
fn a_process_ends_while_its_report_waits() {
    for arguments in [
        &["free", "handler"][..],
        &["free", "exit"],
        &["free", "thread"],
        &["free", "handler", "64"],
        &["fault", "thread"],
        &["fault", "handler"],
        &["fault", "exit"],
    ] {
        for options in ["mode=harden", "mode=hunt", "mode=hunt:guards=mprotect"] {
            let Some(run) = execute("report_held", arguments, options) else { return };
            assert_eq!((run.end, run.stdout.as_str()), (End::Status(3), ""), "{arguments:?} {options}");
        }
    }
}

/// Each child's report is its own, and leaves the turn to the next and to the parent.
#[test]
fn children_of_vfork_report_one_after_another() {
    const CHILDREN: usize = 4;
    for (how, kind, signal) in
        [("free", "double-free", libc::SIGABRT), ("use", "heap-use-after-free", libc::SIGSEGV)]
    {
        for options in ["mode=harden", "mode=hunt", "mode=hunt:guards=mprotect"] {
            let arguments = ["5000", &CHILDREN.to_string(), how];
            let Some(run) = execute("vfork_reports", &arguments, options) else { return };
            assert_eq!(run.end, End::Signal(signal), "{how} {options}: {}", run.stderr);
            let reports = Report::parse_all(&run.stderr);
            let mut expected: Vec<_> = run.stdout.lines().map(str::to_owned).collect();
            assert_eq!(expected.len(), CHILDREN, "{how} {options}: {}", run.stdout);
            expected.push(format!("{} {signal}", run.pid));
            let told: Vec<_> = reports.iter().map(|report| format!("{} {signal}", report.pid)).collect();
            assert_eq!(told, expected, "{how} {options}: {}", run.stderr);
            assert!(reports.iter().all(|report| report.kind == kind), "{how} {options}: {}", run.stderr);
        }
    }
}

#[test]
fn a_debugger_has_time_before_the_end() {
    for (program, argument, signal) in
        [("uaf_read", &["5000", "0"][..], libc::SIGSEGV), ("double_free", &["24"], libc::SIGABRT)]
    {
        let Some(run) = execute(program, argument, "mode=hunt:sleep_before_dying=1") else { return };
        assert_eq!(run.end, End::Signal(signal));
        assert!(run.time >= Duration::from_secs(1));
        assert!(
            run.stderr.contains(&format!("waits 1 s before the end: gdb -p {}\n", run.pid)),
            "{}",
            run.stderr
        );
    }
}

/// `None`, and said so, if a program is not installed.
fn installed(name: &str) -> Option<&str> {
    let found =
        ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|path| Path::new(path).join(name).is_file());
    if !found {
        skip::skip(&format!("{name}: not installed"));
    }
    found.then_some(name)
}

/// Runs `program` from the distribution on a file of `tests/ending`, with the library and without; both must
/// say `expected`.
fn keeps_its_handling(program: &str, arguments: &[&str], file: &str, expected: &str) {
    let Some(program) = installed(program) else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ending").join(file);
    for options in [None, Some("mode=harden"), Some("mode=hunt"), Some("mode=hunt:guards=mprotect")] {
        let library = options.map(|_| library::path());
        let mut command = process::command(program, library, options.unwrap_or_default());
        command.arg0(program).env("PATH", "/usr/bin:/bin:/usr/local/bin").args(arguments).arg(&file);
        let run = process::run(&mut command, Duration::from_secs(120));
        assert_eq!((run.end, run.stdout.as_str()), (End::Status(0), expected), "{options:?}: {}", run.stderr);
        assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{options:?}: {}", run.stderr);
    }
}

#[test]
fn a_java_null_pointer_is_an_exception() {
    let flags = ["-Xmx128m", "-XX:+UseSerialGC"];
    keeps_its_handling("java", &flags, "Faults.java", "null 60\nstack true\nthread true\n");
}

#[test]
fn node_traps_are_exceptions() {
    keeps_its_handling("node", &[], "faults.js", "traps 200 overflow true\n");
}

/// A Go program that calls C, built here. CI does not install Go: what its runtime does is also done by the C program
/// `clean_runtime`.
#[test]
fn go_recovers_from_its_faults() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ending/faults.go");
    let directory = scratch("go");
    let binary = directory.join("faults");
    let mut build = process::command("go", None, "");
    build.args(["build", "-o"]).arg(&binary).arg(source).current_dir(&directory);
    build.env("GOCACHE", directory.join("cache")).env("GO111MODULE", "off").env("CGO_ENABLED", "1");
    match build.output() {
        Err(error) => return skip::name(&format!("go: {error}")),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    let expected = "runtime error: invalid memory address or nil pointer dereference\nuser defined signal 1\n\
         segmentation fault\nprofile true\npreempted\nexecuted\n";
    for options in [None, Some("mode=harden"), Some("mode=patrol"), Some("mode=hunt")] {
        let library = options.map(|_| library::path());
        let run = process::run(&mut process::command(&binary, library, options.unwrap_or_default()), LIMIT);
        assert_eq!((run.end, run.stdout.as_str()), (End::Status(0), expected), "{options:?}: {}", run.stderr);
        assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{options:?}: {}", run.stderr);
    }
    for options in ["mode=harden", "mode=hunt"] {
        let mut command = process::command(&binary, Some(library::path()), options);
        let run = process::run(command.arg("stale"), LIMIT);
        assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{options}: {}", run.stderr);
        // Another thread may have made the same error meanwhile.
        let kinds = kinds(&run);
        let stale = !kinds.is_empty() && kinds.iter().all(|kind| kind == "heap-use-after-free");
        assert!(stale, "{options}: {kinds:?}\n{}", run.stderr);
    }
    let _ = fs::remove_dir_all(directory);
}

/// It executes a program through `vfork`, and sets its handler back in the child.
#[test]
fn python_has_its_handler_after_a_subprocess() {
    let Some(python) = installed("python3") else { return };
    let script = "import subprocess,ctypes;subprocess.run(['true']);ctypes.string_at(0)";
    for mode in ["harden", "hunt"] {
        let mut command = process::command(python, Some(library::path()), &format!("mode={mode}"));
        command.env("PATH", "/usr/bin:/bin:/usr/local/bin").args(["-X", "faulthandler", "-c", script]);
        let run = process::run(&mut command, Duration::from_secs(120));
        assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{mode}: {}", run.stderr);
        assert!(run.stderr.contains("Fatal Python error: Segmentation fault"), "{mode}: {}", run.stderr);
    }
}

#[test]
fn python_handles_its_faults() {
    let line = |how| format!("{how} -11 True\n");
    let expected = ["string_at", "_sigsegv", "_stack_overflow"].map(line).concat();
    keeps_its_handling("python3", &[], "faults.py", &expected);
}

/// The kernel has the library's handler again when a program was executed, or could not be.
#[test]
fn a_program_that_ignores_its_faults_is_reported_after_it_executes_others() {
    for mode in ["mode=harden", "mode=hunt"] {
        let Some(run) = execute("clean_exec", &["bug"], mode) else { return };
        assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{mode}: {}{}", run.stdout, run.stderr);
        assert_eq!(kinds(&run), ["heap-use-after-free"], "{mode}: {}", run.stderr);
    }
}

/// What comes while the report of a fault waits for a reader that does not read, on the library's own stack.
#[test]
fn signals_come_while_a_fault_is_reported() {
    let cases = [
        (["exit", "plain", "heap"], End::Status(3)),
        (["exit", "onstack", "heap"], End::Status(3)),
        // A line, and no report.
        (["exit", "plain", "foreign"], End::Status(3)),
        (["send", "plain", "heap"], End::Status(4)),
        (["jump", "plain", "heap"], End::Signal(libc::SIGSEGV)),
        (["jump", "onstack", "heap"], End::Signal(libc::SIGSEGV)),
        (["fault", "plain", "heap"], End::Signal(libc::SIGSEGV)),
        (["return", "plain", "heap"], End::Signal(libc::SIGSEGV)),
    ];
    for (mode, guards) in
        ["harden", "patrol", "hunt"].iter().flat_map(|mode| BACKENDS.map(|guards| (mode, guards)))
    {
        for (arguments, end) in cases {
            let options = format!("mode={mode}:guards={guards}");
            let Some(mut command) = prepare("fault_waits", &options) else { return };
            let run = process::run(command.args(arguments), Duration::from_secs(20));
            assert_eq!(run.end, end, "{options} {arguments:?}: {}", run.stdout);
        }
    }
}
