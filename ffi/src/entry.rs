//! The exported functions of the C allocator, one for each row of [`crate::symbols`].
//!
//! An entry is a few instructions. They add two arguments, the address of the return address and the caller's frame
//! pointer, and jump to the function that does the work. So that function knows its caller in the program without a
//! frame in between, at a cost of two moves.
//!
//! `malloc` and `free` serve the common cases themselves and need no stack trace for the most common ones. Otherwise
//! they jump to an entry of this kind, which finds the stack as the program left it.

use crate::tuning::{MallInfo, MallInfo2};
use core::ffi::{c_int, c_void};
use fencepost_core::heap;
use fencepost_core::request::Origin;

/// An entry for each row; exported under its name, but for those without a family.
macro_rules! entries {
    ($($family:tt $name:ident($($argument:ident: $type:ty),*) -> $result:ty, $sp:literal, $fp:literal, $work:path;)+) => {
        $(entries! { one $family $name($($argument: $type),*) -> $result, $sp, $fp, $work })+
    };
    (one "" $name:ident $($rest:tt)+) => {
        entries! { define [] $name $($rest)+ }
    };
    (one $family:tt $name:ident $($rest:tt)+) => {
        entries! { define [#[unsafe(no_mangle)]] $name $($rest)+ }
    };
    (define [$(#[$export:meta])?] $name:ident($($argument:ident: $type:ty),*) -> $result:ty, $sp:literal, $fp:literal, $work:path) => {
        #[doc = concat!("The C function `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the C standard or the C library's manual says.
        $(#[$export])?
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            core::arch::naked_asm!(
                concat!("mov ", $sp, ", rsp"),
                concat!("mov ", $fp, ", rbp"),
                "jmp {work}",
                work = sym $work,
            )
        }
    };
}

c_symbols!(entries);
#[cfg(target_env = "gnu")]
glibc_symbols!(entries);

/// The C function `malloc`.
///
/// # Safety
/// None but the ABI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    let pointer = heap::try_allocate_small(size, Origin::Malloc);
    if !pointer.is_null() {
        return pointer.cast();
    }
    // SAFETY: the caller vouches for the same.
    unsafe { malloc_plain(size) }
}

/// [`malloc`] past its shortest path.
///
/// # Safety
/// None but the ABI's.
#[inline(never)]
unsafe extern "C" fn malloc_plain(size: usize) -> *mut c_void {
    let pointer = heap::try_allocate_plain(size, Origin::Malloc);
    if !pointer.is_null() {
        return pointer.cast();
    }
    // SAFETY: the caller vouches for the same.
    unsafe { malloc_rest(size) }
}

/// The C function `free`.
///
/// # Safety
/// The pointer is null or an object of this allocator that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(pointer: *mut c_void) {
    if !heap::try_free_small(&crate::c::claim(pointer, None, Origin::Malloc)) {
        // SAFETY: the caller vouches for the same.
        unsafe { free_plain(pointer) };
    }
}

/// [`free`] past its shortest path.
///
/// # Safety
/// As [`free`].
#[inline(never)]
unsafe extern "C" fn free_plain(pointer: *mut c_void) {
    if !heap::try_free_plain(&crate::c::claim(pointer, None, Origin::Malloc)) {
        // SAFETY: the caller vouches for the same.
        unsafe { free_rest(pointer) };
    }
}

entries! {
    "" malloc_rest(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::malloc;
    "" free_rest(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free_general;
}
