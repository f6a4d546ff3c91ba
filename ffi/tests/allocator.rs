//! Reports of a program that has the crate as its allocator: stacks begin where the program calls it.

mod support;

use fencepost_core::Fencepost;
use std::alloc::{Layout, alloc, dealloc};
use std::env;
use std::fs;
use std::process::Command;
use support::{Scratch, launcher, run, text};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// Says that this process is to err.
const ERRS: &str = "FENCEPOST_ALLOCATOR_ERRS";

#[inline(never)]
fn free_twice() {
    let layout = Layout::array::<u8>(40).expect("40 bytes are no overflow");
    // SAFETY: none: the second free is what is tested.
    unsafe {
        let object = std::hint::black_box(alloc(layout));
        dealloc(object, layout);
        dealloc(object, layout);
    }
}

#[test]
fn errs() {
    if env::var_os(ERRS).is_some() {
        free_twice();
    }
}

#[test]
fn the_allocators_own_frames_are_not_shown() {
    let scratch = Scratch::new("allocator");
    for (options, shows) in [("mode=harden", false), ("mode=hunt", false), ("mode=hunt:frames=all", true)] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["errs", "--exact", "--nocapture"]).env(ERRS, "1").env_remove("LD_PRELOAD");
        let raw = run(command.env("FENCEPOST_OPTIONS", options).env_remove("FENCEPOST_COLLECTOR")).stderr;
        let log = scratch.0.join("log");
        fs::write(&log, raw).unwrap();
        let report = text(&run(launcher().arg("symbolize").arg(&log)).stdout);
        assert!(report.contains("ERROR: fencepost: double-free on "), "{options}: {report}");
        let own = |line: &&str| line.starts_with("    #") && line.contains("/src/global.rs:");
        assert_eq!(report.lines().any(|line| own(&line)), shows, "{options}: {report}");
        let summary = report.lines().find(|line| line.starts_with("SUMMARY: ")).unwrap();
        assert!(summary.contains("/ffi/tests/allocator.rs:") && summary.ends_with("free_twice"), "{report}");
        let stacks = if options == "mode=harden" { 1 } else { 3 };
        assert_eq!(report.lines().filter(|line| line.starts_with("    #0 ")).count(), stacks, "{report}");
    }
}
