//! Stack traces: capturing the stack of a call, and the stack depot, in which equal stacks are kept once.
//!
//! Compilers leave the frame pointer out, so a stack is found by the unwind tables, which every distribution's binaries
//! have. What the tables say of one program counter is compiled into one word, a rule. Rules are kept in a table by
//! program counter. So a frame that was met before costs one look into the table and two loads from the stack.
//!
//! - [`objects`]: the loaded objects that rules come from, and the step from their tables to a rule.
//! - [`cache`]: rules, and their table.
//! - [`walk`]: where stacks lie; from frame to frame outwards.
//! - [`depot`]: captured stacks; stacks by number.
//!
//! Nothing here takes a lock, allocates, or enters the loader beyond `_dl_find_object`. So all of it may run in signal
//! handlers and while the loader holds its lock. Where the C library has no such function (before glibc 2.35), stacks
//! follow the frame pointer.

use crate::request::Site;
use crate::sys::signal::Context;
use core::cell::UnsafeCell;
use walk::{Tables, Walk};

mod cache;
pub mod depot;
mod objects;
mod walk;

pub use depot::{Depot, Frames, MAX_FRAMES};
pub use walk::Stack;

struct Global(UnsafeCell<Tables>);

// SAFETY: written by `init` alone, before anything is captured; what it holds is made for sharing.
unsafe impl Sync for Global {}

static TABLES: Global = Global(UnsafeCell::new(Tables::EMPTY));

/// Finds the first thread's stack, and maps the tables of rules if stacks are to be kept, small ones if
/// address space is `limited`.
///
/// # Safety
/// Called once, at start, while nothing is captured yet.
pub unsafe fn init(keep: bool, limited: bool) {
    walk::init();
    if keep && let Some(tables) = Tables::map(limited) {
        // SAFETY: as the caller says, nobody reads it yet.
        unsafe { *TABLES.0.get() = tables };
    }
}

fn tables() -> &'static Tables {
    // SAFETY: `init` writes the tables once, before anything is captured. From then on they are only shared.
    unsafe { &*TABLES.0.get() }
}

/// Up to `depth` frames from `site` outwards; `stack` is the running thread's, empty if unknown.
pub fn capture(site: Site, depth: usize, stack: Stack) -> Frames {
    let mut frames = Frames::EMPTY;
    capture_into(&mut frames, site, depth, stack);
    frames
}

/// [`capture`] into `frames`, which are empty: for callers on small stacks.
#[inline(always)]
pub fn capture_into(frames: &mut Frames, site: Site, depth: usize, stack: Stack) {
    if depth == 0 || site.pc == 0 {
        return;
    }
    frames.push(site.pc);
    Walk::new(tables(), stack, site.pc - 1, site.sp, site.fp).callers(frames, depth);
}

/// Up to `depth` frames from a fault outwards; the first is the faulting instruction.
pub fn capture_fault(context: &Context, depth: usize, stack: Stack) -> Frames {
    let mut frames = Frames::EMPTY;
    frames.push(context.pc);
    let mut walk = Walk::new(tables(), stack, context.pc, context.sp(), context.fp());
    // Code that cannot even be fetched was called a moment ago.
    let caller = if context.fetch { walk.leave_call() } else { walk.leave_first(&context.registers) };
    if let Some(pc) = caller {
        frames.push(pc);
        walk.callers(&mut frames, depth);
    }
    frames
}

#[cfg(test)]
#[path = "../../tests/fuzz/trace.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
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
}
