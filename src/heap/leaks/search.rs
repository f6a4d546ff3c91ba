//! The search itself.
//!
//! First everything that the roots lead to is marked as reached. Then each object that is not is taken for
//! lost, and what it leads to for lost with it; an object that was taken so and that a later one leads to is
//! lost with that one. Every object's contents are read once.

use super::super::heap;
use super::marks::{Mark, Marks, Node};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::slab::live;
use crate::sys::vm;
use crate::sys::world::{self, PageMap, Stopped};
use core::ops::Range;

/// Bytes read at once, and bytes of the text of the mappings.
const WINDOW: usize = 64 << 10;
const MAPS: usize = 4 << 20;

/// A search under way.
pub struct Search<'a> {
    marks: Marks,
    stopped: &'a Stopped,
    /// Memory for what is read, mapped: it holds addresses, and is no root.
    window: Span,
    maps: Span,
}

impl<'a> Search<'a> {
    /// A search; `None` without memory for it.
    pub fn new(marks: Marks, stopped: &'a Stopped) -> Option<Self> {
        let window = Span::new(vm::tables(WINDOW)?, PageCount::holding(WINDOW));
        let maps = Span::new(vm::tables(MAPS)?, PageCount::holding(MAPS));
        Some(Self { marks, stopped, window, maps })
    }

    /// Marks what can be reached.
    pub fn mark_reached(&mut self, sp: usize, registers: &[usize]) {
        for word in registers {
            self.reach(*word);
        }
        let pages = PageMap::open();
        // SAFETY: the mapping is this search's own, and used for this alone.
        let text =
            unsafe { core::slice::from_raw_parts_mut(self.maps.start.as_ptr::<u8>(), self.maps.bytes()) };
        world::each_writable(text, |mapping| {
            let own = Some(sp).filter(|sp| mapping.contains(sp));
            let low = [own, self.stopped.lowest_frame(&mapping)].into_iter().flatten().min();
            let used = low.unwrap_or(mapping.start)..mapping.end;
            self.without_own(used, &mut |search, part| {
                let mut present = |piece| search.read(piece, Self::reach);
                pages.each_present(part, &mut present);
            });
        });
        // Pointers into objects outside the arena do not lead to them: they count as reached.
        heap().page.each_live(|number, record| {
            if heap().page.is_detached(record) {
                let node = self.marks.of_record(number, record.address(), record.size());
                self.enter(node, Mark::Reached);
            }
        });
        self.flood(Self::reach);
    }

    /// Finds what is lost by itself and what only with something else.
    pub fn mark_lost(&mut self) {
        self.each_node(|search, node, _| {
            if search.marks.get(node) == Mark::None {
                search.marks.set(node, Mark::Direct);
                search.read_object(node, |search, word| search.lose(word, node));
                while let Some(next) = search.marks.pop().and_then(|start| search.find(start.get())) {
                    search.read_object(next, |search, word| search.lose(word, node));
                }
            }
        });
    }

    /// Calls `visit` with the mark, the allocation's stack and the size of every live object.
    pub fn each(&mut self, mut visit: impl FnMut(Mark, u32, usize)) {
        self.each_node(|search, node, stack| visit(search.marks.get(node), stack, node.size));
    }

    fn each_node(&mut self, mut visit: impl FnMut(&mut Self, Node, u32)) {
        heap().page.each_live(|number, record| {
            let node = self.marks.of_record(number, record.address(), record.size());
            let stack = record.object().map_or(0, |object| object.history.allocated.stack);
            visit(self, node, stack);
        });
        live::each(|start, size| {
            let node = self.marks.of_slot(start, size);
            visit(self, node, 0);
        });
    }

    /// The live object that a word points into.
    fn find(&self, word: usize) -> Option<Node> {
        let address = Addr::new(word);
        if let Some((start, size)) = live::around(address) {
            return Some(self.marks.of_slot(start, size));
        }
        let (number, record) = heap().page.live_around(address)?;
        Some(self.marks.of_record(number, record.address(), record.size()))
    }

    fn enter(&mut self, node: Node, mark: Mark) {
        self.marks.set(node, mark);
        self.marks.push(node);
    }

    fn reach(&mut self, word: usize) {
        if let Some(node) = self.find(word)
            && self.marks.get(node) == Mark::None
        {
            self.enter(node, Mark::Reached);
        }
    }

    /// Takes what `word` points at for lost with `leader`.
    fn lose(&mut self, word: usize, leader: Node) {
        let Some(node) = self.find(word) else { return };
        match self.marks.get(node) {
            Mark::None => self.enter(node, Mark::Indirect),
            // What it leads to was found from it already.
            Mark::Direct if node != leader => self.marks.set(node, Mark::Indirect),
            Mark::Direct | Mark::Indirect | Mark::Reached => {}
        }
    }

    fn flood(&mut self, mut found: impl FnMut(&mut Self, usize)) {
        while let Some(start) = self.marks.pop() {
            if let Some(node) = self.find(start.get()) {
                self.read_object(node, &mut found);
            }
        }
    }

    /// Hands every word of an object to `found`. Small slots of threads that stand still are read in place:
    /// they are mapped while they are live. Others may be anything by now.
    fn read_object(&mut self, node: Node, mut found: impl FnMut(&mut Self, usize)) {
        let range = node.start.get()..node.start.plus(node.size).get();
        let in_slab = live::region().contains(&range.start);
        if !(in_slab && node.size < PAGE_SIZE && self.stopped.all) {
            self.read(range, found);
            return;
        }
        let mut at = range.start;
        while at.saturating_add(size_of::<usize>()) <= range.end {
            // SAFETY: an aligned word of a live slot.
            let word = unsafe { Addr::new(at).as_ptr::<usize>().read_volatile() };
            found(self, word);
            at += size_of::<usize>();
        }
    }

    /// Hands every aligned word of a range that can be read to `found`.
    fn read(&mut self, range: Range<usize>, mut found: impl FnMut(&mut Self, usize)) {
        let mut at = range.start.next_multiple_of(size_of::<usize>());
        while at.saturating_add(size_of::<usize>()) <= range.end {
            let len = (range.end - at).min(WINDOW);
            // SAFETY: the window is this search's own mapping, `len` bytes of it; nothing else refers to it
            // while it is filled.
            let window = unsafe { core::slice::from_raw_parts_mut(self.window.start.as_ptr::<u8>(), len) };
            let readable = vm::peek(Addr::new(at), window);
            let words = readable / size_of::<usize>();
            for index in 0..words {
                // SAFETY: within the window, which is aligned.
                let word = unsafe { self.window.start.as_ptr::<usize>().add(index).read() };
                found(self, word);
            }
            at = match readable == len {
                true => at.saturating_add(len),
                // The page that cannot be read is left out.
                false => (at.saturating_add(readable) | (PAGE_SIZE - 1)).saturating_add(1),
            };
        }
    }

    /// Hands the parts of a range that are not the allocator's to `visit`.
    fn without_own(&mut self, range: Range<usize>, visit: &mut impl FnMut(&mut Self, Range<usize>)) {
        let mut at = range.start;
        while at < range.end {
            let arena = || heap().page.each_part().map(|part| part.start.get()..part.end().get());
            let own = || vm::known_tables().chain(arena()).chain(live::regions());
            if let Some(inside) = own().find(|own| own.contains(&at)) {
                at = inside.end;
                continue;
            }
            let end = own().map(|own| own.start).filter(|start| *start > at).fold(range.end, usize::min);
            visit(self, at..end);
            at = end;
        }
    }
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        vm::unmap(self.window);
        vm::unmap(self.maps);
    }
}
