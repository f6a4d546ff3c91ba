//! Stand-ins for the plainest functions, for calls before the C library's are looked up: calls of constructors and
//! resolvers of other libraries, perhaps before this library is relocated, and calls of this library's own code. They
//! use nothing but their arguments.
//!
//! The loops read and write volatile, so that the compiler makes no calls of the same functions of them.

use super::{Byte, STATE};
use core::arch::asm;
use core::ffi::{c_int, c_void};

/// Calls the C library's function of a name, or if it is not known yet and there is one, the stand-in.
macro_rules! or_real {
    (memcpy, $arguments:tt) => { or_real!(@with memcpy memmove $arguments) };
    (memmove, $arguments:tt) => { or_real!(@with memmove memmove $arguments) };
    (memset, $arguments:tt) => { or_real!(@with memset memset $arguments) };
    (memcmp, $arguments:tt) => { or_real!(@with memcmp memcmp $arguments) };
    (bcmp, $arguments:tt) => { or_real!(@with bcmp memcmp $arguments) };
    (strlen, $arguments:tt) => { or_real!(@with strlen strlen $arguments) };
    (@with $name:ident $early:ident ($($argument:ident),*)) => {
        match $crate::intercept::early::is_early() {
            true => $crate::intercept::early::$early($($argument),*),
            false => $crate::intercept::real::$name($($argument),*),
        }
    };
    ($name:ident, ($($argument:ident),*)) => { $crate::intercept::real::$name($($argument),*) };
}
pub(super) use or_real;

/// Whether the C library's functions are not known.
#[inline(always)]
pub(super) fn is_early() -> bool {
    STATE.get().is_none()
}

/// # Safety
/// As the C library's manual says of `memmove`.
#[cold]
#[inline(never)]
pub(super) unsafe fn memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    // SAFETY: the caller passes areas of so many bytes. The direction flag is clear as the ABI has it, and is again.
    unsafe {
        if to.addr().wrapping_sub(from.addr()) >= count {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
        } else {
            let (last, end) = (
                from.cast::<Byte>().wrapping_add(count).wrapping_sub(1),
                to.cast::<Byte>().wrapping_add(count).wrapping_sub(1),
            );
            asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") end => _, inout("rsi") last => _, options(nostack));
        }
    }
    to
}

/// # Safety
/// As the C library's manual says of `memset`.
#[cold]
#[inline(never)]
pub(super) unsafe fn memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void {
    // SAFETY: the caller passes an area of so many bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As the C library's manual says of `memcmp`.
#[cold]
#[inline(never)]
pub(super) unsafe fn memcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int {
    for index in 0..count {
        // SAFETY: within the areas that the caller passes.
        let (one, other) = unsafe {
            (one.cast::<Byte>().add(index).read_volatile(), other.cast::<Byte>().add(index).read_volatile())
        };
        if one != other {
            return c_int::from(one) - c_int::from(other);
        }
    }
    0
}

/// # Safety
/// As the C library's manual says of `strlen`.
#[cold]
#[inline(never)]
pub(super) unsafe fn strlen(text: *const Byte) -> usize {
    let mut len = 0;
    // SAFETY: the string's end was not met yet.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// What this library's own calls lead to: see `build.rs`.
macro_rules! own {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        $(const _: () = {
            /// # Safety
            /// As the C library's manual says.
            #[unsafe(export_name = concat!("fencepost_own_", stringify!($name)))]
            unsafe extern "C" fn own($($argument: $type),*) -> $result {
                // SAFETY: the caller vouches for the same.
                unsafe { or_real!($name, ($($argument),*)) }
            }
        };)+
    };
}

own_calls!(own);
