//! Around `fork`: no lock is taken.
//!
//! The C library runs these hooks before it takes the locks of its own that a fork needs: the list of streams, the
//! resolver's, the loader's. Others allocate while they have one of those, so whoever held a lock of the heap across
//! a fork could wait in a circle. Hence the other threads go on, and the child repairs what they were in the
//! middle of.
//!
//! What the child finds of another thread is what that thread had written up to some instruction: the kernel copies
//! the address space under the lock that page faults and memory calls need, so no thread can write to a page that
//! was copied already and then to one that is still to be copied. Each structure says in its module what its
//! repair relies on:
//!
//! | structure | a thread that is not there may have left | the child |
//! |---|---|---|
//! | a class's store | list and counts half changed | makes them anew from the bits, which change a word at a time |
//! | a lane | anything | starts it in another chunk, without its history |
//! | the order of chunks | chunks that are being opened or buried | leaves those alone |
//! | a lane's batch, the parked slots | a number without its entry | forgets them |
//! | the detached objects | an entry twice or half written | keeps those that a live record confirms |
//! | a record | a look at the object that does not end | ends it, and what was left to it |
//! | a slot's state | [`BUSY`](crate::slab::SlotState::BUSY), or a look | leaves it: the slot is not used again |
//! | poisoned bytes | some of a range, and pages that are open still | leaves them: the object's thread is not there |
//! | the start of the heap | anything | starts it anew ([`start`]) |
//! | the shared state, the registry | anything | makes a new one; forgets the unused states |
//! | a report | the buffers in use | ends it |
//!
//! A handler that forks may have interrupted its own thread with a lock. That thread goes on in the child, where
//! it finds the lock its own. Between the fork and the hook a signal handler in the child may meet a lock of a
//! thread that is not there: it does without, as everybody does in a process that is not the heap's.

use super::{heap, leaks, limit, shared, start, thread};
use crate::meta::poison;
use crate::report::fatal;
use crate::rng;
use crate::slab::{central, sweep};
use crate::sync::going_without;
use crate::sys::pkey::Unsealed;
use crate::sys::{action, probe, thread as sys};
use core::sync::atomic::{AtomicBool, Ordering};

/// Installs the hooks, once: with the first allocation, before any other library does, or when the program is loaded
/// if that comes first. So they are there before threads are, and of all hooks ours run last before the fork and
/// first after it.
pub fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // The C library's function may allocate.
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        sys::on_fork(prepare, child);
    }
}

/// When the program is loaded.
extern "C" fn on_load() {
    install();
}

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

unsafe extern "C" fn prepare() {
    if let Some(number) = rng::count_fork() {
        let _unsealed = Unsealed::begin();
        thread::note_fork(number);
    }
}

unsafe extern "C" fn child() {
    let _unsealed = Unsealed::begin();
    sys::forget_id();
    // SAFETY: the one thread of a new process, here and below.
    unsafe {
        // Locks that a start takes as well.
        thread::inherit();
        fatal::in_child();
    }
    action::in_child();
    probe::in_child();
    if !start::in_child() {
        return;
    }
    // SAFETY: as above.
    unsafe {
        shared::inherit();
        leaks::inherit();
        sweep::inherit();
        poison::inherit();
        central::inherit_all();
        heap().page.inherit_all();
    }
    going_without::in_child();
    // SAFETY: as above.
    unsafe { limit::in_child() };
    rng::begin_child(thread::fork_number());
    thread::in_child();
    start::own_process();
}

/// Releases what the calling thread has, which ends and does not come back to what it was in the middle of.
///
/// # Safety
/// As [`Lock::abandon`](crate::sync::Lock::abandon).
pub unsafe fn abandon_all() {
    // SAFETY: as the caller says.
    unsafe {
        sweep::abandon();
        central::abandon_all();
        heap().page.abandon_all();
    }
}
