//! What a run must look like, and the verdict on one.
//!
//! Detection is exact: the kind, the relation of the address to the object, the access, the stacks, the
//! process and the signal. "It died somehow" is not detection.

use super::process::{End, Run};
use super::report::{Access, Relation, Report};

/// Where a bug is found: decides the signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// At the access, by a fault on a guard.
    AtAccess,
    /// At a free, at reuse or at exit, by a check.
    ByCheck,
}

impl Found {
    const fn signal(self) -> i32 {
        match self {
            Self::AtAccess => libc::SIGSEGV,
            Self::ByCheck => libc::SIGABRT,
        }
    }
}

/// What the one report of a run must say. `None` for a relation or an access means that there must be
/// none; a stack that is not asked for may be there.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    pub kind: &'static str,
    pub found: Found,
    pub relation: Option<Relation>,
    pub access: Option<Access>,
    pub alloc_stack: bool,
    pub free_stack: bool,
    /// The report comes from a child whose process id is the program's output.
    pub in_child: bool,
}

/// The judgement on a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Match,
    /// No report.
    Miss(String),
    /// A report, or an end, other than expected.
    Mismatch(String),
}

impl Expectation {
    /// Compares `run` with the expectation.
    pub fn judge(&self, run: &Run) -> Verdict {
        let reports = Report::parse_all(&run.stderr);
        let report = match reports.as_slice() {
            [] => return Verdict::Miss(format!("no report, {}", run.end)),
            [report] => report,
            more => return Verdict::Mismatch(format!("{} reports", more.len())),
        };
        let mut wrong = Vec::new();
        let mut compare = |what: &str, got: String, wanted: String| {
            if got != wanted {
                wrong.push(format!("{what} is {got}, expected {wanted}"));
            }
        };
        compare("kind", report.kind.clone(), self.kind.to_owned());
        compare("end", run.end.to_string(), End::Signal(self.found.signal()).to_string());
        compare("relation", say(&report.relation), say(&self.relation));
        let access = report.access.map(|(access, _)| access);
        compare("access", say(&access), say(&self.access));
        if self.alloc_stack {
            compare("allocation stack", say(&report.has_alloc_stack), say(&true));
        }
        if self.free_stack {
            compare("free stack", say(&report.has_free_stack), say(&true));
        }
        let pid = if self.in_child { run.stdout.trim().to_owned() } else { run.pid.to_string() };
        compare("process", report.pid.to_string(), pid);
        let summary = report.summary.as_deref().unwrap_or("missing");
        let summary_kind = summary.split(' ').next().unwrap_or_default();
        compare("summary", summary_kind.to_owned(), self.kind.to_owned());
        if wrong.is_empty() { Verdict::Match } else { Verdict::Mismatch(wrong.join("; ")) }
    }
}

/// A correct program: it ends with `end`, and the library says nothing.
pub fn judge_silent(run: &Run, end: End) -> Verdict {
    let said = |line: &&str| line.contains("fencepost:") && !is_degraded(line);
    if let Some(line) = run.stderr.lines().find(said) {
        return Verdict::Mismatch(format!("{line:?}, {}", run.end));
    }
    if run.end != end {
        let output = [run.stdout.trim(), run.stderr.trim()].join(" ");
        return Verdict::Mismatch(format!("{}, expected {end}: {output}", run.end));
    }
    Verdict::Match
}

/// Whether a line says that the process has less protection than it might, which is no error.
pub fn is_degraded(line: &str) -> bool {
    line.starts_with("fencepost: the mappings that vm.max_map_count allows are in use")
        || line == "fencepost: no protection keys here: seal=pkey changes nothing"
}

fn say(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::super::report::Side;
    use super::*;
    use std::time::Duration;

    const TEXT: &str = "\
==7==ERROR: fencepost: double-free on address 0x10 at pc 0x20
found by thread T7
0x10 is located 0 bytes inside of 64-byte region [0x10,0x50), freed
allocated by thread T7 here:
    #0 0x30 (a+0x30)
freed by thread T7 here:
    #0 0x40 (a+0x40)
SUMMARY: fencepost: double-free (a+0x20)
";

    const EXPECTED: Expectation = Expectation {
        kind: "double-free",
        found: Found::ByCheck,
        relation: Some(Relation { distance: 0, side: Side::Inside, object_size: 64 }),
        access: None,
        alloc_stack: true,
        free_stack: true,
        in_child: false,
    };

    fn run(end: End, stderr: &str) -> Run {
        Run { pid: 7, end, stdout: String::new(), stderr: stderr.to_owned(), time: Duration::ZERO }
    }

    #[test]
    fn only_the_exact_report_matches() {
        let aborted = End::Signal(libc::SIGABRT);
        assert_eq!(EXPECTED.judge(&run(aborted, TEXT)), Verdict::Match);
        for (good, bad) in [
            ("double-free", "invalid-free"),
            ("==7==", "==8=="),
            ("0 bytes inside of", "1 bytes inside of"),
            ("0 bytes inside of", "0 bytes after"),
            ("64-byte", "63-byte"),
            ("found by", "READ at 0x10 by"),
            ("allocated", "made"),
            ("freed by", "given by"),
            ("SUMMARY", "SUM"),
        ] {
            let text = TEXT.replace(good, bad);
            assert_ne!(text, TEXT);
            let verdict = EXPECTED.judge(&run(aborted, &text));
            assert!(matches!(verdict, Verdict::Mismatch(_)), "{bad}: {verdict:?}");
        }
        let twice = run(aborted, &TEXT.repeat(2));
        assert!(matches!(EXPECTED.judge(&twice), Verdict::Mismatch(_)));
        for end in [End::Signal(libc::SIGSEGV), End::Status(0), End::TimeLimit] {
            let verdict = EXPECTED.judge(&run(end, TEXT));
            assert!(matches!(verdict, Verdict::Mismatch(_)), "{end}");
        }
    }

    #[test]
    fn a_death_without_a_report_is_a_miss() {
        let died = run(End::Signal(libc::SIGABRT), "free(): double free detected");
        assert!(matches!(EXPECTED.judge(&died), Verdict::Miss(_)));
    }

    #[test]
    fn a_correct_program_is_silent_and_ends_well() {
        let good = End::Status(0);
        assert_eq!(judge_silent(&run(good, "a warning"), good), Verdict::Match);
        let degraded =
            "fencepost: the mappings that vm.max_map_count allows are in use: further small objects";
        assert_eq!(judge_silent(&run(good, degraded), good), Verdict::Match);
        for bad in [
            run(good, "fencepost: unknown option"),
            run(good, TEXT),
            run(End::Status(1), ""),
            run(End::Signal(libc::SIGSEGV), ""),
        ] {
            assert!(matches!(judge_silent(&bad, good), Verdict::Mismatch(_)));
        }
    }
}
