//! Out-of-line metadata of guarded objects: their records and the tables that lead to them; and which bytes of objects
//! the program poisoned.

pub mod poison;
pub mod record;

pub use record::{Record, RecordId, Records, State};
