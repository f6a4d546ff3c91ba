//! Every misuse of the heap that can be detected.

use crate::addr::Addr;
use crate::request::{Claim, Origin};

/// The kinds of error, named as reports name them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An access past the end of an object.
    HeapBufferOverflow,
    /// An access before the start of an object.
    HeapBufferUnderflow,
    /// An access to a freed object.
    HeapUseAfterFree,
    /// An access to bytes of a live object that the program poisoned.
    UseAfterPoison,
    /// A second free.
    DoubleFree,
    /// A free of something that is not the start of an object.
    InvalidFree,
    /// A free by another family of functions than allocated.
    AllocDeallocMismatch,
    /// A free that states another size than was allocated.
    BadSize,
    /// A free that states another alignment than was allocated.
    BadAlignment,
    /// Bytes around an object were overwritten, found after the fact.
    CanaryOverwritten,
    /// Freed memory was written, found after the fact.
    WriteAfterFree,
    /// A fault inside the arenas that hits no object, or by a pointer outside the address space; or a question about what is
    /// no object's start.
    WildAccess,
}

impl Kind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::HeapBufferOverflow,
        Self::HeapBufferUnderflow,
        Self::HeapUseAfterFree,
        Self::UseAfterPoison,
        Self::DoubleFree,
        Self::InvalidFree,
        Self::AllocDeallocMismatch,
        Self::BadSize,
        Self::BadAlignment,
        Self::CanaryOverwritten,
        Self::WriteAfterFree,
        Self::WildAccess,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeapBufferOverflow => "heap-buffer-overflow",
            Self::HeapBufferUnderflow => "heap-buffer-underflow",
            Self::HeapUseAfterFree => "heap-use-after-free",
            Self::UseAfterPoison => "use-after-poison",
            Self::DoubleFree => "double-free",
            Self::InvalidFree => "invalid-free",
            Self::AllocDeallocMismatch => "alloc-dealloc-mismatch",
            Self::BadSize => "bad-size",
            Self::BadAlignment => "bad-alignment",
            Self::CanaryOverwritten => "canary-overwritten",
            Self::WriteAfterFree => "write-after-free",
            Self::WildAccess => "wild-access",
        }
    }
}

/// What the allocator knows of an object when it reports it.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The first byte.
    pub start: Addr,
    /// The requested size in bytes; `None` where it is no longer known.
    pub size: Option<usize>,
    /// Whether it is freed.
    pub freed: bool,
    /// Who allocated it.
    pub origin: Origin,
    /// Where it was allocated and, if freed, where that was.
    pub history: History,
}

/// The threads and stacks of an object's life; zeros where nothing was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Thread id and stack of the allocation.
    pub allocated: Event,
    /// Thread id and stack of the free.
    pub freed: Event,
}

/// One event in an object's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The kernel's thread id, 0 if unknown.
    pub thread: u32,
    /// The stack's number in the depot, 0 if none was kept.
    pub stack: u32,
}

/// A misuse that an allocator found while it served a call.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What it is.
    pub kind: Kind,
    /// The address that is wrong: the freed pointer, or the first bad byte.
    pub address: Addr,
    /// The object it concerns.
    pub object: Option<Object>,
    /// What else is to be told of it.
    pub detail: Detail,
}

/// What is told of some misuses only. One of them at a time: faults lie on the stacks of calls.
#[derive(Clone, Copy, Debug)]
pub enum Detail {
    /// Nothing.
    None,
    /// Of overwritten canaries: start and size of the object on the other side, if the bytes reach from the one to the
    /// other, so that either may have been run over.
    Other(Addr, u32),
    /// Of frees and resizes that state no size: the family of the free.
    By(Origin),
    /// Of those that do: the family of the free, and the size or alignment.
    Stated(Origin, usize),
}

impl Detail {
    /// The object on the other side.
    pub const fn other(self) -> Option<(Addr, usize)> {
        match self {
            Self::Other(start, size) => Some((start, size as usize)),
            _ => None,
        }
    }

    /// The family of the free.
    pub const fn freed_by(self) -> Option<Origin> {
        match self {
            Self::By(origin) | Self::Stated(origin, _) => Some(origin),
            _ => None,
        }
    }

    /// What the caller stated.
    pub const fn stated(self) -> Option<usize> {
        match self {
            Self::Stated(_, stated) => Some(stated),
            _ => None,
        }
    }

    /// What a claim of `origin` says that states this or nothing.
    pub const fn of_claim(origin: Origin, stated: Option<usize>) -> Self {
        match stated {
            Some(stated) => Self::Stated(origin, stated),
            None => Self::By(origin),
        }
    }
}

impl Fault {
    /// The fault of a free that states another alignment than `object` was asked for with.
    pub const fn of_alignment(claim: &Claim, object: Option<Object>) -> Self {
        Self {
            kind: Kind::BadAlignment,
            address: claim.address,
            object,
            detail: Detail::of_claim(claim.origin, claim.align),
        }
    }

    /// A fault of this kind at `address`, about `object`.
    pub const fn new(kind: Kind, address: Addr, object: Option<Object>) -> Self {
        Self { kind, address, object, detail: Detail::None }
    }
}
