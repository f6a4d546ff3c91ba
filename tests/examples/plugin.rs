//! A shared library with an allocator of its own, for a program that has another: see `plugin_host.rs`. What it hands out it
//! takes back, and the two heaps never meet.

use fencepost::Fencepost;
use std::ffi::{CString, c_char};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// A text of `len` letters, to be given back to [`plugin_free`].
#[unsafe(no_mangle)]
pub extern "C" fn plugin_text(len: usize) -> *mut c_char {
    CString::new(vec![b'a'; len]).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// Whether `len` bytes from `pointer` on are one live object of this library's heap.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_owns(pointer: *const c_char, len: usize) -> bool {
    fencepost::bounds(pointer).is_some() && fencepost::check(pointer, len).is_ok()
}

/// # Safety
/// The pointer comes from [`plugin_text`] and is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_free(text: *mut c_char) {
    // SAFETY: as the caller says.
    drop(unsafe { CString::from_raw(text) });
}
