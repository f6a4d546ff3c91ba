//! The end of a process that cannot go on.

use super::file;
use crate::text::Text;
use core::fmt::Write;

/// Says on stderr why the allocator itself cannot go on, then aborts. For states that no program
/// can cause: an impossible errno, metadata that contradicts itself outside of a report.
#[cold]
pub fn die(why: &str) -> ! {
    let mut text = Text::<256>::new();
    let _ = writeln!(text, "fencepost: internal error: {why} (errno {})", super::errno::get());
    file::write_stderr(text.as_bytes());
    super::signal::abort_process()
}

/// Ends the process with `status` from within its orderly end: the C library goes on with what is left to
/// do, such as writing out its buffers, and uses this status.
pub fn exit_anew(status: i32) -> ! {
    // SAFETY: glibc lets a handler that `exit` runs call it again.
    unsafe { libc::exit(status) }
}

/// Ends the process with `status`, running no handlers.
pub fn exit_now(status: i32) -> ! {
    loop {
        // SAFETY: ends the process. Not by `_exit`, which the front end replaces.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
