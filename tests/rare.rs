//! Machines that are rare: pages of 64 KiB under programs that were built for 4, by an emulator (`qemu-x86_64 -p`, up to version
//! 8). Does nothing unless `FENCEPOST_RARE` is set, since few have the emulator; README.md has the commands for the rest.
//!
//! There a guard page does nothing where its neighbours in the same 64 KiB are open, so what guards find is not found. Correct
//! programs run, and what slots, records and canaries tell is told.

mod support;

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::process::{self, End};
use support::{compiler, library, skip};

const EMULATOR: &str = "qemu-x86_64";
/// The emulator is slow.
const LIMIT: Duration = Duration::from_secs(240);

const CORRECT: [&str; 6] =
    ["clean_containers", "clean_threads", "clean_grow", "clean_realloc", "clean_new", "clean_exceptions"];

/// Programs, what they are told, the kind of their bug, and whether it takes a guard page to find it.
const BUGS: [(&str, &str, &str, bool); 6] = [
    ("overflow_write", "100", "canary-overwritten", false),
    ("double_free", "100", "double-free", false),
    ("double_free", "5000", "double-free", false),
    ("free_interior", "100 8", "invalid-free", false),
    ("mismatch_malloc_delete", "100", "alloc-dealloc-mismatch", false),
    ("uaf_read", "5000 0", "heap-use-after-free", true),
];

#[test]
fn pages_of_other_sizes() {
    if env::var_os("FENCEPOST_RARE").is_none() {
        return;
    }
    if !Command::new(EMULATOR).arg("--version").output().is_ok_and(|output| output.status.success()) {
        skip::skip(&format!("pages of other sizes: there is no {EMULATOR}"));
        return;
    }
    for (page, mode) in
        ["4096", "16384", "65536"].iter().flat_map(|page| ["harden", "hunt"].map(|mode| (*page, mode)))
    {
        let run = |program: &str, arguments: &str| {
            let binary = compiler::binary(program, "-O1")?;
            let mut command = process::command(Path::new(EMULATOR), None, "");
            command.args(["-p", page, "-E", &format!("LD_PRELOAD={}", library::path().display())]);
            command.args(["-E", &format!("FENCEPOST_OPTIONS=mode={mode}")]).arg(binary);
            Some(process::run(command.args(arguments.split_whitespace()), LIMIT))
        };
        let (mut correct, mut found, mut guarded) = (0, 0, 0);
        for program in CORRECT {
            let Some(run) = run(program, "") else { continue };
            assert_eq!((run.end, run.stderr.as_str()), (End::Status(0), ""), "{program} {page} {mode}");
            correct += 1;
        }
        for (program, arguments, kind, by_guard) in BUGS {
            let Some(run) = run(program, arguments) else { continue };
            let told = run.stderr.contains(&format!("ERROR: fencepost: {kind} "));
            assert!(
                told || by_guard && page != "4096",
                "{program} {arguments} {page} {mode}: {}",
                run.stderr
            );
            found += usize::from(told && !by_guard);
            guarded += usize::from(told && by_guard);
        }
        println!(
            "pages of {page}, {mode}: {correct} correct programs run, {found} bugs found, {guarded} by a guard"
        );
    }
}
