//! C++ programs that replace operators: each must run as it does without the library, and print the same.
//!
//! By the standard the default forms call the basic ones. Which calls which is the C++ library's choice where the standard
//! leaves one, so the same program without the library says what is right.

mod support;

use std::path::{Path, PathBuf};
use support::process::{self, End, LIMIT};
use support::{EVERY_MODE, compiler, library};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators").join(name)
}

/// A program, or a library, of a source here; `None`, and said so, without a compiler.
fn build(name: &str, flags: &[&str], file: &str) -> Option<PathBuf> {
    compiler::with_flags(&source(name), &[&["-O1"], flags].concat(), &format!("operators-{file}"))
}

fn shared(name: &str, flags: &[&str], file: &str) -> Option<PathBuf> {
    build(name, &[&["-shared", "-fPIC"], flags].concat(), file)
}

/// Runs a program without the library and under it in all modes; it must do the same.
fn compare(binary: &Path, arguments: &[&str]) {
    let plain = process::run(process::command(binary, None, "").args(arguments), LIMIT);
    assert_eq!(
        (plain.end, plain.stderr.as_str()),
        (End::Status(0), ""),
        "{binary:?} alone: {}",
        plain.stdout
    );
    for options in EVERY_MODE {
        let mut command = process::command(binary, Some(library::path()), options);
        let run = process::run(command.args(arguments), LIMIT);
        let what = format!("{binary:?} {arguments:?} {options}: {}{}", run.stdout, run.stderr);
        assert_eq!((run.end, run.stderr.as_str()), (End::Status(0), ""), "{what}");
        assert_eq!(run.stdout, plain.stdout, "{what}\nalone: {}", plain.stdout);
    }
}

/// A program that replaces what these flags name.
fn replaces(file: &str, flags: &[&str]) {
    if let Some(binary) = build("replaced.cc", flags, file) {
        compare(&binary, &[]);
    }
}

#[test]
fn nothing() {
    replaces("nothing", &["-DFORWARD_ONLY"]);
}

#[test]
fn the_basic_operators() {
    replaces("basic", &["-DBASIC"]);
    replaces("header", &["-DBASIC", "-DHEADER"]);
    replaces("header-O2", &["-O2", "-DBASIC", "-DHEADER"]);
}

#[test]
fn one_of_a_pair() {
    replaces("new", &["-DONLY_NEW"]);
    replaces("delete", &["-DONLY_DELETE"]);
    replaces("sized", &["-DSIZED"]);
    replaces("nothrow", &["-DFORWARD_ONLY", "-DNOTHROW"]);
}

#[test]
fn array_and_aligned_operators() {
    replaces("array", &["-DARRAY", "-DHEADER"]);
    replaces("aligned", &["-DFORWARD_ONLY", "-DALIGNED"]);
    replaces("all", &["-DBASIC", "-DARRAY", "-DALIGNED", "-DHEADER"]);
}

/// The C++ library's operators, and `reallocarray`, are made of what the program has.
#[test]
fn a_program_with_an_allocator_of_its_own() {
    for (file, flags) in [("allocator", &[][..]), ("allocator-passes", &["-DPASSES_ON"])] {
        if let Some(binary) = build("allocator.cc", flags, file) {
            compare(&binary, &[]);
        }
    }
}

#[test]
fn with_the_runtime_in_the_program() {
    replaces("static", &["-DBASIC", "-DHEADER", "-static-libstdc++"]);
    replaces("static-exported", &["-DBASIC", "-DHEADER", "-static-libstdc++", "-rdynamic"]);
    replaces("exported", &["-DBASIC", "-DHEADER", "-rdynamic", "-no-pie"]);
}

#[test]
fn a_library_that_the_program_is_linked_with() {
    for (file, flags) in [("liboperators.so", &[][..]), ("liboperators-symbolic.so", &["-Wl,-Bsymbolic"])] {
        let Some(library) = shared("library.cc", flags, file) else { return };
        let path = library.to_str().expect("a plain name");
        let Some(binary) = build("linked.cc", &["-Wl,--no-as-needed", path], &format!("linked-{file}"))
        else {
            return;
        };
        compare(&binary, &[]);
    }
}

/// Its operators are not called where the program has none: this library's come first then.
#[test]
fn a_library_that_is_opened() {
    for (source, file) in [("library.cc", "libopened.so"), ("catches.cc", "libcatches.so")] {
        let (Some(library), Some(host)) = (shared(source, &[], file), build("host.c", &[], "host")) else {
            return;
        };
        let path = library.to_str().expect("a plain name");
        compare(&host, &[path]);
        compare(&host, &[path, "global"]);
    }
}

#[test]
fn calls_before_the_library_was_initialised() {
    let Some(early) = shared("early.cc", &[], "libearly.so") else { return };
    let path = early.to_str().expect("a plain name");
    if let Some(binary) = build("late.cc", &["-Wl,--no-as-needed", path], "late") {
        compare(&binary, &[]);
    }
}
