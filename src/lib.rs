//! fencepost: a hardening memory allocator for Linux.
//!
//! Memory comes from mmap at random places, guarded objects end at guard pages, freed memory of a page
//! or more is unmapped at once, and a heap bug stops the program at the instruction that commits it,
//! with a report. [`Fencepost`] is a `#[global_allocator]`; `libfencepost.so`, built from the same
//! code, is preloaded under existing binaries.
//!
//! Three modes: `harden` (the default, for production), `patrol` (the same with a sample of small
//! objects between guard pages) and `hunt` (every object between guard pages). `src/README.md` is the
//! architecture, from which the modules below are best read.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod fault;
#[allow(unsafe_code)]
pub mod global;
#[allow(unsafe_code)]
pub mod heap;
#[allow(unsafe_code)]
pub mod meta;
pub mod options;
#[allow(unsafe_code)]
pub mod page;
pub mod policy;
#[allow(unsafe_code)]
pub mod report;
pub mod request;
#[allow(unsafe_code)]
pub mod rng;
#[allow(unsafe_code)]
pub mod slab;
pub mod stats;
#[allow(unsafe_code)]
pub mod sync;
#[allow(unsafe_code)]
pub mod sys;
pub mod text;
#[allow(unsafe_code)]
pub mod trace;

pub use global::Fencepost;
