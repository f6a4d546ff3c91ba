//! Functions of the C library that a guarded heap has to adapt.
//!
//! `dlopen` loses the flag `RTLD_DEEPBIND`: a library that binds the C library's `free` before this
//! one's would free our objects with it. The call is passed on by a jump, since `dlopen` looks at its
//! caller's address. `pthread_getattr_np` allocates under a lock that a thread's first allocation wants as
//! well. `mlockall` locks pages when they are touched and leaves the guarded arena out.

use crate::init;
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use fencepost_core::heap;

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

static REAL_GETATTR: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// `pthread_getattr_np`, from a thread that has allocated before: it holds the thread's lock while it
/// allocates, and the first allocation of a thread asks for its stack, which takes that lock.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getattr_np(
    thread: libc::pthread_t,
    attributes: *mut libc::pthread_attr_t,
) -> c_int {
    type GetAttributes = unsafe extern "C" fn(libc::pthread_t, *mut libc::pthread_attr_t) -> c_int;
    init::ensure();
    heap::ready_thread();
    let mut real = REAL_GETATTR.load(Ordering::Acquire);
    if real.is_null() {
        real = init::next(c"pthread_getattr_np");
        REAL_GETATTR.store(real, Ordering::Release);
    }
    // SAFETY: the symbol is a function of this type; null becomes `None`.
    match unsafe { core::mem::transmute::<*mut c_void, Option<GetAttributes>>(real) } {
        // SAFETY: the caller vouches for the same.
        Some(real) => unsafe { real(thread, attributes) },
        None => libc::ENOSYS,
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
