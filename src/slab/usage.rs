//! What the arm holds and what of it is in use, counted when it is asked for.

use super::layout::layout;
use super::{central, class};

/// Figures of all classes. Other threads may go on meanwhile: the sum is then of slightly different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live objects.
    pub objects: usize,
    /// Bytes that were asked for, of all live objects.
    pub bytes: usize,
    /// Bytes of the slabs that hold memory.
    pub held: usize,
    /// Bytes of those of them that have no slot in use.
    pub spare: usize,
    /// Slots of held slabs that no object has, those in caches and quarantines included.
    pub free_slots: usize,
}

/// Counts everything.
pub fn count() -> Usage {
    let mut usage = Usage::default();
    for class in 0..class::COUNT {
        let slabs = central::held(class);
        let Some(info) = layout().classes.get(class) else { continue };
        let slab_bytes = info.size << info.slab_shift;
        let slots = info.usable_end.saturating_sub(1) as usize;
        usage.held = usage.held.saturating_add((slabs.active as usize).saturating_mul(slab_bytes));
        usage.spare = usage.spare.saturating_add((slabs.spare as usize).saturating_mul(slab_bytes));
        let mut live = 0_usize;
        let mut slab = 0;
        while let Some(slots) = central::handed_out(class, slab) {
            for state in slots.map(|slot| info.state_of(slot)).filter(|state| state.is_live()) {
                live += 1;
                usage.bytes = usage.bytes.saturating_add(info.size.saturating_sub(state.slack()));
            }
            slab += 1;
        }
        usage.objects += live;
        usage.free_slots += (slabs.active as usize).saturating_mul(slots).saturating_sub(live);
    }
    usage
}
