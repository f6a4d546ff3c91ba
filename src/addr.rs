//! Addresses, pages and spans: newtypes with checked rounding.
//!
//! An address is a number and not a pointer: only `sys` and the last line of each allocator make pointers
//! from it. Page counts are not byte counts.

use core::ops::Range;

/// The base-two logarithm of the page size.
#[cfg(target_arch = "x86_64")]
pub const PAGE_SHIFT: u32 = 12;
#[cfg(not(target_arch = "x86_64"))]
compile_error!("fencepost runs on x86-64 so far: the page size and the thread slot are its");

/// The page size in bytes.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

/// The alignment that the C ABI promises for any object.
pub const ABI_ALIGN: usize = 16;

/// An address in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(transparent)]
pub struct Addr(usize);

impl Addr {
    /// The null address.
    pub const NULL: Self = Self(0);

    /// The address with this number.
    pub const fn new(address: usize) -> Self {
        Self(address)
    }

    /// The address that `pointer` holds.
    pub fn of<T: ?Sized>(pointer: *const T) -> Self {
        Self(pointer.cast::<u8>() as usize)
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }

    /// `bytes` further on; stops at the last address.
    pub const fn plus(self, bytes: usize) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// `bytes` back; stops at null.
    pub const fn minus(self, bytes: usize) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    /// Bytes from `origin` up to this address, `None` if it lies below.
    pub const fn offset_from(self, origin: Self) -> Option<usize> {
        self.0.checked_sub(origin.0)
    }

    /// The start of the page this address lies in.
    pub const fn page_floor(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The largest address up to this one that is a multiple of `align`, a power of two.
    pub const fn align_floor(self, align: usize) -> Self {
        Self(self.0 & !align.wrapping_sub(1))
    }

    /// Whether the address is a multiple of `align`, a power of two.
    pub const fn is_aligned(self, align: usize) -> bool {
        self.0 & align.wrapping_sub(1) == 0
    }

    /// A pointer to this address. It carries the provenance of the mappings the crate exposed.
    pub fn as_ptr<T>(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.0)
    }
}

/// A number of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(transparent)]
pub struct PageCount(usize);

impl PageCount {
    /// This many pages.
    pub const fn new(pages: usize) -> Self {
        Self(pages)
    }

    /// The pages that `bytes` bytes need.
    pub const fn holding(bytes: usize) -> Self {
        Self(bytes.div_ceil(PAGE_SIZE))
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }

    /// The size in bytes; stops at the last page boundary.
    pub const fn bytes(self) -> usize {
        match self.0.checked_mul(PAGE_SIZE) {
            Some(bytes) => bytes,
            None => usize::MAX & !(PAGE_SIZE - 1),
        }
    }
}

/// A run of pages: where it starts and how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// The first byte, page-aligned.
    pub start: Addr,
    /// The length.
    pub pages: PageCount,
}

impl Span {
    /// The span of `pages` pages from `start` on.
    pub const fn new(start: Addr, pages: PageCount) -> Self {
        Self { start, pages }
    }

    /// The length in bytes.
    pub const fn bytes(self) -> usize {
        self.pages.bytes()
    }

    /// The first address after the span.
    pub const fn end(self) -> Addr {
        self.start.plus(self.bytes())
    }

    /// Whether `address` lies in the span.
    pub fn contains(self, address: Addr) -> bool {
        self.range().contains(&address)
    }

    /// The addresses of the span.
    pub fn range(self) -> Range<Addr> {
        self.start..self.end()
    }
}

/// `value` rounded up to a multiple of `align`, a power of two; `None` past the address space.
pub const fn round_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align.wrapping_sub(1)) {
        Some(sum) => Some(sum & !align.wrapping_sub(1)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_checked() {
        assert_eq!(round_up(0, 16), Some(0));
        assert_eq!(round_up(1, 16), Some(16));
        assert_eq!(round_up(usize::MAX - 3, 16), None);
        assert_eq!(PageCount::holding(PAGE_SIZE + 1), PageCount::new(2));
        assert_eq!(PageCount::new(usize::MAX).bytes() % PAGE_SIZE, 0);
    }

    #[test]
    fn spans_are_half_open() {
        let span = Span::new(Addr::new(PAGE_SIZE), PageCount::new(2));
        assert!(span.contains(Addr::new(PAGE_SIZE)));
        assert!(!span.contains(span.end()));
    }
}
