//! Tests that find memory bugs: in `patrol` a sample of the objects lies between guard pages, where the access itself is stopped. The
//! others are checked when they are freed.
//!
//! In a crate of one's own the allocator stands under `#[cfg(test)]`, and `cargo test` is all. Here the test is
//! `main`: `cargo run --example patrol_in_tests` passes, `cargo run --example patrol_in_tests -- full` fails.

use fencepost::{Fencepost, Mode};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new().mode(Mode::Patrol);

/// A stack of bytes, with unsafe code that is wrong by one.
struct Bytes {
    memory: Box<[u8]>,
    len: usize,
}

impl Bytes {
    fn new(capacity: usize) -> Self {
        Self { memory: vec![0; capacity].into(), len: 0 }
    }

    fn push(&mut self, byte: u8) -> bool {
        // The bug: it should be `<`.
        let has_room = self.len <= self.memory.len();
        if has_room {
            // SAFETY: wrong: the last byte is beyond the end.
            unsafe { self.memory.as_mut_ptr().add(self.len).write(byte) };
            self.len += 1;
        }
        has_room
    }
}

fn main() {
    let bytes = std::env::args().nth(1).map_or(48, |_| 49);
    let mut stack = Bytes::new(48);
    let pushed = (0..bytes).filter(|byte| stack.push(*byte)).count();
    println!("{pushed} bytes pushed");
}
