//! Canaries: the contents of a slot's slack.
//!
//! A slot's [`word`] belongs to the address of its end. Slack is filled in words aligned to eight bytes. In the word
//! that the object ends in, the canary takes the bytes behind the object, beginning with the canary's first byte.
//!
//! The last word of a slot is shared: a free of the slot checks it, and a free of the next slot checks it as the word
//! before. So it is accessed only by relaxed atomics, and by single instructions that do the same. [`set`] writes it
//! once, before the slot's first allocation since its slab has memory. Filling slack relies on this, and stores there
//! at most the value that the word has.
//!
//! | state of the slot | last word | who accesses it |
//! |---|---|---|
//! | fresh, or memory released | as the kernel gave it, or the canary | the thread that takes this slot or the next one sets it |
//! | live, freed | the canary | its owner and the owner of the next slot read it |

use super::class::TAIL;
use crate::canary::Key;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = 8;

/// The canary word of the slot that ends at `end`.
#[inline(always)]
pub const fn word(key: &Key, end: usize) -> u64 {
    key.word(end)
}

/// The word at `at`, which others may look at.
///
/// # Safety
/// `at` is aligned to eight bytes and readable.
#[inline(always)]
pub unsafe fn get(at: *const u8) -> u64 {
    // SAFETY: the caller vouches for the place; slack words are accessed by atomics alone, and an atomic load does not write.
    unsafe { AtomicU64::from_ptr(at.cast_mut().cast()).load(Ordering::Relaxed) }
}

/// Writes the word at `at`, which others may look at.
///
/// # Safety
/// `at` is aligned to eight bytes and writable.
#[inline(always)]
pub unsafe fn set(at: *mut u8, word: u64) {
    // SAFETY: the caller vouches for an aligned, writable word. Slack words are accessed by atomics alone.
    unsafe { AtomicU64::from_ptr(at.cast()).store(word, Ordering::Relaxed) }
}

/// The part of `canary` that lies behind an object of `size` bytes in the word it ends in.
#[inline(always)]
const fn partial(canary: u64, size: usize) -> u64 {
    canary << (8 * (size % WORD))
}

/// Fills the slack of an object of `size` bytes in a slot of `slot` bytes at `start`. The partly used
/// word must be clear, and the last word the canary.
///
/// # Safety
/// - The slot is writable, aligned to 16, and the caller's alone but for its last word.
/// - `size + TAIL <= slot`.
#[inline(always)]
pub unsafe fn fill(start: *mut u8, size: usize, slot: usize, canary: u64) {
    let first = size & !(WORD - 1);
    let last = slot - TAIL;
    // SAFETY: the words from `first` to `last` lie in the slot and are aligned.
    unsafe {
        let mut at = first + WORD;
        while at < last {
            set(start.add(at), canary);
            at += WORD;
        }
        set(start.add(first), partial(canary, size));
    }
}

/// [`fill`] for slack of at most three words, without a loop.
///
/// # Safety
/// As [`fill`], and `slot - size` is at most [`super::class::SMALL_SLACK`].
#[inline(always)]
pub unsafe fn fill_small(start: *mut u8, size: usize, slot: usize, canary: u64) {
    debug_assert!(size + TAIL <= slot);
    // SAFETY: both words lie between the object's end and the slot's: the one that it ends in and the next whole one, which
    // are the same for an object that ends with a word.
    unsafe {
        set(start.add(size & !(WORD - 1)), partial(canary, size));
        set(start.add(size.wrapping_add(WORD - 1) & !(WORD - 1)), canary);
    }
}

/// [`intact`] for slack of at most three words, without a loop.
///
/// # Safety
/// As [`fill_small`], readable is enough.
#[inline(always)]
pub unsafe fn intact_small(start: *const u8, size: usize, slot: usize, canary: u64) -> bool {
    // SAFETY: the words are those of `fill_small` and the slot's last; the eight bytes behind the object end in the slot. What
    // is shared with the owner of the next slot is read by single instructions of the processor.
    unsafe {
        asm!(
            "cmp qword ptr [{start} + {slot} - 8], {canary}",
            "jne {wrong}",
            "lea {seen}, [rcx - 1]",
            "and {seen}, -8",
            "cmp qword ptr [{start} + {seen}], {canary}",
            "jne {wrong}",
            // Of the bytes behind the object those in the word that it ends in. A shift by none leaves the flags of the line before.
            "mov {seen}, qword ptr [{start} + rcx - 8]",
            "shl ecx, 3",
            "xor {seen}, {canary}",
            "shl {seen}, cl",
            "test {seen}, {seen}",
            "jne {wrong}",
            start = in(reg) start,
            slot = in(reg) slot,
            canary = in(reg) canary,
            inout("rcx") size + WORD => _,
            seen = out(reg) _,
            wrong = label { return false },
            options(nostack, readonly),
        );
    }
    true
}

/// Whether the word before `at` is `canary`.
///
/// # Safety
/// `at` is aligned to eight bytes, and the word before it readable.
#[inline(always)]
pub unsafe fn is_before(at: *const u8, canary: u64) -> bool {
    // SAFETY: the caller vouches for the word, which others may read at the same time.
    unsafe {
        asm!(
            "cmp qword ptr [{at} - 8], {canary}",
            "jne {wrong}",
            at = in(reg) at,
            canary = in(reg) canary,
            wrong = label { return false },
            options(nostack, readonly),
        );
    }
    true
}

/// Whether a clear word and `canary` lie `at` bytes behind `start`.
///
/// # Safety
/// The two words are readable, and aligned to eight bytes.
#[inline(always)]
pub unsafe fn is_last_of_clear(start: *const u8, at: usize, canary: u64) -> bool {
    // SAFETY: the caller vouches for the words, of which others may read the last at the same time.
    unsafe {
        asm!(
            "cmp qword ptr [{start} + {at} + 8], {canary}",
            "jne {wrong}",
            "cmp qword ptr [{start} + {at}], 0",
            "jne {wrong}",
            start = in(reg) start,
            at = in(reg) at,
            canary = in(reg) canary,
            wrong = label { return false },
            options(nostack, readonly),
        );
    }
    true
}

/// Makes the slack behind an object of `old` bytes that of one of `new` bytes: the first bytes of both stay, what else the
/// object gets is clear.
///
/// # Safety
/// As [`fill`] for both sizes, but for what lies in the partly used word.
#[inline(always)]
pub unsafe fn move_edge(start: *mut u8, old: usize, new: usize, slot: usize, canary: u64) {
    let kept = old.min(new);
    let (edge, last) = (kept & !(WORD - 1), slot - TAIL);
    // SAFETY: the words from `edge` to `last` lie in the slot and are aligned.
    unsafe {
        let contents = get(start.add(edge)) & !partial(u64::MAX, kept);
        let mut at = edge;
        while at < last {
            set(start.add(at), 0);
            at += WORD;
        }
        fill(start, new, slot, canary);
        if !kept.is_multiple_of(WORD) {
            set(start.add(edge), get(start.add(edge)) | contents);
        }
    }
}

/// Whether the slack is as [`fill`] left it.
///
/// # Safety
/// As [`fill`], readable is enough.
#[inline(always)]
pub unsafe fn intact(start: *const u8, size: usize, slot: usize, canary: u64) -> bool {
    // SAFETY: the words from the first whole one on lie in the slot and are aligned; the eight bytes behind the object end in
    // the slot. What is shared with the owner of the next slot is read by single instructions of the processor.
    unsafe {
        asm!(
            "lea {seen}, [rcx - 1]",
            "and {seen}, -8",
            "2:",
            "cmp qword ptr [{start} + {seen}], {canary}",
            "jne {wrong}",
            "add {seen}, 8",
            "cmp {seen}, {slot}",
            "jb 2b",
            // As in `intact_small`.
            "mov {seen}, qword ptr [{start} + rcx - 8]",
            "shl ecx, 3",
            "xor {seen}, {canary}",
            "shl {seen}, cl",
            "test {seen}, {seen}",
            "jne {wrong}",
            start = in(reg) start,
            slot = in(reg) slot,
            canary = in(reg) canary,
            inout("rcx") size + WORD => _,
            seen = out(reg) _,
            wrong = label { return false },
            options(nostack, readonly),
        );
    }
    true
}

/// What the byte at `at` in a slot with an object of `size` bytes holds if it is slack.
#[inline]
pub fn byte(canary: u64, size: usize, at: usize) -> u8 {
    // The partial word holds the canary's low bytes shifted up, the others hold it in place.
    let index = if at / WORD == size / WORD { at.saturating_sub(size) } else { at % WORD };
    (canary >> (8 * (index % WORD))) as u8
}

/// The byte at `at`, read as part of its word.
///
/// # Safety
/// `start` is aligned to eight bytes, and the word of the byte readable.
pub unsafe fn byte_at(start: *const u8, at: usize) -> u8 {
    // SAFETY: as the caller says.
    let word = unsafe { get(start.add(at & !(WORD - 1))) };
    (word >> (8 * (at % WORD))) as u8
}

/// The slack bytes that are wrong, as offsets from `start` in order.
///
/// # Safety
/// As [`intact`], while the iterator is used.
pub unsafe fn wrong_bytes(
    start: *const u8,
    size: usize,
    slot: usize,
    canary: u64,
) -> impl DoubleEndedIterator<Item = usize> {
    // SAFETY: `at` is within the slot.
    (size..slot).filter(move |at| unsafe { byte_at(start, *at) } != byte(canary, size, *at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(16))]
    struct Slot([u8; 64]);

    /// # Safety
    /// `start` is a slot of 64 bytes, filled.
    unsafe fn slot_is_same_without_a_loop(start: *mut u8, size: usize, canary: u64) {
        // SAFETY: as the caller says.
        unsafe {
            assert!(intact_small(start, size, 64, canary));
            start.add(size).write_bytes(0, 56 - size);
            assert!(size == 56 || !intact_small(start, size, 64, canary));
            fill_small(start, size, 64, canary);
            assert!(intact(start, size, 64, canary));
        }
    }

    #[test]
    fn any_slack_byte_is_seen_and_named() {
        for size in 0..=56 {
            let mut slot = Slot([0; 64]);
            let start = slot.0.as_mut_ptr();
            let canary = word(&Key::new(0x1234_5678_9abc_def0, 0xfedc_ba98_7654_3211), start as usize + 64);
            // SAFETY: the slot is 64 bytes, aligned, and ours.
            unsafe {
                set(start.add(64 - TAIL), canary);
                fill(start, size, 64, canary);
                assert!(intact(start, size, 64, canary));
                if 64 - size <= super::super::class::SMALL_SLACK {
                    slot_is_same_without_a_loop(start, size, canary);
                }
                for at in size..64 {
                    let good = start.add(at).read();
                    assert_eq!(good, byte(canary, size, at));
                    for value in (0..=255).filter(|value| *value != good) {
                        start.add(at).write(value);
                        assert!(!intact(start, size, 64, canary), "{size} {at} {value}");
                        assert_eq!(wrong_bytes(start, size, 64, canary).next(), Some(at));
                        assert_eq!(wrong_bytes(start, size, 64, canary).next_back(), Some(at));
                        start.add(at).write(good);
                    }
                }
            }
            assert!(slot.0[..size].iter().all(|byte| *byte == 0));
        }
    }
}
