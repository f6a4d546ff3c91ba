//! A program that has the crate and another global allocator: nothing of the heap is there until it is used.

mod support;

use fencepost::{Fencepost, Mode};
use std::env;
use std::fs;
use std::process::Command;
use support::process::{self, End, LIMIT};

/// A heap that is nobody's allocator.
static HEAP: Fencepost = Fencepost::new().mode(Mode::Hunt);

/// Says that this process is to tell of itself.
const TELLS: &str = "FENCEPOST_LINKED";

/// A field of this process's status in kilobytes.
fn kilobytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim_end_matches("kB").trim().parse().unwrap()
}

fn handler(signal: libc::c_int) -> usize {
    // SAFETY: it only asks, into a value that is there.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &raw mut action), 0);
        action.sa_sigaction
    }
}

/// Whether memory of the program's is known to the heap.
fn is_known(bytes: &[u8]) -> bool {
    fencepost::bounds(bytes.as_ptr()).is_some()
}

#[test]
fn tells() {
    if env::var_os(TELLS).is_none() {
        return;
    }
    let before = (handler(libc::SIGSEGV), handler(libc::SIGBUS));
    let text = String::from("of the system's allocator");
    assert!(!is_known(text.as_bytes()));
    assert_eq!(fencepost::check(text.as_ptr(), 1 << 20), Ok(()), "what is not the heap's is not judged");
    // The reservation of a heap takes a terabyte or more where it can.
    assert!(kilobytes("VmPeak") < 64 << 20, "nothing was reserved");
    assert_eq!((handler(libc::SIGSEGV), handler(libc::SIGBUS)), before);
    // The first use starts it: what was said above can be told apart.
    let layout = std::alloc::Layout::new::<[u8; 100]>();
    // SAFETY: the layout has a size, and what was allocated is freed.
    unsafe {
        use std::alloc::GlobalAlloc;
        let object = HEAP.alloc(layout);
        assert!(is_known(std::slice::from_raw_parts(object, 100)));
        HEAP.dealloc(object, layout);
    }
    println!("told");
}

#[test]
fn a_program_with_another_allocator_is_left_alone() {
    for options in ["mode=harden", "mode=hunt:stats=1:help=1"] {
        let mut command: Command = process::command(env::current_exe().unwrap(), None, "");
        command.args(["tells", "--exact", "--nocapture"]).env(TELLS, "1").env("FENCEPOST_OPTIONS", options);
        let run = process::run(&mut command, LIMIT);
        assert!(run.end == End::Status(0) && run.stdout.contains("told"), "{}{}", run.stdout, run.stderr);
    }
}
