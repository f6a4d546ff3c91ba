//! What is in use, for those who ask, and memory given back to the kernel when they ask for that.

use super::start::is_started;
use super::{heap, thread};
use crate::page;
use crate::request::Site;
use crate::slab::{central, class, usage as slab};
use crate::sys::errno::ErrnoGuard;
use crate::sys::pkey::Unsealed;

/// Figures of both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The slab arm.
    pub slab: slab::Usage,
    /// The page arm.
    pub page: page::Usage,
}

/// Counts all live objects and what holds them. It looks at every slot and record that was ever used.
pub fn usage() -> Usage {
    if !is_started() {
        return Usage::default();
    }
    let _unsealed = Unsealed::begin();
    let slab = thread::with(|_| slab::count()).unwrap_or_default();
    Usage { slab, page: heap().page.usage() }
}

/// Gives the memory of slabs without an object in use back to the kernel, after the calling thread's unused
/// slots were returned to them. Slots in quarantine stay there. Whether memory was given back; the page arm
/// has none to give: it gave it back when its objects were freed.
pub fn trim() -> bool {
    if !is_started() {
        return false;
    }
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    let heap = heap();
    let given = thread::with(|thread| {
        thread.slab.give_free();
        thread.take_fault()
    });
    if let Some(Some(fault)) = given {
        heap.misuse(fault, Site::default());
    }
    let mut released = 0;
    for class in 0..class::COUNT {
        let mut found = None;
        released += thread::with(|_| central::trim(class, &mut found)).unwrap_or(0);
        if let Some(fault) = found {
            heap.misuse(fault, Site::default());
        }
    }
    released != 0
}
