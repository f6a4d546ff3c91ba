//! The static library in static programs of musl's: its functions are the ones that are linked, the semantics are those
//! under glibc, bugs are found and correct programs left alone.
//!
//! Needs `musl-gcc` (Debian's `musl-tools`) and Rust's target `x86_64-unknown-linux-musl`; without them a line
//! says so.

#[allow(dead_code)]
#[path = "preload/rows.rs"]
mod rows;
mod support;

use object::{Object, ObjectSymbol};
use rows::Row;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::{compiler, library, skip};

const TARGET: &str = "x86_64-unknown-linux-musl";
const MODES: [&str; 2] = ["mode=harden", "mode=hunt"];
/// What a program says that may not do here what it is about.
const NOT_PERMITTED: End = End::Status(77);

/// Correct programs that are about glibc: its loader, its functions, and those of signals that are replaced there.
const OF_GLIBC: [&str; 10] = [
    "clean_dlopen",
    "clean_exec",
    "clean_exit",
    "clean_handle",
    "clean_limit_data",
    "clean_masks",
    "clean_onstack",
    "clean_runtime",
    "clean_trim",
    "clean_vfork",
];

/// Bugs that come out in another way: musl's `memset` begins at the end, signal masks are not replaced there, and it has no
/// `makecontext`.
const OTHERWISE: [&str; 3] = ["overflow_memset", "overflow_small_stack", "uaf_blocked"];

/// The static library, built once; `None`, and said so, without the tools.
fn archive() -> Option<&'static Path> {
    static ARCHIVE: OnceLock<Option<PathBuf>> = OnceLock::new();
    ARCHIVE.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let installed = libraries
        .ok()
        .is_some_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir());
    if !installed || Command::new("musl-gcc").arg("--version").output().is_err() {
        skip::skip(&format!("musl: there is no musl-gcc, or no target {TARGET}"));
        return None;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace).args([
        "build",
        "--release",
        "-p",
        "fencepost-ffi",
        "--lib",
        "--target",
        TARGET,
    ]);
    let output = cargo.output().unwrap_or_else(|error| panic!("cannot start {cargo:?}: {error}"));
    assert!(output.status.success(), "{cargo:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Some(workspace.join(target).join(TARGET).join("release/libfencepost.a"))
}

/// A static program of the C source at `source`.
fn link(source: &Path) -> Option<PathBuf> {
    let archive = archive()?;
    let stem = source.file_stem().and_then(|stem| stem.to_str()).expect("a source has a plain name");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("musl");
    fs::create_dir_all(&directory).expect("the build's directory for temporary files is writable");
    let binary = directory.join(format!("{stem}.{}", std::process::id()));
    let mut command = Command::new("musl-gcc");
    command.args(["-static", "-std=gnu11", "-g", "-w", "-O1", "-fno-omit-frame-pointer", "-pthread"]);
    let run = process::run(command.arg(source).arg(archive).arg("-o").arg(&binary), LIMIT);
    assert_eq!(run.end, End::Status(0), "{command:?}:\n{}", run.stderr);
    Some(binary)
}

fn run(binary: &Path, arguments: &str, options: &str) -> Run {
    let mut command = process::command(binary, None, "");
    process::run(command.args(arguments.split_whitespace()).env("FENCEPOST_OPTIONS", options), LIMIT)
}

fn is_c(program: &str) -> bool {
    compiler::source(program).extension().is_some_and(|extension| extension == "c")
}

#[test]
fn the_functions_are_this_librarys() {
    let Some(binary) = link(&compiler::source("double_free")) else { return };
    let bytes = fs::read(&binary).expect("it was linked");
    let file = object::File::parse(bytes.as_slice()).expect("an ELF file");
    let names: Vec<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    for name in ["malloc", "free", "calloc", "realloc"] {
        assert_eq!(names.iter().filter(|known| **known == name).count(), 1, "{name}");
    }
    // Functions of musl's own allocator.
    for name in ["__libc_malloc_impl", "__libc_free", "__malloc_alloc_meta"] {
        assert!(!names.contains(&name), "{name}");
    }
    let _ = fs::remove_file(binary);
}

#[test]
fn semantics_are_those_under_glibc() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/semantics.c");
    let (Some(binary), Some(other)) = (link(&source), compiler::program(&source, "-O1")) else { return };
    for mode in MODES {
        let musl = run(&binary, "", mode);
        let glibc = process::run(&mut process::command(&other, Some(library::path()), mode), LIMIT);
        assert_eq!((musl.end, musl.stderr.as_str()), (End::Status(0), ""), "{mode}");
        assert!(musl.stdout.lines().count() > 300, "{}", musl.stdout);
        assert_eq!(musl.stdout, glibc.stdout, "{mode}");
    }
    let _ = fs::remove_file(binary);
}

#[test]
fn bugs_are_found() {
    let tables: [&[Row]; 4] = [rows::ALWAYS, rows::PAGE_ALLOCATOR, rows::HUNT, rows::EXACT];
    let mut failures = Vec::new();
    let rows = tables.into_iter().flatten();
    for row in rows.filter(|row| is_c(row.program) && !OTHERWISE.contains(&row.program)) {
        let Some(binary) = link(&compiler::source(row.program)) else { return };
        let run = run(&binary, row.arguments, "mode=hunt:align=exact");
        let verdict = row.expected.judge(&run);
        if verdict != Verdict::Match {
            failures.push(format!("{} {}: {verdict:?}", row.program, row.arguments));
        }
        let _ = fs::remove_file(binary);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn correct_programs_are_left_alone() {
    let mut failures = Vec::new();
    for program in rows::CLEAN.iter().filter(|program| is_c(program) && !OF_GLIBC.contains(program)) {
        let Some(binary) = link(&compiler::source(program)) else { return };
        for mode in MODES {
            let run = run(&binary, "", mode);
            let verdict = judge_silent(&run, End::Status(0));
            if verdict != Verdict::Match && run.end != NOT_PERMITTED {
                failures.push(format!("{program} {mode}: {verdict:?}"));
            }
        }
        let _ = fs::remove_file(binary);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
