//! Regions and tables in a process that limits its address space while it runs.
//!
//! Each class keeps the slabs that were opened and a few more, as under a limit from the start. The rest of its region
//! and of its table is unmapped. Whatever is mapped there later does not belong to the heap:
//!
//! ```text
//! region:  | gone | slab 0 | slab 1 | ... | slab n | gone |
//! table:   | gone | block n | ... | block 0 | states | gone |
//! ```
//!
//! Other threads go on meanwhile. The order of the steps keeps them safe. First the class is told how many slabs it
//! has, under its lock, under which slabs are planned. From then on no thread opens a slab beyond that number, and no
//! address beyond it is taken for a slot ([`ClassInfo::is_beyond`]; the fast paths leave the regions to the general
//! ones). Only then is the rest unmapped. No slot there was ever allocated, so no correct program has a pointer to one.
//! What the kernel refuses to unmap stays, unused.

use super::layout::{self, ClassInfo, WHOLE, block_bytes, layout, table_of};
use super::{central, class, front};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::sys::vm;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether regions were cut.
static CUT: AtomicBool = AtomicBool::new(false);

/// Whether regions were cut: they are no longer one range.
pub fn is_cut() -> bool {
    CUT.load(Ordering::Acquire)
}

/// What a class has of its region; the front is not in it.
pub fn kept(info: &ClassInfo) -> Range<usize> {
    info.start..info.start.saturating_add(info.slabs() as usize * (info.size << info.slab_shift))
}

/// Bytes that the regions have.
pub fn reserved() -> usize {
    let front = if layout().has_front { front::BYTES } else { 0 };
    layout().classes.iter().map(|info| kept(info).len()).fold(front, usize::saturating_add)
}

/// What a class had before it was cut: slabs, and whether its region was whole.
#[derive(Clone, Copy)]
struct Before {
    slabs: u32,
    whole: bool,
}

/// Cuts everything to what is in use and a small part of `limit`, the bytes that the process may map from now on.
/// One call at a time.
pub fn cut(limit: u64) {
    let layout = layout();
    // Nothing was reserved, or the layout stays sealed: then there is nothing to be done.
    if layout.span == 0 || !vm::commit(layout::constants()) {
        return;
    }
    CUT.store(true, Ordering::Release);
    for span in &layout.fast_spans {
        span.store(0, Ordering::Release);
    }
    let mut before = [None; class::COUNT];
    for (class, (info, before)) in layout.classes.iter().zip(&mut before).enumerate() {
        *before = central::with_opened(class, |opened| tell(info, opened, limit)).flatten();
    }
    vm::seal(layout::constants());
    let mut regions = Gaps::NONE;
    let mut tables = Gaps::NONE;
    let mut table = layout.tables;
    for (class, (info, before)) in layout.classes.iter().zip(before).enumerate() {
        let (states, table_end) = table_of(class, layout.region_shift, table);
        if let Some(before) = before {
            let region = layout.regions + (class << layout.region_shift);
            unmap_region(info, before, region..region + layout.region_mask + 1, &mut regions);
            unmap_table(info, before, states, table..table_end, &mut tables);
        }
        table = table_end;
    }
    regions.end();
    tables.end();
}

/// Tells a class how many slabs it has from now on; what it had, or `None` if it has no more than that.
fn tell(info: &ClassInfo, opened: u32, limit: u64) -> Option<Before> {
    let slab_bytes = (info.size << info.slab_shift) as u64;
    let more = layout::share_of(limit).max(1 << layout::least_shift(limit)) / slab_bytes;
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    let before = Before { slabs: info.slabs(), whole: info.end.load(Ordering::Relaxed) == WHOLE };
    let slabs = opened.saturating_add(more).min(before.slabs);
    if slabs == before.slabs && !before.whole {
        return None;
    }
    info.slabs.store(slabs, Ordering::Relaxed);
    info.end.store(slabs << info.slab_shift, Ordering::Release);
    Some(before)
}

fn unmap_region(info: &ClassInfo, before: Before, region: Range<usize>, gaps: &mut Gaps) {
    let kept = kept(info);
    let had = before.slabs as usize * (info.size << info.slab_shift);
    if before.whole {
        gaps.add(region.start..kept.start);
        gaps.add(kept.end..region.end);
    } else {
        gaps.add(kept.end..info.start + had);
    }
}

fn unmap_table(info: &ClassInfo, before: Before, states: usize, table: Range<usize>, gaps: &mut Gaps) {
    let below = |slabs: u32| states - slabs as usize * block_bytes(info.slab_shift);
    let above = |slabs: u32| states + ((slabs as usize) << info.slab_shift) * size_of::<u16>();
    let (slabs, had) = (info.slabs(), before.slabs);
    if before.whole {
        gaps.add(table.start..below(slabs));
        gaps.add(above(slabs)..table.end);
    } else {
        gaps.add(below(had)..below(slabs));
        gaps.add(above(slabs)..above(had));
    }
}

/// What is to be unmapped, in ascending order: neighbours go together, and only whole pages.
struct Gaps(Range<usize>);

impl Gaps {
    const NONE: Self = Self(0..0);

    fn add(&mut self, gap: Range<usize>) {
        if gap.is_empty() {
            return;
        }
        if gap.start != self.0.end {
            self.end();
            self.0.start = gap.start;
        }
        self.0.end = gap.end;
    }

    fn end(&mut self) {
        let start = self.0.start.next_multiple_of(PAGE_SIZE);
        let end = self.0.end / PAGE_SIZE * PAGE_SIZE;
        if let Some(bytes) = end.checked_sub(start).filter(|bytes| *bytes != 0) {
            vm::unreserve(Span::new(Addr::new(start), PageCount::holding(bytes)));
        }
        self.0 = 0..0;
    }
}
