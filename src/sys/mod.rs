//! Every system call and every call into the C library; nothing else in the crate makes one.
//!
//! Functions here return `Option` or a small enumeration: an errno that a caller can act on becomes a
//! variant, one that cannot happen ends at [`process::die`].
//!
//! What the C library makes a cancellation point (reading, writing, sleeping, `getrandom`) is called
//! through `syscall`, which is none: a thread must not be cancelled while it holds a lock of ours.

pub mod action;
pub mod auxv;
pub mod collector;
pub mod deliver;
pub mod errno;
pub mod file;
pub mod futex;
pub mod guard;
pub mod loader;
pub mod machine;
pub mod process;
pub mod seal;
pub mod signal;
pub mod stacks;
pub mod thread;
pub mod vm;
pub mod world;
