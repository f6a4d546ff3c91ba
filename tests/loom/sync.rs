//! In the place of `crate::sync`: atomics that are loom's inside a model and plain outside of one.
//!
//! The code under test has atomics in constants and in zeroed mappings, which loom's cannot be: they belong
//! to one execution of a model and have to be made in it. So an atomic here gets its loom atomic when it is
//! first used, which has to be before there are threads that race for it: zero bytes are one with the value 0.
//! The lock is the real one. Included files' own unit tests run outside of models.

use std::cell::{Cell, RefCell};

thread_local! {
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
    IN_MODEL.set(true);
    Execution(())
}

impl Drop for Execution {
    fn drop(&mut self) {
        IN_MODEL.set(false);
        crate::sys::futex::forget();
        MADE.take().into_iter().for_each(|free| free());
    }
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
    use super::{IN_MODEL, MADE};
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
            }

            // SAFETY: in a model all threads are one thread of the system's, and outside of models there
            // is only one that uses an atomic.
            unsafe impl Send for $name {}
            // SAFETY: as above.
            unsafe impl Sync for $name {}

            impl Default for $name {
                fn default() -> Self {
                    Self::new(<$value>::default())
                }
            }

            impl $name {
                pub const fn new(value: $value) -> Self {
                    Self { plain: UnsafeCell::new(value), model: Cell::new(ptr::null_mut()) }
                }

                fn in_model(&self) -> Option<&loom::sync::atomic::$name> {
                    if !IN_MODEL.get() {
                        return None;
                    }
                    if self.model.get().is_null() {
                        // SAFETY: nobody changes the plain value inside a model.
                        let initial = unsafe { *self.plain.get() };
                        let made = Box::into_raw(Box::new(loom::sync::atomic::$name::new(initial)));
                        self.model.set(made);
                        // SAFETY: made by `into_raw` just now, and freed once, after all threads of
                        // the execution were joined.
                        MADE.with_borrow_mut(|all| all.push(Box::new(move || unsafe { drop(Box::from_raw(made)) })));
                    }
                    // SAFETY: made above in this execution, whose end frees it.
                    Some(unsafe { &*self.model.get() })
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
