//! In the place of `crate::sys`: zeroed memory, and what else the modelled files ask of it.

pub mod vm {
    use crate::addr::Addr;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::cell::RefCell;

    thread_local! {
        static MAPPED: RefCell<Vec<(*mut u8, Layout)>> = const { RefCell::new(Vec::new()) };
    }

    /// An atomic of the models has this many times the bytes of a real one at most.
    const LARGER: usize = 4;

    /// Zeroed memory for as many atomics as `bytes` hold of the real ones, until [`unmap_all`].
    pub fn tables(bytes: usize) -> Option<Addr> {
        let layout = Layout::from_size_align(bytes.checked_mul(LARGER)?, 64).ok()?;
        // SAFETY: no table is empty.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            return None;
        }
        MAPPED.with_borrow_mut(|all| all.push((pointer, layout)));
        Some(Addr::new(pointer.expose_provenance()))
    }

    /// The same: memory of the models is in no core file.
    pub fn sparse_tables(bytes: usize) -> Option<Addr> {
        tables(bytes)
    }

    /// The same: memory of the models is open.
    pub fn closed_tables(bytes: usize) -> Option<Addr> {
        tables(bytes)
    }

    /// Memory of the models has pages of any size.
    pub fn allow_huge_pages(_: crate::addr::Span) {}

    /// Memory of the models is open.
    pub fn commit(_: crate::addr::Span) -> bool {
        true
    }

    /// Memory of the models is freed at their end.
    pub fn give_back(_: crate::addr::Span) {}

    /// The start of a mapping, in the order in which they were made.
    pub fn nth(index: usize) -> Addr {
        MAPPED.with_borrow(|all| Addr::new(all[index].0.expose_provenance()))
    }

    /// At the end of an execution.
    pub fn unmap_all() {
        for (pointer, layout) in MAPPED.take() {
            // SAFETY: allocated above with this layout; the execution that used it is over.
            unsafe { dealloc(pointer, layout) };
        }
    }
}

/// What tells threads apart: each thread of a model has a number of its own.
pub mod thread {
    use std::cell::Cell;

    thread_local! {
        static NEXT: Cell<usize> = const { Cell::new(0) };
    }

    loom::thread_local! {
        static MINE: Cell<usize> = Cell::new(0);
    }

    /// As threads' pointers are: aligned, and not 0.
    pub fn pointer() -> usize {
        MINE.with(|mine| {
            if mine.get() == 0 {
                NEXT.set(NEXT.get().wrapping_add(64) % 65_536);
                mine.set(NEXT.get() + 64);
            }
            mine.get()
        })
    }
}
