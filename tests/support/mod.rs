//! What test suites share that run whole processes under the library.
//!
//! - [`compiler`]: compiles the C and C++ programs.
//! - [`report`]: fencepost's report, from text to fields.
//! - [`process`]: runs a process with a time limit and without a core dump.
//! - [`expectation`]: what a run must look like, and the verdict on one.
//! - [`symbols`]: the stacks of a report as names of functions.
//! - [`library`]: builds `libfencepost.so` and says where it is.
//! - [`skip`]: names what could not be tested; in CI that is a failure.

// Each suite is a crate of its own and uses its part.
#![allow(dead_code)]

pub mod compiler;
pub mod expectation;
pub mod library;
pub mod process;
pub mod report;
pub mod skip;
pub mod symbols;

/// Options of every mode with both kinds of guards.
pub const EVERY_MODE: [&str; 6] = [
    "mode=harden:guards=madvise",
    "mode=harden:guards=mprotect",
    "mode=patrol:guards=madvise",
    "mode=patrol:guards=mprotect",
    "mode=hunt:guards=madvise",
    "mode=hunt:guards=mprotect",
];
