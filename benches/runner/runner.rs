//! The measured process: one allocator, one workload, one thread count.
//!
//! A driver starts it as `runner API WORK SIZE ALIGN THREADS` and then asks over pipes: eight bytes in (iterations),
//! [`Reply`] out (nanoseconds and up to three further numbers), until stdin closes. With a sixth argument it runs that
//! many iterations once and ends, which is what instruction counting wants. As `runner serves LIBRARY` it says whether the
//! preloaded library serves this process.
//!
//! `API` is `rust` (`std::alloc`, the allocator chosen by cargo feature) or `c` (`malloc` and friends, whatever the
//! dynamic linker resolves them to, so `LD_PRELOAD` chooses). Works named `vm-…` call the kernel and no allocator.
//! The process talks through bare descriptors and stack buffers, so that the heap holds the workload's objects alone.

mod heap;
mod serves;
mod vm;
mod work;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::FromRawFd;
use std::process::ExitCode;

/// What one request measured.
#[derive(Clone, Copy, Default)]
struct Reply {
    nanos: u64,
    extra: [u64; 3],
}

impl Reply {
    fn bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        let words = [self.nanos, self.extra[0], self.extra[1], self.extra[2]];
        for (chunk, word) in out.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

/// The size, alignment and thread count of a workload.
#[derive(Clone, Copy)]
struct Shape {
    size: usize,
    align: usize,
    threads: usize,
}

/// A prepared workload; keeps its live objects from one request to the next.
trait Work {
    fn run(&mut self, iterations: u64) -> Reply;
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, library] = args.as_slice()
        && word == "serves"
    {
        return serves::check(library);
    }
    let [api, name, size, align, threads, once @ ..] = args.as_slice() else {
        eprintln!("usage: runner rust|c WORK SIZE ALIGN THREADS [ITERATIONS]");
        return ExitCode::from(2);
    };
    let (Ok(size), Ok(align), Ok(threads)) = (size.parse(), align.parse(), threads.parse()) else {
        eprintln!("runner: SIZE, ALIGN and THREADS are numbers");
        return ExitCode::from(2);
    };
    let shape = Shape { size, align, threads };
    let made = match api.as_str() {
        _ if name.starts_with("vm-") => vm::make(name, shape),
        "rust" => work::make::<heap::Rust>(name, shape),
        "c" => work::make::<heap::C>(name, shape),
        _ => None,
    };
    let Some(mut work) = made else {
        eprintln!("runner: no workload {api} {name}");
        return ExitCode::from(2);
    };
    if let Some(once) = once.first() {
        let Ok(iterations) = once.parse() else {
            return ExitCode::from(2);
        };
        work.run(iterations);
        return ExitCode::SUCCESS;
    }
    serve(work.as_mut())
}

fn serve(work: &mut dyn Work) -> ExitCode {
    // SAFETY: descriptors 0 and 1 are the pipes the driver gave this process, and nothing else here uses them: `std`'s
    // own handles stay untouched, so each is owned once.
    let (mut requests, mut replies) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) };
    loop {
        let mut request = [0; 8];
        match requests.read_exact(&mut request) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        }
        let reply = work.run(u64::from_le_bytes(request));
        if replies.write_all(&reply.bytes()).is_err() {
            return ExitCode::FAILURE;
        }
    }
}
