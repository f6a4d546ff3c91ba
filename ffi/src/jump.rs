//! `longjmp` as programs call it that are built with `_FORTIFY_SOURCE`.
//!
//! The C library's `__longjmp_chk` ends a program that jumps further down its stack, unless the kernel says that the
//! thread is on its alternate stack, which may lie above. It asks by a system call, and the kernel answers for this
//! library's stack. So a handler on the program's own stack would be ended. In that case the jump is made without the
//! check.

use crate::real;
use core::ffi::c_int;
use core::ffi::c_void;
use fencepost_core::sys::stacks;

/// The C library's function, null to jump without a check.
extern "C" fn target() -> *mut c_void {
    match stacks::on_programs() {
        true => core::ptr::null_mut(),
        // Known since the library was loaded: programs jump out of signal handlers.
        false => real::address(real::Name::LongJump),
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
