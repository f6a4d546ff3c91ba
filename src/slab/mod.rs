//! The slab allocator: small objects in slots of size classes, for production.
//!
//! - [`class`]: slot sizes; from an address to a slot.
//! - [`layout`]: where regions, slots and their states lie. [`state`]: the state of a slot.
//! - [`front`]: where the first slabs of small classes lie. [`owners`]: which class owns a page of it.
//! - [`store`]: a class's slabs; [`central`]: all stores, under their locks; [`deferred`]: frees that could not reach a
//!   store.
//! - [`cut`]: what happens to regions and tables when the process limits its address space.
//! - [`quarantine`]: freed slots that wait for their next use. [`fifo`]: its queue; [`magazine`]: the unit of the
//!   queue; [`transfer`]: the transfer cache, for magazines that left the queue.
//! - [`cache`]: a thread's free slots; [`bin`]: its lists of each class; [`fast`]: the fast paths; [`refill`]: refill
//!   and flush; [`misuse`]: diagnosis of a slot.
//! - [`warm`]: which freed large slots keep their memory.
//! - [`canary`], [`bytes`]: the contents of slack and of freed slots.
//! - [`sweep`]: the check of all slots, and [`look`], how it looks at slots in use.
//! - [`lookup`]: live objects, accessible bytes, figures. [`poison`]: bytes of an object that nobody may access.
//!
//! Invariants:
//! 1. The slabs hold nothing but the program's bytes, canaries and zeros. Every decision is made from the state table.
//! 2. With canaries: once a slot was allocated since its slab was last emptied, its last word is its canary, whether
//!    the slot is live or free. The last word of the slot before it is a canary as well. [`canary`] says who may access
//!    these words.
//! 3. With clearing: a freed slot is zero, apart from its last word.

#[cfg(test)]
#[path = "../../tests/unit/slab.rs"]
mod tests;

mod bin;
mod bytes;
pub mod cache;
mod canary;
pub mod central;
pub mod class;
pub mod cut;
mod deferred;
mod fast;
mod fifo;
pub mod front;
pub mod layout;
mod look;
pub mod lookup;
mod magazine;
pub mod misuse;
mod owners;
pub mod poison;
mod quarantine;
mod refill;
mod state;
mod store;
pub mod sweep;
mod transfer;
mod warm;

pub use cache::Cache;
pub use class::Place;
pub use layout::{ClassGeometry, Config, Protection, constants, wanted};
pub use lookup::{holds, object_meant, room};
pub use state::SlotState;

use crate::addr::Addr;
use crate::canary::Content;
use crate::fault::Object;
use crate::rng::Rng;

/// Reserves everything, with a quarantine of so many bytes. `false` if there is not even address space for the smallest
/// arena. Called once, before the first allocation.
pub fn init(config: Config, quarantine: usize, rng: &mut Rng) -> bool {
    let made = layout::init(config, rng);
    central::init(config.backend);
    quarantine::init(quarantine, config.limit);
    made
}

/// The requested size of the live object at `place`, which must be its start.
#[inline(always)]
pub fn live_size(place: Place) -> Option<usize> {
    let info = layout::layout().classes.get(place.class)?;
    let state = info.state_of(place.slot);
    (place.into == 0 && state.is_live()).then(|| info.size - state.slack())
}

/// The requested size of the live object at `place`, which must be its start, and who allocated it.
#[inline(always)]
pub fn live(place: Place) -> Option<(usize, crate::request::Origin)> {
    let info = layout::layout().classes.get(place.class)?;
    let state = info.state_of(place.slot);
    (place.into == 0 && state.is_live()).then(|| (info.size - state.slack(), state.origin()))
}

/// The object whose slot `address` lies in, else the nearest one, for reports.
pub fn object_near(address: Addr) -> Option<Object> {
    let layout = layout::layout();
    let place = class::locate(layout, address.get())?;
    let info = layout.classes.get(place.class)?;
    // What lies below slot 0 has numbers that no slab has, and so has what lies beside the slab in the front.
    let slot = match place.slot >> info.slab_shift < info.slabs() {
        true => place.slot,
        false if address.get().wrapping_sub(layout.base) < front::BYTES => info.front_end,
        false if address.get() < info.start => 0,
        false => place.slot,
    };
    class::object_at(layout, place).or_else(|| misuse::nearest(info, slot, address, address))
}

/// What the allocator itself put at `address`, for a dump of the memory around `object`.
pub fn content(address: Addr, object: Option<&Object>) -> Content {
    let layout = layout::layout();
    let Some(place) = class::locate(layout, address.get()) else { return Content::Program };
    match layout.classes.get(place.class) {
        Some(info) if place.slot >> info.slab_shift < info.slabs() => misuse::content(info, place, object),
        _ => Content::Program,
    }
}

/// Whether `address` lies in the regions.
pub fn contains(address: Addr) -> bool {
    cache::place(address).is_some()
}

/// Names another family as the allocator of the live object at `place`.
pub fn set_origin(place: Place, origin: crate::request::Origin) {
    if let Some(info) = layout::layout().classes.get(place.class) {
        let state = info.state_of(place.slot);
        if place.into == 0 && state.is_live() {
            info.store(place.slot, SlotState::live(state.slack(), origin));
        }
    }
}
