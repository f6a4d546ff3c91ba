//! Hands the disposition of SIGPIPE on to the program as the launcher got it.
//!
//! Ignored signals stay ignored across `exec`, and service managers start services with SIGPIPE ignored.
//! Rust's runtime ignores it before `main` and sets it to the default at `exec`: the service would die
//! of a closed socket, under the launcher only. So the disposition is read before the runtime starts,
//! by a function among the initialisers, and set again just before `exec`.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether SIGPIPE was ignored when this process started. Written once, before `main`.
static IGNORED: AtomicBool = AtomicBool::new(false);

// SAFETY: entries of this section are functions of the C ABI that the C library calls before `main`.
// It passes arguments, which a function without parameters may be given; `record` uses nothing of
// Rust's runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    // SAFETY: all zeros is a valid sigaction, and it lives for the call; a null new action only asks.
    let ignored = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    };
    IGNORED.store(ignored, Relaxed);
}

/// Makes the program that `command` becomes inherit what this process inherited.
pub fn pass_on(command: &mut Command) {
    if IGNORED.load(Relaxed) {
        // SAFETY: the closure makes one system call, allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                Ok(())
            });
        }
    }
}
