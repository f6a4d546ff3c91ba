//! `cargo fencepost test|run|bench|nextest`: cargo as usual, and what it builds runs under the library.
//!
//! Cargo starts what it built through the target's runner. The launcher names itself as the runner
//! (`CARGO_TARGET_<TRIPLE>_RUNNER`), so that test binaries, benchmarks, programs and doctests have the library
//! preloaded, and cargo, compilers and build scripts do not. As a runner it becomes the program ([`runner`]); a
//! runner that the user has stays before it ([`target`]).
//!
//! Reports of all processes come to one collector, which lives as long as cargo runs: one symboliser loads each binary
//! once. [`findings`] prints each error once, with the tests that commit it ([`names`]), and sums up at the end.
//!
//! | `on_error`, `exitcode` | test binaries and programs | nextest, which runs a process for each test |
//! |---|---|---|
//! | default | go on after errors and end as without the library, so that cargo runs all tests | end with `exitcode`, so that the test fails |
//!
//! | status | meaning |
//! |---|---|
//! | cargo's | cargo failed (101: a test failed) |
//! | `exitcode` (99) | cargo did not fail, and there are findings |
//! | 125 | the launcher failed, or a program could not run under the library and nothing was found |

mod findings;
mod names;
mod runner;
mod target;

use crate::collect::{self, Collector, Output};
use crate::colour::When;
use crate::complain;
use crate::failure::{Failure, TROUBLE};
use crate::library;
use crate::passes::Passes;
use crate::settings::{self, Settings};
use crate::sigpipe;
use crate::supervise::{self, Signals};
use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use findings::{Findings, Manner};
pub use runner::{COMMAND as RUNNER, become_program};
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// What the help says besides the flags.
const HELP: &str = "\
All other arguments go to cargo, and what follows -- to the programs, as without fencepost:
  cargo fencepost test --workspace -- --test-threads=2
  cargo fencepost test --sarif findings.sarif --options 'suppressions=known.txt'
  cargo fencepost nextest run --no-fail-fast

Only what cargo built runs under the library: tests, doctests, benchmarks, programs, and what these start.
After an error the program goes on, so that one run finds many; --options on_error=abort ends it.

Exit status:
  cargo's, if that failed (101: a test failed)
  exitcode (99) if nothing else failed and there are findings
  125 if the launcher failed, or if a program could not run under the library
";

/// What cargo does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// Run tests and doctests
    Test,
    /// Run a program
    Run,
    /// Run benchmarks
    Bench,
    /// Run tests by cargo-nextest, a process for each
    Nextest,
}

/// Which objects stand between guard pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Every object
    #[default]
    Hunt,
    /// Large ones and a sample
    Patrol,
    /// Large ones
    Harden,
}

/// Runs what cargo builds under the fencepost allocator.
#[derive(Parser)]
#[command(name = "cargo fencepost", bin_name = "cargo fencepost", version, after_help = HELP, override_usage = "cargo fencepost <VERB> [FLAGS] [CARGO'S ARGUMENTS] [-- ARGUMENTS]")]
struct Line {
    /// What cargo is to do
    #[arg(value_enum)]
    verb: Verb,
    /// The mode
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// How many times: once, or with several layouts of objects as long as that finds something
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    passes: Passes,
    /// Write the findings as SARIF 2.1.0, too
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Options of the allocator, as FENCEPOST_OPTIONS has them
    #[arg(long, value_name = "KEY=VALUE:...")]
    options: Vec<OsString>,
    /// The libfencepost.so to use [default: FENCEPOST_LIB, then beside the launcher]
    #[arg(long, value_name = "PATH")]
    fencepost_lib: Option<PathBuf>,
}

/// Flags of [`Line`] that have a value; everything else is cargo's.
const FLAGS: &[&str] = &["--mode", "--passes", "--sarif", "--options", "--fencepost-lib"];

/// What every run has unless the user says otherwise. Deep stacks reach up to the test that they are of.
const AT_FIRST: [(&str, &str); 2] = [("on_error", "continue"), ("backtrace", "32")];
/// Layouts of objects: the name, the options. Objects of Rust programs have to be aligned, so there is no `exact`.
const PASSES: [(&str, [(&str, &str); 1]); 2] =
    [("right", [("guard_side", "right")]), ("left", [("guard_side", "left")])];
/// Passes with random layouts at most.
const MOST_RANDOM: usize = 4;

/// Runs cargo.
pub fn cargo(words: &[OsString], lib: Option<&Path>) -> Result<ExitCode, Failure> {
    let (own, rest) = split(words);
    let line = match Line::try_parse_from([OsString::from("cargo fencepost")].into_iter().chain(own)) {
        Ok(line) => line,
        Err(error) => {
            // Nothing is left to tell the user with if this cannot be printed.
            let _ = error.print();
            let told = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return Ok(ExitCode::from(if told { 0 } else { TROUBLE }));
        }
    };
    let library = library::locate(line.fencepost_lib.as_deref().or(lib))?.path;
    let mut user = Settings::default().with_default_mode(match line.mode {
        Mode::Hunt => "hunt",
        Mode::Patrol => "patrol",
        Mode::Harden => "harden",
    });
    for text in &line.options {
        user.add(text)?;
    }
    let options = user.resulting(env::var_os(settings::VARIABLE).as_deref());
    if !options.log_path.as_bytes().is_empty() {
        return Err(Failure::new(
            "the findings of all tests are collected and printed: log_path cannot be set",
        ));
    }
    let colour = colour_of(&rest);
    let directory = collect::private_directory()
        .map_err(|error| Failure::new(format!("cannot make a directory of its own: {error}")))?;
    let findings = Findings::open(Manner { colour, sarif: line.sarif.clone() }, runner::notes(&directory))
        .map_err(|error| Failure::new(format!("cannot write the SARIF file: {error}")))?;
    let findings = Arc::new(Mutex::new(findings));
    let cargo = Cargo {
        command: command_line(line.verb, rest),
        each_alone: line.verb == Verb::Nextest,
        library,
        user,
        directory,
        signals: Signals::block(),
        findings,
    };
    let ran = cargo.all(line.passes);
    let mut findings = cargo.findings.lock().unwrap_or_else(PoisonError::into_inner);
    let exitcode = u8::try_from(options.exitcode.min(255)).unwrap_or(u8::MAX);
    if ran.is_ok() {
        findings.sum_up();
    }
    let _ = std::fs::remove_dir_all(&cargo.directory);
    let status = ran?;
    if !status.success() {
        return Ok(supervise::end_like(status));
    }
    Ok(match (findings.count(), findings.unwatched()) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(TROUBLE),
        _ => ExitCode::from(exitcode),
    })
}

/// Cargo with its arguments and what it runs under.
struct Cargo {
    command: Vec<OsString>,
    /// Whether each test has a process, whose status is the test's.
    each_alone: bool,
    library: PathBuf,
    user: Settings,
    directory: PathBuf,
    signals: Signals,
    findings: Arc<Mutex<Findings>>,
}

impl Cargo {
    /// Runs cargo as often as `passes` says; how it ended the first time.
    fn all(&self, passes: Passes) -> Result<ExitStatus, Failure> {
        if passes == Passes::One {
            return self.once(&[], true);
        }
        let mut first: Option<ExitStatus> = None;
        let random = (0..MOST_RANDOM).map(|_| ("random", [("guard_side", "random")]));
        for (index, (name, items)) in PASSES.into_iter().chain(random).enumerate() {
            let before = self.count();
            let status = self.once(&items, first.is_none())?;
            let new = self.count().saturating_sub(before);
            complain(&format!("pass {}, {name}: {new} new", index.saturating_add(1)));
            match first {
                // What cannot be built or is interrupted is not tried again.
                None if status.code().is_none_or(|code| code != 0 && code != 101) => return Ok(status),
                None => first = Some(status),
                Some(first) if first != status => {
                    complain(&format!(
                        "cargo ended with {status} in this pass, and with {first} in the first one"
                    ));
                }
                Some(_) => {}
            }
            if name == "random" && new == 0 {
                break;
            }
        }
        Ok(first.unwrap_or_else(|| ExitStatus::from_raw(0)))
    }

    fn count(&self) -> usize {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).count()
    }

    /// Runs cargo once, with these options besides the user's; its output goes where this process's goes, if it `talks`.
    fn once(&self, layout: &[(&str, &str)], talks: bool) -> Result<ExitStatus, Failure> {
        let mut last = layout.to_vec();
        if !self.each_alone {
            last.push(("exitcode", "0"));
        }
        let settings = self.user.between(&AT_FIRST, &last)?;
        let (options, _) = settings.merged_with(env::var_os(settings::VARIABLE).as_deref());
        let (name, arguments) =
            self.command.split_first().ok_or_else(|| Failure::new("there is no cargo to run"))?;
        let mut child = Command::new(name);
        child.args(arguments);
        if let Some(options) = options {
            child.env(settings::VARIABLE, options);
        }
        let runner = runner::words(&self.directory)?;
        for (variable, value) in target::runners(&self.command, &runner) {
            child.env(variable, value);
        }
        child.env(runner::VARIABLE, &self.directory);
        child.env(library::VARIABLE, &self.library);
        if !talks {
            child.stdout(Stdio::null()).stderr(Stdio::null());
        }
        sigpipe::pass_on(&mut child);
        self.signals.pass_on(&mut child);
        let findings = Arc::clone(&self.findings);
        let collector = Collector::start(Output::Give(Box::new(move |raw| {
            findings.lock().unwrap_or_else(PoisonError::into_inner).take(raw)
        })))
        .map_err(|error| Failure::new(format!("cannot collect reports: {error}")))?;
        child.env(collect::VARIABLE, collector.path());
        let ended = child.spawn().map(|child| self.signals.follow(&child));
        collector.finish();
        match ended {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(Failure::new(format!("cannot wait for cargo: {error}"))),
            Err(error) => Err(Failure::new(format!("{}: cannot start it: {error}", name.display()))),
        }
    }
}

/// Which words before `--` are the launcher's, and which cargo's.
fn split(words: &[OsString]) -> (Vec<OsString>, Vec<OsString>) {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (before, after) = words.split_at(end);
    let (mut own, mut rest) = (Vec::new(), Vec::new());
    let mut before = before.iter();
    while let Some(word) = before.next() {
        let text = word.to_str().unwrap_or_default();
        let is_verb = own.is_empty() && rest.is_empty();
        let is_help = is_verb || own.len() == 1 && rest.is_empty();
        if is_verb || is_help && matches!(text, "--help" | "-h" | "--version" | "-V") {
            own.push(word.clone());
        } else if FLAGS.contains(&text) {
            own.push(word.clone());
            own.extend(before.next().cloned());
        } else if FLAGS.iter().any(|flag| text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))) {
            own.push(word.clone());
        } else {
            rest.push(word.clone());
        }
    }
    rest.extend(after.iter().cloned());
    (own, rest)
}

/// Cargo's command line.
fn command_line(verb: Verb, rest: Vec<OsString>) -> Vec<OsString> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = vec![cargo];
    command.push(match verb {
        Verb::Test => "test".into(),
        Verb::Run => "run".into(),
        Verb::Bench => "bench".into(),
        Verb::Nextest => "nextest".into(),
    });
    let names_a_command =
        rest.first().and_then(|word| word.to_str()).is_some_and(|word| !word.starts_with('-'));
    if verb == Verb::Nextest && !names_a_command {
        command.push("run".into());
    }
    command.extend(rest);
    command
}

/// What cargo's own flag says of colour.
fn colour_of(words: &[OsString]) -> When {
    let mut words = words.iter().take_while(|word| *word != "--").map(OsString::as_os_str);
    let mut when = When::Auto;
    while let Some(word) = words.next() {
        let value = match word.to_str().and_then(|word| word.strip_prefix("--color=")) {
            Some(value) => Some(OsStr::new(value)),
            None if word == "--color" => words.next(),
            None => None,
        };
        if let Some(named) = value.and_then(OsStr::to_str).and_then(|text| When::from_str(text, false).ok()) {
            when = named;
        }
    }
    when
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn flags_of_both_are_told_apart() {
        for (given, own, rest) in [
            ("test", "test", ""),
            (
                "test --release --mode patrol -p a -- --mode x",
                "test --mode patrol",
                "--release -p a -- --mode x",
            ),
            ("nextest run --sarif=a.sarif --lib", "nextest --sarif=a.sarif", "run --lib"),
            ("test --help", "test --help", ""),
            ("--version", "--version", ""),
            ("test name --help", "test", "name --help"),
        ] {
            assert_eq!(split(&words(given)), (words(own), words(rest)), "{given}");
        }
    }

    #[test]
    fn nextest_runs_unless_told_otherwise() {
        let line = |text| command_line(Verb::Nextest, words(text)).split_off(1);
        assert_eq!(line("--lib"), words("nextest run --lib"));
        assert_eq!(line("list --lib"), words("nextest list --lib"));
    }

    #[test]
    fn colour_is_cargos() {
        assert_eq!(colour_of(&words("--color always")), When::Always);
        assert_eq!(colour_of(&words("--color=never -- --color always")), When::Never);
    }
}
