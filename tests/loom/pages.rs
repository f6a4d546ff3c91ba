//! In the place of the page allocator, for `page/poison.rs`: one object, and whether its page is open.

#[path = "../../src/page/poison.rs"]
pub mod poison;

use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::meta::Record;
use crate::request::Origin;
use crate::sync::atomic::{AtomicU32, Ordering};

/// The arena: a page, which is the object.
pub const START: usize = 0x6000_0000_0000;

pub struct Backend {
    open: AtomicU32,
}

impl Backend {
    pub fn costs_mappings(&self) -> bool {
        false
    }

    pub fn close(&self, _: Span) -> bool {
        self.open.store(0, Ordering::Release);
        true
    }

    pub fn open(&self, _: Span) -> bool {
        self.open.store(1, Ordering::Release);
        true
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) != 0
    }
}

pub struct Config {
    pub close_poisoned: bool,
    pub backend: Backend,
}

pub struct PageAllocator {
    pub config: Config,
    pub record: Record,
}

pub struct Found<'a> {
    pub record: &'a Record,
}

impl PageAllocator {
    /// With a live object, all atomics made.
    pub fn new() -> Self {
        let backend = Backend { open: AtomicU32::new(0) };
        let allocator = Self { config: Config { close_poisoned: true, backend }, record: Record::default() };
        allocator.config.backend.open(Self::whole());
        allocator.record.allocate(
            Addr::new(START),
            PAGE_SIZE,
            Self::whole(),
            Origin::Malloc,
            Default::default(),
            0,
        );
        allocator
    }

    fn whole() -> Span {
        Span::new(Addr::new(START), PageCount::new(1))
    }

    pub fn region(&self) -> Span {
        Self::whole()
    }

    pub fn live_around(&self, _: Addr) -> Option<(u32, &Record)> {
        self.record.is_live().then_some((1, &self.record))
    }

    fn find_live(&self, _: Addr) -> Option<Found<'_>> {
        self.record.is_live().then_some(Found { record: &self.record })
    }

    /// As the page allocator frees: the object's poison ends before its page is closed.
    pub fn free(&self) {
        assert!(self.record.begin_free(Addr::new(START)), "one frees");
        if self.record.is_poisoned() {
            self.end_poison(&self.record);
        }
        assert!(self.record.begin_close(Default::default()), "nobody looks");
        self.config.backend.close(Self::whole());
        self.record.end_free();
    }
}
