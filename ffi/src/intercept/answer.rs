//! System calls whose answer may be shorter than the buffer: see [`super::transfer`]. An answer that may not fit goes
//! to a separate buffer first.

use super::transfer::{bytes, too_small, transfers};
use super::{real, report};
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::mem::MaybeUninit;
use fencepost_core::report::Access;
use fencepost_core::sys::errno;
use libc::{socklen_t, ssize_t};

/// The longest link, with room for one byte more.
const LINK: usize = 4096;
/// The longest value of an option that is read into a place apart.
const VALUE: usize = 512;

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn getrandom(buffer: *mut c_void, count: usize, flags: c_uint) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match too_small(buffer, count) {
            None => real::getrandom(buffer, count, flags),
            Some(room) => fill_over(buffer, count, room, flags),
        }
    }
}

/// # Safety
/// As the C library's manual says of `getrandom`.
#[cold]
unsafe fn fill_over(buffer: *mut c_void, count: usize, room: usize, flags: c_uint) -> ssize_t {
    // SAFETY: so much may be written, or as the caller says.
    unsafe {
        let mut probe = 0_u8;
        let result = match room {
            0 => real::getrandom((&raw mut probe).cast(), 1, flags),
            room => real::getrandom(buffer, room, flags),
        };
        if bytes(result) < room.max(1) {
            return result;
        }
        report(Access::Write, buffer, Some(count), "getrandom");
        real::getrandom(buffer, count, flags)
    }
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn readlink(path: *const c_char, buffer: *mut c_char, count: usize) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match too_small(buffer.cast(), count) {
            None => real::readlink(path, buffer, count),
            Some(room) => {
                link_over(buffer, count, room, "readlink", &mut |to, count| real::readlink(path, to, count))
            }
        }
    }
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn readlinkat(
    at: c_int,
    path: *const c_char,
    buffer: *mut c_char,
    count: usize,
) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match too_small(buffer.cast(), count) {
            None => real::readlinkat(at, path, buffer, count),
            Some(room) => link_over(buffer, count, room, "readlinkat", &mut |to, count| {
                real::readlinkat(at, path, to, count)
            }),
        }
    }
}

/// Reads a link into a buffer that is smaller than `count`, by `call`.
///
/// # Safety
/// As the C library's manual says of `readlink`.
#[cold]
#[inline(never)]
unsafe fn link_over(
    buffer: *mut c_char,
    count: usize,
    room: usize,
    name: &'static str,
    call: &mut dyn FnMut(*mut c_char, usize) -> ssize_t,
) -> ssize_t {
    let mut link = [MaybeUninit::<c_char>::uninit(); LINK];
    let result = call(link.as_mut_ptr().cast(), count.min(LINK));
    let len = bytes(result);
    if len > room {
        let _errno = errno::ErrnoGuard::new();
        report(Access::Write, buffer.cast(), Some(len), name);
    }
    // SAFETY: so much was read, and may be written or is as the program would have had it.
    unsafe { real::memmove(buffer.cast(), link.as_ptr().cast(), len) };
    result
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn getcwd(buffer: *mut c_char, count: usize) -> *mut c_char {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match too_small(buffer.cast(), count) {
            None => real::getcwd(buffer, count),
            Some(room) => directory_over(buffer, count, room),
        }
    }
}

/// # Safety
/// As the C library's manual says of `getcwd`.
#[cold]
unsafe fn directory_over(buffer: *mut c_char, count: usize, room: usize) -> *mut c_char {
    let before = errno::get();
    // SAFETY: so much may be written; the rest is as the caller says.
    unsafe {
        if room != 0 {
            let result = real::getcwd(buffer, room);
            if !result.is_null() || errno::get() != libc::ERANGE {
                return result;
            }
        }
        // The C library allocates what it takes.
        let whole = real::getcwd(core::ptr::null_mut(), 0);
        if whole.is_null() {
            return whole;
        }
        let len = real::strlen(whole.cast()).saturating_add(1);
        libc::free(whole.cast());
        if len > count {
            errno::set(libc::ERANGE);
            return core::ptr::null_mut();
        }
        errno::set(before);
        report(Access::Write, buffer.cast(), Some(len), "getcwd");
        real::getcwd(buffer, count)
    }
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    size: *mut socklen_t,
) -> c_int {
    let hull = transfers();
    // SAFETY: the caller vouches for the same.
    unsafe {
        if !hull.holds(value) || size.is_null() {
            return real::getsockopt(fd, level, option, value, size);
        }
        let (count, room) = (*size as usize, hull.room(value));
        if count <= room {
            return real::getsockopt(fd, level, option, value, size);
        }
        if count > VALUE {
            let result = real::getsockopt(fd, level, option, value, size);
            if result == 0 && *size as usize > room {
                report(Access::Write, value, Some(*size as usize), "getsockopt");
            }
            return result;
        }
        option_over(fd, level, option, value, size, room)
    }
}

/// # Safety
/// As the C library's manual says of `getsockopt`.
#[cold]
unsafe fn option_over(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    size: *mut socklen_t,
    room: usize,
) -> c_int {
    let mut place = [0_u64; VALUE / 8];
    // SAFETY: so much may be read and written; the rest is as the caller says.
    unsafe {
        real::memmove(place.as_mut_ptr().cast(), value, room);
        let result = real::getsockopt(fd, level, option, place.as_mut_ptr().cast(), size);
        if result == 0 {
            let len = (*size as usize).min(VALUE);
            if len > room {
                let _errno = errno::ErrnoGuard::new();
                report(Access::Write, value, Some(len), "getsockopt");
            }
            real::memmove(value, place.as_ptr().cast(), len);
        }
        result
    }
}
