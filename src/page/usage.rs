//! How much the arm holds.

use super::PageArm;
use crate::meta::{RecordId, State};

/// Figures of the live objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many there are.
    pub objects: usize,
    /// Bytes that were asked for.
    pub bytes: usize,
    /// Bytes of their pages.
    pub held: usize,
}

impl PageArm {
    /// Counts the live objects. Other threads may go on meanwhile.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for number in 1..self.records.used() {
            let Some(record) = self.records.get(RecordId(number)) else { break };
            if record.state() == State::Live {
                usage.objects += 1;
                usage.bytes = usage.bytes.saturating_add(record.size());
                usage.held = usage.held.saturating_add(record.span().bytes());
            }
        }
        usage
    }
}
