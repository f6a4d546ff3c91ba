//! The two doors to an allocator: Rust's `GlobalAlloc` and the C ABI.

use std::alloc::Layout;

#[cfg(feature = "heap-fencepost")]
#[global_allocator]
static HEAP: fencepost::Fencepost = fencepost::Fencepost::new();

#[cfg(any(feature = "heap-mimalloc", feature = "heap-mimalloc-secure"))]
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "heap-jemalloc")]
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(any(feature = "heap-snmalloc", feature = "heap-snmalloc-check"))]
#[global_allocator]
static HEAP: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

#[cfg(feature = "heap-hardened-malloc")]
#[global_allocator]
static HEAP: hardened_malloc::HardenedMalloc = hardened_malloc::HardenedMalloc;

#[cfg(feature = "heap-scudo")]
#[global_allocator]
static HEAP: scudo::GlobalScudoAllocator = scudo::GlobalScudoAllocator;

#[cfg(feature = "heap-compatmalloc")]
#[global_allocator]
static HEAP: compatmalloc::CompatMalloc = compatmalloc::CompatMalloc;

/// Four operations, named by type, so that every workload is compiled once for each door and calls it directly.
///
/// # Safety
///
/// - `size` is not zero and `align` is a power of two; `size` rounded up to `align` does not overflow.
/// - `release` and `resize` get a pointer that the same door returned for exactly this size and alignment, once.
pub unsafe trait Api: Sync + 'static {
    /// Uninitialised memory, or null.
    unsafe fn acquire(size: usize, align: usize) -> *mut u8;
    /// Zeroed memory, or null.
    unsafe fn zeroed(size: usize) -> *mut u8;
    /// `pointer`'s object with a new size (alignment 16), or null.
    unsafe fn resize(pointer: *mut u8, old: usize, new: usize) -> *mut u8;
    /// Gives the object back.
    unsafe fn release(pointer: *mut u8, size: usize, align: usize);
}

/// The alignment asked for where a workload names none: what C promises.
pub const PLAIN: usize = 16;

/// `std::alloc`, and so the static above.
pub struct Rust;

/// # Safety
///
/// As [`Api`] says of `size` and `align`.
#[inline(always)]
unsafe fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

// SAFETY: every method passes the caller's obligations on to `std::alloc` unchanged.
unsafe impl Api for Rust {
    #[inline(always)]
    unsafe fn acquire(size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that is not zero.
        unsafe { std::alloc::alloc(layout(size, align)) }
    }

    #[inline(always)]
    unsafe fn zeroed(size: usize) -> *mut u8 {
        // SAFETY: as in `acquire`.
        unsafe { std::alloc::alloc_zeroed(layout(size, PLAIN)) }
    }

    #[inline(always)]
    unsafe fn resize(pointer: *mut u8, old: usize, new: usize) -> *mut u8 {
        // SAFETY: the caller hands back its own live object with the layout it was made with.
        unsafe { std::alloc::realloc(pointer, layout(old, PLAIN), new) }
    }

    #[inline(always)]
    unsafe fn release(pointer: *mut u8, size: usize, align: usize) {
        // SAFETY: as in `resize`, and the caller does not use the object again.
        unsafe { std::alloc::dealloc(pointer, layout(size, align)) }
    }
}

/// `malloc`, `calloc`, `realloc`, `aligned_alloc`, `free`.
pub struct C;

// SAFETY: the C functions ask for less than the trait's contract gives.
unsafe impl Api for C {
    #[inline(always)]
    unsafe fn acquire(size: usize, align: usize) -> *mut u8 {
        // SAFETY: any size may be asked for; `align` is a power of two.
        unsafe {
            if align <= PLAIN { libc::malloc(size).cast() } else { libc::aligned_alloc(align, size).cast() }
        }
    }

    #[inline(always)]
    unsafe fn zeroed(size: usize) -> *mut u8 {
        // SAFETY: any size may be asked for.
        unsafe { libc::calloc(1, size).cast() }
    }

    #[inline(always)]
    unsafe fn resize(pointer: *mut u8, _old: usize, new: usize) -> *mut u8 {
        // SAFETY: the caller hands back its own live object.
        unsafe { libc::realloc(pointer.cast(), new).cast() }
    }

    #[inline(always)]
    unsafe fn release(pointer: *mut u8, _size: usize, _align: usize) {
        // SAFETY: as in `resize`, and the caller does not use the object again.
        unsafe { libc::free(pointer.cast()) }
    }
}
