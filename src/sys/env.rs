//! The raw environment: no `getenv`, which a program may have replaced and which may lock.

use core::ffi::CStr;
use libc::c_char;

unsafe extern "C" {
    /// Under the name that is the C library's alone: a program may have an `environ` of its own.
    #[link_name = "__environ"]
    static environ: *const *const c_char;
}

/// The value of the variable called `name`. It borrows from the process's environment block, which
/// lives as long as nobody changes that variable: read it at start, before the program runs.
pub fn variable(name: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: the C library keeps `environ` null or pointing at a null-terminated array.
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return None;
    }
    loop {
        // SAFETY: `entry` is within the array: the loop ends at its null terminator.
        let text = unsafe { *entry };
        if text.is_null() {
            return None;
        }
        // SAFETY: each entry is a NUL-terminated string of the environment block.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        if let Some([b'=', value @ ..]) = bytes.strip_prefix(name) {
            return Some(value);
        }
        // SAFETY: the entry was not null, so the array has a further element.
        entry = unsafe { entry.add(1) };
    }
}
