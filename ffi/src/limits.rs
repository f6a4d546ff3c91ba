//! The C library's functions that set resource limits.
//!
//! When the process limits its own address space, the heap is told as well, and unmaps what it had reserved and not
//! used, and before it limits its data to less than it has, the heap opens what it goes on in: see `heap::limit`. The call itself is the system call that the C library would make. So it may be made
//! wherever the C library's may: in children of `vfork`, and before the library is set up.

use core::ffi::{c_int, c_uint};
use fencepost_core::heap;
use libc::{pid_t, rlimit};

/// What is done before a limit of the calling process's is set.
///
/// # Safety
/// `new` is null or a limit.
unsafe fn prepare(resource: c_uint, new: *const rlimit) {
    // SAFETY: as the caller says.
    if let Some(new) = unsafe { new.as_ref() }
        && resource == libc::RLIMIT_DATA
        && new.rlim_cur != libc::RLIM_INFINITY
    {
        heap::limit::data(new.rlim_cur);
    }
}

/// What is done with a limit of the calling process's that was set.
///
/// # Safety
/// `new` is null or a limit.
unsafe fn obey(resource: c_uint, new: *const rlimit) {
    // SAFETY: as the caller says.
    if let Some(new) = unsafe { new.as_ref() }
        && resource == libc::RLIMIT_AS
        && new.rlim_cur != libc::RLIM_INFINITY
    {
        heap::limit::address_space(new.rlim_cur);
    }
}

/// `prlimit`.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn prlimit(
    process: pid_t,
    resource: c_uint,
    new: *const rlimit,
    old: *mut rlimit,
) -> c_int {
    // SAFETY: asks for a number.
    let own = process == 0 || process == unsafe { libc::getpid() };
    if own {
        // SAFETY: null, or a limit of the caller's.
        unsafe { prepare(resource, new) };
    }
    // SAFETY: the caller vouches for the pointers; the kernel answers an error for those that it cannot use.
    let status = unsafe { libc::syscall(libc::SYS_prlimit64, process, resource, new, old) };
    if status != 0 {
        return -1;
    }
    if own {
        // SAFETY: the kernel could read it.
        unsafe { obey(resource, new) };
    }
    0
}

/// The same under the name for large files; limits have one size here.
///
/// # Safety
/// As [`prlimit`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn prlimit64(
    process: pid_t,
    resource: c_uint,
    new: *const rlimit,
    old: *mut rlimit,
) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe { prlimit(process, resource, new, old) }
}

/// `setrlimit`.
///
/// # Safety
/// As [`prlimit`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setrlimit(resource: c_uint, new: *const rlimit) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe { prlimit(0, resource, new, core::ptr::null_mut()) }
}

/// See [`prlimit64`].
///
/// # Safety
/// As [`prlimit`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setrlimit64(resource: c_uint, new: *const rlimit) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe { prlimit(0, resource, new, core::ptr::null_mut()) }
}
