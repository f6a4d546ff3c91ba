//! A thread's state: its slab cache, its shard, its random numbers.
//!
//! The word of thread-local storage is 0 in a thread that has not allocated. Otherwise it is the address of a
//! [`Thread`], or of [`GONE`], which is always busy, in a thread whose state was passed on. Sealed states need a second
//! word. The first one is then the address of [`SEALED`], which is always busy, so every request takes the general
//! paths, which unseal. The second word is the state's address.
//!
//! A thread passes its state on when the last round of its destructors has run. The state is kept, with what its caches
//! could not flush, for the next thread that starts.

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::fault::Fault;
use crate::options::Mode;
use crate::page::PageAllocator;
use crate::rng::Rng;
use crate::stats::{Counts, Totals};
use crate::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering, compiler_fence};
use crate::sync::{self, Lock, Rank};
use crate::sys::action::BlockedSignals;
use crate::sys::seal::{self, Unsealed};
use crate::sys::{process, stacks, thread as sys, vm};
use crate::trace::Stack;
use crate::{policy, slab};
use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::NonNull;

use super::{heap, lifecycle, shared, start};

/// A thread's state.
#[repr(C, align(8))]
pub struct Thread {
    /// 0 when the thread may take the shortest paths: see [`BUSY`] and [`GENERAL`].
    pub gate: AtomicU8,
    /// Whether the sampler counts requests.
    samples: bool,
    /// The shard it places guarded objects in.
    pub shard: u32,
    /// Requests of one byte to so many go straight to the slab cache.
    pub fast_most: usize,
    /// As `fast_most`, for the shortest paths of an allocation: 0 where the sampler counts requests.
    pub plain_most: usize,
    /// The lesser of that and [`slab::class::SMALL_MAX`].
    pub small_most: usize,
    /// The kernel's id of the thread, 0 until it is asked for.
    pub id: u32,
    /// Its stack, as far as it is known.
    pub stack: Stack,
    /// Rounds of destructors that ran already.
    rounds: u32,
    /// Its generator, in pages that a forked child finds wiped.
    pub rng: *mut Rng,
    /// What it allocated.
    pub counts: Counts,
    /// Objects until the sampler picks one (patrol).
    pub until_sample: u32,
    /// Whether an `operator new` was refused that the C++ library is about to ask `malloc` for.
    pub refused_new: bool,
    /// The number of the fork that the thread is about to make.
    fork: u64,
    /// The next in the list of all.
    next: *mut Thread,
    /// The next in the list of unused ones.
    next_unused: *mut Thread,
    /// Its slab cache.
    pub slab: slab::Cache,
}

/// What the word of a thread points at that has no state any more: begins like a busy state.
static GONE: AtomicU8 = AtomicU8::new(BUSY);

/// What the word of a thread points at whose state is sealed: begins like a busy state.
static SEALED: u8 = BUSY;

/// The gate's bit of a thread that is inside the allocator.
pub const BUSY: u8 = 1;
/// The gate's bit of a run in which the mode or the options want every request looked at.
const GENERAL: u8 = 2;
/// The gate's bit of a forked child's thread that goes on in its parent's batches: their order is drawn anew before
/// anything else, on the general paths.
const REORDER: u8 = 4;

/// All states, and those without a thread.
pub(super) struct Registry {
    unused: *mut Thread,
    made: u32,
    /// One past the generators, which are given out from the last on: those in use lie beside what was mapped before.
    rngs_end: *mut Rng,
    rng_count: usize,
    /// Room for the states of the first threads, mapped at start: a process may limit its address
    /// space later.
    ahead: Addr,
    ahead_left: u32,
}

// SAFETY: the pointers are to mappings that live as long as the process, reached under the lock.
unsafe impl Send for Registry {}

/// Taken with signals blocked.
pub(super) static REGISTRY: Lock<Registry> = Lock::new(
    Rank::Registry,
    Registry {
        unused: core::ptr::null_mut(),
        made: 0,
        rngs_end: core::ptr::null_mut(),
        rng_count: 0,
        ahead: Addr::NULL,
        ahead_left: 0,
    },
);

/// The list of all states, for sums; only grows.
static ALL: AtomicPtr<Thread> = AtomicPtr::new(core::ptr::null_mut());

/// Generators in the pages that are wiped; states beyond have theirs wiped by the fork hook alone.
const RNGS: usize = 16 << 10;
/// The same where address space is limited.
const RNGS_LIMITED: usize = 256;
/// Behind them, at the end of a page, a word that is wiped with them; see [`process`].
const BEHIND_RNGS: usize = 64;
const _: () = assert!(BEHIND_RNGS.is_multiple_of(align_of::<Rng>()) && BEHIND_RNGS >= size_of::<AtomicU32>());
/// The shard of the shared state.
const COMMON_SHARD: u32 = PageAllocator::SHARDS as u32 - 1;
/// Rounds of destructors after which a thread's state is handed on: the C library runs four.
const LAST_ROUND: u32 = 3;

/// Bytes of a state.
const STATE_BYTES: usize = size_of::<Thread>().next_multiple_of(PAGE_SIZE);

/// Bytes of all that a thread has: its state, and a page for a generator of its own where the wiped pages have none
/// left.
const STATE_STRIDE: usize = STATE_BYTES + PAGE_SIZE;
/// States that are mapped at start.
const AHEAD: u32 = 256;
/// The same where address space is limited.
const AHEAD_LIMITED: u32 = 4;
/// States beyond them that are mapped at once: one by one each would be a mapping of its own, between the stacks of
/// threads.
const AT_ONCE: u32 = 32;

/// How many are.
static MORE: AtomicU32 = AtomicU32::new(1);

/// Bytes of the first threads' states.
pub const AHEAD_BYTES: usize = STATE_STRIDE * AHEAD as usize;

/// Maps the generators. Called once, at start; `limited` says whether address space is.
pub fn make_generators(limited: bool) {
    let Some(mut registry) = REGISTRY.lock_signal_safe() else { return };
    let count = if limited { RNGS_LIMITED } else { RNGS };
    let bytes = (count * size_of::<Rng>() + BEHIND_RNGS).next_multiple_of(PAGE_SIZE);
    if let Some(base) = vm::tables_apart(bytes) {
        let end = base.plus(bytes);
        if vm::wipe_on_fork(Span::new(base, PageCount::holding(bytes))) {
            // SAFETY: within the fresh zeroed mapping, which lives as long as the process, and used for this alone.
            process::keep_word(unsafe { &*end.minus(BEHIND_RNGS).as_ptr::<AtomicU32>() });
        }
        registry.rngs_end = end.minus(BEHIND_RNGS).as_ptr();
        registry.rng_count = count;
    }
}

/// Maps the first threads' states. Called once, at start; `limited` says whether address space is.
pub fn init(limited: bool) {
    let Some(mut registry) = REGISTRY.lock_signal_safe() else { return };
    MORE.store(if limited { 1 } else { AT_ONCE }, Ordering::Relaxed);
    let count = if limited { AHEAD_LIMITED } else { AHEAD };
    if let Some(base) = vm::tables(STATE_STRIDE * count as usize) {
        registry.ahead = base;
        registry.ahead_left = count;
    }
}

/// Gives back room for the states of further threads, but for what there is where address space is limited.
pub fn cut() {
    MORE.store(1, Ordering::Relaxed);
    let Some(mut registry) = REGISTRY.lock_signal_safe() else { return };
    let kept = registry.ahead_left.min(AHEAD_LIMITED);
    let more = (registry.ahead_left - kept) as usize * STATE_STRIDE;
    registry.ahead_left = kept;
    if more != 0 {
        let start = registry.ahead.plus(kept as usize * STATE_STRIDE);
        vm::unreserve(Span::new(start, PageCount::holding(more)));
    }
}

impl Thread {
    /// The generator.
    pub fn rng(&mut self) -> &mut Rng {
        // SAFETY: `make` set the pointer to a generator that is this state's alone.
        unsafe { &mut *self.rng }
    }

    /// The thread's id, asked for once.
    pub fn id(&mut self) -> u32 {
        if self.id == 0 {
            self.id = sys::id();
        }
        self.id
    }

    /// What the slab cache found, if anything.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.slab.take_fault()
    }

    /// Whether the sampler is to be asked for the next object; it counts the object if not.
    #[inline(always)]
    pub fn is_due(&mut self) -> bool {
        if !self.samples {
            return false;
        }
        match self.until_sample.checked_sub(1) {
            Some(left) => {
                self.until_sample = left;
                false
            }
            None => true,
        }
    }

    /// Marks the thread as being inside the allocator; what the gate was before.
    #[inline(always)]
    pub fn close_gate(&mut self) -> u8 {
        let gate = self.gate.load(Ordering::Relaxed);
        self.gate.store(gate | BUSY, Ordering::Relaxed);
        // A signal handler looks at the gate: what follows is not moved before it.
        compiler_fence(Ordering::SeqCst);
        sync::begin_inside();
        gate
    }

    /// Takes [`Thread::close_gate`] back.
    #[inline(always)]
    pub fn open_gate(&mut self, gate: u8) {
        if gate & BUSY == 0 {
            sync::end_inside();
        }
        compiler_fence(Ordering::SeqCst);
        self.gate.store(gate, Ordering::Relaxed);
    }
}

/// Room for a state, mapped with that for the next ones.
#[cold]
fn map_more() -> Option<Addr> {
    let count = MORE.load(Ordering::Relaxed);
    let many = if count == 1 { None } else { vm::tables(STATE_STRIDE * count as usize) };
    let Some(base) = many else { return vm::tables(STATE_STRIDE) };
    let (next, left) = (base.plus(STATE_STRIDE), count - 1);
    let kept = REGISTRY.lock_signal_safe().is_some_and(|mut registry| {
        // Another thread may have mapped some as well.
        let none = registry.ahead_left == 0;
        if none {
            (registry.ahead, registry.ahead_left) = (next, left);
        }
        none
    });
    if !kept {
        vm::unreserve(Span::new(next, PageCount::holding(left as usize * STATE_STRIDE)));
    }
    Some(base)
}

/// A state for the calling thread or for sharing; `None` when the kernel grants no memory. Signals are
/// blocked.
pub fn make(shared: bool) -> Option<*mut Thread> {
    let mut registry = REGISTRY.lock_signal_safe()?;
    if !registry.unused.is_null() && !shared {
        let thread = registry.unused;
        // SAFETY: states in the list have no owner; the lock makes this thread their owner.
        unsafe {
            registry.unused = (*thread).next_unused;
            (*thread).gate = AtomicU8::new(gate_of_run());
            (*thread).rounds = 0;
            (*thread).id = 0;
            (*thread).stack = Stack::default();
        }
        return Some(thread);
    }
    let ordinal = registry.made;
    registry.made += 1;
    let (rngs_end, rng_count) = (registry.rngs_end, registry.rng_count);
    let mut ahead = None;
    if registry.ahead_left > 0 {
        ahead = Some(registry.ahead);
        registry.ahead = registry.ahead.plus(STATE_STRIDE);
        registry.ahead_left -= 1;
    }
    drop(registry);
    let own_rng = ordinal as usize >= rng_count;
    let base = ahead.or_else(map_more)?;
    let thread = base.as_ptr::<Thread>();
    let rng = if own_rng {
        base.plus(STATE_BYTES).as_ptr()
    } else {
        // SAFETY: the ordinal is below the number of generators mapped.
        unsafe { rngs_end.sub(ordinal as usize + 1) }
    };
    let options = &heap().options;
    // SAFETY: the mapping is fresh, zero and ours, and zero bytes are a valid state.
    let state = unsafe { &mut *thread };
    state.gate = AtomicU8::new(gate_of_run());
    state.samples = options.mode == Mode::Patrol && options.sample_rate != 0;
    state.rng = rng;
    state.shard = if shared { COMMON_SHARD } else { ordinal % COMMON_SHARD };
    state.fast_most = policy::fast_limit(options).saturating_sub(1).min(slab::class::TABLE_MAX);
    state.plain_most = if state.samples { 0 } else { state.fast_most };
    state.small_most = state.plain_most.min(slab::class::SMALL_MAX);
    state.slab.init(rng, ordinal as usize, start::quarantine_bytes(options) != 0);
    heap().page.use_shard();
    let mut first = ALL.load(Ordering::Relaxed);
    loop {
        state.next = first;
        match ALL.compare_exchange(first, thread, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Some(thread),
            Err(other) => first = other,
        }
    }
}

/// The gate of an idle thread in this run.
fn gate_of_run() -> u8 {
    let options = &heap().options;
    let plain = policy::fast_limit(options) > slab::class::SMALL_MAX
        && options.canary
        && options.zero
        && options.mismatch;
    if plain { 0 } else { GENERAL }
}

/// The calling thread's state, if it has one, is not inside the allocator, and its batches are its own.
#[inline(always)]
pub fn idle() -> Option<*mut Thread> {
    let word = sys::slot();
    if word == 0 {
        return None;
    }
    let thread = Addr::new(word).as_ptr::<Thread>();
    // SAFETY: the word is the address of this thread's state, or of `GONE` or `SEALED`, which begin like one and
    // are always busy.
    (unsafe { (*thread).gate.load(Ordering::Relaxed) } & (BUSY | REORDER) == 0).then_some(thread)
}

fn gone() -> usize {
    (&raw const GONE).addr()
}

/// The calling thread's state, null if it has none; or `GONE`. It may be sealed.
fn own() -> *mut Thread {
    let word = sys::slot();
    let sealed = word == (&raw const SEALED).addr();
    Addr::new(if sealed { sys::sealed_slot() } else { word }).as_ptr()
}

/// Makes a state the calling thread's.
fn set_own(thread: *mut Thread) {
    let state = thread.expose_provenance();
    if seal::is_in_use() {
        sys::set_sealed_slot(state);
        sys::set_slot((&raw const SEALED).expose_provenance());
    } else {
        sys::set_slot(state);
    }
}

/// Runs `action` with the calling thread's state, or where it has none or is inside already, with the
/// shared one. `None` when the kernel grants no memory for a state. Locks of the heap are taken in here alone: so a
/// handler that interrupts their owner finds its state busy, and waits for none.
pub fn with<R>(action: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    match idle() {
        Some(thread) => enter(thread, action),
        None => with_slow(action),
    }
}

#[cold]
fn with_slow<R>(action: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    let _unsealed = Unsealed::begin();
    if sys::slot() == 0 {
        adopt();
    }
    let thread = own();
    // SAFETY: null, this thread's state, or `GONE`, which begins like one and is always busy.
    let idle = !thread.is_null() && unsafe { (*thread).gate.load(Ordering::Relaxed) } & BUSY == 0;
    if idle { enter(thread, action) } else { shared::with(action) }
}

/// Makes a state the calling thread's, unless there is no memory for one.
#[cold]
fn adopt() {
    let _blocked = BlockedSignals::begin();
    // A signal handler may have done it meanwhile.
    if sys::slot() != 0 {
        return;
    }
    let Some(thread) = make(false) else { return };
    set_own(thread);
    // SAFETY: the state is this thread's from here on.
    let state = unsafe { &mut *thread };
    let gate = state.close_gate();
    // Now and not when a report needs it: a sandbox that the program enters later may not permit the call.
    state.id();
    stacks::adopt();
    // May allocate; the state is busy, so that it uses the shared one.
    if let Some(value) = NonNull::new(thread.cast::<c_void>()) {
        sys::set_exit_hook(value);
    }
    state.open_gate(gate);
}

/// Gives the calling thread a signal stack of ours if it has a state and none yet: the kernel refuses one to a thread
/// that begins to allocate in a handler on another. The program is about to set its own.
pub fn use_signal_stack() {
    let _unsealed = Unsealed::begin();
    if has_own() && !process::borrows_memory() {
        let _blocked = BlockedSignals::begin();
        stacks::adopt();
    }
}

fn enter<R>(thread: *mut Thread, action: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    // SAFETY: the state is this thread's and idle: no other reference to it exists.
    let state = unsafe { &mut *thread };
    let gate = state.close_gate();
    if gate & REORDER != 0 {
        state.slab.reorder();
    }
    let result = action(state);
    state.open_gate(gate & !REORDER);
    Some(result)
}

/// Hands the state of a thread that ends on. Runs as a destructor of thread-specific data: again in
/// each round, so that the destructors of others find the state still there.
///
/// # Safety
/// `value` is the calling thread's state.
pub unsafe extern "C" fn on_exit(value: *mut c_void) {
    let _unsealed = Unsealed::begin();
    let thread = value.cast::<Thread>();
    // SAFETY: as the caller says.
    let state = unsafe { &mut *thread };
    if state.gate.load(Ordering::Relaxed) & BUSY != 0 {
        // It was cancelled inside the allocator, or left by a signal handler: what it was in the middle of is
        // not known, and its state not used again.
        stacks::leave();
        sys::set_slot(gone());
        // SAFETY: this thread does not come back.
        unsafe { lifecycle::abandon_all() };
        return;
    }
    if state.rounds < LAST_ROUND {
        state.rounds += 1;
        if NonNull::new(value).is_some_and(sys::set_exit_hook) {
            return;
        }
    }
    state.close_gate();
    stacks::leave();
    state.slab.drain();
    if let Some(fault) = state.take_fault() {
        heap().misuse(fault, crate::request::Site::default());
    }
    sys::set_slot(gone());
    let Some(mut registry) = REGISTRY.lock_signal_safe() else { return };
    state.next_unused = registry.unused;
    registry.unused = thread;
}

/// The calling thread's stack, as far as it is known. Tables are not sealed.
pub fn stack() -> Stack {
    let thread = own();
    if thread.is_null() || thread.addr() == gone() {
        return Stack::default();
    }
    // SAFETY: it is this thread's state, and a plain field of it is read.
    unsafe { (*thread).stack }
}

/// Where tools find the list of all states, and in a state the next one, its counts and its cache.
pub fn offsets() -> [usize; 4] {
    use core::mem::offset_of;
    let list = Addr::of(core::ptr::from_ref(&ALL)).get();
    [list, offset_of!(Thread, next), offset_of!(Thread, counts), offset_of!(Thread, slab)]
}

/// The sum of all counts. Tables are not sealed.
pub fn totals() -> Totals {
    let mut totals = Totals::default();
    let mut thread = ALL.load(Ordering::Acquire);
    while !thread.is_null() {
        // SAFETY: states are never unmapped; the counts are atomics.
        let state = unsafe { &*thread };
        state.counts.add_to(&mut totals);
        totals.slab = totals.slab.wrapping_add(state.slab.allocated());
        thread = state.next;
    }
    totals
}

/// Before a fork: remembers which of the process's it is, where the child finds it.
pub fn note_fork(number: u64) {
    if has_own() {
        // SAFETY: it is this thread's state, and a plain field of it is written.
        unsafe { (*own()).fork = number };
    }
}

/// In a forked child: what [`note_fork`] was told; 0 in a thread without a state.
pub fn fork_number() -> u64 {
    // SAFETY: it is this thread's state, and a plain field of it is read.
    if has_own() { unsafe { (*own()).fork } } else { 0 }
}

/// In a forked child: what another thread was in the middle of is not known. The unused states are left alone then.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit() {
    // SAFETY: as the caller says.
    unsafe {
        REGISTRY.inherit(|registry| {
            registry.unused = core::ptr::null_mut();
            registry.ahead_left = 0;
        });
    }
}

/// Whether the calling thread has a state.
fn has_own() -> bool {
    let thread = own();
    !thread.is_null() && thread.addr() != gone()
}

/// Whether the calling thread is inside the allocator: a handler interrupted it there. Tables are not sealed.
pub fn is_inside() -> bool {
    // SAFETY: it is this thread's state.
    has_own() && unsafe { (*own()).gate.load(Ordering::Relaxed) } & BUSY != 0
}

/// In a forked child: new ids and keys for the one thread that is left.
pub fn in_child() {
    if has_own() {
        // SAFETY: it is this thread's state.
        let state = unsafe { &mut *own() };
        state.id = 0;
        // Not if a handler forks that interrupted the allocator, which may be at one of the batches. Most children
        // allocate nothing before they become another program.
        let gate = state.gate.load(Ordering::Relaxed);
        if gate & BUSY == 0 {
            state.gate.store(gate | REORDER, Ordering::Relaxed);
        }
    }
    let mut thread = ALL.load(Ordering::Acquire);
    while !thread.is_null() {
        // SAFETY: states are never unmapped, and in the child the other ones have no owner.
        unsafe {
            // Those that the kernel wiped have no key. It may have no such advice, or answer and not do it.
            let rng = &mut *(*thread).rng;
            if rng.has_key() {
                rng.forget();
            }
            thread = (*thread).next;
        }
    }
}
