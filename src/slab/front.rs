//! The front: the first slab of each small class, side by side.
//!
//! ```text
//! front: | slab 0 of a class | closed | slab 0 of the next that was used | closed | ... | inaccessible |
//! page:  nobody's, or a class's
//! ```
//!
//! Most processes are small: a few hundred objects, of twenty or thirty classes. Were each class's first slab in its
//! region, each would have two mappings and two or three pages of page tables of its own, which the kernel makes at the
//! first touch and copies at every fork. Here they share one mapping and one page of page tables for sixteen of them.
//! So do their tables.
//!
//! A class has its pages for good. Pages are had in order by one addition, and whoever has some opens them, tells where
//! the slab begins, and only then whose they are: an address in a page that is nobody's yet leads to no slot. A forked
//! child and a thread that ends in the middle leave pages that nobody uses, and a class whose first slab is never used.
//!
//! Between two slabs lie the guard page and a random number of closed pages, few, since each has a marker that a fork
//! copies: who knows an object's address knows that of another class's objects up to that, and up to which slots of a
//! batch they have.

use super::class;
use super::layout::{ClassInfo, layout};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::rng::Rng;
use crate::sys::guard::Backend;
use crate::sys::vm;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

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
/// In [`OWNERS`]: nobody's.
pub const NOBODY: u8 = u8::MAX;

/// Of each class, the first byte of its slab in the front; 0 for none.
pub static STARTS: [AtomicUsize; class::COUNT] = [const { AtomicUsize::new(0) }; class::COUNT];
/// Of each page, the class that has it.
pub static OWNERS: [AtomicU8; PAGES] = [const { AtomicU8::new(NOBODY) }; PAGES];
/// Pages that somebody has.
static TAKEN: AtomicU32 = AtomicU32::new(0);

const _: () = {
    let (mut class, mut bytes) = (0, 0);
    while class < class::COUNT {
        bytes += if is_for(class) { SLAB_BYTES + GAP_PAGES * PAGE_SIZE } else { 0 };
        class += 1;
    }
    assert!(bytes <= BYTES && class::COUNT < NOBODY as usize);
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
    unsafe { OWNERS.get_unchecked(offset / PAGE_SIZE) }.load(Ordering::Acquire)
}

/// Opens the class's first slab in the next pages; `false` if there are none to be had.
pub fn open(class: usize, info: &ClassInfo, rng: &mut Rng) -> bool {
    let bytes = info.slab_bytes(0);
    let gap = rng.below(GAP_PAGES as u64 + 1) as usize;
    let count = gap + bytes / PAGE_SIZE;
    let first = TAKEN.fetch_add(count as u32, Ordering::Relaxed) as usize;
    let (Some(owners), Some(place)) = (OWNERS.get(first..first + count), STARTS.get(class)) else {
        return false;
    };
    let pages = Span::new(Addr::new(layout().base + first * PAGE_SIZE), PageCount::new(count));
    let slab = Span::new(pages.start.plus(gap * PAGE_SIZE), PageCount::holding(bytes - PAGE_SIZE));
    if !open_pages(pages, slab) {
        return false;
    }
    place.store(slab.start.get(), Ordering::Relaxed);
    for owner in owners {
        owner.store(class as u8, Ordering::Release);
    }
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
