//! The Rust front end: `Fencepost` as a global allocator.

use crate::addr::{ABI_ALIGN, Addr};
use crate::fault::Kind;
use crate::heap::poison::Change;
use crate::heap::{self, Overrides};
use crate::options::{
    Align, Count, Fill, GuardSide, Guards, Key, Mebibytes, Mode, OnError, Options, PathBuf, ReportForm, Seal,
    Shown, Switch, Unmap,
};
use crate::request::{Claim, Origin, Request, Site};
use crate::sys::thread;
use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;

/// The allocator, to be named as a program's global one.
///
/// ```
/// use fencepost::Fencepost;
///
/// #[global_allocator]
/// static HEAP: Fencepost = Fencepost::new();
///
/// fn main() {
///     let numbers: Vec<u32> = (0..1000).collect();
///     assert_eq!(numbers.iter().sum::<u32>(), 499_500);
/// }
/// ```
///
/// What the builder sets takes effect at the program's first allocation and stands between
/// `/etc/fencepost.conf` and the environment variable `FENCEPOST_OPTIONS`, which wins. That holds for defaults, too: an
/// option that is set to its default is set.
pub struct Fencepost {
    overrides: Overrides,
}

/// One builder method per option: a `const fn` that sets it.
macro_rules! builder {
    ($($name:ident: $type:ty, $help:literal;)+) => {
        $(builder! { #[doc = $help] pub $name as $name: $type })+
    };
    ($(#[$doc:meta])* $visibility:vis $method:ident as $name:ident: $type:ty) => {
            $(#[$doc])*
            #[must_use]
            $visibility const fn $method(mut self, value: $type) -> Self {
                let mut options = match self.overrides.build {
                    Some(options) => options,
                    None => Options::DEFAULT,
                };
                options.$name = value;
                options.given = options.given.with(Key::$name);
                self.overrides.build = Some(options);
                self
            }
    };
}

impl Fencepost {
    /// The allocator with every option at its default.
    pub const fn new() -> Self {
        Self { overrides: Overrides::NONE }
    }

    builder! {
        mode: Mode, "Which objects stand between guard pages.";
        unmap_threshold: u64, "Objects of this many bytes or more are unmapped at free.";
        align: Align, "How C objects meet their guard; Rust's layouts are exact by themselves.";
        guard_side: GuardSide, "Which end of an object touches its guard page.";
        seed: u64, "Seed of every random choice; 0 draws one.";
        guards: Guards, "The kernel facility that makes guard pages.";
        budget_mb: u64, "MiB of live memory for small guarded objects; 0 for half of the machine's.";
        canary: bool, "Canaries around objects.";
        zero: bool, "Clear slab memory at free and check it at reuse.";
        seal: Seal, "What keeps others than the allocator from writing its tables.";
        backtrace: u64, "Frames kept for each guarded object.";
        report: ReportForm, "Form of the report.";
        dump: Switch, "Whether reports show the bytes of memory.";
        on_error: OnError, "What follows a report.";
        exitcode: u64, "Exit status with `OnError::Exit`, and with `OnError::Continue` if errors were found.";
        sleep_before_dying: u64, "Seconds to wait for a debugger before a report ends the program.";
        leaks: u64, "1 lists leaks when [`Fencepost::finish`] is called; 2 exits with `exitcode` if there are any.";
        stats: bool, "Print counts when [`Fencepost::finish`] is called.";
        sample_rate: u64, "`Mode::Patrol` guards one in about so many small objects.";
        mismatch: bool, "Report objects freed by another family than allocated them.";
        history: u64, "Freed guarded objects that are remembered.";
        unmap: Unmap, "Whether a freed object's pages go before its free returns, or with others.";
        check_at_exit: bool, "Whether [`Fencepost::finish`] checks everything.";
        frames: Shown, "Which frames reports show.";
        names: bool, "Whether the allocator's mappings have names.";
        reserve_gb: u64, "GiB of address space for guarded objects; 0 by the machine's memory.";
        fail_every: u64, "Let each n-th allocation fail; 0 for none.";
    }

    builder! { quarantine as quarantine_mb: Mebibytes }
    builder! { log as log_path: PathBuf }
    builder! { known as suppressions: PathBuf }
    builder! { filled as fill: Fill }
    builder! { failing as fail_after: Count }

    /// MiB of freed slab memory withheld from reuse.
    #[must_use]
    pub const fn quarantine_mb(self, mebibytes: u64) -> Self {
        self.quarantine(Mebibytes::new(mebibytes))
    }

    /// Appends reports to this file; `%p` in it is the process's id. A path of more than 255 bytes, or with a zero byte, is none.
    #[must_use]
    pub const fn log_path(self, path: &str) -> Self {
        self.log(PathBuf::new(path))
    }

    /// The file of errors that are not to be reported. A path of more than 255 bytes, or with a zero byte, is none.
    #[must_use]
    pub const fn suppressions(self, path: &str) -> Self {
        self.known(PathBuf::new(path))
    }

    /// Fills fresh and reused memory with this byte; 0 for nothing.
    #[must_use]
    pub const fn fill(self, byte: u8) -> Self {
        self.filled(Fill::new(byte))
    }

    /// Lets the allocation after so many others fail.
    #[must_use]
    pub const fn fail_after(self, count: u64) -> Self {
        self.failing(Count::new(count))
    }

    /// Checks the canaries of every live object and that freed slab memory is untouched, and reports
    /// what is wrong. Returns the number of errors when `on_error` lets the program go on.
    pub fn check(&self) -> usize {
        heap::ensure_started(&self.overrides);
        heap::check()
    }

    /// What the preloaded library does at exit: the check, the leaks and the counts if they are set. A Rust
    /// program calls it at the end of `main` if it wants it. With [`OnError::Continue`] it happens at the program's end by
    /// itself, and the exit status is `exitcode` if there were errors.
    pub fn finish(&self) {
        heap::on_exit();
    }

    /// The paths of an allocation past the shortest one.
    #[inline(never)]
    fn alloc_general(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ABI_ALIGN {
            let mut pointer = heap::try_allocate_plain(layout.size(), Origin::Rust);
            if pointer.is_null() {
                pointer = heap::try_allocate_fast(layout.size(), Origin::Rust);
            }
            if !pointer.is_null() {
                return pointer;
            }
        }
        self.alloc_slow(layout, false)
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        heap::ensure_started(&self.overrides);
        let (request, site) = (request(layout, zeroed), site());
        if !heap::sites::admit(&request, site) {
            return core::ptr::null_mut();
        }
        heap::allocate(&request, site).map_or(core::ptr::null_mut(), Addr::as_ptr)
    }
}

/// The live heap object that `pointer` points into, as the addresses of its first byte and of one past its last: so many
/// bytes as were asked for, which may be fewer than its memory has. `None` for what is freed, for one past an object's end,
/// and for memory that is not this allocator's, all of it where [`Fencepost`] is not the program's allocator. An object of no
/// bytes is found by its own pointer.
///
/// What it says holds as long as nobody frees the object.
///
/// ```
/// #[global_allocator]
/// static HEAP: fencepost::Fencepost = fencepost::Fencepost::new();
///
/// let numbers = vec![7_u32; 25];
/// let bytes = fencepost::bounds(&raw const numbers[3]).expect("a vector is in the heap");
/// assert_eq!(bytes.start, numbers.as_ptr().cast());
/// assert_eq!(bytes.end.addr() - bytes.start.addr(), 100);
/// assert_eq!(fencepost::bounds(c"not in the heap".as_ptr()), None);
/// ```
pub fn bounds<T>(pointer: *const T) -> Option<Range<*const u8>> {
    let Range { start, end } = heap::query::bounds(Addr::of(pointer))?;
    Some(start.as_ptr::<u8>().cast_const()..end.as_ptr::<u8>().cast_const())
}

/// Whether `len` bytes from `pointer` on may be accessed, as far as this allocator knows: they are one live object's, or
/// not in its memory, or none. Nothing is reported.
///
/// # Errors
/// What such an access would be reported as: [`Kind::HeapBufferOverflow`], [`Kind::HeapBufferUnderflow`],
/// [`Kind::HeapUseAfterFree`], [`Kind::UseAfterPoison`], or [`Kind::WildAccess`] where no object is near.
///
/// ```
/// use fencepost::fault::Kind;
///
/// #[global_allocator]
/// static HEAP: fencepost::Fencepost = fencepost::Fencepost::new();
///
/// let text = String::from("thirteen bytes");
/// assert_eq!(fencepost::check(text.as_ptr(), text.len()), Ok(()));
/// assert_eq!(fencepost::check(text.as_ptr(), text.len() + 1), Err(Kind::HeapBufferOverflow));
/// ```
pub fn check<T>(pointer: *const T, len: usize) -> Result<(), Kind> {
    heap::query::check(Addr::of(pointer), len).map_or(Ok(()), Err)
}

/// Says that nobody may touch `len` bytes from `pointer` on, a part or all of one live object, until [`unpoison`] says
/// otherwise or the object is freed or resized: for pools, whose free blocks the heap cannot tell from others. [`check`] knows it and, in a
/// program under the preloaded library's functions, every function of the C library that looks at bounds. In `mode=hunt` whole pages are
/// closed, so that any access stops with a report ([`Kind::UseAfterPoison`]). Each byte counts: nothing is rounded.
///
/// `None` if nothing was done: the memory is not this allocator's, or the object lies where address space is limited, or another
/// thread frees it or looks at it at this moment. What is no live object's, or goes beyond it, is reported as a misuse.
///
/// # Safety
/// Nobody uses the bytes any more: what they hold is lost.
///
/// ```
/// use fencepost::fault::Kind;
///
/// #[global_allocator]
/// static HEAP: fencepost::Fencepost = fencepost::Fencepost::new();
///
/// let mut pool = vec![0_u8; 1000];
/// // SAFETY: nobody uses these bytes.
/// unsafe { fencepost::poison(&raw const pool[100], 50) };
/// assert_eq!(fencepost::check(&raw const pool[0], 101), Err(Kind::UseAfterPoison));
/// fencepost::unpoison(&raw const pool[100], 50);
/// assert_eq!(fencepost::check(&raw const pool[0], 1000), Ok(()));
/// ```
pub unsafe fn poison<T>(pointer: *const T, len: usize) -> Option<()> {
    let done = heap::poison::change(Change::Poison, Addr::of(pointer), len, "fencepost::poison", site());
    done.then_some(())
}

/// Takes [`poison`] back for `len` bytes from `pointer` on, of which any may be poisoned. What they hold is undefined, and
/// zero where a page was closed. `None` if nothing was done: the memory is not this allocator's.
pub fn unpoison<T>(pointer: *const T, len: usize) -> Option<()> {
    let done = heap::poison::change(Change::Unpoison, Addr::of(pointer), len, "fencepost::unpoison", site());
    done.then_some(())
}

/// The paths of a free past the shortest one.
#[inline(never)]
fn dealloc_general(pointer: *mut u8, layout: Layout) {
    let claim = claim(pointer, layout);
    if !heap::try_free_plain(&claim) && !heap::try_free_fast(&claim) {
        heap::free(&claim, site());
    }
}

/// The paths of a free of what has an alignment beyond the ABI's.
#[inline(never)]
fn dealloc_aligned(pointer: *mut u8, layout: Layout) {
    let claim = claim(pointer, layout);
    if !heap::try_free_aligned(&claim) {
        heap::free(&claim, site());
    }
}

impl Default for Fencepost {
    fn default() -> Self {
        Self::new()
    }
}

const fn request(layout: Layout, zeroed: bool) -> Request {
    Request { size: layout.size(), align: layout.align(), exact: true, zeroed, origin: Origin::Rust }
}

fn claim(pointer: *mut u8, layout: Layout) -> Claim {
    let address = Addr::new(pointer.expose_provenance());
    Claim { address, size: Some(layout.size()), align: Some(layout.align()), origin: Origin::Rust }
}

/// The frame this is called in.
#[inline(always)]
fn site() -> Site {
    let (pc, fp, sp) = thread::frame();
    Site { pc, sp, fp }
}

// SAFETY: objects are live from the call that returns them to the one that frees them, aligned and
// sized as the layout says, and no two live objects overlap: the allocators' invariants. Nothing unwinds.
unsafe impl GlobalAlloc for Fencepost {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ABI_ALIGN {
            let pointer = heap::try_allocate_small(layout.size(), Origin::Rust);
            if !pointer.is_null() {
                return pointer;
            }
        }
        self.alloc_general(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if layout.align() > ABI_ALIGN {
            dealloc_aligned(pointer, layout);
        } else if !heap::try_free_small(&claim(pointer, layout)) {
            dealloc_general(pointer, layout);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ABI_ALIGN {
            let pointer = heap::try_allocate_zeroed_fast(layout.size(), Origin::Rust);
            if !pointer.is_null() {
                return pointer;
            }
        }
        self.alloc_slow(layout, true)
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let claim = claim(pointer, layout);
        if layout.align() <= ABI_ALIGN && heap::try_resize_small(&claim, new_size) {
            return pointer;
        }
        let request = Request { size: new_size, ..request(layout, false) };
        heap::resize(&claim, &request, site()).map_or(core::ptr::null_mut(), Addr::as_ptr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ROWS;

    /// Made in a constant, as a program's allocator is.
    const SET: Fencepost = Fencepost::new()
        .mode(Mode::Hunt)
        .quarantine_mb(0)
        .log_path("/tmp/log.%p")
        .suppressions("a\0b")
        .fill(7)
        .fail_after(3);

    #[test]
    fn what_the_builder_sets_is_given() {
        let options = SET.overrides.build.expect("something was set");
        assert_eq!((options.mode, options.quarantine_mb), (Mode::Hunt, Mebibytes::new(0)));
        assert_eq!(options.log_path.as_bytes(), b"/tmp/log.%p");
        assert_eq!(options.suppressions.as_bytes(), b"", "it holds a zero byte");
        assert_eq!((options.fill.byte(), options.fail_after.get()), (Some(7), Some(3)));
        let given: std::vec::Vec<&str> =
            ROWS.iter().filter(|row| (row.is_given)(&options)).map(|row| row.name).collect();
        assert_eq!(given, ["mode", "quarantine_mb", "log_path", "suppressions", "fill", "fail_after"]);
    }
}
