//! The C ABI of fencepost: `libfencepost.so`, to be preloaded under existing binaries, and the static
//! library.
//!
//! - [`entry`]: the exported C functions, one row each; short assembly that hands the caller's frame on.
//! - [`c`]: their semantics.
//! - [`cxx`]: the C++ operators.
//! - [`interpose`]: functions of the C library that a guarded heap has to adapt.
//! - [`runtimes`]: processes with several C++ runtimes.
//! - [`init`]: what runs at load and at exit.

mod c;
mod cxx;
mod entry;
mod init;
mod interpose;
mod runtimes;
