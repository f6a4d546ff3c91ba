//! Whether the process has more than one C++ runtime.
//!
//! A library with a runtime of its own linked in (a private `operator new`) allocates with plain
//! `malloc` what others then free with this library's `operator delete`. That is no bug of the
//! program, and so no mismatch is reported in such a process between `malloc` and `delete`. The
//! question is asked when a mismatch was found, and only then.
//!
//! A private runtime may hide its operators: Debian's rustc frees with one what libLLVM made with the shared
//! one. But it has the names of its types: that of `std::bad_alloc` is in the C++ runtime and nowhere else.
//!
//! A program that replaces some operators is such a process too: the others deal in objects of `malloc`.

use crate::modules::{self, Name};
use crate::replaced;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};

const NEW: Name = Name::new(c"_Znwm");

/// Whether some module besides this library and the shared C++ runtime defines `operator new`, or has a runtime
/// that hides its own.
pub fn are_mixed() -> bool {
    static FOUND: AtomicBool = AtomicBool::new(false);
    if replaced::something() || FOUND.load(Ordering::Relaxed) {
        return true;
    }
    let mut found = false;
    modules::each(|module| {
        if !module.is_ours() && !module.is_shared_runtime() {
            let defines = module.symbols().is_some_and(|symbols| symbols.find(&NEW).is_some());
            found |= defines || module.holds_runtime();
        }
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    FOUND.store(found, Ordering::Relaxed);
    found
}
