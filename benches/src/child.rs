//! A whole program under a time limit: how it ended, what it used.
//!
//! Time and memory come from `wait4`, which adds up the program and every descendant it waited for. The kernel counts
//! a parent's resident size into the child's peak until `exec`, so the drivers stay small themselves.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Exit(i32),
    Signal(i32),
    Timeout,
}

impl End {
    pub fn text(self) -> String {
        match self {
            Self::Exit(0) => "ok".to_owned(),
            Self::Exit(status) => format!("exit {status}"),
            Self::Signal(signal) => format!("signal {signal}"),
            Self::Timeout => "timeout".to_owned(),
        }
    }
}

/// What a program and its descendants used.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub user_us: u64,
    pub system_us: u64,
    pub wall_us: u64,
    /// The peak of the largest process.
    pub peak_kib: u64,
}

impl Usage {
    pub fn cpu_us(&self) -> u64 {
        self.user_us + self.system_us
    }
}

/// What `work` makes of each item, in their order, on as many threads as there are processors: for counts, which others do
/// not disturb.
pub fn side_by_side<Item: Sync, Made: Send>(
    items: &[Item],
    work: impl Fn(&Item) -> Made + Sync,
) -> Vec<Made> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut made = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return made };
            made.push((index, work(item)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut made: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    made.sort_by_key(|(index, _)| *index);
    made.into_iter().map(|(_, made)| made).collect()
}

/// No core files from what crashes here, inherited by every child.
pub fn forbid_cores() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid structure, and a limit that only this process and its children have.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}

/// Starts `command` as the leader of a process group of its own, so that all of it can be ended.
pub fn start(command: &mut Command) -> io::Result<Child> {
    command.process_group(0).spawn()
}

/// Runs `command` to its end or to the time limit.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<(End, Usage)> {
    let started = Instant::now();
    let child = start(command)?;
    wait(&child, started, limit)
}

/// Waits for a child made by [`start`], and ends its group when `limit` has passed.
pub fn wait(child: &Child, started: Instant, limit: Duration) -> io::Result<(End, Usage)> {
    let pid = child.id() as libc::pid_t;
    let ended = ends_within(pid, limit.saturating_sub(started.elapsed()))?;
    if !ended {
        kill_group(pid);
    }
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pid is this process's own unreaped child, and both pointers are to live locals.
    while unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let wall_us = started.elapsed().as_micros() as u64;
    // SAFETY: all zeros is a valid value, and wait4 has filled it in.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let end = if !ended {
        End::Timeout
    } else if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    };
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        wall_us,
        peak_kib: usage.ru_maxrss as u64,
    };
    Ok((end, usage))
}

/// Ends every process of the group that `pid` leads.
pub fn kill_group(pid: libc::pid_t) {
    // SAFETY: `start` made the child the leader of its own group, and it has not been reaped.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
}

/// Waits until the process ends, without reaping it; `false` when the time is up.
fn ends_within(pid: libc::pid_t, limit: Duration) -> io::Result<bool> {
    // SAFETY: the pid is an unreaped child's, so it names that process and no later one.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor to us alone.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
    readable(descriptor.as_raw_fd(), limit)
}

/// Waits until `descriptor` can be read; `false` when the time is up.
pub fn readable(descriptor: i32, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        let left =
            deadline.saturating_duration_since(Instant::now()).as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: one live pollfd.
        match unsafe { libc::poll(&raw mut poll, 1, left) } {
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
