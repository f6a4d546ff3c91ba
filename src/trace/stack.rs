//! Where stacks lie, and reading them.

use crate::addr::{Addr, PageCount, Span};
use crate::sys::{aux, limits, stacks, thread, vm};
use core::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes of a stack that are walked.
const MAX_DEPTH: usize = 64 << 20;

/// A thread's stack, as much of it as is known: from a stack pointer in it up to its end all is mapped.
///
/// The C library could tell a thread's stack, but asking takes the thread's lock, and a thread's first
/// allocation may be the C library's own under that lock. So the end of a stack is the thread's control
/// block, and its low end is as far down as the kernel was asked whether all up to there may be read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stack {
    /// The lowest address it may grow to.
    pub low: usize,
    /// One past the highest.
    pub end: usize,
}

impl Stack {
    /// Whether a stack pointer lies in it.
    pub const fn holds(self, sp: usize) -> bool {
        self.low <= sp && sp < self.end
    }

    /// The running thread's stack, of which `self` is known, down to `sp`; `self` if `sp` is not in it.
    #[inline]
    #[must_use]
    pub fn down_to(self, sp: usize) -> Self {
        if self.holds(sp) { self } else { self.extended(sp) }
    }

    #[cold]
    fn extended(self, sp: usize) -> Self {
        let first = Self { low: FIRST_LOW.load(Ordering::Relaxed), end: FIRST_END.load(Ordering::Relaxed) };
        if first.holds(sp) {
            return first;
        }
        let (low, end) = (Addr::new(sp).page_floor(), thread::pointer());
        let near = sp < end && end - sp <= MAX_DEPTH;
        if near && vm::is_readable(Span::new(low, PageCount::holding(end - low.get()))) {
            return Self { low: low.get(), end };
        }
        self
    }
}

/// The first thread's stack, which the C library can tell by reading /proc only. Written once at start.
static FIRST_LOW: AtomicUsize = AtomicUsize::new(0);
static FIRST_END: AtomicUsize = AtomicUsize::new(0);

/// Remembers where the first thread's stack is. Called once, at start.
pub fn init() {
    let end = aux::stack_end().get();
    let size = limits::stack().min(MAX_DEPTH);
    FIRST_LOW.store(end.saturating_sub(size), Ordering::Relaxed);
    FIRST_END.store(end, Ordering::Relaxed);
}

/// What of a stack may be read: from the stack pointer of the frame that is being left up to the stack's
/// end. Both only grow, except over the frame of a signal, which may lie on a stack of its own.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    low: usize,
    end: usize,
}

impl Window {
    /// From `sp` to the end of the stack it lies in: the running thread's, of which `stack` is known, or
    /// the alternate one that a signal is handled on. Empty on a stack of the program's own making.
    #[inline]
    pub fn of(sp: usize, stack: Stack) -> Self {
        let end = if stack.holds(sp) { stack.end } else { end_of_other(sp, stack) };
        Self { low: sp, end }
    }

    /// The word at `at`, if it may be read.
    #[inline(always)]
    pub fn word(self, at: usize) -> Option<usize> {
        let inside = at >= self.low && at.is_multiple_of(8) && at < self.end && self.end - at >= 8;
        if !inside {
            return None;
        }
        // SAFETY: the aligned word lies between a stack pointer and the end of the stack that it is in:
        // mapped, see `Stack`. Whatever the program keeps there, it is read as a number.
        Some(unsafe { Addr::new(at).as_ptr::<usize>().read_volatile() })
    }

    /// Leaves out what is below `sp`; `None` if that is not upwards or past the end.
    #[inline(always)]
    pub fn above(self, sp: usize) -> Option<Self> {
        (sp > self.low && sp <= self.end).then_some(Self { low: sp, ..self })
    }
}

#[cold]
fn end_of_other(sp: usize, stack: Stack) -> usize {
    let stack = stack.down_to(sp);
    if stack.holds(sp) {
        return stack.end;
    }
    match stacks::in_use(sp) {
        Some((low, end)) if (Stack { low, end }).holds(sp) => end,
        _ => sp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_inside() {
        let words = [1_usize, 2, 3, 4];
        let low = words.as_ptr().expose_provenance();
        let window = Window::of(low + 8, Stack { low, end: low + 24 });
        assert_eq!(window.word(low + 8), Some(2));
        assert_eq!(window.word(low + 16), Some(3));
        for outside in [0, low, low + 4, low + 12, low + 24, usize::MAX & !7] {
            assert_eq!(window.word(outside), None);
        }
        assert!(window.above(low + 8).is_none(), "no step is one too few");
        assert!(window.above(low + 32).is_none());
        assert_eq!(window.above(low + 16).and_then(|window| window.word(low + 8)), None);
    }

    #[test]
    fn a_threads_stack_ends_at_its_control_block() {
        let word = 7_usize;
        let at = (&raw const word).expose_provenance();
        let stack = Stack::default().down_to(at);
        assert!(stack.holds(at) && stack.end == thread::pointer(), "{stack:?}");
        assert_eq!(Window::of(at, Stack::default()).word(at), Some(7));
        assert_eq!(stack.down_to(at + 8), stack, "what is known is not asked for again");
    }

    #[test]
    fn other_stacks_are_not_read() {
        let elsewhere = std::vec![7_usize; 4096];
        let at = elsewhere.as_ptr().expose_provenance();
        for sp in [at, at + 8, 16, usize::MAX & !15] {
            assert_eq!(Stack::default().down_to(sp), Stack::default());
            assert_eq!(Window::of(sp, Stack::default()).word(sp), None);
        }
    }
}
