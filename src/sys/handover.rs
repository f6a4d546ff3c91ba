//! What a program that is executed begins with.
//!
//! `execve` gives handlers up and keeps what is ignored, and the mask. The kernel has a handler of ours where the program
//! ignores SIGSEGV or SIGBUS, and does not block what is blocked in name ([`super::action`]). So both are made the kernel's
//! while a program is executed:
//!
//! | who | at the begin | at the end |
//! |---|---|---|
//! | a process with its own memory | counts those that execute; SIG_IGN for what is ignored; blocks what is blocked in name | its mask; the last one that executes: our handler |
//! | a child that borrows its parent's memory | the same, where the kernel still has our handler for it | the same |
//! | another thread that sets a disposition meanwhile | | our handler, at once |
//! | a forked child | none executes in it; our handler | |
//!
//! The steps are made by one thread at a time ([`action::change`]). An end is there if the program was not executed, or
//! by another process. Meanwhile a fault of another thread ends a program that ignores the signal without a report.

use super::action::{self, FAULT_SIGNALS};
use super::errno::ErrnoGuard;
use super::{process, signal};
use core::sync::atomic::{AtomicU32, Ordering};
use libc::c_int;

/// Threads that execute a program.
static EXECUTING: AtomicU32 = AtomicU32::new(0);

/// Whether the kernel is to be told anything before a program is executed.
pub fn is_needed() -> bool {
    action::blocks_in_name() || FAULT_SIGNALS.into_iter().any(is_ignored)
}

fn is_ignored(number: c_int) -> bool {
    action::get(number).handler == libc::SIG_IGN
}

/// While it lives, an executed program begins as the program wants it to.
pub struct Handover {
    /// The mask before, if it was changed.
    mask: Option<u64>,
    /// For a child that borrows its parent's memory, the signals that it ignores meanwhile, by the order of [`FAULT_SIGNALS`].
    borrowed: Option<[bool; 2]>,
}

impl Handover {
    /// Begins it.
    pub fn begin() -> Self {
        let ignore = || FAULT_SIGNALS.map(|number| is_ignored(number) && signal::ignore(number));
        if process::borrows_memory() {
            return Self { borrowed: Some(ignore()), mask: action::block_in_kernel() };
        }
        action::change(libc::SIGSEGV, |_, _| {
            EXECUTING.fetch_add(1, Ordering::Relaxed);
            ignore();
        });
        Self { mask: action::block_in_kernel(), borrowed: None }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let _errno = ErrnoGuard::new();
        match self.borrowed {
            Some(ignored) => {
                let ignored = FAULT_SIGNALS.into_iter().zip(ignored).filter(|(_, ignored)| *ignored);
                ignored.for_each(|(number, _)| signal::take_again(number));
            }
            None => action::change(libc::SIGSEGV, |_, _| {
                if EXECUTING.fetch_sub(1, Ordering::Relaxed) == 1 {
                    FAULT_SIGNALS.into_iter().for_each(signal::take_again);
                }
            }),
        }
        if let Some(mask) = self.mask {
            action::set_mask(mask);
        }
    }
}

/// The program has set a disposition of a fault signal, while nobody else may.
pub fn on_change(number: c_int) {
    if EXECUTING.load(Ordering::Relaxed) != 0 && !is_ignored(number) {
        signal::take_again(number);
    }
}

/// In a forked child, whose maker may have been executing a program in another thread.
pub fn in_child() {
    if EXECUTING.swap(0, Ordering::Relaxed) != 0 {
        FAULT_SIGNALS.into_iter().for_each(signal::take_again);
    }
}
