//! Starts, limits and sandboxes that take something away: the process goes on with less protection, says so
//! once at most, and gives no wrong answer.
//!
//! The programs are in `tests/hostile`. `confine` applies rules (its header lists them) and executes a
//! program under the library; `work` applies them to itself while it runs. Where the system does not permit
//! a rule, a line says so.

#[path = "hostile/advice.rs"]
mod advice;
#[allow(dead_code)]
#[path = "preload/rows.rs"]
mod rows;
mod support;

use rows::Row;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::expectation::{Verdict, is_degraded};
use support::process::{self, End, LIMIT, Run};
use support::report::Access::Write;
use support::report::Report;
use support::{compiler, library, skip};

const MODES: [&str; 3] = ["mode=harden", "mode=patrol", "mode=hunt"];
/// What a program says that may not do here what it is about.
const NOT_PERMITTED: End = End::Status(77);

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(name).with_extension("c")
}

fn program(name: &str) -> Option<PathBuf> {
    compiler::with_flags(&source(name), &["-O1"], &format!("hostile-{name}"))
}

fn scratch(name: &str) -> PathBuf {
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the build's directory for temporary files is writable");
    directory
}

/// A program under the library, if `options` are given, with `rules` in force from before its start. `None`
/// without a compiler, and where a rule is not permitted.
fn confined(rules: &[&str], program: &Path, arguments: &[&str], options: Option<&str>) -> Option<Run> {
    let mut command = process::command(self::program("confine")?, None, "");
    command.args(rules);
    if let Some(options) = options {
        command.arg(format!("set=LD_PRELOAD={}", library::path().display()));
        command.arg(format!("set=FENCEPOST_OPTIONS={options}"));
    }
    let run = process::run(command.arg("--").arg(program).args(arguments), LIMIT);
    if run.end == NOT_PERMITTED {
        skip::skip(&format!("{rules:?} {arguments:?}: not permitted here"));
        return None;
    }
    Some(run)
}

/// The lines that say that there is less protection.
fn is_less(line: &str) -> bool {
    is_degraded(line)
        || line.starts_with("fencepost: the heap can get no more address space: ")
        || line.starts_with("fencepost: there is no address space for ")
}

/// What is wrong with a run that must come to its end, with less protection at worst.
fn wrong(run: &Run) -> Option<String> {
    let said: Vec<&str> = run.stderr.lines().collect();
    let good = run.end == End::Status(0) && run.stdout == "done\n" && said.len() <= 1;
    (!good || !said.iter().all(|line| is_less(line)))
        .then(|| format!("{}: {}{}", run.end, run.stdout, run.stderr))
}

/// Runs the work under each rule in harden and hunt; the rules hold `before` its start, or from its middle on.
fn work(before: bool, rules: &[&str], options: &str) {
    let Some(work) = program("work") else { return };
    let mut failures = Vec::new();
    for rule in rules {
        let rule: Vec<&str> = rule.split(' ').collect();
        let (outside, inside): (Vec<&str>, Vec<&str>) =
            rule.iter().partition(|part| before && !part.starts_with("threads="));
        for mode in ["mode=harden", "mode=hunt"] {
            let options = format!("{mode}:{options}");
            let Some(run) = confined(&outside, &work, &inside, Some(&options)) else { break };
            if let Some(what) = wrong(&run) {
                failures.push(format!("{rule:?} {options}: {what}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// System calls that fail, each with what sandboxes and old kernels answer.
const CALLS: &[&str] = &[
    "getrandom:ENOSYS",
    "getrandom:EAGAIN",
    "getrandom:EPERM",
    "madvise/2=102:EINVAL",
    "madvise/2=102:ENOSYS",
    "madvise/2=102:EPERM",
    "madvise/2=103:EINVAL",
    "madvise/2=103:EPERM",
    "madvise:EPERM",
    "madvise:ENOSYS",
    "madvise:ENOMEM",
    "mremap:EPERM",
    "mremap:ENOSYS",
    "process_madvise:EPERM",
    "membarrier:EPERM",
    "membarrier:ENOSYS",
    "prctl:EPERM",
    "sched_yield:EPERM",
    "sched_yield:ENOSYS",
    "sigaltstack:EPERM",
    "rt_sigaction:EPERM",
    "gettid:EPERM",
    "getpid:EPERM",
    "rt_sigprocmask:EPERM",
    "clock_gettime:EPERM",
    "prlimit64:EPERM",
];

/// Calls that no correct program causes the library to make once it runs: a sandbox may kill for them. The
/// table of `ffi/README.md` has those that it does make.
const NEVER: &[&str] = &[
    "process_madvise:kill",
    "membarrier:kill",
    "prctl:kill",
    "process_vm_readv:kill",
    "prlimit64:kill",
    "clock_gettime:kill",
    "nanosleep:kill",
    "msync:kill",
    "munlock:kill",
    "tgkill:kill",
    "open:kill",
    "openat:kill",
    "read:kill",
];

#[test]
fn calls_that_fail_from_the_start() {
    work(true, CALLS, "guards=auto");
}

#[test]
fn calls_that_fail_later() {
    work(false, CALLS, "guards=auto");
}

/// Locks name their owners by the threads' ids.
#[test]
fn threads_without_ids() {
    let (Some(alike), Some(later)) = (program("alike"), program("later")) else { return };
    for (rule, mode) in
        ["gettid:EPERM", "gettid:nothing"].iter().flat_map(|rule| MODES.map(|mode| (*rule, mode)))
    {
        let Some(run) = confined(&[], &alike, &[rule], Some(mode)) else { return };
        assert_eq!(wrong(&run), None, "{rule} {mode}");
        let Some(run) = confined(&[], &later, &["behind", rule], Some(mode)) else { return };
        let found = run.stderr.contains("is located 0 bytes after 4096-byte region");
        assert!(found && matches!(run.end, End::Signal(_)), "{rule} {mode}: {} {}", run.end, run.stderr);
    }
}

#[test]
fn calls_that_are_not_made() {
    work(false, NEVER, "guards=auto");
}

#[test]
fn without_mprotect_as_far_as_the_c_library_goes() {
    work(false, &["threads=0 mprotect:EPERM"], "guards=auto");
    work(false, &["threads=0 mprotect:EPERM"], "guards=mprotect");
}

/// Threads need a stack of 8 MiB each, and all that is mapped counts.
#[test]
fn limits_from_the_start() {
    let limits = ["threads=0 as=56", "threads=1 as=64", "as=128", "as=256", "as=1024"];
    work(true, &limits, "guards=auto");
    work(true, &["threads=0 as=64", "as=512"], "guards=mprotect");
    work(true, &["threads=0 data=64", "data=256", "data=1024"], "guards=auto");
}

/// Where guards are mappings, all that make some keep within what there may be, less what is left to the program: 8192.
#[test]
fn mappings_that_are_counted() {
    let Some(program) = program("counted") else { return };
    let directory = scratch("counted");
    let file = directory.join("count");
    fs::write(&file, "8592\n").expect("the directory is writable");
    let rule = format!("over={}=/proc/sys/vm/max_map_count", file.display());
    for mode in MODES {
        let options = format!("{mode}:guards=mprotect");
        let Some(run) = confined(&[&rule], &program, &[], Some(&options)) else { return };
        let count = run.stdout.trim().parse::<u64>();
        assert!(
            run.end == End::Status(0) && count.is_ok(),
            "{mode}: {} {}{}",
            run.end,
            run.stdout,
            run.stderr
        );
        // 200 islands, and those of the program and of tables.
        assert!(count.is_ok_and(|count| count < 600), "{mode}: {}", run.stdout);
    }
    let _ = fs::remove_dir_all(directory);
}

/// In overcommit mode 2, as two files in place of the kernel's say it, the reservations keep within the commit limit.
#[test]
fn a_commit_limit_from_the_start() {
    let directory = scratch("commit");
    let (mode, memory) = (directory.join("mode"), directory.join("memory"));
    fs::write(&mode, "2\n").expect("the directory is writable");
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let other = text.lines().filter(|line| !line.starts_with("CommitLimit:"));
    let lines: Vec<&str> = other.chain(["CommitLimit:      262144 kB"]).collect();
    fs::write(&memory, lines.join("\n")).expect("the directory is writable");
    let over = |file: &Path, place: &str| format!("over={}={place}", file.display());
    let rules = [over(&mode, "/proc/sys/vm/overcommit_memory"), over(&memory, "/proc/meminfo")];
    work(true, &[&rules.join(" ")], "guards=auto");
    let rules = rules.each_ref().map(String::as_str);
    let arguments = ["VmSize:", "/proc/self/status"];
    let Some(run) = confined(&rules, Path::new("/bin/grep"), &arguments, Some("mode=hunt")) else { return };
    let size = run.stdout.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    assert!(size.is_some_and(|kilobytes| kilobytes < 256 << 10), "{}{}", run.stdout, run.stderr);
    let _ = fs::remove_dir_all(directory);
}

/// A process that takes address space away from itself has what is left of it, for threads too.
#[test]
fn limits_that_come_later() {
    let limits = ["threads=0 as=128", "as=256", "as=1024", "threads=0 data=64", "data=256", "data=1024"];
    work(false, &limits, "guards=auto");
    work(false, &["as=256", "data=256"], "guards=mprotect");
}

/// A limit that a process sets itself, in every manner and at every time: `lower` says what must hold.
#[test]
fn a_limit_that_the_process_sets_itself() {
    let Some(lower) = program("lower") else { return };
    for part in ["early", "late", "beside", "twice", "vfork", "child", "end", "holes"] {
        for mode in MODES {
            for guards in ["auto", "mprotect"] {
                let options = format!("{mode}:guards={guards}");
                let Some(run) = confined(&[], &lower, &[part], Some(&options)) else { return };
                assert_eq!(wrong(&run), None, "{part} {options}");
            }
        }
        let Some(run) = confined(&[], &lower, &[part], None) else { return };
        assert_eq!(wrong(&run), None, "{part} without the library");
    }
}

/// A shell's `ulimit` is for what it starts, and the shell goes on under it.
#[test]
fn shells_limit_what_they_start() {
    for shell in ["/bin/dash", "/bin/bash"] {
        if !Path::new(shell).exists() {
            skip::skip(&format!("{shell}: not installed"));
            continue;
        }
        let script = "ulimit -v 262144; x=$(ulimit -v | cat); [ $x = 262144 ] && for i in 1 2 3; do (/bin/true); done && echo done";
        for mode in MODES {
            let Some(run) = confined(&[], Path::new(shell), &["-c", script], Some(mode)) else { return };
            assert_eq!(wrong(&run), None, "{shell} {mode}");
        }
    }
}

/// What is beyond memory and swap is refused where the kernel would refuse it the C library, and nothing else is.
#[test]
fn sizes_beyond_memory() {
    let Some(sizes) = program("sizes") else { return };
    let Some(plain) = confined(&[], &sizes, &[], None) else { return };
    assert_eq!((plain.end, plain.stderr.as_str()), (End::Status(0), ""));
    for mode in MODES {
        for guards in ["auto", "mprotect"] {
            let options = format!("{mode}:guards={guards}");
            let Some(run) = confined(&[], &sizes, &[], Some(&options)) else { return };
            assert_eq!((run.end, run.stderr.as_str()), (End::Status(0), ""), "{options}");
            assert_eq!(run.stdout, plain.stdout, "{options}");
        }
    }
}

/// Locked by the system call, which the library does not see: on a kernel without guard regions all tables would be
/// filled.
#[test]
fn memory_that_is_locked_by_a_system_call() {
    if !has_guard_regions() {
        skip::skip("mlockall by a system call: the kernel has no guard regions");
        return;
    }
    work(false, &["lock"], "guards=auto");
    work(false, &["lock"], "guards=mprotect");
}

fn has_guard_regions() -> bool {
    let map = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a page of its own, at an address that the kernel chooses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, map, -1, 0) };
    // SAFETY: the page that was just mapped, which nobody uses.
    page != libc::MAP_FAILED && unsafe { libc::madvise(page, 4096, 102) } == 0
}

#[test]
fn starts_with_things_missing() {
    work(true, &["over==/proc", "close=0", "close=2", "over==/proc as=256", "over==/sys"], "guards=auto");
}

/// The work is correct under all of this with the C library's allocator, else it proves nothing.
#[test]
fn the_work_passes_without_the_library() {
    let Some(work) = program("work") else { return };
    // The C library itself reads how many processors there are.
    let never = NEVER.iter().filter(|rule| !["openat:kill", "read:kill"].contains(rule));
    for rule in CALLS.iter().chain(never).chain(&["as=64", "data=64", "close=2"]) {
        let Some(run) = confined(&[], &work, &["threads=1", rule], None) else { continue };
        assert_eq!(wrong(&run), None, "{rule}");
    }
}

/// All rows that a kernel with guard regions is tested with, on one that answers as those without do.
#[test]
fn detection_without_guard_regions() {
    let tables: [&[Row]; 4] = [rows::ALWAYS, rows::PAGE_ALLOCATOR, rows::HUNT, rows::EXACT];
    let rows = || tables.into_iter().flatten();
    detect(&["madvise/2=102:EINVAL", "madvise/2=103:EINVAL"], rows());
    detect(&["madvise/2=102:ENOSYS"], rows().step_by(5));
    for rules in [
        &["madvise/2=102:nothing", "madvise/2=103:nothing"][..],
        &["madvise/2=102:nothing"],
        &["madvise/2=103:nothing"],
        &["madvise:nothing"],
    ] {
        detect(rules, rows().step_by(7));
    }
}

#[test]
fn detection_with_other_things_missing() {
    for rules in [&["madvise:EPERM"][..], &["getrandom:ENOSYS"], &["over==/proc"], &["as=256"], &["data=256"]]
    {
        detect(rules, rows::ALWAYS.iter().chain(rows::HUNT).step_by(4));
    }
}

fn detect(rules: &[&str], rows: impl Iterator<Item = &'static Row>) {
    let mut failures = Vec::new();
    for row in rows {
        let Some(binary) = compiler::binary(row.program, "-O0") else { return };
        let arguments: Vec<&str> = row.arguments.split_whitespace().collect();
        let Some(run) = confined(rules, &binary, &arguments, Some("mode=hunt:intercept=off:align=exact"))
        else {
            return;
        };
        let verdict = row.expected.judge(&run);
        if verdict != Verdict::Match {
            failures.push(format!("{rules:?} {} {}: {verdict:?}", row.program, row.arguments));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A report must not go into a file of the program's that has the number of the standard error.
#[test]
fn a_file_with_the_number_of_stderr_stays_the_programs() {
    let Some(program) = program("stderr") else { return };
    let directory = scratch("stderr");
    let (file, log) = (directory.join("file"), directory.join("log"));
    let name = file.to_str().expect("a plain name");
    let aborted = End::Signal(libc::SIGABRT);
    let Some(run) = confined(&["close=2"], &program, &[name], Some("mode=harden")) else { return };
    assert_eq!((run.end, run.stderr.as_str()), (aborted, ""));
    assert_eq!(fs::read_to_string(&file).expect("it was written"), "mine\n");

    let options = format!("mode=hunt:log_path={}", log.display());
    let Some(run) = confined(&["close=2"], &program, &[name], Some(&options)) else { return };
    assert_eq!(run.end, aborted);
    assert_eq!(fs::read_to_string(&file).expect("it was written"), "mine\n");
    let report = fs::read_to_string(&log).expect("the report went to its file");
    assert_eq!(Report::parse_all(&report).len(), 1, "{report}");

    // With a standard error the report is there, after what the program wrote.
    let Some(run) = confined(&[], &program, &[name], Some("mode=harden")) else { return };
    assert_eq!(run.end, aborted);
    assert!(run.stderr.starts_with("mine\n"), "{}", run.stderr);
    assert_eq!(Report::parse_all(&run.stderr).len(), 1, "{}", run.stderr);
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn libraries_allocate_before_the_program_starts() {
    for name in ["early", "resolver"] {
        let Some(early) = compiler::shared_library(&source(name)) else { return };
        let directory = early.parent().expect("a file has a directory");
        let rpath = format!("-Wl,-rpath,{}", directory.display());
        let path = early.to_str().expect("a plain name");
        for bind in ["-Wl,-z,lazy", "-Wl,-z,now"] {
            let flags = ["-O1", "-Wl,--no-as-needed", path, &rpath, bind];
            let Some(binary) = compiler::with_flags(
                &source("start"),
                &flags,
                &format!("start-{name}{bind}").replace(',', ""),
            ) else {
                return;
            };
            for mode in MODES {
                let Some(run) = confined(&[], &binary, &[], Some(mode)) else { return };
                assert_eq!(wrong(&run), None, "{name} {bind} {mode}");
            }
        }
    }
}

/// Names that are not ISO C's are the program's to have, whether for functions of another kind or for such that stand before
/// the C library's.
#[test]
fn programs_with_functions_called_like_the_c_librarys() {
    for (name, flags) in [("names", &["-O1", "-std=c99", "-fno-builtin", "-w"][..]), ("hooks", &["-O1"])] {
        let Some(binary) = compiler::with_flags(&source(name), flags, &format!("hostile-{name}")) else {
            return;
        };
        for options in [None].into_iter().chain(MODES.map(Some)) {
            let Some(run) = confined(&[], &binary, &[], options) else { return };
            assert_eq!(wrong(&run), None, "{name} {options:?}");
        }
    }
}

#[test]
fn plugins_that_look_into_their_own_libraries_first() {
    let (Some(plugin), Some(binary)) = (compiler::shared_library(&source("plugin")), program("deepbind"))
    else {
        return;
    };
    for mode in MODES {
        let path = plugin.to_str().expect("a plain name");
        let Some(run) = confined(&[], &binary, &[path], Some(mode)) else { return };
        assert_eq!(wrong(&run), None, "{mode}");
    }
}

/// The library opened in a running process: objects from before are the C library's, those from after are
/// guarded.
#[test]
fn a_late_start() {
    let Some(binary) = program("late") else { return };
    let path = library::path().to_str().expect("a plain name");
    for mode in MODES {
        for scope in ["local", "global"] {
            let options = format!("set=FENCEPOST_OPTIONS={mode}");
            let Some(run) = confined(&[&options], &binary, &[path, scope], None) else { return };
            assert_eq!(wrong(&run), None, "{mode} {scope}");
            let Some(run) = confined(&[&options], &binary, &[path, scope, "twice"], None) else { return };
            let kinds: Vec<_> =
                Report::parse_all(&run.stderr).into_iter().map(|report| report.kind).collect();
            assert_eq!(
                (run.end, kinds),
                (End::Signal(libc::SIGABRT), vec!["double-free".to_owned()]),
                "{mode} {scope}"
            );
        }
    }
}

/// A setuid program, under the library by `/etc/ld.so.preload`. A directory of the test's stands in for `/etc`, in a
/// mount namespace.
#[test]
fn secure_execution() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        skip::skip("a setuid program: only root can make one");
        return;
    }
    let Some(binary) = program("secure") else { return };
    let etc = scratch("etc");
    let put = |name: &str, text: &str| fs::write(etc.join(name), text).expect("the directory is writable");
    put("ld.so.preload", "/etc/libfencepost.so\n");
    fs::copy(library::path(), etc.join("libfencepost.so")).expect("the library can be copied");
    let program = etc.join("program");
    fs::copy(binary, &program).expect("the program can be copied");
    let _ = fs::copy("/etc/ld.so.cache", etc.join("ld.so.cache"));
    for (file, rights) in [(&etc, 0o755), (&program, 0o4755)] {
        fs::set_permissions(file, fs::Permissions::from_mode(rights)).expect("the file is root's");
    }
    let log = scratch("secure").join("log");
    fs::set_permissions(log.parent().expect("it has one"), fs::Permissions::from_mode(0o777))
        .expect("it is root's");
    let over = format!("over={}=/etc", etc.display());
    let log_path = format!("log_path={}", log.display());
    let options = format!("set=FENCEPOST_OPTIONS=mode=harden:nonsense=1:{log_path}");
    let collector = format!("set=FENCEPOST_COLLECTOR={}", log.display());
    let rules = [&over, "user=65534", &options, &collector];
    let run = |arguments: &[&str]| confined(&rules, Path::new("/etc/program"), arguments, None);

    // The environment would make it complain of an option.
    let Some(clean) = run(&[]) else { return };
    assert_eq!((wrong(&clean), clean.stderr.as_str()), (None, ""));

    // A byte behind an object of 16 bytes faults in hunt only, which the file asks for and the environment does not.
    put("fencepost.conf", &format!("mode=hunt\n{log_path}\n"));
    let Some(clean) = run(&[]) else { return };
    assert_eq!((wrong(&clean), clean.stderr.as_str()), (None, ""));
    let Some(bug) = run(&["overflow"]) else { return };
    let mut expected = rows::overflow(Write, 0, 16);
    expected.alloc_stack = true;
    assert_eq!(expected.judge(&bug), Verdict::Match, "{}", bug.stderr);
    assert!(!log.exists(), "no file is written");

    // Files that the configuration names are not read: a rule that covers the error for others covers nothing here.
    put("rules", "heap-buffer-overflow:*\n");
    put("fencepost.conf", "mode=hunt\nsuppressions=/etc/rules\nsite_table=/etc/rules\n");
    let arguments = ["overflow", "plain"];
    let Some(covered) = confined(&[&over], Path::new("/etc/program"), &arguments, None) else { return };
    let said = "fencepost: site_table names no table of the launcher's: nothing is counted\n";
    assert!(covered.end == End::Status(0) && covered.stderr.starts_with(said), "{}", covered.stderr);
    assert_eq!(Report::parse_all(&covered.stderr).len(), 0, "{}", covered.stderr);
    let Some(bug) = run(&["overflow"]) else { return };
    assert_eq!(expected.judge(&bug), Verdict::Match, "{}", bug.stderr);
    assert!(!bug.stderr.contains("site_table"), "{}", bug.stderr);
    let _ = fs::remove_dir_all(etc);
    let _ = fs::remove_dir_all(log.parent().expect("it has one"));
}

/// Bytes of stack that a call takes: coroutines have some 4 KiB. Where stacks are kept it reads the tables of what calls it.
#[test]
fn calls_need_little_stack() {
    const MOST: [(&str, usize); 4] = [
        ("mode=harden:backtrace=0", 2304),
        ("mode=harden", 2816),
        ("mode=patrol", 2816),
        ("mode=hunt:backtrace=16", 2816),
    ];
    let source = compiler::source("stack_use");
    // Bound at the start: the loader's own lookup takes more than any call.
    let Some(program) = compiler::with_flags(&source, &["-O1", "-Wl,-z,now"], "stack_use-now") else {
        return;
    };
    for ((options, most), guards) in
        MOST.iter().flat_map(|row| ["madvise", "mprotect"].map(|guards| (*row, guards)))
    {
        let options = format!("{options}:guards={guards}");
        let run = process::run(&mut process::command(&program, Some(library::path()), &options), LIMIT);
        assert_eq!(run.end, End::Status(0), "{options}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.stdout.lines().count(), 28, "{options}: {}", run.stdout);
        for line in run.stdout.lines() {
            let bytes = line.rsplit(' ').next().and_then(|bytes| bytes.parse::<usize>().ok());
            assert!(bytes.is_some_and(|bytes| bytes <= most), "{options}: {line}");
        }
    }
}
