//! Functions of the C library that a guarded heap has to adapt.
//!
//! `dlopen` and `dlmopen` lose the flag `RTLD_DEEPBIND` where a library would bind the C library's allocator before
//! this one; see [`crate::deepbind`]. The call is passed on by a jump, since both look at their caller's address.
//! `dlsym` finds this library's functions instead of the C library's. `mlockall` locks pages when they are touched, and
//! leaves the guarded arena out.

use core::ffi::c_int;
use fencepost_core::heap;

/// What a static program has no loader for.
#[cfg(target_env = "gnu")]
mod loader {
    use crate::init::{self, Symbol};
    use crate::real::{self, Name};
    use crate::{deepbind, modules};
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

    /// What [`dlsym`] returns, or the function that it goes on to.
    #[repr(C)]
    struct Found {
        goes_on: usize,
        address: *mut c_void,
    }

    /// A handle names a library and not the caller's place in the search order: what it leads to is looked up here. The
    /// two pseudo-handles are the loader's to follow, which looks at its caller for them.
    extern "C" fn find(handle: *mut c_void, name: *const c_char) -> Found {
        let loaders = real::address(Name::Symbol);
        if loaders.is_null() || name.is_null() || handle == libc::RTLD_DEFAULT || handle == libc::RTLD_NEXT {
            return Found { goes_on: 1, address: loaders };
        }
        // SAFETY: the loader's function of this name has this type.
        let symbol = unsafe { core::mem::transmute::<*mut c_void, Symbol>(loaders) };
        // SAFETY: the caller of `dlsym` passes a C string.
        let text = unsafe { CStr::from_ptr(name) };
        let own = modules::own_symbols().and_then(|symbols| symbols.find(&modules::Name::new(text)));
        // First, so that what `dlerror` says is of the other search.
        let behind = own.map(|own| (own, init::next(text)));
        // SAFETY: the caller passes a handle and a C string.
        let address = unsafe { symbol(handle, name) };
        match behind {
            Some((own, behind)) if behind == address && !address.is_null() => {
                Found { goes_on: 0, address: core::ptr::with_exposed_provenance_mut(own) }
            }
            _ => Found { goes_on: 0, address },
        }
    }

    /// `dlsym`, which finds this library's function where it would find the C library's that this one stands before: what
    /// the C library itself allocates comes from here, and what is found has to fit.
    ///
    /// # Safety
    /// As the C library's manual says.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "call {find}",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "test rax, rax",
            "jnz 2f",
            "mov rax, rdx",
            "ret",
            "2:",
            "jmp rdx",
            ".cfi_endproc",
            find = sym find,
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
