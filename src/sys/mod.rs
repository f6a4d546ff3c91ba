//! Every system call and every call into the C library; nothing else in the crate makes one.
//!
//! Functions here return `Option` or a small enumeration: an errno that a caller can act on becomes a
//! variant, one that cannot happen ends at [`die`].

pub mod aux;
pub mod die;
pub mod entropy;
pub mod env;
pub mod errno;
pub mod file;
pub mod guard;
pub mod limits;
pub mod signal;
pub mod thread;
pub mod vm;
