//! Symbolising in a process apart.
//!
//! Debug information is large and comes from anywhere; a reader that trips over it, runs out of memory or
//! does not come back must cost no report and not the launcher. So the launcher runs itself once more:
//! a line of JSON with the raw text goes in, a line with the symbolised text and the results comes out.
//! The process is started with the first report and kept, since it remembers what it has loaded. It has a
//! process group of its own: Ctrl-C is for the program.

use crate::launch::PRELOAD;
use crate::library;
use crate::model::Report;
use crate::rewrite::rewrite;
use crate::sarif;
use crate::symbols::Symbols;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// The hidden subcommand.
pub const COMMAND: &str = "__symbolize";
/// What one report may take: less than the process waits that it is about.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A symbolised report.
#[derive(Debug, Default, PartialEq)]
pub struct Symbolised {
    /// The text.
    pub text: String,
    /// Its SARIF log.
    pub sarif: Value,
    /// The reports and notes in it.
    pub parts: Vec<Part>,
}

/// A report or a note, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The kind of error; empty for a note.
    pub kind: String,
    /// What it says first.
    pub headline: String,
    /// See [`Report::key`](crate::model::Report::key).
    pub key: String,
    /// Where it was found.
    pub place: String,
    /// See [`sarif::note`].
    pub note: Value,
    /// The process.
    pub pid: u64,
    /// See [`Report::site`](crate::model::Report::site).
    pub site: String,
    /// See [`Report::test`](crate::model::Report::test).
    pub test: Option<String>,
    /// The program's own module that it was found in.
    pub module: String,
}

impl Part {
    fn write(report: &Report) -> Value {
        let note = if report.is_error() { Value::Null } else { sarif::note(report) };
        json!({
            "kind": report.kind,
            "headline": report.headline,
            "key": report.key(),
            "place": report.whereabouts().unwrap_or_default(),
            "note": note,
            "pid": report.pid,
            "site": report.site(),
            "test": report.test,
            "module": report.users_frame().and_then(|frame| frame.place.as_ref()).map(|place| &place.module),
        })
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |key| value.get(key)?.as_str().map(str::to_owned);
        Some(Self {
            kind: text("kind")?,
            headline: text("headline")?,
            key: text("key")?,
            place: text("place")?,
            note: value.get("note").cloned().unwrap_or_default(),
            pid: value.get("pid")?.as_u64()?,
            site: text("site")?,
            test: text("test"),
            module: text("module").unwrap_or_default(),
        })
    }
}

/// The process, if there is one.
#[derive(Default)]
pub struct Worker {
    running: Option<Running>,
}

struct Running {
    child: Child,
    answers: Receiver<String>,
}

impl Worker {
    /// Symbolises `raw`; where that fails, what can be read in it as it is.
    pub fn read(&mut self, raw: &str) -> Symbolised {
        self.symbolise(raw).unwrap_or_else(|| {
            let kind = raw.split_once("ERROR: fencepost: ").and_then(|(_, rest)| rest.split(' ').next());
            let kind = kind.unwrap_or_default().to_owned();
            let raw = raw.to_owned();
            let part =
                Part { key: raw.clone(), site: raw.clone(), headline: raw.clone(), kind, ..Part::default() };
            Symbolised { text: raw, parts: vec![part], sarif: sarif::log(&[]) }
        })
    }

    /// Symbolises `raw`; `None` if that failed, whyever.
    pub fn symbolise(&mut self, raw: &str) -> Option<Symbolised> {
        if self.running.is_none() {
            self.running = Running::start();
        }
        let symbolised = self.running.as_mut().and_then(|running| running.ask(raw));
        if symbolised.is_none()
            && let Some(mut failed) = self.running.take()
        {
            failed.end();
        }
        symbolised
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.end();
        }
    }
}

impl Running {
    fn start() -> Option<Self> {
        let mut command = Command::new(library::own_path().ok()?);
        command.arg(COMMAND).env_remove(PRELOAD).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let stdout = child.stdout.take()?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, answers })
    }

    fn ask(&mut self, raw: &str) -> Option<Symbolised> {
        let question = format!("{}\n", json!({ "raw": raw }));
        self.child.stdin.as_mut()?.write_all(question.as_bytes()).ok()?;
        let answer = self.answers.recv_timeout(TIMEOUT).ok()?;
        let mut answer: Value = serde_json::from_str(&answer).ok()?;
        let text = answer.get("text")?.as_str()?.to_owned();
        let parts = answer.get("parts")?.as_array()?.iter().map(Part::read).collect::<Option<_>>()?;
        Some(Symbolised { text, parts, sarif: answer.get_mut("sarif")?.take() })
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: answers until its input ends.
pub fn serve() -> ExitCode {
    let mut symbols = Symbols::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Some(question) = line.ok().and_then(|line| serde_json::from_str::<Value>(&line).ok()) else {
            return ExitCode::FAILURE;
        };
        let raw = question.get("raw").and_then(Value::as_str).unwrap_or_default();
        let (text, reports) = rewrite(raw, &mut symbols);
        let parts: Vec<Value> = reports.iter().map(Part::write).collect();
        let answer = json!({ "text": text, "sarif": sarif::log(&reports), "parts": parts });
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program is no worker: it does not know the subcommand and ends.
    #[test]
    fn a_worker_that_fails_is_given_up() {
        let mut worker = Worker::default();
        for _ in 0..2 {
            assert_eq!(worker.symbolise("a report"), None);
            assert!(worker.running.is_none());
        }
    }
}
