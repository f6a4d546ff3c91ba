//! The C++ operators `new` and `delete`: the C functions with an origin of their own.
//!
//! When there is no memory, `new` has to call the program's new-handler, again and again, and then to
//! throw `std::bad_alloc`. That is the C++ library's business: the entries call the library's own
//! operator, which does all of it (it allocates with `malloc`, which fails again until a handler frees
//! something). An exception may pass through the entry: it is assembly with unwind information and
//! without anything to clean up. An object that comes from there is then renamed to its origin.

use crate::c::{ReturnSlot, claim, free_aligned, free_claim, site};
use crate::init;
use core::ffi::{CStr, c_void};
use fencepost_core::addr::{ABI_ALIGN, Addr};
use fencepost_core::heap;
use fencepost_core::request::{Origin, Request};

/// An operator for each row of `new_symbols`.
macro_rules! operators_new {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $aligned:literal;)+) => {
        /// By row number.
        static NEWS: &[(&CStr, Origin, bool)] = &[$((
            // SAFETY: the literal ends in the one NUL that is appended to it.
            unsafe { CStr::from_bytes_with_nul_unchecked(concat!($symbol, "\0").as_bytes()) },
            Origin::$origin,
            $aligned,
        )),+];
        $(
            /// The C++ operator of this mangled name.
            ///
            /// # Safety
            /// As the C++ standard says.
            #[unsafe(export_name = $symbol)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name(size: usize, second: usize, third: usize) -> *mut c_void {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rdi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rdx",
                    ".cfi_adjust_cfa_offset 8",
                    "lea rdx, [rsp + 24]",
                    "mov rcx, rbp",
                    "mov r8d, {row}",
                    "call {work}",
                    "test rax, rax",
                    "jz 2f",
                    "3:",
                    "add rsp, 24",
                    ".cfi_adjust_cfa_offset -24",
                    "ret",
                    ".cfi_adjust_cfa_offset 24",
                    "2:",
                    "mov edi, {row}",
                    "call {fallback}",
                    "mov rdi, [rsp + 16]",
                    "mov rsi, [rsp + 8]",
                    "mov rdx, [rsp]",
                    "call rax",
                    "mov rdi, rax",
                    "mov esi, {row}",
                    "call {rename}",
                    "jmp 3b",
                    ".cfi_endproc",
                    row = const $row,
                    work = sym new,
                    fallback = sym fallback,
                    rename = sym rename,
                )
            }
        )+
    };
}

new_symbols!(operators_new);

unsafe extern "C" fn new(size: usize, second: usize, at: ReturnSlot, fp: usize, row: u32) -> *mut c_void {
    let (_, origin, aligned) = NEWS.get(row as usize).copied().unwrap_or((c"", Origin::New, false));
    if !aligned {
        let pointer = heap::try_allocate_small(size, origin);
        if !pointer.is_null() {
            return pointer.cast();
        }
    }
    new_general(size, second, at, fp, row)
}

#[inline(never)]
fn new_general(size: usize, second: usize, at: ReturnSlot, fp: usize, row: u32) -> *mut c_void {
    let (_, origin, aligned) = NEWS.get(row as usize).copied().unwrap_or((c"", Origin::New, false));
    if !aligned {
        let pointer = heap::try_allocate_fast(size, origin);
        if !pointer.is_null() {
            return pointer.cast();
        }
    }
    init::ensure();
    let align = if aligned { second.max(ABI_ALIGN) } else { ABI_ALIGN };
    let request = Request { align, exact: aligned, origin, ..Request::c(size) };
    heap::allocate(&request, site(at, fp)).map_or(core::ptr::null_mut(), Addr::as_ptr)
}

/// The C++ library's own operator of a row. A program that calls one has a library that defines it.
extern "C" fn fallback(row: u32) -> *mut c_void {
    let name = NEWS.get(row as usize).map_or(c"_Znwm", |row| row.0);
    let address = init::next(name);
    if address.is_null() {
        fencepost_core::sys::die::die("operator new failed and no C++ library defines it");
    }
    address
}

extern "C" fn rename(pointer: *mut c_void, row: u32) -> *mut c_void {
    if let (false, Some((_, origin, _))) = (pointer.is_null(), NEWS.get(row as usize)) {
        heap::set_origin(Addr::new(pointer.expose_provenance()), *origin);
    }
    pointer
}

/// Whether an operator is told the alignment: by its second argument, or by its third if that is the size.
const fn states_alignment(symbol: &str) -> bool {
    let (rest, wanted) = (symbol.as_bytes().split_at(6).1, b"St11align_val_t");
    let rest = if let [b'm', rest @ ..] = rest { rest } else { rest };
    let mut at = 0;
    while at < wanted.len() && at < rest.len() {
        if rest[at] != wanted[at] {
            return false;
        }
        at += 1;
    }
    at == wanted.len()
}

/// An operator for each row of `delete_symbols`.
macro_rules! operators_delete {
    ($($symbol:literal, $name:ident, $origin:ident, $sized:literal;)+) => {
        $(
            /// The C++ operator of this mangled name.
            ///
            /// # Safety
            /// As the C++ standard says.
            #[unsafe(export_name = $symbol)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name(pointer: *mut c_void, second: usize, third: usize) {
                unsafe extern "C" fn work(
                    pointer: *mut c_void,
                    second: usize,
                    third: usize,
                    at: ReturnSlot,
                    fp: usize,
                ) {
                    let claim = claim(pointer, if $sized { Some(second) } else { None }, Origin::$origin);
                    if const { states_alignment($symbol) } {
                        free_aligned(&claim, if $sized { third } else { second }, at, fp);
                    } else if !heap::try_free_small(&claim) {
                        free_claim(&claim, at, fp);
                    }
                }
                core::arch::naked_asm!("mov rcx, rsp", "mov r8, rbp", "jmp {work}", work = sym work)
            }
        )+
    };
}

delete_symbols!(operators_delete);
