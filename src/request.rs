//! What a caller requests of the allocator, and what the caller of a free claims about an object.

use crate::addr::{ABI_ALIGN, Addr};

/// The family of functions that allocated an object and has to free it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Origin {
    /// `malloc`, `calloc`, `realloc`, `memalign` and their like.
    Malloc = 0,
    /// C++ `operator new`.
    New = 1,
    /// C++ `operator new[]`.
    NewArray = 2,
    /// Rust's `GlobalAlloc`.
    Rust = 3,
}

impl Origin {
    /// The origin with this tag; only the two low bits count.
    pub const fn from_tag(tag: u8) -> Self {
        match tag & 3 {
            0 => Self::Malloc,
            1 => Self::New,
            2 => Self::NewArray,
            _ => Self::Rust,
        }
    }

    /// The function that allocates, as reports name it.
    pub const fn allocator_name(self) -> &'static str {
        match self {
            Self::Malloc => "malloc",
            Self::New => "operator new",
            Self::NewArray => "operator new[]",
            Self::Rust => "Rust alloc",
        }
    }

    /// The function that frees, as reports name it.
    pub const fn deallocator_name(self) -> &'static str {
        match self {
            Self::Malloc => "free",
            Self::New => "operator delete",
            Self::NewArray => "operator delete[]",
            Self::Rust => "Rust dealloc",
        }
    }
}

/// A request for memory.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes, at most `isize::MAX`.
    pub size: usize,
    /// A power of two.
    pub align: usize,
    /// Whether `align` is all the caller relies on: the object may then end exactly at a guard.
    /// C callers rely on 16 bytes besides what they ask for; Rust's layouts say it all.
    pub exact: bool,
    /// Whether the bytes must read as zero.
    pub zeroed: bool,
    /// The family of the call.
    pub origin: Origin,
}

impl Request {
    /// A C request for `size` bytes with the ABI's alignment.
    pub const fn c(size: usize) -> Self {
        Self { size, align: ABI_ALIGN, exact: false, zeroed: false, origin: Origin::Malloc }
    }
}

/// What a caller says about the object it frees or resizes.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The pointer.
    pub address: Addr,
    /// The size it states (sized delete, `Layout`), if it states one.
    pub size: Option<usize>,
    /// The alignment it states (aligned delete, `Layout`), as the request would have had it, if it states one.
    pub align: Option<usize>,
    /// The family it frees with.
    pub origin: Origin,
}

/// Where in the program a call came from: the state of its caller's frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Site {
    /// The return address into the program, 0 if unknown.
    pub pc: usize,
    /// The stack pointer just after that return, 0 if unknown.
    pub sp: usize,
    /// The frame pointer register in the caller.
    pub fp: usize,
}
