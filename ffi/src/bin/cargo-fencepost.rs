//! `cargo fencepost`: cargo starts this program, and it becomes `fencepost cargo`.
//!
//! The launcher is looked for beside this program, and then on `PATH`.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The launcher's file name.
const LAUNCHER: &str = "fencepost";
/// Status of a failure that is not the program's; as the launcher's.
const TROUBLE: u8 = 125;

fn main() -> ExitCode {
    let mut words: Vec<OsString> = env::args_os().skip(1).collect();
    // Cargo repeats the subcommand's name.
    if words.first().is_some_and(|word| word == LAUNCHER) {
        words.remove(0);
    }
    let beside = env::current_exe().ok().map(|own| own.with_file_name(LAUNCHER));
    let launcher = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(LAUNCHER));
    let error = Command::new(&launcher).arg("cargo").args(words).exec();
    eprintln!("cargo-fencepost: cannot start {}: {error}", launcher.display());
    ExitCode::from(TROUBLE)
}
