//! The text of a report, in the form that AddressSanitizer made familiar.
//!
//! The program chooses names and paths. They go through [`crate::text`], so they cannot leave their line.
//!
//! # Notes
//!
//! Notes have a stack and are no errors: a refused or filled allocation, a fault of the program's own.

use super::fatal::{self, Context};
use super::finding::{self, Access, Finding, Relation, Resemblance, Wild};
use super::modules::{Location, Modules};
use super::{json, picture};
use crate::addr::{Addr, PAGE_SIZE};
use crate::canary::Content;
use crate::fault::{Event, Kind, Object};
use crate::options::{self, Options, ReportForm};
use crate::stats::Totals;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sys::{file, thread};
use crate::text::{Excerpt, Printable, Text};
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
    /// What the allocator put at an address, near the object that the report is about.
    pub content: fn(Addr, Option<&Object>) -> Content,
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
    frames(out, &finding.frames, !finding.is_fault(), sources.modules)?;
    relation(out, finding)?;
    if let Some(object) = finding.object {
        event(out, "allocated", object.history.allocated, sources)?;
        if object.freed {
            event(out, "freed", object.history.freed, sources)?;
        }
    }
    writeln!(out)?;
    let dump = sources.options.dumps();
    // Nothing is in the first page.
    let null = finding.object.is_none() && finding.address.get() < PAGE_SIZE;
    if finding.wild.is_none() && !null {
        picture::write(out, finding.address, finding.object.as_ref(), sources.content, dump)?;
    }
    writeln!(out, "{}", sources.totals)?;
    write!(out, "SUMMARY: fencepost: {}", finding.kind.name())?;
    if let Some((index, pc)) = sources.modules.blamed(&finding.frames) {
        let found = sources.modules.locate(Addr::new(pc));
        write!(out, " ")?;
        write_location(out, found)?;
        let called = index != 0 || !finding.is_fault();
        if let Some(symbol) = found.and_then(|place| place.symbol(called)) {
            write!(out, " in ")?;
            write_symbol(out, symbol.name())?;
        }
    }
    if let Some(hint) = finding::of(finding, sources.options) {
        write!(out, "\nhint: {}: FENCEPOST_OPTIONS=", hint.why)?;
        let options = hint.applied_to(sources.options);
        options::shell(rerun(&Sources { options: &options, ..*sources }).as_bytes(), out)?;
    }
    write!(out, "\nrerun with: FENCEPOST_OPTIONS=")?;
    options::shell(rerun(sources).as_bytes(), out)?;
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
                Some((start, size)) => {
                    write!(out, "{verb} of size {size}")?;
                    if let Some(function) = finding.made_by {
                        write!(out, " by {function}()")?;
                    } else if let Some(function) = &finding.called {
                        write!(out, " by {}()", Printable(function.as_bytes()))?;
                    }
                    write!(out, " at 0x{:012x}", start.get())?;
                }
                None => {
                    write!(out, "{verb} at 0x{:012x}", finding.address.get())?;
                    if let Some(function) = &finding.called {
                        write!(out, " in {}() of the C library", Printable(function.as_bytes()))?;
                    } else if finding.in_library {
                        write!(out, " in the C library")?;
                    }
                }
            }
        }
        (None, _) if finding.passed_to.is_some() => {
            let function = finding.passed_to.unwrap_or("?");
            let what = match (finding.kind, finding.relation()) {
                (Kind::HeapBufferOverflow, _) => "a range that goes beyond its object",
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
    match file::read(path.as_bytes(), &mut buffer) {
        Some(name) => write!(out, " ({})", Printable(name.strip_suffix(b"\n").unwrap_or(name))),
        None => Ok(()),
    }
}

fn relation(out: &mut dyn Write, finding: &Finding) -> fmt::Result {
    let address = finding.address.get();
    if finding.sealed {
        return writeln!(out, "\n0x{address:012x} is in the allocator's own tables, which are sealed");
    }
    if let Some(wild) = &finding.wild {
        return outside(out, address, wild);
    }
    let (Some(object), Some(relation)) = (finding.object, finding.relation()) else {
        if finding.is_fault() && address < PAGE_SIZE {
            return writeln!(out, "\n0x{address:012x} is in the first page: the pointer was null");
        }
        return writeln!(out, "\n0x{address:012x} is not an address of any known object");
    };
    write!(out, "\n0x{address:012x} is located ")?;
    located(out, relation)?;
    region(out, &object)?;
    if let Some((start, len)) = finding.poisoned {
        let (start, end) = (start.get(), start.plus(len).get());
        write!(out, ", of which the program poisoned [0x{start:012x},0x{end:012x})")?;
    }
    writeln!(out, "{}", if object.freed { ", freed" } else { "" })?;
    if let (Some((start, size)), Some(relation)) = (finding.other, finding.other_relation()) {
        write!(out, "or ")?;
        located(out, relation)?;
        sized_region(out, start, size)?;
        writeln!(out, ": all bytes between the two were overwritten, from either side")?;
    }
    Ok(())
}

fn located(out: &mut dyn Write, relation: Relation) -> fmt::Result {
    let (distance, place) = match relation {
        Relation::Before(distance) => (distance, "before"),
        Relation::Inside(distance) => (distance, "inside of"),
        Relation::After(distance) => (distance, "after"),
    };
    write!(out, "{distance} bytes {place} ")
}

/// By their DWARF numbers.
pub const REGISTERS: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// What is known of a pointer outside the address space.
fn outside(out: &mut dyn Write, address: usize, wild: &Wild) -> fmt::Result {
    writeln!(out, "\n0x{address:016x} is outside the address space: nothing is allocated there")?;
    match wild.resembles {
        Some(Resemblance::Canary) => writeln!(
            out,
            "the pointer looks like a canary (whose secret bits are left out here): it was read from the slack of an object"
        )?,
        Some(Resemblance::Fill(byte)) => writeln!(
            out,
            "the pointer looks like the fill byte 0x{byte:02x}: it was read from memory that was never written"
        )?,
        None => {}
    }
    writeln!(out, "registers:")?;
    let mut named = REGISTERS.iter().zip(wild.registers).peekable();
    while named.peek().is_some() {
        write!(out, "   ")?;
        for (name, value) in named.by_ref().take(4) {
            write!(out, " {name:<3} 0x{value:016x}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn region(out: &mut dyn Write, object: &Object) -> fmt::Result {
    match object.size {
        Some(size) => sized_region(out, object.start, size),
        None => write!(out, "a region at 0x{:012x}", object.start.get()),
    }
}

fn sized_region(out: &mut dyn Write, start: Addr, size: usize) -> fmt::Result {
    write!(out, "{size}-byte region [0x{:012x},0x{:012x})", start.get(), start.plus(size).get())
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
    for (index, pc) in modules.shown(frames).iter().enumerate() {
        write!(out, "    #{index} 0x{pc:012x} ")?;
        let place = modules.locate(Addr::new(*pc));
        if let Some(symbol) = place.and_then(|place| place.symbol(called || index != 0)) {
            write!(out, "in ")?;
            write_symbol(out, symbol.name())?;
            write!(out, "+0x{:x} ", symbol.into)?;
        }
        write_location(out, place)?;
        if let Some(id) = place.and_then(|place| place.build_id()) {
            write!(out, " (BuildId: ")?;
            id.as_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
            write!(out, ")")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Bytes of a path and of a symbol's name that are written; with the rest of a frame less than 4 KiB, whatever is in them.
pub const PATH_BYTES: usize = 2400;
/// See [`PATH_BYTES`].
pub const SYMBOL_BYTES: usize = 1200;

/// Writes a symbol's name. A blank in it would look like its end.
fn write_symbol(out: &mut dyn Write, name: &[u8]) -> fmt::Result {
    let mut left = SYMBOL_BYTES;
    for (index, bytes) in name.split(|byte| *byte == b' ').enumerate() {
        write!(out, "{}{}", if index == 0 { "" } else { "\\x20" }, Excerpt { bytes, most: left })?;
        left = left.saturating_sub(bytes.len().saturating_add(4));
    }
    Ok(())
}

/// Writes `(module+0xoffset)`.
pub fn location(out: &mut dyn Write, pc: usize, modules: &Modules<'_>) -> fmt::Result {
    write_location(out, modules.locate(Addr::new(pc)))
}

fn write_location(out: &mut dyn Write, place: Option<Location<'_>>) -> fmt::Result {
    match place {
        Some(place) => {
            write!(out, "({}+0x{:x})", Excerpt { bytes: place.path, most: PATH_BYTES }, place.offset)
        }
        None => write!(out, "(unknown)"),
    }
}

/// The options that differ from the defaults or were set, and the seed, as `FENCEPOST_OPTIONS` holds them.
pub fn rerun(sources: &Sources<'_>) -> Text<RERUN_BYTES> {
    let default = Options::DEFAULT.normalised(PAGE_SIZE);
    let mut text = Text::new();
    for row in options::ROWS {
        let matters = (row.is_given)(sources.options) || differs(row, sources.options, &default);
        if matters && !matches!(row.name, "seed" | "help" | "site_table") {
            options::item(row, sources.options, &mut |bytes| text.push_bytes(bytes));
            text.push_bytes(b":");
        }
    }
    let _ = write!(text, "seed={}", sources.seed);
    text
}

/// What all options together take: two paths, in quotes, and some 40 words and numbers.
const RERUN_BYTES: usize = 3072;

fn differs(row: &options::Row, mine: &Options, default: &Options) -> bool {
    let value = |options| {
        let mut value = Text::<256>::new();
        (row.spell)(options, &mut |bytes| value.push_bytes(bytes));
        value
    };
    value(mine).as_bytes() != value(default).as_bytes()
}

/// Whether faults that are the program's own are told of, too.
static TELLS_OF_OWN: AtomicBool = AtomicBool::new(false);

/// From now on every fault that ends the program is noted with its stack: an allocation was refused.
pub fn tell_of_own_faults() {
    TELLS_OF_OWN.store(true, Ordering::Relaxed);
}

/// Whether [`tell_of_own_faults`] was called.
pub(super) fn tells_of_own_faults() -> bool {
    TELLS_OF_OWN.load(Ordering::Relaxed)
}

/// Says `what` and the stack, all of whose frames are return addresses.
pub fn note(context: &Context, what: fmt::Arguments<'_>, frames: &Frames) {
    fatal::write_pieces(context, |out, modules| {
        let pid = thread::pid();
        let _ = match context.options.report {
            ReportForm::Text => writeln!(out, "=={pid}==NOTE: fencepost: {what}")
                .and_then(|()| self::frames(out, frames, true, modules)),
            ReportForm::Json => write!(
                out,
                "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{pid},\"note\":\"{what}\",\"frames\":"
            )
            .and_then(|()| json::frames(out, frames, true, modules))
            .and_then(|()| writeln!(out, "}}")),
        };
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Given, ReportForm, apply};
    use std::boxed::Box;
    use std::string::String;

    static NO_STACKS: Depot = Depot::EMPTY;

    fn sources<'a>(options: &'a Options, modules: &'a Modules<'a>) -> Sources<'a> {
        let content = |_: Addr, _: Option<&Object>| Content::Program;
        Sources { options, seed: 7, depot: &NO_STACKS, totals: Totals::default(), content, modules }
    }

    #[test]
    fn a_frame_is_a_line_whatever_its_module_is_called() {
        let maps = b"1000-2000 r-xp 00000000 08:01 7      /tmp/a\r\x1b[2K\xff\xc2\x9b\n";
        let modules = Modules::of(maps);
        let mut frames = Frames::EMPTY;
        frames.push(0x1010);
        let mut out = String::new();
        super::frames(&mut out, &frames, true, &modules).expect("a string takes all");
        assert_eq!(out, "    #0 0x000000001010 (/tmp/a\\x0d\\x1b[2K\\xff\\xc2\\x9b+0x10)\n");
        let mut out = String::new();
        write_symbol(&mut out, b"f (x)\n").expect("a string takes all");
        assert_eq!(out, "f\\x20(x)\\x0a");
    }

    #[test]
    fn a_report_has_room_for_the_longest_names() {
        let mut maps = b"1000-2000 r-xp 00000000 08:01 7      /".to_vec();
        maps.resize(4000, 1);
        let modules = Modules::of(&maps);
        let mut frames = Frames::EMPTY;
        (0..32).for_each(|index| frames.push(0x1010 + index));
        for form in [ReportForm::Text, ReportForm::Json] {
            let mut out = Box::new(Text::<{ 4096 * 32 }>::new());
            match form {
                ReportForm::Text => super::frames(&mut *out, &frames, true, &modules),
                ReportForm::Json => (0..32).try_for_each(|index| {
                    crate::report::json::frame(&mut *out, 0x1010 + index, true, &modules)
                }),
            }
            .expect("it takes all");
            assert!(!out.truncated());
        }
    }

    #[test]
    fn what_was_set_is_set_again() {
        let mut options = Options::DEFAULT;
        apply(&mut options, b"mode=harden:log_path=\"/tmp/a b\":help=1:seed=3", |warning| {
            panic!("{warning:?}")
        });
        let modules = Modules::of(b"");
        let text = rerun(&sources(&options.normalised(PAGE_SIZE), &modules));
        assert_eq!(core::str::from_utf8(text.as_bytes()), Ok("mode=harden:log_path=\"/tmp/a b\":seed=7"));
        let path = [b'"'; 255];
        options.log_path = crate::options::OptionValue::parse(&path).expect("a path");
        options.suppressions = options.log_path;
        for row in options::ROWS {
            row.copy_if_given(&Options { given: Given::ALL, ..options }, &mut options);
        }
        assert!(!rerun(&sources(&options, &modules)).truncated());
    }

    #[test]
    fn a_thread_may_be_called_anything() {
        let mut out = String::new();
        // SAFETY: names the calling thread.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"a)\n==7==END\x1b[".as_ptr()) };
        thread_name(&mut out, thread::id()).expect("a string takes all");
        assert_eq!(out, " (a)\\x0a==7==END\\x1b[)");
    }
}
