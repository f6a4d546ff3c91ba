//! The C library's functions that execute programs: an executed program begins with the signals ignored and blocked that the
//! program ignores and blocks (`sys::handover`).
//!
//! Where there is nothing to be told to the kernel, which is nearly always, the call is passed on by a jump. Functions that take
//! the arguments one by one (`execl`) have them put in a row on the stack, where those beyond the sixth lie anyway, and go on as those that
//! take an array. All of them may be called in a child of `vfork`.

use crate::real::{self, Name};
use core::ffi::{c_char, c_int, c_void};
use fencepost_core::sys::errno;
use fencepost_core::sys::handover::{self, Handover};

/// Strings, up to a null pointer.
type Strings = *const *const c_char;

/// What there is to call: the C library's function, or this library's `slow` where the kernel is to be told something.
extern "C" fn choose(name: usize, slow: *const c_void) -> *const c_void {
    if handover::is_needed() {
        return slow;
    }
    let found = ALL.get(name).map_or(core::ptr::null_mut(), |name| real::address(*name));
    if found.is_null() { missing as *const c_void } else { found }
}

/// For functions that the C library does not have.
extern "C" fn missing() -> c_int {
    errno::set(libc::ENOSYS);
    -1
}

/// By the numbers that the functions below pass.
const ALL: [Name; 10] = [
    Name::ExecuteInEnvironment,
    Name::Execute,
    Name::ExecuteByPath,
    Name::ExecuteByPathInEnvironment,
    Name::ExecuteFile,
    Name::ExecuteAt,
    Name::Spawn,
    Name::SpawnByPath,
    Name::System,
    Name::OpenPipe,
];

macro_rules! executes {
    ($($number:literal $name:ident($($argument:ident: $type:ty),*) -> $result:ty, $missing:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, with what is ignored and blocked handed over.")]
            ///
            /// # Safety
            /// As the C library's manual says.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                extern "C" fn slow($($argument: $type),*) -> $result {
                    let found = ALL.get($number).map_or(core::ptr::null_mut(), |name| real::address(*name));
                    if found.is_null() {
                        errno::set(libc::ENOSYS);
                        return $missing;
                    }
                    // SAFETY: the C library's function of this name has this type.
                    let call = unsafe {
                        core::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(found)
                    };
                    let _handover = Handover::begin();
                    // SAFETY: the caller of the function that goes on here vouches for its arguments.
                    unsafe { call($($argument),*) }
                }
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rdi",
                    "push rsi",
                    "push rdx",
                    "push rcx",
                    "push r8",
                    "push r9",
                    "sub rsp, 8",
                    ".cfi_adjust_cfa_offset 56",
                    "mov edi, {number}",
                    "lea rsi, [rip + {slow}]",
                    "call {choose}",
                    "add rsp, 8",
                    "pop r9",
                    "pop r8",
                    "pop rcx",
                    "pop rdx",
                    "pop rsi",
                    "pop rdi",
                    ".cfi_adjust_cfa_offset -56",
                    "jmp rax",
                    ".cfi_endproc",
                    number = const $number,
                    slow = sym slow,
                    choose = sym choose,
                )
            }
        )*
    };
}

executes! {
    0 execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int, -1;
    1 execv(path: *const c_char, arguments: Strings) -> c_int, -1;
    2 execvp(file: *const c_char, arguments: Strings) -> c_int, -1;
    3 execvpe(file: *const c_char, arguments: Strings, environment: Strings) -> c_int, -1;
    4 fexecve(file: c_int, arguments: Strings, environment: Strings) -> c_int, -1;
    5 execveat(directory: c_int, path: *const c_char, arguments: Strings, environment: Strings, flags: c_int) -> c_int, -1;
    6 posix_spawn(process: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int, libc::ENOSYS;
    7 posix_spawnp(process: *mut c_int, file: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int, libc::ENOSYS;
    8 system(command: *const c_char) -> c_int, -1;
    9 popen(command: *const c_char, mode: *const c_char) -> *mut c_void, core::ptr::null_mut();
}

/// `execle`: the environment comes behind the null pointer that ends the arguments.
unsafe extern "C" fn execute_list_in_environment(path: *const c_char, arguments: Strings) -> c_int {
    let mut next = arguments;
    // SAFETY: the caller of `execle` passes strings, a null pointer and an environment, which lie in a row.
    let environment = unsafe {
        while !next.read().is_null() {
            next = next.add(1);
        }
        next.add(1).cast::<Strings>().read()
    };
    // SAFETY: the caller of `execle` vouches for the path and for what lies in the row.
    unsafe { execve(path, arguments, environment) }
}

macro_rules! lists {
    ($($name:ident, $target:path;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`: further arguments follow, up to a null pointer.")]
            ///
            /// # Safety
            /// As the C library's manual says.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name(path: *const c_char, first: *const c_char) -> c_int {
                // The return address makes room for the arguments in registers, below those that lie on the stack.
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "pop r11",
                    ".cfi_adjust_cfa_offset -8",
                    ".cfi_register rip, r11",
                    "push r9",
                    "push r8",
                    "push rcx",
                    "push rdx",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 40",
                    "mov rsi, rsp",
                    "push r11",
                    ".cfi_adjust_cfa_offset 8",
                    ".cfi_offset rip, -48",
                    "call {target}",
                    "pop r11",
                    ".cfi_adjust_cfa_offset -8",
                    ".cfi_register rip, r11",
                    "add rsp, 40",
                    ".cfi_adjust_cfa_offset -40",
                    "push r11",
                    ".cfi_adjust_cfa_offset 8",
                    ".cfi_offset rip, -8",
                    "ret",
                    ".cfi_endproc",
                    target = sym $target,
                )
            }
        )*
    };
}

lists! {
    execl, execv;
    execlp, execvp;
    execle, execute_list_in_environment;
}
