//! The lock: a word that names its owner, who waits pausing and then yielding.
//!
//! A signal handler may allocate while the thread that it interrupted has a lock of the allocator's, and would
//! wait for itself. The owner's name tells at once: [`Lock::enter`] gives nothing then, and the caller goes
//! another way. What `fork` holds is marked, so that after it every lock is told apart: held for the fork,
//! held by what the forking thread's handler interrupted, or held by a thread that the child does not have.
//!
//! | word | who has it | next | by |
//! |---|---|---|---|
//! | 0 | nobody | the thread's pointer | [`Lock::lock`], [`Lock::enter`], [`Lock::try_lock`] |
//! | | | the same with [`HELD`] | [`Lock::hold`] |
//! | a thread's pointer | that thread | 0 | its guard's end; in a forked child [`Lock::inherit`] |
//! | the same with [`HELD`] | that thread, around a fork | 0 | [`Lock::release`], [`Lock::inherit`] |

use super::atomic::{AtomicUsize, Ordering};
use super::{Patience, is_impatient, relax};
use crate::sys::thread;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// The bit of a lock that is held around a fork. Threads' pointers are aligned.
const HELD: usize = 1;
/// So often somebody impatient looks whether another has left.
const LOOKS: u32 = 64;

/// A mutex that is safe before the process is set up and allocates nothing.
pub struct Lock<T> {
    word: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// A taken lock.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Lock<T> {
    /// A lock that nobody has.
    pub const fn new(value: T) -> Self {
        Self { word: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock as long as it takes. Not for locks that a signal handler may need and the thread
    /// it interrupted have.
    #[inline(always)]
    pub fn lock(&self) -> Guard<'_, T> {
        let me = thread::pointer();
        if !self.take(me) {
            self.lock_slow(me);
        }
        Guard { lock: self }
    }

    /// Waits for the lock; `None` at once if the calling thread has it, and after a while if the thread may
    /// not wait for others ([`super::Impatience`]).
    #[inline(always)]
    pub fn enter(&self) -> Option<Guard<'_, T>> {
        let me = thread::pointer();
        // Not `then_some`: a guard that is dropped releases the lock.
        (self.take(me) || self.enter_slow(me)).then(|| Guard { lock: self })
    }

    /// The lock, if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.take(thread::pointer()).then(|| Guard { lock: self })
    }

    /// Whether the calling thread has it.
    pub fn is_mine(&self) -> bool {
        self.word.load(Ordering::Relaxed) & !HELD == thread::pointer()
    }

    /// Takes the lock for a fork, and keeps it. Not if the calling thread has it already, nor if `patience`
    /// ends before another leaves.
    pub fn hold(&self, patience: &mut Patience) {
        let me = thread::pointer();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & !HELD == me || word == 0 && self.take(me | HELD) || word != 0 && !patience.wait() {
                return;
            }
        }
    }

    /// Whether the lock is held for a fork of the calling thread's.
    pub fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) == thread::pointer() | HELD
    }

    /// The value of a lock that is held for a fork of the calling thread's.
    pub fn held(&self) -> Option<&T> {
        // SAFETY: this thread has the lock, and holds it without a guard.
        self.is_held().then(|| unsafe { &*self.value.get() })
    }

    /// Takes [`Lock::hold`] back, if it took the lock.
    pub fn release(&self) {
        if self.is_held() {
            self.word.store(0, Ordering::Release);
        }
    }

    /// In a forked child, whose thread is the one that held its locks: releases the lock, whoever had it,
    /// but for what the thread's own handler interrupted, which goes on in the child as well. What another
    /// thread was in the middle of is left to `repair`.
    ///
    /// # Safety
    /// The calling thread is the only one.
    pub unsafe fn inherit(&self, repair: impl FnOnce(&mut T)) {
        let me = thread::pointer();
        let word = self.word.load(Ordering::Relaxed);
        if word == 0 || word == me {
            return;
        }
        if word != me | HELD {
            // SAFETY: whoever had it does not exist here.
            repair(unsafe { &mut *self.value.get() });
        }
        self.word.store(0, Ordering::Release);
    }

    /// In a thread that ends and will not come back to what it was in the middle of: releases the lock if
    /// it has it.
    ///
    /// # Safety
    /// No guard of the calling thread's is used any more.
    pub unsafe fn abandon(&self, repair: impl FnOnce(&mut T)) {
        if self.word.load(Ordering::Relaxed) == thread::pointer() {
            // SAFETY: this thread has the lock, and as the caller says nothing else refers to the value.
            repair(unsafe { &mut *self.value.get() });
            self.word.store(0, Ordering::Release);
        }
    }

    #[inline(always)]
    fn take(&self, word: usize) -> bool {
        self.word.compare_exchange(0, word, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, me: usize) {
        while !self.take(me) {
            relax();
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_slow(&self, me: usize) -> bool {
        let mut looks = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & !HELD == me {
                return false;
            }
            if word == 0 && self.take(me) {
                return true;
            }
            looks += 1;
            if looks > LOOKS && is_impatient() {
                return false;
            }
            relax();
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: whoever has the guard has the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.word.store(0, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Impatience;
    use std::sync::mpsc;
    use std::thread;

    /// Runs `action` while another thread has the lock.
    fn while_taken(lock: &'static Lock<u32>, action: impl FnOnce()) {
        let (taken, is_taken) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            let guard = lock.lock();
            taken.send(()).expect("it is waited for");
            let _ = is_done.recv();
            drop(guard);
        });
        is_taken.recv().expect("the thread takes it");
        action();
        drop(done);
        other.join().expect("no panic");
    }

    #[test]
    fn somebody_impatient_and_a_fork_give_up() {
        static LOCK: Lock<u32> = Lock::new(5);
        while_taken(&LOCK, || {
            let impatient = Impatience::begin();
            assert!(LOCK.enter().is_none());
            drop(impatient);
            LOCK.hold(&mut Patience::of(5));
            assert!(!LOCK.is_held() && !LOCK.is_mine());
            LOCK.release();
            assert!(LOCK.try_lock().is_none());
        });
        assert_eq!(*LOCK.enter().expect("nobody has it"), 5);
    }

    #[test]
    fn a_child_repairs_what_others_had_and_nothing_else() {
        static LOCK: Lock<u32> = Lock::new(0);
        let inherit = || {
            let mut repaired = false;
            // SAFETY: the other thread, if any, only sleeps.
            unsafe { LOCK.inherit(|_| repaired = true) };
            repaired
        };
        while_taken(&LOCK, || {
            assert!(inherit());
            assert!(LOCK.try_lock().is_some());
        });
        LOCK.hold(&mut Patience::none());
        assert!(LOCK.is_held() && !inherit() && LOCK.try_lock().is_some());
        let guard = LOCK.lock();
        assert!(!inherit() && LOCK.is_mine());
        core::mem::forget(guard);
        let mut repaired = false;
        // SAFETY: the guard is forgotten.
        unsafe { LOCK.abandon(|_| repaired = true) };
        assert!(repaired && LOCK.try_lock().is_some());
    }
}
