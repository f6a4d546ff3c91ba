//! Integration tests of a crate with bugs.

use std::alloc::{Layout, alloc, dealloc};

#[test]
fn freed_twice() {
    let layout = Layout::new::<[u64; 4]>();
    unsafe {
        let object = alloc(layout);
        dealloc(object, layout);
        dealloc(object, layout); // MARK freed
    }
}

#[test]
fn the_same_as_in_the_crate() {
    shaky::word(&vec![1; 32], 32);
}
