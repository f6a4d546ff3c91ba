//! Leaks: objects that are still allocated, and those of them that nothing points to any more.
//!
//! Any word that holds an address inside an object counts as a pointer to it. Roots are all private writable mappings
//! but the allocator's own: data segments, thread-local storage, memory of other allocators, and the used part of
//! stacks, with registers.
//!
//! A signal stops all other threads meanwhile, wherever they are. So the search takes no lock that one of them may
//! hold. No handler runs in the searching thread either, since it might ask for one. Memory that threads can change all
//! the same is read in ways that do not fault. The time is linear in the memory in use. The search needs a byte for
//! each object of the page allocator and for each sixteen bytes of a slab, and eight bytes for each object.
//!
//! # Marks
//!
//! Each object has a mark. A stack holds the objects whose contents are still to be read.
//!
//! # The search
//!
//! First everything that the roots lead to is marked as reached. Then each object without a mark is taken for lost, and
//! every object that it leads to for lost with it. If a later object leads to one that was taken for lost itself, that
//! one is lost with the later one. Every object's contents are read once.

use super::heap;
use crate::addr::{ABI_ALIGN, Addr, PAGE_SIZE, PageCount, Span};
use crate::page::PageAllocator;
use crate::report::leak::{self, Group, Kind};
use crate::slab::lookup;
use crate::sync::{Lock, Rank};
use crate::sys::action::BlockedSignals;
use crate::sys::vm;
use crate::sys::world::{self, PageMap, Stopped};
use core::ops::Range;

/// Groups that are told apart; what finds no place is counted with the last.
const GROUPS: usize = 1 << 16;
const PROBES: usize = 32;

/// What a search found, in groups that live in a mapping of their own.
struct Groups {
    table: &'static mut [Group],
    span: Span,
}

impl Groups {
    fn map() -> Option<Self> {
        let bytes = GROUPS.checked_mul(size_of::<Group>())?;
        let base = vm::tables(bytes)?;
        // SAFETY: a fresh zeroed mapping of this length, referred to from here alone until it is unmapped in
        // `drop`; zero bytes are an empty group.
        let table = unsafe { core::slice::from_raw_parts_mut(base.as_ptr::<Group>(), GROUPS) };
        Some(Self { table, span: Span::new(base, PageCount::holding(bytes)) })
    }

    /// Counts an object of `size` bytes that was allocated from `stack`; without one, objects of a size
    /// belong together.
    fn add(&mut self, kind: Kind, stack: u32, size: usize) {
        let told_by = if stack == 0 { size } else { 0 };
        let key = (kind as u64) << 32 | u64::from(stack);
        let hash = (key ^ (told_by as u64).rotate_left(34)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let home = usize::try_from(hash).unwrap_or(0);
        for probe in 0..PROBES {
            let Some(group) = self.table.get_mut(home.wrapping_add(probe) % GROUPS) else { return };
            let same = group.kind == kind && group.stack == stack && group.size == told_by;
            if group.objects == 0 || same || probe + 1 == PROBES {
                *group = Group {
                    kind: if group.objects == 0 { kind } else { group.kind },
                    stack: if group.objects == 0 { stack } else { group.stack },
                    size: if group.objects == 0 { told_by } else { group.size },
                    objects: group.objects.saturating_add(1),
                    bytes: group.bytes.saturating_add(size as u64),
                };
                return;
            }
        }
    }

    /// The groups, lost ones first, and of each kind the largest first.
    fn sorted(&mut self) -> &[Group] {
        let mut used = 0;
        for index in 0..self.table.len() {
            if self.table.get(index).is_some_and(|group| group.objects != 0) {
                self.table.swap(used, index);
                used += 1;
            }
        }
        let groups = self.table.get_mut(..used).unwrap_or(&mut []);
        groups.sort_unstable_by_key(|group| {
            (group.kind as u8, u64::MAX - group.bytes, group.stack, group.size)
        });
        groups
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        vm::unmap(self.span);
    }
}

/// Searches and reports. `sp` is the lowest stack pointer of the calling thread whose frames are the
/// program's, `registers` what it held in those that functions keep. How many objects are lost that no
/// suppression covers; `None` if the search could not be made.
pub fn report(sp: usize, registers: &[usize]) -> Option<u64> {
    let heap = heap();
    let context = super::reports()?;
    let Some((mut groups, stopped)) = find(sp, registers) else {
        leak::write_failure(context);
        return None;
    };
    let depot = &heap.depot;
    Some(leak::write(context, groups.sorted(), stopped, |stack| depot.get(stack)))
}

/// The exit status that leaks ask for, if they do.
pub fn exit_status(lost: u64) -> Option<i32> {
    let options = &heap().options;
    let asked = options.leaks >= 2 && lost != 0 && options.exitcode != 0;
    asked.then(|| i32::try_from(options.exitcode).unwrap_or(1))
}

/// One thread at a time stops the others.
pub(super) static SEARCHING: Lock<()> = Lock::new(Rank::World, ());

/// In a forked child.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn inherit() {
    // SAFETY: as the caller says.
    unsafe { SEARCHING.inherit(|()| ()) };
}

/// All live objects in groups, and whether all other threads stood still.
fn find(sp: usize, registers: &[usize]) -> Option<(Groups, bool)> {
    let mut groups = Groups::map()?;
    let _turn = SEARCHING.enter()?;
    let _blocked = BlockedSignals::begin();
    let stopped = world::stop()?;
    let marks = Marks::map(&heap().page)?;
    let mut search = Search::new(marks, &stopped)?;
    search.mark_reached(sp, registers);
    search.mark_lost();
    search.each(|mark, stack, size| {
        let kind = match mark {
            Mark::Direct => Kind::Direct,
            Mark::Indirect => Kind::Indirect,
            Mark::Reached | Mark::None => Kind::Reachable,
        };
        groups.add(kind, stack, size);
    });
    let all = stopped.all;
    Some((groups, all))
}

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

/// The marks and the stack, in mappings that are unmapped in the end.
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
    /// Maps marks for all objects of both allocators; `None` if the kernel refuses.
    pub fn map(page: &PageAllocator) -> Option<Self> {
        let mut count = 0_usize;
        page.each_live(|_, _| count = count.saturating_add(1));
        lookup::each(|_, _| count = count.saturating_add(1));
        let region = lookup::region();
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
        lookup::each(|start, size| {
            let node = self.marks.of_slot(start, size);
            visit(self, node, 0);
        });
    }

    /// The live object that a word points into.
    fn find(&self, word: usize) -> Option<Node> {
        let address = Addr::new(word);
        if let Some((start, size)) = lookup::around(address) {
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
        let in_slab = lookup::region().contains(&range.start);
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
            let own = || vm::known_tables().chain(arena()).chain(lookup::regions());
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
