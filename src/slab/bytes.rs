//! Clearing slots and checking that they are clear, 16 or 32 bytes at a time.
//!
//! Slots are multiples of 16 bytes and aligned to 16. The small classes use SSE2 inline; the others AVX2
//! where the processor has it.

use crate::sys::machine;
use core::arch::x86_64::{
    __m128i, __m256i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_or_si128, _mm_setzero_si128,
    _mm_store_si128, _mm256_loadu_si256, _mm256_or_si256, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm256_testz_si256,
};

const INLINE_MAX: usize = 64;

/// Whether `len` bytes at `start` are zero.
///
/// # Safety
/// - `start` is aligned to 16 and `len` a multiple of 16.
/// - The bytes are readable.
#[inline(always)]
pub unsafe fn is_zero(start: *const u8, len: usize) -> bool {
    if len > INLINE_MAX && machine::has_avx2() {
        // SAFETY: the processor has AVX2, and the caller vouches for the bytes.
        return unsafe { is_zero_avx2(start, len) };
    }
    // SAFETY: every load is aligned and within the caller's bytes.
    unsafe {
        let mut seen = _mm_setzero_si128();
        let mut at = 0;
        while at < len {
            seen = _mm_or_si128(seen, _mm_load_si128(start.add(at).cast::<__m128i>()));
            at += 16;
        }
        _mm_movemask_epi8(_mm_cmpeq_epi8(seen, _mm_setzero_si128())) == 0xffff
    }
}

/// Clears `len` bytes at `start`.
///
/// # Safety
/// - `start` is aligned to 16 and `len` a multiple of 16.
/// - The bytes are writable and nobody else uses them.
#[inline(always)]
pub unsafe fn clear(start: *mut u8, len: usize) {
    if len > INLINE_MAX && machine::has_avx2() {
        // SAFETY: the processor has AVX2, and the caller vouches for the bytes.
        unsafe { clear_avx2(start, len) };
        return;
    }
    // SAFETY: every store is aligned and within the caller's bytes.
    unsafe {
        let mut at = 0;
        while at < len {
            _mm_store_si128(start.add(at).cast::<__m128i>(), _mm_setzero_si128());
            at += 16;
        }
    }
}

/// [`is_zero`] for a small class, of no bytes as well: without a loop up to 64 bytes, by vectors that overlap.
///
/// # Safety
/// As [`is_zero`].
#[inline(always)]
pub unsafe fn is_zero_small(start: *const u8, len: usize) -> bool {
    // SAFETY: every load is aligned and within the caller's bytes.
    unsafe {
        let load = |at| _mm_load_si128(start.add(at).cast::<__m128i>());
        let mut seen = _mm_setzero_si128();
        if len != 0 {
            let mut at = 0;
            while len - at > 64 {
                let four = _mm_or_si128(
                    _mm_or_si128(load(at), load(at + 16)),
                    _mm_or_si128(load(at + 32), load(at + 48)),
                );
                seen = _mm_or_si128(seen, four);
                at += 64;
                // Not to be unrolled: there are four rounds at most.
                core::arch::asm!("", options(nostack, preserves_flags));
            }
            seen = _mm_or_si128(seen, _mm_or_si128(load(at), load(len - 16)));
            if len - at > 32 {
                seen = _mm_or_si128(seen, _mm_or_si128(load(at + 16), load(len - 32)));
            }
        }
        _mm_movemask_epi8(_mm_cmpeq_epi8(seen, _mm_setzero_si128())) == 0xffff
    }
}

/// [`clear`] for a small class, of no bytes as well, as [`is_zero_small`] looks.
///
/// # Safety
/// As [`clear`].
#[inline(always)]
pub unsafe fn clear_small(start: *mut u8, len: usize) {
    // SAFETY: every store is aligned and within the caller's bytes.
    unsafe {
        let store = |at| _mm_store_si128(start.add(at).cast::<__m128i>(), _mm_setzero_si128());
        if len == 0 {
            return;
        }
        let mut at = 0;
        while len - at > 64 {
            store(at);
            store(at + 16);
            store(at + 32);
            store(at + 48);
            at += 64;
            // Not to be recognised as a memset: the call would cost more than the stores.
            core::arch::asm!("", options(nostack, preserves_flags));
        }
        store(at);
        store(len - 16);
        if len - at > 32 {
            store(at + 16);
            store(len - 32);
        }
    }
}

/// # Safety
/// As [`is_zero`], with `len` at least 32, on a processor with AVX2.
#[target_feature(enable = "avx2")]
unsafe fn is_zero_avx2(start: *const u8, len: usize) -> bool {
    // SAFETY: loads stay within the caller's bytes; the last one overlaps the one before.
    unsafe {
        let load = |at: usize| _mm256_loadu_si256(start.add(at).cast::<__m256i>());
        let mut first = _mm256_setzero_si256();
        let mut second = first;
        let mut at = 0;
        // One by one, each with its operand in memory.
        while at + 256 <= len {
            first = _mm256_or_si256(first, load(at));
            second = _mm256_or_si256(second, load(at + 32));
            first = _mm256_or_si256(first, load(at + 64));
            second = _mm256_or_si256(second, load(at + 96));
            first = _mm256_or_si256(first, load(at + 128));
            second = _mm256_or_si256(second, load(at + 160));
            first = _mm256_or_si256(first, load(at + 192));
            second = _mm256_or_si256(second, load(at + 224));
            at += 256;
        }
        while at + 64 <= len {
            first = _mm256_or_si256(first, load(at));
            second = _mm256_or_si256(second, load(at + 32));
            at += 64;
        }
        if at + 32 < len {
            first = _mm256_or_si256(first, load(at));
        }
        second = _mm256_or_si256(second, load(len - 32));
        let seen = _mm256_or_si256(first, second);
        _mm256_testz_si256(seen, seen) != 0
    }
}

/// # Safety
/// As [`clear`], with `len` at least 32, on a processor with AVX2.
#[target_feature(enable = "avx2")]
unsafe fn clear_avx2(start: *mut u8, len: usize) {
    // SAFETY: stores stay within the caller's bytes; the last one overlaps the one before.
    unsafe {
        let store = |at: usize| _mm256_storeu_si256(start.add(at).cast::<__m256i>(), _mm256_setzero_si256());
        let mut at = 0;
        while at + 256 <= len {
            (0..8).for_each(|step| store(at + 32 * step));
            at += 256;
        }
        while at + 64 <= len {
            store(at);
            store(at + 32);
            at += 64;
        }
        if at + 32 < len {
            store(at);
        }
        store(len - 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Buffer([u8; 1024]);

    #[test]
    fn every_byte_counts_in_both_widths() {
        let mut buffer = Buffer([0; 1024]);
        for wide in [false, true] {
            if wide {
                machine::detect();
            }
            for len in (16..=1024).step_by(16) {
                for at in 0..len {
                    buffer.0[at] = 1;
                    // SAFETY: the buffer is aligned, larger than len, and ours.
                    unsafe {
                        assert!(!is_zero_small(buffer.0.as_ptr(), len), "{len} {at}");
                        assert!(!is_zero(buffer.0.as_ptr(), len), "{len} {at}");
                        clear(buffer.0.as_mut_ptr(), len);
                        assert!(is_zero(buffer.0.as_ptr(), len));
                        assert!(is_zero_small(buffer.0.as_ptr(), len));
                    }
                }
            }
        }
    }

    #[test]
    fn clear_stops_at_its_end() {
        let mut buffer = Buffer([7; 1024]);
        for len in (16..1008).step_by(16) {
            buffer.0.fill(7);
            // SAFETY: as above.
            unsafe { clear(buffer.0.as_mut_ptr(), len) };
            assert!(buffer.0[..len].iter().all(|byte| *byte == 0));
            assert!(buffer.0[len..].iter().all(|byte| *byte == 7));
            buffer.0.fill(7);
            // SAFETY: as above.
            unsafe { clear_small(buffer.0.as_mut_ptr(), len) };
            assert!(buffer.0[..len].iter().all(|byte| *byte == 0));
            assert!(buffer.0[len..].iter().all(|byte| *byte == 7));
        }
    }
}
