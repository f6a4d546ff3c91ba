//! The exported functions of the C allocator: one row each.
//!
//! An entry is a few instructions that add two arguments, the address of the return address and the
//! frame pointer of the caller, and jump to the function that does the work. So the work knows where
//! in the program it was called from without a frame of its own in between, at a cost of two moves.
//!
//! `malloc` and `free` do without: they serve the common case themselves, need no stack for it, and
//! else jump to an entry of this kind, which finds the stack as the program left it.

use core::ffi::{c_int, c_void};
use fencepost_core::heap;
use fencepost_core::request::Origin;

/// Rows: C name, arguments, result, the registers behind the arguments (for the stack pointer and the
/// frame pointer), the function that does the work.
macro_rules! entries {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty, $sp:literal, $fp:literal, $work:path;)+) => {
        $(
            #[doc = concat!("The C function `", stringify!($name), "`, or the rest of it.")]
            ///
            /// # Safety
            /// As the C standard or the C library's manual says.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                core::arch::naked_asm!(
                    concat!("mov ", $sp, ", rsp"),
                    concat!("mov ", $fp, ", rbp"),
                    "jmp {work}",
                    work = sym $work,
                )
            }
        )+

        /// The names of all rows.
        #[cfg(test)]
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

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
    unsafe { fencepost_malloc_rest(size) }
}

/// The C function `free`.
///
/// # Safety
/// The pointer is null or an object of this allocator that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(pointer: *mut c_void) {
    if !heap::try_free_small(&crate::c::claim(pointer, None, Origin::Malloc)) {
        // SAFETY: the caller vouches for the same.
        unsafe { fencepost_free_rest(pointer) };
    }
}

entries! {
    fencepost_malloc_rest(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::malloc;
    fencepost_free_rest(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free_general;
    calloc(count: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::calloc;
    realloc(pointer: *mut c_void, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::realloc;
    reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void, "rcx", "r8", crate::c::reallocarray;
    cfree(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free_general;
    free_sized(pointer: *mut c_void, size: usize) -> (), "rdx", "rcx", crate::c::free_sized;
    free_aligned_sized(pointer: *mut c_void, align: usize, size: usize) -> (), "rcx", "r8", crate::c::free_aligned_sized;
    memalign(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
    aligned_alloc(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
    posix_memalign(result: *mut *mut c_void, align: usize, size: usize) -> c_int, "rcx", "r8", crate::c::posix_memalign;
    valloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::valloc;
    pvalloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::pvalloc;
    malloc_usable_size(pointer: *mut c_void) -> usize, "rsi", "rdx", crate::c::malloc_usable_size;
}
