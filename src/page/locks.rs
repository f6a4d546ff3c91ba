//! The arm's locks around a fork, and when a thread ends that was inside.

use super::PageArm;
use super::lane::Lane;
use crate::sync::Patience;

impl PageArm {
    /// Takes every lock that is to be had, for `fork`, but for that of [`PageArm::hold_quiet`].
    pub fn hold_all(&self, patience: &mut Patience) {
        for slot in &self.lanes {
            slot.batch.hold(patience);
            slot.lane.hold(patience);
        }
        self.large.hold(patience);
        self.arena.hold(patience);
    }

    /// Takes the lock that nobody has for long: signals are held back meanwhile.
    pub fn hold_quiet(&self) {
        self.detached.hold(&mut Patience::endless());
    }

    /// Takes [`PageArm::hold_quiet`] back, in parent and child.
    pub fn release_quiet(&self) {
        self.detached.release();
    }

    /// Takes [`PageArm::hold_all`] back.
    pub fn release_all(&self) {
        self.arena.release();
        self.large.release();
        for slot in &self.lanes {
            slot.lane.release();
            slot.batch.release();
        }
    }

    /// [`PageArm::release_all`] in a forked child, which puts in order what another thread was in the middle of.
    /// A batch and the place where large objects are looked for are in order at any moment.
    ///
    /// # Safety
    /// As [`crate::sync::Lock::inherit`].
    pub unsafe fn inherit_all(&self) {
        // SAFETY: as the caller says.
        unsafe {
            self.arena.inherit();
            self.records.inherit();
            self.large.inherit(|_| ());
            for slot in &self.lanes {
                slot.lane.inherit(Lane::reset);
                slot.batch.inherit(|_| ());
            }
        }
    }

    /// Releases what the calling thread has, and puts in order what it was in the middle of.
    ///
    /// # Safety
    /// As [`crate::sync::Lock::abandon`].
    pub unsafe fn abandon_all(&self) {
        // SAFETY: as the caller says.
        unsafe {
            self.arena.abandon();
            self.records.abandon();
            self.large.abandon(|_| ());
            for slot in &self.lanes {
                slot.lane.abandon(Lane::reset);
                slot.batch.abandon(|_| ());
            }
        }
    }
}
