//! Stops all other threads, and reads what they and the loader have mapped.
//!
//! A signal stops the threads; its handler waits. The registers of a stopped thread lie in the signal's frame on its
//! stack. A thread that blocks the signal goes on. So memory is read by [`super::vm::peek`] meanwhile, which does not
//! fault.

use super::{file, futex, signal, thread};
use crate::addr::{Addr, PAGE_SIZE};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use libc::{c_int, c_void, siginfo_t};

/// The most threads that are stopped.
const THREADS: usize = 4096;
/// So long threads have to stop, in milliseconds: one that blocks the signal never does.
const STOP_MILLIS: u32 = 300;

const RUN: u32 = 0;
const STOP: u32 = 1;
static STATE: AtomicU32 = AtomicU32::new(RUN);
static STOPPED: AtomicU32 = AtomicU32::new(0);
/// The frames of the signals that stopped them.
static FRAMES: [AtomicUsize; THREADS] = [const { AtomicUsize::new(0) }; THREADS];

/// Stopped threads; they go on when it is dropped.
pub struct Stopped {
    /// Whether all of them are.
    pub all: bool,
}

extern "C" fn on_stop(_number: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    let _errno = super::errno::ErrnoGuard::new();
    if STATE.load(Ordering::Acquire) != STOP {
        return;
    }
    let place = STOPPED.fetch_add(1, Ordering::AcqRel);
    if let Some(frame) = FRAMES.get(place as usize) {
        frame.store(context.addr(), Ordering::Release);
    }
    futex::wake_one(&STOPPED);
    while STATE.load(Ordering::Acquire) == STOP {
        futex::wait(&STATE, STOP);
    }
}

/// Stops all other threads of the process, as far as they can be. `None` if there is no signal for it.
pub fn stop() -> Option<Stopped> {
    let signal = signal::take_unused(on_stop)?;
    let mut asked = [0_u32; THREADS];
    let mut count = 0;
    STOPPED.store(0, Ordering::Relaxed);
    FRAMES.iter().for_each(|frame| frame.store(0, Ordering::Relaxed));
    STATE.store(STOP, Ordering::Release);
    let mut all = true;
    // A thread that is not stopped yet may start others.
    loop {
        let before = count;
        all &= each_thread(|tid| {
            let known = asked.iter().take(count).any(|known| *known == tid);
            if known || tid == thread::id() {
                return true;
            }
            let Some(place) = asked.get_mut(count) else { return false };
            *place = tid;
            count += 1;
            // SAFETY: sending a signal has no memory effect.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) };
            true
        });
        let end = thread::clock_ns().saturating_add(u64::from(STOP_MILLIS).saturating_mul(1_000_000));
        loop {
            let stopped = STOPPED.load(Ordering::Acquire);
            let left = end.saturating_sub(thread::clock_ns()) / 1_000_000;
            if stopped as usize >= count || left == 0 {
                break;
            }
            futex::wait_millis(&STOPPED, stopped, u32::try_from(left).unwrap_or(STOP_MILLIS));
        }
        if count == before {
            break;
        }
    }
    // Some may have ended before the signal reached them.
    let mut left = 0;
    all &= each_thread(|tid| {
        left += usize::from(asked.iter().take(count).any(|known| *known == tid));
        true
    });
    Some(Stopped { all: all && STOPPED.load(Ordering::Acquire) as usize >= left })
}

impl Stopped {
    /// The lowest frame of a stopped thread in a range of addresses: below it nothing of the stack is in use.
    pub fn lowest_frame(&self, range: &Range<usize>) -> Option<usize> {
        let frames = FRAMES.iter().take(STOPPED.load(Ordering::Acquire) as usize);
        frames.map(|frame| frame.load(Ordering::Acquire)).filter(|frame| range.contains(frame)).min()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        STATE.store(RUN, Ordering::Release);
        futex::wake_all(&STATE);
    }
}

/// Calls `visit` with the id of each thread until it says `false`; whether it saw all of them.
fn each_thread(mut visit: impl FnMut(u32) -> bool) -> bool {
    let Some(fd) = file::open_directory(b"/proc/self/task\0") else { return false };
    let mut buffer = [0_u8; 4096];
    let mut all = true;
    while let Some(mut entries) = file::read_directory(fd, &mut buffer).filter(|entries| !entries.is_empty())
    {
        // An entry: two numbers of eight bytes, its length in two, a type, the name with a NUL.
        while let Some([low, high]) = entries.get(16..18) {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let Some((entry, rest)) = entries.split_at_checked(length).filter(|_| length > 19) else { break };
            let name = entry.get(19..).and_then(|name| name.split(|byte| *byte == 0).next());
            let number = name.and_then(|name| core::str::from_utf8(name).ok()?.parse().ok());
            all = all && number.is_none_or(&mut visit);
            entries = rest;
        }
    }
    file::close(fd);
    all
}

/// Calls `visit` with each private writable mapping, read from /proc/self/maps into `buffer`; `false` if
/// that cannot be read to its end.
pub fn each_writable(buffer: &mut [u8], mut visit: impl FnMut(Range<usize>)) -> bool {
    let room = buffer.len();
    let Some(text) = file::read(b"/proc/self/maps\0", buffer) else { return false };
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let mut bounds = range
            .split(|byte| *byte == b'-')
            .map(|digits| usize::from_str_radix(core::str::from_utf8(digits).unwrap_or(""), 16).unwrap_or(0));
        if let ([b'r', b'w', _, b'p'], Some(start), Some(end)) = (rights, bounds.next(), bounds.next()) {
            visit(start..end);
        }
    }
    text.len() < room
}

/// Which pages of the process have contents.
pub struct PageMap {
    fd: Option<i32>,
}

/// Pages looked up at once.
const PAGES: usize = 512;

impl PageMap {
    /// Opens it; without it all pages are taken to have contents.
    pub fn open() -> Self {
        Self { fd: file::open_directory(b"/proc/self/pagemap\0") }
    }

    /// Calls `visit` with the parts of a range of whole pages that have contents.
    pub fn each_present(&self, range: Range<usize>, mut visit: impl FnMut(Range<usize>)) {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / (PAGES * PAGE_SIZE) + 1).saturating_mul(PAGES * PAGE_SIZE));
            let mut entries = [0_u64; PAGES];
            let count = (end - at).div_ceil(PAGE_SIZE);
            let known = self.fd.and_then(|fd| {
                let entries = entries.get_mut(..count)?;
                file::read_words_at(fd, at / PAGE_SIZE * size_of::<u64>(), entries)
            });
            if known.is_none() {
                visit(at..end);
            } else {
                for (page, _) in
                    entries.iter().take(count).enumerate().filter(|(_, entry)| **entry >> 62 != 0)
                {
                    let start = Addr::new(at).page_floor().plus(page * PAGE_SIZE).get();
                    visit(start.max(at)..start.saturating_add(PAGE_SIZE).min(end));
                }
            }
            at = end;
        }
    }
}

impl Drop for PageMap {
    fn drop(&mut self) {
        if let Some(fd) = self.fd {
            file::close(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_stop_and_go_on() {
        use std::sync::atomic::AtomicBool;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        static DONE: AtomicBool = AtomicBool::new(false);
        let thread = std::thread::spawn(|| {
            while !DONE.load(Ordering::Relaxed) {
                COUNT.fetch_add(1, Ordering::Relaxed);
            }
        });
        while COUNT.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let stopped = stop().expect("a signal");
        assert!(stopped.lowest_frame(&(0..usize::MAX)).is_some_and(|frame| frame > PAGE_SIZE));
        let count = COUNT.load(Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(COUNT.load(Ordering::Relaxed), count);
        drop(stopped);
        while COUNT.load(Ordering::Relaxed) == count {
            std::thread::yield_now();
        }
        DONE.store(true, Ordering::Relaxed);
        thread.join().expect("ends");
    }

    #[test]
    fn only_pages_with_contents_are_visited() {
        let bytes = 600 * PAGE_SIZE;
        let base = crate::sys::vm::tables(bytes).expect("mapping");
        // SAFETY: within the fresh mapping.
        unsafe { base.plus(550 * PAGE_SIZE).as_ptr::<u8>().write(1) };
        let mut seen = std::vec::Vec::new();
        PageMap::open().each_present(base.get()..base.get() + bytes, |range| seen.push(range));
        assert!(seen.iter().any(|range| range.contains(&(base.get() + 550 * PAGE_SIZE))));
        assert!(seen.len() < 600);
    }
}
