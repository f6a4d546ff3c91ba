//! What objects hold: each byte follows from the object's seed and its own place in it.
//!
//! Of objects of more than [`WHOLE`] bytes, both ends are written and compared, and a word of each page.

const WHOLE: usize = 64 << 10;
const END: usize = 4 << 10;
const STRIDE: usize = 4 << 10;

const fn byte(seed: usize, at: usize) -> u8 {
    let word = (seed ^ (at >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> (8 * (at & 7))) as u8 ^ 0x5a
}

/// The parts of an object of this size that are written and compared, cut off at `most` bytes.
fn parts(size: usize, most: usize, mut each: impl FnMut(usize, usize)) {
    let mut part = |from: usize, to: usize| each(from, to.min(most).max(from));
    if size <= WHOLE {
        return part(0, size);
    }
    part(0, END);
    let mut at = STRIDE;
    while at + 8 <= size - END {
        part(at, at + 8);
        at += STRIDE;
    }
    part(size - END, size);
}

/// Writes an object's contents.
///
/// # Safety
/// So many bytes from `address` on are the caller's to write.
pub unsafe fn fill(address: usize, size: usize, seed: usize) {
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address);
    parts(size, size, |from, to| {
        for at in from..to {
            // SAFETY: within the object, as the caller vouches.
            unsafe { pointer.add(at).write(byte(seed, at)) };
        }
    });
}

/// The first byte of the first `most` that is not as [`fill`] left it in an object of `size` bytes.
///
/// # Safety
/// So many bytes, of `size` and `most` the fewer, from `address` on may be read.
pub unsafe fn difference(address: usize, size: usize, most: usize, seed: usize) -> Option<usize> {
    let pointer = std::ptr::with_exposed_provenance::<u8>(address);
    let mut found = None;
    parts(size, most, |from, to| {
        for at in from..to {
            // SAFETY: within the object, as the caller vouches.
            if unsafe { pointer.add(at).read() } != byte(seed, at) {
                found.get_or_insert(at);
                break;
            }
        }
    });
    found
}

/// The first byte that is not zero.
///
/// # Safety
/// So many bytes from `address` on may be read.
pub unsafe fn not_zero(address: usize, size: usize) -> Option<usize> {
    let pointer = std::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: as the caller vouches.
    let bytes = unsafe { std::slice::from_raw_parts(pointer, size) };
    bytes.iter().position(|byte| *byte != 0)
}
