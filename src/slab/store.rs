//! One class's store: its slabs, and which of their slots are free. Nothing here locks or makes system calls.

use super::layout::ClassInfo;
use crate::rng::Rng;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Slabs opened at once at most.
pub const BATCH: usize = 16;
/// About how many bytes are opened at once.
const BATCH_BYTES: usize = 1 << 20;
/// About how many bytes of empty slabs a class keeps, and one slab at least.
const SPARE_BYTES: usize = 1 << 20;
/// Slabs that a class's free slots are taken of at once at most.
const LANES: u32 = 8;
/// The largest slots that are taken of several slabs at once.
const LANES_SIZE: usize = 256;
/// Opened slabs that wait for use at most.
const PENDING: usize = 2 * BATCH;

/// A slab's record.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Slab {
    /// Free slots, those in caches excluded.
    free: u32,
    /// Neighbours in the list of slabs with free slots: slab number plus one, 0 for none.
    next: u32,
    previous: u32,
    /// Whether slots were taken since it was opened or emptied.
    used: bool,
    /// Whether it was taken out of the list to be emptied and will be put back.
    out: bool,
    /// The first word of its bitmap that may have a free slot.
    first: u8,
    /// The last word of which slots were taken since it was opened or emptied.
    last: u8,
}

/// One class's store.
pub struct Store {
    /// First slab with a free slot, plus one.
    pub head: u32,
    /// Slabs with a free slot.
    listed: u32,
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
    pub const NEW: Self =
        Self { head: 0, listed: 0, opened: 0, pending: [0; PENDING], pending_len: 0, active: 0, spare: 0 };

    fn slab(&mut self, info: &ClassInfo, slab: u32) -> &mut Slab {
        // SAFETY: the record is there for every slab of the region, and this borrows the store.
        unsafe { &mut *info.record(slab) }
    }

    /// The slabs to open next, fewer than asked for at the end of the region.
    pub fn plan(&mut self, info: &ClassInfo) -> Option<Batch> {
        let slab_bytes = info.size << info.slab_shift;
        let count = (BATCH_BYTES / slab_bytes).clamp(1, BATCH) as u32;
        let first = self.opened;
        let count = count.min(info.slabs().checked_sub(first)?);
        // The one in the front lies alone.
        let count = if first == 0 && info.has_front() { count.min(1) } else { count };
        if count == 0 {
            return None;
        }
        self.opened += count;
        Some(Batch { first, count })
    }

    /// Forgets slabs that could not be opened, if none were planned after them.
    pub fn take_back(&mut self, batch: &Batch) {
        if self.opened == batch.first + batch.count {
            self.opened -= batch.count;
        }
    }

    /// Adds slabs that were opened.
    pub fn add_pending(&mut self, info: &ClassInfo, batch: &Batch) {
        for slab in batch.first..batch.first + batch.count {
            match self.pending.get_mut(self.pending_len) {
                Some(place) => {
                    *place = slab;
                    self.pending_len += 1;
                }
                // Several threads opened at once: what does not fit is used right away.
                None => self.activate(info, slab),
            }
        }
    }

    /// Puts one of the opened slabs to use, chosen at random; `false` if there is none.
    pub fn use_pending(&mut self, info: &ClassInfo, rng: &mut Rng) -> bool {
        let Some(last) = self.pending_len.checked_sub(1) else {
            return false;
        };
        let chosen = rng.below(self.pending_len as u64) as usize;
        self.pending.swap(chosen.min(last), last);
        self.pending_len = last;
        let slab = self.pending.get(last).copied().unwrap_or(0);
        self.activate(info, slab);
        true
    }

    /// Puts a slab that was never used into the list, all its slots free.
    fn activate(&mut self, info: &ClassInfo, slab: u32) {
        let end = info.usable_end(slab);
        for word in 0..words(info) {
            info.free_bits(slab, word).store(usable_bits(end, word), Ordering::Relaxed);
        }
        self.slab(info, slab).free = end - 1;
        self.link(info, slab);
    }

    /// Whether slots are to come from more slabs than have free ones.
    pub fn wants_slab(&self, info: &ClassInfo) -> bool {
        self.listed < self.lanes(info)
    }

    /// How many slabs free slots are taken of at once: more, the more the class has.
    fn lanes(&self, info: &ClassInfo) -> u32 {
        if info.size <= LANES_SIZE { (self.active / 2).clamp(1, LANES) } else { 1 }
    }

    /// Takes free slots, an equal share of each of the first slabs in the list and the rest of the others; how
    /// many it took.
    pub fn take(&mut self, info: &ClassInfo, out: &mut [u32]) -> usize {
        let share = out.len().div_ceil(self.lanes(info) as usize);
        let (mut taken, mut next) = (0, self.head);
        while let Some(slab) = next.checked_sub(1) {
            let most = share.min(out.len() - taken);
            let Some(room) = out.get_mut(taken..taken + most).filter(|room| !room.is_empty()) else { break };
            next = self.slab(info, slab).next;
            taken += self.take_from(info, slab, room);
        }
        taken
    }

    /// Takes free slots of a slab in the list, lowest addresses first: which of them is handed out when is the
    /// batch's choice, and what is in use stays close together.
    fn take_from(&mut self, info: &ClassInfo, slab: u32, out: &mut [u32]) -> usize {
        if self.slab(info, slab).free == info.usable_end(slab) - 1 {
            match core::mem::replace(&mut self.slab(info, slab).used, true) {
                true => self.spare = self.spare.saturating_sub(1),
                false => {
                    self.active += 1;
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
        record.free = record.free.saturating_sub(taken as u32);
        if record.free == 0 || taken == 0 {
            self.unlink(info, slab);
        }
        taken
    }

    /// Marks a slot free. The slab, taken out of the list, if it is empty now, no spare one is wanted, and
    /// not all are to be kept: the caller releases its memory and links it again.
    pub fn give(&mut self, info: &ClassInfo, slot: u32, keep: bool) -> Option<u32> {
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
        let free = record.free;
        if free == 1 {
            self.link(info, slab);
        }
        if free < info.usable_end(slab) - 1 {
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
    }

    /// The slots of a slab that may have been handed out since it was opened or emptied.
    pub fn handed_out(&mut self, info: &ClassInfo, slab: u32) -> Range<u32> {
        let first = slab << info.slab_shift;
        let record = self.slab(info, slab);
        let end = if record.used { (u32::from(record.last) + 1) * 64 } else { 0 };
        first + 1..first + end.clamp(1, info.usable_end(slab))
    }

    /// Takes spare slabs out of the list, as [`Store::give`] does; how many.
    pub fn take_spare(&mut self, info: &ClassInfo, out: &mut [u32]) -> usize {
        let mut taken = 0;
        let mut next = self.head;
        while let (Some(slab), Some(place)) = (next.checked_sub(1), out.get_mut(taken)) {
            let Slab { free, used, .. } = *self.slab(info, slab);
            next = self.slab(info, slab).next;
            if used && free == info.usable_end(slab) - 1 {
                self.take_out(info, slab);
                self.spare = self.spare.saturating_sub(1);
                *place = slab;
                taken += 1;
            }
        }
        taken
    }

    /// Makes list and counts anew from the bits, which are changed a word at a time and so are right whatever
    /// was going on. Opened slabs that were never used are forgotten: one might be in use already. Those that
    /// are being emptied are put back by whoever does so, if there still is anybody.
    pub fn rebuild(&mut self, info: &ClassInfo) {
        (self.head, self.listed, self.pending_len) = (0, 0, 0);
        (self.active, self.spare) = (0, 0);
        for slab in 0..self.opened.min(info.slabs()) {
            if self.slab(info, slab).out {
                continue;
            }
            let bits = (0..words(info)).map(|word| info.free_bits(slab, word).load(Ordering::Relaxed));
            let free = bits.map(u64::count_ones).sum();
            let whole = free == info.usable_end(slab) - 1;
            let record = self.slab(info, slab);
            (record.free, record.first, record.last) = (free, 0, u8::MAX);
            record.used |= free != 0 && !whole;
            if record.used {
                self.active += 1;
                self.spare += u32::from(whole);
            }
            if free != 0 {
                self.link(info, slab);
            }
        }
    }

    /// Puts a slab with free slots into the list.
    pub fn link(&mut self, info: &ClassInfo, slab: u32) {
        self.listed += 1;
        let head = self.head;
        if head != 0 {
            self.slab(info, head - 1).previous = slab + 1;
        }
        let record = self.slab(info, slab);
        (record.next, record.previous, record.out) = (head, 0, false);
        self.head = slab + 1;
    }

    fn unlink(&mut self, info: &ClassInfo, slab: u32) {
        self.listed = self.listed.saturating_sub(1);
        let Slab { next, previous, .. } = *self.slab(info, slab);
        if next != 0 {
            self.slab(info, next - 1).previous = previous;
        }
        match previous {
            0 => self.head = next,
            previous => self.slab(info, previous - 1).next = next,
        }
    }
}

/// Slabs with consecutive numbers.
pub struct Batch {
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

/// The bits of word `word` whose slots are handed out: not the first, not those from `end` on.
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
        for _ in 0..PENDING / BATCH {
            let batch = store.plan(info).expect("room");
            store.add_pending(info, &batch);
        }
        let (mut out, mut most) = ([0; 72], 0);
        loop {
            while store.wants_slab(info) && store.use_pending(info, &mut rng) {}
            match store.take(info, &mut out) {
                0 => break,
                72 => (),
                // The list ended.
                _ => continue,
            }
            let slabs: BTreeSet<u32> = out.iter().map(|slot| slot >> info.slab_shift).collect();
            let neighbours = out.windows(2).filter(|pair| matches!(pair, [one, two] if one + 1 == *two));
            assert!(neighbours.count() >= out.len() - 2 * LANES as usize);
            most = most.max(slabs.len());
        }
        assert_eq!(most, LANES as usize);
    }

    /// Whatever list and counts say, after it every free slot is handed out once, and no other.
    #[test]
    fn a_store_is_made_anew_from_its_bits() {
        let mut rng = Rng::new();
        let (info, mut store) = store_of(20);
        let batch = store.plan(info).expect("room");
        store.add_pending(info, &batch);
        let mut taken = Vec::new();
        // Two slabs full, one in part.
        while taken.len() < 2 * info.usable_end(0) as usize {
            let mut out = [0; 50];
            while store.head == 0 {
                assert!(store.use_pending(info, &mut rng));
            }
            let count = store.take(info, &mut out);
            taken.extend(out.iter().take(count).copied());
        }
        let given = taken.split_off(taken.len() - 70);
        for slot in &given {
            assert_eq!(store.give(info, *slot, true), None);
        }
        let free: u32 =
            (batch.first..batch.first + batch.count).map(|slab| store.slab(info, slab).free).sum();
        let before = (store.active, store.spare);
        for slab in batch.first..batch.first + batch.count {
            let record = store.slab(info, slab);
            (record.free, record.next, record.previous) = (7_777, 8_888, 9_999);
        }
        (store.head, store.active, store.spare, store.pending_len) = (batch.first + 1, 5, 6, 1);
        store.rebuild(info);
        assert_eq!((store.active, store.spare), before);
        let mut again = BTreeSet::new();
        while store.head != 0 {
            let mut out = [0; 64];
            let count = store.take(info, &mut out);
            assert!(out.iter().take(count).all(|slot| again.insert(*slot)), "a slot twice");
        }
        assert_eq!(again.len(), free as usize);
        assert!(given.iter().all(|slot| again.contains(slot)));
        assert!(taken.iter().all(|slot| !again.contains(slot)));
    }
}
