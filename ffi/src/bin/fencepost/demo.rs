//! `fencepost demo`: three bugs, three reports, and whether each is what it should be.
//!
//! The launcher runs itself as the buggy program, with options of its own in place of the user's and
//! nothing else preloaded, so that the demonstration is the same everywhere. A bug counts as detected only if the
//! report names the expected kind and comes from the victim's process, and the process ended by the
//! expected signal.

use crate::failure::Failure;
use crate::launch::PRELOAD;
use crate::rewrite::rewrite;
use crate::symbols::Symbols;
use crate::victim::{self, Bug};
use crate::{collect, library, print, settings};
use clap::ValueEnum;
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// What the victims run with. The last items undo what `/etc/fencepost.conf` may say.
const OPTIONS: &str = "mode=hunt:align=exact:guard_side=right:report=text:log_path=:on_error=abort";

/// One part of the demonstration.
struct Act {
    bug: Bug,
    title: &'static str,
    story: &'static str,
    kind: &'static str,
    signal: i32,
}

const ACTS: &[Act] = &[
    Act {
        bug: Bug::Overflow,
        title: "heap overflow",
        story: "The program writes one byte past an object of 13 bytes. The object ends exactly at a \
                guard page,\nso the write itself faults.",
        kind: "heap-buffer-overflow",
        signal: libc::SIGSEGV,
    },
    Act {
        bug: Bug::UseAfterFree,
        title: "use after free",
        story: "The program frees an object of 64 bytes and reads it. Its page went back to the kernel \
                at the free,\nso the read itself faults.",
        kind: "heap-use-after-free",
        signal: libc::SIGSEGV,
    },
    Act {
        bug: Bug::DoubleFree,
        title: "double free",
        story: "The program frees an object of 64 bytes twice. The state of every object is kept apart \
                from the object,\nso the second free is recognised.",
        kind: "double-free",
        signal: libc::SIGABRT,
    },
];

/// How one act ended.
struct Outcome {
    process: u32,
    status: ExitStatus,
    text: String,
}

/// Runs all three; status 1 if any was not detected as it should be.
pub fn demo(library: &Path) -> Result<ExitCode, Failure> {
    let mut summary = String::from("Summary\n");
    let mut missed = false;
    let mut symbols = Symbols::default();
    for (index, act) in ACTS.iter().enumerate() {
        print(&format!("{}/{}  {}\n{}\n\n", index.saturating_add(1), ACTS.len(), act.title, act.story))?;
        let outcome = perform(library, act)?;
        let (report, _) = rewrite(outcome.text.trim_end(), &mut symbols);
        print(&format!("{}\n\n", if report.is_empty() { "(no report)" } else { &report }))?;
        missed |= !outcome.matches(act);
        // Writing to a string does not fail.
        let _ = writeln!(summary, "{}", outcome.verdict(act));
    }
    print(&summary)?;
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn perform(library: &Path, act: &Act) -> Result<Outcome, Failure> {
    let name = act.bug.to_possible_value().map(|value| value.get_name().to_owned());
    let child = Command::new(library::own_path()?)
        .arg(victim::COMMAND)
        .args(name)
        .env(PRELOAD, library)
        .env(settings::VARIABLE, OPTIONS)
        .env_remove(collect::VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start the buggy program: {error}")))?;
    let process = child.id();
    let output =
        child.wait_with_output().map_err(|error| Failure::new(format!("cannot read the report: {error}")))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Outcome { process, status: output.status, text })
}

impl Outcome {
    /// The kind in the report's first line, if it is of this process and the summary agrees.
    fn kind(&self) -> Option<&str> {
        let opening = format!("=={}==ERROR: fencepost: ", self.process);
        let first = self.text.lines().find_map(|line| line.strip_prefix(&opening))?;
        let kind = first.split_whitespace().next()?;
        let closing = format!("SUMMARY: fencepost: {kind}");
        self.text.lines().any(|line| line.starts_with(&closing)).then_some(kind)
    }

    fn matches(&self, act: &Act) -> bool {
        self.kind() == Some(act.kind) && self.status.signal() == Some(act.signal)
    }

    /// One line: what was expected, what came, how it ended.
    fn verdict(&self, act: &Act) -> String {
        let kind = self.kind().unwrap_or("no report");
        let end = ending(self.status);
        if self.matches(act) {
            return format!("  ok      {:15} {kind:21} {end}", act.title);
        }
        let wanted = format!("{} and {}", act.kind, signal_name(act.signal));
        format!("  MISSED  {:15} {kind:21} {end} (expected {wanted})", act.title)
    }
}

/// How a process ended, in words.
fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => signal_name(signal),
        (None, Some(0)) => "ended normally".to_owned(),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => status.to_string(),
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGSEGV => "SIGSEGV".to_owned(),
        libc::SIGABRT => "SIGABRT".to_owned(),
        libc::SIGBUS => "SIGBUS".to_owned(),
        libc::SIGALRM => "SIGALRM (it hung)".to_owned(),
        other => format!("signal {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `raw` is a wait status: a signal number, or an exit status shifted by 8.
    fn outcome(raw: i32, text: &str) -> Outcome {
        Outcome { process: 7, status: ExitStatus::from_raw(raw), text: text.to_owned() }
    }

    const REPORT: &str = "==7==ERROR: fencepost: double-free on address 0x10 at pc 0x20\n\
                          SUMMARY: fencepost: double-free in free_again\n";

    #[test]
    fn a_report_counts_only_with_kind_process_summary_and_signal() {
        let act = &ACTS[2];
        assert!(outcome(libc::SIGABRT, REPORT).matches(act));
        assert!(!outcome(libc::SIGSEGV, REPORT).matches(act), "another signal");
        assert!(!outcome(0, REPORT).matches(act), "no signal");
        assert!(!outcome(libc::SIGABRT, &REPORT.replace("==7==", "==8==")).matches(act));
        assert!(!outcome(libc::SIGABRT, &REPORT.replace("double-", "invalid-")).matches(act));
        assert!(!outcome(libc::SIGABRT, &REPORT.replace("SUMMARY", "")).matches(act));
        assert!(!outcome(libc::SIGABRT, "").matches(act), "no report");
    }
}
