//! The C++ operators `new` and `delete`: the C functions with an origin of their own.
//!
//! An exported operator serves the common case itself, without a stack trace. Otherwise it jumps to its `rest`, a short
//! assembly that finds the stack as the program left it and knows the caller.
//!
//! Where the program replaces operators, all of ours jump to the definition that would be called without this library;
//! see [`crate::replaced`]. Where there is none, an operator does what the standard says of the default: it calls the
//! operator that it is defined by, and the basic ones allocate and free like C's functions.
//!
//! Without memory, `new` has to call the program's new-handler, again and again, and then to throw `std::bad_alloc`.
//! The C++ library does this: the entries call its own operator, which allocates with `malloc`, which fails again until
//! a handler frees something. An exception may pass through the entry, which is assembly with unwind information and
//! without anything to clean up. An object that comes from there then gets its own origin.

use crate::c::{ReturnSlot, claim, free_aligned, free_claim, site};
use crate::{init, replaced};
use core::ffi::c_void;
use fencepost_core::addr::{ABI_ALIGN, Addr};
use fencepost_core::heap;
use fencepost_core::request::{Claim, Origin, Request};

/// The `rest` of the operator that a default form calls, as an address; null for the basic ones.
macro_rules! rest_of {
    (none) => {
        core::ptr::null_mut()
    };
    ($name:ident) => {
        ($name::rest as *const c_void).cast_mut()
    };
}

/// An operator for each row of `new_symbols`.
macro_rules! operators_new {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $aligned:literal, $calls:ident;)+) => {
        /// By row number.
        static NEWS: &[(Origin, bool)] = &[$((Origin::$origin, $aligned)),+];

        /// Whose work the default of a row's operator is.
        fn called_by_new(row: u32) -> *mut c_void {
            match row {
                $($row => rest_of!($calls),)+
                _ => core::ptr::null_mut(),
            }
        }

        $(mod $name {
            use super::*;

            /// The C++ operator of this mangled name.
            ///
            /// # Safety
            /// As the C++ standard says.
            #[unsafe(export_name = $symbol)]
            pub unsafe extern "C" fn entry(size: usize, second: usize, third: usize) -> *mut c_void {
                if !$aligned && replaced::nothing() {
                    let pointer = heap::try_allocate_small(size, Origin::$origin);
                    if !pointer.is_null() {
                        return pointer.cast();
                    }
                }
                // SAFETY: the caller vouches for the same.
                unsafe { rest(size, second, third) }
            }

            /// All but the common case.
            ///
            /// # Safety
            /// As the C++ standard says.
            #[unsafe(naked)]
            pub unsafe extern "C" fn rest(size: usize, second: usize, third: usize) -> *mut c_void {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rdi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rdx",
                    ".cfi_adjust_cfa_offset 8",
                    "cmp byte ptr [rip + {state}], {nothing}",
                    "jne 4f",
                    "5:",
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
                    // There is no memory.
                    "2:",
                    "mov edi, {row}",
                    "mov rsi, [rsp + 24]",
                    "call {fallback}",
                    "mov rdi, [rsp + 16]",
                    "mov rsi, [rsp + 8]",
                    "mov rdx, [rsp]",
                    "call rax",
                    "mov rdi, rax",
                    "mov esi, {row}",
                    "call {rename}",
                    "jmp 3b",
                    // Something is replaced, or nobody has looked yet.
                    "4:",
                    "mov edi, {row}",
                    "call {definition}",
                    "mov rdi, [rsp + 16]",
                    "mov rsi, [rsp + 8]",
                    "mov rdx, [rsp]",
                    "test rax, rax",
                    "jz 5b",
                    "add rsp, 24",
                    ".cfi_adjust_cfa_offset -24",
                    "jmp rax",
                    ".cfi_endproc",
                    row = const $row,
                    state = sym replaced::STATE,
                    nothing = const replaced::NOTHING,
                    definition = sym definition_of_new,
                    work = sym new,
                    fallback = sym fallback,
                    rename = sym rename,
                )
            }
        })+
    };
}

new_symbols!(operators_new);

/// What `new` of a row hands over to; null where its work is to be done here.
extern "C" fn definition_of_new(row: u32) -> *mut c_void {
    let definition = replaced::definition(row);
    if definition.is_null() && replaced::something() { called_by_new(row) } else { definition }
}

unsafe extern "C" fn new(size: usize, second: usize, at: ReturnSlot, fp: usize, row: u32) -> *mut c_void {
    let (own_origin, aligned) = NEWS.get(row as usize).copied().unwrap_or((Origin::New, false));
    // Where some operators are replaced, the others deal in objects of `malloc`.
    let origin = if replaced::nothing() { own_origin } else { Origin::Malloc };
    if !aligned {
        let mut pointer = heap::try_allocate_plain(size, origin);
        if pointer.is_null() {
            pointer = heap::try_allocate_fast(size, origin);
        }
        if !pointer.is_null() {
            return pointer.cast();
        }
    } else if !second.is_power_of_two() {
        // The C++ library says what comes of that.
        return core::ptr::null_mut();
    }
    init::ensure();
    let align = if aligned { second.max(ABI_ALIGN) } else { ABI_ALIGN };
    let request = Request { align, exact: aligned, origin, ..Request::c(size) };
    let site = site(at, fp);
    if !heap::sites::admit_new(&request, site) {
        // The C++ library's own operator does what there is to do without memory.
        return core::ptr::null_mut();
    }
    heap::allocate(&request, site).map_or(core::ptr::null_mut(), Addr::as_ptr)
}

/// The C++ library's own operator of a row, for a call from `caller`. A program that calls one has a library that
/// defines it, unless it is linked statically.
extern "C" fn fallback(row: u32, caller: usize) -> *mut c_void {
    /// The rows of the operators that throw nothing.
    const NOTHROW: [u32; 4] = [2, 3, 6, 7];
    extern "C" fn null() -> *mut c_void {
        core::ptr::null_mut()
    }
    let address = replaced::library_definition(row, caller);
    if !address.is_null() {
        return address;
    }
    if NOTHROW.contains(&row) {
        return (null as *const c_void).cast_mut();
    }
    fencepost_core::sys::process::die("operator new failed and no C++ library defines it");
}

extern "C" fn rename(pointer: *mut c_void, row: u32) -> *mut c_void {
    if let (false, true, Some((origin, _))) = (pointer.is_null(), replaced::nothing(), NEWS.get(row as usize))
    {
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
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $sized:literal, $calls:ident;)+) => {
        /// Whose work the default of a row's operator is.
        fn called_by_delete(row: u32) -> *mut c_void {
            match row {
                $($row => rest_of!($calls),)+
                _ => core::ptr::null_mut(),
            }
        }

        $(mod $name {
            use super::*;

            const ALIGNED: bool = states_alignment($symbol);

            fn claimed(pointer: *mut c_void, second: usize) -> Claim {
                claim(pointer, if $sized { Some(second) } else { None }, Origin::$origin)
            }

            /// The C++ operator of this mangled name.
            ///
            /// # Safety
            /// As the C++ standard says.
            #[unsafe(export_name = $symbol)]
            pub unsafe extern "C" fn entry(pointer: *mut c_void, second: usize, third: usize) {
                if ALIGNED || !replaced::nothing() || !heap::try_free_small(&claimed(pointer, second)) {
                    // SAFETY: the caller vouches for the same.
                    unsafe { rest(pointer, second, third) };
                }
            }

            /// All but the common case.
            ///
            /// # Safety
            /// As the C++ standard says.
            #[unsafe(naked)]
            pub unsafe extern "C" fn rest(pointer: *mut c_void, second: usize, third: usize) {
                unsafe extern "C" fn work(
                    pointer: *mut c_void,
                    second: usize,
                    third: usize,
                    at: ReturnSlot,
                    fp: usize,
                ) {
                    let stated = claimed(pointer, second);
                    if !replaced::nothing() {
                        // The objects are those of `malloc` then.
                        free_claim(&Claim { size: None, origin: Origin::Malloc, ..stated }, at, fp);
                    } else if ALIGNED {
                        free_aligned(&stated, if $sized { third } else { second }, at, fp);
                    } else {
                        free_claim(&stated, at, fp);
                    }
                }
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "cmp byte ptr [rip + {state}], {nothing}",
                    "jne 4f",
                    "5:",
                    "mov rcx, rsp",
                    "mov r8, rbp",
                    "jmp {work}",
                    // Something is replaced, or nobody has looked yet.
                    "4:",
                    "push rdi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rsi",
                    ".cfi_adjust_cfa_offset 8",
                    "push rdx",
                    ".cfi_adjust_cfa_offset 8",
                    "mov edi, {row}",
                    "call {definition}",
                    "pop rdx",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rsi",
                    ".cfi_adjust_cfa_offset -8",
                    "pop rdi",
                    ".cfi_adjust_cfa_offset -8",
                    "test rax, rax",
                    "jz 5b",
                    "jmp rax",
                    ".cfi_endproc",
                    row = const $row,
                    state = sym replaced::STATE,
                    nothing = const replaced::NOTHING,
                    definition = sym definition_of_delete,
                    work = sym work,
                )
            }
        })+
    };
}

delete_symbols!(operators_delete);

/// What `delete` of a row hands over to; null where its work is to be done here.
extern "C" fn definition_of_delete(row: u32) -> *mut c_void {
    let definition = replaced::definition(row);
    if definition.is_null() && replaced::something() { called_by_delete(row) } else { definition }
}

/// The sized forms of aligned operators without their size, for those without it.
macro_rules! without_size {
    ($($name:ident, $unsized:ident;)+) => {
        $(mod $name {
            /// # Safety
            /// As the C++ standard says of the operator.
            #[unsafe(naked)]
            pub unsafe extern "C" fn rest() {
                core::arch::naked_asm!("mov rsi, rdx", "jmp {rest}", rest = sym super::$unsized::rest)
            }
        })+
    };
}

without_size! {
    without_size_aligned, delete_aligned;
    without_size_array_aligned, delete_array_aligned;
}
