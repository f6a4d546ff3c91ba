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

use super::class::{SMALL_SIZE, SMALL_SLACK, TAIL};
use crate::canary::Key;
use crate::sys::machine;
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

/// Bytes at the end of a slot whose canaries are set and compared without a loop. How much slack an object has differs from one
/// to the next, so a loop would end where the processor does not expect it.
const WINDOW: usize = 128;
const _: () = assert!(WINDOW <= SMALL_SIZE);

/// As many clear bytes as a window has, and as many set ones: from `n` on, a window is set in its last `n` bytes.
#[repr(align(64))]
struct Masks([u8; 2 * WINDOW]);

static MASKS: Masks = Masks({
    let mut bytes = [0; 2 * WINDOW];
    let mut at = WINDOW;
    while at < 2 * WINDOW {
        bytes[at] = 0xff;
        at += 1;
    }
    bytes
});

/// Whether the slack of an object of `size` bytes in a slot of `slot` bytes is set and compared as a window.
#[inline(always)]
fn is_window(size: usize, slot: usize) -> bool {
    slot > SMALL_SIZE && slot - size <= WINDOW && machine::has_avx2()
}

/// [`fill`] in a slot that is clear but for its last word.
///
/// # Safety
/// As [`fill`].
#[inline(always)]
pub unsafe fn fill_any(start: *mut u8, size: usize, slot: usize, canary: u64) {
    if !is_window(size, slot) {
        let few = slot - size <= SMALL_SLACK;
        // SAFETY: as the caller says.
        return unsafe {
            if few { fill_small(start, size, slot, canary) } else { fill(start, size, slot, canary) }
        };
    }
    // SAFETY: the window lies in the slot. Outside the object it becomes canaries; what it has of the object is clear and stays
    // so. The last word is written again with what it holds. The masks are those behind `slot - size`, at most half of them.
    unsafe {
        asm!(
            "vmovq xmm0, {canary}",
            "vpbroadcastq ymm0, xmm0",
            "vpand ymm1, ymm0, [{mask}]",
            "vpand ymm2, ymm0, [{mask} + 32]",
            "vpand ymm3, ymm0, [{mask} + 64]",
            "vpand ymm4, ymm0, [{mask} + 96]",
            "vmovdqu [{end} - 128], ymm1",
            "vmovdqu [{end} - 96], ymm2",
            "vmovdqu [{end} - 64], ymm3",
            "vmovdqu [{end} - 32], ymm4",
            "vzeroupper",
            canary = in(reg) canary,
            mask = in(reg) MASKS.0.as_ptr().add(slot - size),
            end = in(reg) start.add(slot),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
            options(nostack, preserves_flags),
        );
        set(start.add(size & !(WORD - 1)), partial(canary, size));
    }
}

/// [`intact`], without a loop where the slack is as in most slots.
///
/// # Safety
/// As [`intact`].
#[inline(always)]
pub unsafe fn intact_any(start: *const u8, size: usize, slot: usize, canary: u64) -> bool {
    if !is_window(size, slot) {
        let few = slot - size <= SMALL_SLACK;
        // SAFETY: as the caller says.
        return unsafe {
            if few { intact_small(start, size, slot, canary) } else { intact(start, size, slot, canary) }
        };
    }
    // SAFETY: the window lies in the slot, and so do the eight bytes behind the object. What is shared with the owner of the next
    // slot is a word that does not change. The masks are as in `fill_any`, those of the whole words alone.
    unsafe {
        asm!(
            "vmovq xmm0, {canary}",
            "vpbroadcastq ymm0, xmm0",
            "vpxor ymm1, ymm0, [{end} - 128]",
            "vpxor ymm2, ymm0, [{end} - 96]",
            "vpxor ymm3, ymm0, [{end} - 64]",
            "vpxor ymm4, ymm0, [{end} - 32]",
            "vpand ymm1, ymm1, [{mask}]",
            "vpand ymm2, ymm2, [{mask} + 32]",
            "vpand ymm3, ymm3, [{mask} + 64]",
            "vpand ymm4, ymm4, [{mask} + 96]",
            "vpor ymm1, ymm1, ymm2",
            "vpor ymm3, ymm3, ymm4",
            "vpor ymm1, ymm1, ymm3",
            "vptest ymm1, ymm1",
            "vzeroupper",
            "jne {wrong}",
            canary = in(reg) canary,
            mask = in(reg) MASKS.0.as_ptr().add((slot - size) & !(WORD - 1)),
            end = in(reg) start.add(slot),
            wrong = label { return false },
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
            options(nostack, readonly),
        );
        // Of the word that the object ends in the bytes behind it.
        let behind = start.add(size).cast::<u64>().read_unaligned();
        (behind ^ canary) << (8 * (size % WORD)) == 0
    }
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

    /// What is set and compared without a loop is what is with one, in slots of all sizes, with any slack, and with one wrong byte
    /// anywhere behind the object.
    #[test]
    fn a_window_is_as_a_loop() {
        #[repr(align(16))]
        struct Long([u8; 2048]);
        machine::detect();
        for slot in [16, 32, 112, 128, 144, 288, 304, 320, 576, 1040, 1152, 2048] {
            for size in usize::saturating_sub(slot, 3 * WINDOW)..=slot - TAIL {
                let (mut looped, mut whole) = (Long([0; 2048]), Long([0; 2048]));
                // A canary that the others do not hold, so that a byte in the wrong place is seen.
                let canary = 0x8877_6655_4433_2200;
                // SAFETY: the slot is aligned, large enough, and ours.
                unsafe {
                    for slots in [&mut looped, &mut whole] {
                        set(slots.0.as_mut_ptr().add(slot - TAIL), canary);
                    }
                    fill(looped.0.as_mut_ptr(), size, slot, canary);
                    fill_any(whole.0.as_mut_ptr(), size, slot, canary);
                    assert!(looped.0 == whole.0, "{size} in {slot}");
                    // What the object holds does not matter.
                    whole.0[..size].fill(0xa5);
                    assert!(intact_any(whole.0.as_ptr(), size, slot, canary), "{size} in {slot}");
                    for at in (size..slot).chain(size.checked_sub(1)) {
                        whole.0[at] ^= 0x10;
                        let intact = intact_any(whole.0.as_ptr(), size, slot, canary);
                        assert_eq!(intact, at < size, "{at} of {size} in {slot}");
                        whole.0[at] ^= 0x10;
                    }
                }
            }
        }
    }
}
