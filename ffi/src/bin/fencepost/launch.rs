//! Running the program: two environment variables, and then either at its side or in its place.
//!
//! At its side (the rule) the launcher collects the reports of the program and of what it starts; see
//! [`crate::collect`] and [`crate::supervise`]. In its place (`--exec`) it becomes the program, and
//! processes print their reports themselves.

use crate::collect::{self, Collector, Output};
use crate::colour::When;
use crate::complain;
use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::library::preload_list;
use crate::pools;
use crate::program;
use crate::settings::{self, Settings};
use crate::sigpipe;
use crate::supervise::{self, Signals};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// The variable that the dynamic loader reads.
pub const PRELOAD: &str = "LD_PRELOAD";

/// How a program is run.
pub struct Manner {
    /// In the launcher's place.
    pub exec: bool,
    /// When reports are coloured.
    pub colour: When,
    /// The SARIF file to write.
    pub sarif: Option<PathBuf>,
    /// Whether the program's own pools stay on.
    pub keep_pools: bool,
}

/// Runs `command` under the library and ends as it ends.
pub fn launch(
    library: &Path,
    settings: &Settings,
    command: &[OsString],
    manner: Manner,
) -> Result<ExitCode, Failure> {
    let (mut child, found) = self::command(library, settings, command, manner.keep_pools)?;
    let name = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    if let Some(obstacle) = found.as_deref().and_then(program::obstacle) {
        complain(&format!("warning: {}: {obstacle}", name.display()));
    }
    if manner.exec {
        return Err(refusal(name, found.as_deref(), &child.exec()));
    }
    let options = settings.resulting(env::var_os(settings::VARIABLE).as_deref());
    accompany(child, name, found.as_deref(), manner, !options.log_path.as_bytes().is_empty())
}

/// The program, to be started under the library, and the file that it is.
pub fn command(
    library: &Path,
    settings: &Settings,
    command: &[OsString],
    keep_pools: bool,
) -> Result<(Command, Option<PathBuf>), Failure> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Failure::new("no program to run"));
    };
    let mut child = Command::new(name);
    child.args(arguments);
    child.env(PRELOAD, preload_list(library, env::var_os(PRELOAD).as_deref()));
    child.env_remove(collect::VARIABLE);
    let (options, closed) = settings.merged_with(env::var_os(settings::VARIABLE).as_deref());
    if closed {
        complain(&format!("warning: {}: a quote is left open; closed it", settings::VARIABLE));
    }
    if let Some(options) = options {
        child.env(settings::VARIABLE, options);
    }
    let found = program::resolve(name);
    let has_pools = !keep_pools && env::var_os(pools::PYTHON_VARIABLE).is_none();
    if has_pools && found.as_deref().is_some_and(pools::is_cpython) {
        child.env(pools::PYTHON_VARIABLE, pools::PYTHON_VALUE);
    }
    sigpipe::pass_on(&mut child);
    Ok((child, found))
}

/// Starts the program, prints its reports and ends as it ends.
fn accompany(
    mut child: Command,
    name: &OsStr,
    found: Option<&Path>,
    manner: Manner,
    has_log: bool,
) -> Result<ExitCode, Failure> {
    if let Some(path) = &manner.sarif {
        collect::begin_sarif(path)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    let signals = Signals::block();
    signals.pass_on(&mut child);
    let collector = Collector::start(Output::Print { colour: manner.colour, sarif: manner.sarif });
    match &collector {
        Ok(collector) => {
            child.env(collect::VARIABLE, collector.path());
        }
        Err(error) => complain(&format!("warning: reports will not be symbolised: {error}")),
    }
    let started = child.spawn();
    let ended = started.as_ref().map(|child| signals.follow(child));
    let came = collector.map(Collector::finish);
    match ended {
        Ok(Ok(status)) => {
            if came.is_ok_and(|came| came == 0) && !has_log {
                note_silent_fault(status);
            }
            Ok(supervise::end_like(status))
        }
        Ok(Err(error)) => Err(Failure::new(format!("{}: cannot wait for it: {error}", name.display()))),
        Err(error) => Err(refusal(name, found, error)),
    }
}

/// Says that a program ended by a fault of which there is no report: it may be the heap's all the same.
fn note_silent_fault(status: ExitStatus) {
    let name = match status.signal() {
        Some(libc::SIGSEGV) => "SIGSEGV",
        Some(libc::SIGBUS) => "SIGBUS",
        _ => return,
    };
    complain(&format!(
        "the program ended by {name}, and there is no report: the fault was not in the heap, or came where its \
         signal was blocked or ignored by a system call, or on a signal stack without room"
    ));
}

/// What a failed `exec` means.
pub fn refusal(name: &OsStr, found: Option<&Path>, error: &io::Error) -> Failure {
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
