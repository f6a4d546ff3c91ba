//! What a forked child repairs, and a thread that ends inside the arm.

use super::PageArm;
use super::batch::Batch;
use super::lane::Lane;

impl PageArm {
    /// In a forked child: releases what other threads had, and puts in order what they were in the middle of.
    ///
    /// # Safety
    /// As [`Lock::inherit`](crate::sync::Lock::inherit).
    pub unsafe fn inherit_all(&self) {
        // SAFETY: as the caller says.
        unsafe {
            self.arena.inherit();
            self.records.inherit();
            self.records.inherit();
            self.large.inherit(|_| ());
            for slot in &self.lanes {
                slot.lane.inherit(Lane::reset);
                slot.batch.inherit(|batch| *batch = Batch::NEW);
            }
            self.detached.inherit(|objects| objects.rebuild(&self.records));
            // Last: it may close an object.
            self.look.inherit(|looking| self.end_lost_look(looking));
        }
    }

    /// Releases what the calling thread has, and puts in order what it was in the middle of. What it had with signals
    /// blocked it has no more.
    ///
    /// # Safety
    /// As [`Lock::abandon`](crate::sync::Lock::abandon).
    pub unsafe fn abandon_all(&self) {
        // SAFETY: as the caller says.
        unsafe {
            self.arena.abandon();
            self.records.abandon();
            self.records.abandon();
            self.large.abandon(|_| ());
            for slot in &self.lanes {
                slot.lane.abandon(Lane::reset);
                slot.batch.abandon(|batch| *batch = Batch::NEW);
            }
            self.look.abandon(|looking| self.end_lost_look(looking));
        }
    }
}
