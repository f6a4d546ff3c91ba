//! Whether the process has more than one C++ runtime.
//!
//! A library with a runtime of its own linked in (a private `operator new`) allocates with plain `malloc`, and others
//! then free the object with this library's `operator delete`. That is no bug of the program. So in such a process no
//! mismatch between `malloc` and `delete` is reported. The check is made only after a mismatch was found.
//!
//! A private runtime may hide its operators: Debian's rustc frees with one what libLLVM made with the shared one. But
//! it has the names of its types, and that of `std::bad_alloc` is in the C++ runtime and nowhere else.
//!
//! A program that replaces some operators counts as such a process too, since the other operators allocate with
//! `malloc`.

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
