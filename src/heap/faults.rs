//! What the fault handler asks of the heap, and its installation.

use super::{heap, start, thread};
use crate::addr::{Addr, PageCount, Span};
use crate::report::finding::is_inside_live;
use crate::report::{fatal, handler};
use crate::slab;
use crate::sys::guard::Backend;
use crate::sys::{probe, process, vm};
use crate::trace::Stack;
use core::ops::Range;

/// The heap, as the handler sees it.
struct Ours;

impl handler::Heap for Ours {
    fn context() -> Option<&'static fatal::Context> {
        start::is_started().then(super::reports).flatten()
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
        must_be_open && probe::mend(address)
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
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;
