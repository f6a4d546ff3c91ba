//! Allocations that are counted by their stack, refused, or filled.
//!
//! An option that needs it ([`Options::looks_at_all`]) keeps every request off the fast paths. So without such an
//! option nothing here costs an instruction. The front ends ask [`admit`] before they ask the heap: a refused request
//! must not go to the C library's allocator.
//!
//! A stack is named by a hash of its innermost frames, each as an offset in its module. The name is the same in every
//! run of the program, wherever the kernel mapped the modules. Code without a module counts by its offset in its page.
//!
//! The table of counts is a file that the launcher made and all processes of a run map. It is a hash table of fixed
//! size with open addressing:
//!
//! | word of an entry | who writes it |
//! |---|---|
//! | `hash`, 0 while vacant | the thread that claims the entry, once, by compare and exchange |
//! | `first`, `count` | any thread, by additions and minima |

use super::{Heap, heap, reports, thread};
use crate::addr::Addr;
use crate::options::Options;
use crate::report;
use crate::request::{Request, Site};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sys::errno::ErrnoGuard;
use crate::sys::seal::Unsealed;
use crate::sys::{file, loader};
use crate::text::Text;
use crate::trace::{self, Frames, MAX_FRAMES};

/// Frames that name a stack.
const NAMED_BY: usize = 8;
/// Refusals that are said; of very many the first.
const MOST_SAID: u32 = 16;
/// Bytes of one object that are filled at most: a program may ask for far more than it touches.
const MOST_FILLED: usize = 64 << 20;

/// Allocations that `fail_site` covers, from the start of the process.
static ORDINAL: AtomicU64 = AtomicU64::new(0);
/// Those that were refused.
static REFUSED: AtomicU32 = AtomicU32::new(0);
/// Whether it was said where the one site is that is filled.
static FILL_SAID: AtomicBool = AtomicBool::new(false);

/// Whether the options want each allocation looked at.
static LOOKS: AtomicBool = AtomicBool::new(false);

/// The table in which stacks are counted; null without one.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());

/// Entries of the table, a power of two.
const ENTRIES: usize = 1 << 16;
/// Entries that are tried before a stack is left out.
const PROBES: usize = 64;
/// How a table begins: its version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"fpsites1");
/// Bytes of a table. A new one is zeros behind [`MAGIC`].
pub const TABLE_BYTES: usize = size_of::<Table>();

#[repr(C)]
struct Table {
    magic: AtomicU64,
    /// Allocations in all.
    all: AtomicU64,
    entries: [Entry; ENTRIES],
}

#[repr(C)]
struct Entry {
    hash: AtomicU64,
    /// Allocations from this stack.
    count: AtomicU64,
    /// The number of the first of them, from one; 0 until it is known.
    first: AtomicU64,
}

/// What a table says of one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub hash: u64,
    /// Allocations from there.
    pub count: u64,
    /// The number of the first of them, from one.
    pub first: u64,
}

/// What the table that is made of these words says: the number of all allocations, and the stacks. `None` if it is none.
pub fn read_table(words: &[u64]) -> Option<(u64, impl Iterator<Item = Counted>)> {
    let (head, entries) = words.split_at_checked(2)?;
    let [MAGIC, all] = head else { return None };
    let counted = entries.chunks_exact(3).filter_map(|entry| match *entry {
        [hash, count, first] if hash != 0 => Some(Counted { hash, count, first }),
        _ => None,
    });
    Some((*all, counted))
}

/// Takes over what the options say, and maps the table that they name.
pub fn init(options: &Options) {
    LOOKS.store(options.looks_at_all(), Ordering::Relaxed);
    let path = options.site_table.as_bytes();
    if path.is_empty() {
        return;
    }
    let mut name = Text::<300>::new();
    name.push_bytes(path);
    name.push_bytes(&[0]);
    let table = file::map_shared(name.as_bytes(), TABLE_BYTES).map(|start| start.as_ptr::<Table>());
    // SAFETY: a shared mapping of a whole table, which lives as long as the process; any bytes are valid words.
    match table.filter(|table| unsafe { (**table).magic.load(Ordering::Relaxed) } == MAGIC) {
        Some(table) => TABLE.store(table, Ordering::Release),
        None => file::write_stderr(
            b"fencepost: site_table names no table of the launcher's: nothing is counted\n",
        ),
    }
}

/// Looks at an allocation that is about to be made; `false` if it is to fail. The heap is started.
#[inline]
pub fn admit(request: &Request, site: Site) -> bool {
    !LOOKS.load(Ordering::Relaxed) || admit_slow(request, site)
}

/// [`admit`] for `operator new`. What is refused the front end goes on to ask the C++ library for, whose operator asks `malloc`, perhaps
/// by way of another `operator new`: these are refused as well, and neither counted nor said.
#[inline]
pub fn admit_new(request: &Request, site: Site) -> bool {
    if !LOOKS.load(Ordering::Relaxed) {
        return true;
    }
    if thread::with(|thread| thread.refused_new) == Some(true) {
        return false;
    }
    let admitted = admit_slow(request, site);
    if !admitted {
        thread::with(|thread| thread.refused_new = true);
    }
    admitted
}

#[cold]
#[inline(never)]
fn admit_slow(request: &Request, site: Site) -> bool {
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    let options = &heap().options;
    if options.refuses_some() && thread::with(|thread| core::mem::take(&mut thread.refused_new)) == Some(true)
    {
        return false;
    }
    // SAFETY: null, or the mapping that `init` made.
    let table = unsafe { TABLE.load(Ordering::Acquire).as_ref() };
    let name = if table.is_some() || !options.fail_site.is_all() { name(&frames(site, NAMED_BY)) } else { 0 };
    if let Some(table) = table {
        table.count(name);
    }
    if !options.refuses_some() || !options.fail_site.hold(name) {
        return true;
    }
    let number = ORDINAL.fetch_add(1, Ordering::Relaxed);
    if !is_refused(options, number) {
        return true;
    }
    say_refused(request, site, number);
    false
}

/// Whether the allocation with this number, from zero, is to fail.
fn is_refused(options: &Options, number: u64) -> bool {
    let every = options.fail_every;
    match options.fail_after.get() {
        None if every == 0 => true,
        None => number.wrapping_add(1).is_multiple_of(every),
        Some(after) if number <= after => number == after,
        Some(after) => every != 0 && number.wrapping_sub(after).is_multiple_of(every),
    }
}

#[cold]
fn say_refused(request: &Request, site: Site, number: u64) {
    let said = REFUSED.fetch_add(1, Ordering::Relaxed);
    let Some(context) = reports().filter(|_| said <= MOST_SAID) else { return };
    report::tell_of_own_faults();
    if said == MOST_SAID {
        file::write_stderr(b"fencepost: further allocations are refused without a word\n");
        return;
    }
    let frames = frames(site, MAX_FRAMES);
    let (size, origin, hash) = (request.size, request.origin.allocator_name(), name(&frames));
    let number = number.saturating_add(1);
    report::note(
        context,
        format_args!("refused allocation {number} ({size} bytes, {origin}, site 0x{hash:016x}) here:"),
        &frames,
    );
}

impl Heap {
    /// Fills the bytes of an object from `from` on, if that is wanted: they are new, and the program has not
    /// written them.
    #[inline]
    pub(super) fn fill(&self, object: Addr, from: usize, size: usize, site: Site) {
        if LOOKS.load(Ordering::Relaxed) && from < size {
            self.fill_slow(object, from, size, site);
        }
    }

    #[cold]
    #[inline(never)]
    fn fill_slow(&self, object: Addr, from: usize, size: usize, site: Site) {
        let Some(byte) = self.options.fill.byte() else { return };
        let _unsealed = Unsealed::begin();
        let only = self.options.fill_site;
        if !only.is_all() && !only.hold(name(&frames(site, NAMED_BY))) {
            return;
        }
        let len = size.saturating_sub(from).min(MOST_FILLED);
        // SAFETY: the object was just allocated or grown for the caller, which does not have it yet; all offsets are below its
        // size.
        unsafe { object.plus(from).as_ptr::<u8>().write_bytes(byte, len) };
        if only.is_one()
            && !FILL_SAID.swap(true, Ordering::Relaxed)
            && let Some(context) = reports()
        {
            let frames = frames(site, MAX_FRAMES);
            report::note(
                context,
                format_args!("filled with 0x{byte:02x}: {size} bytes allocated here:"),
                &frames,
            );
        }
    }
}

/// Up to `depth` frames from `site` outwards.
fn frames(site: Site, depth: usize) -> Frames {
    let stack = thread::with(|thread| {
        thread.stack = thread.stack.down_to(site.sp);
        thread.stack
    });
    trace::capture(site, depth, stack.unwrap_or_default())
}

/// The name of a stack; never 0.
fn name(frames: &Frames) -> u64 {
    const PAGE_MASK: usize = 0xfff;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |word: usize| {
        hash = (hash ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    };
    for pc in frames.as_slice().iter().take(NAMED_BY) {
        match loader::object_of(pc.wrapping_sub(1)) {
            Some(object) => {
                mix(pc.wrapping_sub(object.start));
                mix(object.end.wrapping_sub(object.start));
            }
            None => mix(pc & PAGE_MASK),
        }
    }
    hash.max(1)
}

impl Table {
    fn count(&self, hash: u64) {
        let number = self.all.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let home = hash as usize & (ENTRIES - 1);
        for index in home..home.saturating_add(PROBES) {
            let Some(entry) = self.entries.get(index & (ENTRIES - 1)) else { return };
            let found = match entry.hash.load(Ordering::Relaxed) {
                0 => entry
                    .hash
                    .compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|other| other == hash, |_| true),
                other => other == hash,
            };
            if found {
                entry.count.fetch_add(1, Ordering::Relaxed);
                let _ = entry.first.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::apply;
    use std::vec::Vec;

    fn refused(text: &[u8]) -> Vec<u64> {
        let mut options = Options::DEFAULT;
        apply(&mut options, text, |warning| panic!("{warning:?}"));
        assert!(options.refuses_some() && options.looks_at_all());
        (0..10).filter(|number| is_refused(&options, *number)).collect()
    }

    #[test]
    fn the_options_say_which_allocations_fail() {
        assert_eq!(refused(b"fail_after=0"), [0]);
        assert_eq!(refused(b"fail_after=4"), [4]);
        assert_eq!(refused(b"fail_every=3"), [2, 5, 8]);
        assert_eq!(refused(b"fail_after=4:fail_every=1"), [4, 5, 6, 7, 8, 9]);
        assert_eq!(refused(b"fail_after=1:fail_every=4"), [1, 5, 9]);
        assert_eq!(refused(b"fail_site=7").len(), 10);
        assert!(!Options::DEFAULT.refuses_some() && !Options::DEFAULT.looks_at_all());
    }

    #[test]
    fn a_table_counts_by_stack() {
        // SAFETY: all zero bytes are a table without entries.
        let table: std::boxed::Box<Table> = unsafe { std::boxed::Box::new_zeroed().assume_init() };
        table.magic.store(MAGIC, Ordering::Relaxed);
        let far = 7 + ENTRIES as u64;
        for hash in [7, far, 7, u64::MAX, 7] {
            table.count(hash);
        }
        // SAFETY: the table is words, as many as its size says.
        let words = unsafe {
            core::slice::from_raw_parts((&raw const *table).cast::<u64>(), TABLE_BYTES / size_of::<u64>())
        };
        let (all, entries) = read_table(words).expect("a table");
        let mut found: Vec<_> = entries.map(|entry| (entry.hash, entry.count, entry.first)).collect();
        found.sort_unstable();
        assert_eq!((all, found), (5, std::vec![(7, 3, 1), (far, 1, 2), (u64::MAX, 1, 4)]));
        assert!(read_table(&[0; 8]).is_none() && read_table(&[MAGIC]).is_none());
    }

    #[test]
    fn a_stack_is_named_by_where_its_code_is() {
        let stack = |pcs: &[usize]| {
            let mut frames = Frames::EMPTY;
            pcs.iter().for_each(|pc| frames.push(*pc));
            name(&frames)
        };
        let here = (is_refused as fn(&Options, u64) -> bool) as usize;
        assert_ne!(stack(&[here]), stack(&[here + 1]));
        assert_ne!(stack(&[here]), stack(&[here, here]));
        // Outside of all modules the page is the kernel's choice.
        assert_eq!(stack(&[0x7000_1234]), stack(&[0x7fff_5234]));
        assert_ne!(stack(&[]), 0);
    }
}
