//! The arena and its tables in a process that limits its address space while it runs.
//!
//! Chunks with live objects stay, and with the one that a lane is in the next few, which the lane goes round in from
//! then on. The others are given back: they are opened never again, an address in them is not the arena's, and whoever
//! maps something there finds it left alone. Large objects get no new chunks: they are mapped alone
//! ([`detached`](super::detached)).
//!
//! | what | who might look at it meanwhile | why not when it is gone |
//! |---|---|---|
//! | a chunk, its pages' names | its lane, to open it | it is told under the lane's lock |
//! | | whoever buries a run | told under the lock of the order, in which runs are looked for |
//! | | who frees or resizes an object in it | then it has a live object and stays |
//! | a chunk's entry | as above, and who looks for the ends of a large object next to it | entries of chunks beside one that was ever used stay |
//!
//! The entries of lanes that were never used go as well: they are few bytes a chunk, but of many chunks.

use super::arena::{Arena, CHUNK_BYTES, CHUNK_PAGES, VOID};
use super::chunk::Chunk;
use super::{PageArm, lane::Lane};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::rng::Rng;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sys::vm;
use core::ops::Range;

/// Records that there is room for at least.
const LEAST_RECORDS: u64 = 4096;
/// Chunks that a lane which is kept has at least.
const LEAST_CHUNKS: usize = 4;

impl PageArm {
    /// Bytes of address space that the arena has.
    pub fn reserved(&self) -> usize {
        self.arena.each_part().map(|part| part.bytes()).fold(0, usize::saturating_add)
    }

    /// The address space of the arena.
    pub fn each_part(&self) -> impl Iterator<Item = Span> + '_ {
        self.arena.each_part()
    }

    /// The lane that a thread uses whose own is `lane`.
    pub(super) fn lane_of(&self, lane: usize) -> usize {
        let lane = lane % self.arena.lanes();
        if self.arena.is_cut() { self.arena.kept_lane(lane) } else { lane }
    }

    /// Gives back what is not in use but for a small part of `limit`, the bytes that the process may map from now on.
    /// One call at a time.
    pub fn cut(&self, limit: u64, rng: &mut Rng) {
        let lanes = self.arena.lanes();
        if self.arena.region().bytes() == 0 {
            return;
        }
        let mut used = 0_u32;
        for (number, slot) in self.lanes.iter().take(lanes).enumerate() {
            // A lane that is out of reach is left as it is.
            let is_used = slot.lane.enter().is_none_or(|lane| lane.is_used());
            used |= u32::from(is_used) << number;
        }
        let kept = if used == 0 { 1 } else { used };
        self.arena.begin_cut(kept);
        let chunks = usize::try_from(limit / 8).unwrap_or(usize::MAX) / CHUNK_BYTES;
        let share = (chunks / kept.count_ones() as usize).max(LEAST_CHUNKS);
        for number in (0..lanes).chain([VOID]) {
            let Some(mut lane) = self.lanes.get(number).and_then(|slot| slot.lane.enter()) else { continue };
            let share = match number {
                VOID => LEAST_CHUNKS,
                _ if kept & 1 << number != 0 => share,
                _ => 0,
            };
            self.arena.cut_lane(number, &mut lane, share, rng);
        }
        if let Some(mut large) = self.large.enter() {
            let looked = large.close();
            self.arena.cut_large(&looked);
        }
        let records = (limit / 40 / size_of::<crate::meta::Record>() as u64).max(LEAST_RECORDS);
        self.records.cut(u32::try_from(records).unwrap_or(u32::MAX));
    }
}

impl Arena {
    /// Whether address space was given back.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// A lane that there still is: this one, or the first.
    fn kept_lane(&self, lane: usize) -> usize {
        let kept = self.kept_lanes.load(Ordering::Relaxed);
        if kept & 1 << (lane % super::LANES) != 0 {
            lane
        } else {
            kept.trailing_zeros() as usize % super::LANES
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
        self.kept_lanes.store(kept, Ordering::Relaxed);
        if self.is_cut() {
            return;
        }
        for number in (0..self.lanes()).chain([VOID]) {
            if let Some(parts) = self.parts.get(number) {
                parts.begin(&self.chunks_of_lane(number));
            }
        }
        self.large_parts.begin(&self.large_chunks());
        self.is_cut.store(true, Ordering::Release);
    }

    /// Cuts a lane, under its lock, to what is in use and `share` chunks to go on in.
    fn cut_lane(&self, number: usize, lane: &mut Lane, share: usize, rng: &mut Rng) {
        let Some(parts) = self.parts.get(number) else { return };
        let whole = self.chunks_of_lane(number);
        let touched = lane.touched();
        let window = lane.shrink(&whole, share, rng);
        let looked = touched.start.min(window.start)..touched.end.max(window.end);
        let looked = if touched.is_empty() { window.clone() } else { looked };
        let Some(order) = self.order() else { return };
        let mut gone = Gone(self);
        let used = |chunk: usize| window.contains(&chunk) || self.is_in_use(chunk);
        let mut list = [const { 0..0 }; 2 * super::arena::LANE_PARTS];
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
        if touched.is_empty() {
            gone.entries(&(whole.start..window.start));
            gone.entries(&(window.end..whole.end));
        }
    }

    /// Cuts the area of large objects, under its lock. Only chunks of `looked` were ever used.
    fn cut_large(&self, looked: &Range<usize>) {
        let area = self.large_chunks();
        let mut gone = Gone(self);
        self.large_parts.cut(looked, |chunk| self.is_in_use(chunk), |run| gone.chunks(&run));
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
        vm::give_back(arena.chunk_span(run.start, run.len()));
        let names = arena.geometry().pages;
        give_back_whole(names, run, CHUNK_PAGES * size_of::<AtomicU32>());
    }

    /// Entries of chunks.
    fn entries(&mut self, run: &Range<usize>) {
        give_back_whole(self.0.geometry().chunks, run, size_of::<Chunk>());
    }
}

/// Gives back the whole pages of a table that have entries of `stride` bytes for `run` and no others.
fn give_back_whole(table: Addr, run: &Range<usize>, stride: usize) {
    let start = table.plus(run.start * stride).get().next_multiple_of(PAGE_SIZE);
    let end = table.plus(run.end * stride).page_floor().get();
    if let Some(bytes) = end.checked_sub(start).filter(|bytes| *bytes != 0) {
        vm::give_back(Span::new(Addr::new(start), PageCount::holding(bytes)));
    }
}
