//! The three buggy programs that `demo` runs.
//!
//! They call the C library's `malloc` and `free`, which are the preloaded library's here, as a C
//! program would. Each object comes from a function of its own, so that a report shows three different
//! stacks. Volatile accesses and `black_box` keep the compiler from seeing, and using, the bugs.

#![allow(unsafe_code)]

use clap::ValueEnum;
use std::hint::black_box;
use std::process::ExitCode;

/// The hidden subcommand that commits a bug.
pub const COMMAND: &str = "__victim";
/// A victim that hangs is killed after this many seconds.
const TIMEOUT: u32 = 30;
/// The size of the object that is overflowed: no multiple of any alignment.
pub const SMALL: usize = 13;
/// The size of the object that is used after its free.
pub const BLOCK: usize = 64;

/// A bug to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// Writes the byte after an object.
    Overflow,
    /// Reads an object that was freed.
    UseAfterFree,
    /// Frees an object twice.
    DoubleFree,
}

/// Commits `bug`. Returns, with status 0, only if nobody noticed.
pub fn commit(bug: Bug) -> ExitCode {
    behave();
    match bug {
        Bug::Overflow => write_past_the_end(allocate_object(SMALL)),
        Bug::UseAfterFree => {
            let object = allocate_object(BLOCK);
            release_object(object);
            read_after_free(object);
        }
        Bug::DoubleFree => {
            let object = allocate_object(BLOCK);
            release_object(object);
            free_again(object);
        }
    }
    ExitCode::SUCCESS
}

/// No core dumps, and an end.
fn behave() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives for the call; a lower limit and a pending alarm break no invariant of this
    // process, which nothing else runs in.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::alarm(TIMEOUT);
    }
}

#[inline(never)]
fn allocate_object(size: usize) -> *mut u8 {
    // SAFETY: malloc takes any size; a null result is never dereferenced on purpose, and would end
    // the victim with a fault that no report explains, which `demo` tells from detection.
    black_box(unsafe { libc::malloc(black_box(size)) }.cast())
}

#[inline(never)]
fn release_object(object: *mut u8) {
    // SAFETY: `object` comes from `allocate_object` and this is its first free.
    unsafe { libc::free(black_box(object).cast()) };
}

#[inline(never)]
fn write_past_the_end(object: *mut u8) {
    // SAFETY: none, and that is the point: byte SMALL of an object of SMALL bytes is not the
    // object's. The process exists to be stopped here.
    unsafe { black_box(object.wrapping_add(black_box(SMALL))).write_volatile(b'!') };
}

#[inline(never)]
fn read_after_free(object: *mut u8) {
    // SAFETY: none, and that is the point: the object is freed. The process exists to be stopped here.
    black_box(unsafe { black_box(object).read_volatile() });
}

#[inline(never)]
fn free_again(object: *mut u8) {
    // SAFETY: none, and that is the point: the object is freed. The process exists to be stopped here.
    unsafe { libc::free(black_box(object).cast()) };
}
