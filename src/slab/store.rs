//! One class's store: its slabs, and which of their slots are free. Nothing here locks or makes system calls.
//!
//! Each thread has a home, and each slab with free slots belongs to one home. So threads of different homes allocate
//! from different slabs, and share no cache line of objects or of states. A home that needs a slab first takes one over
//! from a home that has many, and otherwise opens one.

use super::layout::ClassInfo;
use crate::rng::Rng;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Slabs opened at once at most.
pub const OPEN_MAX: usize = 16;
/// About how many bytes are opened at once.
const OPEN_BYTES: usize = 1 << 20;
/// About how many bytes of empty slabs a class keeps, and one slab at least.
const SPARE_BYTES: usize = 1 << 20;
/// Homes of threads. With more threads several have one.
pub const HOMES: usize = 4;
/// Slabs that a class's free slots are taken of at once at most. A home that has more listed gives some away.
pub const SPREAD: u32 = 8;
/// The largest slots that are taken of several slabs at once.
const SPREAD_SIZE: usize = 256;
/// Opened slabs that wait for use at most.
const PENDING: usize = 2 * OPEN_MAX;

/// A slab's record.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Slab {
    /// Neighbours in the list of slabs with free slots: slab number plus one, 0 for none.
    next: u32,
    previous: u32,
    /// Free slots, those in caches excluded.
    free: u16,
    /// Whose it is.
    home: u8,
    /// Whether slots were taken since it was opened or emptied.
    used: bool,
    /// Whether it was taken out of the list to be emptied and will be put back.
    out: bool,
    /// The first word of its bitmap that may have a free slot.
    first: u8,
    /// The last word of which slots were taken since it was opened or emptied.
    last: u8,
}

impl Slab {
    /// Whether all slots are free of a slab with so many numbers before the guard page.
    fn is_whole(self, usable_end: u32) -> bool {
        u32::from(self.free) + 1 == usable_end
    }
}

/// What a home has of a class.
#[derive(Clone, Copy)]
struct Home {
    /// First slab with a free slot, plus one.
    head: u32,
    /// Slabs with a free slot.
    listed: u32,
    /// Slabs that hold memory.
    active: u32,
}

/// One class's store.
pub struct Store {
    homes: [Home; HOMES],
    /// Slabs opened so far.
    pub opened: u32,
    /// Opened and never used.
    pending: [u32; PENDING],
    pending_len: usize,
    /// Slabs that hold memory: in use or spare.
    pub active: u32,
    /// Slabs without a slot in use that keep their memory.
    pub spare: u32,
}

impl Store {
    /// A store without slabs.
    pub const NEW: Self = Self {
        homes: [Home { head: 0, listed: 0, active: 0 }; HOMES],
        opened: 0,
        pending: [0; PENDING],
        pending_len: 0,
        active: 0,
        spare: 0,
    };

    fn home(&mut self, home: usize) -> &mut Home {
        let [first, rest @ ..] = &mut self.homes;
        home.checked_sub(1).and_then(|index| rest.get_mut(index)).unwrap_or(first)
    }

    /// The home of a slab.
    fn home_of(&mut self, info: &ClassInfo, slab: u32) -> &mut Home {
        let home = self.slab(info, slab).home;
        self.home(home.into())
    }

    fn slab(&mut self, info: &ClassInfo, slab: u32) -> &mut Slab {
        // SAFETY: the record is there for every slab of the region, and this borrows the store.
        unsafe { &mut *info.record(slab) }
    }

    /// The slabs to open next, fewer than asked for at the end of the region.
    pub fn plan(&mut self, info: &ClassInfo) -> Option<SlabRun> {
        let slab_bytes = info.size << info.slab_shift;
        let count = (OPEN_BYTES / slab_bytes).clamp(1, OPEN_MAX) as u32;
        let first = self.opened;
        let count = count.min(info.slabs().checked_sub(first)?);
        // The one in the front lies alone.
        let count = if first == 0 && info.has_front() { count.min(1) } else { count };
        if count == 0 {
            return None;
        }
        self.opened += count;
        Some(SlabRun { first, count })
    }

    /// Forgets slabs that could not be opened, if none were planned after them.
    pub fn cancel(&mut self, run: &SlabRun) {
        if self.opened == run.first + run.count {
            self.opened -= run.count;
        }
    }

    /// Adds slabs that were opened, for `home` first.
    pub fn add_pending(&mut self, info: &ClassInfo, run: &SlabRun, home: usize) {
        for slab in run.first..run.first + run.count {
            match self.pending.get_mut(self.pending_len) {
                Some(entry) => {
                    *entry = slab;
                    self.pending_len += 1;
                }
                // Several threads opened at once: what does not fit is used right away.
                None => self.activate(info, slab, home),
            }
        }
    }

    /// Puts one of the opened slabs to use, chosen at random; `false` if there is none.
    pub fn use_pending(&mut self, info: &ClassInfo, home: usize, rng: &mut Rng) -> bool {
        let Some(last) = self.pending_len.checked_sub(1) else {
            return false;
        };
        let chosen = rng.below(self.pending_len as u64) as usize;
        self.pending.swap(chosen.min(last), last);
        self.pending_len = last;
        let slab = self.pending.get(last).copied().unwrap_or(0);
        self.activate(info, slab, home);
        true
    }

    /// Puts a slab that was never used into the list, all its slots free.
    fn activate(&mut self, info: &ClassInfo, slab: u32, home: usize) {
        let end = info.usable_end(slab);
        for word in 0..words(info) {
            info.free_bits(slab, word).store(usable_bits(end, word), Ordering::Relaxed);
        }
        let record = self.slab(info, slab);
        (record.free, record.home) = ((end - 1) as u16, home as u8);
        self.link(info, slab);
    }

    /// Makes a slab with free slots `home`'s that another home has, one that has more than `most`; `false` if there is none.
    pub fn take_over(&mut self, info: &ClassInfo, home: usize, most: u32) -> bool {
        let others = self.homes.iter().enumerate().filter(|(index, _)| *index != home);
        let Some((_, from)) = others.max_by_key(|(_, other)| other.listed) else { return false };
        let Some(slab) = from.head.checked_sub(1).filter(|_| from.listed > most) else { return false };
        self.unlink(info, slab);
        let active = u32::from(self.slab(info, slab).used);
        let from = self.home_of(info, slab);
        from.active = from.active.saturating_sub(active);
        self.slab(info, slab).home = home as u8;
        self.home(home).active += active;
        self.link(info, slab);
        true
    }

    /// Whether `home`'s slots are to come from more slabs than have free ones.
    pub fn wants_slab(&mut self, info: &ClassInfo, home: usize) -> bool {
        self.home(home).listed < self.spread(info, home)
    }

    /// How many slabs a home's free slots are taken of at once: more, the more it has.
    fn spread(&mut self, info: &ClassInfo, home: usize) -> u32 {
        if info.size <= SPREAD_SIZE { (self.home(home).active / 2).clamp(1, SPREAD) } else { 1 }
    }

    /// Whether a home has none with free slots.
    #[cfg(test)]
    pub fn is_out(&mut self, home: usize) -> bool {
        self.home(home).head == 0
    }

    /// Takes `home`'s free slots, an equal share of each of the first slabs in its list and the rest of the others; how
    /// many it took.
    pub fn allocate(&mut self, info: &ClassInfo, home: usize, out: &mut [u32]) -> usize {
        let share = out.len().div_ceil(self.spread(info, home) as usize);
        let (mut taken, mut next) = (0, self.home(home).head);
        while let Some(slab) = next.checked_sub(1) {
            let most = share.min(out.len() - taken);
            let Some(room) = out.get_mut(taken..taken + most).filter(|room| !room.is_empty()) else { break };
            next = self.slab(info, slab).next;
            taken += self.take_from(info, slab, room);
        }
        taken
    }

    /// Takes free slots of a slab in the list, lowest addresses first: the order of the magazine
    /// decides when each is allocated, and the slots in use stay close together.
    fn take_from(&mut self, info: &ClassInfo, slab: u32, out: &mut [u32]) -> usize {
        if self.slab(info, slab).is_whole(info.usable_end(slab)) {
            match core::mem::replace(&mut self.slab(info, slab).used, true) {
                true => self.spare = self.spare.saturating_sub(1),
                false => {
                    self.active += 1;
                    self.home_of(info, slab).active += 1;
                    self.slab(info, slab).last = 0;
                }
            }
        }
        let mut taken = 0;
        let mut word = u32::from(self.slab(info, slab).first);
        while word < words(info) {
            let bits = info.free_bits(slab, word);
            let mut free = bits.load(Ordering::Relaxed);
            while free != 0
                && let Some(place) = out.get_mut(taken)
            {
                *place = (slab << info.slab_shift) + word * 64 + free.trailing_zeros();
                free &= free - 1;
                taken += 1;
            }
            bits.store(free, Ordering::Relaxed);
            if taken == out.len() {
                break;
            }
            word += 1;
        }
        let record = self.slab(info, slab);
        record.first = word as u8;
        record.last = record.last.max(word as u8);
        record.free = record.free.saturating_sub(taken as u16);
        if record.free == 0 || taken == 0 {
            self.unlink(info, slab);
        }
        taken
    }

    /// Marks a slot free. The slab, taken out of the list, if it is empty now, no spare one is wanted, and
    /// not all are to be kept: the caller releases its memory and links it again.
    pub fn free(&mut self, info: &ClassInfo, slot: u32, keep: bool) -> Option<u32> {
        let slab = slot >> info.slab_shift;
        let index = slot & ((1 << info.slab_shift) - 1);
        let bits = info.free_bits(slab, index / 64);
        let old = bits.load(Ordering::Relaxed);
        if old & (1 << (index % 64)) != 0 {
            return None;
        }
        bits.store(old | 1 << (index % 64), Ordering::Relaxed);
        let record = self.slab(info, slab);
        record.free += 1;
        record.first = record.first.min((index / 64) as u8);
        let Slab { free, .. } = *record;
        let whole = record.is_whole(info.usable_end(slab));
        if free == 1 {
            self.link(info, slab);
        }
        if !whole {
            return None;
        }
        if keep || self.spare < (self.active / 4).max(spare_slabs(info)) {
            self.spare += 1;
            return None;
        }
        self.take_out(info, slab);
        Some(slab)
    }

    /// Takes a slab without a slot in use out of the list.
    fn take_out(&mut self, info: &ClassInfo, slab: u32) {
        self.unlink(info, slab);
        let record = self.slab(info, slab);
        (record.used, record.out) = (false, true);
        self.active = self.active.saturating_sub(1);
        let home = self.home_of(info, slab);
        home.active = home.active.saturating_sub(1);
    }

    /// The slots of a slab that may have been allocated since it was opened or emptied.
    pub fn handed_out(&mut self, info: &ClassInfo, slab: u32) -> Range<u32> {
        let first = slab << info.slab_shift;
        let record = self.slab(info, slab);
        let end = if record.used { (u32::from(record.last) + 1) * 64 } else { 0 };
        first + 1..first + end.clamp(1, info.usable_end(slab))
    }

    /// Takes spare slabs out of the list, as [`Store::give`] does; how many.
    pub fn take_spare(&mut self, info: &ClassInfo, out: &mut [u32]) -> usize {
        let mut taken = 0;
        for home in 0..HOMES {
            let mut next = self.home(home).head;
            while let (Some(slab), Some(place)) = (next.checked_sub(1), out.get_mut(taken)) {
                let record = *self.slab(info, slab);
                next = record.next;
                if record.used && record.is_whole(info.usable_end(slab)) {
                    self.take_out(info, slab);
                    self.spare = self.spare.saturating_sub(1);
                    *place = slab;
                    taken += 1;
                }
            }
        }
        taken
    }

    /// Makes list and counts anew from the bits, which are changed a word at a time and so are right whatever
    /// was going on. Opened slabs that were never used are forgotten: one might be in use already. Those that
    /// are being emptied are put back by the thread that empties them, if it still exists.
    pub fn rebuild(&mut self, info: &ClassInfo) {
        (self.homes, self.pending_len) = (Self::NEW.homes, 0);
        (self.active, self.spare) = (0, 0);
        for slab in 0..self.opened.min(info.slabs()) {
            if self.slab(info, slab).out {
                continue;
            }
            let bits = (0..words(info)).map(|word| info.free_bits(slab, word).load(Ordering::Relaxed));
            let free: u32 = bits.map(u64::count_ones).sum();
            let record = self.slab(info, slab);
            (record.free, record.first, record.last) = (free as u16, 0, u8::MAX);
            let whole = record.is_whole(info.usable_end(slab));
            record.used |= free != 0 && !whole;
            if record.used {
                self.active += 1;
                self.spare += u32::from(whole);
                self.home_of(info, slab).active += 1;
            }
            if free != 0 {
                self.link(info, slab);
            }
        }
    }

    /// Puts a slab with free slots into the list.
    pub fn link(&mut self, info: &ClassInfo, slab: u32) {
        let home = self.home_of(info, slab);
        home.listed += 1;
        let head = core::mem::replace(&mut home.head, slab + 1);
        if head != 0 {
            self.slab(info, head - 1).previous = slab + 1;
        }
        let record = self.slab(info, slab);
        (record.next, record.previous, record.out) = (head, 0, false);
    }

    fn unlink(&mut self, info: &ClassInfo, slab: u32) {
        let Slab { next, previous, .. } = *self.slab(info, slab);
        let home = self.home_of(info, slab);
        home.listed = home.listed.saturating_sub(1);
        if next != 0 {
            self.slab(info, next - 1).previous = previous;
        }
        match previous {
            0 => self.home_of(info, slab).head = next,
            previous => self.slab(info, previous - 1).next = next,
        }
    }
}

/// Slabs with consecutive numbers.
pub struct SlabRun {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// How many empty slabs of a class keep their memory however few are in use.
fn spare_slabs(info: &ClassInfo) -> u32 {
    1 + (SPARE_BYTES / (info.size << info.slab_shift)) as u32
}

/// Words of a slab's bitmap.
fn words(info: &ClassInfo) -> u32 {
    1 << (info.slab_shift - 6)
}

/// The bits of word `word` whose slots are allocated: not the first, not those from `end` on.
fn usable_bits(end: u32, word: u32) -> u64 {
    let below = |end: u32| match end.saturating_sub(word * 64) {
        0 => 0,
        bits @ 1..64 => (1 << bits) - 1,
        _ => u64::MAX,
    };
    below(end) & !below(1)
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// A class and a store for it.
    fn store_of(class: usize) -> (&'static ClassInfo, Store) {
        let info = layout::for_tests().classes.get(class).expect("a class");
        (info, Store::NEW)
    }

    /// In a class with many slabs the slots of one batch are neighbours, in each of several slabs.
    #[test]
    fn slots_come_from_several_slabs() {
        let mut rng = Rng::new();
        let (info, mut store) = store_of(3);
        for _ in 0..PENDING / OPEN_MAX {
            let run = store.plan(info).expect("room");
            store.add_pending(info, &run, 0);
        }
        let (mut out, mut most) = ([0; 72], 0);
        loop {
            while store.wants_slab(info, 0) && store.use_pending(info, 0, &mut rng) {}
            match store.allocate(info, 0, &mut out) {
                0 => break,
                72 => (),
                // The list ended.
                _ => continue,
            }
            let slabs: BTreeSet<u32> = out.iter().map(|slot| slot >> info.slab_shift).collect();
            let neighbours = out.windows(2).filter(|pair| matches!(pair, [one, two] if one + 1 == *two));
            assert!(neighbours.count() >= out.len() - 2 * SPREAD as usize);
            most = most.max(slabs.len());
        }
        assert_eq!(most, SPREAD as usize);
    }

    /// Which of the opened slabs is used next is drawn.
    #[test]
    fn slabs_are_drawn() {
        let mut rng = Rng::new();
        let orders: BTreeSet<Vec<u32>> = (0..4)
            .map(|_| {
                let (info, mut store) = store_of(2);
                let run = store.plan(info).expect("room");
                store.add_pending(info, &run, 0);
                let mut order = Vec::new();
                while store.use_pending(info, 0, &mut rng) {
                    order.push(store.homes[0].head);
                }
                order
            })
            .collect();
        assert!(orders.len() > 1, "{orders:?}");
    }

    /// No two homes take of one slab while there are others, and what a home has left over another gets in the end.
    #[test]
    fn homes_have_slabs_of_their_own() {
        let mut rng = Rng::new();
        let (info, mut store) = store_of(5);
        let run = store.plan(info).expect("room");
        store.add_pending(info, &run, 0);
        let slab_of = |slot: u32| slot >> info.slab_shift;
        let mut taken = [(); HOMES].map(|()| BTreeSet::new());
        for round in 0..3 * HOMES {
            let (home, mut out) = (round % HOMES, [0; 72]);
            while store.wants_slab(info, home) && store.use_pending(info, home, &mut rng) {}
            assert_eq!(store.allocate(info, home, &mut out), out.len());
            taken[home].extend(out);
        }
        let slabs: Vec<BTreeSet<u32>> =
            taken.iter().map(|slots| slots.iter().map(|slot| slab_of(*slot)).collect()).collect();
        for (home, mine) in slabs.iter().enumerate() {
            assert!(slabs.iter().skip(home + 1).all(|theirs| theirs.is_disjoint(mine)));
        }
        // A home that has few keeps them unless there is nothing else.
        assert!(!store.take_over(info, 0, SPREAD) && store.take_over(info, 0, 0));
        let mut all: BTreeSet<u32> = taken.iter().flatten().copied().collect();
        while !store.is_out(0) || store.take_over(info, 0, 0) {
            let mut out = [0; 72];
            let count = store.allocate(info, 0, &mut out);
            assert!(out.iter().take(count).all(|slot| all.insert(*slot)), "a slot twice");
        }
        let used = (run.count as usize) - store.pending_len;
        assert_eq!(all.len(), used * (info.usable_end(1) - 1) as usize);
        assert_eq!(store.homes.map(|home| home.listed), [0; HOMES]);
    }

    /// Whatever list and counts say, after it every free slot is allocated once, and no other.
    #[test]
    fn a_store_is_made_anew_from_its_bits() {
        let mut rng = Rng::new();
        let (info, mut store) = store_of(20);
        let run = store.plan(info).expect("room");
        store.add_pending(info, &run, 0);
        let mut taken = Vec::new();
        // Two slabs full, one in part.
        while taken.len() < 2 * info.usable_end(0) as usize {
            let mut out = [0; 50];
            while store.is_out(0) {
                assert!(store.use_pending(info, 0, &mut rng));
            }
            let count = store.allocate(info, 0, &mut out);
            taken.extend(out.iter().take(count).copied());
        }
        let given = taken.split_off(taken.len() - 70);
        for slot in &given {
            assert_eq!(store.free(info, *slot, true), None);
        }
        let free: u32 =
            (run.first..run.first + run.count).map(|slab| u32::from(store.slab(info, slab).free)).sum();
        let before = (store.active, store.spare);
        for slab in run.first..run.first + run.count {
            let record = store.slab(info, slab);
            (record.next, record.previous, record.free) = (8_888, 9_999, 7_777);
        }
        store.homes = [Home { head: run.first + 1, listed: 3, active: 4 }; HOMES];
        (store.active, store.spare, store.pending_len) = (5, 6, 1);
        store.rebuild(info);
        assert_eq!((store.active, store.spare), before);
        let mut again = BTreeSet::new();
        while !store.is_out(0) {
            let mut out = [0; 64];
            let count = store.allocate(info, 0, &mut out);
            assert!(out.iter().take(count).all(|slot| again.insert(*slot)), "a slot twice");
        }
        assert_eq!(again.len(), free as usize);
        assert!(given.iter().all(|slot| again.contains(slot)));
        assert!(taken.iter().all(|slot| !again.contains(slot)));
    }
}
