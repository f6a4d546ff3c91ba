//! Compiles the C and C++ programs, each once a test run and optimisation level, and C libraries.

use super::process;
use super::skip::skip;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

/// What every program is compiled with: stacks that can be walked, no checks of the compiler's own, and
/// the sized deletes that C++14 made the rule.
const FLAGS: &[&str] =
    &["-g", "-w", "-fno-omit-frame-pointer", "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-pthread"];
const C_FLAGS: &[&str] = &["-std=gnu11"];
const CXX_FLAGS: &[&str] = &["-std=c++17", "-fsized-deallocation"];
const LIBRARIES: &[&str] = &["-ldl"];

type Binary = Arc<OnceLock<Option<PathBuf>>>;

/// Where the sources are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/programs")
}

/// The source of program `name`, in C or C++.
pub fn source(name: &str) -> PathBuf {
    let c = sources().join(format!("{name}.c"));
    if c.is_file() { c } else { c.with_extension("cc") }
}

/// The binary of program `name` at `level`, such as `-O2`. `None`, and said so, without a compiler.
///
/// # Panics
/// If the program does not compile.
pub fn binary(name: &str, level: &str) -> Option<PathBuf> {
    program(&source(name), level)
}

/// The program made of the C or C++ source at `source`. Otherwise like [`binary`].
///
/// # Panics
/// If it does not compile.
pub fn program(source: &Path, level: &str) -> Option<PathBuf> {
    let stem = source.file_stem().and_then(|stem| stem.to_str()).expect("a source has a plain name");
    with_flags(source, &[level], &format!("{stem}{level}"))
}

/// The C or C++ source at `source`, compiled with `flags` into a file of this name, once. `None`, and said
/// so, without a compiler.
///
/// # Panics
/// If it does not compile.
pub fn with_flags(source: &Path, flags: &[&str], file_name: &str) -> Option<PathBuf> {
    static BINARIES: OnceLock<Mutex<HashMap<String, Binary>>> = OnceLock::new();
    let cell = {
        let mut binaries = BINARIES.get_or_init(Mutex::default).lock().expect("no panic holds the lock");
        binaries.entry(file_name.to_owned()).or_default().clone()
    };
    let cxx = source.extension().is_some_and(|extension| extension == "cc");
    let (compiler, standard) = if cxx { ("c++", CXX_FLAGS) } else { ("cc", C_FLAGS) };
    cell.get_or_init(|| build(compiler, &[standard, flags].concat(), source, file_name)).clone()
}

/// The shared library made of the C source at `source`. `None`, and said so, without a compiler.
///
/// # Panics
/// If it does not compile.
pub fn shared_library(source: &Path) -> Option<PathBuf> {
    let stem = source.file_stem().and_then(|stem| stem.to_str()).expect("a source has a plain name");
    build("cc", &[C_FLAGS, &["-shared", "-fPIC", "-O1"]].concat(), source, &format!("lib{stem}.so"))
}

fn build(compiler: &str, flags: &[&str], source: &Path, file_name: &str) -> Option<PathBuf> {
    if Command::new(compiler).arg("--version").output().is_err() {
        skip(&format!("{file_name}: there is no {compiler}"));
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("preload");
    fs::create_dir_all(&directory).expect("the build's directory for temporary files is writable");
    let binary = directory.join(file_name);
    // Another test run may be executing the file: it is replaced, not rewritten.
    let fresh = directory.join(format!("{file_name}.{}", std::process::id()));
    let mut command = Command::new(compiler);
    command.args(FLAGS).args(flags).arg(source).arg("-o").arg(&fresh).args(LIBRARIES);
    let run = process::run(&mut command, process::LIMIT);
    assert_eq!(run.end, process::End::Status(0), "{command:?}:\n{}", run.stderr);
    fs::rename(&fresh, &binary).expect("a file can be renamed in its directory");
    Some(binary)
}
