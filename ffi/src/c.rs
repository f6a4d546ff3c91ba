//! The C functions: sizes, alignments and `errno` as the C library's manual has them.
//!
//! Behind the C function's own arguments, each takes the address of the return address on the stack and the caller's
//! frame pointer; see [`crate::entry`].

use crate::{fallback, init};
use core::ffi::{c_int, c_void};
use fencepost_core::addr::{ABI_ALIGN, Addr, PAGE_SIZE, round_up};
use fencepost_core::heap::poison::{Change, change};
use fencepost_core::heap::{self, Answer, Denied};
use fencepost_core::request::{Claim, Origin, Request, Site};
use fencepost_core::sys::{errno, process};

/// Where the caller's return address lies on its stack.
pub type ReturnSlot = *const usize;

/// The caller's frame.
pub fn site(at: ReturnSlot, fp: usize) -> Site {
    // SAFETY: the entry passes the stack pointer it was called with, which points at the return
    // address.
    Site { pc: unsafe { at.read() }, sp: at.addr().wrapping_add(size_of::<usize>()), fp }
}

pub fn claim(pointer: *mut c_void, size: Option<usize>, origin: Origin) -> Claim {
    Claim { address: Addr::new(pointer.expose_provenance()), size, align: None, origin }
}

fn no_memory() -> *mut c_void {
    errno::set(libc::ENOMEM);
    core::ptr::null_mut()
}

/// What the C library can still give where this heap has nothing left.
fn last_resort(request: &Request) -> *mut c_void {
    let pointer = fallback::allocate(request);
    if pointer.is_null() {
        return no_memory();
    }
    fallback::remember_refusal(request);
    pointer
}

/// The general path of every allocation; null and `ENOMEM` when there is no memory.
#[cold]
#[inline(never)]
fn allocate_slow(request: &Request, at: ReturnSlot, fp: usize) -> *mut c_void {
    if !process::stands_aside() {
        init::ensure();
    }
    if process::stands_aside() {
        let pointer = fallback::serve(request);
        return if pointer.is_null() { no_memory() } else { pointer };
    }
    if !heap::sites::admit(request, site(at, fp)) {
        return no_memory();
    }
    if fallback::is_refused(request) {
        let pointer = fallback::allocate(request);
        if !pointer.is_null() {
            return pointer;
        }
    }
    match heap::allocate(request, site(at, fp)) {
        Some(address) => address.as_ptr(),
        None => last_resort(request),
    }
}

/// The general path of every free.
#[cold]
#[inline(never)]
fn free_slow(claim: &Claim, at: ReturnSlot, fp: usize) {
    if !heap::free(claim, site(at, fp)) {
        fallback::free(claim.address.as_ptr());
    }
}

/// The paths of `malloc` past the shortest one.
pub unsafe extern "C" fn malloc(size: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    let pointer = heap::try_allocate_fast(size, Origin::Malloc);
    if pointer.is_null() { allocate_slow(&Request::c(size), at, fp) } else { pointer.cast() }
}

pub unsafe extern "C" fn calloc(count: usize, size: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return no_memory();
    };
    let mut pointer = heap::try_allocate_small(bytes, Origin::Malloc);
    if pointer.is_null() {
        pointer = heap::try_allocate_plain(bytes, Origin::Malloc);
    }
    if pointer.is_null() { calloc_otherwise(bytes, at, fp) } else { pointer.cast() }
}

#[inline(never)]
fn calloc_otherwise(bytes: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    let pointer = heap::try_allocate_zeroed_fast(bytes, Origin::Malloc);
    if !pointer.is_null() {
        return pointer.cast();
    }
    allocate_slow(&Request { zeroed: true, ..Request::c(bytes) }, at, fp)
}

/// The paths of `free` past the shortest one.
pub unsafe extern "C" fn free_general(pointer: *mut c_void, at: ReturnSlot, fp: usize) {
    free_past_shortest(&claim(pointer, None, Origin::Malloc), at, fp);
}

/// A free.
pub fn free_claim(claim: &Claim, at: ReturnSlot, fp: usize) {
    if !heap::try_free_plain(claim) {
        free_past_shortest(claim, at, fp);
    }
}

/// The paths of a free past the shortest ones.
fn free_past_shortest(claim: &Claim, at: ReturnSlot, fp: usize) {
    if !heap::try_free_fast(claim) && claim.address != Addr::NULL {
        free_slow(claim, at, fp);
    }
}

/// A free that states an alignment, in the words of the functions that take one: the ABI's at least.
pub fn free_aligned(claim: &Claim, align: usize, at: ReturnSlot, fp: usize) {
    let claim = Claim { align: Some(align.max(ABI_ALIGN)), ..*claim };
    if !heap::try_free_aligned(&claim) && claim.address != Addr::NULL {
        free_slow(&claim, at, fp);
    }
}

pub unsafe extern "C" fn free_sized(pointer: *mut c_void, size: usize, at: ReturnSlot, fp: usize) {
    let claim = claim(pointer, Some(size), Origin::Malloc);
    if !heap::try_free_small(&claim) {
        free_claim(&claim, at, fp);
    }
}

pub unsafe extern "C" fn free_aligned_sized(
    pointer: *mut c_void,
    align: usize,
    size: usize,
    at: ReturnSlot,
    fp: usize,
) {
    // As `memalign` rounds it.
    let align = align.checked_next_power_of_two().unwrap_or(align);
    free_aligned(&claim(pointer, Some(size), Origin::Malloc), align, at, fp);
}

pub unsafe extern "C" fn realloc(
    pointer: *mut c_void,
    size: usize,
    at: ReturnSlot,
    fp: usize,
) -> *mut c_void {
    if pointer.is_null() {
        let pointer = heap::try_allocate_small(size, Origin::Malloc);
        if !pointer.is_null() {
            return pointer.cast();
        }
        // SAFETY: the caller vouches for the same.
        return unsafe { malloc(size, at, fp) };
    }
    if size == 0 {
        // SAFETY: the pointer is not null, and an object that the caller gives up, as `realloc` with size 0
        // says.
        unsafe { free_general(pointer, at, fp) };
        return core::ptr::null_mut();
    }
    let claim = claim(pointer, None, Origin::Malloc);
    if heap::try_resize_small(&claim, size) {
        return pointer;
    }
    match heap::resize(&claim, &Request::c(size), site(at, fp)) {
        Ok(address) => address.as_ptr(),
        Err(Denied::Foreign) => fallback::realloc(pointer, size),
        Err(Denied::Refused) => no_memory(),
        Err(Denied::NoMemory) => move_out(pointer, size, at, fp),
    }
}

/// Moves an object that this heap cannot resize to the C library's.
#[cold]
fn move_out(pointer: *mut c_void, size: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    let Some(old_size) = heap::size_of(Addr::new(pointer.expose_provenance())) else {
        return no_memory();
    };
    let new = last_resort(&Request::c(size));
    if !new.is_null() {
        // SAFETY: the old object is live and the caller's, the new one fresh; both have that many bytes.
        unsafe { new.cast::<u8>().copy_from_nonoverlapping(pointer.cast::<u8>(), old_size.min(size)) };
        // SAFETY: as the caller of `realloc` vouches.
        unsafe { free_general(pointer, at, fp) };
    }
    new
}

pub unsafe extern "C" fn reallocarray(
    pointer: *mut c_void,
    count: usize,
    size: usize,
    at: ReturnSlot,
    fp: usize,
) -> *mut c_void {
    if let Some(answer) = fallback::reallocarray(pointer, count, size) {
        return answer;
    }
    match count.checked_mul(size) {
        // SAFETY: the caller vouches for the same.
        Some(bytes) => unsafe { realloc(pointer, bytes, at, fp) },
        None => no_memory(),
    }
}

/// Like glibc's: an alignment that is no power of two is rounded up to one.
pub unsafe extern "C" fn memalign(align: usize, size: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    let Some(align) = align.checked_next_power_of_two() else {
        errno::set(libc::EINVAL);
        return core::ptr::null_mut();
    };
    let request = Request { align: align.max(ABI_ALIGN), exact: true, ..Request::c(size) };
    allocate_slow(&request, at, fp)
}

pub unsafe extern "C" fn posix_memalign(
    result: *mut *mut c_void,
    align: usize,
    size: usize,
    at: ReturnSlot,
    fp: usize,
) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<usize>()) {
        return libc::EINVAL;
    }
    let request = Request { align: align.max(ABI_ALIGN), exact: true, ..Request::c(size) };
    let pointer = allocate_slow(&request, at, fp);
    if pointer.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller passes a place for the result.
    unsafe { result.write(pointer) };
    0
}

pub unsafe extern "C" fn valloc(size: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    allocate_slow(&Request { align: PAGE_SIZE, exact: true, ..Request::c(size) }, at, fp)
}

pub unsafe extern "C" fn pvalloc(size: usize, at: ReturnSlot, fp: usize) -> *mut c_void {
    match round_up(size, PAGE_SIZE) {
        Some(size) => allocate_slow(&Request { align: PAGE_SIZE, exact: true, ..Request::c(size) }, at, fp),
        None => no_memory(),
    }
}

/// Poisons a range; see `include/fencepost.h`.
pub unsafe extern "C" fn poison(pointer: *const c_void, size: usize, at: ReturnSlot, fp: usize) -> c_int {
    let site = site(at, fp);
    c_int::from(change(Change::Poison, Addr::of(pointer), size, "fencepost_poison", site))
}

/// Takes that back.
pub unsafe extern "C" fn unpoison(pointer: *const c_void, size: usize, at: ReturnSlot, fp: usize) -> c_int {
    let site = site(at, fp);
    c_int::from(change(Change::Unpoison, Addr::of(pointer), size, "fencepost_unpoison", site))
}

/// Exactly the requested size: all bytes up to it may be used. Of the C library's own objects, what it says.
pub unsafe extern "C" fn malloc_usable_size(pointer: *mut c_void, at: ReturnSlot, fp: usize) -> usize {
    let address = Addr::new(pointer.expose_provenance());
    match heap::ask_size(address, "malloc_usable_size", site(at, fp)) {
        Answer::Size(size) => size,
        Answer::Nothing => 0,
        Answer::Foreign => fallback::usable_size(pointer),
    }
}
