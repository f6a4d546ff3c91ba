//! The standard input of a program that is run more than once: each run reads the same.
//!
//! | standard input | each run gets |
//! |---|---|
//! | a regular file | the file, opened anew at the place where it was |
//! | a pipe or a socket | what came through it until its end, read once before the first run |
//! | anything else (a terminal, `/dev/null`) | the same |

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::SystemTime;

/// What each run reads.
pub enum Input {
    /// What the launcher has.
    Inherited,
    /// Nothing.
    Nothing,
    /// A file, from an offset on.
    File(File, u64),
}

impl Input {
    /// What the launcher's standard input holds. A terminal can be shared by runs that follow each other alone:
    /// where there are several at a time they read `/dev/null`.
    pub fn of_stdin(several: bool) -> io::Result<Self> {
        let stdin = io::stdin();
        if several && stdin.is_terminal() {
            return Ok(Self::Nothing);
        }
        // Closed, it has no kind either.
        let Ok(handle) = stdin.as_fd().try_clone_to_owned() else { return Ok(Self::Inherited) };
        let mut file = File::from(handle);
        let kind = file.metadata()?.file_type();
        if kind.is_fifo() || kind.is_socket() {
            let mut spool = spool()?;
            io::copy(&mut file, &mut spool)?;
            return Ok(Self::File(spool, 0));
        }
        if !kind.is_file() {
            return Ok(Self::Inherited);
        }
        let offset = file.stream_position()?;
        Ok(Self::File(file, offset))
    }

    /// The standard input of one run.
    pub fn open(&self) -> io::Result<Stdio> {
        match self {
            Self::Inherited => Ok(Stdio::inherit()),
            Self::Nothing => Ok(Stdio::null()),
            Self::File(file, offset) => {
                // Opened anew, since an offset is shared by all copies of a descriptor.
                let mut own = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
                own.seek(SeekFrom::Start(*offset))?;
                Ok(own.into())
            }
        }
    }
}

/// A file without a name, for this user alone.
pub fn spool() -> io::Result<File> {
    let mut problem = io::Error::from(io::ErrorKind::NotFound);
    for place in [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/dev/shm")] {
        for attempt in 0..16_u32 {
            let path = place.join(unique(attempt));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    fs::remove_file(&path)?;
                    return Ok(file);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    problem = error;
                    break;
                }
            }
        }
    }
    Err(problem)
}

/// A name that nobody else is likely to have.
pub fn unique(attempt: u32) -> String {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Relaxed);
    format!("fencepost-{}-{number}-{:x}", std::process::id(), time.subsec_nanos() ^ attempt)
}
