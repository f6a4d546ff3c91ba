//! `pthread_create`: a thread inherits the signals that its maker blocks in name.
//!
//! SIGSEGV and SIGBUS are blocked in name only: a signal that stands for them is blocked in the kernel's mask, which a new
//! thread inherits, and a word of the thread's says what it stands for, which is not inherited (`sys::action`). So a thread
//! that has such a word makes threads in three steps:
//!
//! | step | by | the two signals in the new thread |
//! |---|---|---|
//! | they are blocked for the kernel, and not what stands for them | the maker | |
//! | the C library makes the thread, with that mask or the one of its attributes | the maker | blocked |
//! | the maker has its own mask back | the maker | the same |
//! | they are taken out of the kernel's mask, and blocked in name | the thread, before the program's function | blocked in name |
//!
//! Between the steps a signal that is sent waits. No thread waits for another: the function and its argument lie in an object
//! that the new thread frees. Without memory for that object, the signals stay blocked in the thread for the kernel.

use crate::real::{self, Name};
use core::ffi::{c_int, c_void};
use fencepost_core::sys::{action, process};
use libc::{pthread_attr_t, pthread_t};

/// A thread's function.
type Start = extern "C" fn(*mut c_void) -> *mut c_void;

/// What a thread is to call.
#[repr(C)]
struct Call {
    start: Start,
    argument: *mut c_void,
}

type Create =
    unsafe extern "C" fn(*mut pthread_t, *const pthread_attr_t, *const c_void, *mut c_void) -> c_int;

/// `pthread_create`; the thread blocks in name what its maker does.
///
/// # Safety
/// As the C library's manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let create = real::address(Name::CreateThread);
    if create.is_null() {
        return libc::EAGAIN;
    }
    // SAFETY: the C library's function of this name has this type, but for the type of the thread's function.
    let create = unsafe { core::mem::transmute::<*mut c_void, Create>(create) };
    let call = match action::blocks_in_name() && !process::borrows_memory() {
        true => call(start, argument),
        false => core::ptr::null_mut(),
    };
    if call.is_null() {
        // SAFETY: the caller vouches for the same.
        return unsafe { create(thread, attributes, start as *const c_void, argument) };
    }
    let before = action::block_in_kernel();
    // SAFETY: the caller vouches for all but the function and its argument: `begin` takes a call, which is its own.
    let status = unsafe { create(thread, attributes, begin as *const c_void, call.cast()) };
    if let Some(before) = before {
        action::set_mask(before);
    }
    if status != 0 {
        // SAFETY: there is no thread that would do so.
        unsafe { libc::free(call.cast()) };
    }
    status
}

/// An object that says what a thread is to call; null without memory.
fn call(start: Start, argument: *mut c_void) -> *mut Call {
    // SAFETY: takes a number.
    let call = unsafe { libc::malloc(size_of::<Call>()) }.cast::<Call>();
    if !call.is_null() {
        // SAFETY: new, large enough and aligned.
        unsafe { call.write(Call { start, argument }) };
    }
    call
}

/// Where such a thread begins: it goes on in the program's function, which returns to the C library.
#[unsafe(naked)]
extern "C" fn begin(call: *mut c_void) -> *mut c_void {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {take}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "mov rdi, rdx",
        "jmp rax",
        ".cfi_endproc",
        take = sym take,
    )
}

/// Blocks in name what the kernel was told to, and gives the object back.
///
/// # Safety
/// `call` was made by [`call`], and nobody else has it.
unsafe extern "C" fn take(call: *mut Call) -> Call {
    action::unblock_faults();
    // SAFETY: as the caller says.
    let taken = unsafe { call.read() };
    // SAFETY: the C library's `malloc` made the object, this thread alone has it, and what it held was just
    // copied out.
    unsafe { libc::free(call.cast()) };
    taken
}
