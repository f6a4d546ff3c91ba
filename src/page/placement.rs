//! How an object lies in its pages. Pure.
//!
//! ```text
//! right:  |guard|canary.....|object|canary|guard|     the object ends at the guard but for alignment
//! left:   |guard|object|canary...........|guard|      it starts at the guard
//! ```

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span, round_up};
use crate::request::Request;

/// Which guard page the object touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one before it.
    Left,
    /// The one behind it.
    Right,
}

/// Pages that an object of `size` bytes with alignment `align` takes; an object of zero bytes takes
/// one, which is never opened. `None` if that is more than the address space holds.
pub fn pages(size: usize, align: usize) -> Option<PageCount> {
    let needed = round_up(size.max(1), align.min(PAGE_SIZE))?;
    Some(PageCount::holding(needed))
}

/// The alignment that `request` gets: what it relies on, or with `exact` only what it asked for
/// beyond the ABI's, so that the object ends at the guard.
pub fn alignment(request: &Request, exact: bool) -> usize {
    if exact && !request.exact && request.align <= crate::addr::ABI_ALIGN { 1 } else { request.align }
}

/// The address of an object of `size` bytes in `span`, with `align` at most a page.
pub fn address(span: Span, size: usize, align: usize, side: Side) -> Addr {
    match side {
        _ if size == 0 => span.start,
        Side::Left => span.start,
        Side::Right => span.end().minus(size).align_floor(align.min(PAGE_SIZE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_sided_objects_end_within_an_alignment_of_the_guard() {
        for align in [1, 2, 8, 16, 64, 4096] {
            for size in [1, 13, 16, 100, 4095, 4096, 4097, 5000] {
                let span = Span::new(Addr::new(1 << 20), pages(size, align).expect("fits"));
                let start = address(span, size, align, Side::Right);
                assert!(start.is_aligned(align) && start >= span.start);
                assert!(span.end().offset_from(start.plus(size)).expect("inside") < align);
                assert_eq!(address(span, size, align, Side::Left), span.start);
            }
        }
    }

    #[test]
    fn sizes_past_the_address_space_are_refused() {
        assert_eq!(pages(usize::MAX, 16), None);
        assert_eq!(pages(0, 16), Some(PageCount::new(1)));
    }
}
