//! Functions of the C library that compare an access with the bounds of heap objects before they make it.
//!
//! The kernel does not fault on a guard page that it accesses itself, and a copy that stays within its page touches
//! none. Here the bounds are known to the byte. [`table`] lists the functions. Each tests by one comparison whether a
//! pointer lies where the heap is. Then it asks how many bytes may be accessed from there (`heap::query`), reports an
//! access beyond them before it happens, and continues in the C library's function of the same name. Some functions
//! touch as much as their data say. They have checks of their own: [`text`] (terminated strings), [`print`] (formatted
//! text), [`transfer`], [`vector`], [`answer`] (system calls) and [`stream`].
//!
//! | when | what happens |
//! |---|---|
//! | before the library is relocated: calls of another library's resolver | the plainest functions have stand-ins ([`early`]) that need nothing |
//! | before the C library's functions are looked up | the same; others have them looked up |
//! | from the end of [`look_up`] on | checks, as the option `intercept` says |
//! | in this library's own code | no checks: `build.rs` has the linker lead its calls to `fencepost_own_*` |
//!
//! Nothing here takes a lock or holds anything that a cancelled thread would leave behind, and `errno` stays as it was.

#[macro_use]
mod table;
mod answer;
mod early;
mod print;
mod stream;
mod text;
mod transfer;
mod vector;

use crate::modules::{Behind, Name};
use crate::{init, modules};
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ops::{ControlFlow, Range};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use early::or_real;
use fencepost_core::addr::Addr;
use fencepost_core::heap;
use fencepost_core::heap::query;
use fencepost_core::options::Intercept;
use fencepost_core::report::Access;
use fencepost_core::sys::process;
use fencepost_core::sys::seal::Sealed;
use libc::{FILE, iovec, msghdr, off_t, sockaddr, socklen_t, ssize_t};

/// An element of a string.
type Byte = u8;
/// An element of a wide string.
type Wide = i32;
/// A list of arguments, as the ABI has it: two offsets, two pointers. A copy of it is a list of its own.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct List([usize; 3]);

/// What the option `intercept` switches together.
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
enum Family {
    copy,
    text,
    call,
    stream,
}

const FAMILIES: usize = 4;

/// A range of addresses; nothing is in an empty one.
#[derive(Clone, Copy)]
struct Hull {
    start: usize,
    len: usize,
}

impl Hull {
    const EMPTY: Self = Self { start: 0, len: 0 };

    #[inline(always)]
    fn holds<T: ?Sized>(self, pointer: *const T) -> bool {
        pointer.addr().wrapping_sub(self.start) < self.len
    }

    /// Bytes that may be accessed from `pointer` on.
    #[inline(always)]
    fn room<T>(self, pointer: *const T) -> usize {
        if self.holds(pointer) { query::room(Addr::of(pointer)) } else { usize::MAX }
    }
}

/// What the functions work by.
#[repr(C)]
struct State {
    /// By row, those of functions of a variable number of arguments last: the C library's function where nothing is looked at,
    /// which the entry that `build.rs` makes jumps to; else 0.
    at_once: [usize; ROWS + VARIADIC_ROWS],
    /// The C library's functions, by row; never 0.
    functions: [usize; ROWS],
    /// Those that this library calls for other reasons.
    others: [usize; crate::real::COUNT],
    /// Where the heap is, for each family that is switched on.
    hulls: [Hull; FAMILIES],
    /// Where this library is.
    own: Range<usize>,
}

#[unsafe(export_name = "fencepost_at_once")]
#[unsafe(link_section = ".data.rel.ro.sealed")]
static STATE: Sealed<State> = Sealed::empty();
static STATE_FILLER: AtomicBool = AtomicBool::new(false);
/// Where the entries that `build.rs` makes find the first word.
const WORDS_AT: usize = 8;
const _: () = assert!(
    Sealed::<State>::VALUE_AT + core::mem::offset_of!(State, at_once) == WORDS_AT,
    "as `build.rs` has it"
);

/// `UNKNOWN` → `LOOKING`, by one thread → `KNOWN`.
static PROGRESS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const LOOKING: u8 = 1;
const KNOWN: u8 = 2;

/// Looks the C library's functions up, and has them checked from then on.
pub fn look_up() {
    if PROGRESS.compare_exchange(UNKNOWN, LOOKING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    init::ensure();
    let hull = query::hull();
    let hull = Hull { start: hull.start, len: hull.end - hull.start };
    let (copies, calls, texts) = match heap::options().intercepts() {
        Intercept::Off | Intercept::Auto => (Hull::EMPTY, Hull::EMPTY, Hull::EMPTY),
        Intercept::Copy => (hull, Hull::EMPTY, Hull::EMPTY),
        Intercept::Syscalls => (Hull::EMPTY, hull, Hull::EMPTY),
        Intercept::All => (hull, hull, hull),
    };
    let behind = Behind::find();
    let find = |name: &Name<'_>| {
        let known = behind.as_ref().and_then(|behind| behind.address(name));
        known.unwrap_or_else(|| find_by_name(name.text()))
    };
    let mut functions = [0; ROWS];
    for (function, name) in functions.iter_mut().zip(NAMES) {
        *function = find(name);
    }
    let hulls = [copies, texts, calls, calls];
    let mut at_once = [0; ROWS + VARIADIC_ROWS];
    let rows = FAMILY_OF
        .iter()
        .chain(&VARIADIC_FAMILY_OF)
        .zip(functions.iter().copied().map(Some).chain([None; VARIADIC_ROWS]));
    for (index, (place, (family, function))) in at_once.iter_mut().zip(rows).enumerate() {
        if hulls[*family as usize].len == 0 {
            *place = function.unwrap_or_else(|| find(&VARIADIC_NAMES[index - ROWS]));
        }
    }
    let others = crate::real::find(behind.as_ref());
    STATE.fill(&STATE_FILLER, State { at_once, functions, others, hulls, own: own_addresses() });
    PROGRESS.store(KNOWN, Ordering::Release);
}

/// Where this library is mapped.
fn own_addresses() -> Range<usize> {
    let mut own = 0..0;
    modules::each(|module| {
        if !module.is_ours() {
            return ControlFlow::Continue(());
        }
        own = module.addresses();
        ControlFlow::Break(())
    });
    own
}

/// Where pointers are looked at.
#[inline(always)]
fn hull(family: Family) -> Hull {
    match STATE.get() {
        Some(state) => state.hulls[family as usize],
        None => Hull::EMPTY,
    }
}

/// The C library's function of a row.
#[inline(always)]
fn function(row: Row) -> usize {
    match STATE.get() {
        Some(state) => state.functions[row as usize],
        None => find(row),
    }
}

/// The C library's function of a number in [`crate::real`], null if it has none; `None` while somebody looks.
pub fn other(number: usize) -> Option<usize> {
    if PROGRESS.load(Ordering::Relaxed) == UNKNOWN {
        look_up();
    }
    STATE.get()?.others.get(number).copied()
}

/// The same before they are known.
#[cold]
#[inline(never)]
fn find(row: Row) -> usize {
    look_up();
    match STATE.get() {
        Some(state) => state.functions[row as usize],
        // Somebody looks at this moment, and calls nothing of this from within.
        None => find_by_name(NAMES[row as usize].text()),
    }
}

/// The C library's function of this name. Without one, what is called in its stead says so: nobody is linked with a
/// function that there is not.
fn find_by_name(name: &CStr) -> usize {
    match init::next(name).expose_provenance() {
        0 => missing as *const () as usize,
        address => address,
    }
}

extern "C" fn missing() -> ! {
    process::die("the C library has not the function that was called")
}

/// Reports an access of the function `name` that leaves its object; see [`query::bad_access`].
#[cold]
#[inline(never)]
fn report(access: Access, pointer: *const c_void, len: Option<usize>, name: &'static str) {
    let nothing = 0..0;
    let own = STATE.get().map_or(&nothing, |state| &state.own);
    query::bad_access(access, Addr::of(pointer), len, name, own);
}

/// Reports a write of `len` bytes from `pointer` on if they are not all one object's.
#[inline(always)]
fn write<T>(hull: Hull, pointer: *const T, len: usize, name: &'static str) {
    if len > hull.room(pointer) {
        report(Access::Write, pointer.cast(), Some(len), name);
    }
}

/// The same for a read.
#[inline(always)]
fn read<T>(hull: Hull, pointer: *const T, len: usize, name: &'static str) {
    if len > hull.room(pointer) {
        report(Access::Read, pointer.cast(), Some(len), name);
    }
}

/// Bytes of so many wide characters.
#[inline(always)]
const fn wide(count: usize) -> usize {
    count.saturating_mul(size_of::<Wide>())
}

macro_rules! rows {
    ($($family:ident $name:ident as $shown:ident($($argument:ident: $type:ty),*) -> $result:ty, $rule:tt;)+) => {
        /// Of the C library's functions: by number.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        enum Row { $($name),+ }

        const NAMES: &[Name<'static>] = &[$(Name::new(rows!(@looked_up $name))),+];
        const ROWS: usize = NAMES.len();
        const FAMILY_OF: [Family; ROWS] = [$(Family::$family),+];

        /// The C library's functions.
        #[allow(clippy::missing_safety_doc, reason = "the C library's manual says it")]
        #[allow(dead_code, reason = "not all rows go on in theirs")]
        mod real {
            use super::*;

            $(
                #[inline(always)]
                #[allow(clippy::too_many_arguments, reason = "the C library's")]
                pub unsafe fn $name($($argument: $type),*) -> $result {
                    // SAFETY: the C library's function of this name has this type, and the caller vouches for what it
                    // asks of its arguments.
                    unsafe {
                        let function = core::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> $result>(
                            function(Row::$name),
                        );
                        function($($argument),*)
                    }
                }
            )+

            /// The same where they are known.
            #[allow(dead_code, reason = "not all rows go on at once")]
            pub mod known {
                use super::*;

                $(
                    #[inline(always)]
                    pub fn $name(state: &State) -> unsafe extern "C" fn($($type),*) -> $result {
                        // SAFETY: the C library's function of this name has this type.
                        unsafe { core::mem::transmute(state.functions[Row::$name as usize]) }
                    }
                )+
            }
        }

        $(rows! { @define $family $name $shown ($($argument: $type),*) $result, $rule })+
    };
    // The two differ where areas overlap, which programs that are linked with an older version of `memcpy` rely on:
    // the loader leads them here, too.
    (@looked_up memcpy) => { c"memmove" };
    (@looked_up $name:ident) => {
        // SAFETY: the literal ends in the one NUL that is appended to it.
        unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) }
    };
    (@define $family:ident $name:ident $shown:ident ($($argument:ident: $type:ty),*) $result:ty,
     { $($access:ident($pointer:ident, $bytes:expr);)+ }) => {
        const _: () = {
            /// # Safety
            /// As the C library's manual says.
            #[unsafe(export_name = concat!("fencepost_intercept_", stringify!($name)))]
            unsafe extern "C" fn intercept($($argument: $type),*) -> $result {
                // SAFETY: the caller vouches for the same, here and below.
                unsafe {
                    let Some(state) = STATE.get() else { return general($($argument),*) };
                    let hull = state.hulls[Family::$family as usize];
                    if $(hull.holds($pointer))||+ {
                        return checked($($argument),*);
                    }
                    real::known::$name(state)($($argument),*)
                }
            }

            /// The shortest way with objects of the heap: calls nothing, and so keeps nothing on the stack.
            #[inline(never)]
            unsafe extern "C" fn checked($($argument: $type),*) -> $result {
                // SAFETY: `checked` is called with the arguments of the C function, for which its caller
                // vouches. The state was found, so `known` is right.
                unsafe {
                    let state = STATE.known();
                    if query::is_open() $(&& query::is_fine(Addr::of($pointer), $bytes))+ {
                        return real::known::$name(state)($($argument),*);
                    }
                    general($($argument),*)
                }
            }

            /// The longest way: of what is not told at first sight, and before anything is known.
            #[cold]
            #[inline(never)]
            unsafe extern "C" fn general($($argument: $type),*) -> $result {
                let hull = hull(Family::$family);
                $($access(hull, $pointer, $bytes, stringify!($shown));)+
                // SAFETY: the arguments are those of the C function, for which its caller vouches.
                unsafe { or_real!($name, ($($argument),*)) }
            }
        };
    };
    (@define $family:ident $name:ident $shown:ident ($($argument:ident: $type:ty),*) $result:ty,
     [$module:ident::$function:ident]) => {
        const _: () = {
            /// # Safety
            /// As the C library's manual says.
            #[unsafe(export_name = concat!("fencepost_intercept_", stringify!($name)))]
            #[allow(clippy::too_many_arguments, reason = "the C library's")]
            unsafe extern "C" fn intercept($($argument: $type),*) -> $result {
                // SAFETY: the caller vouches for the same.
                unsafe { $module::$function($($argument),*) }
            }
        };
    };
}

intercepted!(rows);

macro_rules! variadic_rows {
    ($($family:ident $name:ident as $shown:ident $named:literal ($($argument:ident: $type:ty),*) -> $result:ty, $rule:tt;)+) => {
        const VARIADIC_NAMES: &[Name<'static>] = &[$(Name::new(rows!(@looked_up $name))),+];
        const VARIADIC_ROWS: usize = VARIADIC_NAMES.len();
        const VARIADIC_FAMILY_OF: [Family; VARIADIC_ROWS] = [$(Family::$family),+];

        $(rows! { @define $family $name $shown ($($argument: $type),*) $result, $rule })+
    };
}

intercepted_variadic!(variadic_rows);
