//! Guard regions: pages whose access faults, inside reserved address space.
//!
//! Two backends behind one contract. `Madvise` puts a marker into the page table
//! (`MADV_GUARD_INSTALL`, Linux 6.13): one mapping holds any number of guards. `Mprotect` makes
//! `PROT_NONE` mappings: any kernel, but each island of accessible pages costs two mappings of
//! `vm.max_map_count`.
//!
//! Contract of both: after [`Backend::close`] the pages hold no memory and any access faults; after
//! [`Backend::open`] they read as zero and can be written. Each can be refused, and then nothing
//! has changed that the caller must undo.
//!
//! Which backend a process has is found out once, by [`examine`](super::probe::examine), from what the advice does
//! and not from what the kernel answers. Where markers are refused later, or lose their effect ([`mend`](super::probe::mend)), pages are
//! closed by an inaccessible mapping and opened by a new one, which takes the markers away that are still there.

use super::errno;
use super::probe::Kernel;
use super::vm::{self, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, advise};
use crate::addr::{PageCount, Span};
use crate::options::Guards;

/// How guard pages are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Markers in the page table.
    Madvise,
    /// Inaccessible mappings.
    Mprotect,
}

impl Backend {
    /// The backend for `choice`: what was forced if the kernel has it, else what the kernel has.
    pub fn choose(choice: Guards, kernel: Kernel) -> Self {
        match choice {
            Guards::Mprotect => Self::Mprotect,
            Guards::Auto | Guards::Madvise if kernel.guards => Self::Madvise,
            Guards::Auto | Guards::Madvise => Self::Mprotect,
        }
    }

    /// The name as options spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Madvise => "madvise",
            Self::Mprotect => "mprotect",
        }
    }

    /// Whether each island of accessible pages costs mappings now.
    pub fn costs_mappings(self) -> bool {
        self == Self::Mprotect || !vm::has_guards()
    }

    /// Readies a range of reserved pages so that all of it is closed and parts can be opened.
    #[must_use]
    pub fn prepare(self, span: Span) -> bool {
        match self {
            Self::Mprotect => true,
            Self::Madvise if !vm::has_guards() => true,
            Self::Madvise => vm::commit(span) && (install(span) || without_guards(|| vm::decommit(span))),
        }
    }

    /// Opens pages of a prepared range.
    #[must_use]
    pub fn open(self, span: Span) -> bool {
        match self {
            Self::Madvise if !vm::has_guards() => vm::renew(span),
            Self::Madvise => advise(span, MADV_GUARD_REMOVE) || without_guards(|| vm::renew(span)),
            Self::Mprotect => vm::commit(span),
        }
    }

    /// Frees the memory of many spans in one call if the kernel can, so that other processors are
    /// interrupted once; a step before closing each, and no more than that.
    pub fn empty(self, spans: impl Iterator<Item = Span>) {
        if self == Self::Madvise {
            vm::release_many(spans);
        }
    }

    /// Closes pages and frees their memory in one system call.
    #[must_use]
    pub fn close(self, span: Span) -> bool {
        match self {
            Self::Madvise if !vm::has_guards() => vm::decommit(span),
            Self::Madvise => install(span) || without_guards(|| vm::decommit(span)),
            Self::Mprotect => vm::decommit(span),
        }
    }
}

/// What is done in a marker's stead, from now on for all: one that is refused is refused by a filter that came later, and
/// pages that were closed in another way are not opened by advice.
#[cold]
fn without_guards(done: impl FnOnce() -> bool) -> bool {
    vm::lose_guards();
    done()
}

/// Reservations are whole units of so many bytes, and so [`install`] may unlock one.
const UNIT: usize = 2 << 20;

/// Installs markers. The kernel refuses them in locked memory (`mlockall`, called past the front end): there
/// the memory around is taken out of it first.
fn install(span: Span) -> bool {
    if advise(span, MADV_GUARD_INSTALL) {
        return true;
    }
    if errno::get() != libc::EINVAL {
        return false;
    }
    let start = span.start.align_floor(UNIT);
    let end = span.end().plus(UNIT - 1).align_floor(UNIT);
    vm::unlock(Span::new(start, PageCount::holding(end.offset_from(start).unwrap_or(0))));
    advise(span, MADV_GUARD_INSTALL)
}
