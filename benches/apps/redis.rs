//! redis-server under a column's allocator, driven by redis-benchmark under the system's.
//!
//! The figure is the server's CPU time from start to end, for a fixed number of requests.

use crate::columns::Column;
use crate::programs::{Place, calm};
use fencepost_benches::child::{self, End, Usage};
use fencepost_benches::heap::{existing, program};
use std::io;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where Debian's libc is. Debian links redis with jemalloc; the libc preloaded in front of it makes a glibc column.
const LIBC: &[&str] = &["/lib/x86_64-linux-gnu/libc.so.6"];

pub fn run(place: &Place, column: &Column, limit: Duration) -> io::Result<(End, Usage, String)> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "redis is not installed");
    let socket = place.scratch.join("redis.socket");
    let _ = std::fs::remove_file(&socket);
    let mut command = column.command(&program("redis-server").ok_or_else(missing)?);
    if column.is_libc()
        && let Some(libc) = existing(LIBC)
    {
        command.env("LD_PRELOAD", libc);
    }
    calm(&mut command, &place.inputs);
    command
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"])
        .arg(&socket);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let server = child::start(&mut command)?;
    let client = |name: &str| -> io::Result<Command> {
        let mut command = Command::new(program(name).ok_or_else(missing)?);
        calm(command.env_clear(), &place.inputs);
        command.arg("-s").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    };
    while !socket.exists() && started.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(10));
    }
    let mut complaint = String::new();
    for load in loads(place.scale) {
        let mut bench = client("redis-benchmark")?;
        bench.args(["-q", "-c", "10", "-P", "16"]).args(load);
        let (end, _) = child::run(&mut bench, limit.saturating_sub(started.elapsed()))?;
        if end != End::Exit(0) {
            complaint = format!("redis-benchmark: {}", end.text());
            break;
        }
    }
    if complaint.is_empty() {
        let mut stop = client("redis-cli")?;
        stop.args(["shutdown", "nosave"]);
        child::run(&mut stop, Duration::from_secs(5))?;
    }
    // A server that the load has already killed ends here at once; one that hangs ends at the limit.
    let rest = if complaint.is_empty() { limit } else { started.elapsed() + Duration::from_secs(1) };
    let (end, usage) = child::wait(&server, started, rest)?;
    let end = if end == End::Exit(0) && !complaint.is_empty() { End::Exit(-1) } else { end };
    Ok((end, usage, complaint))
}

/// Arguments of redis-benchmark: strings of three sizes over many keys, then lists, hashes and sorted sets.
fn loads(scale: u64) -> Vec<Vec<String>> {
    let load = |tests: &str, count: u64, keys: u64, bytes: u64| {
        let numbers = [count * scale, keys * scale, bytes].map(|number| number.max(1).to_string());
        let [count, keys, bytes] = numbers;
        ["-t", tests, "-n", &count, "-r", &keys, "-d", &bytes].map(str::to_owned).to_vec()
    };
    vec![
        load("set,get", 750, 1000, 40),
        load("set,get", 350, 200, 700),
        load("set", 25, 5, 9000),
        load("lpush,rpush,lpop,sadd,hset,zadd", 350, 500, 60),
    ]
}
