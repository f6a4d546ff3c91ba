//! A chunk's entry and its states.
//!
//! | state | pages | next | by |
//! |---|---|---|---|
//! | [`EMPTY`] | inaccessible, without page tables | [`OPEN`] | its shard |
//! | [`OPEN`] | guards, and objects | [`DEAD`] | the thread that frees the last object of a chunk that its shard has left |
//! | | | [`EMPTY`] | its shard, if the kernel refuses to open it |
//! | [`DEAD`] | guards | [`OPEN`] | its shard, which reached the chunk again |
//! | | | [`DECOMMITTING`] | the thread that decommits the run of dead chunks around it |
//! | [`DECOMMITTING`] | some of either | [`EMPTY`], or [`DEAD`] if the kernel refuses | the same thread |
//!
//! The state changes under the lock of the order. Two kinds of chunks need no lock, since they belong to one thread
//! already: a chunk that it decommits, and an empty chunk of its shard. System calls are made outside the lock.
//!
//! A thread that frees the last object waits for the lock before it marks the chunk dead. Meanwhile the shard may reach
//! the chunk and open it again. So the shard marks the chunk as in use before it releases the lock, and the freeing
//! thread finds the mark.
//!
//! A forked child never uses a chunk that another thread of its parent was decommitting.

use crate::sync::Guard;
use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// The bit of [`Chunk::live`] that says a shard places objects in the chunk.
pub const ACTIVE: u32 = 1 << 31;

/// Inaccessible.
pub const EMPTY: u8 = 0;
/// In use, or about to be marked dead.
pub const OPEN: u8 = 1;
/// Without objects, and no shard's.
pub const DEAD: u8 = 2;
/// On its way from dead to empty.
pub const DECOMMITTING: u8 = 3;

/// A chunk's entry. All zero bytes are a valid value.
#[repr(C)]
pub struct Chunk {
    /// Objects in it that are not freed, and [`ACTIVE`].
    pub live: AtomicU32,
    /// The record of the large object it is part of, 0 for shards' chunks.
    pub record: AtomicU32,
    state: AtomicU8,
    /// Whether the page table of records may name any for its pages: 0 or 1.
    pub named: AtomicU8,
}

/// What came of [`Chunk::open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// It is closed all over.
    Ready,
    /// Its pages are inaccessible still.
    Unready,
    /// An object still lives in it, or it is being decommitted.
    Occupied,
}

impl Chunk {
    /// The state; it changes under the lock of the order.
    pub fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Whether its pages may be accessible, or guards; read under the lock of the order.
    pub fn is_accessible(&self) -> bool {
        matches!(self.state(), OPEN | DEAD)
    }

    /// Opens the chunk for its shard, under the lock that `order` is; `None` where that is out of reach, and then an
    /// empty chunk alone can be opened. Whether its pages are to be readied still: then [`Chunk::refuse`] takes it
    /// back if they cannot be.
    pub fn open(&self, order: Option<&Guard<'_, ()>>) -> Opening {
        let state = self.state();
        if self.live.load(Ordering::Acquire) != 0
            || state == DECOMMITTING
            || order.is_none() && state != EMPTY
        {
            return Opening::Occupied;
        }
        self.state.store(OPEN, Ordering::Release);
        // Before the lock is let go.
        self.live.store(ACTIVE, Ordering::Release);
        if state == EMPTY { Opening::Unready } else { Opening::Ready }
    }

    /// Takes [`Chunk::open`] of an empty chunk back.
    pub fn refuse(&self) {
        self.state.store(EMPTY, Ordering::Release);
        self.live.store(0, Ordering::Release);
    }

    /// Counts an object that is about to be placed.
    pub fn enter(&self) {
        self.live.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts an object out; whether the chunk is to be marked dead.
    pub fn leave(&self) -> bool {
        self.live.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Says that the shard places nothing more; whether the chunk is to be marked dead.
    pub fn retire(&self) -> bool {
        self.live.fetch_sub(ACTIVE, Ordering::AcqRel) == ACTIVE
    }

    /// Marks the chunk dead, under the lock, unless its shard came round meanwhile; whether it did.
    pub fn die(&self) -> bool {
        let dies = self.live.load(Ordering::Acquire) == 0 && self.state() == OPEN;
        if dies {
            self.state.store(DEAD, Ordering::Release);
        }
        dies
    }

    /// Claims a dead chunk for decommitting, under the lock.
    pub fn begin_decommit(&self) {
        self.state.store(DECOMMITTING, Ordering::Release);
    }

    /// Ends it: the pages are gone, or the kernel refused. Without the lock: the chunk is the caller's.
    pub fn end_decommit(&self, decommitted: bool) {
        self.state.store(if decommitted { EMPTY } else { DEAD }, Ordering::Release);
    }
}
