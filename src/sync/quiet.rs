//! Locks whose owner no signal handler interrupts: whoever waits for one does not wait for a handler's end.

use super::{Guard, Lock, relax};
use crate::sys::quiet::Quiet;
use core::ops::{Deref, DerefMut};

/// A taken lock; signals are held back while it lives.
pub struct QuietGuard<'a, T> {
    // Released first.
    guard: Guard<'a, T>,
    _quiet: Quiet,
}

impl<T> Lock<T> {
    /// Takes the lock with signals held back. While it waits for it they are not. `None` if the calling
    /// thread has it: a handler of a fault ran in the middle.
    pub fn lock_quietly(&self) -> Option<QuietGuard<'_, T>> {
        loop {
            let quiet = Quiet::begin();
            if let Some(guard) = self.try_lock() {
                return Some(QuietGuard { guard, _quiet: quiet });
            }
            if self.is_mine() {
                return None;
            }
            drop(quiet);
            relax();
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
