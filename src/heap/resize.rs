//! Resize: in place, by moving pages, or by copying.
//!
//! A resize first looks for everything that a free of the object would find wrong. So a resize in place, which frees
//! nothing, reports the same errors as one that copies.

use super::ops::{allocate, allocate_for, free, is_growth_granted};
use super::start::is_started;
use super::{Heap, heap, poison, sites, thread};
use crate::addr::Addr;
use crate::fault::{Detail, Fault, Kind};
use crate::options::{Foreign, Mode};
use crate::page::{self, Found};
use crate::policy::{self, Route};
use crate::request::{Claim, Origin, Request, Site};
use crate::slab::{self, cache, class};
use crate::stats::Counts;
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;

/// Why a resize gave nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// There is no memory; the object is as it was.
    NoMemory,
    /// The options say to fail; the object is as it was.
    Refused,
    /// The pointer is not of this allocator, and the options say to leave it to the C library.
    Foreign,
}

/// Gives the object at `claim.address` the size and alignment of `request`: in place, by moving its
/// pages, or by copying it. The object's new address.
pub fn resize(claim: &Claim, request: &Request, site: Site) -> Result<Addr, Denied> {
    let (errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    let heap = heap();
    let result =
        if is_started() { heap.resize(claim, request, site) } else { heap.deny(claim, request, site) };
    drop(errno);
    result
}

/// A live object as a resize finds it.
struct Standing {
    size: usize,
    origin: Origin,
    /// Whether the claim states another alignment than it was asked for with.
    misaligned: bool,
}

impl Heap {
    fn resize(&self, claim: &Claim, request: &Request, site: Site) -> Result<Addr, Denied> {
        if request.size > isize::MAX.cast_unsigned() {
            return Err(Denied::NoMemory);
        }
        let Some(object) = self.standing(claim) else {
            return self.deny(claim, request, site);
        };
        poison::end(claim.address);
        let old_size = object.size;
        if claim.size.is_some_and(|stated| stated != old_size) {
            return self.deny(claim, request, site);
        }
        if !is_growth_granted(old_size, request) {
            return Err(Denied::NoMemory);
        }
        if request.size > old_size && !sites::admit(request, site) {
            return Err(Denied::Refused);
        }
        let mismatch = object.origin != claim.origin && self.options.mismatch;
        let judged;
        let claim = if mismatch || object.misaligned {
            judged = self.report_resize(claim, object.origin, mismatch, site);
            &judged
        } else {
            claim
        };
        let object = match claim.address.is_aligned(request.align) && self.resize_in_place(claim, request) {
            true => claim.address,
            false => self.resize_elsewhere(claim, request, old_size, site)?,
        };
        self.fill(object, old_size, request.size, site);
        Ok(object)
    }

    /// Gives a live object its size at another address. Apart, so that a resize in place keeps its registers.
    #[inline(never)]
    fn resize_elsewhere(
        &self,
        claim: &Claim,
        request: &Request,
        old_size: usize,
        site: Site,
    ) -> Result<Addr, Denied> {
        let found = self.page.find_live(claim.address);
        let moved = found.and_then(|found| self.relocate(found, request, old_size, site));
        let new = match moved {
            Some(new) => new,
            None => {
                let request = Request { zeroed: false, ..*request };
                let new = allocate_for(&request, request.size > old_size, site).ok_or(Denied::NoMemory)?;
                let len = old_size.min(request.size);
                // SAFETY: the old object is live and the caller's; the new one was just allocated; both
                // have at least `len` bytes.
                unsafe {
                    core::ptr::copy_nonoverlapping(claim.address.as_ptr::<u8>(), new.as_ptr::<u8>(), len);
                }
                new
            }
        };
        free(&Claim { size: None, ..*claim }, site);
        Ok(new)
    }

    /// What is known of the live object that `claim` names.
    #[inline(always)]
    fn standing(&self, claim: &Claim) -> Option<Standing> {
        match cache::place(claim.address) {
            Some(place) => {
                let (size, origin) = slab::live(place)?;
                let misaligned =
                    claim.align.is_some() && slab::misuse::other_alignment(place, claim).is_some();
                Some(Standing { size, origin, misaligned })
            }
            None => {
                let record = self.page.find_live(claim.address)?.record;
                let misaligned = claim.align.is_some_and(|align| align != record.align());
                Some(Standing { size: record.size(), origin: record.origin(), misaligned })
            }
        }
    }

    /// Reports a resize of a live object of `origin` by another family, or with another stated alignment. The claim
    /// with which the program may go on.
    #[cold]
    #[inline(never)]
    fn report_resize(&self, claim: &Claim, origin: Origin, mismatch: bool, site: Site) -> Claim {
        let object = match cache::place(claim.address) {
            Some(_) => slab::object_near(claim.address),
            None => self.page.object_near(claim.address),
        };
        let fault = match mismatch {
            true => Fault {
                detail: Detail::By(claim.origin),
                ..Fault::new(Kind::AllocDeallocMismatch, claim.address, object)
            },
            false => Fault::of_alignment(claim, object),
        };
        if self.tolerated(&fault, claim).is_none() {
            self.misuse(fault, site);
        }
        Claim { origin, align: None, ..*claim }
    }

    fn resize_in_place(&self, claim: &Claim, request: &Request) -> bool {
        let guarded = |size| {
            let route = policy::route(&self.options, size, request.align, false, class::MAX_ALIGN);
            matches!(route, Route::Page { .. })
        };
        match cache::place(claim.address) {
            Some(place) => {
                !guarded(request.size)
                    && thread::with(|thread| thread.slab.resize(place, request.size)).unwrap_or(false)
            }
            None => guarded(request.size) && self.resize_guarded_in_place(claim, request),
        }
    }

    #[inline(never)]
    fn resize_guarded_in_place(&self, claim: &Claim, request: &Request) -> bool {
        // More pages are granted under a shard's lock.
        let resize = |found| thread::with(|_| self.page.resize(found, request, self.keeps_guards()));
        self.page.find_live(claim.address).and_then(resize).unwrap_or(false)
    }

    /// Whether guarded objects go on touching their guards when they are resized.
    fn keeps_guards(&self) -> bool {
        self.options.mode == Mode::Hunt
    }

    /// Moves a large guarded object that grows, or that is to touch its guard again, to whole chunks with room to grow
    /// on. Smaller ones are copied: an object in chunks of its own costs mappings.
    fn relocate(&self, found: Found<'_>, request: &Request, old_size: usize, site: Site) -> Option<Addr> {
        if !page::is_large(request.size) || request.size <= old_size && !self.keeps_guards() {
            return None;
        }
        thread::with(|thread| {
            let event = self.event(site, thread);
            let shard = thread.shard as usize;
            let moved = self.page.relocate(found, request, self.keeps_guards(), shard, event, thread.rng());
            if moved.is_some() {
                Counts::bump(&thread.counts.guarded);
            }
            moved
        })?
    }

    /// Reports why an object cannot be resized, which is what freeing it would find.
    #[cold]
    fn deny(&self, claim: &Claim, request: &Request, site: Site) -> Result<Addr, Denied> {
        let fault = match cache::place(claim.address) {
            Some(place) => slab::misuse::misuse(place, claim),
            None if self.page.contains(claim.address) => self.page.misuse(claim),
            None => match self.foreign() {
                Foreign::Libc => return Err(Denied::Foreign),
                Foreign::Ignore => return Err(Denied::NoMemory),
                Foreign::Abort => Fault::new(Kind::InvalidFree, claim.address, None),
            },
        };
        self.misuse(fault, site);
        // The program goes on, and with an object that it may use.
        allocate(request, site).ok_or(Denied::NoMemory)
    }
}
