//! The C library's functions that this library intercepts and then calls or jumps to.
//!
//! They are looked up once, when the library is loaded, or earlier if a constructor needs one. Their addresses lie in a page
//! that is read-only from then on ([`Sealed`]). A caller that comes while another thread looks them up, or from within the
//! lookup itself, which may allocate, asks the loader alone or finds none.

use crate::{init, modules};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use fencepost_core::sys::seal::Sealed;

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

const NAMES: [modules::Name<'static>; 12] = [
    modules::Name::new(c"malloc"),
    modules::Name::new(c"calloc"),
    modules::Name::new(c"memalign"),
    modules::Name::new(c"realloc"),
    modules::Name::new(c"free"),
    modules::Name::new(c"malloc_usable_size"),
    modules::Name::new(c"__longjmp_chk"),
    modules::Name::new(c"dlopen"),
    modules::Name::new(c"dlmopen"),
    modules::Name::new(c"dlsym"),
    modules::Name::new(c"pthread_create"),
    modules::Name::new(c"reallocarray"),
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
        #[cfg(target_env = "gnu")]
        let behind = modules::Behind::find();
        #[cfg(target_env = "gnu")]
        let find = |name: &modules::Name<'_>| behind.as_ref().and_then(|behind| behind.address(name));
        #[cfg(not(target_env = "gnu"))]
        let find = |_: &modules::Name<'_>| None;
        let next = |name: modules::Name<'_>| {
            find(&name).unwrap_or_else(|| init::next(name.text()).expose_provenance())
        };
        FOUND.fill(NAMES.map(next));
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
            NAMES.get(name as usize).map_or(core::ptr::null_mut(), |name| init::next(name.text()))
        }
        (None, _) => core::ptr::null_mut(),
    }
}
