//! How the shared library is linked.
//!
//! - It stays: a `dlclose` leaves it mapped. Threads that end, forks and signals call it long after whoever opened it has
//!   closed it.
//! - It alone defines the functions of the C library that are intercepted. Their symbols are made in an object of their
//!   own that goes into the shared library and not into the static one, by names with an empty version (`memcpy@`), which
//!   the linker exports as they are, and which no reference of the library's own leads to. What the compiler makes calls of
//!   is led elsewhere (`--wrap`), or the loader would lead it to this library's own definition.
//! - It makes system calls itself. A program may have functions of its own that are called `mmap` or `syscall`: C knows no
//!   such names, and the C library's own calls do not go by them. Or it stands before the C library's to see what is mapped,
//!   and allocates to note it.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

include!("src/intercept/table.rs");

macro_rules! names {
    ($($family:ident $name:ident as $shown:ident($($argument:ident: $type:ty),*) -> $result:ty, $rule:tt;)+) => {
        [$(stringify!($name)),+]
    };
}

macro_rules! variadic_names {
    ($($family:ident $name:ident as $shown:ident $named:literal ($($argument:ident: $type:ty),*) -> $result:ty, $rule:tt;)+) => {
        [$((stringify!($name), $named)),+]
    };
}

macro_rules! own_names {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        [$(stringify!($name)),+]
    };
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/intercept/table.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let is = |key: &str, value: &str| env::var(key).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        intercept();
    }
}

/// The C library's functions that are a system call, by its number, with the same arguments.
const SYSTEM_CALLS: [(&str, u32); 13] = [
    ("mmap", 9),
    ("mprotect", 10),
    ("munmap", 11),
    ("mremap", 25),
    ("msync", 26),
    ("madvise", 28),
    ("getpid", 39),
    ("setsockopt", 54),
    ("sysinfo", 99),
    ("munlock", 150),
    ("gettid", 186),
    ("clock_gettime", 228),
    ("process_vm_readv", 310),
];

/// Makes what this library's references to system calls lead to.
fn make_system_calls(assembly: &mut String) {
    const SYSCALL: &str = "mov rax, rdi\nmov rdi, rsi\nmov rsi, rdx\nmov rdx, rcx\nmov r10, r8\nmov r8, r9\n\
        mov r9, [rsp + 8]\nsyscall\n";
    /// `prlimit64`, of this process, for the answer alone.
    const GETRLIMIT: &str = "mov r10, rsi\nmov esi, edi\nxor edi, edi\nxor edx, edx\nmov eax, 302\nsyscall\n";
    let plain =
        SYSTEM_CALLS.map(|(name, number)| (name, format!("mov r10, rcx\nmov eax, {number}\nsyscall\n")));
    let special = [("syscall", SYSCALL.to_owned()), ("getrlimit", GETRLIMIT.to_owned())];
    for (name, body) in plain.into_iter().chain(special) {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--wrap={name}");
        let _ = write!(
            assembly,
            ".globl __wrap_{name}\n.hidden __wrap_{name}\n.type __wrap_{name},@function\n\
             __wrap_{name}:\n.cfi_startproc\n{body}cmp rax, -4096\nja 2f\nret\n\
             2:\nneg eax\npush rax\n.cfi_adjust_cfa_offset 8\ncall __errno_location@PLT\n\
             pop rcx\n.cfi_adjust_cfa_offset -8\nmov [rax], ecx\nmov rax, -1\nret\n.cfi_endproc\n\
             .size __wrap_{name}, . - __wrap_{name}\n"
        );
    }
}

/// Makes the symbols of what is intercepted.
fn intercept() {
    let mut assembly = String::new();
    make_system_calls(&mut assembly);
    let mut row = 0;
    let mut entry = |name: &str, body: &str| {
        define(&mut assembly, name, row, body);
        row += 1;
    };
    for name in intercepted!(names) {
        entry(name, &format!("jmp fencepost_intercept_{name}\n"));
    }
    for (name, named) in intercepted_variadic!(variadic_names) {
        entry(name, &with_list(name, named));
    }
    for name in own_calls!(own_names) {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--wrap={name}");
        let _ = write!(
            assembly,
            ".hidden fencepost_own_{name}\n\
             .globl __wrap_{name}\n.hidden __wrap_{name}\n.type __wrap_{name},@function\n\
             __wrap_{name}:\n.cfi_startproc\njmp fencepost_own_{name}\n.cfi_endproc\n\
             .size __wrap_{name}, . - __wrap_{name}\n"
        );
    }
    println!("cargo:rustc-cdylib-link-arg={}", assemble(&assembly).display());
}

/// A function that is exported as `name`. It goes on at once where the row's word says so, else does what `body` says. The
/// words are those of `intercept::AT_ONCE`: 0 until they are set, and no relocation is needed to read them.
fn define(assembly: &mut String, name: &str, row: usize, body: &str) {
    let word = 8 + 8 * row;
    let body =
        format!("mov r11, [rip + fencepost_at_once + {word}]\ntest r11, r11\nje 3f\njmp r11\n3:\n{body}");
    let _ = write!(
        assembly,
        ".hidden fencepost_at_once\n.hidden fencepost_intercept_{name}\n\
         .symver fencepost_entry_{name}, {name}@\n\
         .globl fencepost_entry_{name}\n.type fencepost_entry_{name},@function\n\
         fencepost_entry_{name}:\n.cfi_startproc\n{body}.cfi_endproc\n\
         .size fencepost_entry_{name}, . - fencepost_entry_{name}\n"
    );
}

/// The body of a function of a variable number of arguments, of which `named` have names: it calls the one that does the
/// work with a list of the others, as the ABI has it.
///
/// ```text
/// rsp: | offsets | where the stack's begin | where the registers are | . | 6 registers | 8 vectors | . | return address
///      0         8                         16                        24  32            80          208 216
/// ```
fn with_list(name: &str, named: usize) -> String {
    const REGISTERS: [&str; 6] = ["rdi", "rsi", "rdx", "rcx", "r8", "r9"];
    let mut body = String::from("sub rsp, 216\n.cfi_adjust_cfa_offset 216\n");
    for (index, register) in REGISTERS.iter().enumerate().skip(named) {
        let _ = writeln!(body, "mov [rsp + {}], {register}", 32 + 8 * index);
    }
    body.push_str("test al, al\nje 2f\n");
    for index in 0..8 {
        let _ = writeln!(body, "movaps [rsp + {}], xmm{index}", 80 + 16 * index);
    }
    let offset = 8 * named;
    let list = REGISTERS[named];
    let _ = write!(
        body,
        "2:\nmov dword ptr [rsp], {offset}\nmov dword ptr [rsp + 4], 48\n\
         lea rax, [rsp + 224]\nmov [rsp + 8], rax\nlea rax, [rsp + 32]\nmov [rsp + 16], rax\n\
         mov {list}, rsp\ncall fencepost_intercept_{name}\n\
         add rsp, 216\n.cfi_adjust_cfa_offset -216\nret\n"
    );
    body
}

/// The object that `assembly` makes.
fn assemble(assembly: &str) -> PathBuf {
    let place = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo names a directory"));
    let (source, object) = (place.join("entries.rs"), place.join("entries.o"));
    let text = format!("#![no_std]\ncore::arch::global_asm!({assembly:?});\n");
    fs::write(&source, text).expect("the directory can be written");
    let compiler = env::var_os("RUSTC").expect("Cargo names the compiler");
    let target = env::var_os("TARGET").expect("Cargo names the target");
    let status = Command::new(compiler)
        .args(["--crate-name=entries", "--crate-type=lib", "--edition=2024", "--emit=obj"])
        .args(["-Ccodegen-units=1", "-Cpanic=abort", "-Crelocation-model=pic", "--target"])
        .arg(target)
        .arg("-o")
        .args([&object, &source])
        .status()
        .expect("the compiler can be started");
    assert!(status.success(), "the entries of what is intercepted could not be assembled");
    object
}
