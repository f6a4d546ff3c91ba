//! The C library's functions around the heap: figures and parameters.
//!
//! Figures are counted on request. Slabs, and guarded objects below glibc's threshold of 128 KiB, are reported as
//! glibc's arena, and larger objects as its mapped memory. Parameters concern glibc's own heap and change nothing here.
//! They are accepted as glibc accepts them, so a program that checks for success goes on.

use crate::init;
use core::ffi::{c_char, c_int, c_void};
use core::fmt::Write;
use fencepost_core::heap::{self, Usage};
use fencepost_core::sys::{errno, file};
use fencepost_core::text::Text;

/// `struct mallinfo`.
#[repr(C)]
pub struct MallInfo([c_int; 10]);

/// `struct mallinfo2`.
#[repr(C)]
pub struct MallInfo2([usize; 10]);

/// The fields in their order: `arena`, `ordblks`, `smblks`, `hblks`, `hblkhd`, `usmblks`, `fsmblks`,
/// `uordblks`, `fordblks`, `keepcost`.
fn fields(usage: &Usage) -> [usize; 10] {
    let Usage { slab, page } = usage;
    let Arena { held, used } = Arena::of(usage);
    let free = held.saturating_sub(used);
    [held, slab.free_slots, 0, page.large.objects, page.large.held, 0, 0, used, free, slab.spare]
}

/// What glibc calls the arena.
struct Arena {
    held: usize,
    used: usize,
}

impl Arena {
    fn of(Usage { slab, page }: &Usage) -> Self {
        Self {
            held: slab.held.saturating_add(page.small.held),
            used: slab.bytes.saturating_add(page.small.bytes),
        }
    }
}

pub unsafe extern "C" fn mallinfo() -> MallInfo {
    // What does not fit is cut off, as the manual says of this function.
    MallInfo(fields(&heap::usage()).map(|value| value as c_int))
}

pub unsafe extern "C" fn mallinfo2() -> MallInfo2 {
    MallInfo2(fields(&heap::usage()))
}

/// Writes glibc's table to the standard error.
pub unsafe extern "C" fn malloc_stats() {
    let Usage { slab, page } = heap::usage();
    let mut text = Text::<2048>::new();
    let mut part = |name: &str, held: usize, used: usize| {
        let _ = writeln!(text, "{name}:\nsystem bytes     = {held:>10}\nin use bytes     = {used:>10}");
    };
    part("Slabs", slab.held, slab.bytes);
    let held = page.small.held.saturating_add(page.large.held);
    let used = page.small.bytes.saturating_add(page.large.bytes);
    part("Guarded objects", held, used);
    part("Total", slab.held.saturating_add(held), slab.bytes.saturating_add(used));
    file::write_stderr(text.as_bytes());
}

/// Writes an XML document in the manner of glibc's to a stream of the C library.
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    unsafe extern "C" {
        fn fputs(text: *const c_char, stream: *mut c_void) -> c_int;
    }
    if options != 0 {
        return libc::EINVAL;
    }
    let usage = heap::usage();
    let (Usage { slab, page }, Arena { held, used }) = (usage, Arena::of(&usage));
    let mut text = Text::<2048>::new();
    let _ = write!(
        text,
        "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n</sizes>\n\
         <total type=\"fast\" count=\"0\" size=\"0\"/>\n\
         <total type=\"rest\" count=\"{free}\" size=\"{rest}\"/>\n\
         <system type=\"current\" size=\"{held}\"/>\n<system type=\"max\" size=\"{held}\"/>\n\
         <aspace type=\"total\" size=\"{held}\"/>\n<aspace type=\"mprotect\" size=\"{held}\"/>\n</heap>\n\
         <total type=\"fast\" count=\"0\" size=\"0\"/>\n\
         <total type=\"rest\" count=\"{free}\" size=\"{rest}\"/>\n\
         <total type=\"mmap\" count=\"{mapped}\" size=\"{pages}\"/>\n\
         <system type=\"current\" size=\"{all}\"/>\n<system type=\"max\" size=\"{all}\"/>\n\
         <aspace type=\"total\" size=\"{all}\"/>\n<aspace type=\"mprotect\" size=\"{all}\"/>\n</malloc>\n\0",
        free = slab.free_slots,
        rest = held.saturating_sub(used),
        mapped = page.large.objects,
        pages = page.large.held,
        all = held.saturating_add(page.large.held),
    );
    // SAFETY: the text ends in NUL, and the caller passes a stream that is open for writing.
    match unsafe { fputs(text.as_bytes().as_ptr().cast(), stream) } {
        0.. => 0,
        _ => errno::get(),
    }
}

const M_MXFAST: c_int = 1;
/// The largest `M_MXFAST` that glibc takes on this architecture.
const MXFAST_MAX: usize = 80 * size_of::<usize>() / 4;

/// 1 for whatever glibc takes, numbers that it does not know among it; 0 for the one kind of value it refuses.
pub unsafe extern "C" fn mallopt(parameter: c_int, value: c_int) -> c_int {
    // A negative value is a large one, as for glibc.
    c_int::from(parameter != M_MXFAST || value as usize <= MXFAST_MAX)
}

/// 1 if memory was given back. The bytes to keep are those of glibc's heap: there is no such top here.
pub unsafe extern "C" fn malloc_trim(_pad: usize) -> c_int {
    init::ensure();
    c_int::from(heap::trim())
}
