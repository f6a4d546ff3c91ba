//! Canary words: what lies in a slot's slack.
//!
//! The word of a slot is a secret mixed with the address of the slot's end. Every byte of it is odd and
//! from 0x81 to 0xbf: so a single byte past the end is seen for certain if it is text, a terminating
//! NUL, a small number or 0xff. 40 bits are left to chance. Slack is filled in words aligned
//! to eight bytes; in the word that the object ends in, the canary takes the bytes behind it.

use super::class::TAIL;

const WORD: usize = 8;
/// Bits that an address is turned by: its varying low half comes to lie in the upper bytes, too.
const MIX: u32 = 27;
const SET: u64 = 0x8181_8181_8181_8181;
const CLEAR: u64 = 0xbfbf_bfbf_bfbf_bfbf;

/// The canary word of the slot that ends at `end`.
#[inline(always)]
pub const fn word(secret: u64, end: usize) -> u64 {
    (secret ^ (end as u64).rotate_left(MIX)) & CLEAR | SET
}

/// The part of `canary` that lies behind an object of `size` bytes in the word it ends in.
#[inline(always)]
const fn partial(canary: u64, size: usize) -> u64 {
    canary << (8 * (size % WORD))
}

/// Fills the slack of an object of `size` bytes in a slot of `slot` bytes at `start`. The partly used
/// word must be clear.
///
/// # Safety
/// - The slot is writable, aligned to 16, and the caller's alone.
/// - `size + TAIL <= slot`.
#[inline(always)]
pub unsafe fn fill(start: *mut u8, size: usize, slot: usize, canary: u64) {
    let first = size & !(WORD - 1);
    let last = slot - TAIL;
    // SAFETY: the words from `first` to `last` lie in the slot and are aligned.
    unsafe {
        let mut at = first + WORD;
        while at < last {
            start.add(at).cast::<u64>().write(canary);
            at += WORD;
        }
        start.add(first).cast::<u64>().write(partial(canary, size));
        start.add(last).cast::<u64>().write(canary);
    }
}

/// [`fill`] for slack of at most three words, without a loop.
///
/// # Safety
/// As [`fill`], and `slot - size` is at most [`super::class::SMALL_SLACK`].
#[inline(always)]
pub unsafe fn fill_small(start: *mut u8, size: usize, slot: usize, canary: u64) {
    let first = size & !(WORD - 1);
    let last = slot - TAIL;
    // SAFETY: all three words lie between the object's end and the slot's.
    unsafe {
        start.add(first).cast::<u64>().write(partial(canary, size));
        start.add((first + WORD).min(last)).cast::<u64>().write(canary);
        start.add(last).cast::<u64>().write(canary);
    }
}

/// [`intact`] for slack of at most three words, without a loop.
///
/// # Safety
/// As [`fill_small`], readable is enough.
#[inline(always)]
pub unsafe fn intact_small(start: *const u8, size: usize, slot: usize, canary: u64) -> bool {
    let first = size & !(WORD - 1);
    let last = slot - TAIL;
    // SAFETY: as in `fill_small`.
    unsafe {
        let edge = start.add(first).cast::<u64>().read();
        let wrong = (edge ^ partial(canary, size)) >> (8 * (size % WORD));
        let middle = start.add((first + WORD).min(last)).cast::<u64>().read() ^ canary;
        wrong | middle | (start.add(last).cast::<u64>().read() ^ canary) == 0
    }
}

/// Like [`fill`] around an object that has contents: its bytes in the partly used word stay.
///
/// # Safety
/// As [`fill`], and the slack must be clear.
#[inline(always)]
pub unsafe fn fill_behind(start: *mut u8, size: usize, slot: usize, canary: u64) {
    // SAFETY: the word lies in the slot and is aligned; the rest is as for `fill`.
    unsafe {
        let edge = start.add(size & !(WORD - 1)).cast::<u64>();
        let contents = edge.read();
        fill(start, size, slot, canary);
        if !size.is_multiple_of(WORD) {
            edge.write(edge.read() | contents);
        }
    }
}

/// Whether the slack is as [`fill`] left it.
///
/// # Safety
/// As [`fill`], readable is enough.
#[inline(always)]
pub unsafe fn intact(start: *const u8, size: usize, slot: usize, canary: u64) -> bool {
    let first = size & !(WORD - 1);
    let last = slot - TAIL;
    // SAFETY: the words from `first` to `last` lie in the slot and are aligned.
    unsafe {
        let edge = start.add(first).cast::<u64>().read();
        let mut wrong = (edge ^ partial(canary, size)) >> (8 * (size % WORD));
        let mut at = first + WORD;
        while at < last {
            wrong |= start.add(at).cast::<u64>().read() ^ canary;
            at += WORD;
        }
        wrong | (start.add(last).cast::<u64>().read() ^ canary) == 0
    }
}

/// The first slack byte that is wrong, as an offset from `start`; the object's end if none is.
///
/// # Safety
/// As [`intact`].
pub unsafe fn first_wrong(start: *const u8, size: usize, slot: usize, canary: u64) -> usize {
    let pattern = canary.to_le_bytes();
    for at in size..slot {
        // The partial word holds the canary's low bytes shifted up, the others hold it in place.
        let index = if at / WORD == size / WORD { at - size } else { at % WORD };
        // SAFETY: `at` is within the slot.
        if pattern.get(index).copied() != Some(unsafe { start.add(at).read() }) {
            return at;
        }
    }
    size
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
            start.add(size).write_bytes(0, 64 - size);
            assert!(!intact_small(start, size, 64, canary));
            fill_small(start, size, 64, canary);
            assert!(intact(start, size, 64, canary));
        }
    }

    #[test]
    fn any_slack_byte_is_seen_and_named() {
        for size in 0..=56 {
            let mut slot = Slot([0; 64]);
            let start = slot.0.as_mut_ptr();
            let canary = word(0x1234_5678_9abc_def0, start as usize + 64);
            // SAFETY: the slot is 64 bytes, aligned, and ours.
            unsafe {
                fill(start, size, 64, canary);
                assert!(intact(start, size, 64, canary));
                if 64 - size <= super::super::class::SMALL_SLACK {
                    slot_is_same_without_a_loop(start, size, canary);
                }
                for at in size..64 {
                    for value in [0, !start.add(at).read()] {
                        let good = start.add(at).read();
                        start.add(at).write(value);
                        assert!(!intact(start, size, 64, canary), "{size} {at} {value}");
                        assert_eq!(first_wrong(start, size, 64, canary), at);
                        start.add(at).write(good);
                    }
                }
            }
            assert!(slot.0[..size].iter().all(|byte| *byte == 0));
        }
    }
}
