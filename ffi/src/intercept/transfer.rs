//! System calls: how much of a buffer a call touches is known from its result.
//!
//! A count beyond the object is no fault if fewer bytes come. So the call is made with the room of the object, and a
//! little memory of this library's behind it. Bytes that arrive there would have been written beyond the object. While
//! nothing is wrong, the result, `errno` and the file's position are those of the program's own call.
//!
//! | the call | is made as | it goes beyond if |
//! |---|---|---|
//! | reads into a buffer | `readv`, `preadv`, `recvmsg` with the room of the object and [`SPARE`] bytes of the stack | more came than there is room |
//! | writes from a buffer | itself, with the bytes of the object | all of them were taken |
//! | the same without any | itself, from a page without access | the kernel says `EFAULT` |
//! | `readlink`, `getcwd`, `getsockopt` | itself, in the room or in a separate buffer | the answer does not fit |
//!
//! The kernel may refuse a call of this form (unaligned parts of a file that is read past the cache, a filter). Then
//! the program's own call is made, and its result is checked.
//!
//! If the program goes on after a report, the bytes go where the program's call would have put them, and the rest is
//! taken from where it would have taken it. Calls within their bounds keep nothing on the stack.

use super::answer::{getcwd, readlink, readlinkat};
use super::{Family, Hull, hull, real, report};
use core::ffi::{c_char, c_int, c_void};
use core::mem::MaybeUninit;
use fencepost_core::addr::PAGE_SIZE;
use fencepost_core::report::Access;
use fencepost_core::sys::errno;
use libc::{iovec, msghdr, off_t, sockaddr, socklen_t, ssize_t};

/// Bytes behind a buffer that are read to see whether there are any.
pub(super) const SPARE: usize = 256;

/// An address that cannot be accessed, for the kernel to fault on: in the lowest pages, which the kernel lets nobody map
/// without privilege (`vm.mmap_min_addr`).
pub(super) fn closed() -> *mut c_void {
    core::ptr::without_provenance_mut(PAGE_SIZE)
}

#[inline(always)]
pub(super) fn transfers() -> Hull {
    hull(Family::call)
}

/// The room at `buffer` if a call for `count` bytes may not pass as it is.
#[inline(always)]
pub(super) fn too_small(buffer: *const c_void, count: usize) -> Option<usize> {
    let hull = transfers();
    if !hull.holds(buffer) {
        return None;
    }
    let room = hull.room(buffer);
    (count > room).then_some(room)
}

/// Bytes of a result, 0 of an error.
pub(super) fn bytes(result: ssize_t) -> usize {
    usize::try_from(result).unwrap_or(0)
}

/// Whether a call failed because of how it was made here: of two parts, or of fewer bytes. The program's own call is made
/// then, and its result looked at.
pub(super) fn is_refused(result: ssize_t) -> bool {
    let reasons = [libc::EINVAL, libc::ENOSYS, libc::EPERM, libc::EOPNOTSUPP];
    result < 0 && reasons.contains(&errno::get())
}

/// Makes the program's own call, and reports one that went beyond the `room` that there was.
pub(super) fn look_at_result(
    access: Access,
    buffer: *const c_void,
    count: usize,
    room: usize,
    name: &'static str,
    call: impl FnOnce() -> ssize_t,
) -> ssize_t {
    let result = call();
    if bytes(result) > room {
        let _errno = errno::ErrnoGuard::new();
        report(access, buffer, Some(count), name);
    }
    result
}

/// Reads into a buffer that is smaller than `count`, by `call`, which takes a vector of two; `whole` is the program's own
/// call.
///
/// # Safety
/// As the caller's function, for `count` bytes.
#[cold]
#[inline(never)]
unsafe fn read_over(
    buffer: *mut c_void,
    count: usize,
    room: usize,
    name: &'static str,
    call: &mut dyn FnMut(&mut [iovec; 2]) -> ssize_t,
    whole: &mut dyn FnMut() -> ssize_t,
) -> ssize_t {
    let mut spare = [MaybeUninit::<u8>::uninit(); SPARE];
    let behind = (count - room).min(SPARE);
    let mut parts = [
        iovec { iov_base: buffer, iov_len: room },
        iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: behind },
    ];
    let result = call(&mut parts);
    if is_refused(result) {
        return look_at_result(Access::Write, buffer, count, room, name, whole);
    }
    let beyond = bytes(result).saturating_sub(room);
    if beyond != 0 {
        let _errno = errno::ErrnoGuard::new();
        report(Access::Write, buffer, Some(count), name);
        // SAFETY: as the program would have had it.
        unsafe { real::memmove(buffer.wrapping_byte_add(room), spare.as_ptr().cast(), beyond.min(behind)) };
    }
    result
}

/// Writes from a buffer that is smaller than `count`, by `call`, which takes where from, how many bytes, and how many
/// were written before.
///
/// # Safety
/// As the caller's function, for `count` bytes.
#[cold]
#[inline(never)]
unsafe fn write_over(
    buffer: *const c_void,
    count: usize,
    room: usize,
    name: &'static str,
    call: &mut dyn FnMut(*const c_void, usize, usize) -> ssize_t,
) -> ssize_t {
    if room == 0 {
        let result = call(closed(), count, 0);
        if result >= 0 || errno::get() != libc::EFAULT {
            return result;
        }
        report(Access::Read, buffer, Some(count), name);
        return call(buffer, count, 0);
    }
    let result = call(buffer, room, 0);
    if is_refused(result) {
        return look_at_result(Access::Read, buffer, count, room, name, || call(buffer, count, 0));
    }
    if bytes(result) != room {
        return result;
    }
    let before = errno::get();
    report(Access::Read, buffer, Some(count), name);
    let rest = call(buffer.wrapping_byte_add(room), count - room, room);
    if rest < 0 {
        errno::set(before);
    }
    result + rest.max(0)
}

/// A function for each row: how it is made where there is less room than it states.
macro_rules! calls {
    ($pointer:ty: $($name:ident($fd:ident, $buffer:ident, $count:ident $(, $more:ident: $type:ty)*) |$room:ident, $called:ident| $over:expr;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            pub(super) unsafe fn $name($fd: c_int, $buffer: $pointer, $count: usize $(, $more: $type)*) -> ssize_t {
                /// # Safety
                /// As the C library's manual says.
                #[cold]
                #[inline(never)]
                #[allow(clippy::too_many_arguments, reason = "the C library's, and the room")]
                unsafe fn over($room: usize, $fd: c_int, $buffer: $pointer, $count: usize $(, $more: $type)*) -> ssize_t {
                    let $called = stringify!($name);
                    // SAFETY: the caller vouches for the same.
                    unsafe { $over }
                }
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match too_small($buffer, $count) {
                        None => real::$name($fd, $buffer, $count $(, $more)*),
                        Some(room) => over(room, $fd, $buffer, $count $(, $more)*),
                    }
                }
            }
        )+
    };
}

/// A message of these parts, and an address of this size.
fn message(address: *mut sockaddr, size: socklen_t, parts: &mut [iovec]) -> msghdr {
    // SAFETY: an all-zero message is valid: it has nothing.
    let mut message: msghdr = unsafe { core::mem::zeroed() };
    (message.msg_name, message.msg_namelen) = (address.cast(), size);
    (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
    message
}

/// Where a position goes on.
fn after(offset: off_t, bytes: usize) -> off_t {
    offset.wrapping_add(bytes as off_t)
}

calls! { *mut c_void:
    read(fd, buffer, count) |room, name| read_over(buffer, count, room, name, &mut |parts| real::readv(fd, parts.as_ptr(), 2), &mut || real::read(fd, buffer, count));
    pread(fd, buffer, count, offset: off_t) |room, name| read_over(buffer, count, room, name, &mut |parts| real::preadv(fd, parts.as_ptr(), 2, offset), &mut || real::pread(fd, buffer, count, offset));
    pread64(fd, buffer, count, offset: off_t) |room, name| read_over(buffer, count, room, name, &mut |parts| real::preadv(fd, parts.as_ptr(), 2, offset), &mut || real::pread64(fd, buffer, count, offset));
}

calls! { *const c_void:
    write(fd, buffer, count) |room, name| write_over(buffer, count, room, name, &mut |from, len, _before| real::write(fd, from, len));
    pwrite(fd, buffer, count, offset: off_t) |room, name| write_over(buffer, count, room, name, &mut |from, len, before| real::pwrite(fd, from, len, after(offset, before)));
    pwrite64(fd, buffer, count, offset: off_t) |room, name| write_over(buffer, count, room, name, &mut |from, len, before| real::pwrite64(fd, from, len, after(offset, before)));
    send(fd, buffer, count, flags: c_int) |room, name| write_over(buffer, count, room, name, &mut |from, len, _before| real::send(fd, from, len, flags));
    sendto(fd, buffer, count, flags: c_int, to: *const sockaddr, size: socklen_t) |room, name| write_over(buffer, count, room, name, &mut |from, len, _before| real::sendto(fd, from, len, flags, to, size));
}

/// What is cut off, and yet counted in the result, is written nowhere.
pub(super) fn counts_more_than_it_writes(flags: c_int) -> bool {
    flags & libc::MSG_TRUNC != 0
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn recv(fd: c_int, buffer: *mut c_void, count: usize, flags: c_int) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match too_small(buffer, count).filter(|_| !counts_more_than_it_writes(flags)) {
            None => real::recv(fd, buffer, count, flags),
            Some(room) => receive_over(room, fd, buffer, count, flags),
        }
    }
}

/// # Safety
/// As the C library's manual says of `recv`.
#[cold]
#[inline(never)]
unsafe fn receive_over(room: usize, fd: c_int, buffer: *mut c_void, count: usize, flags: c_int) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        let call = &mut |parts: &mut [iovec; 2]| {
            let mut message = message(core::ptr::null_mut(), 0, parts);
            real::recvmsg(fd, &raw mut message, flags)
        };
        read_over(buffer, count, room, "recv", call, &mut || real::recv(fd, buffer, count, flags))
    }
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    count: usize,
    flags: c_int,
    from: *mut sockaddr,
    size: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match too_small(buffer, count).filter(|_| !counts_more_than_it_writes(flags)) {
            None => real::recvfrom(fd, buffer, count, flags, from, size),
            Some(room) => receive_from_over(room, fd, buffer, count, flags, from, size),
        }
    }
}

/// # Safety
/// As the C library's manual says of `recvfrom`.
#[cold]
#[inline(never)]
unsafe fn receive_from_over(
    room: usize,
    fd: c_int,
    buffer: *mut c_void,
    count: usize,
    flags: c_int,
    from: *mut sockaddr,
    size: *mut socklen_t,
) -> ssize_t {
    let asked = !from.is_null() && !size.is_null();
    // SAFETY: the caller vouches for the same.
    unsafe {
        let call = &mut |parts: &mut [iovec; 2]| {
            let address = if asked { from } else { core::ptr::null_mut() };
            let mut message = message(address, if asked { *size } else { 0 }, parts);
            let result = real::recvmsg(fd, &raw mut message, flags);
            if asked && result >= 0 {
                *size = message.msg_namelen;
            }
            result
        };
        let whole = &mut || real::recvfrom(fd, buffer, count, flags, from, size);
        read_over(buffer, count, room, "recvfrom", call, whole)
    }
}

/// What programs call that are built with `_FORTIFY_SOURCE`: what is more than the compiler sees the C library refuses.
macro_rules! checked {
    ($($name:ident, $row:ident, $plain:ident($($argument:ident: $type:ty),*; $count:ident, $room:ident $(, $more:ident: $more_type:ty)*) -> $result:ty;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "the C library's")]
            pub(super) unsafe fn $name($($argument: $type),*, $room: usize $(, $more: $more_type)*) -> $result {
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match $count > $room {
                        true => real::$row($($argument),*, $room $(, $more)*),
                        false => $plain($($argument),* $(, $more)*),
                    }
                }
            }
        )+
    };
}

checked! {
    read_chk, __read_chk, read(fd: c_int, buffer: *mut c_void, count: usize; count, room) -> ssize_t;
    pread_chk, __pread_chk, pread(fd: c_int, buffer: *mut c_void, count: usize, offset: off_t; count, room) -> ssize_t;
    pread64_chk, __pread64_chk, pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: off_t; count, room) -> ssize_t;
    recv_chk, __recv_chk, recv(fd: c_int, buffer: *mut c_void, count: usize; count, room, flags: c_int) -> ssize_t;
    recvfrom_chk, __recvfrom_chk, recvfrom(fd: c_int, buffer: *mut c_void, count: usize; count, room, flags: c_int, from: *mut sockaddr, size: *mut socklen_t) -> ssize_t;
    readlink_chk, __readlink_chk, readlink(path: *const c_char, buffer: *mut c_char, count: usize; count, room) -> ssize_t;
    readlinkat_chk, __readlinkat_chk, readlinkat(at: c_int, path: *const c_char, buffer: *mut c_char, count: usize; count, room) -> ssize_t;
    getcwd_chk, __getcwd_chk, getcwd(buffer: *mut c_char, count: usize; count, room) -> *mut c_char;
}
