//! From a misuse to a report, and from a report to the end of the process.
//!
//! - [`finding`]: the contents of a report, the pure step from a fault and metadata to them, and hints.
//! - [`access`]: what the faulting instruction did, and which function of the C library it belongs to; [`replay`]: how much
//!   that was told to copy.
//! - [`render`], [`json`], [`picture`]: the forms of a report; [`modules`], [`elf`]: names of addresses in them.
//! - [`handler`]: faults that the hardware finds.
//! - [`fatal`]: writing a report, and what follows; [`turn`]: one thread reports at a time.
//! - [`tally`]: which errors are new, and the counts at the end; [`suppress`]: errors that the user does not want to
//!   see.
//! - [`leak`]: objects that are still allocated at the end.
//!
//! Everything here works in fixed buffers, takes no lock of the allocator, and assumes that metadata and memory may be
//! damaged.

mod access;
pub mod elf;
pub mod fatal;
pub mod finding;
pub mod handler;
mod json;
pub mod leak;
mod modules;
mod picture;
mod render;
mod replay;
pub mod suppress;
pub mod tally;
mod turn;

#[cfg(test)]
#[path = "../../tests/fuzz/report.rs"]
mod fuzz;

pub use finding::{Access, Finding};
pub use render::{note, tell_of_own_faults};
