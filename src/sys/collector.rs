//! Sends a report to the process that collects reports, over a stream socket with a name in the file system.
//!
//! One connection carries one report. The collector answers with one byte when it has processed the report. Without an
//! answer the caller prints the report itself. Nothing here raises SIGPIPE, blocks for ever or is a cancellation point.

use super::{errno, file};
use libc::{c_int, c_long, c_void};

/// The answer.
const TAKEN: u8 = b'+';
/// Seconds that the collector may take to accept, and then to answer: it reads symbol tables meanwhile.
const ACCEPTING: c_long = 5;
const ANSWERING: c_long = 60;

/// Hands `bytes` over to the collector at `path`; `false` if it did not say that it took them.
pub fn deliver(path: &[u8], bytes: &[u8]) -> bool {
    let Some(fd) = connect(path) else { return false };
    let taken = send(fd, bytes) && answer(fd) == Some(TAKEN);
    file::close(fd);
    taken
}

fn connect(path: &[u8]) -> Option<c_int> {
    // SAFETY: an all-zero address is valid.
    let mut name: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    name.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).ok()?;
    // One byte less: the name ends with a zero.
    let place = name.sun_path.get_mut(..path.len()).filter(|place| place.len() < 108)?;
    for (to, from) in place.iter_mut().zip(path) {
        *to = from.cast_signed();
    }
    // SAFETY: making a socket has no memory effect.
    let fd =
        unsafe { libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    let set = |option: c_int, seconds: c_long| {
        let time = libc::timeval { tv_sec: seconds, tv_usec: 0 };
        // SAFETY: the value lives for the call and has the length that is stated.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                option,
                (&raw const time).cast::<c_void>(),
                libc::socklen_t::try_from(core::mem::size_of::<libc::timeval>()).unwrap_or(0),
            )
        };
    };
    set(libc::SO_SNDTIMEO, ACCEPTING);
    set(libc::SO_RCVTIMEO, ANSWERING);
    // SAFETY: the address lives for the call and has the length that is stated.
    let status =
        unsafe { libc::syscall(libc::SYS_connect, fd, &raw const name, core::mem::size_of_val(&name)) };
    if status != 0 {
        file::close(fd);
        return None;
    }
    Some(fd)
}

/// Sends all of `bytes` and the end of the stream.
fn send(fd: c_int, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let flags = libc::MSG_NOSIGNAL;
        // SAFETY: `rest` is a live buffer of that length; there is no address.
        let count =
            unsafe { libc::syscall(libc::SYS_sendto, fd, rest.as_ptr(), rest.len(), flags, 0_usize, 0) };
        match usize::try_from(count) {
            Ok(0) => return false,
            Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
            Err(_) if errno::get() == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    // SAFETY: no memory effect.
    unsafe { libc::syscall(libc::SYS_shutdown, fd, libc::SHUT_WR) == 0 }
}

fn answer(fd: c_int) -> Option<u8> {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte, live and exclusively borrowed.
        match unsafe { libc::syscall(libc::SYS_read, fd, &raw mut byte, 1_usize) } {
            1 => return Some(byte),
            0 => return None,
            _ if errno::get() == libc::EINTR => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;
    use std::vec::Vec;

    #[test]
    fn only_an_answer_counts() {
        let path = std::env::temp_dir().join(std::format!("fencepost-collector-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let name = path.as_os_str().as_bytes().to_vec();
        assert!(!deliver(&name, b"nobody is there"));
        let listener = UnixListener::bind(&path).expect("a socket can be made");
        let collector = std::thread::spawn(move || {
            for answer in [&b"+"[..], b"-", b""] {
                let (mut stream, _) = listener.accept().expect("a report comes");
                let mut report = Vec::new();
                stream.read_to_end(&mut report).expect("the report ends");
                assert_eq!(report, [7; 300_000]);
                stream.write_all(answer).expect("the answer is read");
            }
        });
        assert_eq!([0; 3].map(|_| deliver(&name, &[7; 300_000])), [true, false, false]);
        collector.join().expect("the collector got all of it");
        assert!(!deliver(&name, b"nobody is there any more"));
        assert!(!deliver(&[b'x'; 200], b"no socket has such a name"));
        let _ = std::fs::remove_file(&path);
    }
}
