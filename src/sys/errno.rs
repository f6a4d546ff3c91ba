//! `errno`, saved and restored.

use core::marker::PhantomData;

/// Restores the calling thread's `errno` when dropped.
pub struct ErrnoGuard {
    saved: i32,
    /// Bound to its thread.
    not_send: PhantomData<*mut ()>,
}

impl ErrnoGuard {
    /// Remembers the current value.
    pub fn new() -> Self {
        Self { saved: get(), not_send: PhantomData }
    }
}

impl Default for ErrnoGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        set(self.saved);
    }
}

/// The calling thread's `errno`.
pub fn get() -> i32 {
    // SAFETY: the C library returns the address of a live thread-local integer.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
pub fn set(value: i32) {
    // SAFETY: the C library returns the address of this thread's live integer, and no other thread uses that.
    unsafe { *libc::__errno_location() = value }
}
