//! Advice of `madvise` that is refused, or answered with success and not followed: from the start, or when the program has
//! run for a while.

use super::{MODES, confined, program, rows, work, wrong};
use crate::support::expectation::{Expectation, Verdict};
use crate::support::process::End;
use crate::support::report::Access::{Read, Write};
use std::path::Path;

/// Advice that is answered with success and not followed: guards installed and removed, memory freed, wiped in a
/// child, looked at. Emulators do so with what they do not know.
const PRETENDED: &[&str] = &[
    "madvise/2=102:nothing",
    "madvise/2=103:nothing",
    "madvise/2=102:nothing madvise/2=103:nothing",
    "madvise/2=4:nothing",
    "madvise/2=18:nothing",
    "madvise/2=22:nothing",
    "madvise/2=22:EPERM",
    "madvise/2=102:EAGAIN",
    "madvise:nothing",
    "process_madvise:nothing",
    "madvise:nothing rt_sigprocmask:nothing",
    "madvise:nothing rt_sigprocmask:EPERM",
    "madvise/2=103:nothing rt_sigprocmask:nothing",
];

#[test]
fn calls_that_do_nothing() {
    work(true, PRETENDED, "guards=auto");
    work(true, PRETENDED, "guards=auto:unmap=batch:8");
    work(true, PRETENDED, "guards=mprotect");
}

/// Memory goes back to the system where the advice for it is not followed, from the start or from the first page on that
/// could not be opened.
#[test]
fn memory_is_given_back_without_the_advice() {
    let Some(freed) = program("freed") else { return };
    // Slots up to 64 KiB, and little that waits for its next use.
    let options = "mode=harden:unmap_threshold=65536:quarantine_mb=1";
    let rows: [(&[&str], &[&str]); 5] = [
        (&[], &[]),
        (&["madvise/2=4:nothing"], &[]),
        (&["madvise/2=4:EPERM"], &[]),
        (&["madvise:nothing"], &[]),
        (&[], &["madvise:nothing"]),
    ];
    for (outside, inside) in rows {
        let Some(run) = confined(outside, &freed, inside, Some(options)) else { return };
        assert_eq!(wrong(&run), None, "{outside:?} {inside:?}");
    }
}

/// Whether a stack can be read is not asked where the answer is pretended.
#[test]
fn a_trace_ends_with_its_stack() {
    let Some(walk) = program("walk") else { return };
    for rule in [&[][..], &["madvise/2=22:nothing"], &["madvise/2=22:EPERM"], &["madvise:nothing"]] {
        for options in [None, Some("mode=harden"), Some("mode=hunt")] {
            let Some(run) = confined(rule, &walk, &[], options) else { return };
            assert_eq!(wrong(&run), None, "{rule:?} {options:?}");
        }
    }
}

/// Who pretends to follow advice may be an emulator, which keeps books of every page: little address space is reserved.
#[test]
fn little_is_reserved_where_advice_is_pretended() {
    let size = |rules: &[&str]| {
        let arguments = ["VmSize:", "/proc/self/status"];
        let run = confined(rules, Path::new("/bin/grep"), &arguments, Some("mode=harden"))?;
        let size = run.stdout.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        Some(size.unwrap_or_else(|| panic!("{rules:?}: {}{}", run.stdout, run.stderr)))
    };
    let Some(usual) = size(&[]) else { return };
    for rule in
        ["madvise/2=4:nothing", "madvise/2=102:nothing", "madvise/2=103:nothing", "madvise/2=22:nothing"]
    {
        let Some(size) = size(&[rule]) else { return };
        assert!(size < 5 << 20 && size < usual, "{rule}: {size} of {usual} KiB");
    }
}

/// Whoever forces markers that the kernel does not install is told.
#[test]
fn forced_markers_without_effect() {
    let Some(work) = program("work") else { return };
    for rule in ["madvise/2=102:nothing", "madvise/2=103:nothing", "madvise/2=102:EINVAL"] {
        let options = Some("mode=hunt:guards=madvise");
        let Some(run) = confined(&[rule], &work, &["threads=0"], options) else { return };
        let said = "fencepost: guards=madvise has no effect here: guard pages are mappings instead\n";
        assert_eq!(
            (run.end, run.stdout.as_str(), run.stderr.as_str()),
            (End::Status(0), "done\n", said),
            "{rule}"
        );
    }
}

/// A program that has started may give advice up: what was closed by markers is opened in another way.
#[test]
fn calls_that_do_nothing_later() {
    work(false, PRETENDED, "guards=auto");
    work(false, PRETENDED, "guards=auto:unmap=batch:8");
    work(false, PRETENDED, "guards=mprotect");
}

/// And what is opened in another way is closed again.
#[test]
fn a_bug_after_advice_lost_its_effect() {
    let rules = [
        "madvise:nothing",
        "madvise:EPERM",
        "madvise/2=102:nothing madvise/2=103:nothing",
        "madvise/2=103:EINVAL",
    ];
    later("behind", &rules, &overflow_of_4096());
}

/// Markers that can be removed and are installed no more: pages are closed by mappings from the first refusal on, those of a
/// chunk that is opened, of a freed object and of the end of one.
#[test]
fn a_bug_after_markers_are_refused() {
    let rules = ["madvise/2=102:EINVAL", "madvise/2=102:EPERM", "madvise/2=102:ENOMEM"];
    later("behind", &rules, &overflow_of_4096());
    later("fresh", &rules, &overflow_of_4096());
    later("stale", &rules, &rows::use_after_free(Read, 0, 4096));
    later("shrunk", &rules, &rows::overflow(Read, 0, 4096));
}

/// A thread that begins after it has a signal stack all the same.
#[test]
fn a_stack_overflow_after_markers_are_refused() {
    let Some(later) = program("later") else { return };
    for mode in MODES {
        let arguments = ["deep", "madvise/2=102:EINVAL"];
        let Some(run) = confined(&[], &later, &arguments, Some(mode)) else { return };
        assert_eq!(run.end, End::Signal(libc::SIGSEGV), "{mode}");
        assert!(run.stderr.starts_with("fencepost: stack overflow at pc 0x"), "{mode}: {}", run.stderr);
    }
}

fn overflow_of_4096() -> Expectation {
    rows::overflow(Write, 0, 4096)
}

/// Has a bug of `later` found, under each of the rules from its middle on.
fn later(bug: &str, rules: &[&str], expected: &Expectation) {
    let Some(later) = program("later") else { return };
    for (rules, mode) in
        rules.iter().flat_map(|rules| ["mode=harden", "mode=hunt"].map(|mode| (*rules, mode)))
    {
        let arguments: Vec<&str> = [bug].into_iter().chain(rules.split(' ')).collect();
        let options = format!("{mode}:guards=auto");
        let Some(run) = confined(&[], &later, &arguments, Some(&options)) else { return };
        let verdict = expected.judge(&run);
        assert_eq!(verdict, Verdict::Match, "{bug} {rules} {mode}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.stdout, "", "{bug} {rules} {mode}");
    }
}
