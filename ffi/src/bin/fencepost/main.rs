//! The `fencepost` launcher: runs programs under `libfencepost.so` without touching them.
//!
//! `run` and `hunt` start the program with two environment variables set and stay its parent: its reports
//! come to the launcher, which gives them source lines and prints them, and the launcher ends as the
//! program ends. `symbolize` does the same for a saved log, `explain` says what object an address of a
//! process or core file belongs to. `hunt --passes=all` and `oom` run it many times. `doctor` says what this machine offers, `demo` shows three reports,
//! `options` prints the list of options.
//!
//! ```text
//! main ── settings   flags made from the option table, to FENCEPOST_OPTIONS text
//!      ── library    where libfencepost.so is ── checkout   builds it in a source checkout
//!      ── launch     environment, start       ── program    what the loader will not preload into
//!                                             ── pools      allocators of the program's own
//!                                             ── sigpipe    one signal that exec must not change
//!                                             ── supervise  signals, job control, how it ended
//!                                             ── collect    the socket that reports come to
//!                                             ── blocking    a stderr that does not wait
//!                                             ── worker     symbolising, in a process apart
//!      ── passes     several runs              ── attempt    one of them
//!                                             ── input      what each of them reads
//!                                             ── ledger     what they found, each error once
//!                                             ── unwritten  memory that is read and was never written
//!      ── cargo      tests and programs of cargo's, each finding once
//!      ── oom        allocations that fail     ── sites      the table of stacks that allocate
//!      ── symbolize  a saved log              ── rewrite    text and JSON with source lines
//!                                             ── model      a report in parts
//!                                             ── runtime    code that is nobody's own
//!                                             ── symbols    module and offset to source line
//!                                             ── debugfiles where debug information is
//!                                             ── demangle   names, within bounds
//!                                             ── nolines    what would give source lines
//!                                             ── printable  what others chose, printed
//!                                             ── sarif      reports for code-scanning tools
//!                                             ── colour     reports on a terminal
//!      ── explain    what an address is       ── target     memory and modules of a process or core
//!      ── doctor     the lines it prints      ── machine    what it asks the kernel
//!                                             ── trial      a small program under the library
//!      ── status     who runs under the library
//!      ── install    files below a prefix      ── artefacts  manual pages, completions and the like
//!      ── demo       runs and checks          ── victim     the three buggy programs
//!      ── listing    the table of options
//! ```
//!
//! What the launcher itself gets wrong ends in a [`Failure`]; status 125 tells it from the program's.

#![deny(unsafe_code)]

#[cfg(test)]
#[path = "../../../../tests/fuzz/launcher.rs"]
mod fuzz;
#[cfg(test)]
#[allow(unsafe_code)]
#[path = "../../../../tests/fuzz/mutate.rs"]
mod mutate;

mod artefacts;
mod attempt;
mod blocking;
mod cargo;
mod checkout;
mod collect;
mod colour;
mod deb;
mod debugfiles;
mod demangle;
mod demo;
mod doctor;
mod explain;
mod failure;
mod input;
mod install;
mod launch;
mod ledger;
mod library;
mod listing;
mod machine;
mod model;
mod nolines;
mod oom;
mod passes;
mod pools;
mod printable;
mod program;
mod rewrite;
mod runtime;
mod sarif;
mod settings;
mod sigpipe;
mod sites;
mod status;
mod supervise;
mod symbolize;
mod symbols;
mod target;
mod trial;
mod unwritten;
mod victim;
mod worker;

use clap::{Args, Parser, Subcommand};
use colour::When;
use failure::{Failure, TROUBLE};
use install::Install;
use launch::Manner;
use oom::Oom;
use passes::Passes;
use settings::Settings;
use status::Status;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use victim::Bug;

/// Runs programs under the fencepost allocator: heap bugs stop at the instruction that commits them.
#[derive(Parser)]
#[command(name = "fencepost", version, arg_required_else_help = true)]
struct Cli {
    /// The libfencepost.so to use [default: FENCEPOST_LIB, then beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    lib: Option<PathBuf>,
    /// Colour reports
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    color: When,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program hardened (mode=harden unless the environment or a flag says otherwise)
    Run(Target),
    /// Run a program with every object between guard pages (mode=hunt)
    #[command(after_help = passes::HELP)]
    Hunt(Hunt),
    /// Let each allocation of a program fail once and tell what crashes
    #[command(after_help = oom::HELP)]
    Oom(Oom),
    /// Print a saved log with functions, files and lines
    Symbolize {
        /// Write the reports as SARIF 2.1.0, too
        #[arg(long, value_name = "FILE")]
        sarif: Option<PathBuf>,
        /// The log [default: stdin]
        file: Option<PathBuf>,
    },
    /// Say what object an address of a process or core file belongs or belonged to
    Explain {
        /// A process id, or a core file
        #[arg(value_name = "CORE|PID")]
        target: PathBuf,
        /// The address, in hexadecimal
        address: String,
    },
    /// Say what this machine offers and what it means for each mode
    Doctor {
        /// A program whose own allocators are to be named, too
        program: Option<PathBuf>,
    },
    /// Say which processes run under the library, in which mode, and what was found so far
    Status(Status),
    /// Install the launcher, the library, manual pages and completions below a prefix, or remove them
    Install(Install),
    /// Show the reports of three built-in bugs
    Demo,
    /// List every option with its default and range
    Options {
        /// Print a Markdown table
        #[arg(long)]
        markdown: bool,
    },
    /// Run what cargo builds under the allocator (`cargo fencepost` is the same)
    #[command(disable_help_flag = true)]
    Cargo {
        /// What cargo is to do, and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "VERB")]
        words: Vec<OsString>,
    },
    /// One of the bugs that `demo` shows
    #[command(name = victim::COMMAND, hide = true)]
    Victim { bug: Bug },
    /// What `doctor` runs under the library
    #[command(name = trial::COMMAND, hide = true)]
    Probe { library: PathBuf },
    /// Becomes a program that cargo starts
    #[command(name = cargo::RUNNER, hide = true, disable_help_flag = true)]
    Runner {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Symbolises the reports of a run
    #[command(name = worker::COMMAND, hide = true)]
    Worker,
}

/// A program to hunt in.
#[derive(Args)]
struct Hunt {
    /// How many passes: one, or all that find something
    #[arg(long, value_name = "WHICH", value_enum, default_value_t, conflicts_with = "exec")]
    passes: Passes,
    /// Seconds that a pass may take, with --passes=all [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), requires = "passes")]
    timeout: Option<u64>,
    #[command(flatten)]
    target: Target,
}

/// A program to run and the options to run it with.
#[derive(Args)]
struct Target {
    /// Become the program and leave it to print its reports, without source lines
    #[arg(long, conflicts_with = "sarif")]
    exec: bool,
    /// Write the reports as SARIF 2.1.0, too
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Leave CPython's own allocator on: else PYTHONMALLOC=malloc is set where the program is CPython
    #[arg(long)]
    keep_pools: bool,
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
        Command::Run(target) => target.launch(lib, cli.color),
        Command::Hunt(Hunt { passes, timeout, mut target }) => {
            target.settings = target.settings.with_default_mode("hunt");
            match passes {
                Passes::One => target.launch(lib, cli.color),
                Passes::All => {
                    let (settings, command, manner) = target.parts(cli.color);
                    passes::hunt(&library::locate(lib)?.path, &settings, &command, manner, timeout)
                }
            }
        }
        Command::Oom(oom) => oom.go(&library::locate(lib)?.path, cli.color),
        Command::Symbolize { file, sarif } => {
            symbolize::symbolize(file.as_deref(), cli.color, sarif.as_deref())
        }
        Command::Explain { target, address } => explain::explain(&target, &address, cli.color),
        Command::Doctor { program } => doctor::doctor(lib, program.as_deref()),
        Command::Status(status) => status.go(),
        Command::Install(install) => install.go(lib),
        Command::Demo => demo::demo(&library::locate(lib)?.path),
        Command::Options { markdown } => {
            print(&if markdown { listing::markdown() } else { listing::table() })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Cargo { words } => cargo::cargo(&words, lib),
        Command::Runner { words } => Err(cargo::become_program(&words)),
        Command::Victim { bug } => Ok(victim::commit(bug)),
        Command::Probe { library } => trial::program(&library),
        Command::Worker => Ok(worker::serve()),
    }
}

impl Target {
    fn launch(self, lib: Option<&Path>, colour: When) -> Result<ExitCode, Failure> {
        let (settings, command, manner) = self.parts(colour);
        launch::launch(&library::locate(lib)?.path, &settings, &command, manner)
    }

    fn parts(self, colour: When) -> (Settings, Vec<OsString>, Manner) {
        let Self { exec, sarif, keep_pools, settings, command } = self;
        (settings, command, Manner { exec, colour, sarif, keep_pools })
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
    let line = format!("fencepost: {}\n", printable::line(line));
    let _ = blocking::write_all(&mut io::stderr(), line.as_bytes());
}
