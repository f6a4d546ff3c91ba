//! `longjmp` as programs call it that are built with `_FORTIFY_SOURCE`.
//!
//! The C library's `__longjmp_chk` ends a program that jumps further down its stack, unless the kernel says that the thread
//! is on its alternate stack, which may lie above. The kernel is asked by a system call and speaks of this library's stack;
//! a handler on the program's would be ended. There the jump is made without the question.

use core::ffi::c_int;
use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, Ordering};
use fencepost_core::addr::{Addr, PAGE_SIZE, PageCount, Span};
use fencepost_core::sys::{stacks, vm};

/// A page of its own, which is read-only once the address is known: it is called.
#[repr(C, align(4096))]
struct Sealed {
    address: AtomicPtr<c_void>,
    rest: [u8; PAGE_SIZE - 8],
}

const _: () = assert!(size_of::<Sealed>() == PAGE_SIZE && align_of::<Sealed>() == PAGE_SIZE);

static REAL: Sealed = Sealed { address: AtomicPtr::new(core::ptr::null_mut()), rest: [0; PAGE_SIZE - 8] };

/// Looks the function up while that is safe: programs jump out of signal handlers.
pub fn look_up() {
    let page = Span::new(Addr::of(&raw const REAL), PageCount::new(1));
    REAL.address.store(crate::init::next(c"__longjmp_chk"), Ordering::Relaxed);
    vm::seal(page);
}

/// The C library's function, null to jump without a check.
extern "C" fn target() -> *mut c_void {
    match stacks::on_programs() {
        true => core::ptr::null_mut(),
        false => REAL.address.load(Ordering::Relaxed),
    }
}

unsafe extern "C" {
    fn siglongjmp(environment: *mut c_void, value: c_int) -> !;
}

/// `longjmp` with the C library's check where that holds.
///
/// # Safety
/// As the C library's manual says of `longjmp`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __longjmp_chk(environment: *mut c_void, value: c_int) -> ! {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {target}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jz 2f",
        "jmp rax",
        "2:",
        "jmp [rip + {plain}@GOTPCREL]",
        target = sym target,
        plain = sym siglongjmp,
    )
}
