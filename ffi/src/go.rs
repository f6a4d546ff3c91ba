//! Whether a handler is Go's.
//!
//! A Go program that calls C sets its handlers by the C library's `sigaction`, but asks the kernel for its threads' alternate
//! stacks and masks, and ends where a handler of its own finds itself on a stack that the kernel does not name. So
//! what differs between the program's settings and the kernel's has to end when its first handler comes: see
//! `sys::process`. All of Go's handlers are for the alternate stack, and they are set before Go runs anything else, by the
//! program at its start, or by a library in its constructor.
//!
//! A module with Go's runtime has one of three marks at least: it exports the function by which C calls Go, it has a note of
//! Go's, or its data hold what `go version` reads. Each may be left out, by one linker or another.

use crate::modules::{self, Name};
use core::ops::ControlFlow;

/// The function of Go's runtime by which C calls Go.
const CALL: Name = Name::new(c"crosscall2");
/// The owner of its notes.
const OWNER: &core::ffi::CStr = c"Go";
/// What the description of a build begins with.
const BUILD: &[u8] = b"\xff Go buildinf:";

/// Whether the code at `handler` is in a module with Go's runtime.
pub fn has(handler: usize) -> bool {
    let mut found = false;
    modules::each(|module| {
        if !module.contains(handler) {
            return ControlFlow::Continue(());
        }
        let exports = || module.symbols().is_some_and(|symbols| symbols.find(&CALL).is_some());
        found = exports() || module.has_note_of(OWNER) || module.holds(libc::PF_R | libc::PF_W, BUILD);
        ControlFlow::Break(())
    });
    found
}
