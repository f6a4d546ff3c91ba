//! A stack as it was captured.

use core::ops::Range;

/// The most frames of one stack.
pub const MAX_FRAMES: usize = 32;

/// Frames, innermost first. A frame's number is one past its code: the return address behind a call, or
/// one more than the program counter of code that a signal interrupted. The first of a fault's frames is
/// the faulting instruction itself.
#[derive(Clone, Copy)]
pub struct Frames {
    pcs: [usize; MAX_FRAMES],
    len: usize,
}

impl Frames {
    /// No frames.
    pub const EMPTY: Self = Self { pcs: [0; MAX_FRAMES], len: 0 };

    /// The program counters.
    pub fn as_slice(&self) -> &[usize] {
        self.pcs.get(..self.len).unwrap_or(&[])
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frames from the first on that is not in `own`, all if there is none.
    #[must_use]
    pub fn without(&self, own: &Range<usize>) -> Self {
        let mut outer = Self::EMPTY;
        self.as_slice().iter().skip_while(|pc| own.contains(*pc)).for_each(|pc| outer.push(*pc));
        if outer.is_empty() { *self } else { outer }
    }

    /// Adds the next frame outwards; one too many is dropped.
    pub fn push(&mut self, pc: usize) {
        if let Some(place) = self.pcs.get_mut(self.len) {
            *place = pc;
            self.len += 1;
        }
    }
}
