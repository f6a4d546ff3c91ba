//! In the place of the slab allocator, for `slab/poison.rs`: one slot and its state.

#[path = "../../src/slab/poison.rs"]
pub mod poison;

use state::SlotState;

/// The region: a page, of which the slot is the first bytes.
pub const START: usize = 0x7000_0000_0000;
pub const SIZE: usize = 128;

/// The slot's state, of which there is one in each execution.
static STATE: crate::sync::atomic::AtomicU16 = crate::sync::atomic::AtomicU16::new(0);

pub mod state {
    use crate::sync::atomic::{AtomicU16, Ordering};

    /// As `src/slab/state.rs` has it, as far as it is used here.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SlotState(pub u16);

    impl SlotState {
        pub const FREE: Self = Self(0x8005);
        pub const BUSY: Self = Self(0x2000);
        pub const LIVE: Self = Self(5);
        pub const POISONED: Self = Self(0x6000);

        pub fn is_live(self) -> bool {
            self == Self::LIVE
        }

        pub fn is_covered(self) -> bool {
            self == Self::POISONED
        }

        pub fn bits(self) -> u16 {
            self.0
        }
    }

    #[derive(Clone, Copy)]
    pub struct StateCell(pub &'static AtomicU16);

    impl StateCell {
        pub fn load(self) -> SlotState {
            SlotState(self.0.load(Ordering::Relaxed))
        }

        pub fn store(self, state: SlotState) {
            self.0.store(state.0, Ordering::Release);
        }

        pub fn exchange(self, from: SlotState, to: SlotState) -> bool {
            self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        }
    }
}

pub mod layout {
    use super::state::{SlotState, StateCell};
    use crate::meta::poison;
    use crate::sync::atomic::{Ordering, fence};

    /// As `src/slab/layout.rs` has it, as far as it is used here.
    pub struct ClassInfo {
        pub size: usize,
    }

    pub struct Layout {
        pub classes: [ClassInfo; 1],
    }

    pub fn layout() -> &'static Layout {
        &Layout { classes: [ClassInfo { size: super::SIZE }] }
    }

    impl ClassInfo {
        pub fn state(&self, _: u32) -> StateCell {
            StateCell(&super::STATE)
        }

        pub fn load(&self, slot: u32) -> SlotState {
            self.state(slot).load()
        }

        pub fn address(&self, _: u32) -> usize {
            super::START
        }

        pub fn unpoisoned(&self, slot: u32, state: SlotState) -> SlotState {
            match state {
                SlotState::POISONED => {
                    fence(Ordering::Acquire);
                    SlotState(poison::SLOTS.saved(self.address(slot)))
                }
                other => other,
            }
        }

        pub fn state_of(&self, slot: u32) -> SlotState {
            loop {
                let state = self.load(slot);
                if !state.is_covered() {
                    return state;
                }
                let saved = self.unpoisoned(slot, state);
                if self.load(slot).is_covered() {
                    return saved;
                }
            }
        }
    }
}

pub mod lookup {
    use crate::addr::Addr;
    use std::ops::Range;

    pub fn region() -> Range<usize> {
        super::START..super::START + crate::addr::PAGE_SIZE
    }

    pub fn around(_: Addr) -> Option<(Addr, usize)> {
        Some((Addr::new(super::START), super::SIZE))
    }
}

pub mod class {
    use super::layout::Layout;

    #[derive(Clone, Copy)]
    pub struct Place {
        pub class: usize,
        pub slot: u32,
        pub into: usize,
    }

    pub fn locate(_: &Layout, address: usize) -> Option<Place> {
        Some(Place { class: 0, slot: 0, into: address - super::START })
    }
}

pub const PLACE: class::Place = class::Place { class: 0, slot: 0, into: 0 };

pub fn info() -> &'static layout::ClassInfo {
    &layout::layout().classes[0]
}

/// As the slot's owner frees it: its poison ends first.
pub fn free() {
    let cell = info().state(0);
    loop {
        match cell.load() {
            SlotState::POISONED => poison::end(PLACE),
            live => {
                if cell.exchange(live, SlotState::BUSY) {
                    break;
                }
            }
        }
    }
    cell.store(SlotState::FREE);
}
