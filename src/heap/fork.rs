//! Around `fork`: every lock is taken before, so that no other thread is inside when the process is
//! copied, and released after, in parent and child. The caches of threads that the child does not have
//! stay unused in it.
//!
//! A handler that forks may have interrupted its own thread with a lock, which is valid in the child, the same
//! thread, and is left alone. Another thread that was interrupted with one may itself wait in a handler, for
//! this fork to end. So locks are waited for a while; the child puts in order what was not to be had.
//! Signals are held back from before the first lock is taken until all are released.

use super::{heap, limit, start, thread};
use crate::report::fatal;
use crate::rng;
use crate::slab::central;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, Patience};
use crate::sys::pkey::Unsealed;
use crate::sys::quiet::Quiet;
use crate::sys::{action, thread as sys};

/// One thread forks at a time.
static FORKING: Lock<()> = Lock::new(());
/// The signal mask of the thread that forks.
static MASK: AtomicU64 = AtomicU64::new(0);

/// Installs the hooks. The first allocation does so, before any other library: of all hooks, ours
/// run last before the fork and first after it.
pub fn install() {
    sys::on_fork(prepare, parent, child);
}

unsafe extern "C" fn prepare() {
    let _unsealed = Unsealed::begin();
    hold_all();
    rng::count_fork();
}

/// Takes every lock that is to be had: no other thread is inside then. It is released by [`release_all`].
pub fn hold_all() {
    // While it waits for its turn, signals come.
    let mask = loop {
        let quiet = Quiet::begin();
        FORKING.hold(&mut Patience::none());
        if FORKING.is_held() {
            break quiet.keep();
        }
        drop(quiet);
        sys::sleep_micros(TURN_MICROS);
    };
    MASK.store(mask, Ordering::Relaxed);
    fatal::hold(&mut Patience::of(REPORT_MILLIS));
    // Where no other thread allocates the other locks are free, or this thread's. To take them all would copy
    // the pages that they are in, in parent and child.
    if !thread::hold_all() {
        thread::release_all();
        // What an interrupted thread may have comes first: its handler may wait for what comes last, which
        // nobody has for long.
        let mut patience = Patience::of(PATIENCE_MILLIS);
        heap().page.hold_all(&mut patience);
        central::hold_all(&mut patience);
        thread::hold_all();
    }
    heap().page.hold_quiet();
    central::hold_quiet();
}

/// How long a fork waits for the locks of threads that may themselves wait for it, all in all. Whoever is only
/// slow loses nothing by a child that goes without.
const PATIENCE_MILLIS: u32 = 100;
/// And for the end of a report.
const REPORT_MILLIS: u32 = 2_000;

/// How long a thread sleeps while another forks.
const TURN_MICROS: u32 = 50;

unsafe extern "C" fn parent() {
    let _unsealed = Unsealed::begin();
    release_all();
}

/// Takes [`hold_all`] back.
pub fn release_all() {
    central::release_quiet();
    heap().page.release_quiet();
    thread::release_all();
    central::release_all();
    heap().page.release_all();
    fatal::release();
    end();
}

fn end() {
    let mask = MASK.load(Ordering::Relaxed);
    FORKING.release();
    Quiet::end(mask);
}

unsafe extern "C" fn child() {
    let _unsealed = Unsealed::begin();
    central::release_quiet();
    heap().page.release_quiet();
    thread::release_all();
    // SAFETY: the one thread of a new process, whose copy ran `prepare`.
    unsafe {
        central::inherit_all();
        heap().page.inherit_all();
    }
    // SAFETY: as above.
    unsafe { limit::in_child() };
    start::own_process();
    rng::begin_child();
    thread::in_child();
    // SAFETY: as above.
    unsafe { fatal::in_child() };
    action::in_child();
    end();
}

/// Releases what the calling thread has, which ends and does not come back to what it was in the middle of.
///
/// # Safety
/// As [`Lock::abandon`].
pub unsafe fn abandon_all() {
    // SAFETY: as the caller says.
    unsafe {
        central::abandon_all();
        heap().page.abandon_all();
    }
}
