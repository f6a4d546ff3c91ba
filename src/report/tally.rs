//! Errors so far: the count, the distinct ones, and the objects that were reported already.
//!
//! Two errors are the same if they have the same kind and their stacks begin alike. An object whose pages were opened
//! after a report (`on_error=continue`) is not reported again. The tables have a fixed size; an error that finds no
//! room counts as new.
//!
//! # The summary
//!
//! The counts at the end of a process that went on after errors.

use super::finding::Finding;
use super::modules::Modules;
use super::suppress::Rules;
use super::{json, render};
use crate::fault::Kind;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, Rank};
use crate::sys::thread;
use crate::text::Excerpt;
use crate::trace::{Depot, Frames};
use core::fmt::{self, Write};

/// Frames in which two equal errors agree.
const TOP: usize = 4;
/// Distinct errors that are told apart.
const ENTRIES: usize = 1024;
/// Objects that are remembered; a power of two.
const OBJECTS: usize = 4096;
const PROBES: usize = 16;

/// A distinct error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    key: u64,
    /// Its kind.
    pub kind: Kind,
    /// The innermost frame, 0 if there is none.
    pub pc: usize,
    /// How often it was found.
    pub count: u64,
}

/// The counts.
pub struct Tally {
    entries: [Option<Entry>; ENTRIES],
    len: usize,
    objects: [u64; OBJECTS],
    /// Whether anything was remembered or counted.
    used: bool,
}

/// Errors that were not suppressed, and those that were. They can be read without the tally's lock.
static ERRORS: AtomicU64 = AtomicU64::new(0);
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Where tools find both counts.
pub fn counters() -> [&'static AtomicU64; 2] {
    [&ERRORS, &SUPPRESSED]
}

/// Errors so far that were not suppressed.
pub fn errors() -> u64 {
    ERRORS.load(Ordering::Relaxed)
}

/// Errors so far that a suppression covers.
pub fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// Counts an error that a suppression covers.
pub fn count_suppressed() {
    SUPPRESSED.fetch_add(1, Ordering::Relaxed);
}

/// The process's; used by the thread that reports.
pub static TALLY: Lock<Tally> = Lock::new(Rank::Tally, Tally::NEW);

impl Tally {
    /// Nothing found.
    pub const NEW: Self = Self { entries: [None; ENTRIES], len: 0, objects: [0; OBJECTS], used: false };

    /// Counts an error; whether its like was found before.
    pub fn count(&mut self, finding: &Finding, depot: &Depot) -> bool {
        self.used = true;
        ERRORS.fetch_add(1, Ordering::Relaxed);
        let key = place_key(finding, depot);
        if let Some(entry) = self.entries.iter_mut().take(self.len).flatten().find(|entry| entry.key == key) {
            entry.count = entry.count.saturating_add(1);
            return true;
        }
        if let Some(room) = self.entries.get_mut(self.len) {
            let pc = finding.frames.as_slice().first().copied().unwrap_or(0);
            *room = Some(Entry { key, kind: finding.kind, pc, count: 1 });
            self.len += 1;
        }
        false
    }

    /// Whether the error concerns an object that the same was said of; remembers it.
    pub fn know_object(&mut self, finding: &Finding) -> bool {
        let Some(key) = object_key(finding) else { return false };
        self.used = true;
        let home = usize::try_from(key >> 32).unwrap_or(0);
        for probe in 0..PROBES {
            let Some(entry) = self.objects.get_mut(home.wrapping_add(probe) % OBJECTS) else { continue };
            if *entry == key {
                return true;
            }
            if *entry == 0 {
                *entry = key;
                return false;
            }
        }
        false
    }

    /// The distinct errors, in the order in which they were found.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(self.len).flatten()
    }

    /// How many they are.
    pub fn distinct(&self) -> usize {
        self.len
    }

    /// Forgets everything: a forked child has made none of these errors.
    pub fn forget(&mut self) {
        // What is not written need not be copied.
        for count in [&ERRORS, &SUPPRESSED] {
            if count.load(Ordering::Relaxed) != 0 {
                count.store(0, Ordering::Relaxed);
            }
        }
        if !self.used {
            return;
        }
        self.entries.fill(None);
        self.objects.fill(0);
        (self.len, self.used) = (0, false);
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn mix_frames(hash: u64, frames: &Frames) -> u64 {
    frames.as_slice().iter().take(TOP).fold(hash, |hash, pc| mix(hash, *pc as u64))
}

/// The kind and the top of the stack. What a check at exit finds has none: the allocation's stands for it,
/// and the object's size where that was not kept either.
fn place_key(finding: &Finding, depot: &Depot) -> u64 {
    let hash = mix(1, finding.kind as u64);
    if !finding.frames.as_slice().is_empty() {
        return mix_frames(hash, &finding.frames);
    }
    let Some(object) = finding.object else { return mix(hash, finding.address.get() as u64) };
    let allocated = depot.get(object.history.allocated.stack);
    match allocated.as_slice().is_empty() {
        true => mix(hash, object.size.unwrap_or(0) as u64),
        false => mix_frames(hash, &allocated),
    }
}

/// What stands for the object of an error that can be found again and again: accesses to opened pages, and
/// overwritten bytes that stay overwritten. `None` for others; never 0.
fn object_key(finding: &Finding) -> Option<u64> {
    let lasting =
        finding.access.is_some() || matches!(finding.kind, Kind::CanaryOverwritten | Kind::WriteAfterFree);
    if !lasting {
        return None;
    }
    let hash = mix(2, finding.kind as u64);
    let hash = match finding.object {
        Some(object) => {
            let allocated = object.history.allocated;
            let event = u64::from(allocated.thread) << 32 | u64::from(allocated.stack);
            // Of a pool, the part that a mistake is about.
            let start = finding.poisoned.map_or(object.start, |(start, _)| start);
            mix(mix(hash, start.get() as u64), event)
        }
        None => mix(hash, finding.address.page_floor().get() as u64),
    };
    Some(hash | 1)
}

/// Distinct errors, and suppressions, that are listed.
const LISTED: usize = 100;
/// Bytes of a suppression that are written.
const RULE_BYTES: usize = 300;

/// A line with the sums, then one for each distinct error and for each suppression that was used.
pub fn text(out: &mut dyn Write, tally: &Tally, rules: &Rules, modules: &Modules<'_>) -> fmt::Result {
    let pid = thread::pid();
    let (errors, distinct) = (errors(), tally.distinct());
    writeln!(
        out,
        "=={pid}==SUMMARY: fencepost: {errors} errors, {distinct} distinct, {} suppressed",
        suppressed(),
    )?;
    for entry in tally.entries().take(LISTED) {
        write!(out, "    {} {}", entry.count, entry.kind.name())?;
        if entry.pc != 0 {
            write!(out, " ")?;
            render::location(out, entry.pc, modules)?;
        }
        writeln!(out)?;
    }
    if distinct > LISTED {
        writeln!(out, "    and {} more", distinct.saturating_sub(LISTED))?;
    }
    for (bytes, count) in rules.used().take(LISTED) {
        writeln!(out, "    {count} suppressed by {}", Excerpt { bytes, most: RULE_BYTES })?;
    }
    let more = rules.used().count().saturating_sub(LISTED);
    if more != 0 {
        writeln!(out, "    and by {more} more")?;
    }
    Ok(())
}

/// The same as one JSON object on one line.
pub fn json(out: &mut dyn Write, tally: &Tally, modules: &Modules<'_>) -> fmt::Result {
    write!(
        out,
        "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{},\"summary\":{{\"errors\":{},\"suppressed\":{},\"distinct\":[",
        thread::pid(),
        errors(),
        suppressed(),
    )?;
    for (index, entry) in tally.entries().take(LISTED).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{{\"kind\":\"{}\",\"count\":{},\"frame\":", entry.kind.name(), entry.count)?;
        json::frame(out, entry.pc, true, modules)?;
        write!(out, "}}")?;
    }
    writeln!(out, "]}}}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::fault::Object;
    use crate::report::Access;
    use crate::request::Origin;
    use std::boxed::Box;

    fn finding(kind: Kind, start: usize, pcs: &[usize]) -> Finding {
        let mut frames = Frames::EMPTY;
        pcs.iter().for_each(|pc| frames.push(*pc));
        let history = Default::default();
        let object =
            Object { start: Addr::new(start), size: Some(8), freed: false, origin: Origin::Malloc, history };
        let access = kind == Kind::HeapBufferOverflow;
        Finding {
            kind,
            address: Addr::new(start),
            object: Some(object),
            other: None,
            access: access.then_some(Access::Write),
            freed_by: None,
            stated: None,
            in_library: false,
            fault: None,
            called: None,
            passed_to: None,
            made_by: None,
            poisoned: None,
            frames,
            extent: None,
            sealed: false,
            wild: None,
            registers: (0, 0),
        }
    }

    #[test]
    fn the_kind_and_the_top_of_the_stack_make_an_error() {
        let (mut tally, depot) = (Box::new(Tally::NEW), Depot::EMPTY);
        assert!(!tally.count(&finding(Kind::DoubleFree, 64, &[1, 2, 3, 4, 5]), &depot));
        assert!(tally.count(&finding(Kind::DoubleFree, 128, &[1, 2, 3, 4, 6]), &depot));
        assert!(!tally.count(&finding(Kind::DoubleFree, 64, &[1, 2, 3, 5]), &depot));
        assert!(!tally.count(&finding(Kind::InvalidFree, 64, &[1, 2, 3, 4, 5]), &depot));
        assert!(!tally.count(&finding(Kind::CanaryOverwritten, 64, &[]), &depot));
        assert!(tally.count(&finding(Kind::CanaryOverwritten, 128, &[]), &depot));
        assert_eq!(tally.distinct(), 4);
        assert_eq!(
            tally.entries().next().map(|entry| (entry.kind, entry.count)),
            Some((Kind::DoubleFree, 2))
        );
    }

    #[test]
    fn an_object_is_known_once_it_was_named() {
        let mut tally = Box::new(Tally::NEW);
        assert!(!tally.know_object(&finding(Kind::HeapBufferOverflow, 64, &[1])));
        assert!(tally.know_object(&finding(Kind::HeapBufferOverflow, 64, &[2])));
        assert!(!tally.know_object(&finding(Kind::CanaryOverwritten, 64, &[1])));
        assert!(!tally.know_object(&finding(Kind::HeapBufferOverflow, 65, &[1])));
        assert!(!tally.know_object(&finding(Kind::DoubleFree, 64, &[1])));
        assert!(!tally.know_object(&finding(Kind::DoubleFree, 64, &[1])));
    }
}
