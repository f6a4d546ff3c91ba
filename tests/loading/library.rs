//! A library whose global allocator is fencepost, to be opened and closed.

use fencepost::Fencepost;
use std::alloc::{Layout, alloc, dealloc};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// What an object begins with: its whole size.
const AHEAD: usize = 16;

/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn library_allocate(size: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size + AHEAD, AHEAD) else { return std::ptr::null_mut() };
    // SAFETY: the size is not 0, and the object is as large as what is written.
    unsafe {
        let start = alloc(layout);
        start.cast::<usize>().write(layout.size());
        start.add(AHEAD)
    }
}

/// # Safety
/// The pointer comes from [`library_allocate`] and is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn library_free(pointer: *mut u8) {
    // SAFETY: what `library_allocate` wrote is still there.
    unsafe {
        let start = pointer.sub(AHEAD);
        let size = start.cast::<usize>().read();
        dealloc(start, Layout::from_size_align_unchecked(size, AHEAD));
    }
}
