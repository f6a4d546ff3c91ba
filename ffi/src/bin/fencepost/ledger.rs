//! What several runs of a program found: each error once.

use crate::blocking;
use crate::collect::{self, merge};
use crate::colour::{self, When};
use crate::complain;
use crate::sarif;
use crate::worker::{Part, Symbolised, Worker};
use serde_json::Value;
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

/// Every error so far.
pub struct Ledger {
    colour: When,
    sarif: Option<PathBuf>,
    log: Value,
    worker: Worker,
    known: HashSet<String>,
    /// Errors that were printed.
    pub errors: usize,
}

/// What the reports of one run come to.
#[derive(Default)]
pub struct Verdict {
    /// Distinct errors.
    pub found: usize,
    /// Those that no run before had found.
    pub new: usize,
}

impl Ledger {
    /// An empty one; the SARIF file says so.
    pub fn open(colour: When, sarif: Option<PathBuf>) -> io::Result<Self> {
        if let Some(path) = &sarif {
            collect::begin_sarif(path)?;
        }
        let log = sarif::log(&[]);
        Ok(Self { colour, sarif, log, worker: Worker::default(), known: HashSet::new(), errors: 0 })
    }

    /// What a raw text says; as it is where it cannot be symbolised.
    pub fn read(&mut self, raw: &str) -> Symbolised {
        self.worker.read(raw)
    }

    /// The errors among `reports` that are not known yet.
    pub fn unknown(&mut self, reports: &[String]) -> Vec<Symbolised> {
        let read: Vec<_> = reports.iter().map(|raw| self.read(raw)).collect();
        read.into_iter()
            .filter(|report| error(report).is_some_and(|part| !self.known.contains(&part.key)))
            .collect()
    }

    /// Takes the reports of a run in, and prints what is new. Other texts are printed if `talks` is set, but for the
    /// process's own sum.
    pub fn take(&mut self, reports: &[String], talks: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let mut own = HashSet::new();
        for raw in reports {
            let report = self.read(raw);
            let Some(part) = error(&report) else {
                if talks
                    && !raw.contains("==SUMMARY: fencepost: ")
                    && !raw.contains("\"summary\":{\"errors\"")
                {
                    self.print(&report.text);
                }
                continue;
            };
            if !own.insert(part.key.clone()) {
                continue;
            }
            verdict.found += 1;
            if self.known.insert(part.key.clone()) {
                verdict.new += 1;
                self.enter(&report);
            }
        }
        verdict
    }

    /// Prints an error and takes it into the SARIF file.
    pub fn enter(&mut self, report: &Symbolised) {
        self.errors += 1;
        self.print(&report.text);
        merge(&mut self.log, &mut report.sarif.clone());
        self.write();
    }

    /// Takes in an error of the launcher's own, which `text` tells a person of, and which follows from these notes.
    pub fn enter_own(&mut self, kind: &str, headline: &str, text: &str, notes: &[Part]) {
        let notes: Vec<&Value> = notes.iter().map(|part| &part.note).filter(|note| !note.is_null()).collect();
        let sarif = sarif::own(kind, headline, &notes);
        self.enter(&Symbolised { text: text.to_owned(), sarif, parts: Vec::new() });
    }

    /// Prints to standard error.
    pub fn print(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let painted = if self.colour.applies(&stderr) { colour::paint(text) } else { text.to_owned() };
        // A closed standard error is no reason to stop.
        let _ = blocking::write_all(&mut stderr, painted.as_bytes());
    }

    fn write(&self) {
        if let Some(path) = &self.sarif
            && let Err(error) = collect::write_sarif(path, &self.log)
        {
            complain(&format!("warning: cannot write {}: {error}", path.display()));
        }
    }
}

/// The error that a text reports, if it does.
pub fn error(report: &Symbolised) -> Option<&Part> {
    report.parts.iter().find(|part| !part.kind.is_empty())
}
