//! Becoming the program: two environment variables and `exec`.

use crate::complain;
use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::library::preload_list;
use crate::program;
use crate::settings::{self, Settings};
use crate::sigpipe;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The variable that the dynamic loader reads.
pub const PRELOAD: &str = "LD_PRELOAD";

/// Replaces this process by `command` under the library. Returns only if that failed.
pub fn launch(library: &Path, settings: &Settings, command: &[OsString]) -> Failure {
    let Some((name, arguments)) = command.split_first() else {
        return Failure::new("no program to run");
    };
    let found = program::resolve(name);
    if let Some(obstacle) = found.as_deref().and_then(program::obstacle) {
        complain(&format!("warning: {}: {obstacle}", name.display()));
    }

    let mut child = Command::new(name);
    child.args(arguments);
    child.env(PRELOAD, preload_list(library, env::var_os(PRELOAD).as_deref()));
    let (options, closed) = settings.merged_with(env::var_os(settings::VARIABLE).as_deref());
    if closed {
        complain(&format!("warning: {}: a quote is left open; closed it", settings::VARIABLE));
    }
    if let Some(options) = options {
        child.env(settings::VARIABLE, options);
    }
    sigpipe::pass_on(&mut child);
    refusal(name, found.as_deref(), &child.exec())
}

/// What a failed `exec` means.
fn refusal(name: &OsStr, found: Option<&Path>, error: &io::Error) -> Failure {
    let name = name.display();
    let missing = error.raw_os_error() == Some(libc::ENOENT);
    match found {
        None if missing => Failure::executing(format!("{name}: program not found"), NOT_FOUND),
        Some(path) if path.is_dir() => Failure::executing(format!("{name}: is a directory"), NOT_EXECUTABLE),
        Some(path) if missing => {
            let what = program::interpreter(path)
                .map_or_else(|| "its interpreter".to_owned(), |it| it.display().to_string());
            Failure::executing(format!("{name}: cannot execute: {what} is missing"), NOT_EXECUTABLE)
        }
        _ => Failure::executing(format!("{name}: cannot execute: {error}"), NOT_EXECUTABLE),
    }
}
