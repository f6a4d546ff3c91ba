//! Allocate, free, resize.
//!
//! Each has a fast path that a front end inlines and a slow path that does everything. The fast path
//! serves requests that the policy sends to the slab arm whatever they are ([`Thread::fast_limit`]),
//! from a thread that is not inside the allocator already.

use super::start::{is_open, is_started};
use super::thread::{self, BUSY, Thread};
use super::{Heap, heap, limit};
use crate::addr::{ABI_ALIGN, Addr, round_up};
use crate::fault::{Fault, Kind};
use crate::options::{Foreign, Mode};
use crate::page::{Found, Refusal};
use crate::policy::{self, Route};
use crate::request::{Claim, Origin, Request, Site};
use crate::slab::{self, cache, class};
use crate::stats::Counts;
use crate::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use crate::sys::errno::ErrnoGuard;
use crate::sys::pkey::Unsealed;
use crate::sys::{file, thread as sys, vm};

/// Why a resize gave nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// There is no memory; the object is as it was.
    NoMemory,
    /// The pointer is not of this allocator, and the options say to leave it to the C library.
    Foreign,
}

/// The thread's state if it may take the paths for small classes: not inside the allocator, every
/// protection on, and a mode that sends small objects to slabs whatever they are.
#[inline(always)]
fn small_thread() -> Option<*mut Thread> {
    let word = sys::slot();
    let thread = Addr::new(word).as_ptr::<Thread>();
    // SAFETY: the word is 0 or the address of this thread's state; `GONE` and `SEALED` begin like one whose gate
    // is never open.
    (word != 0 && unsafe { (*thread).gate.load(Ordering::Relaxed) } == 0).then_some(thread)
}

/// The shortest path of an allocation of `size` bytes with the ABI's alignment; null when another has
/// to look at it.
#[inline(always)]
pub fn try_allocate_small(size: usize, origin: Origin) -> *mut u8 {
    match small_thread() {
        // SAFETY: the state is this thread's and its gate open, so that no other reference exists.
        Some(thread) if size <= class::SMALL_MAX => unsafe { plain::<true>(thread, size, origin) },
        _ => core::ptr::null_mut(),
    }
}

/// # Safety
/// The state is the calling thread's, its gate is open, and the classes serve the size.
#[inline(always)]
unsafe fn plain<const SMALL: bool>(thread: *mut Thread, size: usize, origin: Origin) -> *mut u8 {
    // SAFETY: as the caller says; with the gate open no other reference to the state exists.
    unsafe {
        (*thread).gate.store(BUSY, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let pointer = (*thread).slab.allocate_plain::<SMALL>(size, origin);
        compiler_fence(Ordering::SeqCst);
        (*thread).gate.store(0, Ordering::Relaxed);
        if !pointer.is_null() {
            Counts::bump(&(*thread).counts.slab);
        }
        pointer
    }
}

/// The shortest path of a free; `false` when another has to look at it.
#[inline(always)]
pub fn try_free_small(claim: &Claim) -> bool {
    free_plain::<true>(claim)
}

#[inline(always)]
fn free_plain<const SMALL: bool>(claim: &Claim) -> bool {
    let Some(thread) = small_thread() else {
        return false;
    };
    // SAFETY: as in `try_allocate_small`.
    unsafe {
        (*thread).gate.store(BUSY, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let done = (*thread).slab.free_plain::<SMALL>(claim.address, claim.size, claim.origin);
        compiler_fence(Ordering::SeqCst);
        (*thread).gate.store(0, Ordering::Relaxed);
        done
    }
}

/// The fast path of an allocation of any size with the ABI's alignment; null when the slow path has
/// to look at it.
#[inline(always)]
pub fn try_allocate_fast(size: usize, origin: Origin) -> *mut u8 {
    if let Some(thread) = small_thread() {
        // SAFETY: the state is this thread's and its gate open; below the limit the table has a class.
        let pointer = unsafe {
            match size < (*thread).fast_limit {
                true => plain::<false>(thread, size, origin),
                false => core::ptr::null_mut(),
            }
        };
        if !pointer.is_null() {
            return pointer;
        }
    }
    // SAFETY: the class holds the size; the state is this thread's.
    fast(size, |thread| unsafe { thread.slab.allocate(size, class::of_small(size), origin) })
}

/// [`try_allocate_fast`] with the object's bytes zero.
#[inline(never)]
pub fn try_allocate_zeroed_fast(size: usize, origin: Origin) -> *mut u8 {
    // SAFETY: the class holds the size; the state is this thread's.
    fast(size, |thread| unsafe { thread.slab.allocate_zeroed(size, class::of_small(size), origin) })
}

/// Runs `action` with this thread's state if a request of `size` bytes may take the fast path.
#[inline(always)]
fn fast(size: usize, action: impl FnOnce(&mut Thread) -> *mut u8) -> *mut u8 {
    let Some(thread) = thread::idle() else {
        return core::ptr::null_mut();
    };
    // SAFETY: the state is this thread's and idle, so that no other reference exists.
    let thread = unsafe { &mut *thread };
    if size >= thread.fast_limit {
        return core::ptr::null_mut();
    }
    let gate = thread.close_gate();
    let pointer = action(thread);
    thread.open_gate(gate);
    if !pointer.is_null() {
        Counts::bump(&thread.counts.slab);
    }
    pointer
}

/// The fast path of a free; `false` when the slow path has to look at it.
#[inline(always)]
pub fn try_free_fast(claim: &Claim) -> bool {
    if free_plain::<false>(claim) {
        return true;
    }
    let (Some(place), Some(thread)) = (cache::place(claim.address), thread::idle()) else {
        return false;
    };
    // SAFETY: as in `fast`.
    let thread = unsafe { &mut *thread };
    let gate = thread.close_gate();
    let done = thread.slab.free(place, claim);
    thread.open_gate(gate);
    done
}

/// Allocates as `request` says; `None` when there is no memory.
#[cold]
#[inline(never)]
pub fn allocate(request: &Request, site: Site) -> Option<Addr> {
    if !is_granted(request) {
        return None;
    }
    allocate_granted(request, site)
        .or_else(|| limit::squeeze().then(|| allocate_granted(request, site)).flatten())
}

/// From this size on the kernel is asked whether it would grant so much; no machine has less memory.
const JUDGED: usize = 256 << 20;

/// Whether the kernel would grant the C library's allocator what is requested. Small objects it would.
pub fn is_granted(request: &Request) -> bool {
    request.size < JUDGED || is_mapping_granted(request.size, request.align)
}

/// Whether the kernel would grant the C library's allocator an object of `size` bytes: a mapping with a header, and
/// room for an alignment beyond the ABI's.
#[cold]
fn is_mapping_granted(size: usize, align: usize) -> bool {
    /// The C library's chunks are so much longer than the object and a multiple of the ABI's alignment; a mapping
    /// begins with as much again.
    const HEADER: usize = 8;
    const SMALLEST: usize = 32;
    let room = if align > ABI_ALIGN { align.saturating_add(SMALLEST) } else { 0 };
    let _errno = ErrnoGuard::new();
    let chunk = size.checked_add(HEADER).and_then(|bytes| round_up(bytes, ABI_ALIGN));
    let bytes = chunk.and_then(|bytes| bytes.checked_add(room)?.checked_add(HEADER));
    bytes.is_some_and(|bytes| bytes <= isize::MAX.cast_unsigned() && vm::is_granted(bytes))
}

/// Whether the kernel would grant the C library's allocator the growth of an object: where that has a mapping of
/// its own, only what is added to it counts.
fn is_growth_granted(old_size: usize, request: &Request) -> bool {
    /// From here on the C library maps objects by themselves.
    const MAPPED: usize = 128 << 10;
    let added = if old_size < MAPPED { request.size } else { request.size.saturating_sub(old_size) };
    request.size < JUDGED || added == 0 || is_mapping_granted(added, request.align)
}

/// [`allocate`] for what the kernel was asked for.
fn allocate_granted(request: &Request, site: Site) -> Option<Addr> {
    let errno = ErrnoGuard::new();
    let heap = heap();
    let pointer = loop {
        let (pointer, fault) = thread::with(|thread| {
            // A fast path that failed may have left a misuse to report.
            let earlier = thread.take_fault();
            if earlier.is_some() {
                return (None, earlier);
            }
            let pointer = heap.allocate(thread, request, site);
            (pointer, thread.take_fault())
        })?;
        match fault {
            // The slot with the misuse stays out of use; take another.
            Some(fault) if pointer.is_none() => heap.misuse(fault, site),
            _ => break pointer,
        }
    };
    drop(errno);
    pointer
}

/// Frees the object that `claim` names; `false` if the pointer is not of this allocator and is to be
/// left to the C library.
#[cold]
#[inline(never)]
pub fn free(claim: &Claim, site: Site) -> bool {
    let _errno = ErrnoGuard::new();
    if !is_started() {
        return false;
    }
    let heap = heap();
    let Some(result) = thread::with(|thread| match thread.take_fault() {
        // What the fast path found is this free's own.
        Some(fault) => Err(fault),
        None => heap.free(thread, claim, site),
    }) else {
        return true;
    };
    let Err(fault) = result else {
        return true;
    };
    if fault.kind == Kind::InvalidFree && !heap.page.contains(claim.address) && !slab::contains(claim.address)
    {
        match heap.foreign() {
            Foreign::Abort => {}
            Foreign::Ignore => return true,
            Foreign::Libc => return false,
        }
    }
    if let Some(tolerated) = heap.tolerated(&fault, claim) {
        return free(&tolerated, site);
    }
    heap.misuse(fault, site);
    true
}

/// Reports a free that states an alignment which the address does not have, if it is a live object's: it
/// was allocated with another. What else is wrong with a pointer is for [`free`] to find.
#[cold]
#[inline(never)]
pub fn misaligned(claim: &Claim, site: Site) {
    let _unsealed = Unsealed::begin();
    if size_of(claim.address).is_none() {
        return;
    }
    let heap = heap();
    let object = match cache::place(claim.address) {
        Some(_) => slab::object_near(claim.address),
        None => heap.page.object_near(claim.address),
    };
    let freed_by = Some(claim.origin);
    heap.misuse(Fault { freed_by, ..Fault::new(Kind::BadAlignment, claim.address, object) }, site);
}

/// The requested size of the live object that starts at `address`, in bytes.
pub fn size_of(address: Addr) -> Option<usize> {
    if is_open() { live_size(address) } else { size_of_otherwise(address) }
}

#[cold]
#[inline(never)]
fn size_of_otherwise(address: Addr) -> Option<usize> {
    let _unsealed = Unsealed::begin();
    if is_started() { live_size(address) } else { None }
}

/// [`size_of`] in a heap that is set up, where nothing is sealed.
#[inline(always)]
fn live_size(address: Addr) -> Option<usize> {
    match cache::place(address) {
        Some(place) => slab::live_size(place),
        None => heap().page.find_live(address).map(|found| found.record.size()),
    }
}

/// Whether `address` lies in neither arm.
pub fn is_foreign(address: Addr) -> bool {
    !is_started() || cache::place(address).is_none() && !heap().page.contains(address)
}

/// Whether the C library's allocator has objects in this process, too.
static LIBC_HAS_OBJECTS: AtomicBool = AtomicBool::new(false);

/// Says that the C library's allocator has objects in this process, so that a foreign pointer is no error in
/// itself: it was in use before this heap was there, or it serves what this heap cannot.
pub fn expect_libc_objects() {
    LIBC_HAS_OBJECTS.store(true, Ordering::Relaxed);
}

/// Whether pointers of other allocators are given to the C library.
pub fn leaves_foreign_to_libc() -> bool {
    heap().foreign() == Foreign::Libc
}

/// Whether the C library's allocator may be asked for what this heap cannot serve.
pub fn may_ask_libc() -> bool {
    is_started() && heap().options.foreign != Foreign::Ignore
}

/// Names another family as the allocator of the live object at `address`.
pub fn set_origin(address: Addr, origin: Origin) {
    let _unsealed = Unsealed::begin();
    match cache::place(address) {
        Some(place) => slab::set_origin(place, origin),
        None => heap().page.set_origin(address, origin),
    }
}

/// `mlockall` for a process with guard pages: memory is locked as it is touched, and the guarded
/// arena not at all, since the kernel installs no guards in locked memory. The C function's result.
pub fn lock_memory(flags: i32) -> i32 {
    let _unsealed = Unsealed::begin();
    let status = vm::lock_all_on_fault(flags);
    if status == 0 && is_started() {
        heap().page.unlock_memory();
    }
    status
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

impl Heap {
    /// What is done with pointers of neither arm.
    fn foreign(&self) -> Foreign {
        match self.options.foreign {
            Foreign::Abort if LIBC_HAS_OBJECTS.load(Ordering::Relaxed) => Foreign::Libc,
            chosen => chosen,
        }
    }

    /// For a mismatch between C and C++ in a process with several C++ runtimes: the claim to free with
    /// all the same.
    fn tolerated(&self, fault: &Fault, claim: &Claim) -> Option<Claim> {
        let origin = fault.object.filter(|_| fault.kind == Kind::AllocDeallocMismatch)?.origin;
        let plain = origin == Origin::Malloc || claim.origin == Origin::Malloc;
        let mixed = plain && claim.origin != Origin::Rust && self.mixed_runtimes.is_some_and(|ask| ask());
        mixed.then_some(Claim { origin, ..*claim })
    }

    fn allocate(&self, thread: &mut Thread, request: &Request, site: Site) -> Option<Addr> {
        if request.size > isize::MAX.cast_unsigned() {
            return None;
        }
        let sampled = self.options.mode == Mode::Patrol && self.sample(thread);
        let route = policy::route(&self.options, request.size, request.align, sampled, class::MAX_ALIGN);
        let mut refusal = None;
        if let Route::Page { optional } = route {
            match self.allocate_guarded(thread, request, optional, site) {
                Ok(placed) => return Some(placed),
                Err(reason) => refusal = Some(reason),
            }
        }
        let Some(class) = class::of(request.size, request.align.max(ABI_ALIGN)) else {
            // Too large for slots: pages or nothing.
            return match refusal {
                None => self.allocate_guarded(thread, request, false, site).ok(),
                Some(_) => None,
            };
        };
        let pointer = self.allocate_slot(thread, request, class);
        if pointer.is_null() {
            // A full region or no memory for another slab; a misuse is the caller's to report.
            let fallback = refusal.is_none() && !thread.slab.has_fault();
            return fallback.then(|| self.allocate_guarded(thread, request, false, site).ok()).flatten();
        }
        Counts::bump(&thread.counts.slab);
        if let Some(reason) = refusal {
            Self::count_refusal(thread, reason);
        }
        Some(Addr::of(pointer))
    }

    /// Counts an object that went to a slab for `reason`; the end of the mappings is said once, since
    /// from there on most objects have canaries only.
    fn count_refusal(thread: &mut Thread, reason: Refusal) {
        let count = match reason {
            Refusal::Budget => &thread.counts.over_budget,
            Refusal::Mappings => &thread.counts.no_mappings,
            Refusal::Memory => &thread.counts.no_memory,
        };
        Counts::bump(count);
        if reason == Refusal::Mappings && !MAPPINGS_SAID.swap(true, Ordering::Relaxed) {
            file::write_stderr(
                b"fencepost: the mappings that vm.max_map_count allows are in use: \
                  further small objects have canaries and no guard pages\n",
            );
        }
    }

    /// A slot of `class`, or where its region is full, of the next larger ones.
    fn allocate_slot(&self, thread: &mut Thread, request: &Request, class: usize) -> *mut u8 {
        let holds = |class: &usize| {
            let size = class::size(*class);
            size.is_multiple_of(request.align) && size - request.size <= class::MAX_SLACK
        };
        for class in (class..class::COUNT).take(OTHER_CLASSES).filter(holds) {
            // SAFETY: the class holds the size; the state is this thread's.
            let pointer = unsafe {
                match request.zeroed {
                    true => thread.slab.allocate_zeroed(request.size, class, request.origin),
                    false => thread.slab.allocate(request.size, class, request.origin),
                }
            };
            if !pointer.is_null() || thread.slab.has_fault() {
                return pointer;
            }
        }
        core::ptr::null_mut()
    }

    fn allocate_guarded(
        &self,
        thread: &mut Thread,
        request: &Request,
        optional: bool,
        site: Site,
    ) -> Result<Addr, Refusal> {
        let event = self.event(site, thread);
        let lane = thread.lane as usize;
        let rng = thread.rng();
        let side = policy::side(&self.options, rng.byte() & 1 != 0);
        let placed = self.page.allocate(request, side, optional, lane, event, rng);
        if placed.is_ok() {
            Counts::bump(&thread.counts.guarded);
        }
        placed
    }

    /// Whether the sampler picks this object: after a random number of others, `sample_rate` on average.
    fn sample(&self, thread: &mut Thread) -> bool {
        let rate = self.options.sample_rate;
        if rate == 0 {
            return false;
        }
        match thread.until_sample {
            0 => {
                thread.until_sample =
                    u32::try_from(thread.rng().below(rate.saturating_mul(2))).unwrap_or(u32::MAX);
                true
            }
            _ => {
                thread.until_sample -= 1;
                false
            }
        }
    }

    fn free(&self, thread: &mut Thread, claim: &Claim, site: Site) -> Result<(), Fault> {
        if let Some(place) = cache::place(claim.address) {
            return match thread.slab.free(place, claim) {
                true => Ok(()),
                false => thread.take_fault().map_or(Ok(()), Err),
            };
        }
        if !self.page.contains(claim.address) {
            let fault = Fault::new(Kind::InvalidFree, claim.address, None);
            return Err(fault);
        }
        let event = self.event(site, thread);
        self.page.free(claim, self.options.mismatch, thread.lane as usize, event)
    }

    fn resize(&self, claim: &Claim, request: &Request, site: Site) -> Result<Addr, Denied> {
        if request.size > isize::MAX.cast_unsigned() {
            return Err(Denied::NoMemory);
        }
        let Some(old_size) = live_size(claim.address) else {
            return self.deny(claim, request, site);
        };
        if claim.size.is_some_and(|stated| stated != old_size) {
            return self.deny(claim, request, site);
        }
        if !is_growth_granted(old_size, request) {
            return Err(Denied::NoMemory);
        }
        if claim.address.is_aligned(request.align) && self.resize_in_place(claim, request) {
            return Ok(claim.address);
        }
        let found = self.page.find_live(claim.address);
        let moved = found.and_then(|found| self.grow_guarded(found, request, old_size, site));
        let new = match moved {
            Some(new) => new,
            None => {
                let new =
                    allocate_granted(&Request { zeroed: false, ..*request }, site).ok_or(Denied::NoMemory)?;
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
            None => {
                let exact_end = self.options.mode == Mode::Hunt;
                guarded(request.size)
                    && self
                        .page
                        .find_live(claim.address)
                        .is_some_and(|found| self.page.resize(found, request.size, exact_end))
            }
        }
    }

    /// Moves a growing guarded object to where it has room to grow on. Small ones are copied: every
    /// such object costs mappings.
    fn grow_guarded(&self, found: Found<'_>, request: &Request, old_size: usize, site: Site) -> Option<Addr> {
        let grows = request.size > old_size && request.size >= GROWING;
        if !grows || self.options.mode == Mode::Hunt || request.align > ABI_ALIGN {
            return None;
        }
        thread::with(|thread| {
            let event = self.event(site, thread);
            let lane = thread.lane as usize;
            let moved = self.page.grow(found, request, lane, event, thread.rng());
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

/// Whether it was said that the mappings are in use.
static MAPPINGS_SAID: AtomicBool = AtomicBool::new(false);

/// Classes that are tried when the right one has no slot: its region is full, which happens where
/// address space is limited.
const OTHER_CLASSES: usize = 24;

/// From this size on a guarded object that grows gets room to grow on.
const GROWING: usize = 8192;
