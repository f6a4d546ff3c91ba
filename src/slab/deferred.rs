//! The deferred free list: freed slots whose class's lock was out of reach.
//!
//! A signal handler that frees may have interrupted a thread that holds the class's lock. Slots that its cache cannot
//! hold wait in this list, which lies in a mapping of its own. The next thread whose cache goes to a store flushes the
//! list. The list's own lock is taken with signals blocked, so a handler can always get it.

use crate::addr::Addr;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use crate::sys::vm;

/// A slot: class and number.
pub type Deferred = (u32, u32);

/// Bytes of the mapping. What finds no room is lost to the process.
const BYTES: usize = 1 << 20;
const ROOM: usize = BYTES / size_of::<Deferred>();

struct List {
    entries: *mut Deferred,
    len: usize,
}

// SAFETY: the pointer is to a mapping that lives as long as the process, reached under the lock.
unsafe impl Send for List {}

impl List {
    const NEW: Self = Self { entries: core::ptr::null_mut(), len: 0 };

    fn add(&mut self, class: usize, slots: &[u32]) {
        if self.entries.is_null() {
            self.entries = vm::tables(BYTES).map_or(core::ptr::null_mut(), Addr::as_ptr);
        }
        if self.entries.is_null() {
            return;
        }
        for slot in slots.iter().take(ROOM.saturating_sub(self.len)) {
            // SAFETY: the length is below the room in the mapping.
            unsafe { self.entries.add(self.len).write((class as u32, *slot)) };
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<Deferred> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: what lies below the length was written.
        Some(unsafe { self.entries.add(self.len).read() })
    }
}

static LIST: Lock<List> = Lock::new(Rank::Deferred, List::NEW);
/// Its length, to be read without the lock.
static LEN: AtomicUsize = AtomicUsize::new(0);

/// How many there are.
#[inline]
pub fn len() -> usize {
    LEN.load(Ordering::Relaxed)
}

/// Adds slots of a class.
pub fn add(class: usize, slots: &[u32]) {
    let Some(mut list) = LIST.lock_signal_safe() else { return };
    list.add(class, slots);
    LEN.store(list.len, Ordering::Relaxed);
}

/// Takes the one that was added last.
pub fn pop() -> Option<Deferred> {
    let mut list = LIST.lock_signal_safe()?;
    let last = list.pop();
    LEN.store(list.len, Ordering::Relaxed);
    last
}

/// In a forked child: a thread that is not there may have left a length without its entry. What waits is lost then.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit() {
    // SAFETY: as the caller says.
    unsafe {
        LIST.inherit(|list| {
            list.len = 0;
            LEN.store(0, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deferred_comes_back_until_there_is_no_room() {
        let mut list = List::NEW;
        list.add(3, &[10, 11]);
        list.add(4, &[12]);
        assert_eq!(
            (list.len, list.pop(), list.pop(), list.pop(), list.pop()),
            (3, Some((4, 12)), Some((3, 11)), Some((3, 10)), None)
        );
        (0..2_000).for_each(|_| list.add(1, &[1; 100]));
        assert_eq!(list.len, ROOM);
        while list.pop().is_some() {}
        assert_eq!(list.len, 0);
    }
}
