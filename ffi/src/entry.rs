//! The exported functions of the C allocator: one row each.
//!
//! An entry is a few instructions that add two arguments, the address of the return address and the
//! frame pointer of the caller, and jump to the function that does the work. So the work knows where
//! in the program it was called from without a frame of its own in between, at a cost of two moves.

use core::ffi::{c_int, c_void};

/// Rows: C name, arguments, result, the registers behind the arguments (for the stack pointer and the
/// frame pointer), the function that does the work.
macro_rules! entries {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty, $sp:literal, $fp:literal, $work:path;)+) => {
        $(
            /// The C function of this name.
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

entries! {
    malloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::malloc;
    calloc(count: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::calloc;
    realloc(pointer: *mut c_void, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::realloc;
    reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void, "rcx", "r8", crate::c::reallocarray;
    free(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free;
    cfree(pointer: *mut c_void) -> (), "rsi", "rdx", crate::c::free;
    free_sized(pointer: *mut c_void, size: usize) -> (), "rdx", "rcx", crate::c::free_sized;
    free_aligned_sized(pointer: *mut c_void, align: usize, size: usize) -> (), "rcx", "r8", crate::c::free_aligned_sized;
    memalign(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
    aligned_alloc(align: usize, size: usize) -> *mut c_void, "rdx", "rcx", crate::c::memalign;
    posix_memalign(result: *mut *mut c_void, align: usize, size: usize) -> c_int, "rcx", "r8", crate::c::posix_memalign;
    valloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::valloc;
    pvalloc(size: usize) -> *mut c_void, "rsi", "rdx", crate::c::pvalloc;
    malloc_usable_size(pointer: *mut c_void) -> usize, "rsi", "rdx", crate::c::malloc_usable_size;
}
