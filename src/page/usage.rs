//! How much the arm holds.

use super::PageArm;
use crate::meta::RecordId;

/// Figures of live objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many there are.
    pub objects: usize,
    /// Bytes that were asked for.
    pub bytes: usize,
    /// Bytes of their pages.
    pub held: usize,
}

impl Sum {
    fn add(&mut self, bytes: usize, held: usize) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.held = self.held.saturating_add(held);
    }
}

/// Figures of the arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects below [`LARGE`] bytes.
    pub small: Sum,
    /// The others.
    pub large: Sum,
}

/// From this size on other allocators give an object a mapping of its own, and programs that ask for figures know
/// it so: glibc's threshold.
pub const LARGE: usize = 128 << 10;

impl PageArm {
    /// Counts the live objects. Other threads may go on meanwhile.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for number in 1..self.records.used() {
            let Some(record) = self.records.get(RecordId(number)) else { break };
            if record.is_live() {
                let held = if record.is_opened() { record.span().bytes() } else { 0 };
                let sum = if record.size() < LARGE { &mut usage.small } else { &mut usage.large };
                sum.add(record.size(), held);
            }
        }
        usage
    }
}
