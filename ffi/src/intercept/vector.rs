//! System calls with a buffer of several parts: see [`super::transfer`]. The parts are touched in order, so a result
//! says how far into the parts a call came.

use super::transfer::{
    SPARE, bytes, closed, counts_more_than_it_writes, is_refused, look_at_result, transfers,
};
use super::{read, real, report};
use core::ffi::c_int;
use core::mem::MaybeUninit;
use fencepost_core::report::Access;
use fencepost_core::sys::errno;
use libc::{iovec, msghdr, off_t, ssize_t};

/// Parts of a vector that is shortened; of longer ones the result is looked at.
const PARTS: usize = 16;
/// The most parts that the kernel takes.
const IOV_MAX: usize = 1024;

/// Where a vector leaves the heap's objects.
struct Beyond {
    /// Which part.
    part: usize,
    /// The room that it has.
    room: usize,
    /// Bytes up to there in all.
    before: usize,
}

/// The first part of a vector that leaves its object.
///
/// # Safety
/// As the C library's manual says of `readv`, for a vector of `count` parts.
unsafe fn beyond(parts: *const iovec, count: usize) -> Option<Beyond> {
    let hull = transfers();
    let mut before = 0_usize;
    for part in 0..count {
        // SAFETY: within the vector that the caller passes.
        let iovec { iov_base, iov_len } = unsafe { parts.add(part).read() };
        let room = hull.room(iov_base);
        if iov_len > room {
            return Some(Beyond { part, room, before: before.saturating_add(room) });
        }
        before = before.saturating_add(iov_len);
    }
    None
}

/// The vector of a call of the function `name` if it may not pass as it is.
///
/// # Safety
/// As [`beyond`].
#[inline(always)]
unsafe fn vector(parts: *const iovec, count: usize, name: &'static str) -> Option<Beyond> {
    let hull = transfers();
    if hull.len == 0 || count == 0 || count > IOV_MAX || parts.is_null() {
        return None;
    }
    read(hull, parts, count * size_of::<iovec>(), name);
    // SAFETY: as the caller says.
    unsafe { beyond(parts, count) }
}

/// Makes a call with a shortened vector, which a read has [`SPARE`] bytes behind. `call` takes a vector.
///
/// # Safety
/// As [`beyond`].
#[cold]
#[inline(never)]
unsafe fn shortened(
    access: Access,
    parts: *const iovec,
    count: usize,
    beyond: &Beyond,
    name: &'static str,
    call: &mut dyn FnMut(*const iovec, usize) -> ssize_t,
) -> ssize_t {
    let Beyond { part, room, before } = *beyond;
    // SAFETY: within the vector that the caller passes.
    let whole = unsafe { parts.add(part).read() };
    let complain = || report(access, whole.iov_base, Some(whole.iov_len), name);
    let as_it_is = |call: &mut dyn FnMut(*const iovec, usize) -> ssize_t| {
        look_at_result(access, whole.iov_base, whole.iov_len, before, name, || call(parts, count))
    };
    if part + 2 > PARTS {
        return as_it_is(call);
    }
    let mut spare = [MaybeUninit::<u8>::uninit(); SPARE];
    let mut shorter = [iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; PARTS];
    for (index, place) in shorter.iter_mut().enumerate().take(part) {
        // SAFETY: `index` is below `part`, which is within the vector that the caller passes.
        *place = unsafe { parts.add(index).read() };
    }
    let (mut tail, behind) = match access {
        Access::Write => {
            (iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: 0 }, (whole.iov_len - room).min(SPARE))
        }
        // The kernel faults there, as far as nothing was taken before.
        _ => (iovec { iov_base: closed(), iov_len: 0 }, if before == 0 { whole.iov_len } else { 0 }),
    };
    tail.iov_len = behind;
    if let Some([shortest, last]) = shorter.get_mut(part..part + 2) {
        (*shortest, *last) = (iovec { iov_base: whole.iov_base, iov_len: room }, tail);
    }
    let result = call(shorter.as_ptr(), part + 1 + usize::from(behind != 0));
    if is_refused(result) {
        return as_it_is(call);
    }
    let reached = bytes(result);
    if access == Access::Write {
        if reached > before {
            let _errno = errno::ErrnoGuard::new();
            complain();
            let to = whole.iov_base.wrapping_byte_add(room);
            // SAFETY: as the program would have had it.
            unsafe { real::memmove(to, spare.as_ptr().cast(), (reached - before).min(behind)) };
        }
        return result;
    }
    if before == 0 && result < 0 && errno::get() == libc::EFAULT {
        complain();
        return call(parts, count);
    }
    if before != 0 && reached == before {
        let _errno = errno::ErrnoGuard::new();
        complain();
    }
    result
}

macro_rules! vectors {
    ($($name:ident, $access:ident ($fd:ident $(, $more:ident: $type:ty)*);)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            pub(super) unsafe fn $name($fd: c_int, parts: *const iovec, count: c_int $(, $more: $type)*) -> ssize_t {
                /// # Safety
                /// As the C library's manual says.
                #[cold]
                #[inline(never)]
                unsafe fn over(beyond: Beyond, $fd: c_int, parts: *const iovec, count: usize $(, $more: $type)*) -> ssize_t {
                    // SAFETY: the caller vouches for the same.
                    unsafe {
                        shortened(Access::$access, parts, count, &beyond, stringify!($name), &mut |parts, count| {
                            real::$name($fd, parts, count as c_int $(, $more)*)
                        })
                    }
                }
                let number = usize::try_from(count).unwrap_or(0);
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match vector(parts, number, stringify!($name)) {
                        None => real::$name($fd, parts, count $(, $more)*),
                        Some(beyond) => over(beyond, $fd, parts, number $(, $more)*),
                    }
                }
            }
        )+
    };
}

vectors! {
    readv, Write(fd);
    preadv, Write(fd, offset: off_t);
    preadv64, Write(fd, offset: off_t);
    writev, Read(fd);
    pwritev, Read(fd, offset: off_t);
    pwritev64, Read(fd, offset: off_t);
}

/// The vector of a message if it may not pass as it is.
///
/// # Safety
/// As the C library's manual says of `recvmsg`.
#[inline(always)]
unsafe fn vector_of(message: *const msghdr, name: &'static str) -> Option<Beyond> {
    let hull = transfers();
    if hull.len == 0 || message.is_null() {
        return None;
    }
    read(hull, message, size_of::<msghdr>(), name);
    // SAFETY: the caller passes a message.
    unsafe { vector((*message).msg_iov, (*message).msg_iovlen, name) }
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match vector_of(message, "recvmsg").filter(|_| !counts_more_than_it_writes(flags)) {
            None => real::recvmsg(fd, message, flags),
            Some(beyond) => {
                let (parts, count) = ((*message).msg_iov, (*message).msg_iovlen);
                shortened(Access::Write, parts, count, &beyond, "recvmsg", &mut |parts, count| {
                    let mut shorter = *message;
                    (shorter.msg_iov, shorter.msg_iovlen) = (parts.cast_mut(), count);
                    let result = real::recvmsg(fd, &raw mut shorter, flags);
                    if result >= 0 {
                        (*message).msg_namelen = shorter.msg_namelen;
                        (*message).msg_controllen = shorter.msg_controllen;
                        (*message).msg_flags = shorter.msg_flags;
                    }
                    result
                })
            }
        }
    }
}

/// # Safety
/// As the C library's manual says.
#[inline(always)]
pub(super) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        match vector_of(message, "sendmsg") {
            None => real::sendmsg(fd, message, flags),
            Some(beyond) => {
                let (parts, count) = ((*message).msg_iov, (*message).msg_iovlen);
                shortened(Access::Read, parts, count, &beyond, "sendmsg", &mut |parts, count| {
                    let mut shorter = *message;
                    (shorter.msg_iov, shorter.msg_iovlen) = (parts.cast_mut(), count);
                    real::sendmsg(fd, &raw const shorter, flags)
                })
            }
        }
    }
}
