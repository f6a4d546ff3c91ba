//! Questions about objects: their size. A question about a pointer that is not the start of a live object is a misuse,
//! as a free of it would be.
//!
//! # Bounds
//!
//! The bounds of objects, for callers that are about to access memory: functions of the C library that a front end
//! intercepts, and the program itself.
//!
//! Only certain answers are given. Memory outside the heap has no bounds here, and neither has a slot that a thread is
//! allocating or freeing at the moment.
//!
//! # Usage
//!
//! Figures of the memory in use, and memory released to the kernel on request.

use super::ops::size_of;
use super::start::is_started;
use super::{Heap, heap, poison, thread};
use crate::addr::Addr;
use crate::fault::{Fault, Kind, Object};
use crate::options::Foreign;
use crate::page;
use crate::report::{Access, Finding, fatal};
use crate::request::Site;
use crate::slab::{self, cache, central, class, lookup};
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;
use crate::sys::thread as sys;
use crate::trace::{self, Frames};
use core::ops::Range;

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

pub use super::start::is_open;

/// The addresses between which all objects lie, but for those that found no room in the arena; others may lie there,
/// too. Empty before the heap is there.
pub fn hull() -> Range<usize> {
    if !is_started() {
        return 0..0;
    }
    let (slots, pages) = (lookup::region(), heap().page.region());
    let parts = [slots, pages.start.get()..pages.end().get()];
    let mut parts = parts.into_iter().filter(|part| part.start < part.end);
    let Some(first) = parts.next() else { return 0..0 };
    parts.fold(first, |hull, part| hull.start.min(part.start)..hull.end.max(part.end))
}

/// Bytes from `address` on that may be accessed: what is left of the live object there, up to its first poisoned byte, 0 where there is none, and
/// `usize::MAX` where the heap has no part in it. The heap is set up.
#[inline(always)]
pub fn room(address: Addr) -> usize {
    if is_open() { room_now(address) } else { room_sealed(address) }
}

/// Whether `len` bytes from `address` on are known to be one live object's, or not the heap's, by a few loads and no call:
/// for the shortest paths of a heap that [`is_open`].
#[inline(always)]
pub fn is_fine(address: Addr, len: usize) -> bool {
    match slab::holds(address.get(), len) {
        Some(fine) => fine,
        None => heap().page.holds(address, len).unwrap_or(true),
    }
}

#[cold]
#[inline(never)]
fn room_sealed(address: Addr) -> usize {
    let _unsealed = Unsealed::begin();
    if is_started() { room_now(address) } else { usize::MAX }
}

#[inline(always)]
fn room_now(address: Addr) -> usize {
    match cache::place(address) {
        Some(place) => slab::room(place),
        None => heap().page.room(address),
    }
}

/// The live object that `address` lies in: its first byte, and one past its last. One of zero bytes is found by its
/// pointer.
pub fn bounds(address: Addr) -> Option<Range<Addr>> {
    let _unsealed = Unsealed::begin();
    if !is_started() {
        return None;
    }
    let (start, size) = match cache::place(address) {
        Some(_) => lookup::around(address)?,
        None => {
            let object = heap().page.live_at(address)?;
            (object.start, object.size?)
        }
    };
    Some(start..start.plus(size))
}

/// What would be wrong with an access to `len` bytes from `address` on; `None` if they are one live object's, or not
/// the heap's, or none.
pub fn check(address: Addr, len: usize) -> Option<Kind> {
    let _unsealed = Unsealed::begin();
    if len == 0 || !is_started() {
        return None;
    }
    let room = room_now(address);
    (len > room).then(|| Bad::find(address, Some(len), room).kind())
}

/// Where an access leaves what it may touch, and whose it is.
struct Bad {
    at: Addr,
    object: Option<Object>,
    /// The poisoned bytes around it, of a live object.
    poisoned: Option<Range<usize>>,
}

impl Bad {
    /// Of an access to `len` bytes from `address` on, where that is known, of which it may touch `room`.
    fn find(address: Addr, len: Option<usize>, room: usize) -> Self {
        let near = |address, len| match cache::place(address) {
            Some(_) => slab::object_meant(address, len),
            None => heap().page.object_near(address),
        };
        let object_at = |address| match cache::place(address) {
            Some(_) => slab::object_near(address),
            None => heap().page.object_near(address),
        };
        let (at, object) = match room {
            0 if poison::around(address).is_some() => (address, object_at(address)),
            0 => (address, near(address, len)),
            // The last byte that it may touch is its object's.
            room => (address.plus(room), near(address.plus(room - 1), None)),
        };
        Self { at, object, poisoned: poison::around(at) }
    }

    fn finding(&self, access: Access, frames: Frames, registers: (usize, usize)) -> Finding {
        let found = Finding::of_access(self.at, access, self.object, frames, registers);
        match &self.poisoned {
            Some(poisoned) => found.to_poisoned(poisoned),
            None => found,
        }
    }

    fn kind(&self) -> Kind {
        self.finding(Access::Unknown, Frames::EMPTY, (0, 0)).kind
    }
}

/// Reports that the function `name` accesses `len` bytes from `address` on, which are not all one live object's; where
/// no length is given, up to the first that is not. Returns if the program goes on. `own` are the addresses of the
/// front end's code, which is left out of the stack.
#[cold]
#[inline(never)]
pub fn bad_access(access: Access, address: Addr, len: Option<usize>, name: &'static str, own: &Range<usize>) {
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    let (pc, fp, sp) = sys::frame();
    if !is_started() {
        return;
    }
    heap().bad_access(access, address, len, name, own, Site { pc, sp, fp });
}

impl Heap {
    fn bad_access(
        &self,
        access: Access,
        address: Addr,
        len: Option<usize>,
        name: &'static str,
        own: &Range<usize>,
        site: Site,
    ) {
        let room = room_now(address);
        if len.is_some_and(|len| len <= room) {
            // Somebody else changed the object meanwhile.
            return;
        }
        let frames = trace::capture(site, trace::MAX_FRAMES, thread::stack()).without(own);
        let bad = Bad::find(address, len, room);
        let found = bad.finding(access, frames, (site.fp, site.sp));
        let size = len.unwrap_or_else(|| room.saturating_add(1));
        if let Some(context) = super::reports() {
            let extent = Some((address, size));
            fatal::misuse(context, &Finding { extent, made_by: Some(name), ..found });
        }
    }
}

/// Figures of both allocators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The slab allocator.
    pub slab: lookup::Usage,
    /// The page allocator.
    pub page: page::Usage,
}

/// Counts all live objects and what holds them. It looks at every slot and record that was ever used.
pub fn usage() -> Usage {
    if !is_started() {
        return Usage::default();
    }
    let _unsealed = Unsealed::begin();
    let slab = thread::with(|_| lookup::count()).unwrap_or_default();
    Usage { slab, page: heap().page.usage() }
}

/// Gives the memory of slabs without an object in use back to the kernel, after the calling thread's unused
/// slots were flushed to them. Slots in quarantine stay there. Whether memory was released; the page allocator
/// has none to give: it gave it back when its objects were freed.
pub fn trim() -> bool {
    if !is_started() {
        return false;
    }
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    let heap = heap();
    let given = thread::with(|thread| {
        thread.slab.flush_free();
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
