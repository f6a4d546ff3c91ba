//! Holding signals back for a moment.
//!
//! Faults are not held back: the kernel ends a process that faults while the signal is blocked.

use super::action::{bit, block, set_mask};
use core::marker::PhantomData;

/// What a thread's own instructions raise.
pub(super) const FAULTS: u64 = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGFPE)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS);

/// All signals but faults are held back in the calling thread while it lives, those of the C library, which
/// cancel threads, among them.
pub struct Quiet {
    before: u64,
    /// Bound to its thread.
    not_send: PhantomData<*mut ()>,
}

impl Quiet {
    /// Begins it.
    pub fn begin() -> Self {
        Self { before: block(!FAULTS), not_send: PhantomData }
    }

    /// Lets the signals stay held back; the mask before, for [`Quiet::end`].
    pub fn keep(self) -> u64 {
        core::mem::ManuallyDrop::new(self).before
    }

    /// Ends what was kept.
    pub fn end(before: u64) {
        set_mask(before);
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}
