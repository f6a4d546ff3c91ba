//! The C library's functions that this library stands before and calls or jumps to.
//!
//! They are looked up once, when the library is loaded or if a constructor that runs before needs one then, and lie in a
//! page that is read-only from then on ([`Sealed`]). Whoever asks while another thread looks, or from within the
//! lookup itself, which may allocate, asks the loader alone or finds none.

use crate::init;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use fencepost_core::sys::sealed::Sealed;

/// A function.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_env = "gnu"), allow(dead_code))]
pub enum Name {
    Malloc,
    Calloc,
    Memalign,
    Realloc,
    Free,
    UsableSize,
    LongJump,
    Open,
    OpenIn,
    Symbol,
    CreateThread,
    ReallocArray,
}

const NAMES: [&CStr; 12] = [
    c"malloc",
    c"calloc",
    c"memalign",
    c"realloc",
    c"free",
    c"malloc_usable_size",
    c"__longjmp_chk",
    c"dlopen",
    c"dlmopen",
    c"dlsym",
    c"pthread_create",
    c"reallocarray",
];

/// By name, null where the C library has none.
#[unsafe(link_section = ".data.rel.ro.sealed")]
static FOUND: Sealed<[usize; NAMES.len()]> = Sealed::empty(&FOUND_FILLER);
static FOUND_FILLER: AtomicBool = AtomicBool::new(false);

/// `UNKNOWN` → `LOOKING`, by one thread → `KNOWN`.
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const LOOKING: u8 = 1;
const KNOWN: u8 = 2;

/// Looks the functions up.
pub fn look_up() {
    if STATE.compare_exchange(UNKNOWN, LOOKING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        FOUND.fill(NAMES.map(|name| init::next(name).expose_provenance()));
        STATE.store(KNOWN, Ordering::Release);
    }
}

/// The C library's function; null if it has none.
pub fn address(name: Name) -> *mut c_void {
    if STATE.load(Ordering::Relaxed) == UNKNOWN {
        look_up();
    }
    let found = FOUND.get().and_then(|found| found.get(name as usize).copied());
    match (found, name) {
        (Some(found), _) => core::ptr::with_exposed_provenance_mut(found),
        // Somebody looks at this moment, and does not come here from within: the lookup opens nothing.
        (None, Name::Open | Name::OpenIn | Name::Symbol | Name::CreateThread) => {
            NAMES.get(name as usize).map_or(core::ptr::null_mut(), |name| init::next(name))
        }
        (None, _) => core::ptr::null_mut(),
    }
}
