//! Canaries in the slack of guarded objects: the bytes of its pages before and behind the object.
//!
//! The pattern has a period of eight bytes by address and is mixed from a secret and the object's
//! address. Before the object only a bounded stretch is filled.

use crate::addr::{Addr, Span};
use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi64x,
    _mm_setzero_si128, _mm_storeu_si128, _mm_xor_si128,
};
use core::ops::Range;

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// Every byte is odd and from 0x81 to 0xbf: no text, no small number, not 0, not 0xff.
const SET: u64 = 0x8181_8181_8181_8181;
const CLEAR: u64 = 0xbfbf_bfbf_bfbf_bfbf;

/// Where an object's canaries are and what they hold.
#[derive(Clone, Copy)]
pub struct Slack {
    before: (usize, usize),
    behind: (usize, usize),
    word: u64,
}

impl Slack {
    /// The slack of the object of `size` bytes at `address` in `span`; at most `reach` bytes before it.
    pub fn of(secret: u64, span: Span, address: Addr, size: usize, reach: usize) -> Self {
        let start = address.get();
        let low = span.start.get().max(start.saturating_sub(reach));
        let end = start.saturating_add(size);
        Self {
            before: (low, start),
            behind: (end, span.end().get().max(end)),
            word: (secret ^ (start as u64).wrapping_mul(MIX)) & CLEAR | SET,
        }
    }

    /// Writes the canaries.
    ///
    /// # Safety
    /// The object's pages are open and the caller's.
    pub unsafe fn fill(&self) {
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
        let start = Addr::new(edge_end).as_ptr::<u64>();
        // SAFETY: every x86-64 processor has SSE2.
        let pair = unsafe { _mm_set1_epi64x(self.word.cast_signed()) };
        let words = (words_end - edge_end) / 8;
        let mut at = 0;
        // SAFETY: whole words within the range.
        unsafe {
            while at + 4 <= words {
                _mm_storeu_si128(start.add(at).cast::<__m128i>(), pair);
                _mm_storeu_si128(start.add(at + 2).cast::<__m128i>(), pair);
                at += 4;
            }
            while at < words {
                start.add(at).write(self.word);
                at += 1;
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
        let start = Addr::new(edge_end).as_ptr::<u64>();
        // SAFETY: every x86-64 processor has SSE2.
        let pair = unsafe { _mm_set1_epi64x(self.word.cast_signed()) };
        let words = (words_end - edge_end) / 8;
        let mut at = 0;
        // SAFETY: whole words within the range.
        unsafe {
            let mut wrong = _mm_setzero_si128();
            let differing = |at| _mm_xor_si128(_mm_loadu_si128(start.add(at).cast::<__m128i>()), pair);
            while at + 4 <= words {
                wrong = _mm_or_si128(wrong, _mm_or_si128(differing(at), differing(at + 2)));
                at += 4;
            }
            let mut rest = 0;
            while at < words {
                rest |= start.add(at).read() ^ self.word;
                at += 1;
            }
            let clear = _mm_movemask_epi8(_mm_cmpeq_epi8(wrong, _mm_setzero_si128())) == 0xffff;
            edges && clear && rest == 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PAGE_SIZE, PageCount};

    #[repr(align(4096))]
    struct Page([u8; PAGE_SIZE]);

    #[test]
    fn the_nearest_wrong_byte_is_named() {
        let mut page = Page([0; PAGE_SIZE]);
        let span = Span::new(Addr::of(&raw const page), PageCount::new(1));
        for (offset, size) in [(4083, 13), (4080, 13), (0, 100), (100, 0), (33, 7)] {
            let object = span.start.plus(offset);
            let slack = Slack::of(99, span, object, size, 512);
            // SAFETY: the page is ours.
            unsafe {
                slack.fill();
                assert_eq!(slack.wrong(), None);
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
