//! Which chunks of a lane, or of the area of large objects, there are: one run, or a few once address space was given
//! back.
//!
//! Read without a lock at any moment. One word a run, so that a reader never sees the half of one. A list is changed
//! in an order in which no chunk that stays is missing at any moment: first the runs that stay are added, then the run
//! that they replace is taken out; after that runs become shorter and never longer.

use crate::sync::atomic::{AtomicU64, Ordering};
use core::ops::Range;

/// Runs of chunks; at most `N`, one of which is needed to replace another.
pub struct Parts<const N: usize>([AtomicU64; N]);

fn pack(run: &Range<usize>) -> u64 {
    (run.start as u64) << 32 | run.end as u64
}

fn unpack(word: u64) -> Range<usize> {
    (word >> 32) as usize..(word & u64::from(u32::MAX)) as usize
}

impl<const N: usize> Parts<N> {
    /// None.
    pub const NONE: Self = Self([const { AtomicU64::new(0) }; N]);

    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().map(|word| unpack(word.load(Ordering::Acquire))).filter(|run| !run.is_empty())
    }

    /// Whether a chunk is there.
    pub fn have(&self, chunk: usize) -> bool {
        self.each().any(|run| run.contains(&chunk))
    }

    /// Makes one run of them all, before anybody else looks.
    pub fn begin(&self, run: &Range<usize>) {
        if let Some(word) = self.0.first() {
            word.store(pack(run), Ordering::Release);
        }
    }

    /// Takes everything away but the chunks that are `used`; hands what goes to `gone`, after it went. Only chunks of
    /// `looked` can be in use. Where the list is too short to have every gap the smallest ones stay.
    pub fn cut(
        &self,
        looked: &Range<usize>,
        used: impl Fn(usize) -> bool,
        mut gone: impl FnMut(Range<usize>),
    ) {
        let is_whole = self.0.iter().skip(1).all(|word| word.load(Ordering::Relaxed) == 0);
        if !is_whole {
            return self.shorten(used, gone);
        }
        let Some(first) = self.0.first() else { return };
        let whole = unpack(first.load(Ordering::Relaxed));
        let looked = looked.start.max(whole.start)..looked.end.min(whole.end);
        // Gaps of so many chunks and fewer stay.
        let mut bridged = 0;
        while Runs::of(&looked, &used, bridged).count() >= N {
            bridged = bridged * 2 + 1;
        }
        let runs = || Runs::of(&looked, &used, bridged);
        for (word, run) in self.0.iter().skip(1).zip(runs()) {
            word.store(pack(&run), Ordering::Release);
        }
        first.store(0, Ordering::Release);
        let mut at = whole.start;
        for run in runs() {
            gone(at..run.start);
            at = run.end;
        }
        gone(at..whole.end);
    }

    /// Takes unused chunks away from both ends of each run.
    fn shorten(&self, used: impl Fn(usize) -> bool, mut gone: impl FnMut(Range<usize>)) {
        for word in &self.0 {
            let run = unpack(word.load(Ordering::Relaxed));
            let start = run.clone().find(|chunk| used(*chunk)).unwrap_or(run.end);
            let end = (start..run.end).rev().find(|chunk| used(*chunk)).map_or(start, |last| last + 1);
            word.store(if start == end { 0 } else { pack(&(start..end)) }, Ordering::Release);
            gone(run.start..start);
            gone(end..run.end);
        }
    }
}

/// Runs of used chunks in ascending order, joined over gaps of `bridged` chunks at most.
struct Runs<'a, F> {
    left: Range<usize>,
    used: &'a F,
    bridged: usize,
}

impl<'a, F: Fn(usize) -> bool> Runs<'a, F> {
    fn of(looked: &Range<usize>, used: &'a F, bridged: usize) -> Self {
        Self { left: looked.clone(), used, bridged }
    }
}

impl<F: Fn(usize) -> bool> Iterator for Runs<'_, F> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.left.find(|chunk| (self.used)(*chunk))?;
        let mut end = start + 1;
        for chunk in self.left.by_ref() {
            if (self.used)(chunk) {
                end = chunk + 1;
            } else if chunk >= end + self.bridged {
                break;
            }
        }
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn of(runs: &[Range<usize>]) -> BTreeSet<usize> {
        runs.iter().cloned().flatten().collect()
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes_once() {
        let used = of(&[100..101, 103..110, 190..191, 500..640]);
        let parts: Parts<8> = Parts::NONE;
        parts.begin(&(90..1000));
        let mut gone = Vec::new();
        parts.cut(&(95..700), |chunk| used.contains(&chunk), |run| gone.push(run));
        assert_eq!(of(&parts.each().collect::<Vec<_>>()), used);
        assert_eq!(of(&gone).len() + used.len(), 910);
        assert!(used.iter().all(|chunk| parts.have(*chunk)) && !parts.have(102) && !parts.have(95));

        // Less is used later: the ends go, and nothing comes back.
        let later = of(&[104..106, 600..601]);
        let mut gone = Vec::new();
        parts.cut(&(0..1000), |chunk| later.contains(&chunk), |run| gone.push(run));
        assert_eq!(of(&parts.each().collect::<Vec<_>>()), later);
        assert_eq!(of(&gone).len() + later.len(), used.len());
    }

    #[test]
    fn small_gaps_stay_where_the_list_is_short() {
        let parts: Parts<3> = Parts::NONE;
        parts.begin(&(0..100));
        let used = of(&[0..1, 2..3, 4..5, 90..91]);
        let mut gone = Vec::new();
        parts.cut(&(0..100), |chunk| used.contains(&chunk), |run| gone.push(run));
        assert_eq!(parts.each().collect::<Vec<_>>(), [0..5, 90..91]);
        assert_eq!(of(&gone), of(&[5..90, 91..100]));
    }

    #[test]
    fn nothing_used_leaves_nothing() {
        let parts: Parts<3> = Parts::NONE;
        parts.begin(&(10..20));
        let mut gone = Vec::new();
        parts.cut(&(10..20), |_| false, |run| gone.push(run));
        assert_eq!((parts.each().count(), gone), (0, std::vec![10..20]));
    }
}
