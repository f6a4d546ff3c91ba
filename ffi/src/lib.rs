//! The C ABI of fencepost: `libfencepost.so`, to be preloaded under existing binaries, and the static
//! library.
//!
//! - [`symbols`]: the one list of what is exported.
//! - [`entry`]: the exported C functions; short assembly that hands the caller's frame on.
//! - [`c`]: their semantics; [`tuning`]: those that ask for figures or set limits.
//! - [`cxx`]: the C++ operators.
//! - [`fallback`]: the C library's own allocator.
//! - [`interpose`]: functions of the C library that a guarded heap has to adapt.
//! - [`limits`]: resource limits that the process sets itself.
//! - [`runtimes`]: processes with several C++ runtimes.
//! - [`signals`]: handlers of the program beside ours, and the exit status.
//! - [`init`]: what runs at load and at exit.

//!
//! With musl there is the static library alone, for programs that are linked statically: no loader whose functions
//! could be replaced, and no second definition of the C library's own. What that leaves out is
//! `cfg(target_env = "gnu")` here, and listed in `README.md`.

#![cfg_attr(any(not(target_env = "gnu"), panic = "abort"), no_std)]

#[macro_use]
mod symbols;

mod c;
mod cxx;
mod entry;
mod fallback;
mod init;
mod interpose;
#[cfg(target_env = "gnu")]
mod limits;
mod runtimes;
#[cfg(target_env = "gnu")]
mod signals;
mod tuning;

// The library is without std, which would bring an unwinder, its shared library and a part of every process's start.
// Tests that Cargo builds in one go with this are built to unwind, and have it.
#[cfg(any(not(target_env = "gnu"), panic = "abort"))]
fencepost_core::panic_handler!();

#[cfg(all(target_env = "gnu", panic = "abort"))]
#[link(name = "c")]
unsafe extern "C" {}
