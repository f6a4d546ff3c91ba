//! Clearing slots and checking that they are clear, 16 or 32 bytes at a time.
//!
//! Slots are multiples of 16 bytes and aligned to 16. Long ones are seen to with AVX2 where the processor has it.

use crate::sys::machine;
use core::arch::asm;
use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_or_si128, _mm_setzero_si128,
    _mm_store_si128,
};

/// Up to so many bytes four vectors of 16 do, which overlap.
pub const FEW: usize = 64;
/// Up to so many bytes those of 32 do without a loop.
const MANY: usize = 320;

/// Whether `len` bytes at `start` are zero; none are.
///
/// # Safety
/// - `start` is aligned to 16 and `len` a multiple of 16.
/// - The bytes are readable.
#[inline(always)]
pub unsafe fn is_zero(start: *const u8, len: usize) -> bool {
    // SAFETY: as the caller says.
    unsafe { if len <= MANY { is_zero_small(start, len) } else { is_zero_long(start, len) } }
}

/// [`is_zero`] for at most [`MANY`] bytes.
///
/// # Safety
/// As [`is_zero`].
#[inline(always)]
pub unsafe fn is_zero_small(start: *const u8, len: usize) -> bool {
    debug_assert!(len <= MANY);
    // SAFETY: every load is aligned and within the caller's bytes. Where it is said to have AVX2 the processor has it.
    unsafe {
        if len > FEW {
            return if machine::has_avx2() { is_zero_avx2(start, len) } else { is_zero_sse2(start, len) };
        }
        if len == 0 {
            return true;
        }
        let load = |at| _mm_load_si128(start.add(at).cast::<__m128i>());
        let (second, last) = (machine::lesser(16, len - 16), len - 16);
        let seen =
            _mm_or_si128(_mm_or_si128(load(0), load(last)), _mm_or_si128(load(second), load(last - second)));
        _mm_movemask_epi8(_mm_cmpeq_epi8(seen, _mm_setzero_si128())) == 0xffff
    }
}

/// [`is_zero`] for at least 256 bytes.
///
/// # Safety
/// As [`is_zero`].
#[inline(always)]
pub unsafe fn is_zero_long(start: *const u8, len: usize) -> bool {
    debug_assert!(len >= 256);
    // SAFETY: as the caller says. Where it is said to have AVX2 the processor has it.
    unsafe { if machine::has_avx2() { is_zero_long_avx2(start, len) } else { is_zero_sse2(start, len) } }
}

/// Clears `len` bytes at `start`; none are.
///
/// # Safety
/// - `start` is aligned to 16 and `len` a multiple of 16.
/// - The bytes are writable and nobody else uses them.
#[inline(always)]
pub unsafe fn clear(start: *mut u8, len: usize) {
    // SAFETY: as the caller says.
    unsafe { if len <= MANY { clear_small(start, len) } else { clear_long(start, len) } }
}

/// [`clear`] for at most [`MANY`] bytes.
///
/// # Safety
/// As [`clear`].
#[inline(always)]
pub unsafe fn clear_small(start: *mut u8, len: usize) {
    debug_assert!(len <= MANY);
    // SAFETY: every store is aligned and within the caller's bytes. Where it is said to have AVX2 the processor has it.
    unsafe {
        if len > FEW {
            return if machine::has_avx2() { clear_avx2(start, len) } else { clear_sse2(start, len) };
        }
        if len == 0 {
            return;
        }
        let store = |at| _mm_store_si128(start.add(at).cast::<__m128i>(), _mm_setzero_si128());
        let (second, last) = (machine::lesser(16, len - 16), len - 16);
        store(0);
        store(second);
        store(last - second);
        store(last);
    }
}

/// [`clear`] for at least 256 bytes.
///
/// # Safety
/// As [`clear`].
#[inline(always)]
pub unsafe fn clear_long(start: *mut u8, len: usize) {
    debug_assert!(len >= 256);
    // SAFETY: as the caller says. Where it is said to have AVX2 the processor has it.
    unsafe { if machine::has_avx2() { clear_long_avx2(start, len) } else { clear_sse2(start, len) } }
}

// What follows is inline assembly: in functions with the processor's feature the compiler would call it, and its callers would
// have to save their registers. Vectors of 32 bytes are those that the clobbered ones are halves of.

/// # Safety
/// As [`is_zero`], with `len` at least 16.
#[inline(always)]
unsafe fn is_zero_sse2(start: *const u8, len: usize) -> bool {
    // SAFETY: loads are aligned and within the caller's bytes.
    unsafe {
        asm!(
            "pxor xmm0, xmm0",
            "pxor xmm1, xmm1",
            "2:",
            "por xmm0, [{start} + {len} - 16]",
            "sub {len}, 16",
            "jnz 2b",
            "pcmpeqb xmm0, xmm1",
            "pmovmskb {len:e}, xmm0",
            "cmp {len:e}, 0xffff",
            "jne {wrong}",
            start = in(reg) start,
            len = inout(reg) len => _,
            wrong = label { return false },
            out("xmm0") _,
            out("xmm1") _,
            options(nostack, readonly),
        );
    }
    true
}

/// # Safety
/// As [`clear`], with `len` at least 16.
#[inline(always)]
unsafe fn clear_sse2(start: *mut u8, len: usize) {
    // SAFETY: stores are aligned and within the caller's bytes.
    unsafe {
        asm!(
            "xorps xmm0, xmm0",
            "2:",
            "movaps [{start} + {len} - 16], xmm0",
            "sub {len}, 16",
            "jnz 2b",
            start = in(reg) start,
            len = inout(reg) len => _,
            out("xmm0") _,
            options(nostack),
        );
    }
}

/// An instruction sequence in `asm!` that uses the upper halves of vector registers and leaves them clear.
macro_rules! wide {
    ($start:ident, $len:ident, [$($line:literal),* $(,)?] $(, $label:ident = $wrong:block)?) => {
        asm!(
            $($line,)*
            at = inout(reg) $start => _,
            len = inout(reg) $len => _,
            last = out(reg) _,
            $($label = label $wrong,)?
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
            options(nostack),
        )
    };
}

// How long a slot is differs from one call to the next, so a loop would cost more in branches that were predicted wrongly than
// in its rounds. What does not reach as far as the places of a sequence is done twice instead.

/// 64 to [`MANY`] bytes: `$two` does 64 bytes from `{at}` on, `$last` those from `{last}` on.
macro_rules! moderate {
    ($start:ident, $len:ident, $last:literal, $two:literal, $end:literal $(, $label:ident = $wrong:block)?) => {
        wide!($start, $len, [
            "lea {last}, [{at} + {len} - 64]",
            $last,
            "cmp {len}, 256",
            "jbe 2f",
            $two,
            "add {at}, 64",
            "2:",
            $two,
            "add {at}, 64",
            "cmp {at}, {last}",
            "cmova {at}, {last}",
            $two,
            "add {at}, 64",
            "cmp {at}, {last}",
            "cmova {at}, {last}",
            $two,
            $end,
        ] $(, $label = $wrong)?)
    };
}

/// 256 bytes and more: `$eight` does 256 bytes from `{at}` on.
macro_rules! long {
    ($start:ident, $len:ident, $first:literal, $eight:literal, $end:literal $(, $label:ident = $wrong:block)?) => {
        wide!($start, $len, [
            "lea {last}, [{at} + {len} - 256]",
            $first,
            $eight,
            "cmp {len}, 512",
            "jbe 3f",
            "add {at}, 256",
            $eight,
            "add {at}, 256",
            "cmp {at}, {last}",
            "cmova {at}, {last}",
            $eight,
            "add {at}, 256",
            "cmp {at}, {last}",
            "jae 3f",
            "2:",
            $eight,
            "add {at}, 256",
            "cmp {at}, {last}",
            "jb 2b",
            "3:",
            "mov {at}, {last}",
            $eight,
            $end,
        ] $(, $label = $wrong)?)
    };
}

/// # Safety
/// As [`is_zero`], with `len` from 64 to [`MANY`], on a processor with AVX2.
#[inline(always)]
unsafe fn is_zero_avx2(start: *const u8, len: usize) -> bool {
    // SAFETY: loads stay within the caller's bytes.
    unsafe {
        moderate!(
            start,
            len,
            "vmovdqu ymm0, [{last}]
             vmovdqu ymm1, [{last} + 32]",
            "vpor ymm0, ymm0, [{at}]
             vpor ymm1, ymm1, [{at} + 32]",
            "vpor ymm0, ymm0, ymm1
             vptest ymm0, ymm0
             vzeroupper
             jne {wrong}",
            wrong = { return false }
        );
    }
    true
}

/// # Safety
/// As [`is_zero`], with `len` at least 256, on a processor with AVX2.
#[inline(always)]
unsafe fn is_zero_long_avx2(start: *const u8, len: usize) -> bool {
    // SAFETY: loads stay within the caller's bytes.
    unsafe {
        long!(
            start,
            len,
            "vpxor xmm0, xmm0, xmm0
             vpxor xmm1, xmm1, xmm1",
            "vpor ymm0, ymm0, [{at}]
             vpor ymm1, ymm1, [{at} + 32]
             vpor ymm0, ymm0, [{at} + 64]
             vpor ymm1, ymm1, [{at} + 96]
             vpor ymm0, ymm0, [{at} + 128]
             vpor ymm1, ymm1, [{at} + 160]
             vpor ymm0, ymm0, [{at} + 192]
             vpor ymm1, ymm1, [{at} + 224]",
            "vpor ymm0, ymm0, ymm1
             vptest ymm0, ymm0
             vzeroupper
             jne {wrong}",
            wrong = { return false }
        );
    }
    true
}

/// # Safety
/// As [`clear`], with `len` from 64 to [`MANY`], on a processor with AVX2.
#[inline(always)]
unsafe fn clear_avx2(start: *mut u8, len: usize) {
    // SAFETY: stores stay within the caller's bytes.
    unsafe {
        moderate!(
            start,
            len,
            "vpxor xmm0, xmm0, xmm0
             vmovdqu [{last}], ymm0
             vmovdqu [{last} + 32], ymm0",
            "vmovdqu [{at}], ymm0
             vmovdqu [{at} + 32], ymm0",
            "vzeroupper"
        );
    }
}

/// # Safety
/// As [`clear`], with `len` at least 256, on a processor with AVX2.
#[inline(always)]
unsafe fn clear_long_avx2(start: *mut u8, len: usize) {
    // SAFETY: stores stay within the caller's bytes.
    unsafe {
        long!(
            start,
            len,
            "vpxor xmm0, xmm0, xmm0",
            "vmovdqu [{at}], ymm0
             vmovdqu [{at} + 32], ymm0
             vmovdqu [{at} + 64], ymm0
             vmovdqu [{at} + 96], ymm0
             vmovdqu [{at} + 128], ymm0
             vmovdqu [{at} + 160], ymm0
             vmovdqu [{at} + 192], ymm0
             vmovdqu [{at} + 224], ymm0",
            "vzeroupper"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the longest sequence without a loop does.
    const SIZE: usize = 1664;

    #[repr(align(64))]
    struct Buffer([u8; SIZE]);

    /// What is used for a length beyond a few, in both widths where the processor has them.
    fn widths() -> impl Iterator<Item = bool> {
        machine::detect();
        [false, true].into_iter().filter(|wide| !wide || machine::has_avx2())
    }

    /// [`super::is_zero`] in one width.
    unsafe fn is_zero(start: *const u8, len: usize, wide: bool) -> bool {
        // SAFETY: as the caller says.
        unsafe {
            match wide {
                _ if len <= FEW => super::is_zero(start, len),
                true if len <= MANY => {
                    is_zero_avx2(start, len) && (len < 256 || is_zero_long_avx2(start, len))
                }
                true => is_zero_long_avx2(start, len),
                false => is_zero_sse2(start, len),
            }
        }
    }

    /// [`super::clear`] in one width.
    unsafe fn clear(start: *mut u8, len: usize, wide: bool) {
        // SAFETY: as the caller says.
        unsafe {
            match wide {
                _ if len <= FEW => super::clear(start, len),
                true if len <= MANY => clear_avx2(start, len),
                true => clear_long_avx2(start, len),
                false => clear_sse2(start, len),
            }
        }
    }

    #[test]
    fn every_byte_counts_in_both_widths() {
        let mut buffer = Buffer([0; SIZE]);
        for wide in widths() {
            for len in (16..=SIZE).step_by(16) {
                for at in 0..len {
                    buffer.0[at] = 1;
                    // SAFETY: the buffer is aligned, larger than len, and ours.
                    unsafe {
                        assert!(!is_zero(buffer.0.as_ptr(), len, wide), "{len} {at}");
                        clear(buffer.0.as_mut_ptr(), len, wide);
                        assert!(is_zero(buffer.0.as_ptr(), len, wide));
                    }
                }
            }
        }
    }

    #[test]
    fn clear_stops_at_its_end() {
        let mut buffer = Buffer([7; SIZE]);
        for wide in widths() {
            for len in (0..SIZE - 16).step_by(16) {
                buffer.0.fill(7);
                // SAFETY: the buffer is aligned, larger than len, and ours.
                unsafe { clear(buffer.0.as_mut_ptr(), len, wide) };
                assert!(buffer.0[..len].iter().all(|byte| *byte == 0));
                assert!(buffer.0[len..].iter().all(|byte| *byte == 7));
            }
        }
    }
}
