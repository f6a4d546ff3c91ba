//! Pages that are claimed in order, each for an owner.
//!
//! | a page | who has it | next | by |
//! |---|---|---|---|
//! | behind the last that was claimed | nobody | claimed | [`PageOwners::claim`]: one addition |
//! | claimed | the thread that claimed it, which opens it | published | [`PageOwners::publish`]: first where the owner's memory begins, then the page's owner |
//! | published | its owner, for good | | |
//!
//! No thread waits. A reader finds a page without an owner, or finds the owner and then where the owner's memory
//! begins: the first is written before the second, and read after it. A thread that never finishes a step leaves pages
//! without an owner.

use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use core::ops::Range;

/// The owner of a page that was not told whose it is.
pub const NOBODY: u8 = u8::MAX;

/// So many pages for so many owners, each of which takes some once.
pub struct PageOwners<const PAGES: usize, const OWNERS: usize> {
    /// Of each owner, where its memory begins; 0 for none.
    pub starts: [AtomicUsize; OWNERS],
    /// The owner of each page.
    pub owners: [AtomicU8; PAGES],
    /// Pages that somebody took.
    taken: AtomicU32,
}

impl<const PAGES: usize, const OWNERS: usize> PageOwners<PAGES, OWNERS> {
    /// No page has an owner.
    pub const fn new() -> Self {
        assert!(OWNERS <= NOBODY as usize);
        Self {
            starts: [const { AtomicUsize::new(0) }; OWNERS],
            owners: [const { AtomicU8::new(NOBODY) }; PAGES],
            taken: AtomicU32::new(0),
        }
    }

    /// The next pages, which nobody else gets; `None` if there are not so many.
    pub fn claim(&self, count: usize) -> Option<Range<usize>> {
        let first = self.taken.fetch_add(count as u32, Ordering::Relaxed) as usize;
        (first + count <= PAGES).then(|| first..first + count)
    }

    /// Says whose the pages are, and that this one's memory begins at `start`. They were taken for it.
    pub fn publish(&self, pages: Range<usize>, owner: usize, start: usize) {
        let (Some(entry), Some(pages)) = (self.starts.get(owner), self.owners.get(pages)) else { return };
        entry.store(start, Ordering::Relaxed);
        for page in pages {
            page.store(owner as u8, Ordering::Release);
        }
    }

    /// The owner of the page.
    ///
    /// # Safety
    /// There is such a page.
    #[inline(always)]
    pub unsafe fn owner(&self, page: usize) -> u8 {
        // SAFETY: as the caller says.
        unsafe { self.owners.get_unchecked(page) }.load(Ordering::Acquire)
    }

    /// Where the owner's memory begins: what was told if [`PageOwners::owner`] named it before, else perhaps 0.
    ///
    /// # Safety
    /// There is such an owner.
    #[inline(always)]
    pub unsafe fn start(&self, owner: usize) -> usize {
        // SAFETY: as the caller says.
        unsafe { self.starts.get_unchecked(owner) }.load(Ordering::Relaxed)
    }
}
