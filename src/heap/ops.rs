//! Allocate and free.
//!
//! Each has a fast path, which a front end inlines, and a slow path, which does everything. The fast path serves a
//! thread that is not inside the allocator already, for requests that the policy sends to the slab allocator in any
//! case ([`Thread::fast_most`]).

use super::start::{is_open, is_started};
use super::thread::{self, BUSY, Thread};
use super::{Heap, heap, limit};
use crate::addr::{ABI_ALIGN, Addr, round_up};
use crate::fault::{Event, Fault, Kind};
use crate::options::{Foreign, Mode};
use crate::page::Refusal;
use crate::policy::{self, Route};
use crate::request::{Claim, Origin, Request, Site};
use crate::slab::{self, cache, class};
use crate::stats::Counts;
use crate::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;
use crate::sys::{file, process, thread as sys, vm};

/// The thread's state if it may take the shortest paths: not inside the allocator, and every protection on.
#[inline(always)]
fn plain_thread() -> Option<*mut Thread> {
    let thread = Addr::new(sys::slot()).as_ptr::<Thread>();
    // SAFETY: the word is 0 or the address of this thread's state, which lives as long as the thread; `GONE` and `SEALED` begin
    // like one whose gate is never open. A plain read, which can be part of the comparison: only this thread writes the gate,
    // and a handler that does leaves it as it was. It is as wide as the store of the operation before, from which a wider one
    // would not be served: it would wait until all stores before that are in the cache.
    (!thread.is_null() && unsafe { (*thread).gate.as_ptr().read() } == 0).then_some(thread)
}

/// The shortest path of an allocation of `size` bytes with the ABI's alignment; null when another has
/// to look at it. Objects of zero bytes lie in no slab. The object's bytes are zero: its slot was found so.
#[inline(always)]
pub fn try_allocate_small(size: usize, origin: Origin) -> *mut u8 {
    match plain_thread() {
        // SAFETY: the state is this thread's and its gate open, so that no other reference exists; small classes serve the size.
        Some(thread) if size.wrapping_sub(1) < unsafe { (*thread).small_most } => unsafe {
            (*thread).gate.store(BUSY, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            let pointer = (*thread).slab.allocate_plain::<true>(size, origin);
            compiler_fence(Ordering::SeqCst);
            (*thread).gate.store(0, Ordering::Relaxed);
            pointer
        },
        _ => core::ptr::null_mut(),
    }
}

/// [`try_allocate_small`] for objects of any size that the mode sends to slabs whatever they are.
#[inline(always)]
pub fn try_allocate_plain(size: usize, origin: Origin) -> *mut u8 {
    match plain_thread() {
        // SAFETY: the state is this thread's and its gate open, so that no other reference exists; below the limit the table has a
        // class.
        Some(thread) if size.wrapping_sub(1) < unsafe { (*thread).plain_most } => unsafe {
            (*thread).gate.store(BUSY, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            let pointer = (*thread).slab.allocate_plain::<false>(size, origin);
            compiler_fence(Ordering::SeqCst);
            (*thread).gate.store(0, Ordering::Relaxed);
            pointer
        },
        _ => core::ptr::null_mut(),
    }
}

/// The shortest path of a free; `false` when another has to look at it.
#[inline(always)]
pub fn try_free_small(claim: &Claim) -> bool {
    free_plain::<true>(claim)
}

/// [`try_free_small`] for objects of any size.
#[inline(always)]
pub fn try_free_plain(claim: &Claim) -> bool {
    free_plain::<false>(claim)
}

#[inline(always)]
fn free_plain<const SMALL: bool>(claim: &Claim) -> bool {
    let Some(thread) = plain_thread() else {
        return false;
    };
    // SAFETY: the state is this thread's, with an open gate: no reference to it exists, and closing the gate
    // keeps handlers out.
    unsafe {
        (*thread).gate.store(BUSY, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let done = (*thread).slab.free_plain::<SMALL>(claim.address, claim.size, claim.origin);
        compiler_fence(Ordering::SeqCst);
        (*thread).gate.store(0, Ordering::Relaxed);
        done
    }
}

/// The shortest path of a resize with the ABI's alignment, in place; `false` when another has to look at it.
#[inline(always)]
pub fn try_resize_small(claim: &Claim, size: usize) -> bool {
    let Some(thread) = plain_thread() else {
        return false;
    };
    // SAFETY: the state is this thread's, with an open gate, so no reference to it exists. The caller of a
    // resize owns the object.
    unsafe {
        if size.wrapping_sub(1) >= (*thread).fast_most {
            return false;
        }
        (*thread).gate.store(BUSY, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let done = (*thread).slab.resize_plain(claim.address, claim.size, size, claim.origin);
        compiler_fence(Ordering::SeqCst);
        (*thread).gate.store(0, Ordering::Relaxed);
        done
    }
}

/// The fast path of an allocation of any size with the ABI's alignment, past the shortest; null when the slow path has
/// to look at it.
#[inline(never)]
pub fn try_allocate_fast(size: usize, origin: Origin) -> *mut u8 {
    fast(size, origin, allocate_otherwise)
}

/// [`try_allocate_fast`] with the object's bytes zero.
#[inline(never)]
pub fn try_allocate_zeroed_fast(size: usize, origin: Origin) -> *mut u8 {
    fast(size, origin, allocate_zeroed_otherwise)
}

/// An allocation by the shortest path over the thread's cache, which gives objects that were found zero, or `otherwise`.
#[inline(always)]
fn fast(
    size: usize,
    origin: Origin,
    otherwise: impl FnOnce(&mut Thread, usize, Origin) -> *mut u8,
) -> *mut u8 {
    let Some(thread) = idle_for(size) else {
        return core::ptr::null_mut();
    };
    let gate = thread.close_gate();
    let mut pointer = core::ptr::null_mut();
    if gate == 0 {
        // SAFETY: the state is this thread's and every protection is on; below the limit the table has a class.
        pointer = unsafe { thread.slab.allocate_plain::<false>(size, origin) };
    }
    if pointer.is_null() {
        pointer = otherwise(thread, size, origin);
    }
    thread.open_gate(gate);
    pointer
}

/// An allocation where the batch is used up, a slot is not as it should be, or not every protection is on.
#[inline(never)]
fn allocate_otherwise(thread: &mut Thread, size: usize, origin: Origin) -> *mut u8 {
    // SAFETY: the class holds the size; the state is this thread's.
    unsafe { thread.slab.allocate(size, class::of_small(size), origin) }
}

/// [`allocate_otherwise`] with the object's bytes zero.
#[inline(never)]
fn allocate_zeroed_otherwise(thread: &mut Thread, size: usize, origin: Origin) -> *mut u8 {
    // SAFETY: the class holds the size; the state is this thread's.
    unsafe { thread.slab.allocate_zeroed(size, class::of_small(size), origin) }
}

/// This thread's state if a request of `size` bytes may take the fast path. The sampler counts it.
#[inline(always)]
fn idle_for(size: usize) -> Option<&'static mut Thread> {
    let thread = thread::idle()?;
    // SAFETY: the state is this thread's and idle, so that no other reference exists.
    let thread = unsafe { &mut *thread };
    (size.wrapping_sub(1) < thread.fast_most && !thread.is_due()).then_some(thread)
}

/// The fast path of a free, past the shortest; `false` when the slow path has to look at it.
#[inline(never)]
pub fn try_free_fast(claim: &Claim) -> bool {
    let (Some(place), Some(thread)) = (cache::place(claim.address), thread::idle()) else {
        return false;
    };
    // SAFETY: `idle` gives this thread's own state while no reference to it exists, and the gate is closed
    // before it is used.
    let thread = unsafe { &mut *thread };
    let gate = thread.close_gate();
    let done = thread.slab.free(place, claim);
    thread.open_gate(gate);
    done
}

/// The fast path of a free that states an alignment, which may be another than the object was asked for with.
#[inline(never)]
pub fn try_free_aligned(claim: &Claim) -> bool {
    let wrong = {
        let _unsealed = Unsealed::begin();
        cache::place(claim.address).and_then(|place| slab::misuse::other_alignment(place, claim))
    };
    wrong.is_none() && (try_free_plain(claim) || try_free_fast(claim))
}

/// Allocates as `request` says; `None` when there is no memory.
#[cold]
#[inline(never)]
pub fn allocate(request: &Request, site: Site) -> Option<Addr> {
    if !is_started() || !is_granted(request) {
        return None;
    }
    let object = allocate_for(request, false, site)?;
    if !request.zeroed {
        heap().fill(object, 0, request.size, site);
    }
    Some(object)
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
#[inline(always)]
pub(super) fn is_growth_granted(old_size: usize, request: &Request) -> bool {
    /// From here on the C library maps objects by themselves.
    const MAPPED: usize = 128 << 10;
    let added = if old_size < MAPPED { request.size } else { request.size.saturating_sub(old_size) };
    request.size < JUDGED || added == 0 || is_mapping_granted(added, request.align)
}

/// [`allocate`] for what the kernel was asked for; it `grows` if the object may have grown already.
pub(super) fn allocate_for(request: &Request, grows: bool, site: Site) -> Option<Addr> {
    allocate_now(request, grows, site)
        .or_else(|| limit::squeeze().then(|| allocate_now(request, grows, site)).flatten())
}

fn allocate_now(request: &Request, grows: bool, site: Site) -> Option<Addr> {
    let errno = ErrnoGuard::new();
    let heap = heap();
    let pointer = loop {
        // Written in place: copies of it take room that callers on small stacks do not have.
        let mut fault = None;
        let pointer = thread::with(|thread| {
            // A fast path that failed may have left a misuse to report.
            fault = thread.take_fault();
            if fault.is_some() {
                return None;
            }
            let pointer = heap.allocate(thread, request, grows, site);
            fault = thread.take_fault();
            pointer
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

/// Whether the C library's allocator has objects in this process, too.
static LIBC_HAS_OBJECTS: AtomicBool = AtomicBool::new(false);

/// Says that the C library's allocator has objects in this process, so that a foreign pointer is no error in
/// itself: it was in use before this heap was there, or it serves what this heap cannot.
pub fn expect_libc_objects() {
    LIBC_HAS_OBJECTS.store(true, Ordering::Relaxed);
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
    if process::stands_aside() {
        return vm::lock_all(flags);
    }
    let status = vm::lock_all_on_fault(flags);
    if status == 0 && is_started() {
        heap().page.unlock_memory();
    }
    status
}

impl Heap {
    /// What is done with pointers of neither allocator.
    pub(super) fn foreign(&self) -> Foreign {
        match self.options.foreign {
            Foreign::Abort if LIBC_HAS_OBJECTS.load(Ordering::Relaxed) => Foreign::Libc,
            chosen => chosen,
        }
    }

    /// For a mismatch between C and C++ in a process with several C++ runtimes: the claim to free with
    /// all the same.
    pub(super) fn tolerated(&self, fault: &Fault, claim: &Claim) -> Option<Claim> {
        let origin = fault.object.filter(|_| fault.kind == Kind::AllocDeallocMismatch)?.origin;
        let plain = origin == Origin::Malloc || claim.origin == Origin::Malloc;
        let mixed = plain && claim.origin != Origin::Rust && super::runtimes_are_mixed();
        mixed.then_some(Claim { origin, ..*claim })
    }

    /// `grows` says that the object has grown already, and may go on.
    fn allocate(&self, thread: &mut Thread, request: &Request, grows: bool, site: Site) -> Option<Addr> {
        if request.size > isize::MAX.cast_unsigned() {
            return None;
        }
        let sampled = self.options.mode == Mode::Patrol && self.sample(thread);
        let route = policy::route(&self.options, request.size, request.align, sampled, class::MAX_ALIGN);
        let mut refusal = None;
        if let Route::Page { optional } = route {
            match self.allocate_guarded(thread, request, optional, grows, site) {
                Ok(placed) => return Some(placed),
                Err(reason) => refusal = Some(reason),
            }
        }
        let Some(class) = class::of(request.size, request.align.max(ABI_ALIGN)) else {
            // Too large for slots: pages or nothing.
            return match refusal {
                None => self.allocate_guarded(thread, request, false, grows, site).ok(),
                Some(_) => None,
            };
        };
        let pointer = self.allocate_slot(thread, request, class);
        if pointer.is_null() {
            // A full region or no memory for another slab; a misuse is the caller's to report.
            let fallback = refusal.is_none() && !thread.slab.has_fault();
            return fallback
                .then(|| self.allocate_guarded(thread, request, false, grows, site).ok())
                .flatten();
        }
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
        grows: bool,
        site: Site,
    ) -> Result<Addr, Refusal> {
        let event = match self.keeps_no_stack(request.size == 0) {
            true => Event::default(),
            false => self.event(site, thread),
        };
        let shard = thread.shard as usize;
        let rng = thread.rng();
        let side = policy::side(&self.options, rng.byte() & 1 != 0);
        let placed = self.page.allocate(request, side, optional, grows, shard, event, rng);
        if placed.is_ok() {
            Counts::bump(&thread.counts.guarded);
        }
        placed
    }

    /// Whether the events of an object of zero bytes, if it is one, go without stacks: where those of other small
    /// objects do.
    fn keeps_no_stack(&self, is_nothing: bool) -> bool {
        is_nothing && self.options.mode != Mode::Hunt
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
            if let Some(fault) = slab::misuse::other_alignment(place, claim) {
                return Err(fault);
            }
            return match thread.slab.free(place, claim) {
                true => Ok(()),
                false => thread.take_fault().map_or(Ok(()), Err),
            };
        }
        if !self.page.contains(claim.address) {
            let fault = Fault::new(Kind::InvalidFree, claim.address, None);
            return Err(fault);
        }
        let event = match self.keeps_no_stack(self.page.is_in_void(claim.address)) {
            true => Event::default(),
            false => self.event(site, thread),
        };
        self.page.free(claim, self.options.mismatch, thread.shard as usize, event)
    }
}

/// Whether it was said that the mappings are in use.
static MAPPINGS_SAID: AtomicBool = AtomicBool::new(false);

/// Classes that are tried when the right one has no slot: its region is full, which happens where
/// address space is limited.
const OTHER_CLASSES: usize = 24;
