//! The C ABI of fencepost: `libfencepost.so`, to be preloaded under existing binaries, and the static
//! library.
//!
//! - [`symbols`]: the one list of what is exported.
//! - [`entry`]: the exported C functions; short assembly that hands the caller's frame on.
//! - [`c`]: their semantics; [`tuning`]: those that ask for figures or set limits.
//! - [`cxx`]: the C++ operators.
//! - [`fallback`]: the C library's own allocator.
//! - [`interpose`]: functions of the C library that a guarded heap has to adapt.
//! - [`runtimes`]: processes with several C++ runtimes.
//! - [`signals`]: handlers of the program beside ours, and the exit status.
//! - [`init`]: what runs at load and at exit.

#[macro_use]
mod symbols;

mod c;
mod cxx;
mod entry;
mod fallback;
mod init;
mod interpose;
mod runtimes;
mod signals;
mod tuning;
