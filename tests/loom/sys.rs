//! In the place of `crate::sys`: zeroed memory, and what else the modelled files ask of it.

pub mod vm {
    use crate::addr::Addr;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::cell::RefCell;

    thread_local! {
        static MAPPED: RefCell<Vec<(*mut u8, Layout)>> = const { RefCell::new(Vec::new()) };
    }

    /// An atomic of the models has this many times the bytes of a real one at most.
    const LARGER: usize = 24;

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
    pub fn unreserve(_: crate::addr::Span) {}

    /// As the crate has it; what nothing is marked in is clear as it is.
    pub fn discard(_: crate::addr::Span) -> bool {
        true
    }

    /// What was mapped so far stays for good.
    pub fn keep_all() {
        MAPPED.take();
    }

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
        static NEXT: Cell<u32> = const { Cell::new(0) };
        /// The thread whose process was forked into the one that runs.
        static FORKED: Cell<u32> = const { Cell::new(0) };
    }

    loom::thread_local! {
        static MINE: Cell<u32> = Cell::new(0);
    }

    /// As the crate has it: all ids here are the kernel's.
    pub const STAND_INS: u32 = 1 << 23;

    /// As threads' ids are: not 0.
    pub fn own_id() -> u32 {
        if !crate::sync::in_model() {
            return 1;
        }
        MINE.with(|mine| {
            if mine.get() == 0 {
                NEXT.set(NEXT.get() % 65_536 + 1);
                mine.set(NEXT.get());
            }
            mine.get()
        })
    }

    /// As a fork gives the one thread of the child another id.
    pub fn fork() {
        let before = own_id();
        FORKED.set(before);
        NEXT.set(NEXT.get() % 65_536 + 1);
        MINE.with(|mine| mine.set(NEXT.get()));
    }

    pub fn id_before_fork() -> u32 {
        FORKED.get()
    }

    pub fn is_real_time() -> bool {
        false
    }

    pub fn is_own_process() -> bool {
        true
    }
}

/// No signal comes in a model.
pub mod action {
    pub struct BlockedSignals(());

    impl BlockedSignals {
        pub fn begin() -> Self {
            Self(())
        }
    }
}

/// Mappings are not counted in a model.
pub mod machine {
    pub fn take_islands(_: u64) -> bool {
        true
    }

    pub fn release_islands(_: u64) {}
}

/// Sleeping, such that a thread that nobody wakes is found: the model ends in a deadlock.
pub mod futex {
    use crate::sync::atomic::{AtomicU32, Ordering};
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::sync::Arc;

    /// The kernel's queue of a word: who sleeps looks at the word under the queue's lock.
    type Queue = (loom::sync::Mutex<u32>, loom::sync::Condvar);

    thread_local! {
        static QUEUES: RefCell<HashMap<usize, Arc<Queue>>> = RefCell::default();
    }

    fn queue(word: &AtomicU32) -> Arc<Queue> {
        let new = || Arc::new((loom::sync::Mutex::new(0), loom::sync::Condvar::new()));
        let address = std::ptr::from_ref(word).addr();
        QUEUES.with_borrow_mut(|queues| queues.entry(address).or_insert_with(new).clone())
    }

    /// At the end of an execution.
    pub fn forget() {
        QUEUES.take();
    }

    pub fn wait(word: &AtomicU32, expected: u32) {
        let queue = queue(word);
        let mut woken = queue.0.lock().expect("no panic");
        if word.load(Ordering::SeqCst) != expected {
            return;
        }
        let before = *woken;
        while *woken == before {
            woken = queue.1.wait(woken).expect("no panic");
        }
    }

    pub fn wait_millis(word: &AtomicU32, expected: u32, _: u32) {
        wait(word, expected);
    }

    pub fn wake_one(word: &AtomicU32) {
        let queue = queue(word);
        *queue.0.lock().expect("no panic") += 1;
        queue.1.notify_one();
    }

    pub fn wake_all(word: &AtomicU32) {
        let queue = queue(word);
        *queue.0.lock().expect("no panic") += 1;
        queue.1.notify_all();
    }

    #[derive(PartialEq, Eq)]
    pub enum Lending {
        Taken,
        Again,
        Never,
    }

    pub fn lock_lending(_: &AtomicU32) -> Lending {
        unreachable!("no thread of a model is a real-time thread")
    }

    pub fn unlock_lending(_: &AtomicU32) -> bool {
        false
    }
}
