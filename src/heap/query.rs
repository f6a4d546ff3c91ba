//! Questions about an object: its size. To ask of a pointer that is no live object's start is a misuse, as freeing
//! it would be.

use super::ops::size_of;
use super::start::is_started;
use super::{Heap, heap, thread};
use crate::addr::Addr;
use crate::fault::{Fault, Kind};
use crate::options::Foreign;
use crate::report::{Finding, fatal};
use crate::request::Site;
use crate::slab::{self, cache};
use crate::sys::errno::ErrnoGuard;
use crate::sys::pkey::Unsealed;
use crate::trace;

/// What a question for an object's size is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Its requested size in bytes.
    Size(usize),
    /// There is none: the pointer is null, or what is wrong with it was reported.
    Nothing,
    /// The pointer is not of this allocator, and the options say to leave it to the C library.
    Foreign,
}

/// The size of the object at `address`, for which a caller of the function `name` asked.
#[inline]
pub fn ask_size(address: Addr, name: &'static str, site: Site) -> Answer {
    match size_of(address) {
        Some(size) => Answer::Size(size),
        None if address == Addr::NULL => Answer::Nothing,
        None => refuse(address, name, site),
    }
}

#[cold]
#[inline(never)]
fn refuse(address: Addr, name: &'static str, site: Site) -> Answer {
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    if !is_started() {
        return Answer::Foreign;
    }
    let heap = heap();
    let fault = match cache::place(address) {
        Some(place) => slab::misuse::question(place, address),
        None if heap.page.contains(address) => heap.page.question(address),
        None => match heap.foreign() {
            Foreign::Libc => return Answer::Foreign,
            Foreign::Ignore => return Answer::Nothing,
            Foreign::Abort => Fault::new(Kind::WildAccess, address, None),
        },
    };
    heap.misuse_of(name, fault, site);
    Answer::Nothing
}

impl Heap {
    /// Reports a misuse of the function `name`; returns if `on_error=continue`.
    #[cold]
    pub(super) fn misuse_of(&self, name: &'static str, fault: Fault, site: Site) {
        let frames = trace::capture(site, trace::MAX_FRAMES, thread::stack());
        if let Some(context) = super::reports() {
            let found = Finding::of_fault(fault, frames, (site.fp, site.sp));
            fatal::misuse(context, &Finding { passed_to: Some(name), ..found });
        }
    }
}
