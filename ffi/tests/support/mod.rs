//! What the launcher's suites share: the launcher, a directory, the compiled program.

// Each suite is a crate of its own and uses its part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

pub const LAUNCHER: &str = env!("CARGO_BIN_EXE_fencepost");

/// The launcher with nothing in its environment that concerns it. No core dumps are left behind.
pub fn launcher() -> Command {
    let mut command = Command::new("prlimit");
    command.args(["--core=0:", LAUNCHER]);
    clean(&mut command);
    command
}

/// The same without another program in between, so that the process id is the launcher's.
pub fn bare_launcher() -> Command {
    let mut command = Command::new(LAUNCHER);
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    for name in [
        "FENCEPOST_OPTIONS",
        "FENCEPOST_LIB",
        "FENCEPOST_COLLECTOR",
        "LD_PRELOAD",
        "NO_COLOR",
        "DEBUGINFOD_CACHE_PATH",
    ] {
        command.env_remove(name);
    }
    command.env("FENCEPOST_LIB", library()).stdin(Stdio::null());
}

/// The library, built in release form at the first call.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "-p", "fencepost-ffi", "--lib"]);
        let output = run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let target = Path::new(LAUNCHER).ancestors().nth(2).unwrap();
        let library = target.join("release/libfencepost.so");
        assert!(library.is_file(), "{} was not built", library.display());
        library
    })
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names what could not be tested; in CI that is a failure.
pub fn skip(what: &str) {
    assert!(env::var_os("CI").is_none(), "skipped in CI: {what}");
    eprintln!("SKIPPED: {what}");
}

/// Names what the system does not permit or is not set up for, which installing something does not change.
pub fn not_here(what: &str) {
    eprintln!("SKIPPED: {what}");
}

/// A directory that goes away with the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("fencepost-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The source of the program that has the bugs.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/bugs.cc")
}

/// The line of the source that carries `mark`.
pub fn line_of(mark: &str) -> usize {
    let text = fs::read_to_string(source()).unwrap();
    let mark = format!("// MARK {mark}");
    text.lines().position(|line| line.ends_with(&mark)).unwrap_or_else(|| panic!("no {mark}")) + 1
}

/// The program, compiled with `level`; `None`, and said so, without a compiler.
pub fn bugs(level: &'static str) -> Option<PathBuf> {
    static PLAIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    static OPTIMISED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let cell = if level == "-O0" { &PLAIN } else { &OPTIMISED };
    cell.get_or_init(|| compile(level)).clone()
}

fn compile(level: &str) -> Option<PathBuf> {
    if Command::new("c++").arg("--version").output().is_err() {
        skip("there is no c++");
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("launcher");
    fs::create_dir_all(&directory).unwrap();
    let binary = directory.join(format!("bugs{level}"));
    let fresh = directory.join(format!("bugs{level}.{}", std::process::id()));
    let mut command = Command::new("c++");
    command.args(["-g", "-w", "-std=c++17", "-fsized-deallocation", "-fno-omit-frame-pointer"]);
    command.args(["-fno-optimize-sibling-calls", "-rdynamic", "-Wl,--build-id", level]);
    let output = run(command.arg(source()).arg("-o").arg(&fresh));
    assert!(output.status.success(), "{command:?}:\n{}", text(&output.stderr));
    fs::rename(&fresh, &binary).unwrap();
    Some(binary)
}

/// The options that stop `bug` at the access where that is possible.
pub fn options_for(bug: &str) -> &'static [&'static str] {
    match bug {
        "canary-overwritten" | "write-after-free" => &["--mode", "harden"],
        _ => &["--mode", "hunt", "--align", "exact"],
    }
}

/// Every kind that the program commits.
pub const KINDS: &[&str] = &[
    "heap-buffer-overflow",
    "heap-buffer-underflow",
    "heap-use-after-free",
    "double-free",
    "invalid-free",
    "alloc-dealloc-mismatch",
    "bad-size",
    "canary-overwritten",
    "write-after-free",
    "wild-access",
    "use-after-poison",
];

/// Runs `program` with `bug` under the launcher with these flags.
pub fn commit(program: &Path, bug: &str, flags: &[&str]) -> Output {
    let mut command = launcher();
    run(command.arg("run").args(options_for(bug)).args(flags).arg("--").arg(program).arg(bug))
}

/// A program of `tests/programs` with its line numbers, compiled without optimisation, once; `None`, and said so, without a
/// compiler.
pub fn program(file: &'static str) -> Option<PathBuf> {
    static COMPILED: Mutex<BTreeMap<&str, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(file).or_insert_with(|| compile_program(file)).clone()
}

fn compile_program(file: &str) -> Option<PathBuf> {
    let compiler = if file.ends_with(".cc") { "c++" } else { "cc" };
    if Command::new(compiler).arg("--version").output().is_err() {
        skip(&format!("there is no {compiler}"));
        return None;
    }
    // Suites that run at the same time do not replace each other's.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs").join(env!("CARGO_CRATE_NAME"));
    fs::create_dir_all(&directory).unwrap();
    let binary = directory.join(file.replace('.', "-"));
    let mut command = Command::new(compiler);
    command.args(["-g", "-O0", "-w", "-Wl,--build-id"]).arg(program_source(file)).arg("-o").arg(&binary);
    let output = run(&mut command);
    assert!(output.status.success(), "{command:?}:\n{}", text(&output.stderr));
    Some(binary)
}

/// The source of a program of `tests/programs`.
pub fn program_source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(file)
}

/// `file:line` of the line of a program that carries `mark`.
pub fn marked(file: &str, mark: &str) -> String {
    let path = program_source(file);
    let source = fs::read_to_string(&path).unwrap();
    let mark = format!("/* MARK {mark} */");
    let line =
        source.lines().position(|line| line.ends_with(&mark)).unwrap_or_else(|| panic!("no {mark}")) + 1;
    format!("{}:{line}", path.display())
}
