//! fencepost: a hardening memory allocator for Linux.
//!
//! Memory comes from mmap at random places, guarded objects end at guard pages, freed memory of a page
//! or more is unmapped at once, and a heap bug stops the program at the instruction that commits it,
//! with a report. [`Fencepost`] is a `#[global_allocator]`; `libfencepost.so`, built from the same
//! code, is preloaded under existing binaries.
//!
//! Three modes: `harden` (the default, for production), `patrol` (the same with a sample of small
//! objects between guard pages) and `hunt` (every object between guard pages).
//!
//! What is documented here is the crate's interface. Its other modules are for the shared library, which is built from them, and for
//! the tests; `src/README.md` is their architecture.

#![no_std]
#![deny(unsafe_code)]
// The modules that are not documented link to their private parts, for readers with `--document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

#[cfg(any(test, feature = "std"))]
extern crate std;

#[doc(hidden)]
pub mod addr;
mod canary;
#[doc(hidden)]
pub mod fault;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod global;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod heap;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod meta;
#[cfg(test)]
#[allow(unsafe_code)]
#[path = "../tests/fuzz/mutate.rs"]
mod mutate;
#[doc(hidden)]
pub mod options;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod page;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod report;
#[doc(hidden)]
pub mod request;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod rng;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod slab;
#[doc(hidden)]
pub mod stats;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sync;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sys;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod trace;

pub use global::{Fencepost, bounds, check, poison, unpoison};
pub use options::{Align, GuardSide, Guards, Mode, OnError, ReportForm, Seal, Shown, Switch, Unmap};

/// Defines what std has and a library without it needs, unless std is in the build: the panic handler (nothing here
/// panics; the language asks what would follow), and the personality routine that unoptimised builds of `core` name
/// (nothing unwinds; if it were asked, it would answer `_URC_CONTINUE_UNWIND`).
#[cfg(not(feature = "std"))]
#[doc(hidden)]
#[macro_export]
macro_rules! panic_handler {
    () => {
        #[panic_handler]
        fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::sys::process::die("a panic")
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
#[doc(hidden)]
#[macro_export]
macro_rules! panic_handler {
    () => {};
}
