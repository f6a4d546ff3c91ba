//! Whole-file reads and unbuffered writes, for options, limits and reports.
//!
//! A file that the user names is opened without waiting and without becoming the process's terminal, and then
//! inspected:
//!
//! | the file is | read from it | append to it |
//! |---|---|---|
//! | a regular file, a character device (`/dev/null`) | yes | yes |
//! | a FIFO | no | if a process reads it |
//! | anything else | no | no |
//!
//! A write waits for room if the descriptor is a blocking one. A descriptor with `O_NONBLOCK`, which any process that
//! shares the standard error may have set, is waited for here, up to [`STALL`] seconds for each part that it takes.
//!
//! # Line by line
//!
//! [`read_lines`] reads a file line by line, in a buffer that need not hold all of it.

use crate::addr::Addr;
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

/// Like [`read`], of a file that the user names; `None` if it cannot be read, or is none to be read.
pub fn read_named<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let fd = open_named(path).ok()?;
    let mut filled = 0;
    let read = loop {
        match read_some(fd, buffer.get_mut(filled..).unwrap_or(&mut [])) {
            Ok(0) => break true,
            Ok(count) => filled = filled.saturating_add(count),
            Err(_) => break false,
        }
    };
    close(fd);
    buffer.get(..filled).filter(|_| read)
}

/// Opens a file that the user names to be read; the errno if it cannot be, `EINVAL` if it is none to be read.
pub(super) fn open_named(path: &[u8]) -> Result<i32, i32> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let fd = open(path, flags).ok_or_else(super::errno::get)?;
    if matches!(kind(fd), Some(libc::S_IFREG | libc::S_IFCHR)) {
        return Ok(fd);
    }
    close(fd);
    Err(libc::EINVAL)
}

/// Reads once, as far as there is room and something to read; the errno if that fails.
pub(super) fn read_some(fd: i32, room: &mut [u8]) -> Result<usize, i32> {
    loop {
        // SAFETY: `room` is a live, exclusively borrowed buffer of that length.
        let count = unsafe { libc::syscall(libc::SYS_read, fd, room.as_mut_ptr(), room.len()) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) if super::errno::get() == libc::EINTR => {}
            Err(_) => return Err(super::errno::get()),
        }
    }
}

/// Appends `bytes` to the file at `path`, a NUL-terminated name, making it if need be; the errno if not
/// all of them could be written.
pub fn append(path: &[u8], bytes: &[u8]) -> Result<(), i32> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let fd = open(path, flags | libc::O_NONBLOCK | libc::O_NOCTTY).ok_or_else(super::errno::get)?;
    let result = match kind(fd) {
        Some(libc::S_IFREG | libc::S_IFCHR | libc::S_IFIFO) => write_all(fd, bytes),
        _ => Err(libc::EINVAL),
    };
    close(fd);
    result
}

/// Maps a regular file of exactly `bytes` bytes, writable, and shared with all that map it; `path` is NUL-terminated.
/// It is not made, and no link at the path's end is followed.
pub fn map_shared(path: &[u8], bytes: usize) -> Option<Addr> {
    let fd =
        open(path, libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)?;
    // SAFETY: an all-zero structure is valid, and the kernel fills it.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the structure is live and exclusively borrowed.
    let known = unsafe { libc::syscall(libc::SYS_fstat, fd, &raw mut status) } == 0;
    let whole =
        status.st_mode & libc::S_IFMT == libc::S_IFREG && usize::try_from(status.st_size) == Ok(bytes);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let start = match known && whole {
        // SAFETY: the kernel chooses free address space.
        true => unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) },
        false => libc::MAP_FAILED,
    };
    close(fd);
    (start != libc::MAP_FAILED).then(|| Addr::new(start.expose_provenance()))
}

/// What an open file is: the `S_IFMT` part of its mode.
fn kind(fd: i32) -> Option<libc::mode_t> {
    // SAFETY: an all-zero structure is valid, and the kernel fills it.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the structure is live and exclusively borrowed.
    let known = unsafe { libc::syscall(libc::SYS_fstat, fd, &raw mut status) } == 0;
    known.then_some(status.st_mode & libc::S_IFMT)
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

/// The path of the program's file, as the kernel has it; `None` without `/proc`.
pub fn own_path(buffer: &mut [u8]) -> Option<&[u8]> {
    let (path, place) = (c"/proc/self/exe".as_ptr(), buffer.as_mut_ptr());
    // SAFETY: the path is a C string, and the kernel writes at most as many bytes as the buffer has.
    let count = unsafe { libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, path, place, buffer.len()) };
    buffer.get(..usize::try_from(count).ok()?)
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

/// Seconds for which a descriptor that does not wait by itself may take nothing.
const STALL: i64 = 5;
/// So often in a row it may say that it has room, and take nothing.
const EMPTY_PROMISES: u32 = 16;

/// Writes all of `bytes` to `fd` as far as it takes them; gives up on any error but an interruption and a lack of room that
/// ends in time, and returns its errno.
fn write_all(fd: i32, bytes: &[u8]) -> Result<(), i32> {
    let mut rest = bytes;
    let mut promises = 0;
    while !rest.is_empty() {
        // SAFETY: `rest` is a live buffer of that length.
        let count = unsafe { libc::syscall(libc::SYS_write, fd, rest.as_ptr(), rest.len()) };
        match (usize::try_from(count), super::errno::get()) {
            (Ok(0), _) => return Err(libc::EIO),
            (Ok(count), _) => {
                rest = rest.get(count..).unwrap_or(&[]);
                promises = 0;
            }
            (Err(_), libc::EINTR) => {}
            (Err(_), libc::EAGAIN) if promises < EMPTY_PROMISES && has_room(fd) => promises += 1,
            (Err(_), errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Waits until `fd` can be written, or an attempt says why it never can; `false` after [`STALL`] seconds.
fn has_room(fd: i32) -> bool {
    let mut wanted = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // The kernel leaves in it what is left of the time.
    let mut time = libc::timespec { tv_sec: STALL, tv_nsec: 0 };
    loop {
        let none = core::ptr::null::<u64>();
        // SAFETY: the descriptor's entry and the time are live and exclusively borrowed; there is no mask.
        let ready =
            unsafe { libc::syscall(libc::SYS_ppoll, &raw mut wanted, 1_usize, &raw mut time, none, 8_usize) };
        if ready >= 0 || super::errno::get() != libc::EINTR {
            return ready > 0;
        }
    }
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
    kind(STDERR) == Some(libc::S_IFCHR)
}

/// Writes to standard error, if there is one, as far as it takes it.
pub fn write_stderr(bytes: &[u8]) {
    if has_stderr() {
        let _ = write_all(STDERR, bytes);
    }
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// The start of a line that is longer than the buffer. The rest of it is left out.
    LongLine(&'a [u8]),
    /// The file is longer than what is read of it; this was all.
    Rest,
}

/// Hands over the lines of the file at `path`, a NUL-terminated name, up to `most` bytes of it, in a buffer of `LINE` bytes. A line that is cut there is
/// left out. The errno if the file cannot be opened, is none to be read, or cannot be read to its end.
pub fn read_lines<const LINE: usize>(
    path: &[u8],
    most: usize,
    mut each: impl FnMut(Piece<'_>),
) -> Result<(), i32> {
    let fd = open_named(path)?;
    let result = read_lines_of::<LINE>(fd, most, &mut each);
    close(fd);
    result
}

/// Apart, so that the buffer takes no stack where there is no file.
#[inline(never)]
fn read_lines_of<const LINE: usize>(
    fd: i32,
    most: usize,
    each: &mut impl FnMut(Piece<'_>),
) -> Result<(), i32> {
    split(&mut [0; LINE], most, |room| read_some(fd, room), each)
}

fn split(
    buffer: &mut [u8],
    most: usize,
    mut more: impl FnMut(&mut [u8]) -> Result<usize, i32>,
    each: &mut impl FnMut(Piece<'_>),
) -> Result<(), i32> {
    // Of the buffer the first `filled` bytes are the start of a line, or, while `skips`, nothing.
    let (mut filled, mut skips, mut total) = (0_usize, false, 0_usize);
    loop {
        let count = more(buffer.get_mut(filled..).unwrap_or(&mut []))?;
        let known = buffer.get(..filled.saturating_add(count)).unwrap_or(&[]);
        total = total.saturating_add(count);
        if count == 0 {
            if !skips && !known.is_empty() {
                each(Piece::Line(known));
            }
            return Ok(());
        }
        // What lies beyond the bound is not looked at.
        let known = known.get(..known.len().saturating_sub(total.saturating_sub(most))).unwrap_or(&[]);
        let mut rest = known;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            if !skips {
                each(Piece::Line(line));
            }
            skips = false;
            rest = tail.get(1..).unwrap_or(&[]);
        }
        if total > most {
            each(Piece::Rest);
            return Ok(());
        }
        let (start, len) = (known.len().saturating_sub(rest.len()), rest.len());
        if len == buffer.len() && !skips {
            each(Piece::LongLine(rest));
            skips = true;
        }
        filled = if skips { 0 } else { len };
        if !skips {
            buffer.copy_within(start..start.saturating_add(len), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::string::String;
    use std::time::{Duration, Instant};
    use std::vec::Vec;

    fn name(path: &Path) -> Vec<u8> {
        [path.as_os_str().as_bytes(), b"\0"].concat()
    }

    fn scratch(what: &str) -> PathBuf {
        let path = std::env::temp_dir().join(std::format!("fencepost-file-{what}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn fifo(what: &str) -> PathBuf {
        let path = scratch(what);
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name(&path).as_ptr().cast(), 0o600) }, 0);
        path
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let path = fifo("unread");
        assert_eq!(append(&name(&path), b"text"), Err(libc::ENXIO), "nobody reads it");
        assert!(read_named(&name(&path), &mut [0; 8]).is_none());
        std::fs::remove_file(&path).expect("there");
        assert_eq!(append(b"/dev/null\0", b"text"), Ok(()));
        assert_eq!(append(b"/dev/full\0", b"text"), Err(libc::ENOSPC));
        assert_eq!(append(b"/tmp\0", b"text"), Err(libc::EISDIR));
        assert!(read_named(b"/tmp\0", &mut [0; 8]).is_none());
        assert_eq!(read_named(b"/dev/null\0", &mut [0; 8]), Some(&[][..]));
        assert_eq!(
            read_named(b"/dev/zero\0", &mut [1; 8]),
            Some(&[0; 8][..]),
            "no more than there is room for"
        );
    }

    #[test]
    fn a_link_is_not_followed() {
        let (link, file) = (scratch("link"), scratch("linked"));
        std::os::unix::fs::symlink(&file, &link).expect("the directory is writable");
        assert_eq!(append(&name(&link), b"text"), Err(libc::ELOOP));
        assert!(!file.exists());
        std::fs::remove_file(&link).expect("there");
    }

    #[test]
    fn a_full_pipe_gets_all_once_there_is_room() {
        let path = fifo("slow");
        let reader =
            open(&name(&path), libc::O_RDONLY | libc::O_NONBLOCK).expect("a FIFO can be opened to be read");
        let written = name(&path);
        let writer = std::thread::spawn(move || append(&written, &[7; 1 << 20]));
        let mut got: Vec<u8> = Vec::new();
        let mut buffer = [0; 4096];
        while !writer.is_finished() || got.len() < 1 << 20 {
            match read_some(reader, &mut buffer) {
                Ok(count) => got.extend(&buffer[..count]),
                Err(errno) => assert_eq!(errno, libc::EAGAIN),
            }
        }
        assert_eq!(writer.join().expect("no panic"), Ok(()));
        assert!(got.len() == 1 << 20 && got.iter().all(|byte| *byte == 7));
        close(reader);
        std::fs::remove_file(&path).expect("there");
    }

    #[test]
    fn a_pipe_that_stays_full_is_given_up() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
        // SAFETY: sets a flag of an open descriptor.
        assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        let begin = Instant::now();
        assert_eq!(write_all(writer.as_raw_fd(), &[7; 1 << 20]), Err(libc::EAGAIN));
        assert!((Duration::from_secs(4)..Duration::from_secs(60)).contains(&begin.elapsed()));
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).expect("a pipe can be read");
        assert!(!got.is_empty() && got.len() < 1 << 20);
    }

    /// The pieces of `text`, read `step` bytes at a time through a buffer of eight.
    fn pieces(text: &str, step: usize, most: usize) -> Vec<String> {
        let mut rest = text.as_bytes();
        let mut found = Vec::new();
        let more = |room: &mut [u8]| {
            let count = step.min(room.len()).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            Ok(count)
        };
        let mut each = |piece: Piece<'_>| {
            found.push(match piece {
                Piece::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Piece::LongLine(start) => format!("long {}", String::from_utf8_lossy(start)),
                Piece::Rest => String::from("rest"),
            });
        };
        split(&mut [0; 8], most, more, &mut each).expect("nothing fails");
        found
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        for step in 1..=9 {
            for (text, most, expected) in [
                ("", 100, &[][..]),
                ("a\nbc\n\nd", 100, &["a", "bc", "", "d"]),
                ("1234567\nx\n", 100, &["1234567", "x"]),
                ("12345678\nx\n", 100, &["long 12345678", "x"]),
                ("123456789abcdefghijklmnop\nx", 100, &["long 12345678", "x"]),
                ("x\n123456789abcdefghijklmnop", 100, &["x", "long 12345678"]),
                ("ab\ncd\nef", 8, &["ab", "cd", "ef"]),
                ("ab\ncd\nef\n", 8, &["ab", "cd", "rest"]),
                ("ab\ncdefg", 5, &["ab", "rest"]),
                ("123456789abcdefghijklmnop\nx", 12, &["long 12345678", "rest"]),
            ] {
                assert_eq!(pieces(text, step, most), expected, "{text:?} {step} {most}");
            }
        }
    }

    #[test]
    fn an_error_is_handed_on() {
        let mut each = |_: Piece<'_>| ();
        assert_eq!(split(&mut [0; 8], 9, |_| Err(5), &mut each), Err(5));
        assert_eq!(read_lines::<8>(b"/no/such/file\0", 9, |_| ()), Err(libc::ENOENT));
        assert_eq!(read_lines::<8>(b"/tmp\0", 9, |_| ()), Err(libc::EINVAL));
    }
}
