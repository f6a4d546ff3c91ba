//! The protection key that the allocator's tables are sealed with, where the processor has keys (x86 PKU).
//!
//! A thread's right to write behind the key is in a register of its own, which two instructions read and set
//! without the kernel. Threads inherit it; the kernel gives signal handlers one that denies reading as well, and
//! restores the interrupted one when they return. So nobody may rely on what a thread finds: whoever touches
//! tables holds an [`Unsealed`], which gives the thread the rights and takes back what it added.
//!
//! The kernel minds the register, too, when it writes to or reads from a thread's memory for it, but not when
//! that is another process's, as it is for debuggers and [`super::vm::peek`].

use crate::addr::Span;
use core::arch::asm;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{c_int, c_ulong};

/// The key; 0, which is that of all other memory, for none.
static KEY: AtomicU32 = AtomicU32::new(0);

/// `PKEY_DISABLE_WRITE` of `asm-generic/mman-common.h`.
const DISABLE_WRITE: c_ulong = 2;
/// Both bits of a key in the register: no access, no writing.
const DENIED: u32 = 3;

/// Takes a key from the kernel, if there are keys; tables that are mapped from then on are sealed with it.
/// Called once, at start.
pub fn take() -> bool {
    // An emulator may run on a kernel that has keys and not know the instructions.
    if !offered() {
        return false;
    }
    // SAFETY: takes numbers; gives the calling thread the right to read behind a key that nothing uses yet.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0 as c_ulong, DISABLE_WRITE) };
    match u32::try_from(key) {
        Ok(key) if (1..16).contains(&key) => {
            KEY.store(key, Ordering::Relaxed);
            true
        }
        _ => false,
    }
}

/// Whether the processor has the two instructions and the kernel lets programs use them.
fn offered() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx & (1 << 4) != 0
}

/// Whether tables are sealed.
pub fn is_in_use() -> bool {
    KEY.load(Ordering::Relaxed) != 0
}

/// Whether this is the key of the tables.
pub fn is_own(key: u32) -> bool {
    key != 0 && key == KEY.load(Ordering::Relaxed)
}

/// Seals pages, with the access that they have. What the kernel does not seal for want of mappings or of
/// permission works all the same.
pub(super) fn seal(span: Span, rights: c_int) {
    let key = KEY.load(Ordering::Relaxed);
    if key != 0 {
        protect(span, rights, key);
    }
}

/// Takes the seal off pages; `false` if the kernel refuses.
#[must_use]
pub(super) fn unseal(span: Span, rights: c_int) -> bool {
    !is_in_use() || protect(span, rights, 0)
}

fn protect(span: Span, rights: c_int, key: u32) -> bool {
    // SAFETY: callers pass spans of the allocator's own tables and the rights that these have.
    unsafe { libc::syscall(libc::SYS_pkey_mprotect, span.start.get(), span.bytes(), rights, key) == 0 }
}

/// The calling thread may read and write tables while it lives. May be nested, and costs a load and a branch
/// where nothing is sealed.
pub struct Unsealed {
    /// What the register held, if that was changed.
    before: Option<u32>,
    /// Bound to its thread.
    not_send: PhantomData<*mut ()>,
}

impl Unsealed {
    /// Begins it.
    #[inline(always)]
    pub fn begin() -> Self {
        let before = match KEY.load(Ordering::Relaxed) {
            0 => None,
            key => open(key),
        };
        Self { before, not_send: PhantomData }
    }
}

impl Drop for Unsealed {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: there is a key, so there is the register; it gets the program's rights back.
            unsafe { write(before) };
        }
    }
}

/// Gives the thread the rights; what the register held if it did not have them.
#[cold]
#[inline(never)]
fn open(key: u32) -> Option<u32> {
    // SAFETY: there is a key, so there is the register.
    let before = unsafe { read() };
    let after = before & !(DENIED << (2 * key));
    if after == before {
        return None;
    }
    // SAFETY: as above; of all keys, the thread's rights to the tables' alone change.
    unsafe { write(after) };
    Some(before)
}

/// # Safety
/// The processor has the register and the kernel lets programs use it.
unsafe fn read() -> u32 {
    let value: u32;
    // SAFETY: as the caller says.
    unsafe {
        asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nostack, preserves_flags));
    }
    value
}

/// No access is moved across it: neither by the compiler, which is not told that it leaves memory alone, nor by
/// the processor.
///
/// # Safety
/// As [`read`], and the thread does not touch memory afterwards that it may not.
unsafe fn write(value: u32) {
    // SAFETY: as the caller says.
    unsafe {
        asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags));
    }
}
