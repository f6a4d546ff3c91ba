//! The C allocation functions, forwarded to the peer that a cargo feature chooses.
//!
//! The crates build static libraries for a `GlobalAlloc`, whose symbols a shared library made by cargo does not export.
//! Each function here is one jump to the peer's function of the same meaning, so that `LD_PRELOAD` puts whole programs
//! under it. What is not forwarded (`mallopt`, `malloc_trim`, `mallinfo`) stays the libc's and sees no object.

// Without std, so that the library needs libgcc_s no more than the peer does.
#![cfg_attr(not(test), no_std)]

#[cfg(feature = "hardened-malloc")]
use hardened_malloc as _;
#[cfg(feature = "mimalloc-secure")]
use mimalloc as _;
#[cfg(feature = "snmalloc-check")]
use snmalloc_rs as _;

/// Nothing here panics.
#[cfg(not(test))]
#[panic_handler]
fn never(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// One line a function: its signature, then its names in mimalloc, snmalloc and hardened_malloc, which is built with
/// `H_MALLOC_PREFIX`.
#[cfg(any(feature = "mimalloc-secure", feature = "snmalloc-check", feature = "hardened-malloc"))]
macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)? = $mimalloc:ident $snmalloc:ident $hardened:ident;)+) => {
        unsafe extern "C" {
            $(
                #[cfg(feature = "mimalloc-secure")]
                fn $mimalloc($($argument: $type),+) $(-> $result)?;
                #[cfg(feature = "snmalloc-check")]
                fn $snmalloc($($argument: $type),+) $(-> $result)?;
                #[cfg(feature = "hardened-malloc")]
                fn $hardened($($argument: $type),+) $(-> $result)?;
            )+
        }
        $(
            /// # Safety
            ///
            /// What C says of the function of this name.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),+) $(-> $result)? {
                #[cfg(feature = "mimalloc-secure")]
                let function = $mimalloc;
                #[cfg(feature = "snmalloc-check")]
                let function = $snmalloc;
                #[cfg(feature = "hardened-malloc")]
                let function = $hardened;
                // SAFETY: the peer's function has this C signature and the meaning that C gives the name, so the
                // caller's promise is the one it asks for.
                unsafe { function($($argument),+) }
            }
        )+
    };
}

#[cfg(any(feature = "mimalloc-secure", feature = "snmalloc-check", feature = "hardened-malloc"))]
mod exports {
    #[link(name = "c")]
    unsafe extern "C" {}

    use core::ffi::{c_int, c_void};

    forward! {
        malloc(size: usize) -> *mut c_void = mi_malloc sn_malloc h_malloc;
        free(object: *mut c_void) = mi_free sn_free h_free;
        calloc(count: usize, size: usize) -> *mut c_void = mi_calloc sn_calloc h_calloc;
        realloc(object: *mut c_void, size: usize) -> *mut c_void = mi_realloc sn_realloc h_realloc;
        aligned_alloc(align: usize, size: usize) -> *mut c_void
            = mi_aligned_alloc sn_aligned_alloc h_aligned_alloc;
        memalign(align: usize, size: usize) -> *mut c_void = mi_memalign sn_memalign h_memalign;
        posix_memalign(result: *mut *mut c_void, align: usize, size: usize) -> c_int
            = mi_posix_memalign sn_posix_memalign h_posix_memalign;
        valloc(size: usize) -> *mut c_void = mi_valloc sn_valloc h_valloc;
        pvalloc(size: usize) -> *mut c_void = mi_pvalloc sn_pvalloc h_pvalloc;
        malloc_usable_size(object: *mut c_void) -> usize
            = mi_malloc_usable_size sn_malloc_usable_size h_malloc_usable_size;
    }

    /// Not every peer has one.
    ///
    /// # Safety
    ///
    /// What C says of the function of this name.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn reallocarray(object: *mut c_void, count: usize, size: usize) -> *mut c_void {
        // An overflow asks for more than there is, which fails as it should.
        // SAFETY: the caller's object is passed on, and a failed call leaves it as it was.
        unsafe { realloc(object, count.saturating_mul(size)) }
    }
}
