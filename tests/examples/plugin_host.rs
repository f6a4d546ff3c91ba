//! A program with the system's allocator that opens `plugin.rs`, a library with a hardened one: `plugin_host PATH` uses it
//! as agreed, `plugin_host PATH twice` gives a text back twice, which the library's heap finds.

use std::env;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStringExt;

struct Plugin {
    text: extern "C" fn(usize) -> *mut c_char,
    owns: extern "C" fn(*const c_char, usize) -> bool,
    free: unsafe extern "C" fn(*mut c_char),
}

/// # Safety
/// The library has a function of that name and of the type `F`.
unsafe fn function<F: Copy>(library: *mut c_void, name: &CStr) -> F {
    // SAFETY: the handle is open, and the name ends.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!address.is_null(), "{name:?} is missing");
    // SAFETY: a function's address, of the type that the caller says.
    unsafe { std::mem::transmute_copy(&address) }
}

fn main() {
    let mut arguments = env::args_os().skip(1);
    let path = arguments.next().expect("the library's path is the first argument");
    let path = CString::new(path.into_vec()).expect("an argument has no NUL");
    // SAFETY: the path ends; what the library does when it is opened is its own affair.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "{path:?} cannot be opened");
    // SAFETY: the library has these, of these types.
    let plugin = unsafe {
        Plugin {
            text: function(library, c"plugin_text"),
            owns: function(library, c"plugin_owns"),
            free: function(library, c"plugin_free"),
        }
    };
    let text = (plugin.text)(12);
    let own = Box::new([0_u8; 13]);
    println!("its text is {}", if (plugin.owns)(text, 13) { "its own" } else { "not its own" });
    println!("my box is {}", if (plugin.owns)(own.as_ptr().cast(), 13) { "its own" } else { "not its own" });
    // SAFETY: the text comes from the library.
    unsafe { (plugin.free)(text) };
    if arguments.next().is_some() {
        // SAFETY: none: this is the bug.
        unsafe { (plugin.free)(text) };
    }
}
