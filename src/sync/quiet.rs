//! Locks whose owner no signal handler interrupts: who waits for one does not wait for a handler's end. So they are
//! waited for also by those who wait for no other ([`super::going_without`]).

use super::{Guard, Lock};
use crate::sys::quiet::Quiet;
use crate::sys::thread;
use core::ops::{Deref, DerefMut};

/// A taken lock; signals are blocked while it lives.
pub struct QuietGuard<'a, T> {
    // Released first.
    guard: Guard<'a, T>,
    _quiet: Quiet,
}

impl<T> Lock<T> {
    /// Takes the lock with signals blocked. While it waits for it they are not. `None` if the calling thread has it
    /// (a handler of a fault ran in the middle), or in a process whose lock may bear the name of a thread that is not
    /// there.
    pub fn lock_quietly(&self) -> Option<QuietGuard<'_, T>> {
        #[cfg(debug_assertions)]
        if !self.is_mine() {
            super::rank::check(self.rank());
        }
        loop {
            let quiet = Quiet::begin();
            if let Some(guard) = self.try_lock() {
                return Some(QuietGuard { guard, _quiet: quiet });
            }
            drop(quiet);
            if self.is_mine() || !thread::is_own_process() {
                return None;
            }
            self.sleep(0);
        }
    }
}

impl<T> Deref for QuietGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for QuietGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
