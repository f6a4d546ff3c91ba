//! A small program under the library, for `doctor`: the launcher itself.
//!
//! The loader only complains when it cannot preload, and goes on; so the program looks into its own
//! mappings for the library, after it has used the heap in sizes for both allocators.

use crate::failure::Failure;
use crate::launch::PRELOAD;
use crate::library::{self, Library};
use crate::settings;
use std::fs;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The hidden subcommand.
pub const COMMAND: &str = "__probe";
/// The exit status if the library is not in the process.
const ABSENT: u8 = 3;
/// Objects of 1, 2, 4 and so on bytes, up to half a MiB.
const POWERS: u32 = 20;

/// Runs the program with `options`: what it wrote to stderr, or what is wrong.
pub fn run(library: &Library, options: &str) -> Result<Result<String, String>, Failure> {
    let output = Command::new(library::own_path()?)
        .arg(COMMAND)
        .arg(&library.path)
        .env(PRELOAD, &library.path)
        .env(settings::VARIABLE, options)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("cannot start the launcher again: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(Ok(said));
    }
    let first = said.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
    Ok(Err(if output.status.code() == Some(i32::from(ABSENT)) {
        format!("the loader does not load it{first}")
    } else {
        format!("a small program under it ends with {}{first}", output.status)
    }))
}

/// The program. `library` is what should be in the process.
pub fn program(library: &Path) -> Result<ExitCode, Failure> {
    let objects: Vec<Vec<u8>> = (0..POWERS).map(|power| vec![1; 1 << power]).collect();
    black_box(&objects);
    let maps = fs::read("/proc/self/maps")
        .map_err(|error| Failure::new(format!("cannot read /proc/self/maps: {error}")))?;
    let path = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let name = path.as_os_str().as_bytes();
    let mapped = maps.split(|byte| *byte == b'\n').any(|line| line.ends_with(name));
    Ok(if mapped { ExitCode::SUCCESS } else { ExitCode::from(ABSENT) })
}
