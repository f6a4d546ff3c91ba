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
        let slots = info.usable_end(1).saturating_sub(1) as usize;
        // The one in the front may be shorter.
        let in_front = central::handed_out(class, 0).is_some_and(|slots| !slots.is_empty());
        let (short_bytes, short_slots) = match in_front {
            true => (slab_bytes - info.slab_bytes(0), (info.usable_end(1) - info.usable_end(0)) as usize),
            false => (0, 0),
        };
        let held = (slabs.active as usize).saturating_mul(slab_bytes).saturating_sub(short_bytes);
        usage.held = usage.held.saturating_add(held);
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
        let held = (slabs.active as usize).saturating_mul(slots).saturating_sub(short_slots);
        usage.free_slots += held.saturating_sub(live);
    }
    usage
}
