//! The kernel's own prices: what an allocator that asks the kernel at every `free` cannot go below.
//!
//! Each operation works on its own fresh mapping with huge pages off. What prepares a block (populating, guarding)
//! stands outside the timed part, so a figure is the operation and, spread over a block, one clock reading.

use super::work::{race, reply};
use super::{Reply, Shape, Work};
use std::process::exit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const GUARD_INSTALL: libc::c_int = 102;
const GUARD_REMOVE: libc::c_int = 103;
/// Pages handled between two clock readings.
const BLOCK: usize = 64;
/// Pages of the walk that never comes back to an address, as a guarded allocator does not.
const WALK: usize = 65_536;

pub fn make(name: &str, shape: Shape) -> Option<Box<dyn Work>> {
    let op = OPS.iter().find(|(op, _)| *op == name)?.1;
    Some(Box::new(Kernel { op, threads: shape.threads, page: page_size() }))
}

/// An operation runs `iterations` times for a page size and answers with the nanoseconds that count.
type Op = fn(u64, usize) -> u64;

const OPS: &[(&str, Op)] = &[
    ("vm-syscall", syscall),
    ("vm-fault", fault),
    ("vm-touch-install", touch_install),
    ("vm-install-populated", |n, page| {
        block(n, page, Region::populate, |region, i| region.advise(i, 1, GUARD_INSTALL))
    }),
    ("vm-install-empty", |n, page| block(n, page, |_| {}, |region, i| region.advise(i, 1, GUARD_INSTALL))),
    ("vm-install-bulk", install_bulk),
    ("vm-remove", |n, page| block(n, page, Region::guard, |region, i| region.advise(i, 1, GUARD_REMOVE))),
    ("vm-mmap-munmap", mmap_munmap),
    ("vm-classic", classic),
    ("vm-mprotect-split", mprotect_split),
    ("vm-dontneed-1", |n, page| {
        block(n, page, Region::populate, |region, i| region.advise(i, 1, libc::MADV_DONTNEED))
    }),
    ("vm-dontneed-64", dontneed_64),
    ("vm-memset-4096", memset),
];

struct Kernel {
    op: Op,
    threads: usize,
    page: usize,
}

impl Work for Kernel {
    fn run(&mut self, iterations: u64) -> Reply {
        if self.threads == 1 {
            return reply((self.op)(iterations, self.page));
        }
        let longest = AtomicU64::new(0);
        race(self.threads, |_| {
            longest.fetch_max((self.op)(iterations, self.page), Ordering::Relaxed);
        });
        reply(longest.into_inner())
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Ends the process: the driver reports the operation as one this kernel does not have.
fn refused(what: &str) -> ! {
    eprintln!("runner: {what}: {}", std::io::Error::last_os_error());
    exit(4)
}

/// A private anonymous mapping of this module's own.
struct Region {
    start: *mut u8,
    pages: usize,
    page: usize,
}

impl Region {
    fn new(pages: usize, page: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the kernel likes.
        let start = unsafe { libc::mmap(null_mut(), pages * page, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            refused("mmap");
        }
        let region = Self { start: start.cast(), pages, page };
        // SAFETY: advice about the mapping just made. A kernel built without huge pages refuses it and needs none of it.
        unsafe { libc::madvise(start, pages * page, libc::MADV_NOHUGEPAGE) };
        region
    }

    #[inline(always)]
    fn at(&self, index: usize) -> *mut u8 {
        debug_assert!(index < self.pages);
        self.start.wrapping_add(index * self.page)
    }

    #[inline(always)]
    fn touch(&self, index: usize) {
        // SAFETY: the callers touch pages of this mapping that are readable, writable and without guard.
        unsafe { self.at(index).write_volatile(1) };
    }

    fn populate(&self) {
        (0..self.pages).for_each(|index| self.touch(index));
    }

    fn guard(&self) {
        self.advise(0, self.pages, GUARD_INSTALL);
    }

    #[inline(always)]
    fn advise(&self, index: usize, pages: usize, advice: libc::c_int) {
        // SAFETY: the range lies in this mapping, whose contents nobody needs.
        if unsafe { libc::madvise(self.at(index).cast(), pages * self.page, advice) } != 0 {
            refused("madvise");
        }
    }

    #[inline(always)]
    fn protect(&self, index: usize, pages: usize, protection: libc::c_int) {
        // SAFETY: the range lies in this mapping; the callers touch nothing they have closed.
        if unsafe { libc::mprotect(self.at(index).cast(), pages * self.page, protection) } != 0 {
            refused("mprotect");
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and goes with it.
        unsafe { libc::munmap(self.start.cast(), self.pages * self.page) };
    }
}

fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

/// `operation` on each page of fresh blocks that `prepare` has made ready.
fn block(iterations: u64, page: usize, prepare: impl Fn(&Region), operation: impl Fn(&Region, usize)) -> u64 {
    let mut spent = 0;
    let mut left = iterations as usize;
    while left > 0 {
        let now = left.min(BLOCK);
        let region = Region::new(BLOCK, page);
        prepare(&region);
        let start = Instant::now();
        (0..now).for_each(|index| operation(&region, index));
        spent += nanos(start);
        left -= now;
    }
    spent
}

fn syscall(iterations: u64, _page: usize) -> u64 {
    let start = Instant::now();
    for _ in 0..iterations {
        // SAFETY: getppid takes nothing and changes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
    nanos(start)
}

fn fault(iterations: u64, page: usize) -> u64 {
    // One warm page first, so that the block's page table exists and the figure is the fault alone.
    block(iterations, page, |region| region.touch(BLOCK - 1), |region, index| region.touch(index))
}

/// Touches a fresh page and guards it, along a walk that skips every second page as a guarded arena does.
fn touch_install(iterations: u64, page: usize) -> u64 {
    let mut spent = 0;
    let mut left = iterations as usize;
    while left > 0 {
        let now = left.min(WALK / 2);
        let region = Region::new(WALK, page);
        let start = Instant::now();
        for index in 0..now {
            region.touch(index * 2);
            region.advise(index * 2, 1, GUARD_INSTALL);
        }
        spent += nanos(start);
        left -= now;
    }
    spent
}

/// One call for a block of empty pages; the figure is for a block.
fn install_bulk(iterations: u64, page: usize) -> u64 {
    let mut spent = 0;
    for _ in 0..iterations {
        let region = Region::new(BLOCK, page);
        region.touch(0);
        let start = Instant::now();
        region.guard();
        spent += nanos(start);
    }
    spent
}

fn mmap_munmap(iterations: u64, page: usize) -> u64 {
    let start = Instant::now();
    for _ in 0..iterations {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, unmapped at once and never touched.
        unsafe {
            let new =
                libc::mmap(null_mut(), page, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            if new == libc::MAP_FAILED || libc::munmap(new, page) != 0 {
                refused("mmap and munmap");
            }
        }
    }
    nanos(start)
}

/// The fence of the older tools: map two pages, close the second, touch the first, unmap both.
fn classic(iterations: u64, page: usize) -> u64 {
    let start = Instant::now();
    for _ in 0..iterations {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping; only its open first page is touched before it is unmapped.
        unsafe {
            let new =
                libc::mmap(null_mut(), 2 * page, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            if new == libc::MAP_FAILED
                || libc::mprotect(new.cast::<u8>().add(page).cast(), page, libc::PROT_NONE) != 0
            {
                refused("mmap and mprotect");
            }
            new.cast::<u8>().write_volatile(1);
            libc::munmap(new, 2 * page);
        }
    }
    nanos(start)
}

/// Closes every second page, so that each call cuts a mapping in pieces.
fn mprotect_split(iterations: u64, page: usize) -> u64 {
    let mut spent = 0;
    let mut left = iterations as usize;
    while left > 0 {
        let now = left.min(BLOCK);
        let region = Region::new(2 * BLOCK + 1, page);
        region.populate();
        let start = Instant::now();
        (0..now).for_each(|index| region.protect(index * 2 + 1, 1, libc::PROT_NONE));
        spent += nanos(start);
        left -= now;
    }
    spent
}

/// One call for a block of populated pages; the figure is for a block.
fn dontneed_64(iterations: u64, page: usize) -> u64 {
    let region = Region::new(BLOCK, page);
    let mut spent = 0;
    for _ in 0..iterations {
        region.populate();
        let start = Instant::now();
        region.advise(0, BLOCK, libc::MADV_DONTNEED);
        spent += nanos(start);
    }
    spent
}

fn memset(iterations: u64, _page: usize) -> u64 {
    let mut bytes = [0u8; 4096];
    let start = Instant::now();
    for _ in 0..iterations {
        std::hint::black_box(&mut bytes).fill(0x5a);
    }
    nanos(start)
}
