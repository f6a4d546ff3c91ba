//! Around `fork`: every lock is taken before, so that no other thread is inside when the process is
//! copied, and released after, in parent and child. The caches of threads that the child does not have
//! stay unused in it.

use super::{heap, start, thread};
use crate::report::fatal;
use crate::slab::central;
use crate::sys::thread as sys;

/// Installs the hooks. The first allocation does so, before any other library: of all hooks, ours
/// run last before the fork and first after it.
pub fn install() {
    sys::on_fork(prepare, parent, child);
}

unsafe extern "C" fn prepare() {
    lock_all();
}

/// Takes every lock: no other thread is inside then.
pub fn lock_all() {
    fatal::lock_all();
    thread::lock_all();
    heap().page.lock_all();
    central::lock_all();
}

unsafe extern "C" fn parent() {
    // SAFETY: `prepare` ran in this thread.
    unsafe { unlock_all() };
}

/// Releases every lock after [`lock_all`].
///
/// # Safety
/// The calling thread, or the thread it is the copy of, holds them all.
pub unsafe fn unlock_all() {
    // SAFETY: as the caller says.
    unsafe {
        central::unlock_all();
        heap().page.unlock_all();
        thread::unlock_all();
    }
    fatal::unlock_all();
}

unsafe extern "C" fn child() {
    // SAFETY: `prepare` ran in the thread this one is the copy of.
    unsafe { parent() };
    start::own_process();
    thread::in_child();
    fatal::in_child();
}
