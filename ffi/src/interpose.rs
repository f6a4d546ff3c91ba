//! Functions of the C library that a guarded heap has to adapt.
//!
//! `dlopen` and `dlmopen` lose the flag `RTLD_DEEPBIND` where it would have a library bind the C library's allocator
//! before this one; see [`crate::deepbind`]. The call is passed on by a jump, since they look at their caller's
//! address. `mlockall` locks pages when they are touched and leaves the guarded arena out.

use core::ffi::c_int;
use fencepost_core::heap;

/// What a static program has no loader for.
#[cfg(target_env = "gnu")]
mod loader {
    use crate::deepbind;
    use crate::real::{self, Name};
    use core::ffi::{CStr, c_char, c_int, c_long, c_void};

    /// What is passed on: a function of the C library, and the flags to call it with.
    #[repr(C)]
    struct Call {
        function: *mut c_void,
        flags: c_int,
    }

    /// The flags to open a library with in this library's namespace.
    fn flags_for(name: *const c_char, flags: c_int) -> c_int {
        if flags & libc::RTLD_DEEPBIND == 0 || name.is_null() {
            return flags;
        }
        // SAFETY: the caller of `dlopen` passes a C string.
        match deepbind::is_harmless(unsafe { CStr::from_ptr(name) }) {
            true => flags,
            false => flags & !libc::RTLD_DEEPBIND,
        }
    }

    extern "C" fn open(name: *const c_char, flags: c_int) -> Call {
        Call { function: real::address(Name::Open), flags: flags_for(name, flags) }
    }

    /// A library in another namespace has a C library of its own, and nothing of ours.
    extern "C" fn open_in(namespace: c_long, name: *const c_char, flags: c_int) -> Call {
        /// `LM_ID_BASE`.
        const BASE: c_long = 0;
        let flags = if namespace == BASE { flags_for(name, flags) } else { flags };
        Call { function: real::address(Name::OpenIn), flags }
    }

    /// `dlopen`, where need be without `RTLD_DEEPBIND`.
    ///
    /// # Safety
    /// As the C library's manual says.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    pub unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "call {open}",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "mov esi, edx",
            "jmp rax",
            ".cfi_endproc",
            open = sym open,
        )
    }

    /// `dlmopen`, where need be without `RTLD_DEEPBIND`.
    ///
    /// # Safety
    /// As the C library's manual says.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    pub unsafe extern "C" fn dlmopen(namespace: c_long, name: *const c_char, flags: c_int) -> *mut c_void {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "call {open}",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "jmp rax",
            ".cfi_endproc",
            open = sym open_in,
        )
    }
}

/// `mlockall`, with pages locked as they are touched and the guarded arena left out.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlockall(flags: c_int) -> c_int {
    heap::lock_memory(flags)
}
