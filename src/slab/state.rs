//! The state of a slot: two bytes in its class's table.

use super::{class, look};
use crate::request::Origin;
use core::arch::asm;
use core::sync::atomic::{AtomicU16, Ordering, fence};

/// A slot's state.
///
/// | bits | meaning |
/// |---|---|
/// | 0 | fresh: never allocated; the memory may never have been touched |
/// | `0x8000` | released: freed, and its slab's memory was released since |
/// | `0x2000` | busy: a thread is handing it out or freeing it |
/// | `0x4000` | live or freed, and claimed by a sweep: see [`look`](super::look) |
/// | `0x6000` | live, with bytes that the program poisoned: see [`poison`](super::poison) |
/// | `origin << 13 \| slack - 7` | live; the low part is never 0 |
/// | `0x8000 \| origin << 13 \| slack - 7` | freed: cleared, last word is the canary |
/// | the same, with more slack than the slot has bytes | readied: as if freed, and no object was ever in it |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct SlotState(u16);

impl SlotState {
    /// Never allocated.
    pub const FRESH: Self = Self(0);
    /// Freed, memory released.
    pub const RELEASED: Self = Self(Self::FREED_BIT);
    /// In a thread's hands. Threads that a forked child does not have leave slots in this state.
    pub const BUSY: Self = Self(1 << Self::ORIGIN_SHIFT);
    /// Claimed by a sweep; [`ClassInfo::state_of`] says what it stands for.
    pub const LOOKED: Self = Self(look::LOOKED);
    /// Live, and not as the fast paths know it, since the object has poisoned bytes; [`ClassInfo::state_of`] says what it stands
    /// for.
    pub const POISONED: Self = Self(3 << Self::ORIGIN_SHIFT);
    /// Whether it stands for another: [`SlotState::LOOKED`] or [`SlotState::POISONED`].
    #[inline(always)]
    pub const fn is_covered(self) -> bool {
        self.0 & !Self::BUSY.0 == Self::LOOKED.0
    }

    /// The state with this bit pattern.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bit pattern.
    pub const fn bits(self) -> u16 {
        self.0
    }

    const FREED_BIT: u16 = 1 << 15;
    const ORIGIN_SHIFT: u32 = 13;
    const SLACK_MASK: u16 = (1 << Self::ORIGIN_SHIFT) - 1;
    const SLACK_BASE: u16 = class::TAIL as u16 - 1;

    /// Live with this slack, at least [`class::TAIL`] and at most [`class::MAX_SLACK`].
    #[inline(always)]
    pub const fn live(slack: usize, origin: Origin) -> Self {
        Self((origin as u16) << Self::ORIGIN_SHIFT | slack.wrapping_sub(Self::SLACK_BASE as usize) as u16)
    }

    /// Bytes of the slack of a live slot of this origin before its last [`class::TAIL`], if all of it is at most `most`.
    #[inline(always)]
    pub const fn live_over_up_to(self, most: usize, origin: Origin) -> Option<usize> {
        let tag = (origin as u16) << Self::ORIGIN_SHIFT;
        let over = self.0.wrapping_sub(tag).wrapping_sub(1) as usize;
        if over <= most - class::TAIL { Some(over) } else { None }
    }

    /// Freed after having been live in state `self`.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self(self.0 | Self::FREED_BIT)
    }

    /// As if freed, without ever having been live, in a class with slots of `size` bytes: one of the small ones.
    pub const fn readied(size: usize) -> Self {
        Self::live(size + 1, Origin::Malloc).freed()
    }

    /// Whether the slot, of `size` bytes, was readied and never live.
    pub const fn is_readied(self, size: usize) -> bool {
        self.is_freed() && self.slack() > size
    }

    /// Whether the slot is allocated.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        (self.0 & (Self::FREED_BIT | Self::SLACK_MASK)).wrapping_sub(1) < Self::SLACK_MASK
    }

    /// Bytes of the slot behind the object of a live slot, `None` of others.
    #[inline(always)]
    pub const fn live_slack(self) -> Option<usize> {
        // Not in 16 bits, which takes more instructions.
        let low = self.0 as usize & (Self::FREED_BIT | Self::SLACK_MASK) as usize;
        if low.wrapping_sub(1) < Self::SLACK_MASK as usize {
            Some(low + Self::SLACK_BASE as usize)
        } else {
            None
        }
    }

    /// Whether the slot was freed and still has its memory.
    #[inline(always)]
    pub const fn is_freed(self) -> bool {
        self.0 > Self::FREED_BIT
    }

    /// Whether the slot's memory is as the kernel gave it, or was released.
    pub const fn is_untouched(self) -> bool {
        matches!(self, Self::FRESH | Self::RELEASED)
    }

    /// Bytes of the slot behind the object; meaningful for live and freed slots.
    #[inline(always)]
    pub const fn slack(self) -> usize {
        ((self.0 & Self::SLACK_MASK) + Self::SLACK_BASE) as usize
    }

    /// Who allocated; meaningful for live and freed slots.
    #[inline(always)]
    pub const fn origin(self) -> Origin {
        Origin::from_tag((self.0 >> Self::ORIGIN_SHIFT) as u8)
    }
}

/// The place of a slot's state in its table. Fast paths look it up once.
#[derive(Clone, Copy)]
pub struct StateCell(&'static AtomicU16);

impl StateCell {
    /// The place of this state.
    #[inline(always)]
    pub const fn new(word: &'static AtomicU16) -> Self {
        Self(word)
    }

    /// The state's word, for a sweep's claim.
    pub fn word(self) -> &'static AtomicU16 {
        self.0
    }

    /// Replaces the state `from` by `to`; whether it was that.
    pub fn exchange(self, from: SlotState, to: SlotState) -> bool {
        self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The state.
    #[inline(always)]
    pub fn load(self) -> SlotState {
        SlotState(self.0.load(Ordering::Relaxed))
    }

    /// Whether the state is that of a freed slot which still has its memory, for the fast paths.
    #[inline(always)]
    pub fn is_of_freed(self) -> bool {
        // SAFETY: reads the state at once, as an instruction of the processor does.
        unsafe {
            asm!(
                "cmp word ptr [{state}], {released}",
                "jbe {other}",
                state = in(reg) self.0.as_ptr(),
                released = const SlotState::FREED_BIT.cast_signed(),
                other = label { return false },
                options(nostack, readonly),
            );
        }
        true
    }

    /// Sets the state, after everything that was written to the slot before.
    #[inline(always)]
    pub fn store(self, state: SlotState) {
        self.0.store(state.0, Ordering::Release);
    }

    /// Marks the slot busy, after what was written to it before and before what is afterwards: a fork or a sweep at
    /// any moment finds no slot half changed in another state.
    #[inline(always)]
    pub fn store_busy(self) {
        self.0.store(SlotState::BUSY.0, Ordering::Release);
        // No instruction on x86.
        fence(Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::slab::class::object;

    #[test]
    fn states_are_told_apart() {
        for origin in [Origin::Malloc, Origin::New, Origin::NewArray, Origin::Rust] {
            for slack in [class::TAIL, class::TAIL + 1, 100, class::MAX_SLACK] {
                let live = SlotState::live(slack, origin);
                let freed = live.freed();
                assert!(live.is_live() && !live.is_freed() && freed.is_freed() && !freed.is_live());
                assert!(!live.is_covered() && !freed.is_covered());
                assert_eq!((live.slack(), live.origin()), (slack, origin));
                let expected = (slack <= class::SMALL_SLACK).then(|| slack - class::TAIL);
                assert_eq!(live.live_over_up_to(class::SMALL_SLACK, origin), expected);
                assert_eq!(freed.live_over_up_to(class::SMALL_SLACK, origin), None);
                assert_eq!((live.live_slack(), freed.live_slack()), (Some(slack), None));
                assert!(!live.is_readied(class::MAX_SLACK) && !freed.is_readied(class::MAX_SLACK));
                assert_eq!((freed.slack(), freed.origin()), (slack, origin));
            }
        }
        for class in 0..class::SMALL_COUNT {
            let readied = SlotState::readied(class::size(class));
            assert!(readied.is_freed() && readied.is_readied(class::size(class)) && !readied.is_live());
            assert!(object(Addr::NULL, class::size(class), readied).is_none());
        }
        for other in
            [SlotState::FRESH, SlotState::RELEASED, SlotState::BUSY, SlotState::LOOKED, SlotState::POISONED]
        {
            assert!(!other.is_live() && !other.is_freed() && other.live_slack().is_none());
            assert_eq!(other.is_covered(), matches!(other, SlotState::LOOKED | SlotState::POISONED));
            for origin in [Origin::Malloc, Origin::New, Origin::NewArray, Origin::Rust] {
                assert_eq!(other.live_over_up_to(class::SMALL_SLACK, origin), None);
            }
        }
    }
}
