//! The arena and its tables in a process that limits its address space while it runs.
//!
//! Chunks with live objects stay. With the chunk that a shard is in the next few stay as well, and the shard goes round
//! in these from then on. The other chunks are unmapped: they are never opened again, an address in them is not the
//! arena's, and whatever is mapped there later is left alone. Large objects get no new chunks: each is a mapping of its
//! own ([`large`](super::large)).
//!
//! | unmapped | who might use it meanwhile | why nobody does |
//! |---|---|---|
//! | a chunk, its pages' record numbers | its shard, to open it | the shard is told under its lock |
//! | | a thread that decommits a run | runs are looked for under the lock of the order, and so is the change made |
//! | | a thread that frees or resizes an object in it | the chunk has a live object then, and stays |
//! | a chunk's entry | all of these, and a thread that looks for the ends of a large object next to it | entries of chunks beside one that was ever used stay |
//!
//! The entries of shards that were never used are unmapped, too: each is a few bytes, but there are many.
//!
//! # Runs of chunks
//!
//! [`Parts`] says which chunks of a shard, or of the area of large objects, there are: one run, or a few after a cut.
//!
//! It is read without a lock at any moment. A run is one word, so no reader sees half of one. During a change no chunk
//! that stays is missing at any moment: first the runs that stay are added, then the run that they replace is removed.
//! After that runs only become shorter.

use super::PageAllocator;
use super::arena::{Arena, CHUNK_BYTES, CHUNK_PAGES, VOID};
use super::chunk::Chunk;
use super::shard::Shard;
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::rng::Rng;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::vm;
use core::ops::Range;

/// Records that there is room for at least.
const LEAST_RECORDS: u64 = 4096;
/// Chunks that a shard which is kept has at least.
const LEAST_CHUNKS: usize = 4;

impl PageAllocator {
    /// Bytes of address space that the arena has.
    pub fn reserved(&self) -> usize {
        self.arena.each_part().map(|part| part.bytes()).fold(0, usize::saturating_add)
    }

    /// The address space of the arena.
    pub fn each_part(&self) -> impl Iterator<Item = Span> + '_ {
        self.arena.each_part()
    }

    /// The shard that a thread uses whose own is `shard`.
    pub(super) fn shard_of(&self, shard: usize) -> usize {
        let shard = shard % self.arena.shards();
        if self.arena.is_cut() { self.arena.kept_shard(shard) } else { shard }
    }

    /// Gives back what is not in use but for a small part of `limit`, the bytes that the process may map from now on.
    /// One call at a time.
    pub fn cut(&self, limit: u64, rng: &mut Rng) {
        let shards = self.arena.shards();
        if self.arena.region().bytes() == 0 {
            return;
        }
        let mut used = 0_u32;
        for (number, entry) in self.shards.iter().take(shards).enumerate() {
            // A shard that is out of reach is left as it is.
            let is_used = entry.shard.enter().is_none_or(|shard| shard.is_used());
            used |= u32::from(is_used) << number;
        }
        let kept = if used == 0 { 1 } else { used };
        let is_first = !self.arena.is_cut();
        self.arena.begin_cut(kept);
        let chunks = usize::try_from(limit / 8).unwrap_or(usize::MAX) / CHUNK_BYTES;
        let share = (chunks / kept.count_ones() as usize).max(LEAST_CHUNKS);
        for number in (0..shards).chain([VOID]) {
            let Some(mut shard) = self.shards.get(number).and_then(|entry| entry.shard.enter()) else {
                continue;
            };
            let share = match number {
                VOID => LEAST_CHUNKS,
                _ if kept & 1 << number != 0 => share,
                _ => 0,
            };
            self.arena.cut_shard(number, &mut shard, share, is_first, rng);
        }
        if let Some(mut large) = self.large.enter() {
            let looked = large.close();
            self.arena.cut_large(&looked, is_first);
        }
        let records = (limit / 40 / size_of::<crate::meta::Record>() as u64).max(LEAST_RECORDS);
        self.records.cut(u32::try_from(records).unwrap_or(u32::MAX));
    }
}

impl Arena {
    /// Whether address space was unmapped.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// A shard that there still is: this one, or the first.
    fn kept_shard(&self, shard: usize) -> usize {
        let kept = self.kept_shards.load(Ordering::Relaxed);
        if kept & 1 << (shard % super::SHARDS) != 0 {
            shard
        } else {
            kept.trailing_zeros() as usize % super::SHARDS
        }
    }

    /// The address space of the arena.
    pub fn each_part(&self) -> impl Iterator<Item = Span> + '_ {
        let is_cut = self.is_cut();
        let runs = self.parts.iter().flat_map(|parts| parts.each()).chain(self.large_parts.each());
        let parts = runs.map(|run| self.chunk_span(run.start, run.len())).filter(move |_| is_cut);
        [self.region()].into_iter().filter(move |_| !is_cut).chain(parts)
    }

    /// From now on the parts say what there is: everything, at first.
    fn begin_cut(&self, kept: u32) {
        self.kept_shards.store(kept, Ordering::Relaxed);
        if self.is_cut() {
            return;
        }
        for number in (0..self.shards()).chain([VOID]) {
            if let Some(parts) = self.parts.get(number) {
                parts.begin(&self.chunks_of_shard(number));
            }
        }
        self.large_parts.begin(&self.large_chunks());
        self.is_cut.store(true, Ordering::Release);
    }

    /// Cuts a shard, under its lock, to what is in use and `share` chunks to go on in. Entries are unmapped by the first cut
    /// alone: what it unmapped is another's by the next.
    fn cut_shard(&self, number: usize, shard: &mut Shard, share: usize, is_first: bool, rng: &mut Rng) {
        let Some(parts) = self.parts.get(number) else { return };
        let whole = self.chunks_of_shard(number);
        let touched = shard.touched();
        let window = shard.shrink(&whole, share, rng);
        let looked = touched.start.min(window.start)..touched.end.max(window.end);
        let looked = if touched.is_empty() { window.clone() } else { looked };
        let Some(order) = self.order() else { return };
        let mut gone = Gone(self);
        let used = |chunk: usize| window.contains(&chunk) || self.is_in_use(chunk);
        let mut list = [const { 0..0 }; 2 * super::arena::SHARD_PARTS];
        let mut len = 0;
        parts.cut(&looked, used, |run| {
            if let Some(place) = list.get_mut(len) {
                *place = run;
                len += 1;
            }
        });
        drop(order);
        // System calls stand outside the lock.
        list.into_iter().for_each(|run| gone.chunks(&run));
        if is_first && touched.is_empty() {
            gone.entries(&(whole.start..window.start));
            gone.entries(&(window.end..whole.end));
        }
    }

    /// Cuts the area of large objects, under its lock. Only chunks of `looked` were ever used. Entries as in
    /// [`Arena::cut_shard`].
    fn cut_large(&self, looked: &Range<usize>, is_first: bool) {
        let area = self.large_chunks();
        let mut gone = Gone(self);
        self.large_parts.cut(looked, |chunk| self.is_in_use(chunk), |run| gone.chunks(&run));
        if !is_first {
            return;
        }
        let near = looked.start.saturating_sub(1)..looked.end + 1;
        if looked.is_empty() {
            gone.entries(&area);
        } else {
            gone.entries(&(area.start..near.start.max(area.start)));
            gone.entries(&(near.end.min(area.end)..area.end));
        }
    }
}

/// Gives parts of the arena back.
struct Gone<'a>(&'a Arena);

impl Gone<'_> {
    /// Chunks, and the names of their pages.
    fn chunks(&mut self, run: &Range<usize>) {
        if run.is_empty() {
            return;
        }
        let arena = self.0;
        vm::unreserve(arena.chunk_span(run.start, run.len()));
        let names = arena.geometry().pages;
        release_whole(names, run, CHUNK_PAGES * size_of::<AtomicU32>());
    }

    /// Entries of chunks.
    fn entries(&mut self, run: &Range<usize>) {
        release_whole(self.0.geometry().chunks, run, size_of::<Chunk>());
    }
}

/// Gives back the whole pages of a table that have entries of `stride` bytes for `run` and no others.
fn release_whole(table: Addr, run: &Range<usize>, stride: usize) {
    let start = table.plus(run.start * stride).get().next_multiple_of(PAGE_SIZE);
    let end = table.plus(run.end * stride).page_floor().get();
    if let Some(bytes) = end.checked_sub(start).filter(|bytes| *bytes != 0) {
        vm::unreserve(Span::new(Addr::new(start), PageCount::holding(bytes)));
    }
}

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
