//! A measured process and how to talk to it; the other side is `runner/runner.rs`.

use crate::cargo::Shop;
use crate::child::{self, End, Usage};
use crate::heap::{HEAPS, Heap};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// An allocator behind one door, ready to be started.
#[derive(Clone, Debug)]
pub struct Door {
    pub heap: &'static Heap,
    /// `rust` or `c`.
    pub api: &'static str,
    exe: PathBuf,
    preload: Option<PathBuf>,
    options: Option<String>,
}

impl Door {
    /// The same allocator with other `FENCEPOST_OPTIONS`.
    pub fn with_options(&self, options: &str) -> Self {
        Self { options: Some(options.to_owned()), ..self.clone() }
    }

    /// The command that runs one workload, on its own or `under` another program.
    pub fn command(&self, under: Option<(&Path, &[&str])>, work: &Task) -> Command {
        let mut command = match under {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.exe);
                command
            }
            None => Command::new(&self.exe),
        };
        command.arg(self.api).args([work.name, &work.size.to_string(), &work.align.to_string()]);
        command.arg(work.threads.to_string()).env_remove("LD_PRELOAD").env_remove("FENCEPOST_OPTIONS");
        command.envs(self.heap.env.iter().copied());
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        if let Some(options) = &self.options {
            command.env("FENCEPOST_OPTIONS", options);
        }
        command
    }
}

/// Every wanted allocator behind `api`, and the names and reasons of those that are not to be had.
pub fn doors(shop: &mut Shop, api: &'static str, only: &[String]) -> (Vec<Door>, Vec<(String, String)>) {
    let mut ready = Vec::new();
    let mut skipped = Vec::new();
    for heap in HEAPS.iter().filter(|heap| heap.wanted(only)) {
        let found = if api == "rust" {
            shop.runner(heap).map(|built| built.map(|exe| (exe, None)))
        } else if heap.kind == crate::heap::Kind::Hunter {
            None
        } else {
            shop.preload(heap).map(|library| Ok((shop.plain()?, library?)))
        };
        match found {
            Some(Ok((exe, preload))) => ready.push(Door { heap, api, exe, preload, options: None }),
            Some(Err(reason)) => skipped.push((format!("{} ({api})", heap.name), reason)),
            None => {}
        }
    }
    for (name, reason) in &skipped {
        eprintln!("skipped: {name}: {reason}");
    }
    (ready, skipped)
}

/// One workload as the runner's arguments spell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Task {
    pub name: &'static str,
    pub size: usize,
    pub align: usize,
    pub threads: usize,
}

impl Task {
    pub const fn new(name: &'static str, size: usize) -> Self {
        Self { name, size, align: 16, threads: 1 }
    }

    pub const fn on(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    pub const fn aligned(self, align: usize) -> Self {
        Self { align, ..self }
    }
}

/// What one request measured: nanoseconds, and what the workload adds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Reply {
    pub nanos: u64,
    pub extra: [u64; 3],
}

/// A started runner. Dropping it ends the process.
pub struct Runner {
    child: Child,
    requests: Option<ChildStdin>,
    replies: ChildStdout,
    started: Instant,
    reaped: bool,
}

impl Runner {
    pub fn start(door: &Door, task: &Task) -> Result<Self, String> {
        let mut command = door.command(None, task);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child::start(&mut command).map_err(|error| format!("cannot start: {error}"))?;
        let (requests, Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".to_owned());
        };
        Ok(Self { child, requests, replies, started: Instant::now(), reaped: false })
    }

    /// Runs `iterations` and waits for the answer; after an `Err` the process is gone.
    pub fn measure(&mut self, iterations: u64, limit: Duration) -> Result<Reply, String> {
        let mut bytes = [0; 32];
        let asked =
            self.requests.as_mut().is_some_and(|pipe| pipe.write_all(&iterations.to_le_bytes()).is_ok());
        let answered = asked
            && child::readable(self.replies.as_raw_fd(), limit).unwrap_or(false)
            && self.replies.read_exact(&mut bytes).is_ok();
        if !answered {
            // Gone or late: a moment for a crash to finish, then the group is ended.
            let (end, _) = self.reap(Duration::from_millis(200));
            return Err(match end {
                End::Exit(4) => "this kernel refuses it".to_owned(),
                end => end.text(),
            });
        }
        let mut words = bytes.chunks_exact(8).map(|chunk| {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let mut next = || words.next().unwrap_or(0);
        Ok(Reply { nanos: next().max(1), extra: [next(), next(), next()] })
    }

    /// Lets the process end; its peak memory.
    pub fn finish(mut self) -> Usage {
        self.requests = None;
        self.reap(Duration::from_secs(10)).1
    }

    fn reap(&mut self, limit: Duration) -> (End, Usage) {
        self.requests = None;
        if self.reaped {
            return (End::Timeout, Usage::default());
        }
        self.reaped = true;
        let limit = self.started.elapsed() + limit;
        child::wait(&self.child, self.started, limit).unwrap_or((End::Timeout, Usage::default()))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if !self.reaped {
            child::kill_group(self.child.id() as libc::pid_t);
            self.reap(Duration::ZERO);
        }
    }
}
