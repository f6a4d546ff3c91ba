//! How an object lies in its pages, and the canaries around it. Placement is pure.
//!
//! ```text
//! right:  |guard|canary.....|object|canary|guard|     the object ends at the guard but for alignment
//! left:   |guard|object|canary...........|guard|      it starts at the guard
//! ```
//!
//! # Slack
//!
//! Slack is the part of an object's pages before and behind the object. It holds canaries, with a period of eight bytes
//! by address, that belong to the object's address ([`crate::canary`]). No byte of a canary is 0, so a read of a string
//! past its object runs into the guard. Before the object only a bounded stretch is filled.

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span, round_up};
use crate::canary::Key;
use crate::request::Request;
use crate::sys::machine;
use core::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_testz_si256, _mm256_xor_si256,
};
use core::ops::Range;

/// Which guard page the object touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one before it.
    Left,
    /// The one behind it.
    Right,
}

/// Pages that an object of `size` bytes with alignment `align` takes; an object of zero bytes takes
/// one, which is never opened. `None` if that is more than the address space holds.
pub fn pages(size: usize, align: usize) -> Option<PageCount> {
    let needed = round_up(size.max(1), align.min(PAGE_SIZE))?;
    Some(PageCount::holding(needed))
}

/// The alignment that `request` gets: what it relies on, or with `exact` only what it asked for
/// beyond the ABI's, so that the object ends at the guard.
pub fn alignment(request: &Request, exact: bool) -> usize {
    if exact && !request.exact && request.align <= crate::addr::ABI_ALIGN { 1 } else { request.align }
}

/// The address of an object of `size` bytes in `span`, with `align` at most a page.
pub fn address(span: Span, size: usize, align: usize, side: Side) -> Addr {
    match side {
        _ if size == 0 => span.start,
        Side::Left => span.start,
        Side::Right => span.end().minus(size).align_floor(align.min(PAGE_SIZE)),
    }
}

/// From so many words on the wide code is worth its start.
const WIDE_WORDS: usize = 16;

/// Where an object's canaries are and what they hold.
#[derive(Clone, Copy)]
pub struct Slack {
    before: (usize, usize),
    behind: (usize, usize),
    word: u64,
}

impl Slack {
    /// The slack of the object of `size` bytes at `address` in `span`; at most `reach` bytes before it.
    pub fn of(key: &Key, span: Span, address: Addr, size: usize, reach: usize) -> Self {
        let start = address.get();
        let low = span.start.get().max(start.saturating_sub(reach));
        let end = start.saturating_add(size);
        Self {
            before: (low, start),
            behind: (end, span.end().get().max(end)),
            word: key.word_without_zero(start),
        }
    }

    /// What the byte at `at` holds, if it is one of the canaries'.
    pub fn expected(&self, at: Addr) -> Option<u8> {
        let within = |(start, end): (usize, usize)| (start..end).contains(&at.get());
        (within(self.before) || within(self.behind)).then(|| self.byte(at.get()))
    }

    /// Writes the canaries.
    ///
    /// # Safety
    /// The object's pages are open and the caller's.
    pub unsafe fn fill(&self) {
        machine::detect();
        for (start, end) in [self.before, self.behind] {
            // SAFETY: both ranges lie in the object's pages, outside the object.
            unsafe { self.fill_range(start..end) };
        }
    }

    /// # Safety
    /// The range is writable and the caller's.
    unsafe fn fill_range(&self, range: Range<usize>) {
        let (edge_end, words_end) = edges(&range);
        for at in (range.start..edge_end).chain(words_end..range.end) {
            // SAFETY: within the range.
            unsafe { Addr::new(at).as_ptr::<u8>().write(self.byte(at)) };
        }
        // SAFETY: whole words within the range; AVX2 is there if it is used.
        unsafe {
            let start = Addr::new(edge_end).as_ptr::<u64>();
            let words = (words_end - edge_end) / 8;
            match words >= WIDE_WORDS && machine::has_avx2() {
                true => fill_words_avx2(start, words, self.word),
                false => fill_words(start, words, self.word),
            }
        }
    }

    /// The overwritten byte nearest to the object, behind it if there is one there, else before it.
    ///
    /// # Safety
    /// The object's pages are open and readable.
    pub unsafe fn wrong(&self) -> Option<Addr> {
        // SAFETY: both ranges lie in the object's pages.
        unsafe {
            let (start, end) = self.behind;
            let (low, object) = self.before;
            if self.intact(start..end) && self.intact(low..object) {
                return None;
            }
            (start..end).chain((low..object).rev()).find(|at| !self.is_right(*at)).map(Addr::new)
        }
    }

    /// # Safety
    /// The range is readable.
    unsafe fn intact(&self, range: Range<usize>) -> bool {
        let (edge_end, words_end) = edges(&range);
        // SAFETY: within the range.
        let edges =
            (range.start..edge_end).chain(words_end..range.end).all(|at| unsafe { self.is_right(at) });
        // SAFETY: whole words within the range; AVX2 is there if it is used.
        unsafe {
            let start = Addr::new(edge_end).as_ptr::<u64>();
            let words = (words_end - edge_end) / 8;
            edges
                && match words >= WIDE_WORDS && machine::has_avx2() {
                    true => are_words_avx2(start, words, self.word),
                    false => are_words(start, words, self.word),
                }
        }
    }

    /// # Safety
    /// The byte is readable.
    unsafe fn is_right(&self, at: usize) -> bool {
        // SAFETY: as the caller says.
        unsafe { Addr::new(at).as_ptr::<u8>().read() == self.byte(at) }
    }

    fn byte(&self, at: usize) -> u8 {
        self.word.to_le_bytes().get(at % 8).copied().unwrap_or(1)
    }
}

/// Where the range's whole words start and end.
fn edges(range: &Range<usize>) -> (usize, usize) {
    let start = range.start.next_multiple_of(8).min(range.end);
    (start, (range.end & !7).max(start))
}

/// # Safety
/// The words are writable and the caller's.
unsafe fn fill_words(start: *mut u64, words: usize, word: u64) {
    for at in 0..words {
        // SAFETY: within the words.
        unsafe { start.add(at).write(word) };
    }
}

/// # Safety
/// The words are readable.
unsafe fn are_words(start: *const u64, words: usize, word: u64) -> bool {
    // SAFETY: within the words.
    (0..words).fold(0, |wrong, at| wrong | unsafe { start.add(at).read() } ^ word) == 0
}

/// # Safety
/// As [`fill_words`], for at least 16 words; the processor has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn fill_words_avx2(start: *mut u64, words: usize, word: u64) {
    let pattern = _mm256_set1_epi64x(word.cast_signed());
    let mut at = 0;
    // SAFETY: within the words: whole steps of 16, and the last 16, which may overlap the step before.
    unsafe {
        let store = |at: usize| _mm256_storeu_si256(start.add(at).cast::<__m256i>(), pattern);
        while at < words {
            let from = at.min(words - 16);
            store(from);
            store(from + 4);
            store(from + 8);
            store(from + 12);
            at += 16;
        }
    }
}

/// # Safety
/// As [`are_words`], for at least 16 words; the processor has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn are_words_avx2(start: *const u64, words: usize, word: u64) -> bool {
    let pattern = _mm256_set1_epi64x(word.cast_signed());
    let mut wrong = [_mm256_setzero_si256(); 4];
    let mut at = 0;
    // SAFETY: `at` is at most 16 words before the end, and there are at least 16, so all reads lie within the
    // words that the caller vouches for.
    unsafe {
        while at < words {
            let from = at.min(words - 16);
            for (step, wrong) in wrong.iter_mut().enumerate() {
                let found = _mm256_loadu_si256(start.add(from + 4 * step).cast::<__m256i>());
                *wrong = _mm256_or_si256(*wrong, _mm256_xor_si256(found, pattern));
            }
            at += 16;
        }
    }
    let wrong = _mm256_or_si256(_mm256_or_si256(wrong[0], wrong[1]), _mm256_or_si256(wrong[2], wrong[3]));
    _mm256_testz_si256(wrong, wrong) == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PAGE_SIZE, PageCount};

    #[test]
    fn right_sided_objects_end_within_an_alignment_of_the_guard() {
        for align in [1, 2, 8, 16, 64, 4096] {
            for size in [1, 13, 16, 100, 4095, 4096, 4097, 5000] {
                let span = Span::new(Addr::new(1 << 20), pages(size, align).expect("fits"));
                let start = address(span, size, align, Side::Right);
                assert!(start.is_aligned(align) && start >= span.start);
                assert!(span.end().offset_from(start.plus(size)).expect("inside") < align);
                assert_eq!(address(span, size, align, Side::Left), span.start);
            }
        }
    }

    #[test]
    fn sizes_past_the_address_space_are_refused() {
        assert_eq!(pages(usize::MAX, 16), None);
        assert_eq!(pages(0, 16), Some(PageCount::new(1)));
    }

    #[repr(align(4096))]
    struct Page([u8; PAGE_SIZE]);

    /// Both versions of what has two.
    #[test]
    fn wide_and_narrow_code_do_the_same() {
        let mut words = [0_u64; 70];
        for (count, wrong) in
            (WIDE_WORDS..60).flat_map(|count| [(count, 0), (count, count / 2), (count, count - 1)])
        {
            machine::detect();
            for wide in [false, true].into_iter().filter(|wide| !wide || machine::has_avx2()) {
                words.fill(1);
                let start = words[3..].as_mut_ptr();
                // SAFETY: so many words are there, and the wide code is run where the processor has AVX2.
                unsafe {
                    if wide {
                        fill_words_avx2(start, count, 7)
                    } else {
                        fill_words(start, count, 7)
                    }
                    let intact =
                        || if wide { are_words_avx2(start, count, 7) } else { are_words(start, count, 7) };
                    assert!(intact());
                    start.add(wrong).write(8);
                    assert!(!intact(), "{count} words, {wrong} is wrong");
                }
                assert!(words[..3].iter().chain(&words[3 + count..]).all(|word| *word == 1));
            }
        }
    }

    #[test]
    fn the_nearest_wrong_byte_is_named() {
        let mut page = Page([0; PAGE_SIZE]);
        let span = Span::new(Addr::of(&raw const page), PageCount::new(1));
        for (offset, size) in [(4083, 13), (4080, 13), (0, 100), (100, 0), (33, 7)] {
            let object = span.start.plus(offset);
            let slack = Slack::of(&Key::new(99, u64::MAX / 7), span, object, size, 512);
            // SAFETY: the page is ours.
            unsafe {
                slack.fill();
                assert_eq!(slack.wrong(), None);
                for (at, byte) in page.0.iter().enumerate() {
                    let expected = slack.expected(span.start.plus(at));
                    assert!(expected.is_none_or(|expected| expected == *byte && byte & 0xc1 == 0x81));
                }
                assert_eq!(slack.expected(object).is_none(), size != 0);
                let low = offset.saturating_sub(512);
                for at in (low..offset).chain(offset + size..PAGE_SIZE) {
                    let good = page.0[at];
                    page.0[at] = 0;
                    assert_eq!(slack.wrong(), Some(span.start.plus(at)), "{offset} {size} {at}");
                    page.0[at] = good;
                }
            }
        }
    }
}
