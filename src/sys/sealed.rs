//! Values that are set once and read-only from then on.
//!
//! Addresses of functions that are called, and what leads to them, must not lie where a stray write of the program's
//! reaches them. A [`Sealed`] has pages of its own. The static that it is belongs into the section `.data.rel.ro.sealed`, among the
//! constants that the loader relocates and then makes read-only: there all sealed statics are one mapping with those,
//! while each elsewhere would make three of one, and a fork copies mappings. To be filled it is opened, and closed again.
//! Whether the value is there is said in it; who may fill it is said elsewhere, in a word that stays writable:
//!
//! | filler | full | the value | who goes on |
//! |---|---|---|---|
//! | 0 | 0 | none | the first to [`Sealed::fill`] makes the filler 1 |
//! | 1 | 0 | being written | the same makes it full; a child that is forked meanwhile finds it so for good |
//! | 1 | 1 | set | nobody writes; the page is closed at once |
//!
//! Nobody waits: whoever comes before a value is there does without. So does everybody where the kernel refuses to open
//! the page; where it refuses to close it, the value stays writable.

use super::vm;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that is set once.
#[repr(C, align(4096))]
pub struct Sealed<T> {
    full: AtomicBool,
    filler: &'static AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the one who became its filler, and read when it is full.
unsafe impl<T: Sync> Sync for Sealed<T> {}

impl<T> Sealed<T> {
    /// Without a value. `filler` is this one's alone, and false.
    pub const fn empty(filler: &'static AtomicBool) -> Self {
        Self { full: AtomicBool::new(false), filler, value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Where the value lies from the start, for code that reads words of it without asking whether it is set: they are 0
    /// before.
    pub const VALUE_AT: usize = offset_of!(Self, value);

    /// The value; `None` before it is set.
    #[inline(always)]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: a full cell's value was written before, and is not written any more.
        self.full.load(Ordering::Acquire).then(|| unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// The value.
    ///
    /// # Safety
    /// [`Sealed::get`] has found it.
    #[inline(always)]
    pub unsafe fn known(&self) -> &T {
        // SAFETY: as the caller says, and it is never taken away.
        unsafe { (*self.value.get()).assume_init_ref() }
    }

    /// Sets the value if nobody did or does. Not for values that are dropped.
    pub fn fill(&'static self, value: T) {
        let pages = Span::new(Addr::of(core::ptr::from_ref(self)), PageCount::holding(size_of::<Self>()));
        if self.filler.swap(true, Ordering::Acquire) || !vm::commit(pages) {
            return;
        }
        // SAFETY: this thread alone became the filler, and nobody reads before the value is full.
        unsafe { (*self.value.get()).write(value) };
        self.full.store(true, Ordering::Release);
        vm::seal(pages);
    }
}

const _: () = assert!(
    align_of::<Sealed<u8>>() == PAGE_SIZE && size_of::<Sealed<u8>>() == PAGE_SIZE,
    "no other static lies in the pages"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_set_once_and_cannot_be_written() {
        static FILLER: AtomicBool = AtomicBool::new(false);
        #[unsafe(link_section = ".data.rel.ro.sealed")]
        static CELL: Sealed<usize> = Sealed::empty(&FILLER);
        assert_eq!(CELL.get(), None);
        CELL.fill(7);
        CELL.fill(8);
        assert_eq!(CELL.get(), Some(&7));
        let start = (&raw const CELL).addr();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of mappings");
        let holds = |line: &&str| {
            let (range, _) = line.split_once(' ').expect("a range");
            let (low, high) = range.split_once('-').expect("two ends");
            let parse = |end| usize::from_str_radix(end, 16).expect("an address");
            (parse(low)..parse(high)).contains(&start)
        };
        let line = maps.lines().find(holds).expect("the static is mapped");
        assert!(line.contains(" r--p "), "{line}");
    }
}
