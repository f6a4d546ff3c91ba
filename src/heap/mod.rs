//! The heap: the only place where allocators, policy, statistics and reports meet.
//!
//! - [`start`]: options and everything that is set up once.
//! - [`thread`]: a thread's state: its slab cache, its shard, its random numbers; [`shared`]: the state for threads
//!   that have none.
//! - [`ops`]: allocate, free, resize; the fast paths first.
//! - [`query`]: the size of an object; the bounds of an access; figures; memory released on request.
//! - [`poison`]: bytes of live objects that nobody may access.
//! - [`limit`]: a process that limits its address space.
//! - [`lifecycle`]: fork; checks on request and at exit; the exit status.
//! - [`image`]: the heap of another process, for tools.
//! - [`sites`]: allocations that are counted by their stack, refused, or filled.
//! - [`leaks`]: objects that are still allocated at the end.
//!
//! One word of thread-local storage leads to a thread's state. While a thread is inside the allocator, its state is
//! marked busy. A signal handler that allocates meanwhile uses the shared state under a lock, and so does a thread
//! whose state is gone already.
//!
//! Tables may be sealed ([`crate::sys::seal`]). Every entry from outside that needs more than static data begins with
//! an [`Unsealed`], or with [`thread::with`], which unseals for threads whose states are sealed.
//!
//! # The fault handler
//!
//! The heap answers the fault handler's questions about an address, and installs the handler.

use crate::addr::{Addr, PageCount, Span};
use crate::fault::{Event, Fault};
use crate::options::Options;
use crate::page::PageAllocator;
use crate::report::finding::is_inside_live;
use crate::report::{Finding, fatal, handler};
use crate::request::Site;
use crate::slab;
use crate::sys::guard::{self, Backend};
use crate::sys::seal::{Sealed, Unsealed};
use crate::sys::{process, vm};
use crate::trace::{self, Depot, Frames, Stack};
use core::cell::UnsafeCell;
use core::ops::Range;
use thread::Thread;

pub mod image;
mod leaks;
mod lifecycle;
pub mod limit;
pub mod ops;
pub mod poison;
pub mod query;
mod resize;
mod shared;
pub mod sites;
pub mod start;
mod thread;

pub use lifecycle::{check, check_leaks, on_exit, on_quick_exit};
pub use ops::{
    allocate, expect_libc_objects, free, is_granted, lock_memory, may_ask_libc, set_origin, size_of,
    try_allocate_fast, try_allocate_plain, try_allocate_small, try_allocate_zeroed_fast, try_free_aligned,
    try_free_fast, try_free_plain, try_free_small, try_resize_small,
};
pub use query::{Answer, Usage, ask_size, trim, usage};
pub use resize::{Denied, resize};
pub use start::{Overrides, ensure_started, options};
pub use thread::use_signal_stack;

/// Everything there is one of.
struct Heap {
    options: Options,
    seed: u64,
    secure: bool,
    page: PageAllocator,
    depot: Depot,
}

/// What leads to functions that are called, set at start.
struct Calls {
    mixed_runtimes: Option<fn() -> bool>,
    report: fatal::Context,
}

#[unsafe(link_section = ".data.rel.ro.sealed")]
static CALLS: Sealed<Calls> = Sealed::empty();

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
    page: PageAllocator::NONE,
    depot: Depot::EMPTY,
}));

/// The heap. Callers passed the gate of [`start::ensure_started`].
#[inline(always)]
fn heap() -> &'static Heap {
    // SAFETY: `start` writes the heap before its gate opens. From then on it is only shared, and what changes
    // locks itself.
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

/// The heap, as the handler sees it.
struct Ours;

impl handler::Heap for Ours {
    fn context() -> Option<&'static fatal::Context> {
        start::is_started().then(reports).flatten()
    }

    fn whose(address: Addr) -> handler::Whose {
        if heap().page.contains(address) {
            handler::Whose::Ours(heap().page.object_near(address))
        } else if slab::contains(address) {
            handler::Whose::Ours(slab::object_near(address))
        } else if let Some(object) = heap().page.detached_near(address) {
            handler::Whose::Ours(Some(object))
        } else {
            handler::Whose::Foreign
        }
    }

    fn mend(address: Addr) -> bool {
        if slab::layout::layout().backend != Backend::Madvise {
            return false;
        }
        // The allocator itself touches what it has just opened, the program what it was given.
        let must_be_open = match Self::whose(address) {
            handler::Whose::Ours(_) if thread::is_inside() => true,
            handler::Whose::Ours(Some(object)) => {
                is_inside_live(address, &object) && Self::poisoned(address).is_none()
            }
            _ => false,
        };
        must_be_open && guard::mend(address)
    }

    fn open(address: Addr) -> bool {
        if slab::contains(address) {
            let page = Span::new(address.page_floor(), PageCount::new(1));
            return slab::layout::layout().backend.open(page) && vm::commit(page);
        }
        heap().page.open_for_access(address)
    }

    fn poisoned(address: Addr) -> Option<Range<usize>> {
        let page = &heap().page;
        page.is_closed_by_poison(address).then(|| page.poisoned_around(address)).flatten()
    }

    fn stack() -> Stack {
        thread::stack()
    }
}

/// Takes the fault signals, once.
pub fn install() {
    handler::install::<Ours>();
}

/// When the program is loaded, which may be before the first allocation.
extern "C" fn on_load() {
    if !process::stands_aside() {
        install();
    }
}

#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static ON_LOAD: extern "C" fn() = on_load;
