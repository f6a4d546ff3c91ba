//! A process that limits its own address space.
//!
//! Reservations count against `RLIMIT_AS`. Under a limit from the start they are small. Where the limit comes later,
//! everything that is not in use is unmapped, except for a reserve in which the heap goes on. So the program has as
//! much room as without the heap, which behaves from then on as under a limit from the start. When an object finds no
//! room, the heap gives up its reserve as well. Other threads go on meanwhile: each lock is held for a moment, and none
//! together with another of its kind.
//!
//! A limit on data (`RLIMIT_DATA`) counts what is mapped writable. One below what there is already forbids the kernel to open
//! anything more, and the C library's heap goes on with what it has free. So before such a limit is set, slabs of
//! every class are opened that have none. Guarded objects have what is left of the open chunks.
//!
//! A child of `vfork` runs in its parent's memory, and its limit is not its parent's.

use super::{heap, start, thread};
use crate::meta::poison;
use crate::rng::Rng;
use crate::slab;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Lock, Rank};
use crate::sys::action::BlockedSignals;
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;
use crate::sys::{machine, stacks, vm};

/// Whether the process has a limit on its address space.
static LIMITED: AtomicBool = AtomicBool::new(false);
/// Whether the heap gave up its reserve as well.
static SQUEEZED: AtomicBool = AtomicBool::new(false);

/// One thread at a time.
pub(super) static CUTTING: Lock<()> = Lock::new(Rank::Cut, ());

/// Of a limit, the part that the reservations may have is one of so many.
const PART: u64 = 4;

/// Keeps the heap within a part of `limit`, the bytes that the process may map from now on.
#[cold]
pub fn address_space(limit: u64) {
    if !start::is_started() || !start::is_own_process() {
        return;
    }
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    let reserved = slab::cut::reserved().saturating_add(heap().page.reserved());
    if limit / PART >= reserved as u64 {
        return;
    }
    set_limited();
    SQUEEZED.store(false, Ordering::Relaxed);
    cut(limit);
}

/// Opens slabs before the process limits its data to `limit` bytes, if it has more.
#[cold]
pub fn data(limit: u64) {
    if !start::is_started() || !start::is_own_process() {
        return;
    }
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    if machine::data().is_none_or(|data| data < limit) {
        return;
    }
    // No handler is to find this thread with a lock.
    let _blocked = BlockedSignals::begin();
    if !thread::is_inside() {
        slab::central::open_all(&mut Rng::new());
    }
}

/// Says that the process has a limit on its address space.
pub(super) fn set_limited() {
    LIMITED.store(true, Ordering::Relaxed);
}

/// Where address space is limited and there is none left for an object: gives back what the heap keeps for further
/// slots and guarded objects, so that the program's memory ends where the limit is. `false` if there is nothing to give.
/// The caller has no lock and is not inside the heap.
pub(super) fn squeeze() -> bool {
    if !LIMITED.load(Ordering::Relaxed) || SQUEEZED.swap(true, Ordering::Relaxed) || !start::is_own_process()
    {
        return false;
    }
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    cut(0)
}

/// Cuts everything to what is in use and a small part of `limit`; `false` if that cannot be done here. In a handler that
/// interrupted the allocator others may wait for what it has, and this would wait for them.
fn cut(limit: u64) -> bool {
    // No handler is to find this thread with a lock.
    let _blocked = BlockedSignals::begin();
    if thread::is_inside() {
        return false;
    }
    let Some(_cutting) = CUTTING.enter() else { return false };
    vm::forbid_moves();
    slab::cut::cut(limit);
    heap().page.cut(limit, &mut Rng::new());
    poison::SLOTS.cut(slab::lookup::regions);
    let parts = || heap().page.each_part().map(|part| part.start.get()..part.end().get());
    poison::PAGES.cut(parts);
    heap().depot.cut();
    thread::cut();
    stacks::cut();
    true
}

/// Puts the lock in order in a forked child.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn in_child() {
    // SAFETY: as the caller says. What the thread was in the middle of giving back stays mapped, and unused.
    unsafe { CUTTING.inherit(|()| ()) };
}
