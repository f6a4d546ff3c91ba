//! Poisoned bytes: owners of neighbouring bytes, who asks, and who frees meanwhile.
//!
//! The tables are statics, as in the allocator: their models run one after the other.

use super::*;
use crate::addr::PAGE_SIZE;
use crate::marks::{LOCK, PAGES, SLOTS};
use pages::PageAllocator;
use slots::state::SlotState;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// Bytes of the slot or of the page, by words of the table.
fn word(base: usize, index: usize) -> Range<usize> {
    base + 64 * index..base + 64 * index + 64
}

fn slot_word(index: usize) -> Range<usize> {
    word(slots::START, index)
}

fn page_word(index: usize) -> Range<usize> {
    word(pages::START, index)
}

/// The tables, for one model at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static MAPPED: Once = Once::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    MAPPED.call_once(|| {
        assert!(SLOTS.open(&slots::lookup::region()));
        assert!(PAGES.open(&(pages::START..pages::START + PAGE_SIZE)));
        sys::vm::keep_all();
    });
    turn
}

/// Begins an execution: of the slot nothing is poisoned, of the page all but what is in its first word.
fn begin() {
    sync::beforehand(|| {
        SLOTS.clear(&slots::lookup::region());
        SLOTS.save(slots::START, 0);
        PAGES.clear(&page_word(0));
        PAGES.set(&(page_word(0).end..pages::START + PAGE_SIZE));
        PAGES.set_closed(pages::START, false);
    });
    sync::spare_the_unchanged();
    // What threads race for is made now.
    LOCK.prepare();
    for index in 0..2 {
        SLOTS.set(&slot_word(index));
        SLOTS.clear(&slot_word(index));
    }
    SLOTS.save(slots::START, 0);
    PAGES.clear(&page_word(0));
    PAGES.set(&page_word(1));
    PAGES.set_closed(pages::START, false);
    slots::info().state(0).store(SlotState::LIVE);
}

fn poisoned(model: impl Fn() + Sync + Send + 'static) {
    let _turn = turn();
    bounded_model(3, move || {
        begin();
        model();
    });
}

fn neighbours(set: fn(&Range<usize>)) {
    poisoned(move || {
        SLOTS.set(&slot_word(0));
        let other = thread::spawn(move || set(&slot_word(1)));
        SLOTS.clear(&slot_word(0));
        other.join().expect("no panic");
        assert_eq!(SLOTS.first(&slots::lookup::region()), Some(slot_word(1).start), "poison was lost");
    });
}

/// Whoever finds a page clear takes none of its bytes from another who poisons them.
#[test]
fn a_page_is_passed_over_only_if_it_is_clear() {
    neighbours(|bytes| SLOTS.set(bytes));
}

/// The mutation: the page is marked before its bytes are.
#[test]
#[should_panic(expected = "poison was lost")]
fn a_page_that_is_marked_first_is_found() {
    neighbours(|bytes| SLOTS.set_dirty_first(bytes));
}

/// The mutation: a whole word of bytes, a plain store, which is seen after the page was found marked.
#[test]
#[should_panic(expected = "poison was lost")]
fn a_page_that_is_looked_at_too_early_is_found() {
    neighbours(|bytes| SLOTS.set_without_fence(bytes));
}

fn two_poison_a_slot(poison: fn(&Range<usize>) -> bool) {
    poisoned(move || {
        let other = thread::spawn(move || poison(&slot_word(1)));
        let mine = poison(&slot_word(0));
        let others = other.join().expect("no panic");
        for (index, done) in [mine, others].into_iter().enumerate() {
            let first = SLOTS.first(&slot_word(index));
            assert!(!done || first == Some(slot_word(index).start), "poison was lost");
        }
        assert!(mine && others, "nobody freed the object");
        assert_eq!(slots::info().state_of(0), SlotState::LIVE);
        slots::free();
        assert_eq!((SLOTS.first(&slots::lookup::region()), slots::info().load(0)), (None, SlotState::FREE));
    });
}

/// Of two that poison an object's first bytes at once, neither loses any.
#[test]
fn an_object_is_marked_once() {
    two_poison_a_slot(|bytes| slots::poison::poison(slots::PLACE, bytes));
}

/// The mutation: marking without the lock.
#[test]
#[should_panic(expected = "poison was lost")]
fn marking_without_the_lock_is_found() {
    two_poison_a_slot(|bytes| {
        let cell = slots::info().state(0);
        let state = cell.load();
        if state.is_live() {
            SLOTS.clear(&slots::lookup::region());
            SLOTS.save(slots::START, state.bits());
            cell.exchange(state, SlotState::POISONED);
        }
        SLOTS.set(bytes);
        true
    });
}

fn ask_while_poisoned(poison: fn() -> bool) {
    poisoned(move || {
        let other = thread::spawn(move || poison());
        assert_eq!(slots::info().state_of(0), SlotState::LIVE, "the state is that of the object");
        assert!(other.join().expect("no panic"));
    });
}

/// Whoever asks for the slot's state meanwhile gets it.
#[test]
fn a_marked_slot_has_its_state() {
    ask_while_poisoned(|| slots::poison::poison(slots::PLACE, &slot_word(0)));
}

/// The mutation: marked before its state is saved.
#[test]
#[should_panic(expected = "the state is that")]
fn a_state_that_is_saved_too_late_is_found() {
    ask_while_poisoned(|| {
        let marked = slots::info().state(0).exchange(SlotState::LIVE, SlotState::POISONED);
        SLOTS.save(slots::START, SlotState::LIVE.bits());
        marked
    });
}

fn poison_in_two_lives(poison: fn(&Range<usize>) -> bool) {
    poisoned(move || {
        let other = thread::spawn(move || slots::poison::poison(slots::PLACE, &slot_word(0)));
        slots::free();
        other.join().expect("no panic");
        assert_eq!(slots::info().load(0), SlotState::FREE, "freed");
        slots::info().state(0).store(SlotState::LIVE);
        assert!(poison(&slot_word(1)));
        assert_eq!(SLOTS.first(&slots::lookup::region()), Some(slot_word(1).start), "of a life before");
    });
}

/// What a program poisons while it frees is not the next object's.
#[test]
fn poison_ends_with_its_object() {
    poison_in_two_lives(|bytes| slots::poison::poison(slots::PLACE, bytes));
}

/// The mutation: a first poison that leaves what bits there are.
#[test]
#[should_panic(expected = "of a life before")]
fn bits_that_are_left_are_found() {
    poison_in_two_lives(|bytes| {
        SLOTS.save(slots::START, SlotState::LIVE.bits());
        let marked = slots::info().state(0).exchange(SlotState::LIVE, SlotState::POISONED);
        SLOTS.set(bytes);
        marked
    });
}

fn share_a_page(unpoison: fn(&PageAllocator)) {
    poisoned(move || {
        let allocator = Arc::new(PageAllocator::new());
        assert!(allocator.record.mark_poisoned(Addr::new(pages::START)));
        let other = allocator.clone();
        let second = thread::spawn(move || assert!(other.poison(&page_word(0))));
        unpoison(&allocator);
        assert!(allocator.config.backend.is_open(), "its owner may use a byte");
        second.join().expect("no panic");
        assert!(allocator.config.backend.is_open(), "its owner may use a byte");
        assert!(!PAGES.is_closed(pages::START));
        let whole = pages::START..pages::START + PAGE_SIZE;
        assert_eq!(PAGES.around(pages::START, &whole), Some(page_word(0)));
    });
}

/// A page is not closed for one owner's bytes while another may use some of it.
#[test]
fn a_page_is_closed_while_all_of_it_is_poisoned() {
    share_a_page(|allocator| allocator.unpoison(&page_word(1)));
}

/// The mutation: unpoison without the lock.
#[test]
#[should_panic(expected = "its owner may use a byte")]
fn opening_without_the_lock_is_found() {
    share_a_page(|allocator| {
        if PAGES.is_closed(pages::START) {
            allocator.config.backend.open(allocator.region());
            PAGES.set_closed(pages::START, false);
        }
        PAGES.clear(&page_word(1));
    });
}

fn free_while_poisoned(poison: fn(&PageAllocator)) {
    poisoned(move || {
        let allocator = Arc::new(PageAllocator::new());
        assert!(allocator.record.mark_poisoned(Addr::new(pages::START)));
        let other = allocator.clone();
        let second = thread::spawn(move || poison(&other));
        allocator.free();
        second.join().expect("no panic");
        assert!(
            !PAGES.is_closed(pages::START) && !allocator.record.is_poisoned(),
            "the page is the next object's"
        );
        assert!(allocator.record.state() == State::Freed && !allocator.config.backend.is_open());
    });
}

/// A page that is closed for its bytes while its object is freed is not the next object's.
#[test]
fn a_closed_page_is_opened_before_its_object_ends() {
    free_while_poisoned(|allocator| drop(allocator.poison(&page_word(0))));
}

/// The mutation: closing without the lock.
#[test]
#[should_panic(expected = "the page is the next object's")]
fn closing_without_the_lock_is_found() {
    free_while_poisoned(|allocator| {
        if allocator.record.mark_poisoned(Addr::new(pages::START)) {
            PAGES.set(&page_word(0));
            PAGES.set_closed(pages::START, true);
            allocator.config.backend.close(allocator.region());
        }
    });
}
