//! Whole-file reads and unbuffered writes, for options, limits and reports.

use core::sync::atomic::{AtomicBool, Ordering};
use libc::c_int;

/// Standard error's descriptor.
pub const STDERR: i32 = 2;

/// Reads the file at `path`, a NUL-terminated name, into `buffer`; the part that was read, `None` if
/// it cannot be opened.
pub fn read<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let fd = open(path, libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is a live, exclusively borrowed buffer of that length.
        let count = unsafe { libc::syscall(libc::SYS_read, fd, rest.as_mut_ptr(), rest.len()) };
        match usize::try_from(count) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(_) if super::errno::get() == libc::EINTR => {}
            Err(_) => break,
        }
    }
    close(fd);
    buffer.get(..filled)
}

/// Appends `bytes` to the file at `path`, a NUL-terminated name, making it if need be; the errno if not
/// all of them could be written.
pub fn append(path: &[u8], bytes: &[u8]) -> Result<(), i32> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let fd = open(path, flags).ok_or_else(super::errno::get)?;
    let result = write_all(fd, bytes);
    close(fd);
    result
}

fn open(path: &[u8], flags: c_int) -> Option<i32> {
    if path.last() != Some(&0) {
        return None;
    }
    // SAFETY: the path is NUL-terminated as just checked.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
    i32::try_from(fd).ok().filter(|fd| *fd >= 0)
}

/// Opens a directory, or a file to read from places; `path` is NUL-terminated.
pub fn open_directory(path: &[u8]) -> Option<i32> {
    open(path, libc::O_RDONLY | libc::O_CLOEXEC)
}

/// Opens a file to read from places, whatever it is, without waiting for anybody; `path` is NUL-terminated.
pub fn open_to_look(path: &[u8]) -> Option<i32> {
    open(path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
}

/// Whether there is a file of this name, which is NUL-terminated.
pub fn exists(path: &[u8]) -> bool {
    // SAFETY: the path is NUL-terminated as checked first.
    path.last() == Some(&0)
        && unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), libc::F_OK) } == 0
}

/// Reads from byte `offset` of an open file until `buffer` is full or the file ends; the number of bytes, `None` if it
/// cannot be read there.
pub fn read_at(fd: i32, offset: usize, buffer: &mut [u8]) -> Option<usize> {
    let mut filled: usize = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(filled)?;
        // SAFETY: `rest` is a live, exclusively borrowed buffer of that length.
        let count = unsafe { libc::syscall(libc::SYS_pread64, fd, rest.as_mut_ptr(), rest.len(), at) };
        match usize::try_from(count) {
            Ok(0) => break,
            Ok(count) => filled = filled.checked_add(count)?,
            Err(_) if super::errno::get() == libc::EINTR => {}
            Err(_) => return None,
        }
    }
    Some(filled)
}

/// The next entries of an open directory, as the kernel lays them out; empty at its end.
pub fn read_directory(fd: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    // SAFETY: `buffer` is live and of that length.
    let count = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
    buffer.get(..usize::try_from(count).ok()?)
}

/// Fills `words` from byte `offset` of an open file; `None` if it does not have them.
pub fn read_words_at(fd: i32, offset: usize, words: &mut [u64]) -> Option<()> {
    let bytes = size_of_val(words);
    // SAFETY: `words` is live and of that length, and any bytes are valid words.
    let count = unsafe { libc::syscall(libc::SYS_pread64, fd, words.as_mut_ptr(), bytes, offset) };
    (usize::try_from(count) == Ok(bytes)).then_some(())
}

/// Closes a descriptor this module opened.
pub fn close(fd: i32) {
    // SAFETY: closing a descriptor has no memory effect.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Writes all of `bytes` to `fd` as far as it takes them; gives up on any error but an interruption, and
/// returns its errno.
fn write_all(fd: i32, bytes: &[u8]) -> Result<(), i32> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: `rest` is a live buffer of that length.
        let count = unsafe { libc::syscall(libc::SYS_write, fd, rest.as_ptr(), rest.len()) };
        match usize::try_from(count) {
            Ok(0) => return Err(libc::EIO),
            Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
            Err(_) if super::errno::get() == libc::EINTR => {}
            Err(_) => return Err(super::errno::get()),
        }
    }
    Ok(())
}

/// Whether the process was started without a standard error.
static NO_STDERR: AtomicBool = AtomicBool::new(false);

/// Remembers whether there is a standard error. Called once, at start.
pub fn look_at_stderr() {
    // SAFETY: asks for a descriptor's flags.
    let known = unsafe { libc::syscall(libc::SYS_fcntl, STDERR, libc::F_GETFD) };
    NO_STDERR.store(known < 0, Ordering::Relaxed);
}

/// Whether what is written to descriptor 2 reaches somebody, and does not end up in a file of the program's: in
/// a process that was started without a standard error the number goes to whatever it opens next. Only a
/// character device is taken for one then.
fn has_stderr() -> bool {
    if !NO_STDERR.load(Ordering::Relaxed) {
        return true;
    }
    // SAFETY: an all-zero structure is valid, and the kernel fills it.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let known = unsafe { libc::syscall(libc::SYS_fstat, STDERR, &raw mut status) } == 0;
    known && status.st_mode & libc::S_IFMT == libc::S_IFCHR
}

/// Writes to standard error, if there is one, as far as it takes it.
pub fn write_stderr(bytes: &[u8]) {
    if has_stderr() {
        let _ = write_all(STDERR, bytes);
    }
}
