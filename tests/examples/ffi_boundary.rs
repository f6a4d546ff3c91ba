//! What crosses into C: a buffer that Rust made and C fills. In `hunt` it ends at a guard page to the byte, so that the C function that
//! writes one too many stops at that byte; and before the call, `fencepost::check` tells whether a pointer and a length belong to
//! one live object.
//!
//! `cargo run --example ffi_boundary -- short` fits, `cargo run --example ffi_boundary -- "too long"` does not.

use fencepost::{Fencepost, Mode};
use std::ffi::{CStr, CString, c_char};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new().mode(Mode::Hunt);

/// Bytes of a name, its end among them.
const ROOM: usize = 8;

/// Copies a name by the C library's function, which is told nothing of the room there is.
fn copied(name: &CStr) -> Vec<u8> {
    let mut buffer: Vec<u8> = Vec::with_capacity(ROOM);
    let start = buffer.as_mut_ptr().cast::<c_char>();
    // What is passed on is whole: so much is asked, and costs two looks at tables.
    assert_eq!(fencepost::check(start, ROOM), Ok(()));
    assert!(fencepost::check(start, ROOM + 1).is_err());
    // SAFETY: as long as the name is shorter than the room; nobody asked.
    let len = unsafe {
        libc::strcpy(start, name.as_ptr());
        libc::strlen(start)
    };
    // SAFETY: the function wrote these.
    unsafe { buffer.set_len(len) };
    buffer
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "short".to_owned());
    let name = CString::new(name).expect("an argument has no NUL");
    println!("{}", String::from_utf8_lossy(&copied(&name)));
}
