//! The C ABI of fencepost: `libfencepost.so`, to be preloaded under existing binaries, and the static library.
//!
//! - [`symbols`]: the one list of exported symbols.
//! - [`entry`]: the exported C functions; short assembly that passes the caller's frame on.
//! - [`c`]: their semantics; [`tuning`]: functions for figures and parameters.
//! - [`cxx`]: the C++ operators; [`replaced`]: programs that bring operators of their own.
//! - [`fallback`]: the C library's own allocator.
//! - [`deepbind`]: which libraries may be opened with `RTLD_DEEPBIND`.
//! - [`exec`]: functions that execute programs, which begin with what is ignored and blocked.
//! - [`go`]: the runtime that asks the kernel for its signal stacks and masks.
//! - [`intercept`]: functions of the C library that check the bounds of objects before they access them.
//! - [`interpose`]: functions of the C library that a guarded heap has to adapt.
//! - [`jump`]: `longjmp` from alternate stacks.
//! - [`limits`]: resource limits that the process sets itself.
//! - [`modules`]: the loaded modules and their definitions; [`runtimes`]: processes with several C++ runtimes.
//! - [`signals`]: the program's handlers beside ours, and the exit status.
//! - [`threads`]: what a thread inherits of its maker's signal mask.
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
#[cfg(target_env = "gnu")]
mod deepbind;
mod entry;
#[cfg(target_env = "gnu")]
mod exec;
mod fallback;
#[cfg(target_env = "gnu")]
mod go;
mod init;
#[cfg(target_env = "gnu")]
mod intercept;
mod interpose;
#[cfg(target_env = "gnu")]
mod jump;
#[cfg(target_env = "gnu")]
mod limits;
mod modules;
mod real;
mod replaced;
mod runtimes;
#[cfg(target_env = "gnu")]
mod signals;
#[cfg(target_env = "gnu")]
mod threads;
mod tuning;

// The library is without std, which would bring an unwinder, its shared library and a part of every process's start.
// Tests that Cargo builds in one go with this are built to unwind, and have it.
#[cfg(any(not(target_env = "gnu"), panic = "abort"))]
fencepost_core::panic_handler!();

#[cfg(all(target_env = "gnu", panic = "abort"))]
#[link(name = "c")]
unsafe extern "C" {}
