//! Out-of-line metadata of guarded objects: their records and the tables that lead to them.

pub mod record;

pub use record::{Record, RecordId, Records, State};
