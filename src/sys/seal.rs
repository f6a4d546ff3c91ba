//! The protection key that seals the allocator's tables, where the processor has keys (x86 PKU).
//!
//! A thread's right to write behind the key is in a register of its own, which two instructions read and set without
//! the kernel. Threads inherit the register. The kernel gives signal handlers one that denies reading as well, and
//! restores the interrupted one when they return. So no code may rely on the register that it finds. Code that accesses
//! tables holds an [`Unsealed`], which gives the thread the rights and takes back those that it added.
//!
//! The kernel respects the register, too, when it accesses a thread's memory for that thread. It does not when it
//! accesses another process's memory, as for debuggers and [`super::vm::peek`].
//!
//! # Sealed values
//!
//! A [`Sealed`] value is set once and read-only from then on. Addresses of functions that are called, and pointers to
//! them, must not lie where a stray write of the program reaches them.
//!
//! A [`Sealed`] has pages of its own. Its static belongs into the section `.data.rel.ro.sealed`, among the constants
//! that the loader relocates and then makes read-only. There all sealed statics share one mapping with those. Elsewhere
//! each would split one mapping into three, and a fork copies mappings. To be filled the page is opened, and closed
//! again. The start, which nobody does twice, opens all that it fills in one piece. The value itself says whether it is
//! there. A word elsewhere, which stays writable, says who may fill it:
//!
//! | filler | full | the value | next |
//! |---|---|---|---|
//! | 0 | 0 | none | the first thread in [`Sealed::fill`] makes the filler 1 |
//! | 1 | 0 | being written | the same thread makes it full; a child that is forked meanwhile never gets the value |
//! | 1 | 1 | set | nobody writes; the page is closed at once |
//!
//! No thread waits: one that comes before the value is there does without it. So do all threads where the kernel
//! refuses to open the page. Where it refuses to close the page, the value stays writable.

use super::vm;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
    // SAFETY: the register exists, since there is a key. The value differs from what was read in the bits of
    // the tables' key alone.
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

/// A value that is set once.
#[repr(C, align(4096))]
pub struct Sealed<T> {
    full: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the thread that became its filler, and read when it is full.
unsafe impl<T: Sync> Sync for Sealed<T> {}

impl<T> Sealed<T> {
    /// Without a value.
    pub const fn empty() -> Self {
        Self { full: AtomicBool::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Where the value lies from the start, for code that reads words of it without asking whether it is set: they are 0
    /// before.
    pub const VALUE_AT: usize = offset_of!(Self, value);

    /// The value; `None` before it is set.
    #[inline(always)]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: a full cell's value was written before, and is not written any more.
        self.full.load(Ordering::Acquire).then(|| unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// The value.
    ///
    /// # Safety
    /// [`Sealed::get`] has found it.
    #[inline(always)]
    pub unsafe fn known(&self) -> &T {
        // SAFETY: as the caller says, and it is never taken away.
        unsafe { (*self.value.get()).assume_init_ref() }
    }

    /// Its pages.
    pub fn pages(&self) -> Span {
        Span::new(Addr::of(core::ptr::from_ref(self)), PageCount::holding(size_of::<Self>()))
    }

    /// Sets the value if nobody did or does. `filler` is this one's alone, and false at first; not here, so that the loader does
    /// not write the page. Not for values that are dropped.
    pub fn fill(&'static self, filler: &AtomicBool, value: T) {
        let pages = self.pages();
        if filler.swap(true, Ordering::Acquire) || !vm::commit(pages) {
            return;
        }
        // SAFETY: this thread alone became the filler, and the pages are open.
        unsafe { self.fill_open(value) };
        vm::seal(pages);
    }

    /// Sets the value in pages that the caller opened, and closes.
    ///
    /// # Safety
    /// Nobody else sets it, now or later, and the pages are open.
    pub unsafe fn fill_open(&'static self, value: T) {
        // SAFETY: the caller alone writes, into open pages, and nobody reads before the value is full.
        unsafe { (*self.value.get()).write(value) };
        self.full.store(true, Ordering::Release);
    }
}

const _: () = assert!(
    align_of::<Sealed<u8>>() == PAGE_SIZE && size_of::<Sealed<u8>>() == PAGE_SIZE,
    "no other static lies in the pages"
);

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Makes sure that what lies at `start` can be read and not written.
    ///
    /// # Panics
    /// If not.
    pub fn assert_sealed(start: usize) {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of mappings");
        let holds = |line: &&str| {
            let (range, _) = line.split_once(' ').expect("a range");
            let (low, high) = range.split_once('-').expect("two ends");
            let parse = |end| usize::from_str_radix(end, 16).expect("an address");
            (parse(low)..parse(high)).contains(&start)
        };
        let line = maps.lines().find(holds).expect("it is mapped");
        assert!(line.contains(" r--p "), "{line}");
    }

    #[test]
    fn a_value_is_set_once_and_cannot_be_written() {
        static FILLER: AtomicBool = AtomicBool::new(false);
        #[unsafe(link_section = ".data.rel.ro.sealed")]
        static CELL: Sealed<usize> = Sealed::empty();
        assert_eq!(CELL.get(), None);
        CELL.fill(&FILLER, 7);
        CELL.fill(&FILLER, 8);
        assert_eq!(CELL.get(), Some(&7));
        assert_sealed((&raw const CELL).addr());
    }
}
