//! Staying the parent of the program without being noticed.
//!
//! The program has the launcher's process group, terminal, descriptors, signal mask and dispositions. The
//! launcher takes all signals in one place, by `sigwaitinfo`:
//!
//! | signal | what the launcher does |
//! |---|---|
//! | sent to the launcher by a process | sends it on to the program |
//! | from the terminal (Ctrl-C, Ctrl-Z, a hang-up) | nothing: the terminal sent it to the program as well |
//! | `SIGCHLD`, the program stopped | stops, so that the shell has the terminal again |
//! | `SIGCHLD`, the program ended | ends in the same way: status, or signal |
//!
//! When the launcher is killed the kernel kills the program: `kill -9` of what the user started ends what
//! the user started.

#![allow(unsafe_code)]

use libc::{c_int, pid_t, siginfo_t, sigset_t};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::ptr;

/// Signals that a fault of the launcher itself raises: waiting for them would hide it.
const FAULTS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
/// The code of signals that the kernel sends, such as the terminal's.
const SI_KERNEL: c_int = 0x80;

/// The signals as this process found them.
pub struct Signals {
    mask: sigset_t,
    children_ignored: bool,
}

impl Signals {
    /// Blocks all signals for [`Signals::follow`] to take; before any thread is started, so that none
    /// of them takes one.
    pub fn block() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut mask = MaybeUninit::uninit();
        // SAFETY: the sets are written before they are read, and live for the calls; an all-zero
        // sigaction is valid and means the default.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for signal in FAULTS {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            libc::sigemptyset(mask.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), mask.as_mut_ptr());
            // With SIGCHLD ignored the kernel would throw the program's status away.
            let mut before: libc::sigaction = std::mem::zeroed();
            let default: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGCHLD, &raw const default, &raw mut before);
            let children_ignored = before.sa_sigaction == libc::SIG_IGN;
            Self { mask: mask.assume_init(), children_ignored }
        }
    }

    /// Makes the program that `command` starts find the signals as this process found them, and end with
    /// this process.
    pub fn pass_on(&self, command: &mut Command) {
        let Self { mask, children_ignored } = *self;
        let launcher = pid_t::try_from(std::process::id()).unwrap_or(0);
        // SAFETY: the closure makes system calls on live values, allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != launcher {
                    // It was killed before the kernel knew of the wish.
                    libc::_exit(1);
                }
                if children_ignored {
                    libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut());
                Ok(())
            });
        }
    }

    /// Passes signals on to the program until it ends.
    pub fn follow(&self, child: &Child) -> io::Result<ExitStatus> {
        let program = pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let mut all = MaybeUninit::uninit();
        // SAFETY: the set is written before it is read.
        let all = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for signal in FAULTS {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            all.assume_init()
        };
        loop {
            if let Some(status) = look_after(program)? {
                return Ok(status);
            }
            // SAFETY: an all-zero siginfo is valid; both structures live for the call.
            let (signal, info) = unsafe {
                let mut info: siginfo_t = std::mem::zeroed();
                (libc::sigwaitinfo(&raw const all, &raw mut info), info)
            };
            if signal > 0 && signal != libc::SIGCHLD {
                send_on(signal, &info, program);
            }
        }
    }
}

/// What became of the program: its status if it ended. If it stopped, stops as well and returns when
/// both go on.
fn look_after(program: pid_t) -> io::Result<Option<ExitStatus>> {
    loop {
        let mut status = 0;
        // SAFETY: the status lives for the call.
        let changed = unsafe { libc::waitpid(program, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
        match changed {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ if libc::WIFSTOPPED(status) => {
                // SAFETY: stopping this process has no memory effect.
                unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
            }
            _ => return Ok(Some(ExitStatus::from_raw(status))),
        }
    }
}

fn send_on(signal: c_int, info: &siginfo_t, program: pid_t) {
    if info.si_code == SI_KERNEL {
        return;
    }
    // What the program sends to its whole group has reached it.
    // SAFETY: signals that a process sent carry its id.
    let sender = unsafe { info.si_pid() };
    if info.si_code <= 0 && sender == program {
        return;
    }
    // SAFETY: sending a signal has no memory effect; the program has not been waited for, so that
    // its id is still its own. Queued signals carry a value.
    unsafe {
        if info.si_code == libc::SI_QUEUE {
            libc::sigqueue(program, signal, info.si_value());
        } else {
            libc::kill(program, signal);
        }
    }
}

/// Ends as the program ended.
pub fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // SAFETY: structures are initialised and live for the calls. One core dump, the program's, is
        // enough.
        unsafe {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
            libc::kill(libc::getpid(), signal);
        }
        return ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX));
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
