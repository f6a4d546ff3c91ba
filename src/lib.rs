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
mod canary;
pub mod fault;
#[allow(unsafe_code)]
pub mod global;
#[allow(unsafe_code)]
pub mod heap;
#[allow(unsafe_code)]
pub mod meta;
#[cfg(test)]
#[allow(unsafe_code)]
#[path = "../tests/fuzz/mutate.rs"]
mod mutate;
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

pub use global::{Fencepost, bounds, check, poison, unpoison};

/// Defines what std has and a library without it needs, unless std is in the build: the panic handler (nothing here
/// panics; the language asks what would follow), and the personality routine that unoptimised builds of `core` name
/// (nothing unwinds; if it were asked, it would answer `_URC_CONTINUE_UNWIND`).
#[cfg(not(feature = "std"))]
#[macro_export]
macro_rules! panic_handler {
    () => {
        #[panic_handler]
        fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::sys::die::die("a panic")
        }

        core::arch::global_asm!(
            ".weak rust_eh_personality",
            ".hidden rust_eh_personality",
            ".type rust_eh_personality,@function",
            "rust_eh_personality:",
            "mov eax, 8",
            "ret",
        );
    };
}

/// Defines nothing: std is in the build.
#[cfg(feature = "std")]
#[macro_export]
macro_rules! panic_handler {
    () => {};
}
