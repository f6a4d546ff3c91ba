//! Whether the program replaces operators of C++, and which definitions are called then.
//!
//! By the standard ([new.delete]) the default sized, array, nothrow and aligned operators call the basic ones, and a
//! program may replace each of these by itself. A replacement may also rely on how the C++ library makes the rest: from
//! `malloc`. So in a process where any operator is replaced, all of ours jump to the next definition after this
//! library, the one that would be called without it. The C++ library's forwards as the standard says, catches what a
//! replaced `new` throws where `nothrow` was requested, and allocates with this library's `malloc`.
//!
//! These count as replacements:
//!
//! - a definition before this library in the search order (the program's, another preloaded library's), except that of
//!   the shared C++ runtime, which stands there where this library was opened late;
//! - the next definition after it, unless its module is a C++ runtime, or brings a `malloc` of its own: an allocator
//!   that this library was preloaded to replace.
//!
//! A `malloc` before this library replaces the operators, too, since the C++ library's call it. `reallocarray` is then
//! the C library's, which calls the `realloc` that is found first.
//!
//! The look-up happens once, when this library is loaded, or earlier if a constructor calls an operator. The modules
//! that a program starts with are all mapped before any code runs.
//!
//! | `STATE` | means | who leaves it |
//! |---|---|---|
//! | `UNKNOWN` | nobody has looked | the first caller; several may look, and find the same |
//! | `NOTHING` | the operators are ours; entries take the fast paths | nobody |
//! | `SOMETHING` | `NEXT` is filled, and all operators jump there | nobody |
//! | `ALLOCATOR` | the same, and `malloc` is not ours | nobody |

use crate::init;
use crate::modules::{self, Module, Name};
use core::ffi::c_void;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use fencepost_core::sys::seal::Sealed;

/// See the table above. The entries compare it with [`NOTHING`].
pub static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
/// Of [`STATE`]: nothing is replaced.
pub const NOTHING: u8 = 0;
const SOMETHING: u8 = 1;
const UNKNOWN: u8 = 2;
const ALLOCATOR: u8 = 3;

macro_rules! name {
    ($symbol:literal) => {
        // SAFETY: the literal ends in the one NUL that is appended to it.
        Name::new(unsafe {
            core::ffi::CStr::from_bytes_with_nul_unchecked(concat!($symbol, "\0").as_bytes())
        })
    };
}

macro_rules! new_names {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $aligned:literal, $calls:ident;)+) => {
        [$(name!($symbol)),+]
    };
}

macro_rules! delete_names {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $sized:literal, $calls:ident;)+) => {
        [$(name!($symbol)),+]
    };
}

static NEWS: [Name<'static>; 8] = new_symbols!(new_names);
static DELETES: [Name<'static>; 12] = delete_symbols!(delete_names);
const ROWS: usize = NEWS.len() + DELETES.len();
const MALLOC: Name<'static> = Name::new(c"malloc");

/// By row: the next definition after this library, once something was found to be replaced; null without one.
#[unsafe(link_section = ".data.rel.ro.sealed")]
static NEXT: Sealed<[usize; ROWS]> = Sealed::empty();
static NEXT_FILLER: AtomicBool = AtomicBool::new(false);

fn names() -> impl Iterator<Item = &'static Name<'static>> {
    NEWS.iter().chain(&DELETES)
}

fn name(row: u32) -> &'static Name<'static> {
    names().nth(row as usize).unwrap_or(&NEWS[0])
}

/// Whether the operators are this library's own. Not before it is known.
#[inline(always)]
pub fn nothing() -> bool {
    STATE.load(Ordering::Relaxed) == NOTHING
}

/// Whether some operator is known to be replaced.
pub fn something() -> bool {
    matches!(STATE.load(Ordering::Relaxed), SOMETHING | ALLOCATOR)
}

/// Whether `malloc` itself is another's, which stands before this library.
pub fn allocator() -> bool {
    look_up();
    STATE.load(Ordering::Relaxed) == ALLOCATOR
}

/// Finds out whether anything is replaced, unless that is known.
pub fn look_up() {
    if STATE.load(Ordering::Acquire) != UNKNOWN {
        return;
    }
    let state = what_is_replaced();
    if state != NOTHING {
        let mut found = [0; ROWS];
        for (next, name) in found.iter_mut().zip(names()) {
            *next = next_or_null(name).expose_provenance();
        }
        NEXT.fill(&NEXT_FILLER, found);
    }
    STATE.store(state, Ordering::Release);
}

fn what_is_replaced() -> u8 {
    let mut allocator = false;
    let operators = are_operators_replaced(&mut allocator);
    match () {
        () if allocator => ALLOCATOR,
        () if operators => SOMETHING,
        () => NOTHING,
    }
}

/// Whether an operator is replaced; `allocator` is set if a module before this library brings a `malloc`, and is not
/// the C library or the loader, which stand there where this one was opened late.
fn are_operators_replaced(allocator: &mut bool) -> bool {
    let (mut passed_ours, mut before_ours) = (false, false);
    // By row, the first definition behind ours, if it may be a replacement. Whether it is also the next one in the
    // search order (and not of a library that a constructor opened for itself) has to be asked of the loader.
    let mut behind: [Option<usize>; ROWS] = [None; ROWS];
    let mut settled = [false; ROWS];
    modules::each(|module| {
        if module.is_ours() {
            passed_ours = true;
            return if before_ours { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        let Some(symbols) = module.symbols() else {
            return ControlFlow::Continue(());
        };
        *allocator |= !passed_ours && symbols.find(&MALLOC).is_some() && !module.is_c_library();
        let mut replaces = None;
        for ((name, found), settled) in names().zip(&mut behind).zip(&mut settled) {
            let Some(address) = symbols.find(name).filter(|_| !*settled) else { continue };
            if !passed_ours {
                before_ours |= !module.is_shared_runtime();
                continue;
            }
            *settled = true;
            let is_replacement = *replaces.get_or_insert_with(|| {
                !module.is_shared_runtime() && symbols.find(&MALLOC).is_none() && !module.holds_runtime()
            });
            *found = is_replacement.then_some(address);
        }
        ControlFlow::Continue(())
    });
    let is_next = |(found, name): (&Option<usize>, &Name<'_>)| {
        found.is_some_and(|address| next_or_null(name).addr() == address)
    };
    before_ours || behind.iter().zip(names()).any(is_next)
}

/// What the operator of a row hands over to; null for this library's own.
pub extern "C" fn definition(row: u32) -> *mut c_void {
    look_up();
    if STATE.load(Ordering::Acquire) == NOTHING {
        return core::ptr::null_mut();
    }
    let next = match NEXT.get() {
        Some(found) => found.get(row as usize).copied().unwrap_or(0),
        // Another thread is about to say the same.
        None => next_or_null(name(row)).expose_provenance(),
    };
    if next != 0 {
        return core::ptr::with_exposed_provenance_mut(next);
    }
    // No library that every module sees defines it. One that was opened by a library for itself may; else the program
    // or who else stands before us.
    search(name(row), |module, before_ours| match () {
        () if module.is_shared_runtime() => 2,
        () => u8::from(before_ours),
    })
}

/// The C++ library's own operator of a row, for the caller at this address; null where no module defines one.
pub fn library_definition(row: u32, caller: usize) -> *mut c_void {
    let next = next_or_null(name(row));
    if !next.is_null() {
        return next;
    }
    search(name(row), |module, _| match () {
        () if module.contains(caller) => 3,
        () if module.is_shared_runtime() => 2,
        () => 1,
    })
}

/// The definition of `name` in the module of the highest rank, the first of equals, `None` if all ranks are 0. A rank is
/// told whether the module stands before this library.
fn search(name: &Name<'_>, rank: impl Fn(&Module<'_>, bool) -> u8) -> *mut c_void {
    let (mut before_ours, mut best, mut definition) = (true, 0, 0);
    modules::each(|module| {
        if module.is_ours() {
            before_ours = false;
            return ControlFlow::Continue(());
        }
        let rank = rank(module, before_ours);
        if rank > best
            && let Some(address) = module.symbols().and_then(|symbols| symbols.find(name))
        {
            (best, definition) = (rank, address);
        }
        ControlFlow::Continue(())
    });
    core::ptr::with_exposed_provenance_mut(definition)
}

/// The next definition after this library's, null if there is none. What `dlerror` says of that is taken back: the
/// program did not ask.
fn next_or_null(name: &Name<'_>) -> *mut c_void {
    let next = init::next(name.text());
    #[cfg(target_env = "gnu")]
    if next.is_null() {
        // SAFETY: takes nothing.
        unsafe { libc::dlerror() };
    }
    next
}
