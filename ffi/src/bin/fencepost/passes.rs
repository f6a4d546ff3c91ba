//! `hunt --passes=all`: the program again and again, each time with its objects laid out otherwise.
//!
//! A guard page stops what touches it. Which accesses do is a matter of how objects lie in their pages, and no one
//! way shows all. Each pass is a run of the program with the same arguments and input; what a pass finds is printed if
//! no pass before has found it. The program's own output is that of the first pass.
//!
//! | pass | objects | what it cannot see |
//! |---|---|---|
//! | `right` | end at their guard, but for the slack that alignment leaves | [`PASSES`] |
//! | `left` | begin at it | |
//! | `exact` | end at it to the byte, aligned to nothing | |
//! | `fill` | as in `right`, filled with two patterns, one after the other; see [`crate::unwritten`] | |
//! | `random` | on either side, from another seed: as long as such passes find something new | |
//!
//! Errors let the program go on (`on_error=continue`) unless the user says otherwise, so that a pass finds more than its
//! first one. The program's own status stays what it is, so that runs can be compared.
//!
//! In `exact` a correct program may break: it has a right to aligned objects. So what that pass finds counts only where it
//! finds nothing but overflows that others cannot see, and the program does not end by a signal.

use crate::attempt::{Item, Plan, Ran, Stage};
use crate::complain;
use crate::failure::Failure;
use crate::input::Input;
use crate::launch::Manner;
use crate::ledger::{self, Ledger};
use crate::settings::{self, Settings};
use crate::supervise;
use crate::unwritten;
use clap::ValueEnum;
use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, SystemTime};

/// What `hunt --help` says besides the flags.
pub const HELP: &str = "\
Passes (--passes=all):
  The program runs several times with the same arguments. A regular file on standard input is read anew by each run, a
  pipe is read to its end before the first. The output shown is the first run's.

  right         objects end at their guard page, but for what alignment leaves
  left          they begin at it
  exact         they end at it to the byte, aligned to nothing; does not count where the program does not bear that
  fill          fresh memory is filled with 0x5a, then with 0xa5: if output or end differ, the program reads memory that
                it never wrote, and the allocation is found by bisection
  random        on either side, from other seeds, until such a pass finds nothing new

  Each error is printed once. Errors let the program go on, unless --on-error says otherwise.

Exit status (--passes=all):
  exitcode (99) if there were errors; --exitcode 0 leaves the program's own
  otherwise as the program ended in the first pass
  125           the launcher failed; 126, 127: the program cannot be executed, was not found
";

/// How many passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Passes {
    /// One run: the program itself, with nothing in between.
    #[default]
    One,
    /// Several, until one finds nothing new.
    All,
}

/// Passes that differ in how objects lie in their pages: the name, the options, what such a pass cannot see.
const PASSES: &[(&str, &[Item<'static>], &str)] = &[
    (
        "right",
        &[("guard_side", "right"), ("align", "abi")],
        "accesses less than a page before an object, reads of the up to 15 bytes that alignment leaves behind it",
    ),
    (
        "left",
        &[("guard_side", "left"), ("align", "abi")],
        "reads behind an object that stay in its last page",
    ),
    ("exact", &[("guard_side", "right"), ("align", "exact")], "accesses less than a page before an object"),
];
/// Random passes at most.
const MOST_RANDOM: u64 = 8;
/// The one kind of error that `exact` finds and no other pass.
const OF_EXACT: &str = "heap-buffer-overflow";

/// What every pass has: errors are counted here, and reports come here.
pub const EVERY: [Item<'static>; 2] = [("exitcode", "0"), ("log_path", "")];
/// What the user may change.
pub const AT_FIRST: [Item<'static>; 1] = [("on_error", "continue")];

/// Runs all passes.
pub fn hunt(
    library: &Path,
    settings: &Settings,
    command: &[OsString],
    manner: Manner,
    timeout: Option<u64>,
) -> Result<ExitCode, Failure> {
    let Manner { colour, sarif, keep_pools, .. } = manner;
    let options = settings.resulting(env::var_os(settings::VARIABLE).as_deref());
    if !options.log_path.as_bytes().is_empty() {
        return Err(Failure::new(
            "--passes=all collects the reports and prints them: log_path cannot be set",
        ));
    }
    let seed = match options.seed {
        0 => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |time| u64::from(time.subsec_nanos()) + 1),
        seed => seed,
    };
    let input = Input::of_stdin(false)
        .map_err(|error| Failure::new(format!("cannot read the standard input: {error}")))?;
    let ledger = Ledger::open(colour, sarif)
        .map_err(|error| Failure::new(format!("cannot write the SARIF file: {error}")))?;
    let stage = Stage { library, settings, command, input, keep_pools };
    let mut hunt = Hunt {
        stage,
        ledger,
        seed,
        limit: timeout.map(Duration::from_secs),
        number: 0,
        first: None,
        again: None,
    };
    hunt.all()?;
    Ok(hunt.end(options.exitcode))
}

/// A hunt under way.
pub struct Hunt<'a> {
    /// The program.
    pub stage: Stage<'a>,
    /// What was found.
    pub ledger: Ledger,
    /// The seed of the passes that are compared.
    pub seed: u64,
    /// What a pass may take.
    limit: Option<Duration>,
    /// Passes so far.
    number: usize,
    first: Option<Ran>,
    /// The first pass once more.
    again: Option<Ran>,
}

impl Hunt<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        for (name, items, blind) in PASSES {
            let ran = self.run(items, self.seed)?;
            self.number += 1;
            match *name {
                "exact" => self.judge_exact(&ran, blind),
                _ => self.judge(name, &ran, blind),
            }
            if self.first.is_none() {
                self.first = Some(ran);
            } else if *name != "exact" {
                self.compare(name, &ran)?;
            }
        }
        unwritten::search(self)?;
        for more in 1..=MOST_RANDOM {
            let seed = self.seed.wrapping_add(more).max(1);
            let ran = self.run(&[("guard_side", "random"), ("align", "abi")], seed)?;
            self.number += 1;
            let name = format!("random, seed {seed}");
            let verdict = self.ledger.take(&ran.reports, false);
            let last = if verdict.new == 0 { "; the last of its kind" } else { "" };
            self.say(&name, verdict.found, verdict.new, last);
            self.compare(&name, &ran)?;
            if verdict.new == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Runs the program with these options and this seed.
    pub fn run(&self, items: &[Item<'_>], seed: u64) -> Result<Ran, Failure> {
        let seed = seed.to_string();
        let mut after = EVERY.to_vec();
        after.extend([("seed", seed.as_str())]);
        after.extend_from_slice(items);
        let ran =
            self.stage.run(&Plan { before: &AT_FIRST, after: &after, limit: self.limit, apart: false })?;
        if let (true, Some(limit)) = (ran.timed_out, self.limit) {
            complain(&format!("killed after {} s", limit.as_secs()));
        }
        Ok(ran)
    }

    fn judge(&mut self, name: &str, ran: &Ran, blind: &str) {
        let first = self.first.is_none();
        if first {
            show(ran);
        }
        let verdict = self.ledger.take(&ran.reports, first);
        self.say(name, verdict.found, verdict.new, &format!("; cannot see {blind}"));
    }

    /// A pass that a correct program may not bear.
    fn judge_exact(&mut self, ran: &Ran, blind: &str) {
        let unknown = self.ledger.unknown(&ran.reports);
        let other = unknown.iter().filter_map(ledger::error).find(|part| part.kind != OF_EXACT);
        let trouble = match (ran.status.signal(), other) {
            (Some(signal), _) => Some(format!("ended by signal {signal}")),
            (None, Some(part)) => Some(format!("has a {} in this pass alone", part.kind)),
            (None, None) => None,
        };
        let ended_so = self.first.as_ref().is_some_and(|first| first.status == ran.status);
        match trouble.filter(|_| !ended_so || !unknown.is_empty()) {
            Some(trouble) => complain(&format!(
                "pass {}, exact: does not count: the program {trouble}; it relies on the alignment of its objects",
                self.number
            )),
            None => {
                let verdict = self.ledger.take(&ran.reports, false);
                self.say("exact", verdict.found, verdict.new, &format!("; cannot see {blind}"));
            }
        }
    }

    /// Says what a pass found.
    pub fn say(&self, name: &str, found: usize, new: usize, more: &str) {
        let found = match found {
            0 => "nothing found".to_owned(),
            1 => format!("1 error, {new} new"),
            found => format!("{found} errors, {new} new"),
        };
        complain(&format!("pass {}, {name}: {found}{more}", self.number));
    }

    /// Counts a pass.
    pub fn count(&mut self) {
        self.number += 1;
    }

    /// The first pass.
    pub fn first(&self) -> Option<&Ran> {
        self.first.as_ref()
    }

    /// In what a run differs from the first pass, of that which is the same in each run like the first.
    pub fn difference(&mut self, ran: &Ran) -> Result<Vec<Difference>, Failure> {
        let Some(first) = &self.first else { return Ok(Vec::new()) };
        let mut differs = Difference::between(first, ran);
        if differs.is_empty() {
            return Ok(differs);
        }
        if self.again.is_none() {
            let again = self.run(PASSES.first().map_or(&[], |(_, items, _)| items), self.seed)?;
            let by_itself =
                self.first.as_ref().map_or_else(Vec::new, |first| Difference::between(first, &again));
            for what in &by_itself {
                complain(&format!("the program's {} differs from run to run: it is not judged", what.name()));
            }
            self.again = Some(again);
        }
        if let (Some(first), Some(again)) = (&self.first, &self.again) {
            let by_itself = Difference::between(first, again);
            differs.retain(|what| !by_itself.contains(what));
        }
        Ok(differs)
    }

    /// Tells of a pass in which the program did something else, and no error says why.
    fn compare(&mut self, name: &str, ran: &Ran) -> Result<(), Failure> {
        let has_errors = |ran: &Ran| !ran.reports.is_empty();
        if has_errors(ran) || self.first.as_ref().is_some_and(has_errors) {
            return Ok(());
        }
        for what in self.difference(ran)? {
            if let Some(first) = &self.first {
                let detail = what.detail(first, ran);
                complain(&format!(
                    "pass {}, {name}: nothing was found, and yet the program's {} differs from the first pass's: {detail}",
                    self.number,
                    what.name()
                ));
            }
        }
        Ok(())
    }

    /// Sums up, and ends as is fit: with `status` if there was an error, else as the program ended.
    fn end(self, status: u64) -> ExitCode {
        let (errors, passes) = (self.ledger.errors, self.number);
        let errors_are = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
        complain(&format!(
            "{errors_are} in {passes} passes. No pass sees code that did not run, stray accesses that hit another live \
             object, memory that the program hands out itself (pools), and memory that is not the heap's"
        ));
        if errors != 0 && status != 0 {
            return ExitCode::from(u8::try_from(status.min(255)).unwrap_or(u8::MAX));
        }
        self.first.map_or(ExitCode::SUCCESS, |first| supervise::end_like(first.status))
    }
}

/// Shows what the program wrote.
fn show(ran: &Ran) {
    for (captured, to_stdout) in [(&ran.out, true), (&ran.err, false)] {
        let bytes = captured.bytes().unwrap_or_default();
        // That nobody reads on is no error.
        let _ = match to_stdout {
            true => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes).and_then(|()| out.flush())
            }
            false => io::stderr().lock().write_all(&bytes),
        };
    }
}

/// What can differ between two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// How the program ended.
    Status,
    /// What it wrote to its standard output.
    Out,
    /// What it wrote to its standard error.
    Err,
}

impl Difference {
    /// In what two runs differ.
    pub fn between(one: &Ran, other: &Ran) -> Vec<Self> {
        let mut differs = Vec::new();
        if one.status != other.status {
            differs.push(Self::Status);
        }
        if !one.out.is_same(&other.out) {
            differs.push(Self::Out);
        }
        if !one.err.says_the_same(&other.err) {
            differs.push(Self::Err);
        }
        differs
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "end",
            Self::Out => "standard output",
            Self::Err => "standard error",
        }
    }

    /// The first thing that is not the same.
    pub fn detail(self, one: &Ran, other: &Ran) -> String {
        if self == Self::Status {
            return format!("{}, not {}", ending(other.status), ending(one.status));
        }
        let (one, other) = if self == Self::Out { (&one.out, &other.out) } else { (&one.err, &other.err) };
        let (one, other) = (one.bytes().unwrap_or_default(), other.bytes().unwrap_or_default());
        let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (one, other) = (lines(&one), lines(&other));
        let number = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        let shown = |lines: &[Vec<u8>]| {
            lines
                .get(number)
                .map_or_else(|| "missing".to_owned(), |line| format!("\u{2018}{}\u{2019}", excerpt(line)))
        };
        format!("line {} is {}, not {}", number + 1, shown(&other), shown(&one))
    }
}

/// The beginning of a line.
fn excerpt(line: &[u8]) -> String {
    const MOST: usize = 80;
    let text = crate::printable::printable(line.get(..MOST).unwrap_or(line));
    if line.len() > MOST { format!("{text}\u{2026}") } else { text }
}

/// How a program ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("status {code}"),
        _ => "neither status nor signal".to_owned(),
    }
}
