//! The front: the first slab of each small class, side by side.
//!
//! ```text
//! front: | slab 0 of a class | closed | slab 0 of the next that was used | closed | ... | inaccessible |
//! page:  without an owner, or a class's
//! ```
//!
//! Most processes are small: a few hundred objects, of twenty or thirty classes. If each class's first slab lay in its
//! region, each would need two mappings and two or three pages of page tables, which the kernel makes at the first
//! touch and copies at every fork. In the front the first slabs share one mapping, and sixteen of them share one page
//! of page tables. Their tables are shared in the same way.
//!
//! A class keeps its pages for good; [`owners`](super::owners) has the protocol. A forked child, and a thread that ends in the middle,
//! may leave pages without a user, and a class whose first slab is never used.
//!
//! Between two slabs lie the guard page and a random number of closed pages. There are few of these, since each has a
//! marker that a fork copies. So an attacker who knows an object's address knows the addresses of another class's first
//! slab up to that random number, and the slots in use up to the order of their magazine.

use super::class;
use super::layout::{ClassInfo, layout};
use super::owners::{self, PageOwners};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::rng::Rng;
use crate::sync::atomic::{AtomicU8, AtomicUsize};
use crate::sys::guard::Backend;
use crate::sys::vm;

/// The longest slab in bytes; one that would be longer is cut to it.
pub const SLAB_BYTES: usize = 128 << 10;
/// The largest slots of a class that has one.
const SIZE_MAX: usize = PAGE_SIZE + 16;
/// Closed pages before a slab at most.
const GAP_PAGES: usize = 3;
/// The front's length in bytes: what all classes can need, in whole page tables.
pub const BYTES: usize = 8 << 20;
/// The number of its pages.
pub const PAGES: usize = BYTES / PAGE_SIZE;
/// [`owner`] of a page without an owner.
pub const NOBODY: u8 = owners::NOBODY;

/// Whose each page is, and where each class's slab begins.
static PAGES_OF: PageOwners<PAGES, { class::COUNT }> = PageOwners::new();

const _: () = {
    let (mut class, mut bytes) = (0, 0);
    while class < class::COUNT {
        bytes += if is_for(class) { SLAB_BYTES + GAP_PAGES * PAGE_SIZE } else { 0 };
        class += 1;
    }
    assert!(bytes <= BYTES && class::COUNT <= NOBODY as usize);
};

/// Whether the class has a slab in the front.
pub const fn is_for(class: usize) -> bool {
    class::size(class) <= SIZE_MAX
}

/// Slot numbers that the bytes of the longest slab lead to.
pub const fn slots(class: usize) -> usize {
    SLAB_BYTES.div_ceil(class::size(class))
}

/// The class that has the byte at `offset` from the front's first, which lies in it.
#[inline(always)]
pub fn owner(offset: usize) -> u8 {
    // SAFETY: the offset is below BYTES, as callers say.
    unsafe { PAGES_OF.owner(offset / PAGE_SIZE) }
}

/// The first byte of a class's slab in the front; 0 if it has none yet.
pub fn start(class: usize) -> usize {
    // SAFETY: there is such a class.
    if class < class::COUNT { unsafe { start_unchecked(class) } } else { 0 }
}

/// [`start`] for the fast paths.
///
/// # Safety
/// There is such a class.
#[inline(always)]
pub unsafe fn start_unchecked(class: usize) -> usize {
    // SAFETY: as the caller says.
    unsafe { PAGES_OF.start(class) }
}

/// [`start`] of each class, for tools that read from outside.
pub fn starts() -> *const AtomicUsize {
    PAGES_OF.starts.as_ptr()
}

/// [`owner`] of each page, for tools that read from outside.
pub fn owners() -> *const AtomicU8 {
    PAGES_OF.owners.as_ptr()
}

/// Opens the class's first slab in the next pages; `false` if there are none to be had.
pub fn open(class: usize, info: &ClassInfo, rng: &mut Rng) -> bool {
    let bytes = info.slab_bytes(0);
    let gap = rng.below(GAP_PAGES as u64 + 1) as usize;
    let count = gap + bytes / PAGE_SIZE;
    let Some(taken) = PAGES_OF.claim(count) else { return false };
    let pages = Span::new(Addr::new(layout().base + taken.start * PAGE_SIZE), PageCount::new(count));
    let slab = Span::new(pages.start.plus(gap * PAGE_SIZE), PageCount::holding(bytes - PAGE_SIZE));
    if !open_pages(pages, slab) {
        return false;
    }
    // The closed pages before it stay without an owner. So a page with an owner is one of the slab or its guard page.
    PAGES_OF.publish(taken.start + gap..taken.end, class, slab.start.get());
    true
}

/// Makes the pages of `slab` accessible, and no others of its pages.
fn open_pages(pages: Span, slab: Span) -> bool {
    match layout().backend {
        Backend::Mprotect => vm::commit(slab),
        // One mapping with the slab before; what is closed has markers.
        Backend::Madvise => {
            let before = slab.start.offset_from(pages.start).unwrap_or(0);
            let behind = pages.end().offset_from(slab.end()).unwrap_or(0);
            let close = |start, bytes| {
                // A guard that cannot be had leaves the canaries, which every slot has anyway.
                let _ = bytes != 0 && layout().backend.close(Span::new(start, PageCount::holding(bytes)));
            };
            let open = vm::commit(pages);
            if open {
                close(pages.start, before);
                close(slab.end(), behind);
            }
            open
        }
    }
}
