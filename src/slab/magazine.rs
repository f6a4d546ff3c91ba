//! Magazines: slots of one class that change owners together, by the number of the magazine.
//!
//! A magazine belongs to the holder of its number. The number is in one place at a time: with a thread, in the queue,
//! in a transfer cache, or in the pool. Only the owner accesses the contents.
//!
//! The pool holds the empty magazines. It is a stack, together with a count of the magazines that were ever made:
//!
//! | word | bits | changed by |
//! |---|---|---|
//! | `free` | number of changes: 32, the first magazine's number or 0: 32 | [`Pool::take`], [`Pool::put`], by one exchange |
//! | `made` | magazines ever made | `take`, by one exchange |
//! | a magazine's `next` | the number of the next in the stack, or 0 | `put`, before the magazine is in the stack |
//!
//! A `take` may read the `next` of a magazine that another thread took meanwhile. The count in `free` then makes its
//! exchange fail. A thread that ends, or that a forked child does not have, leaves the pool whole. The magazine that it
//! owned is lost.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::cell::UnsafeCell;

/// Slots of a magazine at most.
pub const LEN: usize = 72;

/// What a magazine holds.
#[repr(C)]
struct Contents {
    class: u8,
    /// Whose threads freed them.
    home: u8,
    len: u16,
    slots: [u32; LEN],
}

/// A magazine. All zero bytes are one that holds nothing.
#[repr(C)]
pub struct Magazine {
    next: AtomicU32,
    contents: UnsafeCell<Contents>,
}

// SAFETY: the contents are reached through an `Owned` alone, of which there is one for a magazine at a time.
unsafe impl Sync for Magazine {}

/// The words of a pool. All zero bytes are those of one whose magazines were never used.
#[repr(C)]
pub struct Words {
    free: AtomicU64,
    made: AtomicU32,
}

/// A pool: its words, and the table of magazines. Their numbers begin at 1.
#[derive(Clone, Copy)]
pub struct Pool<'a> {
    words: &'a Words,
    magazines: &'a [Magazine],
}

/// A magazine in its owner's hands. One that is dropped is lost to the pool.
pub struct Owned<'a> {
    number: u32,
    magazine: &'a Magazine,
}

impl<'a> Pool<'a> {
    /// The pool of these parts.
    pub const fn new(words: &'a Words, magazines: &'a [Magazine]) -> Self {
        Self { words, magazines }
    }

    /// A magazine that holds nothing; `None` if all are in use.
    pub fn take(self) -> Option<Owned<'a>> {
        loop {
            let seen = self.words.free.load(Ordering::Acquire);
            let Some(magazine) = self.magazine(seen as u32) else { return self.make() };
            let next = magazine.next.load(Ordering::Relaxed);
            if self.exchange(seen, next, Ordering::Acquire) {
                return Some(Owned { number: seen as u32, magazine });
            }
        }
    }

    /// A magazine that was never used.
    fn make(self) -> Option<Owned<'a>> {
        let mut made = self.words.made.load(Ordering::Relaxed);
        loop {
            let number = made.checked_add(1)?;
            let magazine = self.magazine(number)?;
            match self.words.made.compare_exchange(made, number, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Owned { number, magazine }),
                Err(other) => made = other,
            }
        }
    }

    /// Takes a magazine back, whatever it holds.
    pub fn put(self, mut magazine: Owned<'a>) {
        magazine.clear();
        loop {
            let seen = self.words.free.load(Ordering::Relaxed);
            magazine.magazine.next.store(seen as u32, Ordering::Relaxed);
            if self.exchange(seen, magazine.number, Ordering::Release) {
                return;
            }
        }
    }

    fn exchange(self, seen: u64, first: u32, success: Ordering) -> bool {
        let times = (seen >> 32).wrapping_add(1);
        let new = times << 32 | u64::from(first);
        self.words.free.compare_exchange(seen, new, success, Ordering::Relaxed).is_ok()
    }

    /// The magazine of this number; `None` if there is none.
    ///
    /// # Safety
    /// The caller took the number from where its last owner left it, by [`Owned::into_number`], and nobody else has it.
    /// What that owner wrote before is seen.
    pub unsafe fn own(self, number: u32) -> Option<Owned<'a>> {
        self.magazine(number).map(|magazine| Owned { number, magazine })
    }

    fn magazine(self, number: u32) -> Option<&'a Magazine> {
        self.magazines.get(number.checked_sub(1)? as usize)
    }
}

impl Owned<'_> {
    fn contents(&self) -> &Contents {
        // SAFETY: this is the magazine's one owner, so nobody writes while it is borrowed.
        unsafe { &*self.magazine.contents.get() }
    }

    fn contents_mut(&mut self) -> &mut Contents {
        // SAFETY: this is the magazine's one owner, borrowed for as long as the contents are.
        unsafe { &mut *self.magazine.contents.get() }
    }

    /// The class of its slots.
    pub fn class(&self) -> usize {
        self.contents().class.into()
    }

    /// The home of the thread that freed the last of them.
    pub fn home(&self) -> usize {
        self.contents().home.into()
    }

    /// Its slots.
    pub fn slots(&self) -> &[u32] {
        let contents = self.contents();
        contents.slots.get(..contents.len.into()).unwrap_or(&[])
    }

    /// Adds slots of `class`, the class of those in it, that a thread of `home` freed, until it has `most`. Those that it
    /// has no room for.
    pub fn add<'s>(&mut self, class: usize, home: usize, slots: &'s [u32], most: usize) -> &'s [u32] {
        let contents = self.contents_mut();
        let len = usize::from(contents.len);
        let count = most.min(LEN).saturating_sub(len).min(slots.len());
        let Some((now, rest)) = slots.split_at_checked(count) else { return slots };
        if let Some(room) = contents.slots.get_mut(len..len + count) {
            room.copy_from_slice(now);
        }
        (contents.class, contents.home) = (class as u8, home as u8);
        contents.len = (len + count) as u16;
        rest
    }

    fn clear(&mut self) {
        self.contents_mut().len = 0;
    }

    /// Gives the magazine up. The thread that takes the number from where it is put now owns it.
    pub fn into_number(self) -> u32 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn magazines_are_made_and_used_again() {
        let words = Words { free: AtomicU64::new(0), made: AtomicU32::new(0) };
        let magazine = || Magazine {
            next: AtomicU32::new(0),
            contents: UnsafeCell::new(Contents { class: 0, home: 0, len: 0, slots: [0; LEN] }),
        };
        let magazines: Vec<_> = (0..3).map(|_| magazine()).collect();
        let pool = Pool::new(&words, &magazines);
        let mut first = pool.take().expect("three");
        let (second, third) = (pool.take().expect("three"), pool.take().expect("three"));
        assert!(pool.take().is_none());
        assert_eq!(first.add(5, 3, &[1, 2, 3], 2), [3]);
        assert_eq!((first.class(), first.home(), first.slots()), (5, 3, &[1, 2][..]));
        let numbers = [first, second, third].map(Owned::into_number);
        assert_eq!(numbers, [1, 2, 3]);
        for number in numbers {
            // SAFETY: the number was let go just now.
            pool.put(unsafe { pool.own(number) }.expect("a magazine"));
        }
        // The last that was given, so that few of the table are in use, and empty.
        let again: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
        assert!(again.iter().all(|magazine| magazine.slots().is_empty()));
        assert_eq!(again.into_iter().map(Owned::into_number).collect::<Vec<_>>(), [3, 2, 1]);
        // SAFETY: there are no such magazines.
        assert!(unsafe { pool.own(0).is_none() && pool.own(4).is_none() });
    }
}
