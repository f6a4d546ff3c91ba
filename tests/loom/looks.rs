//! A sweep's look at a slot that its owner changes.

use super::*;

const SLOT: look::Name = look::Name::of(0x1230);
const LIVE: [u16; 2] = [5, 6];
const BUSY: u16 = 1 << 13;

/// A slot's state and two words of its memory, which hold what the state says while it is not busy.
struct Slot {
    looks: look::Looks,
    state: AtomicU16,
    memory: [AtomicU32; 2],
}

impl Slot {
    fn new() -> Arc<Self> {
        let slot = Self {
            looks: look::Looks::NEW,
            state: AtomicU16::new(0),
            memory: [const { AtomicU32::new(0) }; 2],
        };
        slot.looks.prepare();
        slot.state.store(LIVE[0], Ordering::Relaxed);
        slot.memory.iter().for_each(|word| word.store(LIVE[0].into(), Ordering::Relaxed));
        assert_eq!(slot.looks.at(&slot.state, SLOT, |_| false, |_| ()), None);
        Arc::new(slot)
    }

    /// As the slot's owner changes it, finding it in whatever state.
    fn change(&self, to: u16) {
        assert!(LIVE.contains(&self.looks.state(&self.state, SLOT)), "the owner finds its slot live");
        // A plain store in the allocator. Loom lets a compare-and-exchange come after a plain store that it was
        // before, and not after an exchange.
        self.state.swap(BUSY, Ordering::AcqRel);
        fence(Ordering::Release);
        self.memory.iter().for_each(|word| word.store(to.into(), Ordering::Relaxed));
        self.state.store(to, Ordering::Release);
    }
}

fn look_at_changes(change: fn(&Slot, u16)) {
    model(move || {
        let slot = Slot::new();
        let other = slot.clone();
        let owner = thread::spawn(move || {
            change(&other, LIVE[1]);
            change(&other, LIVE[0]);
        });
        let seen = slot.looks.at(
            &slot.state,
            SLOT,
            |state| LIVE.contains(&state),
            |state| slot.memory.iter().all(|word| word.load(Ordering::Relaxed) == state.into()),
        );
        assert_ne!(seen, Some(false), "what counts is what the state says");
        owner.join().expect("no panic");
        assert_eq!(slot.state.load(Ordering::Relaxed), LIVE[0]);
    });
}

/// What a look saw counts only if nobody changed the slot, and its owner is never held up nor surprised.
#[test]
fn a_look_counts_if_nobody_changed_the_slot() {
    look_at_changes(Slot::change);
}

/// The mutation: an owner that changes the memory before the state.
#[test]
#[should_panic(expected = "what counts")]
fn a_change_before_the_state_is_found() {
    look_at_changes(|slot, to| {
        assert!(LIVE.contains(&slot.looks.state(&slot.state, SLOT)));
        slot.memory.iter().for_each(|word| word.store(to.into(), Ordering::Relaxed));
        slot.state.swap(BUSY, Ordering::AcqRel);
        slot.state.store(to, Ordering::Release);
    });
}
