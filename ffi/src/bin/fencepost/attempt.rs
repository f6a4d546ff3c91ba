//! One of several runs of a program: its output is kept, its reports are collected, its time may be limited.
//!
//! Output goes to files and not to pipes: a process that the program leaves behind holds nobody up. The program is
//! killed with the launcher; with [`Plan::apart`] it leads a process group of its own, which is killed as a whole when
//! its time is over. Nobody needs the core files of such runs: there are none.

#![allow(unsafe_code)]

use crate::collect::{Collector, Output, VARIABLE as COLLECTOR};
use crate::failure::Failure;
use crate::input::{self, Input};
use crate::launch;
use crate::settings::Settings;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// An option and its value.
pub type Item<'a> = (&'a str, &'a str);

/// What all runs have in common.
pub struct Stage<'a> {
    /// `libfencepost.so`.
    pub library: &'a Path,
    /// What the user set.
    pub settings: &'a Settings,
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// What it reads.
    pub input: Input,
    /// Whether its own pools stay on.
    pub keep_pools: bool,
}

/// What one run has of its own.
pub struct Plan<'a> {
    /// Options that the user's override.
    pub before: &'a [Item<'a>],
    /// Options that override the user's.
    pub after: &'a [Item<'a>],
    /// The time it may take.
    pub limit: Option<Duration>,
    /// Whether it is a process group of its own.
    pub apart: bool,
}

/// A run that has ended.
pub struct Ran {
    /// How.
    pub status: ExitStatus,
    /// Whether it was killed since its time was over.
    pub timed_out: bool,
    /// How long it took.
    pub took: Duration,
    /// Its standard output.
    pub out: Captured,
    /// Its standard error, without the reports.
    pub err: Captured,
    /// Its reports, raw.
    pub reports: Vec<String>,
}

impl Stage<'_> {
    /// Runs the program once.
    pub fn run(&self, plan: &Plan<'_>) -> Result<Ran, Failure> {
        let trouble = |error: io::Error| Failure::new(format!("cannot prepare a run: {error}"));
        let settings = self.settings.between(plan.before, plan.after)?;
        let (mut child, found) = launch::command(self.library, &settings, self.command, self.keep_pools)?;
        let (out, err) = (input::spool().map_err(trouble)?, input::spool().map_err(trouble)?);
        child.stdin(self.input.open().map_err(trouble)?);
        child.stdout(out.try_clone().map_err(trouble)?).stderr(err.try_clone().map_err(trouble)?);
        end_with_launcher(&mut child);
        if plan.apart {
            child.process_group(0);
        }
        let reports = Arc::new(Mutex::new(Vec::new()));
        let collector = Collector::start(Output::Keep(Arc::clone(&reports))).map_err(trouble)?;
        child.env(COLLECTOR, collector.path());
        let begin = Instant::now();
        let ended = child.spawn().map(|mut child| wait(&mut child, plan));
        collector.finish();
        let took = begin.elapsed();
        let name = self.command.first().cloned().unwrap_or_default();
        let (status, timed_out) = match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => {
                return Err(Failure::new(format!("{}: cannot wait for it: {error}", name.display())));
            }
            Err(error) => return Err(launch::refusal(&name, found.as_deref(), &error)),
        };
        let reports = reports.lock().map(|mut reports| std::mem::take(&mut *reports)).unwrap_or_default();
        Ok(Ran { status, timed_out, took, out: Captured(out), err: Captured(err), reports })
    }
}

/// Has the program killed with the thread that starts it, and leave no core file.
fn end_with_launcher(command: &mut Command) {
    // SAFETY: the closure makes system calls on live values, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let mut limit: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) == 0 {
                limit.rlim_cur = 0;
                libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            }
            Ok(())
        });
    }
}

/// Waits for the program, and kills it when its time is over; whether that was so.
fn wait(child: &mut Child, plan: &Plan<'_>) -> io::Result<(ExitStatus, bool)> {
    let Some(limit) = plan.limit else { return child.wait().map(|status| (status, false)) };
    if ends_within(child, limit)? {
        return child.wait().map(|status| (status, false));
    }
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: a signal has no memory effect, and the child was not waited for: the id is still its own, and the group's.
    unsafe { libc::kill(if plan.apart { -pid } else { pid }, libc::SIGKILL) };
    child.wait().map(|status| (status, true))
}

/// Whether the child ends in this time; it is not waited for.
fn ends_within(child: &mut Child, limit: Duration) -> io::Result<bool> {
    /// Where the kernel has no descriptors of processes: how often it is looked.
    const INTERVAL: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + limit;
    // SAFETY: takes numbers; the descriptor is new and nobody else's.
    let handle = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        i32::try_from(fd).ok().filter(|fd| *fd >= 0).map(|fd| OwnedFd::from_raw_fd(fd))
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match &handle {
            Some(handle) => {
                use std::os::fd::AsRawFd;
                let mut ended = libc::pollfd { fd: handle.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                let milliseconds = i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
                // SAFETY: one entry, which lives for the call.
                match unsafe { libc::poll(&raw mut ended, 1, milliseconds) } {
                    0 => return Ok(false),
                    -1 => {
                        let error = io::Error::last_os_error();
                        if error.kind() != io::ErrorKind::Interrupted {
                            return Err(error);
                        }
                    }
                    _ => return Ok(true),
                }
            }
            None if child.try_wait()?.is_some() => return Ok(true),
            None if left.is_zero() => return Ok(false),
            None => thread::sleep(INTERVAL.min(left)),
        }
    }
}

/// What a run wrote.
pub struct Captured(File);

impl Captured {
    /// All of it.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.0.metadata()?.len()).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Whether another run wrote the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let lengths = self.0.metadata().ok().zip(other.0.metadata().ok());
        if lengths.is_none_or(|(mine, others)| mine.len() != others.len()) {
            return false;
        }
        let (mut mine, mut others) = ([0; 1 << 16], [0; 1 << 16]);
        let mut at = 0;
        loop {
            match (self.0.read_at(&mut mine, at), other.0.read_at(&mut others, at)) {
                (Ok(0), Ok(0)) => return true,
                (Ok(count), Ok(same)) if count == same && mine.get(..count) == others.get(..count) => {
                    at += count as u64;
                }
                _ => return false,
            }
        }
    }

    /// Whether another run wrote the same but for lines of the library's own, which have addresses in them.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let own = |captured: &Self| {
            let bytes = captured.bytes().unwrap_or_default();
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"fencepost: "));
            lines.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        self.is_same(other) || own(self) == own(other)
    }
}
