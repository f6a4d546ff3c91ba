//! Values that are set once and read-only from then on.
//!
//! Addresses of functions that are called, and what leads to them, must not lie where a stray write of the program's
//! reaches them. A [`Sealed`] has pages of its own among the statics, which lose their permission to be written when the
//! value is there. The state lies there too:
//!
//! | state | the value | who changes it |
//! |---|---|---|
//! | `EMPTY` | none | the first to [`Sealed::fill`] makes it `FILLING` |
//! | `FILLING` | being written | the same makes it `FULL`; a child that is forked meanwhile finds it so for good |
//! | `FULL` | set | nobody; the pages are sealed at once |
//!
//! Nobody waits: whoever comes before a value is there does without. Where the kernel refuses, the value stays writable.

use super::vm;
use crate::addr::{Addr, PageCount, Span};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const FILLING: u8 = 1;
const FULL: u8 = 2;

/// A value that is set once.
#[repr(C, align(4096))]
pub struct Sealed<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the one who made the state `FILLING`, and read when it is `FULL`.
unsafe impl<T: Sync> Sync for Sealed<T> {}

impl<T> Sealed<T> {
    /// Without a value.
    pub const EMPTY: Self =
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) };

    /// The value; `None` before it is set.
    #[inline(always)]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: a full cell's value was written before, and is not written any more.
        (self.state.load(Ordering::Acquire) == FULL).then(|| unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Sets the value if nobody did or does. Not for values that are dropped.
    pub fn fill(&'static self, value: T) {
        if self.state.compare_exchange(EMPTY, FILLING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        // SAFETY: this thread alone made the state `FILLING`, and nobody reads before it is `FULL`.
        unsafe { (*self.value.get()).write(value) };
        self.state.store(FULL, Ordering::Release);
        vm::seal(Span::new(Addr::of(core::ptr::from_ref(self)), PageCount::holding(size_of::<Self>())));
    }
}

const _: () = assert!(
    align_of::<Sealed<u8>>() == crate::addr::PAGE_SIZE && size_of::<Sealed<u8>>() == crate::addr::PAGE_SIZE,
    "no other static lies in the pages"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_set_once_and_cannot_be_written() {
        static CELL: Sealed<usize> = Sealed::EMPTY;
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
