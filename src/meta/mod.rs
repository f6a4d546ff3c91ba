//! Out-of-line metadata: the records of guarded objects, the tables that lead to them, and the marks of poisoned bytes.

pub mod poison;
pub mod record;

pub use record::{Record, RecordId, Records, State};
