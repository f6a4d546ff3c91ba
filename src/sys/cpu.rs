//! What the processor can do beyond the baseline, found out once at start.

use crate::addr::Addr;
use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::sync::atomic::{AtomicBool, Ordering};

static AVX2: AtomicBool = AtomicBool::new(false);

/// Finds out what the processor has; before this the answers are no.
pub fn detect() {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    let highest = __cpuid(0).eax;
    // OSXSAVE and AVX: without the operating system's support AVX2 must not be used.
    let usable = __cpuid(1).ecx & (1 << 27 | 1 << 28) == (1 << 27 | 1 << 28);
    // SAFETY: OSXSAVE was just seen, so xgetbv exists.
    let saved = usable && unsafe { xcr0() } & 6 == 6;
    let avx2 = saved && highest >= 7 && __cpuid_count(7, 0).ebx & (1 << 5) != 0;
    AVX2.store(avx2, Ordering::Relaxed);
}

/// Whether the processor and the operating system have AVX2.
#[inline(always)]
pub fn has_avx2() -> bool {
    AVX2.load(Ordering::Relaxed)
}

/// Has the processor fetch the cache line of `address`, which need not be mapped.
#[inline(always)]
pub fn fetch(address: Addr) {
    // SAFETY: a prefetch changes nothing and cannot fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.as_ptr()) };
}

/// The extended control register 0: which register state the operating system saves.
///
/// # Safety
/// The processor has OSXSAVE.
unsafe fn xcr0() -> u32 {
    let low: u32;
    // SAFETY: the caller saw OSXSAVE.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    low
}
