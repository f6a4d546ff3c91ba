//! What all programs that cargo starts find: each error once, and the tests that commit it.

use super::names::Names;
use super::runner::{self, Run};
use crate::blocking;
use crate::collect;
use crate::colour::{self, When};
use crate::complain;
use crate::ledger::error;
use crate::printable::printable;
use crate::sarif;
use crate::worker::{Part, Worker};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Tests of one finding that the sum names.
const MOST_NAMES: usize = 10;

/// How findings are shown.
pub struct Manner {
    /// When they are coloured.
    pub colour: When,
    /// The SARIF file to write.
    pub sarif: Option<PathBuf>,
}

/// An error and who commits it.
struct Finding {
    site: String,
    kind: String,
    place: String,
    times: usize,
    /// Tests, or programs that are no tests.
    by: Vec<String>,
}

/// Everything so far.
pub struct Findings {
    manner: Manner,
    notes: PathBuf,
    runs: Vec<Run>,
    worker: Worker,
    names: Names,
    log: Value,
    found: Vec<Finding>,
}

impl Findings {
    /// None yet; the SARIF file says so. `notes` is what runners write.
    pub fn open(manner: Manner, notes: PathBuf) -> io::Result<Self> {
        if let Some(path) = &manner.sarif {
            collect::begin_sarif(path)?;
        }
        Ok(Self {
            manner,
            notes,
            runs: Vec::new(),
            worker: Worker::default(),
            names: Names::default(),
            log: sarif::log(&[]),
            found: Vec::new(),
        })
    }

    /// Distinct errors.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// Programs that ran without the library.
    pub fn unwatched(&self) -> usize {
        self.runs.iter().filter(|run| run.obstacle.is_some()).count()
    }

    /// Takes in what a process wrote, and prints it if it is new.
    pub fn take(&mut self, raw: &str) -> io::Result<()> {
        let mut symbolised = self.worker.read(raw);
        let Some(part) = error(&symbolised).cloned() else {
            // The sum of a process is part of the sum of all.
            let is_sum = raw.contains("==SUMMARY: fencepost: ") || raw.contains("\"summary\":{\"errors\"");
            return if is_sum { Ok(()) } else { self.print(&symbolised.text) };
        };
        self.read_notes();
        let run = self.runs.iter().rev().find(|run| run.pid == part.pid);
        let test = self.names.test_of(&part, run);
        let by = name_of(test.as_deref(), run, &part);
        let index = self.found.iter().position(|finding| finding.site == part.site);
        if let Some((index, finding)) = index.and_then(|index| Some((index, self.found.get_mut(index)?))) {
            finding.times = finding.times.saturating_add(1);
            if finding.by.contains(&by) {
                return Ok(());
            }
            let again = format!("fencepost: again: {} {}, {by}\n", part.kind, part.place);
            finding.by.push(by);
            let by = json!(finding.by);
            self.log["runs"][0]["results"][index]["properties"]["tests"] = by;
            self.write();
            return self.print(&again);
        }
        self.print(&with_test(&symbolised.text, &by))?;
        let result = &mut symbolised.sarif["runs"][0]["results"][0];
        if let Some(message) = result["message"]["text"].as_str() {
            result["message"]["text"] = json!(format!("{message}; {by}"));
            result["properties"]["tests"] = json!([by]);
        }
        collect::merge(&mut self.log, &mut symbolised.sarif);
        self.write();
        let (site, kind, place) = (part.site, part.kind, part.place);
        self.found.push(Finding { site, kind, place, times: 1, by: vec![by] });
        Ok(())
    }

    /// Says what was found in all.
    pub fn sum_up(&mut self) {
        self.read_notes();
        let times: usize = self.found.iter().map(|finding| finding.times).sum();
        let mut text = format!(
            "fencepost: {} in {}\n",
            counted(self.found.len(), "finding"),
            counted(self.runs.len(), "program")
        );
        if times != self.found.len() {
            text = text.replace(" in ", &format!(", reported {times} times, in "));
        }
        for finding in &self.found {
            text.push_str(&format!("  {} {}\n", finding.kind, finding.place));
            for by in finding.by.iter().take(MOST_NAMES) {
                text.push_str(&format!("      {by}\n"));
            }
            let more = finding.by.len().saturating_sub(MOST_NAMES);
            if more != 0 {
                text.push_str(&format!("      and {more} more\n"));
            }
        }
        for run in self.runs.iter().filter(|run| run.obstacle.is_some()) {
            text.push_str(&format!(
                "fencepost: not watched: {}: {}\n",
                printable(run.binary.as_os_str().as_bytes()),
                run.obstacle.as_deref().unwrap_or_default()
            ));
        }
        if self.unwatched() != 0 {
            text.push_str(
                "fencepost: tests that cannot be preloaded into have fencepost as a crate instead: \
                 #[cfg(test)] #[global_allocator] static HEAP: fencepost::Fencepost\n",
            );
        }
        let _ = self.print(&text);
    }

    fn read_notes(&mut self) {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        self.runs.extend(text.lines().skip(self.runs.len()).filter_map(runner::read));
    }

    fn print(&self, text: &str) -> io::Result<()> {
        let mut stderr = io::stderr().lock();
        let painted = if self.manner.colour.applies(&stderr) { colour::paint(text) } else { text.to_owned() };
        blocking::write_all(&mut stderr, painted.as_bytes())
    }

    fn write(&self) {
        if let Some(path) = &self.manner.sarif
            && let Err(error) = collect::write_sarif(path, &self.log)
        {
            complain(&format!("warning: cannot write {}: {error}", path.display()));
        }
    }
}

/// `test NAME (PROGRAM)`, or the program alone.
fn name_of(test: Option<&str>, run: Option<&Run>, part: &Part) -> String {
    let binary = run.map_or_else(|| Path::new(&part.module), |run| &run.binary);
    let program = printable(label(binary).as_bytes());
    match test {
        Some(test) => format!("test {} ({program})", printable(test.as_bytes())),
        None => format!("program {program}"),
    }
}

/// What a binary of cargo's is called, without the hash in its file's name.
fn label(binary: &Path) -> String {
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    if name == "rust_out" {
        return "doctest".to_owned();
    }
    match name.rsplit_once('-') {
        Some((stem, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            stem.to_owned()
        }
        _ => name.into_owned(),
    }
}

/// A report with a line that says which test it is of.
fn with_test(text: &str, by: &str) -> String {
    let (begin, line) = ("rerun with: ", format!("in {by}\n"));
    match text.find(&format!("\n{begin}")) {
        Some(at) => {
            let (before, after) = text.split_at(at.saturating_add(1));
            format!("{before}{line}{after}")
        }
        None => format!("{text}{line}"),
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_no_name() {
        for (path, expected) in [
            ("/t/deps/tiny_crate-3d8a8932c92e725b", "tiny_crate"),
            ("/t/debug/my-tool", "my-tool"),
            ("/tmp/rustdoctestAb/rust_out", "doctest"),
        ] {
            assert_eq!(label(Path::new(path)), expected);
        }
    }

    #[test]
    fn the_test_stands_in_the_report() {
        assert_eq!(with_test("a\nrerun with: x\nb\n", "test t (c)"), "a\nin test t (c)\nrerun with: x\nb\n");
        assert_eq!(with_test("{}\n", "test t (c)"), "{}\nin test t (c)\n");
    }
}
