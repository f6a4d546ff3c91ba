//! Formatted text: it is written within the object it goes to, and is all there if it fits.
//!
//! What it would have had in more room the C library says by its result. So nothing is formatted twice that fits, and
//! nothing is written that does not.

use super::{Byte, Family, List, hull, real, report};
use core::ffi::c_int;
use fencepost_core::report::Access;

/// Formats into the heap, at most `most` bytes, by `within`, which takes the room that there is; its result if all fits.
///
/// # Safety
/// `list` is a list of arguments.
#[inline(always)]
unsafe fn within(
    to: *mut Byte,
    most: usize,
    list: *mut List,
    name: &'static str,
    within: impl FnOnce(usize, *mut List) -> c_int,
) -> Option<c_int> {
    let hull = hull(Family::text);
    if !hull.holds(to) {
        return None;
    }
    let room = hull.room(to);
    if most <= room {
        return None;
    }
    // SAFETY: as the caller says. What is used up is the copy.
    let mut copy = unsafe { *list };
    let result = within(room, &raw mut copy);
    match usize::try_from(result) {
        Ok(len) if len >= room => {
            report(Access::Write, to.cast(), Some(len.saturating_add(1).min(most)), name);
            None
        }
        _ => Some(result),
    }
}

/// # Safety
/// As the C library's manual says of `vsprintf`.
#[inline(always)]
unsafe fn print(to: *mut Byte, format: *const Byte, list: *mut List, name: &'static str) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe {
        let print = |room, list| real::vsnprintf(to, room, format, list);
        within(to, usize::MAX, list, name, print).unwrap_or_else(|| real::vsprintf(to, format, list))
    }
}

/// # Safety
/// As the C library's manual says of `vsnprintf`.
#[inline(always)]
unsafe fn print_bounded(
    to: *mut Byte,
    most: usize,
    format: *const Byte,
    list: *mut List,
    name: &'static str,
) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe {
        let print = |room, list| real::vsnprintf(to, room, format, list);
        within(to, most, list, name, print).unwrap_or_else(|| real::vsnprintf(to, most, format, list))
    }
}

/// # Safety
/// As `vsprintf`, of `room` bytes as the compiler sees it.
#[inline(always)]
unsafe fn print_checked(
    to: *mut Byte,
    flag: c_int,
    room: usize,
    format: *const Byte,
    list: *mut List,
    name: &'static str,
) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe {
        let print = |within, list| real::__vsnprintf_chk(to, within, flag, usize::MAX, format, list);
        let known = within(to, room, list, name, print);
        known.unwrap_or_else(|| real::__vsprintf_chk(to, flag, room, format, list))
    }
}

/// # Safety
/// As `vsnprintf`, of `room` bytes as the compiler sees it.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the C library's")]
unsafe fn print_bounded_checked(
    to: *mut Byte,
    most: usize,
    flag: c_int,
    room: usize,
    format: *const Byte,
    list: *mut List,
    name: &'static str,
) -> c_int {
    // SAFETY: the caller vouches for the same.
    unsafe {
        let print = |within, list| real::__vsnprintf_chk(to, within, flag, usize::MAX, format, list);
        // What is more than the compiler sees the C library refuses.
        let known = if most > room { None } else { within(to, most, list, name, print) };
        known.unwrap_or_else(|| real::__vsnprintf_chk(to, most, flag, room, format, list))
    }
}

/// What each row calls.
macro_rules! functions {
    ($($name:ident $other:ident($($argument:ident: $type:ty),*), $work:ident, $shown:literal, $shown_other:literal;)+) => {
        $(
            /// # Safety
            /// As the C library's manual says.
            pub(super) unsafe fn $name($($argument: $type),*) -> c_int {
                // SAFETY: the caller vouches for the same.
                unsafe { $work($($argument),*, $shown) }
            }

            /// # Safety
            /// As the C library's manual says.
            pub(super) unsafe fn $other($($argument: $type),*) -> c_int {
                // SAFETY: the caller vouches for the same.
                unsafe { $work($($argument),*, $shown_other) }
            }
        )+
    };
}

functions! {
    sprintf vsprintf(to: *mut Byte, format: *const Byte, list: *mut List), print, "sprintf", "vsprintf";
    snprintf vsnprintf(to: *mut Byte, most: usize, format: *const Byte, list: *mut List), print_bounded, "snprintf", "vsnprintf";
    sprintf_chk vsprintf_chk(to: *mut Byte, flag: c_int, room: usize, format: *const Byte, list: *mut List), print_checked, "sprintf", "vsprintf";
    snprintf_chk vsnprintf_chk(to: *mut Byte, most: usize, flag: c_int, room: usize, format: *const Byte, list: *mut List), print_bounded_checked, "snprintf", "vsnprintf";
}
