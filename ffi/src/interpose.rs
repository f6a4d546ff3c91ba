//! Functions of the C library that a guarded heap has to adapt.
//!
//! `dlopen` loses the flag `RTLD_DEEPBIND`: a library that binds the C library's `free` before this
//! one's would free our objects with it. The call is passed on by a jump, since `dlopen` looks at its
//! caller's address. `mlockall` locks pages when they are touched and leaves the guarded arena out.

use core::ffi::c_int;
use fencepost_core::heap;

/// What a static program has no loader for.
#[cfg(target_env = "gnu")]
mod loader {
    use crate::init;
    use core::ffi::{c_char, c_int, c_void};
    use core::sync::atomic::{AtomicPtr, Ordering};

    static REAL_DLOPEN: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

    /// The next `dlopen`, looked up once. Without one there is nothing this process could call.
    extern "C" fn real_dlopen() -> *mut c_void {
        let mut real = REAL_DLOPEN.load(Ordering::Acquire);
        if real.is_null() {
            real = init::next(c"dlopen");
            REAL_DLOPEN.store(real, Ordering::Release);
        }
        real
    }

    /// `dlopen` without `RTLD_DEEPBIND`.
    ///
    /// # Safety
    /// As the C library's manual says.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    pub unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
        core::arch::naked_asm!(
            "push rdi",
            "push rsi",
            "sub rsp, 8",
            "call {real}",
            "add rsp, 8",
            "pop rsi",
            "pop rdi",
            "and esi, {keep}",
            "jmp rax",
            real = sym real_dlopen,
            keep = const !libc::RTLD_DEEPBIND,
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
