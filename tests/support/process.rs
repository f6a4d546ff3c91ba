//! Runs a process to its end: its output, its status, a time limit, no core dump, no process left over.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// What a process may take if nothing else is said.
pub const LIMIT: Duration = Duration::from_secs(60);
/// What the readers of the output may take after the process ended.
const GRACE: Duration = Duration::from_secs(5);

/// A process that ended.
pub struct Run {
    pub pid: u32,
    pub end: End,
    pub stdout: String,
    pub stderr: String,
    pub time: Duration,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Status(i32),
    Signal(i32),
    /// It was killed at the time limit.
    TimeLimit,
    /// It ended, but processes that it had started went on with its output.
    LeftOver,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Status(code) => write!(f, "status {code}"),
            Self::Signal(libc::SIGSEGV) => write!(f, "SIGSEGV"),
            Self::Signal(libc::SIGABRT) => write!(f, "SIGABRT"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::TimeLimit => write!(f, "killed at the time limit"),
            Self::LeftOver => write!(f, "left processes behind"),
        }
    }
}

/// `program` under `library` with `options`; without a library, `program` alone. The environment is
/// otherwise this process's, less what concerns preloads and the allocator.
pub fn command(program: impl AsRef<OsStr>, library: Option<&Path>, options: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "FENCEPOST_OPTIONS", "GLIBC_TUNABLES"] {
        command.env_remove(name);
    }
    if let Some(library) = library {
        command.env("LD_PRELOAD", library).env("FENCEPOST_OPTIONS", options);
    }
    command
}

/// Runs `command` without input.
///
/// # Panics
/// If the process cannot be started: the test machine is at fault then.
pub fn run(command: &mut Command, limit: Duration) -> Run {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // SAFETY: `no_core_dump` makes one system call and touches nothing that fork left inconsistent.
    unsafe { command.pre_exec(no_core_dump) };
    let begin = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let status = wait(&mut child, begin + limit);
    if status.is_none() {
        kill_group(&child);
        child.wait().expect("a killed child can be waited for");
    }
    let time = begin.elapsed();
    let text = |output: Receiver<Vec<u8>>| {
        output.recv_timeout(GRACE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let end = match status {
        None => End::TimeLimit,
        Some(_) if stdout.is_none() || stderr.is_none() => {
            kill_group(&child);
            End::LeftOver
        }
        Some(status) => end(status),
    };
    Run { pid: child.id(), end, stdout: stdout.unwrap_or_default(), stderr: stderr.unwrap_or_default(), time }
}

fn end(status: ExitStatus) -> End {
    match status.signal() {
        Some(signal) => End::Signal(signal),
        None => End::Status(status.code().unwrap_or(-1)),
    }
}

fn no_core_dump() -> std::io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives for the call, which only reads it.
    match unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The status once the child ended; `None` if it has not by `deadline`.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Ends the child's process group, which is its own.
fn kill_group(child: &Child) {
    let Ok(leader) = i32::try_from(child.id()) else {
        return;
    };
    // SAFETY: kill takes any number; the group is the one that this child was made the leader of.
    unsafe { libc::kill(-leader, libc::SIGKILL) };
}

/// Reads to the end, on a thread of its own so that a full pipe blocks nobody.
fn collect(mut source: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Run {
        run(command("/bin/sh", None, "").args(["-c", script]), limit)
    }

    #[test]
    fn output_and_status_are_kept_apart() {
        let run = shell("echo out; echo err >&2; exit 3", LIMIT);
        assert_eq!((run.end, run.stdout.as_str(), run.stderr.as_str()), (End::Status(3), "out\n", "err\n"));
    }

    #[test]
    fn a_signal_is_no_status() {
        assert_eq!(shell("kill -ABRT $$", LIMIT).end, End::Signal(libc::SIGABRT));
    }

    #[test]
    fn the_limit_ends_the_children_too() {
        let begin = Instant::now();
        let run = shell("sleep 100 & sleep 100", Duration::from_millis(200));
        assert_eq!(run.end, End::TimeLimit);
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn there_is_no_core_dump() {
        assert_eq!(shell("ulimit -c; ulimit -Hc", LIMIT).stdout, "0\n0\n");
    }
}
