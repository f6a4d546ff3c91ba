//! Strings: how much of a string is touched depends on its terminator.
//!
//! A string in the heap is measured within its object, as far as the function will touch it: a comparison up to the
//! first difference, a search up to what it finds. A count beyond the object is no fault of the program if the data end
//! before.

use super::early::or_real;
use super::{Byte, Family, Hull, Wide, hull, real, report, write};
use core::ffi::{c_int, c_void};
use fencepost_core::report::Access;

/// Elements of strings, and the C library's functions for them.
trait Unit: Copy {
    /// `strnlen`.
    ///
    /// # Safety
    /// So many elements may be read, or those up to the first that is zero.
    unsafe fn len(text: *const Self, most: usize) -> usize;
    /// `strlen`.
    ///
    /// # Safety
    /// A terminated string.
    unsafe fn whole_len(text: *const Self) -> usize;
    /// `strncmp`.
    ///
    /// # Safety
    /// As [`Unit::len`] of both.
    unsafe fn compare_text(one: *const Self, other: *const Self, most: usize) -> c_int;
    /// `memcmp`.
    ///
    /// # Safety
    /// So many elements of both may be read.
    unsafe fn compare(one: *const Self, other: *const Self, count: usize) -> c_int;
    /// `memchr`.
    ///
    /// # Safety
    /// So many elements may be read, or those up to the first of this value.
    unsafe fn find(from: *const Self, value: c_int, count: usize) -> *mut Self;
}

impl Unit for Byte {
    unsafe fn len(text: *const Self, most: usize) -> usize {
        // SAFETY: as the caller says.
        unsafe { real::strnlen(text, most) }
    }
    unsafe fn whole_len(text: *const Self) -> usize {
        // SAFETY: as the caller says.
        unsafe { real::strlen(text) }
    }
    unsafe fn compare_text(one: *const Self, other: *const Self, most: usize) -> c_int {
        // SAFETY: as the caller says.
        unsafe { real::strncmp(one, other, most) }
    }
    unsafe fn compare(one: *const Self, other: *const Self, count: usize) -> c_int {
        // SAFETY: as the caller says.
        unsafe { real::memcmp(one.cast(), other.cast(), count) }
    }
    unsafe fn find(from: *const Self, value: c_int, count: usize) -> *mut Self {
        // SAFETY: as the caller says.
        unsafe { real::memchr(from.cast(), value, count) }.cast()
    }
}

impl Unit for Wide {
    unsafe fn len(text: *const Self, most: usize) -> usize {
        // SAFETY: as the caller says.
        unsafe { real::wcsnlen(text, most) }
    }
    unsafe fn whole_len(text: *const Self) -> usize {
        // SAFETY: as the caller says.
        unsafe { real::wcslen(text) }
    }
    unsafe fn compare_text(one: *const Self, other: *const Self, most: usize) -> c_int {
        // SAFETY: as the caller says.
        unsafe { real::wcsncmp(one, other, most) }
    }
    unsafe fn compare(one: *const Self, other: *const Self, count: usize) -> c_int {
        // SAFETY: as the caller says.
        unsafe { real::wmemcmp(one, other, count) }
    }
    unsafe fn find(from: *const Self, value: c_int, count: usize) -> *mut Self {
        // SAFETY: as the caller says.
        unsafe { real::wmemchr(from, value, count) }
    }
}

/// Elements of so many bytes.
const fn bytes<U>(count: usize) -> usize {
    count.saturating_mul(size_of::<U>())
}

/// Elements that may be accessed from `pointer` on.
#[inline(always)]
fn room<U>(hull: Hull, pointer: *const U) -> usize {
    match hull.room(pointer) {
        usize::MAX => usize::MAX,
        bytes => bytes / size_of::<U>(),
    }
}

#[cold]
fn report_text<U>(text: *const U, elements: usize, name: &'static str) {
    report(Access::Read, text.cast(), Some(bytes::<U>(elements)), name);
}

/// The length of a string, or `most` if that is less, of which the function `name` touches as much, and the terminator
/// if there is room for it.
///
/// # Safety
/// As the C library's manual says of `strnlen`.
#[inline(always)]
unsafe fn measure<U: Unit>(hull: Hull, text: *const U, most: usize, name: &'static str) -> usize {
    let room = room(hull, text);
    // SAFETY: as the caller says, and within an object of the heap so much may be read.
    unsafe {
        if room >= most {
            return if most == usize::MAX { U::whole_len(text) } else { U::len(text, most) };
        }
        let len = U::len(text, room);
        if len < room {
            return len;
        }
        report_text(text, room + 1, name);
        // The program goes on, beyond the object.
        if most == usize::MAX { U::whole_len(text) } else { U::len(text, most) }
    }
}

/// Checks a comparison that ends with the first difference, or the end of both strings.
///
/// # Safety
/// As the C library's manual says of `strncmp`.
#[inline(always)]
unsafe fn check_comparison<U: Unit>(
    hull: Hull,
    one: *const U,
    other: *const U,
    most: usize,
    name: &'static str,
) {
    if !hull.holds(one) && !hull.holds(other) {
        return;
    }
    let (room_one, room_other) = (room(hull, one), room(hull, other));
    let both = room_one.min(room_other);
    if most <= both || both == usize::MAX {
        return;
    }
    // SAFETY: so much of both may be read, or as much as the caller says.
    let ends = unsafe { U::compare_text(one, other, both) != 0 || U::len(one, both) < both };
    if !ends {
        report_text(if room_one <= room_other { one } else { other }, both + 1, name);
    }
}

/// Checks a comparison of memory that ends with the first difference; what it says if that lies within the objects, and
/// the count does not.
///
/// # Safety
/// As the C library's manual says of `memcmp`.
#[inline(always)]
unsafe fn compare_within<U: Unit>(
    hull: Hull,
    one: *const U,
    other: *const U,
    count: usize,
    name: &'static str,
) -> Option<c_int> {
    if !hull.holds(one) && !hull.holds(other) {
        return None;
    }
    let (room_one, room_other) = (room(hull, one), room(hull, other));
    let both = room_one.min(room_other);
    if count <= both {
        return None;
    }
    // SAFETY: so much of both may be read.
    let result = unsafe { U::compare(one, other, both) };
    if result != 0 {
        return Some(result);
    }
    report_text(if room_one <= room_other { one } else { other }, count, name);
    None
}

/// Checks a search of memory; what it finds if that lies within the object, and the count does not.
///
/// # Safety
/// As the C library's manual says of `memchr`.
#[inline(always)]
unsafe fn find_within<U: Unit>(
    hull: Hull,
    from: *const U,
    value: c_int,
    count: usize,
    name: &'static str,
) -> Option<*mut U> {
    if !hull.holds(from) {
        return None;
    }
    let room = room(hull, from);
    if count <= room {
        return None;
    }
    // SAFETY: so much may be read.
    let found = unsafe { U::find(from, value, room) };
    if !found.is_null() {
        return Some(found);
    }
    report_text(from, room + 1, name);
    None
}

/// Checks a search of a string; what it finds if that lies within the object, and no terminator does.
///
/// # Safety
/// As the C library's manual says of `strchr`.
#[inline(always)]
unsafe fn find_in_text<U: Unit>(
    hull: Hull,
    text: *const U,
    value: c_int,
    name: &'static str,
) -> Option<*mut U> {
    if !hull.holds(text) {
        return None;
    }
    let room = room(hull, text);
    // SAFETY: so much may be read.
    if room == usize::MAX || unsafe { U::len(text, room) } < room {
        return None;
    }
    // SAFETY: as the caller says.
    unsafe { find_within(hull, text, value, usize::MAX, name) }
}

/// Checks a copy of a terminated string.
///
/// # Safety
/// As the C library's manual says of `strcpy`.
#[inline(always)]
unsafe fn check_copy<U: Unit>(hull: Hull, to: *const U, from: *const U, name: &'static str) {
    if hull.holds(to) || hull.holds(from) {
        // SAFETY: as the caller says.
        let len = unsafe { measure(hull, from, usize::MAX, name) };
        write(hull, to, bytes::<U>(len.saturating_add(1)), name);
    }
}

/// Checks a copy of so many elements, the last of them zeros where the string is shorter.
///
/// # Safety
/// As the C library's manual says of `strncpy`.
#[inline(always)]
unsafe fn check_bounded_copy<U: Unit>(
    hull: Hull,
    to: *const U,
    from: *const U,
    count: usize,
    name: &'static str,
) {
    if hull.holds(from) {
        // SAFETY: as the caller says.
        unsafe { measure(hull, from, count, name) };
    }
    write(hull, to, bytes::<U>(count), name);
}

/// Checks an appended string of `most` elements at most and its terminator.
///
/// # Safety
/// As the C library's manual says of `strncat`.
#[inline(always)]
unsafe fn check_append<U: Unit>(hull: Hull, to: *const U, from: *const U, most: usize, name: &'static str) {
    if hull.holds(to) || hull.holds(from) {
        // SAFETY: as the caller says.
        unsafe {
            let (before, len) = (measure(hull, to, usize::MAX, name), measure(hull, from, most, name));
            write(hull, to.wrapping_add(before), bytes::<U>(len.saturating_add(1)), name);
        }
    }
}

/// Checks a string that is read to its end.
///
/// # Safety
/// As the C library's manual says of `strlen`.
#[inline(always)]
unsafe fn check_text<U: Unit>(hull: Hull, text: *const U, most: usize, name: &'static str) {
    if hull.holds(text) {
        // SAFETY: as the caller says.
        unsafe { measure(hull, text, most, name) };
    }
}

/// A function for each row: what it checks, and what it goes on with.
macro_rules! functions {
    ($($name:ident $(as $row:ident)? ($($argument:ident: $type:ty),*) -> $result:ty, $shown:literal, |$hull:ident, $called:ident| $check:expr;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            pub(super) unsafe fn $name($($argument: $type),*) -> $result {
                let ($hull, $called) = (hull(Family::text), $shown);
                // SAFETY: the caller vouches for the same.
                unsafe {
                    $check;
                    functions!(@real $name $(as $row)? ($($argument),*))
                }
            }
        )+
    };
    (@real $name:ident as $row:ident ($($argument:ident),*)) => { real::$row($($argument),*) };
    (@real $name:ident ($($argument:ident),*)) => { or_real!($name, ($($argument),*)) };
}

/// The same for functions whose result may be known by the check.
macro_rules! results {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty, $shown:literal, |$hull:ident, $called:ident| $known:expr;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            #[inline(always)]
            pub(super) unsafe fn $name($($argument: $type),*) -> $result {
                let ($hull, $called) = (hull(Family::text), $shown);
                // SAFETY: the caller vouches for the same.
                unsafe {
                    match $known {
                        Some(result) => result,
                        None => or_real!($name, ($($argument),*)),
                    }
                }
            }
        )+
    };
}

results! {
    memcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int, "memcmp", |hull, name| compare_within::<Byte>(hull, one.cast(), other.cast(), count, name);
    bcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int, "bcmp", |hull, name| compare_within::<Byte>(hull, one.cast(), other.cast(), count, name);
    memchr(from: *const c_void, byte: c_int, count: usize) -> *mut c_void, "memchr", |hull, name| find_within::<Byte>(hull, from.cast(), byte, count, name).map(<*mut Byte>::cast);
    strlen(text: *const Byte) -> usize, "strlen", |hull, name| hull.holds(text).then(|| measure(hull, text, usize::MAX, name));
    strnlen(text: *const Byte, most: usize) -> usize, "strnlen", |hull, name| hull.holds(text).then(|| measure(hull, text, most, name));
    strchr(text: *const Byte, byte: c_int) -> *mut Byte, "strchr", |hull, name| find_in_text(hull, text, byte, name);
    index(text: *const Byte, byte: c_int) -> *mut Byte, "index", |hull, name| find_in_text(hull, text, byte, name);
    wmemcmp(one: *const Wide, other: *const Wide, count: usize) -> c_int, "wmemcmp", |hull, name| compare_within(hull, one, other, count, name);
    wmemchr(from: *const Wide, value: Wide, count: usize) -> *mut Wide, "wmemchr", |hull, name| find_within(hull, from, value, count, name);
    wcslen(text: *const Wide) -> usize, "wcslen", |hull, name| hull.holds(text).then(|| measure(hull, text, usize::MAX, name));
    wcsnlen(text: *const Wide, most: usize) -> usize, "wcsnlen", |hull, name| hull.holds(text).then(|| measure(hull, text, most, name));
    wcschr(text: *const Wide, value: Wide) -> *mut Wide, "wcschr", |hull, name| find_in_text(hull, text, value, name);
}

functions! {
    strcpy(to: *mut Byte, from: *const Byte) -> *mut Byte, "strcpy", |hull, name| check_copy(hull, to, from, name);
    stpcpy(to: *mut Byte, from: *const Byte) -> *mut Byte, "stpcpy", |hull, name| check_copy(hull, to, from, name);
    strncpy(to: *mut Byte, from: *const Byte, count: usize) -> *mut Byte, "strncpy", |hull, name| check_bounded_copy(hull, to, from, count, name);
    stpncpy(to: *mut Byte, from: *const Byte, count: usize) -> *mut Byte, "stpncpy", |hull, name| check_bounded_copy(hull, to, from, count, name);
    strcat(to: *mut Byte, from: *const Byte) -> *mut Byte, "strcat", |hull, name| check_append(hull, to, from, usize::MAX, name);
    strncat(to: *mut Byte, from: *const Byte, most: usize) -> *mut Byte, "strncat", |hull, name| check_append(hull, to, from, most, name);
    strcmp(one: *const Byte, other: *const Byte) -> c_int, "strcmp", |hull, name| check_comparison(hull, one, other, usize::MAX, name);
    strncmp(one: *const Byte, other: *const Byte, most: usize) -> c_int, "strncmp", |hull, name| check_comparison(hull, one, other, most, name);
    strrchr(text: *const Byte, byte: c_int) -> *mut Byte, "strrchr", |hull, name| check_text(hull, text, usize::MAX, name);
    strdup(text: *const Byte) -> *mut Byte, "strdup", |hull, name| check_text(hull, text, usize::MAX, name);
    strndup(text: *const Byte, most: usize) -> *mut Byte, "strndup", |hull, name| check_text(hull, text, most, name);
    strcpy_chk as __strcpy_chk(to: *mut Byte, from: *const Byte, room: usize) -> *mut Byte, "strcpy", |hull, name| check_copy(hull, to, from, name);
    stpcpy_chk as __stpcpy_chk(to: *mut Byte, from: *const Byte, room: usize) -> *mut Byte, "stpcpy", |hull, name| check_copy(hull, to, from, name);
    strncpy_chk as __strncpy_chk(to: *mut Byte, from: *const Byte, count: usize, room: usize) -> *mut Byte, "strncpy", |hull, name| check_bounded_copy(hull, to, from, count, name);
    stpncpy_chk as __stpncpy_chk(to: *mut Byte, from: *const Byte, count: usize, room: usize) -> *mut Byte, "stpncpy", |hull, name| check_bounded_copy(hull, to, from, count, name);
    strcat_chk as __strcat_chk(to: *mut Byte, from: *const Byte, room: usize) -> *mut Byte, "strcat", |hull, name| check_append(hull, to, from, usize::MAX, name);
    strncat_chk as __strncat_chk(to: *mut Byte, from: *const Byte, most: usize, room: usize) -> *mut Byte, "strncat", |hull, name| check_append(hull, to, from, most, name);
    wcscpy(to: *mut Wide, from: *const Wide) -> *mut Wide, "wcscpy", |hull, name| check_copy(hull, to, from, name);
    wcpcpy(to: *mut Wide, from: *const Wide) -> *mut Wide, "wcpcpy", |hull, name| check_copy(hull, to, from, name);
    wcsncpy(to: *mut Wide, from: *const Wide, count: usize) -> *mut Wide, "wcsncpy", |hull, name| check_bounded_copy(hull, to, from, count, name);
    wcscat(to: *mut Wide, from: *const Wide) -> *mut Wide, "wcscat", |hull, name| check_append(hull, to, from, usize::MAX, name);
    wcsncat(to: *mut Wide, from: *const Wide, most: usize) -> *mut Wide, "wcsncat", |hull, name| check_append(hull, to, from, most, name);
    wcscmp(one: *const Wide, other: *const Wide) -> c_int, "wcscmp", |hull, name| check_comparison(hull, one, other, usize::MAX, name);
    wcsncmp(one: *const Wide, other: *const Wide, most: usize) -> c_int, "wcsncmp", |hull, name| check_comparison(hull, one, other, most, name);
    wcsrchr(text: *const Wide, value: Wide) -> *mut Wide, "wcsrchr", |hull, name| check_text(hull, text, usize::MAX, name);
    wcsdup(text: *const Wide) -> *mut Wide, "wcsdup", |hull, name| check_text(hull, text, usize::MAX, name);
    wcscpy_chk as __wcscpy_chk(to: *mut Wide, from: *const Wide, room: usize) -> *mut Wide, "wcscpy", |hull, name| check_copy(hull, to, from, name);
    wcpcpy_chk as __wcpcpy_chk(to: *mut Wide, from: *const Wide, room: usize) -> *mut Wide, "wcpcpy", |hull, name| check_copy(hull, to, from, name);
    wcsncpy_chk as __wcsncpy_chk(to: *mut Wide, from: *const Wide, count: usize, room: usize) -> *mut Wide, "wcsncpy", |hull, name| check_bounded_copy(hull, to, from, count, name);
    wcscat_chk as __wcscat_chk(to: *mut Wide, from: *const Wide, room: usize) -> *mut Wide, "wcscat", |hull, name| check_append(hull, to, from, usize::MAX, name);
    wcsncat_chk as __wcsncat_chk(to: *mut Wide, from: *const Wide, most: usize, room: usize) -> *mut Wide, "wcsncat", |hull, name| check_append(hull, to, from, most, name);
}
