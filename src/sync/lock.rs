//! The lock: a word that names its owner. A thread that waits for it spins briefly and then sleeps in the kernel.
//!
//! A signal handler may allocate while the thread that it interrupted holds a lock of the allocator. If the handler
//! waited for that lock it would wait for itself. The owner's name prevents this: [`Lock::enter`] returns `None` to the
//! owner, and the caller takes its fallback. The name also tells a forked child which locks were held by threads that
//! it does not have. A fork takes no lock, and the child repairs what such a thread was in the middle of
//! ([`Lock::inherit`]).
//!
//! | word | owner | next | by |
//! |---|---|---|---|
//! | 0 | nobody | the thread's id | [`Lock::enter`], [`Lock::try_lock`] |
//! | | | the same with [`WAITERS`] | a thread that slept before |
//! | a thread's id | that thread | 0 | its guard's end; in a forked child [`Lock::inherit`] |
//! | | | the same with [`WAITERS`] | a thread that is about to sleep, or the kernel for it |
//! | the same with [`WAITERS`] | that thread; others may sleep | 0, or the id of a waiter with priority; and one sleeper is woken | its guard's end |
//!
//! Threads sleep on a second word, which changes whenever a lock is released that others may sleep for. A thread that
//! slept takes the lock with [`WAITERS`], since it does not know whether others still sleep. A real-time thread lends
//! the owner its priority; otherwise it would wait for every thread in between. Where a filter hides the threads' ids
//! no priority is lent, since the kernel does not know the stand-in for an id.
//!
//! # Signals blocked
//!
//! [`Lock::lock_signal_safe`] takes a lock with signals blocked, so no handler interrupts its owner. A thread that
//! waits for such a lock never waits for a handler's end. So these locks are waited for even by threads that otherwise
//! only try ([`super::only_tries`]).

use super::atomic::{AtomicU32, Ordering};
use super::rank::{self, Rank};
use super::{may_wait, pause};
use crate::sys::action::BlockedSignals;
use crate::sys::futex::{self, Lending};
use crate::sys::thread;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// The bit of a lock that others may sleep for, `FUTEX_WAITERS`; thread ids are below.
const WAITERS: u32 = 1 << 31;
/// The bits of an id.
const ID: u32 = (1 << 30) - 1;
/// Looks before a waiting thread sleeps: about a microsecond, as long as most locks are held. None in models.
const SPINS: u32 = if cfg!(loom) { 0 } else { 32 };

/// A mutex that is safe before the process is set up and allocates nothing.
pub struct Lock<T> {
    word: AtomicU32,
    /// Counts releases for which somebody was woken.
    wakes: AtomicU32,
    rank: Rank,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time, the one that the word names.
unsafe impl<T: Send> Sync for Lock<T> {}

/// A taken lock.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Lock<T> {
    /// A lock that nobody has.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { word: AtomicU32::new(0), wakes: AtomicU32::new(0), rank, value: UnsafeCell::new(value) }
    }

    /// The lock, as soon as it is free. `None` at once if the calling thread has it, or would have to wait and never
    /// does ([`super::only_tries`]).
    #[inline(always)]
    pub fn enter(&self) -> Option<Guard<'_, T>> {
        #[cfg(debug_assertions)]
        if !self.is_mine() && !super::only_tries() {
            rank::check(self.rank);
        }
        let me = thread::own_id();
        // Not `then_some`: a guard that is dropped releases the lock.
        (self.take(me) || self.enter_slow(me)).then(|| self.guard())
    }

    /// The lock, if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.take(thread::own_id()).then(|| self.guard())
    }

    /// Where it stands in the order.
    #[cfg(debug_assertions)]
    pub(crate) const fn rank(&self) -> Rank {
        self.rank
    }

    /// Whether the calling thread has it.
    pub fn is_mine(&self) -> bool {
        self.owner() == thread::own_id()
    }

    /// The id of the thread that has it, 0 if none has.
    pub fn owner(&self) -> u32 {
        self.word.load(Ordering::Relaxed) & ID
    }

    /// Sleeps until the lock may be free, if it is not, and for `millis` milliseconds at most if that is not 0.
    /// Not for its owner.
    pub fn sleep(&self, millis: u32) {
        let wakes = self.wakes.load(Ordering::Acquire);
        if !self.is_waited_for() {
            return;
        }
        match millis {
            0 => futex::wait(&self.wakes, wakes),
            millis => futex::wait_millis(&self.wakes, wakes, millis),
        }
        // Another may have slept beside this thread, which was woken in its place and may not take the lock.
        futex::wake_one(&self.wakes);
    }

    /// Says that somebody is about to sleep for the lock; `false` if its owner has changed meanwhile or it is free.
    fn is_waited_for(&self) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & WAITERS != 0 || word != 0 && self.exchange(word, word | WAITERS)
    }

    /// In a forked child, whose one thread is the one that forked: releases the lock if another thread had it, and
    /// leaves what that was in the middle of to `repair`. What the calling thread's own handler interrupted goes on in
    /// the child as well.
    ///
    /// # Safety
    /// The calling thread is the only one.
    pub unsafe fn inherit(&self, repair: impl FnOnce(&mut T)) {
        match self.owner() {
            0 => {}
            owner if owner == thread::own_id() => {}
            // Its id is another here; nobody waits for it.
            owner if owner == thread::id_before_fork() => {
                self.word.store(thread::own_id(), Ordering::Relaxed);
            }
            // SAFETY: the thread that had it does not exist here, so nothing else refers to the value.
            _ => unsafe { self.clear(repair) },
        }
    }

    /// In a thread that ends and will not come back to what it was in the middle of: releases the lock if
    /// it has it.
    ///
    /// # Safety
    /// No guard of the calling thread's is used any more.
    pub unsafe fn abandon(&self, repair: impl FnOnce(&mut T)) {
        if self.is_mine() {
            // SAFETY: this thread has the lock, and as the caller says nothing else refers to the value.
            repair(unsafe { &mut *self.value.get() });
            // As a guard does: a thread that lends its priority sleeps in the kernel until the word is passed on.
            self.release();
        }
    }

    /// Releases the lock in its owner's place.
    ///
    /// # Safety
    /// The owner is gone, or does not use its guard any more.
    pub unsafe fn clear(&self, repair: impl FnOnce(&mut T)) {
        // SAFETY: as the caller says, nobody refers to the value.
        repair(unsafe { &mut *self.value.get() });
        self.word.store(0, Ordering::Release);
        self.wakes.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.wakes);
    }

    /// Makes the atomics that loom wants made before there are threads.
    #[cfg(loom)]
    pub fn prepare(&self) {
        self.wakes.store(0, Ordering::Relaxed);
        self.word.store(0, Ordering::Relaxed);
    }

    /// A mutation for the models: a release that wakes nobody.
    #[cfg(loom)]
    pub fn let_go_unseen(&self) {
        self.word.store(0, Ordering::Release);
    }

    fn exchange(&self, from: u32, to: u32) -> bool {
        self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    fn take(&self, me: u32) -> bool {
        self.exchange(0, me)
    }

    #[inline(always)]
    fn guard(&self) -> Guard<'_, T> {
        rank::add(self.rank);
        Guard { lock: self }
    }

    #[cold]
    #[inline(never)]
    fn enter_slow(&self, me: u32) -> bool {
        if self.owner() == me || !may_wait() {
            return self.take(me);
        }
        let (mut looks, mut mark) = (0, 0);
        loop {
            let wakes = self.wakes.load(Ordering::Acquire);
            let word = self.word.load(Ordering::Relaxed);
            if word == 0 {
                if self.exchange(0, me | mark) {
                    return true;
                }
            } else if looks < SPINS {
                looks += 1;
                pause();
            } else if (word & ID).max(me) < thread::STAND_INS && thread::is_real_time() {
                match futex::lock_lending(&self.word) {
                    Lending::Taken => return true,
                    Lending::Again => {}
                    Lending::Never => return false,
                }
            } else if word & WAITERS != 0 || self.exchange(word, word | WAITERS) {
                futex::wait(&self.wakes, wakes);
                mark = WAITERS;
            }
        }
    }

    #[inline(always)]
    fn release(&self) {
        let me = thread::own_id();
        if self.word.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.release_slow();
        }
        rank::remove(self.rank);
    }

    #[cold]
    #[inline(never)]
    fn release_slow(&self) {
        // It may be answered that it was handed over, by a filter, and not be done.
        if !futex::unlock_lending(&self.word) || self.is_mine() {
            self.word.store(0, Ordering::Release);
        }
        self.wakes.fetch_add(1, Ordering::Release);
        futex::wake_one(&self.wakes);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the owner's, and nobody else reaches the value while the word names it.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the owner's, and it is borrowed for as long as the value is.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.release();
    }
}

/// A taken lock; signals are blocked while it lives.
pub struct SignalSafeGuard<'a, T> {
    // Released first.
    guard: Guard<'a, T>,
    _blocked: BlockedSignals,
}

impl<T> Lock<T> {
    /// Takes the lock with signals blocked. While it waits for it they are not. `None` if the calling thread has it
    /// (a handler of a fault ran in the middle), or in a process whose lock may bear the name of a thread that is not
    /// there.
    pub fn lock_signal_safe(&self) -> Option<SignalSafeGuard<'_, T>> {
        #[cfg(debug_assertions)]
        if !self.is_mine() {
            super::rank::check(self.rank());
        }
        loop {
            let blocked = BlockedSignals::begin();
            if let Some(guard) = self.try_lock() {
                return Some(SignalSafeGuard { guard, _blocked: blocked });
            }
            drop(blocked);
            if self.is_mine() || !thread::is_own_process() {
                return None;
            }
            self.sleep(0);
        }
    }
}

impl<T> Deref for SignalSafeGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for SignalSafeGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Trying;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// Runs `action` while another thread has the lock.
    fn while_taken(lock: &'static Lock<u32>, action: impl FnOnce()) {
        let (taken, is_taken) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            let guard = lock.enter().expect("this thread may wait");
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
    fn who_never_waits_gets_nothing_at_once() {
        static LOCK: Lock<u32> = Lock::new(Rank::Store, 5);
        crate::sys::thread::own_process();
        while_taken(&LOCK, || {
            let trying = Trying::begin(Trying::REPORT);
            assert!(LOCK.enter().is_none());
            drop(trying);
            assert!(LOCK.try_lock().is_none() && !LOCK.is_mine());
        });
        assert_eq!(LOCK.enter().map(|value| *value), Some(5));
    }

    #[test]
    fn who_waits_sleeps_and_is_woken() {
        static LOCK: Lock<u32> = Lock::new(Rank::Store, 5);
        crate::sys::thread::own_process();
        let mut waiting = None;
        while_taken(&LOCK, || {
            waiting = Some(thread::spawn(|| LOCK.enter().map(|value| *value)));
            while LOCK.word.load(Ordering::Relaxed) & WAITERS == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(waiting.map(|waiting| waiting.join().expect("no panic")), Some(Some(5)));
    }

    /// A filter, of one thread's, that answers `futex` with success and does nothing.
    fn pretend_futex() {
        const fn statement(code: u32, k: u32) -> libc::sock_filter {
            libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
        }
        let mut filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
            libc::sock_filter {
                jf: 1,
                ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_futex as u32)
            },
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program is live, and the calling thread goes without the call.
        let status = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
        };
        assert_eq!(status, 0);
    }

    /// A thread that asks for locks out of order ends the process, in builds that look at it: this binary executes itself.
    #[test]
    fn the_order_of_ranks_is_looked_at() {
        static LOW: Lock<()> = Lock::new(Rank::Shard, ());
        static HIGH: Lock<()> = Lock::new(Rank::Store, ());
        const ORDER: &str = "FENCEPOST_RANKS";
        match std::env::var(ORDER).as_deref() {
            Ok("right") => drop((LOW.enter(), HIGH.enter())),
            Ok(_) => drop((HIGH.enter(), LOW.enter())),
            Err(_) => {
                for (order, ends_well) in [("right", true), ("wrong", !cfg!(debug_assertions))] {
                    let this = std::env::current_exe().expect("the system knows which file this is");
                    let mut command = std::process::Command::new(this);
                    command.args(["sync::lock::tests::the_order_of_ranks_is_looked_at", "--exact"]);
                    let output = command.env(ORDER, order).output().expect("it can be executed");
                    assert_eq!(output.status.success(), ends_well, "{order}");
                }
            }
        }
    }

    #[test]
    fn a_lock_is_released_though_the_kernel_only_says_so() {
        static LOCK: Lock<u32> = Lock::new(Rank::Store, 5);
        let releases = || {
            pretend_futex();
            let guard = LOCK.enter().expect("nobody has it");
            LOCK.word.fetch_or(WAITERS, Ordering::Relaxed);
            assert_eq!(futex::lock_lending(&LOCK.word), Lending::Again);
            drop(guard);
            LOCK.owner()
        };
        assert_eq!(thread::spawn(releases).join().expect("no panic"), 0);
    }

    #[test]
    fn a_child_repairs_what_others_had_and_nothing_else() {
        static LOCK: Lock<u32> = Lock::new(Rank::Store, 0);
        crate::sys::thread::own_process();
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
        let guard = LOCK.enter();
        assert!(!inherit() && LOCK.is_mine() && LOCK.enter().is_none());
        core::mem::forget(guard);
        let mut repaired = false;
        // SAFETY: the guard is forgotten.
        unsafe { LOCK.abandon(|_| repaired = true) };
        assert!(repaired && LOCK.try_lock().is_some());
    }
}
