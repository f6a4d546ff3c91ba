//! The text of a report, in the skeleton that AddressSanitizer made familiar.

use super::finding::{Access, Finding, Relation};
use super::modules::{Modules, Place};
use super::picture;
use crate::addr::{Addr, PAGE_SIZE};
use crate::fault::{Event, Kind, Object};
use crate::options::Options;
use crate::stats::Totals;
use crate::sys::{file, thread};
use crate::text::Text;
use crate::trace::{Depot, Frames};
use core::fmt::{self, Write};

/// What a report draws on besides the finding.
pub struct Sources<'a> {
    /// The options of the run.
    pub options: &'a Options,
    /// The seed of the run, given or drawn.
    pub seed: u64,
    /// Where stacks are kept.
    pub depot: &'a Depot,
    /// What was allocated how.
    pub totals: Totals,
    /// What is mapped where.
    pub modules: &'a Modules<'a>,
}

/// Writes the whole report.
pub fn text(out: &mut dyn Write, finding: &Finding, sources: &Sources<'_>) -> fmt::Result {
    let pid = thread::pid();
    let pc = finding.frames.as_slice().first().copied().unwrap_or(0);
    let (fp, sp) = finding.registers;
    writeln!(
        out,
        "==================================================================\n\
         =={pid}==ERROR: fencepost: {} on address 0x{:012x} at pc 0x{pc:012x} bp 0x{fp:012x} sp 0x{sp:012x}",
        finding.kind.name(),
        finding.address.get(),
    )?;
    headline(out, finding)?;
    frames(out, &finding.frames, finding.access.is_none(), sources.modules)?;
    relation(out, finding)?;
    if let Some(object) = finding.object {
        event(out, "allocated", object.history.allocated, sources)?;
        if object.freed {
            event(out, "freed", object.history.freed, sources)?;
        }
    }
    writeln!(out)?;
    picture::write(out, finding.address, finding.object.as_ref())?;
    writeln!(out, "{}", sources.totals)?;
    write!(out, "SUMMARY: fencepost: {}", finding.kind.name())?;
    if pc != 0 {
        write!(out, " ")?;
        place(out, pc, sources.modules)?;
    }
    write!(out, "\nrerun with: FENCEPOST_OPTIONS=")?;
    rerun(out, sources)?;
    writeln!(out, "\n=={pid}==END")
}

/// The line that says who did what.
fn headline(out: &mut dyn Write, finding: &Finding) -> fmt::Result {
    let tid = thread::id();
    match (finding.access, finding.kind) {
        (Some(access), _) => {
            let verb = match access {
                Access::Read => "READ",
                Access::Write => "WRITE",
                Access::Unknown => "ACCESS",
            };
            // The access starts before the address where it runs into a guard.
            match finding.extent {
                Some((start, size)) => write!(out, "{verb} of size {size} at 0x{:012x}", start.get())?,
                None => write!(out, "{verb} at 0x{:012x}", finding.address.get())?,
            }
        }
        (None, _) if finding.passed_to.is_some() => {
            let function = finding.passed_to.unwrap_or("?");
            let what = match (finding.kind, finding.relation()) {
                (Kind::HeapUseAfterFree, _) => "a freed pointer",
                (_, Some(Relation::Inside(_))) => "a pointer into an object",
                _ => "a pointer to no object",
            };
            write!(out, "{what} was passed to {function}")?;
        }
        (None, Kind::AllocDeallocMismatch) => {
            let allocator = finding.object.map_or("?", |object| object.origin.allocator_name());
            let deallocator = finding.freed_by.map_or("?", |origin| origin.deallocator_name());
            write!(out, "allocated with {allocator}, freed with {deallocator}")?;
        }
        (None, Kind::BadSize) => {
            write!(out, "freed with a stated size of {} bytes", finding.stated.unwrap_or(0))?;
        }
        (None, Kind::BadAlignment) => {
            write!(out, "freed with a stated alignment of {} bytes", finding.stated.unwrap_or(0))?;
        }
        (None, Kind::CanaryOverwritten) => write!(out, "bytes next to an object were overwritten; found")?,
        (None, Kind::WriteAfterFree) => write!(out, "freed memory was written; found")?,
        (None, _) => write!(out, "found")?,
    }
    write!(out, " by thread T{tid}")?;
    thread_name(out, tid)?;
    writeln!(out)
}

/// Writes the name of a thread that is still there.
fn thread_name(out: &mut dyn Write, tid: u32) -> fmt::Result {
    let mut path = Text::<64>::new();
    write!(path, "/proc/self/task/{tid}/comm\0")?;
    let mut buffer = [0; 32];
    let name = file::read(path.as_bytes(), &mut buffer).map(<[u8]>::trim_ascii_end);
    match name.and_then(|name| core::str::from_utf8(name).ok()) {
        Some(name) => write!(out, " ({name})"),
        None => Ok(()),
    }
}

fn relation(out: &mut dyn Write, finding: &Finding) -> fmt::Result {
    let address = finding.address.get();
    if finding.sealed {
        return writeln!(out, "\n0x{address:012x} is in the allocator's own tables, which are sealed");
    }
    let (Some(object), Some(relation)) = (finding.object, finding.relation()) else {
        return writeln!(out, "\n0x{address:012x} is not an address of any known object");
    };
    let (distance, place) = match relation {
        Relation::Before(distance) => (distance, "before"),
        Relation::Inside(distance) => (distance, "inside of"),
        Relation::After(distance) => (distance, "after"),
    };
    write!(out, "\n0x{address:012x} is located {distance} bytes {place} ")?;
    region(out, &object)?;
    writeln!(out, "{}", if object.freed { ", freed" } else { "" })
}

fn region(out: &mut dyn Write, object: &Object) -> fmt::Result {
    let start = object.start;
    match object.size {
        Some(size) => {
            write!(out, "{size}-byte region [0x{:012x},0x{:012x})", start.get(), start.plus(size).get())
        }
        None => write!(out, "a region at 0x{:012x}", start.get()),
    }
}

fn event(out: &mut dyn Write, verb: &str, event: Event, sources: &Sources<'_>) -> fmt::Result {
    if event.thread == 0 {
        return Ok(());
    }
    write!(out, "{verb} by thread T{}", event.thread)?;
    thread_name(out, event.thread)?;
    writeln!(out, " here:")?;
    frames(out, &sources.depot.get(event.stack), true, sources.modules)
}

/// Writes a stack, a line a frame: `#0 0xaddress in symbol+0xoffset (module+0xoffset) (BuildId: hex)`,
/// without what is not known. `called` says that the innermost is a return address, too.
pub fn frames(out: &mut dyn Write, frames: &Frames, called: bool, modules: &Modules<'_>) -> fmt::Result {
    if frames.as_slice().is_empty() {
        return writeln!(out, "    (no stack)");
    }
    for (index, pc) in frames.as_slice().iter().enumerate() {
        write!(out, "    #{index} 0x{pc:012x} ")?;
        let place = modules.place(Addr::new(*pc));
        if let Some(symbol) = place.and_then(|place| place.symbol(called || index != 0)) {
            write!(out, "in ")?;
            lossy(out, symbol.name())?;
            write!(out, "+0x{:x} ", symbol.into)?;
        }
        write_place(out, place)?;
        if let Some(id) = place.and_then(|place| place.build_id()) {
            write!(out, " (BuildId: ")?;
            id.as_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
            write!(out, ")")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Writes text; what is not UTF-8 becomes the replacement character.
fn lossy(out: &mut dyn Write, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        out.write_str(chunk.valid())?;
        if !chunk.invalid().is_empty() {
            out.write_char('\u{fffd}')?;
        }
    }
    Ok(())
}

/// Writes `(module+0xoffset)`.
pub fn place(out: &mut dyn Write, pc: usize, modules: &Modules<'_>) -> fmt::Result {
    write_place(out, modules.place(Addr::new(pc)))
}

fn write_place(out: &mut dyn Write, place: Option<Place<'_>>) -> fmt::Result {
    match place {
        Some(place) => {
            write!(out, "(")?;
            lossy(out, place.path)?;
            write!(out, "+0x{:x})", place.offset)
        }
        None => write!(out, "(unknown)"),
    }
}

/// Writes the options that differ from the defaults, and the seed.
pub fn rerun(out: &mut dyn Write, sources: &Sources<'_>) -> fmt::Result {
    let default_options = Options::DEFAULT.normalised(PAGE_SIZE);
    let mut first = true;
    for row in crate::options::ROWS {
        let (mut mine, mut default) = (Text::<300>::new(), Text::<300>::new());
        (row.show)(sources.options, &mut mine)?;
        (row.show)(&default_options, &mut default)?;
        if row.name == "seed" || mine.as_bytes() == default.as_bytes() {
            continue;
        }
        let value = core::str::from_utf8(mine.as_bytes()).unwrap_or("");
        write!(out, "{}{}={value}", if first { "" } else { ":" }, row.name)?;
        first = false;
    }
    write!(out, "{}seed={}", if first { "" } else { ":" }, sources.seed)
}
