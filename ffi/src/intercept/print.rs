//! Formatted text: it is written within its object, and is complete if it fits.
//!
//! The C library's result says how long the text would have been. So text that fits is formatted only once, and text
//! that does not fit is not written beyond the object.

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

/// A function for each row and one of another name: how much it writes at most, how that is written within a room, and the program's own
/// call. What is more than the compiler sees the C library refuses.
macro_rules! functions {
    ($($name:ident $other:ident($to:ident: *mut Byte $(, $argument:ident: $type:ty)*; $list:ident), $shown:literal, $shown_other:literal,
       $most:expr, |$room:ident, $copy:ident| $within:expr, $own:expr;)+) => {
        $(
            functions! { @define $name($to $(, $argument: $type)*; $list), $shown, $most, |$room, $copy| $within, $own }
            functions! { @define $other($to $(, $argument: $type)*; $list), $shown_other, $most, |$room, $copy| $within, $own }
        )+
    };
    (@define $name:ident($to:ident $(, $argument:ident: $type:ty)*; $list:ident), $shown:literal,
     $most:expr, |$room:ident, $copy:ident| $within:expr, $own:expr) => {
        /// # Safety
        /// As the C library's manual says.
        pub(super) unsafe fn $name($to: *mut Byte $(, $argument: $type)*, $list: *mut List) -> c_int {
            // SAFETY: the caller vouches for the same.
            unsafe {
                let known = within($to, $most, $list, $shown, |$room, $copy| $within);
                known.unwrap_or_else(|| $own)
            }
        }
    };
}

functions! {
    sprintf vsprintf(to: *mut Byte, format: *const Byte; list), "sprintf", "vsprintf",
        usize::MAX, |room, copy| real::vsnprintf(to, room, format, copy), real::vsprintf(to, format, list);
    snprintf vsnprintf(to: *mut Byte, most: usize, format: *const Byte; list), "snprintf", "vsnprintf",
        most, |room, copy| real::vsnprintf(to, room, format, copy), real::vsnprintf(to, most, format, list);
    sprintf_chk vsprintf_chk(to: *mut Byte, flag: c_int, seen: usize, format: *const Byte; list), "sprintf", "vsprintf",
        seen, |room, copy| real::__vsnprintf_chk(to, room, flag, usize::MAX, format, copy), real::__vsprintf_chk(to, flag, seen, format, list);
    snprintf_chk vsnprintf_chk(to: *mut Byte, most: usize, flag: c_int, seen: usize, format: *const Byte; list), "snprintf", "vsnprintf",
        if most > seen { 0 } else { most }, |room, copy| real::__vsnprintf_chk(to, room, flag, usize::MAX, format, copy), real::__vsnprintf_chk(to, most, flag, seen, format, list);
}
