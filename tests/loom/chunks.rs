//! A chunk that its shard opens while it is about to be decommitted.

use super::*;

/// A chunk whose shard was left, with one object, and the lock of the order.
fn left_chunk() -> Arc<(chunk::Chunk, Lock<()>)> {
    let chunk: chunk::Chunk = unsafe_zeroed();
    let order = Lock::new(Rank::Order, ());
    order.prepare();
    let guard = order.enter();
    assert_eq!(chunk.open(guard.as_ref()), chunk::Opening::Unready);
    drop(guard);
    chunk.enter();
    assert!(!chunk.retire());
    Arc::new((chunk, order))
}

fn unsafe_zeroed<T>() -> T {
    // SAFETY: called for chunks, of which all zero bytes are a valid value.
    unsafe { std::mem::zeroed() }
}

fn open_and_decommit(open: fn(&chunk::Chunk, &Lock<()>) -> bool) {
    model(move || {
        let shared = left_chunk();
        let other = shared.clone();
        let last = thread::spawn(move || {
            let (chunk, order) = &*other;
            if chunk.leave()
                && let Some(_order) = order.enter()
                && chunk.die()
            {
                chunk.begin_decommit();
                drop(_order);
                chunk.end_decommit(true);
            }
        });
        let (chunk, order) = &*shared;
        let opened = open(chunk, order);
        last.join().expect("no panic");
        let live = chunk.live.load(Ordering::Relaxed);
        assert_eq!((chunk.state() == chunk::OPEN, live != 0), (opened, opened), "a live chunk is open");
    });
}

/// A shard comes round to a chunk whose last object goes at that moment: either it finds the chunk in use or being
/// decommitted, or it has it, and nobody decommits it.
#[test]
fn a_chunk_that_is_opened_is_not_decommitted() {
    open_and_decommit(|chunk, order| {
        let order = order.enter();
        chunk.open(order.as_ref()) != chunk::Opening::Occupied
    });
}

/// The mutation: the order is let go before the chunk is said to be in use.
#[test]
#[should_panic(expected = "a live chunk is open")]
fn a_chunk_that_is_said_to_be_in_use_too_late_is_found() {
    open_and_decommit(|chunk, order| {
        let order = order.enter();
        let opened = chunk.open(order.as_ref()) != chunk::Opening::Occupied;
        if opened {
            chunk.live.store(0, Ordering::Relaxed);
            drop(order);
            chunk.live.store(chunk::ACTIVE, Ordering::Release);
        }
        opened
    });
}
