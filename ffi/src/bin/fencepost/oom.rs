//! `fencepost oom`: what a program does when there is no memory.
//!
//! The program is run once to count its allocations, and then once for each: in the first of these runs the first
//! allocation fails, in the second the second, until one run has none left to refuse. Where that are too many, one run for
//! each stack that allocates: the first allocation from there fails. Several runs go on at a time.
//!
//! | a run | is |
//! |---|---|
//! | ends by a signal, other than `SIGABRT` | a crash |
//! | has a report: an error path that frees twice, say | an error |
//! | takes longer than its time | a hang |
//! | ends by `SIGABRT` | an abort: the program's choice, as of an exception that nobody catches |
//! | ends with status 0, and its output is not what it was | suspect: it says nothing of what it left out |
//! | ends otherwise | well done |
//!
//! Crashes, errors and hangs are told with the stack of the allocation that was refused; those that end at the same place
//! and were refused at the same place are told once.

use crate::attempt::{Item, Plan, Ran, Stage};
use crate::colour::When;
use crate::complain;
use crate::failure::Failure;
use crate::input::Input;
use crate::ledger::{self, Ledger};
use crate::passes::ending;
use crate::settings::{self, Settings};
use crate::sites::{Counts, Table};
use crate::worker::{Part, Symbolised};
use clap::Args;
use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Up to so many allocations each is refused once.
const EACH: u64 = 2000;
/// The time of a run: so many times what the program takes by itself, and at least so long.
const TIMES: u32 = 10;
const AT_LEAST: Duration = Duration::from_secs(10);
/// Groups that are told in full, and stacks that are named beside them.
const MOST_TOLD: usize = 50;
const MOST_NAMED: usize = 10;

/// What `oom --help` says besides the flags.
pub const HELP: &str = "\
What is told:
  A run that ends by a signal, has a report of an error, or takes longer than its time: with the stack of the allocation
  that was refused, and where it crashed. Runs that are alike are told once. Aborts (SIGABRT), and runs that end with
  status 0 and other output, are named and are no errors.

  Each process counts its own allocations. Runs leave no core files and are killed with the launcher.

Exit status:
  exitcode (99) if there was a crash, an error or a hang
  0             if there was none
  125           the program has errors, or ends by a signal, with nothing refused; or the launcher failed

Examples:
  fencepost oom -- ./prog input
  fencepost oom --sites --timeout 5 -- ./large input
  fencepost oom --from 100 --to 200 --fail-every 1 -- ./prog      from that allocation on all fail
";

/// Which allocations fail.
#[derive(Args)]
pub struct Oom {
    /// Begin with this allocation, counted from 1
    #[arg(long, value_name = "N", conflicts_with = "sites")]
    from: Option<u64>,
    /// End with this one [default: when a run has none left to refuse]
    #[arg(long, value_name = "N", conflicts_with = "sites")]
    to: Option<u64>,
    /// Take each N-th only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "sites")]
    step: Option<u64>,
    /// One run for each stack that allocates, whose first allocation fails [default: from 2000 allocations on]
    #[arg(long)]
    sites: bool,
    /// One run for each allocation, however many they are
    #[arg(long, conflicts_with = "sites")]
    each: bool,
    /// Runs at a time [default: the processors there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Seconds that a run may take [default: ten times what the program takes by itself, ten at least]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Write what is found as SARIF 2.1.0, too
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Leave CPython's own allocator on
    #[arg(long)]
    keep_pools: bool,
    #[command(flatten)]
    settings: Settings,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// What the user may change.
const AT_FIRST: [Item<'static>; 1] = [("mode", "hunt")];
/// What every run has.
const EVERY: [Item<'static>; 4] =
    [("report", "text"), ("log_path", ""), ("on_error", "abort"), ("sleep_before_dying", "0")];

/// How a run took the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing was left to refuse.
    Over,
    /// It ended as it likes.
    Done,
    /// It ended with status 0 and other output.
    Silent,
    /// It aborted.
    Aborted,
    /// It crashed, erred or hung.
    Wrong,
}

/// A run that is to be told of.
struct Case {
    /// Which allocation, in the order of the runs.
    index: u64,
    outcome: Outcome,
    /// How it ended, in words.
    ending: String,
    /// Options that repeat it.
    rerun: String,
    reports: Vec<String>,
}

/// What the runs come to.
#[derive(Default)]
struct Tally {
    runs: u64,
    done: u64,
    cases: Vec<Case>,
    trouble: Option<Failure>,
}

impl Oom {
    /// Runs the program as often as it takes.
    pub fn go(self, library: &Path, colour: When) -> Result<ExitCode, Failure> {
        let options =
            self.settings.between(&AT_FIRST, &[])?.resulting(env::var_os(settings::VARIABLE).as_deref());
        let status = options.exitcode;
        let input = Input::of_stdin(true)
            .map_err(|error| Failure::new(format!("cannot read the standard input: {error}")))?;
        let (settings, keep_pools) = (&self.settings, self.keep_pools);
        let stage = Stage { library, settings, command: &self.command, input, keep_pools };
        let mut ledger = Ledger::open(colour, self.sarif.clone())
            .map_err(|error| Failure::new(format!("cannot write the SARIF file: {error}")))?;
        let (plain, counts) = count(&stage)?;
        let errors = ledger.take(&plain.reports, false).found;
        if errors != 0 || plain.status.signal().is_some() {
            return Err(Failure::new(format!(
                "nothing was refused yet, and the program has errors or ends by a signal ({}): mend that first, or suppress it",
                ending(plain.status)
            )));
        }
        let whole = self.from.or(self.to).or(self.step).is_some() || self.each;
        let by_site = self.sites || !whole && counts.all > EACH;
        let (all, stacks) = (counts.all, counts.sites.len());
        let what = if by_site { "the first of each stack fails" } else { "each fails once" };
        complain(&format!("{all} allocations from {stacks} stacks, {}: {what}", ending(plain.status)));
        let runs = Runs {
            limit: self.timeout.map_or_else(|| (plain.took * TIMES).max(AT_LEAST), Duration::from_secs),
            sites: by_site.then(|| counts.sites.iter().map(|site| site.hash).collect()),
            from: self.from.unwrap_or(1).max(1),
            to: self.to.unwrap_or(u64::MAX),
            step: self.step.unwrap_or(1),
            counted: all,
            mode: options.mode.name(),
            plain,
            stage,
        };
        let jobs =
            self.jobs.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
        let tally = runs.all(jobs)?;
        let wrong = tell(&mut ledger, &tally);
        Ok(match (wrong, u8::try_from(status.min(255)).unwrap_or(u8::MAX)) {
            (0, _) => ExitCode::SUCCESS,
            (_, status) => ExitCode::from(status),
        })
    }
}

/// Runs the program with nothing refused, and counts.
fn count(stage: &Stage<'_>) -> Result<(Ran, Counts), Failure> {
    let table = Table::new()?;
    let mut after = EVERY.to_vec();
    after.push(("site_table", table.path()));
    let ran = stage.run(&Plan { before: &AT_FIRST, after: &after, limit: None, apart: true })?;
    let counts = table.read()?;
    if counts.all == 0 {
        return Err(Failure::new("the program allocates nothing, or the library was not loaded into it"));
    }
    Ok((ran, counts))
}

/// All runs.
struct Runs<'a> {
    stage: Stage<'a>,
    plain: Ran,
    mode: &'static str,
    limit: Duration,
    /// The stacks, if it is these that are gone through.
    sites: Option<Vec<u64>>,
    from: u64,
    to: u64,
    step: u64,
    /// Allocations that were counted with nothing refused.
    counted: u64,
}

impl Runs<'_> {
    fn all(&self, jobs: usize) -> Result<Tally, Failure> {
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let tally = Mutex::new(Tally::default());
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(items) = self.items(index) else { break };
                        let ran = self.run(&items);
                        let Ok(mut tally) = tally.lock() else { break };
                        match ran {
                            Ok(ran) => self.enter(index, ran, &mut tally, &over),
                            Err(failure) => {
                                tally.trouble = Some(failure);
                                over.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let mut tally = tally.into_inner().map_err(|_| Failure::new("a run could not be judged"))?;
        tally.cases.sort_by_key(|case| case.index);
        match tally.trouble.take() {
            Some(failure) => Err(failure),
            None => Ok(tally),
        }
    }

    /// What is refused in the run with this number.
    fn items(&self, index: u64) -> Option<Vec<(&'static str, String)>> {
        match &self.sites {
            Some(sites) => {
                let site = sites.get(usize::try_from(index).ok()?)?;
                Some(vec![("fail_site", format!("0x{site:x}")), ("fail_after", "0".to_owned())])
            }
            None => {
                let number = index.checked_mul(self.step)?.checked_add(self.from)?;
                (number <= self.to).then(|| vec![("fail_after", (number - 1).to_string())])
            }
        }
    }

    fn run(&self, items: &[(&'static str, String)]) -> Result<Ran, Failure> {
        let mut after = EVERY.to_vec();
        after.extend(items.iter().map(|(key, value)| (*key, value.as_str())));
        self.stage.run(&Plan { before: &AT_FIRST, after: &after, limit: Some(self.limit), apart: true })
    }

    fn enter(&self, index: u64, ran: Ran, tally: &mut Tally, over: &AtomicBool) {
        let outcome = self.judge(&ran);
        if outcome == Outcome::Over && self.is_beyond(index) {
            over.store(true, Ordering::Relaxed);
            return;
        }
        tally.runs += 1;
        if matches!(outcome, Outcome::Done | Outcome::Over) {
            tally.done += 1;
            return;
        }
        let ending = match ran.timed_out {
            true => format!("not within {} s", self.limit.as_secs()),
            false => ending(ran.status),
        };
        let mut rerun = format!("mode={}", self.mode);
        for (key, value) in self.items(index).unwrap_or_default() {
            // Writing to a string does not fail.
            let _ = write!(rerun, ":{key}={value}");
        }
        tally.cases.push(Case { index, outcome, ending, rerun, reports: ran.reports });
    }

    /// Whether nobody expects the run with this number to have something to refuse: a program need not allocate as much in
    /// each run, and a stack that was met in one run need not be met in another.
    fn is_beyond(&self, index: u64) -> bool {
        let number = index.saturating_mul(self.step).saturating_add(self.from);
        self.sites.is_none() && number > self.counted
    }

    fn judge(&self, ran: &Ran) -> Outcome {
        let has_error = ran.reports.iter().any(|raw| raw.contains("==ERROR: fencepost: "));
        let refused = ran.reports.iter().any(|raw| is_refusal(raw));
        if ran.timed_out || has_error {
            return Outcome::Wrong;
        }
        match ran.status.signal() {
            Some(libc::SIGABRT) => Outcome::Aborted,
            Some(_) => Outcome::Wrong,
            None if !refused => Outcome::Over,
            None if ran.status.success()
                && self.plain.status.success()
                && !ran.out.is_same(&self.plain.out) =>
            {
                Outcome::Silent
            }
            None => Outcome::Done,
        }
    }
}

fn is_refusal(raw: &str) -> bool {
    raw.contains("NOTE: fencepost: refused allocation ")
}

/// Cases that are alike.
struct Group {
    outcome: Outcome,
    ending: String,
    rerun: String,
    first: Vec<Symbolised>,
    count: usize,
}

/// Tells what was found; how many distinct crashes, errors and hangs there are.
fn tell(ledger: &mut Ledger, tally: &Tally) -> usize {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for case in &tally.cases {
        let read: Vec<_> = case.reports.iter().map(|raw| ledger.read(raw)).collect();
        let mut key = format!("{:?} {}", case.outcome, case.ending);
        for part in read.iter().flat_map(|report| &report.parts) {
            // The number of the allocation is no part of it.
            let _ = write!(key, "|{}", part.key);
        }
        match known.get(&key).and_then(|index| groups.get_mut(*index)) {
            Some(group) => group.count += 1,
            None => {
                known.insert(key, groups.len());
                let (outcome, ending, rerun) = (case.outcome, case.ending.clone(), case.rerun.clone());
                groups.push(Group { outcome, ending, rerun, first: read, count: 1 });
            }
        }
    }
    let of = |outcome| groups.iter().filter(move |group| group.outcome == outcome);
    let wrong = of(Outcome::Wrong).count();
    for (number, group) in of(Outcome::Wrong).take(MOST_TOLD).enumerate() {
        tell_group(ledger, number + 1, group);
    }
    if wrong > MOST_TOLD {
        complain(&format!("and {} more", wrong - MOST_TOLD));
    }
    for (outcome, what) in [
        (Outcome::Aborted, "aborts when this is refused"),
        (Outcome::Silent, "ends with status 0 and other output when this is refused"),
    ] {
        for group in of(outcome).take(MOST_NAMED) {
            let refusal = refusal(&group.first);
            let place = refusal.map_or("an unknown place", |part| part.place.as_str());
            let about = refusal.map_or("", |part| part.headline.as_str());
            complain(&format!("{what}: {place} ({about}){}", times(group.count)));
        }
        let more = of(outcome).count().saturating_sub(MOST_NAMED);
        if more != 0 {
            complain(&format!("{what}: {more} more"));
        }
    }
    let runs_of = |outcome| of(outcome).map(|group| group.count).sum::<usize>();
    complain(&format!(
        "{} runs: {} took it well, {} aborted, {} ended with status 0 and other output, {} crashed, erred or hung in {wrong} distinct ways",
        tally.runs,
        tally.done,
        runs_of(Outcome::Aborted),
        runs_of(Outcome::Silent),
        runs_of(Outcome::Wrong),
    ));
    wrong
}

fn times(count: usize) -> String {
    if count == 1 { String::new() } else { format!(", {count} times") }
}

/// The note of the allocation that was refused.
fn refusal(reports: &[Symbolised]) -> Option<&Part> {
    let parts = reports.iter().flat_map(|report| &report.parts);
    parts.into_iter().find(|part| part.headline.starts_with("refused allocation "))
}

fn tell_group(ledger: &mut Ledger, number: usize, group: &Group) {
    let place = refusal(&group.first).map_or_else(String::new, |part| format!(" {}", part.place));
    let mut text = format!(
        "==================================================================\n\
         fencepost: failed-allocation {number}: {}{}\n",
        group.ending,
        times(group.count)
    );
    for report in &group.first {
        text.push_str(&report.text);
    }
    let error = group.first.iter().find_map(ledger::error).map(|part| format!(" ({})", part.kind));
    let error = error.unwrap_or_default();
    let _ = writeln!(text, "SUMMARY: fencepost: failed-allocation{place}{error}");
    let _ = writeln!(text, "rerun with: FENCEPOST_OPTIONS={}", group.rerun);
    let headline = format!("{} after an allocation was refused at{place}{error}", group.ending);
    let notes: Vec<Part> = group.first.iter().flat_map(|report| report.parts.clone()).collect();
    ledger.enter_own("failed-allocation", &headline, &text, &notes);
}
