//! Writing to a standard error that may not wait.
//!
//! A process that shares it may have set `O_NONBLOCK`, which is the open file's and not the process's. A report must not be lost
//! for that; nor may a reader who has gone to sleep hold the program up for ever.

#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;

/// Milliseconds for which it may take nothing.
const STALL: libc::c_int = 5000;

/// Writes all of `bytes`, waiting for room where `out` does not wait by itself.
pub fn write_all(out: &mut (impl Write + AsRawFd), bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut wanted = libc::pollfd { fd: out.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                // SAFETY: one entry, which lives for the call.
                if unsafe { libc::poll(&raw mut wanted, 1, STALL) } == 0 {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::thread;

    #[test]
    fn a_full_pipe_is_waited_for() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        // SAFETY: sets a flag of an open descriptor.
        assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        write_all(&mut writer, &[7; 1 << 20]).unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), [7; 1 << 20]);
    }
}
