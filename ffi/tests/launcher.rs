//! The launcher from outside: what the program it runs gets to see, and how it ends.
//!
//! Most tests need a library that loads and does nothing: they preload the C library, which is loaded
//! anyway. Only the last ones need the allocator itself, which the launcher finds or builds.

use fencepost_core::options::{Options, ROWS, apply};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_fencepost");

/// The launcher with nothing in its environment that concerns it.
fn launcher() -> Command {
    let mut command = Command::new(LAUNCHER);
    for name in ["FENCEPOST_OPTIONS", "FENCEPOST_LIB", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// The launcher with a harmless library.
fn with_stub(subcommand: &str) -> Command {
    let mut command = launcher();
    command.arg(subcommand).arg("--lib").arg(stub());
    command
}

/// The C library of this process.
fn stub() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    path.map(PathBuf::from).find(|path| path.ends_with("libc.so.6")).expect("a glibc process")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The variable `name` as the program sees it that `command` with `flags` runs.
fn seen(command: &mut Command, flags: &[&str], name: &str) -> Option<String> {
    let output = run(command.args(flags).args(["--", "env"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let start = format!("{name}=");
    text(&output.stdout).lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}

fn options(command: &mut Command, flags: &[&str]) -> Option<String> {
    seen(command, flags, "FENCEPOST_OPTIONS")
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fencepost-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// An executable with these contents. Another process writes it: while this one holds it open, a
    /// child of another thread might too, and executing it would fail.
    fn program(&self, name: &str, contents: &[u8]) -> PathBuf {
        let (data, program) = (self.0.join("data"), self.0.join(name));
        fs::write(&data, contents).unwrap();
        let status = Command::new("install").args(["-m", "755"]).args([&data, &program]).status();
        assert!(status.unwrap().success());
        program
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn flags_stand_after_the_environment_in_the_order_given() {
    let flags = ["--align", "exact", "-o", "seed=4", "--align=abi", "--guard-side", "left"];
    let expected = "seed=1:align=exact:seed=4:align=abi:guard_side=left";
    assert_eq!(
        options(with_stub("run").env("FENCEPOST_OPTIONS", "seed=1"), &flags).as_deref(),
        Some(expected)
    );
    let mut result = Options::DEFAULT;
    apply(&mut result, expected.as_bytes(), |warning| panic!("{warning:?}"));
    assert_eq!(result.seed, 4);
}

#[test]
fn without_flags_the_environment_stays_as_it_is() {
    assert_eq!(options(&mut with_stub("run"), &[]), None);
    let mut command = with_stub("run");
    command.env("FENCEPOST_OPTIONS", "mode=patrol, seed=3");
    assert_eq!(options(&mut command, &[]).as_deref(), Some("mode=patrol, seed=3"));
}

#[test]
fn hunt_means_mode_hunt_unless_a_flag_says_otherwise() {
    let mut command = with_stub("hunt");
    command.env("FENCEPOST_OPTIONS", "mode=harden");
    assert_eq!(options(&mut command, &[]).as_deref(), Some("mode=harden:mode=hunt"));
    let patrol = options(&mut with_stub("hunt"), &["--mode", "patrol"]);
    assert_eq!(patrol.as_deref(), Some("mode=hunt:mode=patrol"));
}

#[test]
fn values_with_separators_survive() {
    for (path, written) in [
        ("/tmp/a b:c,d", "\"/tmp/a b:c,d\""),
        ("a\"b", "\"a\"\"b\""),
        ("\"\"", "\"\"\"\"\"\""),
        ("a:16", "a:16"),
    ] {
        let given = options(&mut with_stub("run"), &["--log-path", path, "--stats"]).unwrap();
        assert_eq!(given, format!("log_path={written}:stats=1"));
        let mut result = Options::DEFAULT;
        apply(&mut result, given.as_bytes(), |warning| panic!("{warning:?}"));
        assert_eq!(result.log_path.as_bytes(), path.as_bytes());
        assert!(result.stats);
    }
}

#[test]
fn an_open_quote_in_the_environment_does_not_swallow_flags() {
    let mut command = with_stub("run");
    command.env("FENCEPOST_OPTIONS", "log_path=\"x");
    let given = options(&mut command, &["--seed", "2"]).unwrap();
    let mut result = Options::DEFAULT;
    apply(&mut result, given.as_bytes(), |warning| panic!("{warning:?}"));
    assert_eq!(result.seed, 2);
}

#[test]
fn every_option_is_a_flag() {
    for row in ROWS.iter().filter(|row| row.name != "help") {
        let mut default = String::new();
        (row.show)(&Options::DEFAULT, &mut default).unwrap();
        let flag = format!("--{}", row.name.replace('_', "-"));
        let given = options(&mut with_stub("run"), &[&flag, &default]);
        assert_eq!(given, Some(format!("{}={default}", row.name)));
    }
}

#[test]
fn a_switch_needs_no_value_and_takes_one() {
    let given = options(&mut with_stub("run"), &["--stats", "--canary", "0", "--zero=off"]);
    assert_eq!(given.as_deref(), Some("stats=1:canary=0:zero=off"));
}

/// `--` ends the options; it is nobody's value.
#[test]
fn a_flag_that_needs_no_value_takes_none_from_the_program() {
    for row in ROWS.iter().filter(|row| row.range.starts_with("0, 1") && row.name != "help") {
        let flag = format!("--{}", row.name.replace('_', "-"));
        let expected = Some(format!("{}=1", row.name));
        assert_eq!(options(&mut with_stub("run"), &[&flag]), expected);
        assert_eq!(options(&mut with_stub("run"), &[&flag, "1"]), expected);
    }
    assert_eq!(options(&mut with_stub("hunt"), &["--leaks"]).as_deref(), Some("mode=hunt:leaks=1"));
    assert_eq!(options(&mut with_stub("hunt"), &["--leaks", "2"]).as_deref(), Some("mode=hunt:leaks=2"));
}

#[test]
fn the_library_is_preloaded_before_others() {
    let stub = stub();
    let stub = stub.to_str().unwrap();
    assert_eq!(seen(&mut with_stub("run"), &[], "LD_PRELOAD").as_deref(), Some(stub));
    let mut command = with_stub("run");
    let listed = seen(command.env("LD_PRELOAD", "libm.so.6"), &[], "LD_PRELOAD");
    assert_eq!(listed, Some(format!("{stub}:libm.so.6")));
    let mut command = launcher();
    command.arg("run").env("FENCEPOST_LIB", stub);
    assert_eq!(seen(&mut command, &[], "LD_PRELOAD").as_deref(), Some(stub));
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_run() {
    let cases: &[(&[&str], &str)] = &[
        (&["--align", "sideways"], "abi, exact"),
        (&["--seed", "many"], "from the kernel"),
        (&["-o", "colour=red"], "'colour'"),
        (&["-o", "align"], "not key=value"),
        (&["--log-path"], "a value is required"),
        (&["--seed"], "a value is required"),
        (&["-o"], "a value is required"),
        (&["--sarif"], "a value is required"),
        (&["--leaks", "echo"], "put -- before the program"),
        (&["-o", "a\x1b[2K\n=1"], "'a\\x1b[2K'"),
        (&["--lib", "/nonexistent/lib.so"], "does not exist"),
        (&["--lib", "/"], "not a file"),
        (&["--colour", "red"], "--colour"),
    ];
    for (flags, complaint) in cases {
        let output = run(launcher().arg("run").args(*flags).args(["--", "echo", "it ran"]));
        assert_eq!(output.status.code(), Some(125), "{flags:?}");
        assert!(text(&output.stderr).contains(complaint), "{flags:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{flags:?}");
    }
}

#[test]
fn a_library_that_the_loader_could_not_name_is_refused() {
    let scratch = Scratch::new("blank");
    let library = scratch.0.join("a b.so");
    fs::write(&library, "").unwrap();
    let output = run(launcher().arg("run").arg("--lib").arg(&library).arg("true"));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("blank"));
}

fn status_and_complaint(program: &Path) -> (Option<i32>, String) {
    let output = run(with_stub("run").arg("--").arg(program));
    (output.status.code(), text(&output.stderr))
}

#[test]
fn what_cannot_be_executed_ends_as_in_a_shell() {
    let scratch = Scratch::new("refused");
    for name in ["no-such-program-anywhere", "/nonexistent/program", ""] {
        let (code, complaint) = status_and_complaint(Path::new(name));
        assert_eq!(code, Some(127), "{name:?}");
        assert!(complaint.contains("not found"), "{complaint}");
    }
    let plain = scratch.0.join("plain");
    fs::write(&plain, "text\n").unwrap();
    assert_eq!(status_and_complaint(&plain).0, Some(126));
    let (code, complaint) = status_and_complaint(&scratch.0);
    assert_eq!(code, Some(126));
    assert!(complaint.contains("directory"), "{complaint}");
    let orphan = scratch.program("orphan", b"#!/nonexistent/shell\n");
    let (code, complaint) = status_and_complaint(&orphan);
    assert_eq!(code, Some(126));
    assert!(complaint.contains("/nonexistent/shell is missing"), "{complaint}");
}

#[test]
fn with_exec_the_launcher_becomes_the_program() {
    let child = with_stub("run")
        .args(["--exec", "--", "sh", "-c", "echo $$ \"$@\"; exit 42", "sh", "--mode", "x y"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), format!("{process} --mode x y\n"));
    assert_eq!(output.status.code(), Some(42));
}

#[test]
fn the_launcher_ends_as_the_program() {
    for flags in [&[][..], &["--exec"]] {
        for code in [0, 3, 255] {
            let script = format!("cat; exit {code}");
            let output = run(with_stub("run").args(flags).args(["sh", "-c", &script]));
            assert_eq!(output.status.code(), Some(code), "{flags:?}");
            assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{flags:?}");
        }
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGPIPE, libc::SIGINT, libc::SIGUSR1] {
            let script = format!("kill -{signal} $$");
            let output = run(with_stub("run").args(flags).args(["sh", "-c", &script]));
            assert_eq!(output.status.signal(), Some(signal), "{flags:?}");
        }
    }
}

/// A program under the launcher that says `ready` and its process id.
fn ready(script: &str) -> (Child, BufReader<ChildStdout>, libc::pid_t) {
    let script = format!("{script}; echo $$; while :; do sleep 0.02; done");
    let mut command = with_stub("run");
    // A process group of its own, as a shell would give it.
    command.args(["sh", "-c", &script]).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let program = read_line(&mut output).parse().unwrap();
    (child, output, program)
}

fn read_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn send(process: libc::pid_t, signal: i32) {
    // SAFETY: signals a child, or a child's child, that is still there.
    unsafe { libc::kill(process, signal) };
}

/// The state in /proc of a process, `X` if it is gone.
fn state(process: libc::pid_t) -> char {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('X')
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn id(child: &Child) -> libc::pid_t {
    child.id().try_into().unwrap()
}

#[test]
fn signals_reach_the_program() {
    for (name, signal) in
        [("TERM", libc::SIGTERM), ("INT", libc::SIGINT), ("USR1", libc::SIGUSR1), ("HUP", libc::SIGHUP)]
    {
        let (mut child, mut output, _) = ready(&format!("trap 'echo {name}; exit 5' {name}"));
        send(id(&child), signal);
        assert_eq!(read_line(&mut output), name);
        assert_eq!(child.wait().unwrap().code(), Some(5));
        let (mut child, _, program) = ready(":");
        send(id(&child), signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        assert_eq!(state(program), 'X');
    }
}

#[test]
fn the_launcher_stops_and_goes_on_with_the_program() {
    let (mut child, _output, program) = ready(":");
    send(program, libc::SIGTSTP);
    wait_for("the launcher stops", || state(id(&child)) == 'T');
    send(id(&child), libc::SIGCONT);
    wait_for("the program goes on", || !matches!(state(program), 'T' | 'X'));
    wait_for("the launcher goes on", || state(id(&child)) != 'T');
    send(id(&child), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn the_program_ends_with_a_launcher_that_is_killed() {
    let (mut child, _output, program) = ready(":");
    send(id(&child), libc::SIGKILL);
    child.wait().unwrap();
    wait_for("the program is gone", || matches!(state(program), 'X' | 'Z'));
    // Nobody was left to take the launcher's directory away.
    let ours = format!("fencepost-{}-", child.id());
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&ours) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

#[test]
fn signal_masks_and_dispositions_are_the_programs_own() {
    let wanted = ["SigBlk:", "SigIgn:"];
    // Signals 32 and 33 are the C library's own, which it takes when a thread is started.
    let masks = |output: Output| -> Vec<u64> {
        let status = text(&output.stdout);
        let lines = status.lines().filter_map(|line| wanted.iter().find_map(|name| line.strip_prefix(name)));
        lines.map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & !(3 << 31)).collect()
    };
    let script = "trap '' CHLD USR2; exec \"$@\"";
    let shell =
        |arguments: &[&str]| masks(run(Command::new("sh").args(["-c", script, "sh"]).args(arguments)));
    let stub = stub();
    let launched = [LAUNCHER, "run", "--lib", stub.to_str().unwrap(), "--", "cat", "/proc/self/status"];
    assert_eq!(shell(&launched), shell(&["cat", "/proc/self/status"]));
}

#[test]
fn an_ignored_sigpipe_stays_ignored() {
    let script = "trap '' PIPE; exec \"$0\" run --lib \"$1\" -- sh -c 'kill -PIPE $$; echo alive'";
    let output = run(Command::new("sh").args(["-c", script, LAUNCHER]).arg(stub()));
    assert_eq!(text(&output.stdout), "alive\n");
}

/// The smallest static program: a header, one segment, `exit(7)`.
#[cfg(target_arch = "x86_64")]
fn static_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const CODE: [u8; 12] = [0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62, 1, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [BASE + 64 + 56, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let length = 64 + 56 + CODE.len() as u64;
    for word in [1 | 5 << 32, 0, BASE, BASE, length, length, 0x1000] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(CODE);
    file
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_static_program_gets_a_warning_and_runs() {
    let scratch = Scratch::new("static");
    let program = scratch.program("static", &static_program());
    let (code, complaint) = status_and_complaint(&program);
    assert_eq!(code, Some(7));
    assert!(complaint.contains("statically linked"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let script = scratch.program("script", format!("#!{}\n", program.display()).as_bytes());
    assert!(status_and_complaint(&script).1.contains("statically linked"));
}

#[test]
fn a_setuid_program_gets_a_warning() {
    let scratch = Scratch::new("setuid");
    let program = scratch.program("setuid", &fs::read("/bin/true").unwrap());
    let (code, complaint) = status_and_complaint(&program);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "an ordinary program gets none");
    if chown(&program, Some(65_534), None).is_err() {
        return; // Only root can give a file away.
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let complaint = status_and_complaint(&program).1;
    assert!(complaint.contains("setuid"), "{complaint}");
}

#[test]
fn options_lists_every_row() {
    for form in [&[][..], &["--markdown"]] {
        let output = run(launcher().arg("options").args(form));
        assert!(output.status.success());
        let listed = text(&output.stdout);
        for row in ROWS {
            assert!(listed.contains(row.help), "{}", row.name);
            let name =
                |line: &str| line.split(['|', ' ', '`']).find(|word| !word.is_empty()) == Some(row.name);
            let line = listed.lines().find(|line| name(line));
            // A bar in a cell is written with a backslash.
            let has_range = |line: &str| line.replace("\\|", "|").contains(row.range);
            assert!(line.is_some_and(has_range), "{}", row.name);
        }
    }
}

#[test]
fn nobody_reading_is_no_error() {
    let mut child = launcher().arg("options").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn doctor_fails_for_a_library_that_is_not_fencepost() {
    let output = run(&mut with_stub("doctor"));
    assert_eq!(output.status.code(), Some(1));
    let findings = text(&output.stdout);
    let failed: Vec<_> = findings.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(matches!(failed[..], [line] if line.contains("libc.so.6")), "{findings}");
}

#[test]
fn doctor_names_what_the_environment_gets_wrong() {
    let mut command = with_stub("doctor");
    let findings = text(&run(command.env("FENCEPOST_OPTIONS", "colour=red:align=x")).stdout);
    let notes: Vec<_> = findings.lines().filter(|line| line.contains("environment")).collect();
    assert_eq!(notes.len(), 2, "{findings}");
    assert!(notes[0].starts_with("note") && notes[0].contains("'colour'"), "{findings}");
    assert!(notes[1].starts_with("note") && notes[1].contains("abi, exact"), "{findings}");
}

#[test]
fn doctor_finds_this_machine_fit() {
    let output = run(launcher().arg("doctor"));
    let findings = text(&output.stdout);
    assert!(output.status.success(), "{findings}{}", text(&output.stderr));
    for mode in ["harden", "patrol", "hunt"] {
        let works = |line: &&str| line.split_whitespace().take(3).eq(["ok", mode, "works:"]);
        assert!(findings.lines().any(|line| works(&line)), "{mode}: {findings}");
    }
}

#[test]
fn demo_shows_three_kinds() {
    let output = run(launcher().arg("demo").env("FENCEPOST_OPTIONS", "on_error=continue"));
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    for (kind, signal, place) in [
        ("heap-buffer-overflow", "SIGSEGV", "0 bytes after 13-byte region"),
        ("heap-use-after-free", "SIGSEGV", "64-byte region"),
        ("double-free", "SIGABRT", "64-byte region"),
    ] {
        let report = shown.split("==ERROR: fencepost: ").find(|part| part.starts_with(kind));
        let report = report.unwrap_or_else(|| panic!("no {kind} in: {shown}"));
        assert!(report.contains(place), "{kind}: {report}");
        assert!(report.contains(&format!("SUMMARY: fencepost: {kind}")), "{kind}: {report}");
        let verdict = shown.lines().filter(|line| line.starts_with("  ok "));
        assert_eq!(verdict.filter(|line| line.contains(kind) && line.ends_with(signal)).count(), 1);
    }
}

#[test]
fn demo_says_what_was_missed() {
    let output = run(&mut with_stub("demo"));
    assert_eq!(output.status.code(), Some(1));
    let missed = text(&output.stdout).lines().filter(|line| line.starts_with("  MISSED")).count();
    assert_eq!(missed, 3);
}

#[test]
fn an_unknown_command_is_the_launchers_own_trouble() {
    for arguments in [&["symphonise"][..], &["run"], &["run", "--lib"]] {
        let output = run(launcher().args(arguments.iter().map(OsStr::new)));
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
    }
}
