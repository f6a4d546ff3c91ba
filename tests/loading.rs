//! Libraries that come and go: closed while threads still have to leave, and opened with names of their own.

mod support;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::process::{self, End, LIMIT, Run};
use support::{compiler, library};

const OPTIONS: [&str; 4] = [
    "mode=harden:guards=madvise",
    "mode=harden:guards=mprotect",
    "mode=hunt:guards=madvise",
    "mode=hunt:guards=mprotect",
];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loading").join(name)
}

fn build(name: &str, flags: &[&str], file: &str) -> Option<PathBuf> {
    compiler::with_flags(&source(name), &[&["-O1"], flags].concat(), &format!("loading-{file}"))
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// Opens `library` in a program that does not have it preloaded, uses two of its functions, closes it and goes on.
fn close(library: &Path, functions: [&str; 2]) {
    let Some(binary) = build("closing.c", &[], "closing") else { return };
    for options in OPTIONS {
        let mut command = process::command(&binary, None, "");
        command.arg(library).args(functions).env("FENCEPOST_OPTIONS", options);
        let run = process::run(&mut command, LIMIT);
        let end = (run.end, run.stdout.as_str(), run.stderr.as_str());
        assert_eq!(end, (End::Status(0), "done\n", ""), "{library:?} {options}");
    }
}

#[test]
fn the_library_stays_when_it_is_closed() {
    close(library::path(), ["malloc", "free"]);
}

/// The crate as the allocator of a library that is opened and closed.
#[test]
fn a_library_with_the_crate_stays_when_it_is_closed() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace).args(["build", "--workspace", "--example", "closed"]);
    let output = cargo.output().unwrap_or_else(|error| panic!("cannot start {cargo:?}: {error}"));
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let library = workspace.join(target).join("debug/examples/libclosed.so");
    close(&library, ["library_allocate", "library_free"]);
}

/// Opens a library with `RTLD_DEEPBIND`, alone or under the library.
fn deep(path: &str, how: &str, preload: Option<&str>, variables: &[(&str, &str)]) -> Option<Run> {
    let binary = build("deep_host.c", &["-rdynamic"], "deep_host")?;
    let library = preload.map(|_| library::path());
    let mut command = process::command(&binary, library, preload.unwrap_or_default());
    command.args([path, how]).envs(variables.iter().copied());
    Some(process::run(&mut command, LIMIT))
}

/// A library opened so calls its own function without ours, and with it `whose`.
fn calls(path: &str, how: &str, whose: &str, variables: &[(&str, &str)]) {
    let Some(alone) = deep(path, how, None, variables) else { return };
    assert_eq!((alone.end, alone.stdout.as_str()), (End::Status(0), "library\n"), "{path}: {}", alone.stderr);
    for options in OPTIONS {
        let Some(run) = deep(path, how, Some(options), variables) else { return };
        let end = (run.end, run.stdout.trim_end(), run.stderr.as_str());
        assert_eq!(end, (End::Status(0), whose, ""), "{path} {how} {options} {variables:?}");
    }
}

/// A library of `deep.c`, with a name that others can need it by.
fn deep_library(flags: &[&str], file: &str) -> Option<PathBuf> {
    let name = format!("-Wl,-soname,loading-{file}");
    build("deep.c", &[&["-shared", "-fPIC", &name], flags].concat(), file)
}

#[test]
fn a_library_that_does_not_allocate_binds_deeply() {
    let Some(library) = deep_library(&[], "libdeep.so") else { return };
    for how in ["", "base", "new"] {
        calls(plain(&library), how, "library", &[]);
    }
}

#[test]
fn a_library_that_allocates_binds_this_allocator() {
    let Some(library) = deep_library(&["-DALLOCATES"], "libdeep-allocates.so") else { return };
    for how in ["", "base"] {
        calls(plain(&library), how, "program", &[]);
    }
    // With a C library of its own it may.
    calls(plain(&library), "new", "library", &[]);
}

/// What a library brings is looked for where the loader looks, and looked at too.
#[test]
fn what_a_library_brings_counts() {
    for (allocates, whose) in [(&[][..], "library"), (&["-DALLOCATES"], "program")] {
        let helper = format!("libhelper-{whose}.so");
        let Some(helper) = deep_library(&[&["-DHELPER"], allocates].concat(), &helper) else { return };
        for (tags, of) in [("--enable-new-dtags", "runpath"), ("--disable-new-dtags", "rpath")] {
            let tags = format!("-Wl,{tags},-rpath,/nonexistent:$ORIGIN");
            let flags = ["-DHELPED", "-Wl,--no-as-needed", plain(&helper), &tags];
            let Some(library) = deep_library(&flags, &format!("libhelped-{of}-{whose}.so")) else { return };
            calls(plain(&library), "", whose, &[]);
            // Directories of the environment come before a RUNPATH and behind an RPATH.
            let doubt = if of == "runpath" { "program" } else { whose };
            calls(plain(&library), "", doubt, &[("LD_LIBRARY_PATH", "/nonexistent")]);
        }
    }
}

#[test]
fn in_doubt_a_library_does_not_bind_deeply() {
    // A needed library that is not loaded, of which the file does not say where it lies.
    let flags = ["-Wl,--no-as-needed", "-lm"];
    let Some(library) = deep_library(&flags, "libdeep-needs.so") else { return };
    calls(plain(&library), "", "program", &[]);
    // A name that has to be searched for.
    let Some(library) = deep_library(&[], "libdeep-searched.so") else { return };
    let directory = library.parent().map(plain).unwrap_or_default();
    calls("loading-libdeep-searched.so", "", "program", &[("LD_LIBRARY_PATH", directory)]);
}

/// What is no library is none with ours either, and the loader's word for it the same.
#[test]
fn what_is_no_library_is_refused_as_before() {
    let Some(library) = deep_library(&[], "libdeep-cut.so") else { return };
    let bytes = fs::read(&library).expect("it was just built");
    let file = library.with_extension("cut");
    for length in [0, 3, 16, 63, 64, 100] {
        fs::write(&file, &bytes[..length]).expect("the directory is writable");
        refused(plain(&file));
    }
    fs::write(&file, "#!/bin/sh\n# a script of some length, which is no library\n").expect("as above");
    refused(plain(&file));
    refused("/nonexistent/library.so");
    refused("/");
    refused("");
}

fn refused(path: &str) {
    let Some(alone) = deep(path, "", None, &[]) else { return };
    for options in OPTIONS {
        let Some(run) = deep(path, "", Some(options), &[]) else { return };
        assert_eq!(
            (run.end, &run.stdout, run.stderr.as_str()),
            (alone.end, &alone.stdout, ""),
            "{path} {options}"
        );
    }
}

/// Whatever a file says of itself, reading it ends, and harms nothing.
#[test]
fn files_that_contradict_themselves_are_read_to_an_end() {
    let Some(library) = deep_library(&["-DALLOCATES"], "libdeep-corrupt.so") else { return };
    let Some(binary) = build("corrupt.c", &[], "corrupt") else { return };
    for options in OPTIONS {
        let mut command = process::command(&binary, Some(library::path()), options);
        let run = process::run(command.arg(&library).arg(library.with_extension("corrupt")), LIMIT);
        let end = (run.end, run.stdout.as_str(), run.stderr.as_str());
        assert_eq!(end, (End::Status(0), "done\n", ""), "{options}");
    }
}
