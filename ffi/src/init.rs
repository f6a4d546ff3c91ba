//! What runs when the library is loaded and when the process ends.

use crate::{fallback, replaced};
use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char, c_int, c_void};
use fencepost_core::addr::Addr;
use fencepost_core::fault::Kind;
use fencepost_core::heap::{self, Overrides};
use fencepost_core::sys::errno::ErrnoGuard;

// The program may define `const char *fencepost_options`; weak, so that it need not.
global_asm!(".weak fencepost_options");

/// Sets the heap up unless it is.
#[inline]
pub fn ensure() {
    if !heap::start::is_started() {
        start();
    }
}

/// What is overridden takes room that callers on small stacks do not have.
#[cold]
#[inline(never)]
fn start() {
    heap::ensure_started(&Overrides {
        text: program_options(),
        build: None,
        mixed_runtimes: Some(crate::runtimes::are_mixed),
        // A static program has no other allocator.
        may_stand_aside: cfg!(target_env = "gnu"),
    });
}

/// What the program's symbol says, empty if it has none.
fn program_options() -> &'static [u8] {
    let symbol: *const *const c_char;
    // SAFETY: loads the symbol's address, or null, from the global offset table.
    unsafe {
        asm!("mov {symbol}, qword ptr [rip + fencepost_options@GOTPCREL]", symbol = out(reg) symbol, options(nostack, preserves_flags, readonly));
    }
    if symbol.is_null() {
        return &[];
    }
    // SAFETY: a program that defines the symbol defines it as a pointer to a string.
    let text = unsafe { symbol.read() };
    if text.is_null() {
        return &[];
    }
    // SAFETY: the program's pointer is not null, and leads to a string that lives as long as the program.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

extern "C" fn on_load() {
    // The program finds errno as the loader left it.
    let _errno = ErrnoGuard::new();
    ensure();
    #[cfg(target_env = "gnu")]
    crate::intercept::look_up();
    fallback::look_for_earlier_objects();
    replaced::look_up();
    #[cfg(target_env = "gnu")]
    crate::deepbind::look_at_environment();
}

extern "C" fn on_unload() {
    heap::on_exit();
}

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

#[used]
#[unsafe(link_section = ".fini_array")]
static ON_UNLOAD: extern "C" fn() = on_unload;

/// The next definition of a C function after this library's, null if there is none.
pub fn next(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string; RTLD_NEXT asks for definitions after this object's.
    loader_symbol().map_or(core::ptr::null_mut(), |symbol| unsafe { symbol(libc::RTLD_NEXT, name.as_ptr()) })
}

/// A function of `dlsym`'s type.
pub type Symbol = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// The loader's own `dlsym`: this library has one of the name. It is asked for by the version that it has had since there
/// are versions, with a function that this library does not replace.
#[cfg(target_env = "gnu")]
pub fn loader_symbol() -> Option<Symbol> {
    unsafe extern "C" {
        fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
    }
    // SAFETY: names are C strings; RTLD_NEXT asks for definitions after this object's.
    let found = unsafe { dlvsym(libc::RTLD_NEXT, c"dlsym".as_ptr(), c"GLIBC_2.2.5".as_ptr()) };
    // SAFETY: the loader's function of this name has this type.
    (!found.is_null()).then(|| unsafe { core::mem::transmute::<*mut c_void, Symbol>(found) })
}

/// A static program has no next definition, and asking would allocate.
#[cfg(not(target_env = "gnu"))]
pub fn loader_symbol() -> Option<Symbol> {
    None
}

/// Checks every live object's surroundings and all freed slab memory; reports what is wrong. The
/// number of errors found.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_check() -> c_int {
    ensure();
    c_int::try_from(heap::check()).unwrap_or(c_int::MAX)
}

/// Lists what is allocated and what of it nothing points at any more, as `leaks=1` does at exit. The number
/// of objects that are lost.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_check_leaks() -> c_int {
    ensure();
    c_int::try_from(heap::check_leaks()).unwrap_or(c_int::MAX)
}

/// The live object that `pointer` points into: 1, with its first byte and its size where the arguments are not null; 0
/// without one.
///
/// # Safety
/// `start` and `size` are null or places for the answers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fencepost_bounds(
    pointer: *const c_void,
    start: *mut *mut c_void,
    size: *mut usize,
) -> c_int {
    let Some(bounds) = heap::query::bounds(Addr::of(pointer)) else { return 0 };
    if !start.is_null() {
        // SAFETY: the caller passes a place for it.
        unsafe { start.write(bounds.start.as_ptr()) };
    }
    if !size.is_null() {
        // SAFETY: the pointer is not null, so the caller passed a place for a size.
        unsafe { size.write(bounds.end.get() - bounds.start.get()) };
    }
    1
}

/// What an access to `size` bytes from `pointer` on would be, by the numbers of `include/fencepost.h`.
#[unsafe(no_mangle)]
pub extern "C" fn fencepost_check_range(pointer: *const c_void, size: usize) -> c_int {
    match heap::query::check(Addr::of(pointer), size) {
        None => 0,
        Some(Kind::HeapBufferOverflow) => 1,
        Some(Kind::HeapBufferUnderflow) => 2,
        Some(Kind::HeapUseAfterFree) => 3,
        Some(Kind::UseAfterPoison) => 5,
        Some(_) => 4,
    }
}
