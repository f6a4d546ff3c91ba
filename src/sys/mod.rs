//! Every system call and every call into the C library; nothing else in the crate makes one.
//!
//! Functions here return `Option` or a small enumeration. An errno that a caller can act on becomes a variant. One that
//! cannot happen ends at [`process::die`].
//!
//! Functions that the C library makes cancellation points (reading, writing, sleeping, `getrandom`) are called through
//! `syscall`, which is none: a thread must not be cancelled while it holds a lock of ours.

pub mod action;
pub mod auxv;
pub mod collector;
pub mod deliver;
pub mod errno;
pub mod file;
pub mod futex;
pub mod guard;
pub mod handover;
pub mod loader;
pub mod machine;
pub mod process;
pub mod seal;
pub mod signal;
pub mod stacks;
pub mod thread;
pub mod vm;
pub mod world;
