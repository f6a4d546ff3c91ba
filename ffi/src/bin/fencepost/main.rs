//! The `fencepost` launcher: runs programs under `libfencepost.so` without touching them.
//!
//! `run` and `hunt` set two environment variables and become the program (`exec`), so that its process
//! id, exit status and signals are its own. `doctor` says what this machine offers, `demo` shows three
//! reports, `options` prints the list of options.
//!
//! ```text
//! main ── settings   flags made from the option table, to FENCEPOST_OPTIONS text
//!      ── library    where libfencepost.so is ── checkout   builds it in a source checkout
//!      ── launch     environment, exec        ── program    what the loader will not preload into
//!                                             ── sigpipe    one signal that exec must not change
//!      ── doctor     the lines it prints      ── machine    what it asks the kernel
//!                                             ── trial      a small program under the library
//!      ── demo       runs and checks          ── victim     the three buggy programs
//!      ── listing    the table of options
//! ```
//!
//! What the launcher itself gets wrong ends in a [`Failure`]; status 125 tells it from the program's.

#![deny(unsafe_code)]

mod checkout;
mod demo;
mod doctor;
mod failure;
mod launch;
mod library;
mod listing;
mod machine;
mod program;
mod settings;
mod sigpipe;
mod trial;
mod victim;

use clap::{Args, Parser, Subcommand};
use failure::{Failure, TROUBLE};
use settings::Settings;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use victim::Bug;

/// Runs programs under the fencepost allocator: heap bugs stop at the instruction that commits them.
#[derive(Parser)]
#[command(name = "fencepost", version, arg_required_else_help = true)]
struct Cli {
    /// The libfencepost.so to use [default: FENCEPOST_LIB, then beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    lib: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program hardened (mode=harden unless the environment or a flag says otherwise)
    Run(Target),
    /// Run a program with every object between guard pages (mode=hunt)
    Hunt(Target),
    /// Say what this machine offers and what it means for each mode
    Doctor,
    /// Show the reports of three built-in bugs
    Demo,
    /// List every option with its default and range
    Options {
        /// Print a Markdown table
        #[arg(long)]
        markdown: bool,
    },
    /// One of the bugs that `demo` shows
    #[command(name = victim::COMMAND, hide = true)]
    Victim { bug: Bug },
    /// What `doctor` runs under the library
    #[command(name = trial::COMMAND, hide = true)]
    Probe { library: PathBuf },
}

/// A program to run and the options to run it with.
#[derive(Args)]
struct Target {
    #[command(flatten)]
    settings: Settings,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell the user with if this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { TROUBLE } else { 0 });
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let lib = cli.lib.as_deref();
    match cli.command {
        Command::Run(target) => {
            Err(launch::launch(&library::locate(lib)?.path, &target.settings, &target.command))
        }
        Command::Hunt(target) => {
            let settings = target.settings.with_default_mode("hunt");
            Err(launch::launch(&library::locate(lib)?.path, &settings, &target.command))
        }
        Command::Doctor => doctor::doctor(lib),
        Command::Demo => demo::demo(&library::locate(lib)?.path),
        Command::Options { markdown } => {
            print(&if markdown { listing::markdown() } else { listing::table() })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Victim { bug } => Ok(victim::commit(bug)),
        Command::Probe { library } => trial::program(&library),
    }
}

/// Writes to stdout. That nobody reads on is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line to stderr. A closed stderr is no reason to stop.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "fencepost: {line}");
}
