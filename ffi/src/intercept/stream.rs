//! Streams: how much a read touches depends on how much there is to read.
//!
//! A count beyond the object is no fault if the stream, or the line, ends before. So as much is read as there is room
//! for. Then one more character is read and put back, to see whether there is more.

use super::{Byte, Family, hull, real, report};
use core::ffi::{c_int, c_void};
use fencepost_core::report::Access;
use fencepost_core::sys::errno;
use libc::{FILE, ssize_t};

unsafe extern "C" {
    fn getc(stream: *mut FILE) -> c_int;
    fn __fwritable(stream: *mut FILE) -> c_int;
}

/// The room at `buffer` if a call for `count` bytes may not pass as it is.
#[inline(always)]
fn too_small(buffer: *const c_void, count: usize) -> Option<usize> {
    let hull = hull(Family::stream);
    if !hull.holds(buffer) {
        return None;
    }
    let room = hull.room(buffer);
    (count > room).then_some(room)
}

/// Whether a stream has something to be read.
///
/// # Safety
/// A stream.
unsafe fn has_more(stream: *mut FILE) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        let character = getc(stream);
        character != libc::EOF && libc::ungetc(character, stream) != libc::EOF
    }
}

/// `fread` or `fread_unlocked`.
type Read = unsafe fn(*mut c_void, usize, usize, *mut FILE) -> usize;
/// `fwrite` or `fwrite_unlocked`.
type Write = unsafe fn(*const c_void, usize, usize, *mut FILE) -> usize;

/// Transfers `count` elements of `size` bytes, of which there are only `room`, by `call`, which takes how many bytes were done before,
/// and how many to do. What else the call would touch it does if the stream `goes_on`.
///
/// # Safety
/// As the C library's manual says of `fread` and `fwrite`.
unsafe fn block_over(
    (access, buffer, name): (Access, *const c_void, &'static str),
    (size, count, room): (usize, usize, usize),
    call: &mut dyn FnMut(usize, usize) -> usize,
    goes_on: &mut dyn FnMut() -> bool,
) -> usize {
    let mut done = if room == 0 { 0 } else { call(0, room) };
    if done == room && goes_on() {
        let whole = size * count;
        report(access, buffer, Some(whole), name);
        done += call(room, whole - room);
    }
    done / size
}

/// Reads `count` elements of `size` bytes, for which there is only `room`.
///
/// # Safety
/// As the C library's manual says of `fread`.
#[cold]
#[inline(never)]
unsafe fn read_over(
    call: Read,
    buffer: *mut c_void,
    (size, count, room): (usize, usize, usize),
    stream: *mut FILE,
    name: &'static str,
) -> usize {
    // SAFETY: so much may be written; the rest is as the caller says.
    unsafe {
        let call = &mut |at, len| call(buffer.wrapping_byte_add(at), 1, len, stream);
        block_over((Access::Write, buffer, name), (size, count, room), call, &mut || has_more(stream))
    }
}

/// Writes `count` elements of `size` bytes, of which there are only `room`.
///
/// # Safety
/// As the C library's manual says of `fwrite`.
#[cold]
#[inline(never)]
unsafe fn write_over(
    call: Write,
    buffer: *const c_void,
    (size, count, room): (usize, usize, usize),
    stream: *mut FILE,
    name: &'static str,
) -> usize {
    // SAFETY: so much may be read; the rest is as the caller says.
    unsafe {
        if room == 0 && __fwritable(stream) == 0 {
            return call(buffer, size, count, stream);
        }
        let call = &mut |at, len| call(buffer.wrapping_byte_add(at), 1, len, stream);
        block_over((Access::Read, buffer, name), (size, count, room), call, &mut || true)
    }
}

macro_rules! blocks {
    ($($name:ident, $buffer:ty, $over:ident;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            pub(super) unsafe fn $name(buffer: $buffer, size: usize, count: usize, stream: *mut FILE) -> usize {
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match size.checked_mul(count).and_then(|whole| too_small(buffer, whole)) {
                        None => real::$name(buffer, size, count, stream),
                        Some(room) => $over(real::$name, buffer, (size, count, room), stream, stringify!($name)),
                    }
                }
            }
        )+
    };
}

blocks! {
    fread, *mut c_void, read_over;
    fread_unlocked, *mut c_void, read_over;
    fwrite, *const c_void, write_over;
    fwrite_unlocked, *const c_void, write_over;
}

/// `fgets` or `fgets_unlocked`.
type Gets = unsafe fn(*mut Byte, c_int, *mut FILE) -> *mut Byte;

/// Reads a line of `most` bytes with its end, for which there is only `room`.
///
/// # Safety
/// As the C library's manual says of `fgets`.
#[cold]
#[inline(never)]
unsafe fn line_over(
    call: Gets,
    to: *mut Byte,
    most: c_int,
    stream: *mut FILE,
    room: usize,
    name: &'static str,
) -> *mut Byte {
    let count = usize::try_from(most).unwrap_or(0);
    // SAFETY: what is written lies within the object; the rest is as the caller says.
    unsafe {
        let had_error = libc::ferror(stream) != 0;
        let mut len = 0;
        while len + 1 < count {
            let character = getc(stream);
            if character == libc::EOF {
                let failed = !had_error && libc::ferror(stream) != 0 && errno::get() != libc::EAGAIN;
                if len == 0 || failed {
                    return core::ptr::null_mut();
                }
                break;
            }
            // The character and the end behind it.
            if len + 2 > room {
                libc::ungetc(character, stream);
                report(Access::Write, to.cast(), Some(count), name);
                call(to.wrapping_add(len), most - len as c_int, stream);
                return to;
            }
            to.add(len).write(character as Byte);
            len += 1;
            if character == c_int::from(b'\n') {
                break;
            }
        }
        if len >= room {
            report(Access::Write, to.cast(), Some(len + 1), name);
        }
        to.wrapping_add(len).write(0);
        to
    }
}

macro_rules! lines {
    ($($name:ident $checked:ident $row:ident;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            pub(super) unsafe fn $name(to: *mut Byte, most: c_int, stream: *mut FILE) -> *mut Byte {
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match too_small(to.cast(), usize::try_from(most).unwrap_or(0)) {
                        None => real::$name(to, most, stream),
                        Some(room) => line_over(real::$name, to, most, stream, room, stringify!($name)),
                    }
                }
            }

            /// # Safety
            /// As the C library's manual says. What is more than the compiler sees the C library refuses.
            #[inline(always)]
            pub(super) unsafe fn $checked(to: *mut Byte, room: usize, most: c_int, stream: *mut FILE) -> *mut Byte {
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match usize::try_from(most).is_ok_and(|most| most <= room) {
                        true => $name(to, most, stream),
                        false => real::$row(to, room, most, stream),
                    }
                }
            }
        )+
    };
}

lines! {
    fgets fgets_chk __fgets_chk;
    fgets_unlocked fgets_unlocked_chk __fgets_unlocked_chk;
}

macro_rules! checked_blocks {
    ($($name:ident $plain:ident $row:ident;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says. What is more than the compiler sees the C library refuses.
            #[inline(always)]
            pub(super) unsafe fn $name(buffer: *mut c_void, room: usize, size: usize, count: usize, stream: *mut FILE) -> usize {
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match size.checked_mul(count).is_some_and(|whole| whole <= room) {
                        true => $plain(buffer, size, count, stream),
                        false => real::$row(buffer, room, size, count, stream),
                    }
                }
            }
        )+
    };
}

checked_blocks! {
    fread_chk fread __fread_chk;
    fread_unlocked_chk fread_unlocked __fread_unlocked_chk;
}

/// # Safety
/// As the C library's manual says of `getdelim`.
#[inline(always)]
unsafe fn line(
    line: *mut *mut Byte,
    size: *mut usize,
    delimiter: c_int,
    stream: *mut FILE,
    name: &'static str,
) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe {
        if line.is_null() || size.is_null() {
            return real::getdelim(line, size, delimiter, stream);
        }
        match too_small((*line).cast(), *size) {
            None => real::getdelim(line, size, delimiter, stream),
            Some(room) => whole_line_over(line, size, delimiter, stream, room, name),
        }
    }
}

/// Reads a line to where there is less `room` than `size` says. It is read to a place of its own first.
///
/// # Safety
/// As the C library's manual says of `getdelim`.
#[cold]
#[inline(never)]
unsafe fn whole_line_over(
    line: *mut *mut Byte,
    size: *mut usize,
    delimiter: c_int,
    stream: *mut FILE,
    room: usize,
    name: &'static str,
) -> ssize_t {
    // SAFETY: so much may be written; the rest is as the caller says.
    unsafe {
        let (mut place, mut place_size) = (core::ptr::null_mut::<Byte>(), 0);
        let result = real::getdelim(&raw mut place, &raw mut place_size, delimiter, stream);
        let _errno = errno::ErrnoGuard::new();
        let needed = usize::try_from(result).map_or(0, |len| len.saturating_add(1));
        if needed > *size {
            // The C library would have moved it, too.
            libc::free((*line).cast());
            (*line, *size) = (place, place_size);
            return result;
        }
        if needed > room {
            report(Access::Write, (*line).cast(), Some(needed), name);
        }
        real::memmove((*line).cast(), place.cast(), needed);
        libc::free(place.cast());
        result
    }
}

/// # Safety
/// As the C library's manual says.
pub(super) unsafe fn getdelim(
    to: *mut *mut Byte,
    size: *mut usize,
    delimiter: c_int,
    stream: *mut FILE,
) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe { line(to, size, delimiter, stream, "getdelim") }
}

/// What `getline` is where a header defines it.
///
/// # Safety
/// As the C library's manual says of `getdelim`.
pub(super) unsafe fn inner_getdelim(
    to: *mut *mut Byte,
    size: *mut usize,
    delimiter: c_int,
    stream: *mut FILE,
) -> ssize_t {
    let name = if delimiter == c_int::from(b'\n') { "getline" } else { "getdelim" };
    // SAFETY: the caller vouches for the same.
    unsafe { line(to, size, delimiter, stream, name) }
}

/// # Safety
/// As the C library's manual says.
pub(super) unsafe fn getline(to: *mut *mut Byte, size: *mut usize, stream: *mut FILE) -> ssize_t {
    // SAFETY: the caller vouches for the same.
    unsafe { line(to, size, c_int::from(b'\n'), stream, "getline") }
}
