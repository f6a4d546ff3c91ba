//! The slab arm: small objects in slots of size classes, for production.
//!
//! - [`class`]: slot sizes, pure.
//! - [`layout`]: where regions, slots and their states lie; address to slot.
//! - [`store`]: a class's slabs; [`central`]: all stores, under their locks; [`parked`]: what could not be given to one.
//! - [`cut`]: what happens to regions and tables when the process limits its address space.
//! - [`depot`]: batches of freed slots on their way from one thread to another.
//! - [`cache`]: a thread's free slots and the fast paths; [`exchange`]: what it takes from and gives to the
//!   central store; [`misuse`]: what is wrong with a slot.
//! - [`warm`]: which freed large slots keep their memory.
//! - [`canary`], [`bytes`]: what lies in slack and in freed slots.
//! - [`sweep`]: the check of everything; [`live`]: what is handed out; [`usage`]: figures.
//!
//! Invariants:
//! 1. The slabs hold nothing but the program's bytes, canaries and zeros; every decision is made from
//!    the state table.
//! 2. The last word of a slot that was handed out since its slab was last emptied is its canary, live
//!    or free; so is the last word of the slot before it.
//! 3. A slot in state `FREED` is clear but for that word.

mod bytes;
pub mod cache;
mod canary;
pub mod central;
pub mod class;
pub mod cut;
mod depot;
mod exchange;
pub mod layout;
pub mod live;
pub mod misuse;
mod parked;
mod store;
pub mod sweep;
pub mod usage;
mod warm;

pub use cache::Cache;
pub use layout::{ClassGeometry, Config, Place, Protection, SlotState};

use crate::addr::Addr;
use crate::fault::Object;
use crate::rng::Rng;

/// Reserves everything. `false` if there is not even address space for the smallest arena. Called
/// once, before the first allocation.
pub fn init(config: Config, rng: &mut Rng) -> bool {
    let made = layout::init(config, rng);
    central::init();
    made
}

/// The requested size of the live object at `place`, which must be its start.
#[inline(always)]
pub fn live_size(place: Place) -> Option<usize> {
    let info = layout::layout().classes.get(place.class)?;
    let state = info.load(place.slot);
    (place.into == 0 && state.is_live()).then(|| info.size - state.slack())
}

/// The object nearest to `address` in its slab, for reports.
pub fn object_near(address: Addr) -> Option<Object> {
    let layout = layout::layout();
    let place = layout::locate(layout, address.get())?;
    layout::object_at(layout, place).or_else(|| {
        let before = Place { slot: place.slot.checked_sub(1)?, into: 0, ..place };
        layout::object_at(layout, before)
    })
}

/// Whether `address` lies in the regions.
pub fn contains(address: Addr) -> bool {
    cache::place(address).is_some()
}

/// Names another family as the allocator of the live object at `place`.
pub fn set_origin(place: Place, origin: crate::request::Origin) {
    if let Some(info) = layout::layout().classes.get(place.class) {
        let state = info.load(place.slot);
        if place.into == 0 && state.is_live() {
            info.store(place.slot, layout::SlotState::live(state.slack(), origin));
        }
    }
}
