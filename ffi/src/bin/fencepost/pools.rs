//! Allocators that a program brings itself: memory that it hands out again is one object to `malloc`, and errors inside it
//! are nobody's to see.
//!
//! CPython's is the one that a variable switches off: `run`, `hunt` and `oom` do so where the program is CPython, or a script
//! of its, unless the user has set the variable or says `--keep-pools`. Of the others `doctor` tells.

use crate::program;
use object::{Object, ObjectSymbol};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What has CPython allocate its objects with `malloc`.
pub const PYTHON_VARIABLE: &str = "PYTHONMALLOC";
/// The value of [`PYTHON_VARIABLE`].
pub const PYTHON_VALUE: &str = "malloc";

/// Scripts may name scripts.
const MOST_SCRIPTS: usize = 5;

/// Libraries by the beginning of their names, and what is to be known of them.
const LIBRARIES: &[(&str, &str)] = &[
    (
        "libpython",
        "pymalloc hands out objects of up to 512 bytes itself: PYTHONMALLOC=malloc, which run and hunt set where the program is CPython",
    ),
    (
        "libapr-1.",
        "APR's pools hand out memory themselves: an APR built with --enable-pool-debug=yes does not",
    ),
    ("libglib-2.", "GLib's slices hand out memory themselves before 2.76: G_SLICE=always-malloc"),
    ("libtalloc.", "talloc puts a header before each object, and talloc_pool hands out memory itself"),
    (
        "libjemalloc.",
        "jemalloc is linked in: malloc is fencepost's, what is asked of mallocx and its kin is not",
    ),
    (
        "libtcmalloc",
        "tcmalloc is linked in: malloc is fencepost's, what is asked of tc_malloc and its kin is not",
    ),
    ("libasan.", SANITIZER_LIBRARY),
    ("libhwasan.", SANITIZER_LIBRARY),
    ("libtsan.", SANITIZER_LIBRARY),
    ("liblsan.", SANITIZER_LIBRARY),
    ("libclang_rt.", SANITIZER_LIBRARY),
    (
        "libgc.",
        "a conservative collector (libgc) scans memory: guards=mprotect, as it may read into guard markers",
    ),
    (
        "libmimalloc",
        "mimalloc is linked in: malloc is fencepost's, what is asked of mi_malloc and its kin is not",
    ),
];

/// Symbols that a program itself defines, and what is to be known then.
const SYMBOLS: &[(&str, &str)] = &[
    (
        "malloc",
        "the program defines malloc itself, which comes before any library's: it runs without fencepost",
    ),
    ("mallocx", "jemalloc is in the program: what is asked of mallocx and its kin is not fencepost's"),
    ("tc_malloc", "tcmalloc is in the program: what is asked of tc_malloc and its kin is not fencepost's"),
    ("mi_malloc", "mimalloc is in the program: what is asked of mi_malloc and its kin is not fencepost's"),
    ("__asan_init", SANITIZER),
    ("__hwasan_init", SANITIZER),
    ("__msan_init", SANITIZER),
    ("__tsan_init", SANITIZER),
    ("__lsan_init", SANITIZER),
    ("_PyObject_Malloc", PYMALLOC),
    ("PyObject_Malloc", PYMALLOC),
];
const SANITIZER: &str =
    "a sanitizer is built in, whose allocator comes before any library's: build the program without it";
const PYMALLOC: &str = "pymalloc is in the program and hands out objects of up to 512 bytes itself: PYTHONMALLOC=malloc, \
                        which run and hunt set where the program is called python";

const SANITIZER_LIBRARY: &str =
    "it is built with a sanitizer, whose library wants to be loaded first: build the program without it";

/// What of sections of a program is to be known.
const SECTIONS: &[(&str, &str)] = &[(
    ".go.buildinfo",
    "Go has a heap of its own, which is not malloc's, and takes the fault signals: only what its C code allocates is seen",
)];

/// Whether a file is CPython, by its name, or a script that names it.
pub fn is_cpython(path: &Path) -> bool {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_SCRIPTS {
        if is_called_python(&path) || fs::canonicalize(&path).is_ok_and(|path| is_called_python(&path)) {
            return true;
        }
        match program::script(&path) {
            Some((interpreter, argument)) => {
                let through_env = interpreter.file_name() == Some(OsStr::new("env"));
                path = match argument.filter(|_| through_env) {
                    Some(name) => PathBuf::from(name),
                    None => interpreter,
                };
            }
            None => return false,
        }
    }
    false
}

/// `python`, `python3`, `python3.12` and the like.
fn is_called_python(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.strip_prefix(b"python")
        .is_some_and(|rest| rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'))
}

/// What is to be known of the pools of a program.
pub fn known(path: &Path) -> Vec<&'static str> {
    let mut known: Vec<&'static str> = Vec::new();
    let libraries = libraries(path);
    for (beginning, sentence) in LIBRARIES {
        if libraries.iter().any(|name| name.starts_with(beginning)) {
            known.push(sentence);
        }
    }
    let bytes = fs::read(path).unwrap_or_default();
    if let Ok(file) = object::File::parse(&*bytes) {
        let defined: Vec<_> = file
            .dynamic_symbols()
            .chain(file.symbols())
            .filter(|symbol| symbol.is_definition() && symbol.is_global())
            .filter_map(|symbol| symbol.name().ok())
            .collect();
        for (name, sentence) in SECTIONS {
            if file.section_by_name(name).is_some() {
                known.push(sentence);
            }
        }
        for (name, sentence) in SYMBOLS {
            if defined.contains(name) && !known.contains(sentence) {
                known.push(sentence);
            }
        }
    }
    known
}

/// The names of the libraries that the loader would load with a program.
fn libraries(path: &Path) -> Vec<String> {
    let Some(loader) = program::interpreter(path) else { return Vec::new() };
    let mut command = Command::new(loader);
    command.arg("--list").arg(path).stdin(Stdio::null());
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_is_known_by_name() {
        for (name, expected) in [
            ("/usr/bin/python3", true),
            ("python", true),
            ("/opt/python3.12", true),
            ("/usr/bin/python3-config", false),
            ("ipython", false),
            ("perl", false),
            ("/", false),
        ] {
            assert_eq!(is_called_python(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn scripts_lead_to_python() {
        let directory = std::env::temp_dir().join(format!("fencepost-pools-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for (line, expected) in [
            ("#!/usr/bin/python3 -S", true),
            ("#!/usr/bin/env python3", true),
            ("#! /usr/bin/env  python3.11 -u", true),
            ("#!/bin/sh", false),
            ("python3", false),
        ] {
            let path = directory.join("script");
            fs::write(&path, format!("{line}\nrest\n")).unwrap();
            assert_eq!(is_cpython(&path), expected, "{line}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_a_program_needs_is_told() {
        let own = std::env::current_exe().unwrap();
        let names = libraries(&own);
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
        assert_eq!(known(&own), Vec::<&str>::new());
    }
}
