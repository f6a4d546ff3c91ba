//! Leaks: what is still allocated, and what of it nothing points at any more.
//!
//! - [`marks`]: one byte for each object, and the objects whose contents are still to be read.
//! - [`search`]: from the roots to everything that can be reached, and from what cannot to what it holds.
//!
//! Any word that holds an address inside an object counts as a pointer to it. Roots are all private
//! writable mappings but the allocator's own: data segments, thread-local storage, memory of other
//! allocators, and stacks from where they are in use, registers with them.
//!
//! All other threads are stopped meanwhile, by a signal, wherever they are: the search takes no lock that one of them
//! may have, and no handler runs in the searching thread, which could ask for one. What threads may change all the same is read in ways that
//! do not fault. The time is linear in the memory that is in use; the memory is a byte for each object of
//! the page arm and each sixteen bytes of a slab, and eight bytes for each object.

mod marks;
mod search;

use super::heap;
use crate::addr::{PageCount, Span};
use crate::report::leak::{self, Group, Kind};
use crate::sync::{Lock, Rank};
use crate::sys::quiet::Quiet;
use crate::sys::{vm, world};
use marks::{Mark, Marks};
use search::Search;

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
static SEARCHING: Lock<()> = Lock::new(Rank::World, ());

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
    let _quiet = Quiet::begin();
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
