//! A mark for each object, and the stack of those whose contents are still to be read.

use crate::addr::{ABI_ALIGN, Addr, PageCount, Span};
use crate::page::PageArm;
use crate::slab::live;
use crate::sys::vm;

/// What is known of an object. Zero bytes are [`Mark::None`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mark {
    /// Nothing yet.
    None = 0,
    /// It can be reached.
    Reached = 1,
    /// It is lost, and something that is lost points at it.
    Indirect = 2,
    /// It is lost, and nothing points at it but what it leads to itself.
    Direct = 3,
}

/// A live object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its first byte.
    pub start: Addr,
    /// Its size in bytes.
    pub size: usize,
    /// The place of its mark.
    mark: usize,
}

/// The marks and the stack, in mappings that are given back in the end.
pub struct Marks {
    marks: *mut u8,
    len: usize,
    /// Where the marks of slots start; those of records stand before them.
    slots: usize,
    slab_base: usize,
    stack: *mut Addr,
    stack_len: usize,
    depth: usize,
    spans: [Span; 2],
}

impl Marks {
    /// Maps marks for all objects of both arms; `None` if the kernel refuses.
    pub fn map(page: &PageArm) -> Option<Self> {
        let mut count = 0_usize;
        page.each_live(|_, _| count = count.saturating_add(1));
        live::each(|_, _| count = count.saturating_add(1));
        let region = live::region();
        let slots = page.records_used() as usize;
        let len = slots.checked_add(region.len() / ABI_ALIGN)?.checked_add(1)?;
        let stack_bytes = count.checked_add(1)?.checked_mul(size_of::<Addr>())?;
        let marks = vm::tables(len)?;
        let marks_span = Span::new(marks, PageCount::holding(len));
        let Some(stack) = vm::tables(stack_bytes) else {
            vm::unmap(marks_span);
            return None;
        };
        Some(Self {
            marks: marks.as_ptr(),
            len,
            slots,
            slab_base: region.start,
            stack: stack.as_ptr(),
            stack_len: count.saturating_add(1),
            depth: 0,
            spans: [marks_span, Span::new(stack, PageCount::holding(stack_bytes))],
        })
    }

    /// The object of a record.
    pub fn of_record(&self, number: u32, start: Addr, size: usize) -> Node {
        Node { start, size, mark: number as usize }
    }

    /// The object of a slot.
    pub fn of_slot(&self, start: Addr, size: usize) -> Node {
        let slot = start.get().wrapping_sub(self.slab_base) / ABI_ALIGN;
        Node { start, size, mark: self.slots.saturating_add(slot) }
    }

    /// The mark of an object.
    pub fn get(&self, node: Node) -> Mark {
        if node.mark >= self.len {
            return Mark::Reached;
        }
        // SAFETY: within the mapping, as just checked.
        match unsafe { self.marks.add(node.mark).read() } {
            0 => Mark::None,
            1 => Mark::Reached,
            2 => Mark::Indirect,
            _ => Mark::Direct,
        }
    }

    /// Marks an object.
    pub fn set(&mut self, node: Node, mark: Mark) {
        if node.mark < self.len {
            // SAFETY: within the mapping, as just checked, and this value's alone.
            unsafe { self.marks.add(node.mark).write(mark as u8) };
        }
    }

    /// Puts an object on the stack. Each is there once in a search, so that there is room.
    pub fn push(&mut self, node: Node) {
        if self.depth < self.stack_len {
            // SAFETY: within the mapping, as just checked, and this value's alone.
            unsafe { self.stack.add(self.depth).write(node.start) };
            self.depth += 1;
        }
    }

    /// Takes the start of an object from the stack.
    pub fn pop(&mut self) -> Option<Addr> {
        self.depth = self.depth.checked_sub(1)?;
        // SAFETY: below the depth the stack was written.
        Some(unsafe { self.stack.add(self.depth).read() })
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        self.spans.into_iter().for_each(vm::unmap);
    }
}
