//! Around `fork`: every lock is taken before, so that no other thread is inside when the process is
//! copied, and released after, in parent and child. The caches of threads that the child does not have
//! stay unused in it.

use super::{heap, thread};
use crate::slab::central;
use crate::sys::thread as sys;

/// Installs the hooks. The first allocation does so, before any other library: of all hooks, ours
/// run last before the fork and first after it.
pub fn install() {
    sys::on_fork(prepare, parent, child);
}

unsafe extern "C" fn prepare() {
    thread::lock_all();
    heap().page.lock_all();
    central::lock_all();
}

unsafe extern "C" fn parent() {
    // SAFETY: `prepare` ran in this thread.
    unsafe {
        central::unlock_all();
        heap().page.unlock_all();
        thread::unlock_all();
    }
}

unsafe extern "C" fn child() {
    // SAFETY: `prepare` ran in the thread this one is the copy of.
    unsafe { parent() };
    thread::in_child();
}
