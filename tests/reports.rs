//! What a report and a warning may hold, and where they may go: names that a program chose, options that are said again, log
//! files that are no files, a standard error that does not wait, configuration files of any sort.

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use support::process::{self, End, LIMIT, Run};
use support::report::Report;
use support::{EVERY_MODE, compiler, library, skip};

/// Ends a line, begins another that looks like a report's, and colours it.
const NAME: &[u8] = b"a)\n==1==END\x1b[m";
/// What a program says that may not do here what it is about.
const NOT_PERMITTED: End = End::Status(77);

fn scratch(name: &str) -> PathBuf {
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reports-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the build's directory for temporary files is writable");
    directory
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// The program with the double free; `None` without a compiler.
fn names() -> Option<PathBuf> {
    compiler::with_flags(&source("reports/names.c"), &["-O1"], "reports-names")
}

fn double_free(program: &Path, options: impl AsRef<OsStr>) -> Command {
    let mut command = process::command(program, Some(library::path()), "");
    command.env("FENCEPOST_OPTIONS", options).args([OsStr::from_bytes(NAME), OsStr::new("64")]);
    command
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("there is mkfifo");
    assert!(made.success());
}

/// Characters that end a line or that a terminal obeys, other than the ends of the report's own lines.
fn odd(text: &str) -> Option<char> {
    text.chars().find(|next| next.is_control() && *next != '\n')
}

fn is_one_double_free(run: &Run) {
    assert_eq!(run.end, End::Signal(libc::SIGABRT), "{}", run.stderr);
    let kinds: Vec<_> = Report::parse_all(&run.stderr).into_iter().map(|report| report.kind).collect();
    assert_eq!(kinds, ["double-free"], "{}", run.stderr);
}

#[test]
fn no_name_forges_a_line() {
    let Some(program) = names() else { return };
    let directory = scratch("names").join(OsStr::from_bytes(b"m\n==2==END\x1b[2K\r\xc2\x9b\x7f\\x0a"));
    fs::create_dir(&directory).expect("a directory may be called so");
    let renamed = directory.join("names");
    fs::copy(program, &renamed).expect("the program can be copied");
    for options in EVERY_MODE {
        let run = process::run(&mut double_free(&renamed, options), LIMIT);
        is_one_double_free(&run);
        assert_eq!(odd(&run.stderr), None, "{options}: {:?}", run.stderr);
        let own = format!("=={}==", run.pid);
        let lines = run.stderr.lines().filter(|line| line.starts_with("=="));
        assert!(
            lines.clone().all(|line| line.starts_with(&own) || line.starts_with("====")),
            "{}",
            run.stderr
        );
        assert_eq!(lines.filter(|line| line.ends_with("==END")).count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains(" (a)\\x0a==1==END\\x1b[m)\n"), "{}", run.stderr);
        assert!(run.stderr.contains("\\x1b[2K\\x0d\\xc2\\x9b\\x7f\\\\x0a/names+0x"), "{}", run.stderr);

        let run = process::run(&mut double_free(&renamed, format!("{options}:report=json")), LIMIT);
        assert_eq!(odd(&run.stderr), None, "{options}: {:?}", run.stderr);
        assert!(run.stderr.lines().count() == 1 && run.stderr.ends_with("\"}\n"), "{}", run.stderr);
    }
    let _ = fs::remove_dir_all(directory.parent().expect("it has one"));
}

/// Suppressions and summaries say what the file says.
/// The module's file of the outermost frame of each of a report's stacks, and how many frames it has.
fn outermost(report: &str) -> Vec<(&str, usize)> {
    let mut stacks = Vec::new();
    for frame in report.lines().filter_map(|line| line.strip_prefix("    #")) {
        let number: usize = frame.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        let module = frame.split(['(', '+']).find(|part| part.starts_with('/')).expect("a module");
        let file = module.rsplit('/').next().expect("a part");
        match stacks.last_mut() {
            Some(last) if number != 0 => *last = (file, number + 1),
            _ => stacks.push((file, 1)),
        }
    }
    stacks
}

#[test]
fn what_called_the_program_is_left_out() {
    for name in ["double_free", "double_free_thread"] {
        let Some(program) = compiler::binary(name, "-O0") else { return };
        let file = program.file_name().and_then(OsStr::to_str).expect("a name");
        for mode in ["mode=harden:backtrace=16", "mode=hunt"] {
            let report = |options: &str| {
                let mut command = process::command(&program, Some(library::path()), options);
                process::run(command.arg("64"), LIMIT).stderr
            };
            let (own, all) = (report(mode), report(&format!("{mode}:frames=all")));
            let (own, all) = (outermost(&own), outermost(&all));
            assert!(!own.is_empty() && own.len() == all.len(), "{mode} {name}: {own:?} {all:?}");
            for ((module, shown), (outer, count)) in own.iter().zip(&all) {
                // The entry and two functions of the C library before `main`, two before a thread's function.
                let start = if *outer == file { 3 } else { 2 };
                assert!(*module == file && shown + start == *count, "{mode} {name}: {own:?} {all:?}");
            }
        }
    }
}

#[test]
fn no_rule_forges_a_line() {
    let Some(program) = names() else { return };
    let directory = scratch("rules");
    let file = directory.join("rules");
    fs::write(&file, b"*\x1b:names\ndouble-free:*names*\n").expect("the directory is writable");
    let options = format!("on_error=continue:suppressions=\"{}\"", file.display());
    let run = process::run(&mut double_free(&program, options), LIMIT);
    assert_eq!(run.end, End::Status(0), "{}", run.stderr);
    assert_eq!(odd(&run.stderr), None, "{:?}", run.stderr);
    assert!(run.stderr.contains("    1 suppressed by double-free:*names*\n"), "{}", run.stderr);
    assert!(run.stderr.contains("ignored: *\\x1b:names\n"), "{}", run.stderr);
    let _ = fs::remove_dir_all(directory);
}

/// The line `rerun with:` in a shell writes the same report to the same file.
#[test]
fn what_is_to_be_run_again_can_be_pasted() {
    let Some(program) = names() else { return };
    for (index, name) in [
        &b"plain.log"[..],
        b"a b:c,d",
        b"it's \"so\" $HOME `id` $(id) \\n ~ * # & ; | < > !",
        b"\"",
        b"a\n\x1b[31m%s%%\xff",
    ]
    .into_iter()
    .enumerate()
    {
        let directory = scratch(&format!("again-{index}"));
        let log = directory.join(OsStr::from_bytes(name));
        let doubled: Vec<u8> = log
            .as_os_str()
            .as_bytes()
            .iter()
            .flat_map(|byte| vec![*byte; 1 + usize::from(*byte == b'"')])
            .collect();
        let options = [b"mode=hunt:unmap=batch:16:log_path=\"", &doubled[..], b"\":zero=1"].concat();
        let run = process::run(&mut double_free(&program, OsString::from_vec(options)), LIMIT);
        assert_eq!((run.end, run.stderr.as_str()), (End::Signal(libc::SIGABRT), ""), "{name:?}");
        let first = fs::read_to_string(&log).expect("the report went to its file");
        let again = first.lines().find_map(|line| line.strip_prefix("rerun with: ")).expect("the line");
        assert_eq!(odd(again), None);

        let mut shell = process::command("sh", None, "");
        let script = format!("{again} LD_PRELOAD=\"$LIB\" \"$P\" name 64");
        let run =
            process::run(shell.args(["-c", &script]).env("LIB", library::path()).env("P", &program), LIMIT);
        // What the shell says of the signal stands in its standard error.
        assert!(!run.stderr.contains("fencepost"), "{again}: {}", run.stderr);
        let both = fs::read_to_string(&log).expect("it is still there");
        let lines: Vec<_> = both.lines().filter_map(|line| line.strip_prefix("rerun with: ")).collect();
        assert_eq!(lines, [again, again]);
        let _ = fs::remove_dir_all(directory);
    }
}

#[test]
fn a_log_that_is_no_file_is_not_waited_for() {
    let Some(program) = names() else { return };
    let directory = scratch("logs");
    let (pipe, link) = (directory.join("pipe"), directory.join("link"));
    fifo(&pipe);
    symlink(directory.join("elsewhere"), &link).expect("the directory is writable");
    for path in [&pipe, &link, &directory, Path::new("/dev/full")] {
        for mode in ["harden", "hunt"] {
            let options = format!("mode={mode}:log_path=\"{}\"", path.display());
            let run = process::run(&mut double_free(&program, options), LIMIT);
            is_one_double_free(&run);
            assert!(run.stderr.starts_with("fencepost: cannot write to "), "{}", run.stderr);
        }
    }
    assert!(!directory.join("elsewhere").exists(), "a link is not followed");

    // Somebody reads it.
    let reader = pipe.clone();
    let reading = thread::spawn(move || fs::read(reader));
    let options = format!("log_path=\"{}\"", pipe.display());
    // Until the reader is there the report goes to the standard error.
    while !process::run(&mut double_free(&program, &options), LIMIT).stderr.is_empty() {}
    let report =
        String::from_utf8(reading.join().expect("no panic").expect("it can be read")).expect("it is text");
    assert_eq!(Report::parse_all(&report).len(), 1, "{report}");
    let _ = fs::remove_dir_all(directory);
}

/// A file that may grow no more ends nobody by the signal for that.
#[test]
fn a_log_that_may_not_grow() {
    let Some(program) = names() else { return };
    let directory = scratch("limit");
    let mut shell = process::command("bash", None, "");
    let script = "ulimit -f 0; LD_PRELOAD=\"$LIB\" FENCEPOST_OPTIONS=\"log_path=$LOG\" exec \"$P\" name 64";
    shell
        .args(["-c", script])
        .env("LIB", library::path())
        .env("LOG", directory.join("log"))
        .env("P", program);
    is_one_double_free(&process::run(&mut shell, LIMIT));
    let _ = fs::remove_dir_all(directory);
}

/// What is read of suppressions is a file.
#[test]
fn suppressions_that_are_no_file() {
    let directory = scratch("suppressions");
    let pipe = directory.join("pipe");
    fifo(&pipe);
    for (path, says) in [(pipe.as_path(), true), (&directory, true), (Path::new("/dev/null"), false)] {
        let options = format!("suppressions=\"{}\"", path.display());
        let run = process::run(&mut process::command("/bin/true", Some(library::path()), &options), LIMIT);
        assert_eq!(run.end, End::Status(0));
        assert_eq!(run.stderr.starts_with("fencepost: suppressions: cannot read "), says, "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), usize::from(says), "{}", run.stderr);
    }
    let _ = fs::remove_dir_all(directory);
}

/// Whoever shares the standard error may have made it one that does not wait.
#[test]
fn a_standard_error_that_does_not_wait_gets_the_whole_report() {
    let Some(program) = names() else { return };
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe can be made");
    // SAFETY: sets a flag of an open descriptor.
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    let mut before = 0;
    while let Ok(count) = writer.write(&[b'.'; 4096]) {
        before += count;
    }
    let mut child = double_free(&program, "mode=hunt")
        .stderr(Stdio::from(writer))
        .spawn()
        .expect("the program can be started");
    let reading = thread::spawn(move || {
        // The report meets a full pipe; if the machine is too slow for that, an empty one.
        thread::sleep(Duration::from_millis(500));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    child.wait().expect("it ends");
    let bytes = reading.join().expect("no panic").expect("a pipe can be read");
    let report = String::from_utf8_lossy(&bytes[before..]).into_owned();
    assert_eq!(Report::parse_all(&report).len(), 1, "{report}");
    assert!(report.ends_with("==END\n"), "{report}");
}

#[test]
fn options_of_any_length_are_a_few_lines() {
    let items = |count: usize| (0..count).map(|index| format!("x{index}")).collect::<Vec<_>>().join(":");
    for (text, lines) in [
        (items(20_000), 33),
        (items(32), 32),
        (items(33), 33),
        ("y".repeat(120_000), 1),
        (format!("{}=1", "z".repeat(120_000)), 1),
        (format!("log_path=\"{}\"", "\"\"/".repeat(30_000)), 1),
        (":,".repeat(60_000), 0),
        ("seed=3:".repeat(15_000), 0),
        (format!("history={}", "9".repeat(100_000)), 1),
    ] {
        let run = process::run(&mut process::command("/bin/true", Some(library::path()), &text), LIMIT);
        assert_eq!((run.end, run.stderr.lines().count()), (End::Status(0), lines), "{}", run.stderr);
        assert!(run.stderr.lines().all(|line| line.len() < 400), "{}", run.stderr);
        assert!(run.stderr.is_empty() || run.stderr.ends_with('\n'));
    }
    let mut help = OsString::from("help=1:log_path=/");
    help.push(OsStr::from_bytes(&[0xff; 254]));
    let mut command = process::command("/bin/true", Some(library::path()), "");
    let run = process::run(command.env("FENCEPOST_OPTIONS", help), LIMIT);
    assert!(run.stderr.contains(&format!("\nlog_path=/{}\n    ", "\\xff".repeat(254))), "{}", run.stderr);
}

/// What `help=1` says under a configuration file with this text; `None` where no file can be put there.
fn configured(make: impl FnOnce(&Path)) -> Option<String> {
    let confine = compiler::with_flags(&source("hostile/confine.c"), &["-O1"], "hostile-confine")?;
    let etc = scratch(&format!("etc-{:?}", thread::current().id()));
    make(&etc.join("fencepost.conf"));
    let _ = fs::copy("/etc/ld.so.cache", etc.join("ld.so.cache"));
    let mut command = process::command(confine, None, "");
    command.arg(format!("over={}=/etc", etc.display()));
    command.arg(format!("set=LD_PRELOAD={}", library::path().display())).arg("set=FENCEPOST_OPTIONS=help=1");
    let run = process::run(command.args(["--", "/bin/true"]), LIMIT);
    let _ = fs::remove_dir_all(etc);
    if run.end == NOT_PERMITTED {
        skip::skip("a configuration file: no mount namespace is permitted here");
        return None;
    }
    assert_eq!(run.end, End::Status(0), "{}", run.stderr);
    Some(run.stderr)
}

/// The options that a configuration leaves, and what is said of it.
fn check(text: &[u8], options: &[&str], complaints: &[&str]) {
    let Some(said) = configured(|path| fs::write(path, text).expect("the directory is writable")) else {
        return;
    };
    for option in options {
        assert!(said.lines().any(|line| line == *option), "{option}: {said}");
    }
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("fencepost: ")).collect();
    assert_eq!(lines.len(), complaints.len(), "{said}");
    for (line, complaint) in lines.iter().zip(complaints) {
        assert!(line.starts_with("fencepost: /etc/fencepost.conf: ") && line.contains(complaint), "{said}");
    }
}

#[test]
fn a_configuration_file_is_read_to_its_end() {
    let comment = |bytes: usize| "# comment\n".repeat(bytes / 10);
    // Numbers that lie across every multiple of 4 KiB, and one at the very end.
    let crossing = format!("{}history=12345\nsample_rate=77", comment(4090));
    check(crossing.as_bytes(), &["history=12345", "sample_rate=77"], &[]);
    let late = format!("{}mode=hunt\n", comment(900_000));
    check(late.as_bytes(), &["mode=hunt"], &[]);
    let long = format!("history=2000\n#{}\nsample_rate=5\n", "x".repeat(10_000));
    check(long.as_bytes(), &["history=2000", "sample_rate=5"], &["a line is too long"]);
    let endless = format!("history=2000\n{}sample_rate=5\n", comment(1 << 20));
    check(endless.as_bytes(), &["history=2000", "sample_rate=1000"], &["longer than 1 MiB"]);
    check(
        b"mode=hunt\0\nseed=4\n\0=1\nlog_path=/a\0b\n",
        &["mode=harden", "seed=4", "log_path="],
        &["hunt\\x00", "\\x00", "/a\\x00b"],
    );
    check(b"mode=hunt\r\nmode=patrol\r\nmode=\x1b[2K\n", &["mode=patrol"], &["\\x1b[2K"]);
}

#[test]
fn a_configuration_file_that_is_none_is_named() {
    let makers: [fn(&Path); 2] = [fifo, |path| fs::create_dir(path).expect("the directory is writable")];
    for make in makers {
        let Some(said) = configured(make) else { return };
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("fencepost: ")).collect();
        assert_eq!(lines, ["fencepost: /etc/fencepost.conf: no file to be read, ignored"], "{said}");
    }
    let Some(said) = configured(|path| symlink("/dev/null", path).expect("the directory is writable")) else {
        return;
    };
    assert!(!said.contains("fencepost: "), "{said}");
}
