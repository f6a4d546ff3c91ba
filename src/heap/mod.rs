//! The heap: the only place where arms, policy, statistics and reports meet.
//!
//! - [`start`]: options and everything that is set up once.
//! - [`thread`]: what each thread has: its slab cache, its lane, its random numbers; [`shared`]: what those
//!   use that have nothing.
//! - [`ops`]: allocate, free, resize; the fast paths first.
//! - [`ending`]: checks on request and at exit, the exit status.
//! - [`usage`](mod@usage): figures of what is in use; giving memory back.
//! - [`bounds`]: whose bytes an access would touch; [`poison`]: those of live objects that nobody may.
//! - [`faults`]: what the fault handler asks.
//! - [`limit`]: what happens when the process limits its address space.
//! - [`fork`]: what happens around `fork`.
//! - [`image`]: the heap of another process, for tools.
//! - [`sites`]: allocations that are counted by their stack, refused, or filled.
//! - [`leaks`]: what is still allocated at the end.
//!
//! A thread's state is reached through one word of thread-local storage. While a thread is inside
//! the allocator its state is marked busy; a signal handler that allocates meanwhile, and a thread
//! whose state is gone already, use the shared state under a lock.
//!
//! Tables may be sealed ([`crate::sys::pkey`]). Whatever leads from outside to more than static data begins with
//! an [`Unsealed`], or with [`thread::with`], which does so for threads whose states are sealed.

pub mod bounds;
mod ending;
mod faults;
mod fork;
pub mod image;
mod leaks;
pub mod limit;
pub mod ops;
pub mod poison;
mod query;
mod resize;
mod shared;
pub mod sites;
pub mod start;
mod thread;
mod usage;

pub use ending::{check, check_leaks, on_exit, on_quick_exit};
pub use ops::{
    allocate, expect_libc_objects, free, is_granted, lock_memory, may_ask_libc, set_origin, size_of,
    try_allocate_fast, try_allocate_small, try_allocate_zeroed_fast, try_free_aligned, try_free_fast,
    try_free_small, try_resize_small,
};
pub use query::{Answer, ask_size};
pub use resize::{Denied, resize};
pub use start::{Overrides, ensure_started, options};
pub use thread::use_signal_stack;
pub use usage::{Usage, trim, usage};

use crate::fault::{Event, Fault};
use crate::options::Options;
use crate::page::PageArm;
use crate::report::{Finding, fatal};
use crate::request::Site;
use crate::sys::pkey::Unsealed;
use crate::sys::sealed::Sealed;
use crate::trace::{self, Depot, Frames};
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicBool;
use thread::Thread;

/// Everything there is one of.
struct Heap {
    options: Options,
    seed: u64,
    secure: bool,
    page: PageArm,
    depot: Depot,
}

/// What leads to functions that are called, set at start.
struct Calls {
    mixed_runtimes: Option<fn() -> bool>,
    report: fatal::Context,
}

static CALLS_FILLER: AtomicBool = AtomicBool::new(false);
#[unsafe(link_section = ".data.rel.ro.sealed")]
static CALLS: Sealed<Calls> = Sealed::empty(&CALLS_FILLER);

/// Whether objects of `malloc` may rightly be freed as C++ ones; see [`ops::free`].
fn runtimes_are_mixed() -> bool {
    CALLS.get().and_then(|calls| calls.mixed_runtimes).is_some_and(|ask| ask())
}

/// What reports need; `None` until the heap is set up.
fn reports() -> Option<&'static fatal::Context> {
    CALLS.get().map(|calls| &calls.report)
}

struct Global(UnsafeCell<Heap>);

// SAFETY: written by `start` alone, while its gate keeps every other thread out; afterwards only the
// parts that lock themselves change.
unsafe impl Sync for Global {}

static HEAP: Global = Global(UnsafeCell::new(Heap {
    options: Options::DEFAULT,
    seed: 0,
    secure: false,
    page: PageArm::NONE,
    depot: Depot::EMPTY,
}));

/// The heap. Callers passed the gate of [`start::ensure_started`].
#[inline(always)]
fn heap() -> &'static Heap {
    // SAFETY: see `Global`.
    unsafe { &*HEAP.0.get() }
}

impl Heap {
    /// The stack of `site` in the depot, with the id of `thread`, the calling one.
    fn event(&self, site: Site, thread: &mut Thread) -> Event {
        let depth = usize::try_from(self.options.backtrace).unwrap_or(0);
        if depth == 0 {
            return Event { thread: thread.id(), stack: 0 };
        }
        thread.stack = thread.stack.down_to(site.sp);
        let mut frames = Frames::EMPTY;
        trace::capture_into(&mut frames, site, depth, thread.stack);
        let stack = self.depot.insert(&frames);
        Event { thread: thread.id(), stack }
    }

    /// Reports a misuse; returns if `on_error=continue`.
    #[cold]
    fn misuse(&self, fault: Fault, site: Site) {
        let _unsealed = Unsealed::begin();
        let frames = trace::capture(site, trace::MAX_FRAMES, thread::stack());
        if let Some(context) = reports() {
            fatal::misuse(context, &Finding::of_fault(fault, frames, (site.fp, site.sp)));
        }
    }
}
