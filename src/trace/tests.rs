use super::*;
use crate::sys::thread;

/// Within the running thread's stack, whatever it is: from `sp` on as much as the test's frames take.
fn stack_from(sp: usize) -> Stack {
    Stack { low: sp - 4096, end: sp + 64 }
}

#[test]
fn garbage_frame_pointers_end_the_walk() {
    let (_, _, sp) = thread::frame();
    for fp in [0, 1, 8, usize::MAX - 7, sp + 1] {
        for stack in [stack_from(sp), Stack::default()] {
            assert_eq!(capture(Site { pc: 4096, sp, fp }, 16, stack).as_slice(), [4096]);
        }
    }
}
