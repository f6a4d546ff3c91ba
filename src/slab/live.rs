//! What is alive in the slab arm, for the search for leaks.

use super::cache;
use super::layout::layout;
use super::{central, front};
use crate::addr::Addr;
use core::ops::Range;

/// The live object that `address` points into: its start and its size.
pub fn around(address: Addr) -> Option<(Addr, usize)> {
    let place = cache::place(address)?;
    let info = layout().classes.get(place.class)?;
    if place.slot >> info.slab_shift >= info.slabs() {
        return None;
    }
    let state = info.state_of(place.slot);
    let size = state.is_live().then(|| info.size.checked_sub(state.slack())).flatten()?;
    (place.into < size.max(1)).then(|| (Addr::new(info.address(place.slot)), size))
}

/// Calls `visit` with the start and the size of every live object.
pub fn each(mut visit: impl FnMut(Addr, usize)) {
    for (class, info) in layout().classes.iter().enumerate() {
        for slot in central::opened_slots(class) {
            let state = info.state_of(slot);
            if let Some(size) = info.size.checked_sub(state.slack()).filter(|_| state.is_live()) {
                visit(Addr::new(info.address(slot)), size);
            }
        }
    }
}

/// From the front, or the first region, to the end of the last.
pub fn region() -> Range<usize> {
    let front = front();
    front.start..front.end.saturating_add(layout().span)
}

/// The front; nothing before the first region where there is none.
fn front() -> Range<usize> {
    let layout = layout();
    let end = layout.base.wrapping_add(front::BYTES);
    if layout.has_front { layout.base..end } else { end..end }
}

/// Where slots lie: one range, or the front and what each class has left.
pub fn regions() -> impl Iterator<Item = Range<usize>> {
    let is_cut = super::cut::is_cut();
    let each = layout().classes.iter().map(super::cut::kept).filter(move |_| is_cut);
    [if is_cut { front() } else { region() }].into_iter().chain(each)
}
