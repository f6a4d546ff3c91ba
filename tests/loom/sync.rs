//! In the place of `crate::sync`: atomics that are loom's inside a model and plain outside of one.
//!
//! The code under test has atomics in constants and in zeroed mappings, which loom's cannot be: they belong
//! to one execution of a model and have to be made in it. So an atomic here gets its loom atomic when it is
//! first used, which has to be before there are threads that race for it: zero bytes are one with the value 0. Statics and
//! memory that outlives an execution get another in each.
//! The lock is the real one. Included files' own unit tests run outside of models.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64 as Counter, Ordering as Order};

/// Executions of all models so far.
static EXECUTIONS: Counter = Counter::new(0);

thread_local! {
    /// The number of the execution that runs.
    static EXECUTION: Cell<u64> = const { Cell::new(0) };
    /// Whether atomics that nobody has changed in the execution are read as they are: such a load is no point at which
    /// threads are interrupted.
    static SPARING: Cell<bool> = const { Cell::new(false) };
    /// Whether a model runs. Loom runs all threads of a model on the thread that called it.
    static IN_MODEL: Cell<bool> = const { Cell::new(false) };
    /// What frees the loom atomics of the execution.
    static MADE: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// Whether a model runs. Included files' own unit tests run outside of one, in one thread.
pub fn in_model() -> bool {
    IN_MODEL.get()
}

/// An execution of a model; at its end the atomics that it used are freed.
pub struct Execution(());

pub fn enter() -> Execution {
    EXECUTION.set(EXECUTIONS.fetch_add(1, Order::Relaxed) + 1);
    IN_MODEL.set(true);
    Execution(())
}

impl Drop for Execution {
    fn drop(&mut self) {
        IN_MODEL.set(false);
        SPARING.set(false);
        crate::sys::futex::forget();
        MADE.take().into_iter().for_each(|free| free());
    }
}

/// From here to the end of the execution, loads of what nobody has changed in it are no points at which threads are
/// interrupted: for tables of which a model uses little and its code reads much. What threads race for has to be changed before.
pub fn spare_the_unchanged() {
    SPARING.set(true);
}

/// Does it with plain values, from which the executions begin. What it changes is in no model yet.
pub fn beforehand<T>(change: impl FnOnce() -> T) -> T {
    let before = IN_MODEL.replace(false);
    let result = change();
    IN_MODEL.set(before);
    result
}

pub fn pause() {
    loom::thread::yield_now();
}

/// Everybody waits.
pub fn may_wait() -> bool {
    true
}

#[path = "../../src/sync/lock.rs"]
pub mod lock;
#[path = "../../src/sync/rank.rs"]
pub mod rank;

pub use lock::{Guard, Lock};
pub use rank::Rank;

pub mod atomic {
    use super::{EXECUTION, IN_MODEL, MADE, SPARING};
    pub use loom::sync::atomic::Ordering;

    pub fn fence(order: Ordering) {
        if IN_MODEL.get() {
            loom::sync::atomic::fence(order);
        }
    }

    use std::cell::{Cell, UnsafeCell};
    use std::ptr;

    macro_rules! atomics {
        ($($name:ident: $value:ty;)+) => {$(
            /// Zero bytes are a valid value.
            #[repr(C)]
            pub struct $name {
                plain: UnsafeCell<$value>,
                /// Null until it is used in a model.
                model: Cell<*mut loom::sync::atomic::$name>,
                /// The execution for which it was made.
                execution: Cell<u64>,
            }

            // SAFETY: in a model all threads are one thread of the system's, and outside of models there
            // is only one that uses an atomic.
            unsafe impl Send for $name {}
            // SAFETY: in a model all threads are one thread of the system's, so no two of them use the cells
            // at a time.
            unsafe impl Sync for $name {}

            impl Default for $name {
                fn default() -> Self {
                    Self::new(<$value>::default())
                }
            }

            impl $name {
                pub const fn new(value: $value) -> Self {
                    Self { plain: UnsafeCell::new(value), model: Cell::new(ptr::null_mut()), execution: Cell::new(0) }
                }

                fn in_model(&self) -> Option<&loom::sync::atomic::$name> {
                    if !IN_MODEL.get() {
                        return None;
                    }
                    if !self.is_made() {
                        // SAFETY: nobody changes the plain value inside a model.
                        let initial = unsafe { *self.plain.get() };
                        let made = Box::into_raw(Box::new(loom::sync::atomic::$name::new(initial)));
                        self.model.set(made);
                        self.execution.set(EXECUTION.get());
                        // SAFETY: made by `into_raw` just now, and freed once, after all threads of
                        // the execution were joined.
                        MADE.with_borrow_mut(|all| all.push(Box::new(move || unsafe { drop(Box::from_raw(made)) })));
                    }
                    // SAFETY: made above in this execution, whose end frees it.
                    Some(unsafe { &*self.model.get() })
                }

                /// Whether there is one of this execution's.
                fn is_made(&self) -> bool {
                    !self.model.get().is_null() && self.execution.get() == EXECUTION.get()
                }

                /// Outside of models: `change` applied, and what was there before.
                fn plainly(&self, change: impl FnOnce($value) -> $value) -> $value {
                    // SAFETY: outside of models one thread uses an atomic.
                    unsafe {
                        let old = *self.plain.get();
                        *self.plain.get() = change(old);
                        old
                    }
                }

                pub fn load(&self, order: Ordering) -> $value {
                    if SPARING.get() && IN_MODEL.get() && !self.is_made() {
                        // SAFETY: nobody changes the plain value inside a model.
                        return unsafe { *self.plain.get() };
                    }
                    self.in_model().map_or_else(|| self.plainly(|old| old), |atomic| atomic.load(order))
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    match self.in_model() {
                        Some(atomic) => atomic.store(value, order),
                        None => drop(self.plainly(|_| value)),
                    }
                }

                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    if let Some(atomic) = self.in_model() {
                        return atomic.compare_exchange(current, new, success, failure);
                    }
                    let old = self.plainly(|old| if old == current { new } else { old });
                    if old == current { Ok(old) } else { Err(old) }
                }
            }
        )+};
    }

    macro_rules! adding {
        ($($name:ident: $value:ty;)+) => {$(
            impl $name {
                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    match self.in_model() {
                        Some(atomic) => atomic.fetch_add(value, order),
                        None => self.plainly(|old| old.wrapping_add(value)),
                    }
                }

                pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    match self.in_model() {
                        Some(atomic) => atomic.fetch_max(value, order),
                        None => self.plainly(|old| old.max(value)),
                    }
                }

                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    match self.in_model() {
                        Some(atomic) => atomic.swap(value, order),
                        None => self.plainly(|_| value),
                    }
                }

                pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                    match self.in_model() {
                        Some(atomic) => atomic.fetch_or(value, order),
                        None => self.plainly(|old| old | value),
                    }
                }

                pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                    match self.in_model() {
                        Some(atomic) => atomic.fetch_and(value, order),
                        None => self.plainly(|old| old & value),
                    }
                }

                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    match self.in_model() {
                        Some(atomic) => atomic.fetch_sub(value, order),
                        None => self.plainly(|old| old.wrapping_sub(value)),
                    }
                }
            }
        )+};
    }

    atomics! {
        AtomicBool: bool;
        AtomicU8: u8;
        AtomicU16: u16;
        AtomicU32: u32;
        AtomicU64: u64;
        AtomicUsize: usize;
    }

    adding! {
        AtomicU16: u16;
        AtomicU32: u32;
        AtomicU64: u64;
        AtomicUsize: usize;
    }
}
