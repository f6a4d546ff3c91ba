//! The C library's own allocator: for pointers that are its own, and for requests that this heap has no address space
//! or no permission left to serve. The program must not get less memory than without this library.
//!
//! Such objects have no protection. The library says so once. From then on a pointer that this heap does not know is
//! left to the C library. With `foreign=ignore` it is ignored, and a static program has no second allocator. A library
//! that was opened in a running process finds objects of the C library as well.
//!
//! In a program that is exempt (`exempt=`) every object is the C library's, and nothing is said.

use crate::real::{self, Name};
use crate::{init, replaced};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use fencepost_core::addr::ABI_ALIGN;
use fencepost_core::heap;
use fencepost_core::request::Request;
use fencepost_core::sys::{errno::ErrnoGuard, file};

/// Whether it was said that there are unprotected objects.
static SAID: AtomicBool = AtomicBool::new(false);

/// A function of the C library by its type; `None` if it has none of the name.
macro_rules! real {
    ($which:ident, $type:ty) => {{
        let address = real::address(Name::$which);
        // SAFETY: the C library's function of this name has this type.
        (!address.is_null()).then(|| unsafe { core::mem::transmute::<*mut c_void, $type>(address) })
    }};
}

/// The C library's `free`, for a pointer that is its own.
pub fn free(pointer: *mut c_void) {
    if let Some(free) = real!(Free, unsafe extern "C" fn(*mut c_void)) {
        // SAFETY: the caller found that the pointer is not this allocator's.
        unsafe { free(pointer) };
    }
}

/// The C library's `realloc`, for a pointer that is its own.
pub fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    match real!(Realloc, unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void) {
        // SAFETY: the caller found that the pointer is not this allocator's, so it is the C library's.
        Some(realloc) => unsafe { realloc(pointer, size) },
        None => core::ptr::null_mut(),
    }
}

/// The C library's `reallocarray`, which calls the `realloc` that stands before this library; `None` where none does, and
/// the object is one of this library's.
pub fn reallocarray(pointer: *mut c_void, count: usize, size: usize) -> Option<*mut c_void> {
    if !replaced::allocator() {
        return None;
    }
    let reallocarray = real!(ReallocArray, unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void)?;
    // SAFETY: the pointer is null or an object of the allocator whose `realloc` is called.
    Some(unsafe { reallocarray(pointer, count, size) })
}

/// The C library's `malloc_usable_size`, for a pointer that is its own.
pub fn usable_size(pointer: *mut c_void) -> usize {
    match real!(UsableSize, unsafe extern "C" fn(*mut c_void) -> usize) {
        // SAFETY: the caller found that the pointer is not this allocator's, so it is the C library's.
        Some(size) => unsafe { size(pointer) },
        None => 0,
    }
}

/// The size that the heap refused last, and how many requests of that size and above it is not asked for: a search of
/// the kernel's for room that is not there takes long.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static UNASKED: AtomicU32 = AtomicU32::new(0);
const UNASKED_AFTER_REFUSAL: u32 = 64;

/// Whether the heap refused this size moments ago.
pub fn is_refused(request: &Request) -> bool {
    let left = UNASKED.load(Ordering::Relaxed);
    if left == 0 || request.size < REFUSED.load(Ordering::Relaxed) {
        return false;
    }
    UNASKED.store(left - 1, Ordering::Relaxed);
    true
}

/// Says that the heap refused a request that the C library served.
pub fn remember_refusal(request: &Request) {
    REFUSED.store(request.size, Ordering::Relaxed);
    UNASKED.store(UNASKED_AFTER_REFUSAL, Ordering::Relaxed);
}

/// An object of the C library's own for a request that the heap could not serve; null if it cannot either.
pub fn allocate(request: &Request) -> *mut c_void {
    let _errno = ErrnoGuard::new();
    // What the kernel refuses as a mapping the C library would go on to ask for in other ways.
    let possible = request.size <= isize::MAX.cast_unsigned() && heap::is_granted(request);
    if !heap::may_ask_libc() || !possible {
        return core::ptr::null_mut();
    }
    if !SAID.load(Ordering::Relaxed) {
        keep_one_arena();
    }
    let pointer = serve(request);
    if !pointer.is_null() {
        heap::expect_libc_objects();
        say_unprotected();
    }
    pointer
}

/// An object of the C library's own; null if it has none to give.
pub fn serve(request: &Request) -> *mut c_void {
    if request.align > ABI_ALIGN {
        match real!(Memalign, unsafe extern "C" fn(usize, usize) -> *mut c_void) {
            // SAFETY: takes numbers.
            Some(memalign) => unsafe { memalign(request.align, request.size) },
            None => core::ptr::null_mut(),
        }
    } else if request.zeroed {
        match real!(Calloc, unsafe extern "C" fn(usize, usize) -> *mut c_void) {
            // SAFETY: takes numbers.
            Some(calloc) => unsafe { calloc(1, request.size) },
            None => core::ptr::null_mut(),
        }
    } else {
        match real!(Malloc, unsafe extern "C" fn(usize) -> *mut c_void) {
            // SAFETY: takes a number.
            Some(malloc) => unsafe { malloc(request.size) },
            None => core::ptr::null_mut(),
        }
    }
}

/// Has the C library serve all threads from one arena: another one reserves 64 MiB of address space, and there
/// is not enough.
fn keep_one_arena() {
    /// `M_ARENA_MAX`.
    const ARENA_MAX: c_int = -8;
    let address = init::next(c"mallopt");
    if !address.is_null() {
        // SAFETY: the C library's function of this name takes two numbers.
        let mallopt = unsafe {
            core::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, c_int) -> c_int>(address)
        };
        // SAFETY: `mallopt` takes any two numbers; this parameter is one of the C library's.
        unsafe { mallopt(ARENA_MAX, 1) };
    }
}

/// Looks whether the C library's allocator was in use before this library was there.
pub fn look_for_earlier_objects() {
    /// The beginning of `struct mallinfo2`: what is mapped for small objects, three counts, what is mapped for
    /// large ones.
    #[repr(C)]
    struct Figures([usize; 10]);
    let address = init::next(c"mallinfo2");
    if address.is_null() {
        return;
    }
    // SAFETY: the C library's function of this name takes nothing and returns ten numbers.
    let figures = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> Figures>(address) };
    // SAFETY: `mallinfo2` takes nothing and returns its figures by value.
    let Figures([arena, _, _, _, mapped, ..]) = unsafe { figures() };
    if arena != 0 || mapped != 0 {
        heap::expect_libc_objects();
    }
}

/// Says once that there are unprotected objects.
fn say_unprotected() {
    if !SAID.swap(true, Ordering::Relaxed) {
        file::write_stderr(
            b"fencepost: the heap can get no more address space: further objects are the C library's, without protection\n",
        );
    }
}
