//! The examples do what they say, with and without their bug.

mod support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use support::process::{self, End, LIMIT, Run};
use support::report::{Access, Relation, Report, Side};

/// Where the examples are, built by the first call.
fn examples() -> &'static Path {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace).args(["build", "--workspace", "--examples"]);
        let output = cargo.output().unwrap_or_else(|error| panic!("cannot start {cargo:?}: {error}"));
        assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        workspace.join(target).join("debug/examples")
    })
}

fn run(example: &str, arguments: &[&str]) -> Run {
    let mut command = process::command(examples().join(example), None, "");
    process::run(command.args(arguments), LIMIT)
}

/// The only report of a run.
fn report(text: &str) -> Report {
    let mut reports = Report::parse_all(text);
    assert_eq!(reports.len(), 1, "{text}");
    reports.remove(0)
}

fn relation(distance: u64, side: Side, object_size: u64) -> Option<Relation> {
    Some(Relation { distance, side, object_size })
}

/// What is said where there are none.
const NO_KEYS: &str = "fencepost: no protection keys here: seal=pkey changes nothing\n";

fn has_protection_keys() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").expect("the kernel tells");
    flags.split_whitespace().any(|flag| flag == "ospke")
}

#[test]
fn a_server_serves_and_ends_at_an_attack() {
    for attacked in [false, true] {
        let mut command = process::command(examples().join("hardened_server"), None, "");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim_end().parse().unwrap();
        let ask = move |line: &str| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            writeln!(client, "{line}").unwrap();
            let mut answer = String::new();
            let _ = BufReader::new(client).read_line(&mut answer);
            answer
        };
        let clients: Vec<_> =
            (0..4).map(|_| thread::spawn(move || (0..50).all(|_| ask("echo post") == "POST\n"))).collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap()));
        let answer = ask(if attacked { "drop" } else { "quit" });
        let mut stderr = String::new();
        let status = server.wait().unwrap();
        server.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        // The server asks for them.
        let stderr = match has_protection_keys() {
            true => &*stderr,
            false => stderr.strip_prefix(NO_KEYS).unwrap(),
        };
        if attacked {
            let report = report(stderr);
            assert_eq!(
                (&*report.kind, report.relation),
                ("double-free", relation(0, Side::Inside, 100)),
                "{stderr}"
            );
            assert_eq!((&*answer, status.signal()), ("", Some(libc::SIGABRT)), "{stderr}");
        } else {
            assert_eq!((&*answer, status.code(), stderr), ("0 errors\n", Some(0), ""));
        }
    }
}

#[test]
fn patrol_finds_the_bug_of_a_test() {
    let run_ = run("patrol_in_tests", &[]);
    assert_eq!((run_.end, &*run_.stdout, &*run_.stderr), (End::Status(0), "48 bytes pushed\n", ""));
    let run = run("patrol_in_tests", &["full"]);
    let report = report(&run.stderr);
    // In the sample at the access, else at the free.
    let found = match run.end {
        End::Signal(libc::SIGSEGV) => ("heap-buffer-overflow", Some((Access::Write, Some(1)))),
        _ => ("canary-overwritten", None),
    };
    assert_eq!((&*report.kind, report.access), found, "{}", run.stderr);
    assert_eq!(report.relation, relation(0, Side::After, 48), "{}", run.stderr);
    assert!(matches!(run.end, End::Signal(libc::SIGSEGV | libc::SIGABRT)), "{}", run.stderr);
    assert!(report.has_alloc_stack || run.end == End::Signal(libc::SIGABRT), "{}", run.stderr);
}

#[test]
fn a_buffer_that_c_fills_ends_at_its_guard() {
    let fits = run("ffi_boundary", &["short"]);
    assert_eq!((fits.end, &*fits.stdout, &*fits.stderr), (End::Status(0), "short\n", ""));
    let run = run("ffi_boundary", &["too long"]);
    let report = report(&run.stderr);
    assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{}", run.stderr);
    assert_eq!(
        (&*report.kind, report.relation),
        ("heap-buffer-overflow", relation(0, Side::After, 8)),
        "{}",
        run.stderr
    );
    // By the name that the program calls it by, and without the size of a vector.
    assert_eq!(report.access, Some((Access::Write, None)), "{}", run.stderr);
    assert!(run.stderr.contains(" in strcpy() of the C library by thread T"), "{}", run.stderr);
}

#[test]
fn a_library_has_its_heap_and_its_host_another() {
    let plugin = examples().join("libplugin.so");
    let plugin = plugin.to_str().unwrap();
    let agreed = run("plugin_host", &[plugin]);
    let said = "its text is its own\nmy box is not its own\n";
    assert_eq!((agreed.end, &*agreed.stdout, &*agreed.stderr), (End::Status(0), said, ""));
    let run = run("plugin_host", &[plugin, "twice"]);
    let report = report(&run.stderr);
    assert_eq!((run.end, &*report.kind), (End::Signal(libc::SIGABRT), "double-free"), "{}", run.stderr);
}
