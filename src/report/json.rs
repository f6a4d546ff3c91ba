//! A report as one JSON object on one line.

use super::finding::{self, Access, Finding, Relation, Resemblance};
use super::modules::Modules;
use super::render::{self, Sources};
use crate::addr::Addr;
use crate::fault::{Event, Kind, Object};
use crate::sys::thread;
use crate::text::is_unprintable;
use crate::trace::Frames;
use core::fmt::{self, Write};

/// Writes the object and a newline.
pub fn line(out: &mut dyn Write, finding: &Finding, sources: &Sources<'_>) -> fmt::Result {
    write!(
        out,
        "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{},\"kind\":\"{}\",\"address\":\"0x{:x}\",\"thread\":{}",
        thread::pid(),
        finding.kind.name(),
        finding.address.get(),
        thread::id(),
    )?;
    match finding.access {
        Some(Access::Read) => write!(out, ",\"access\":\"read\"")?,
        Some(Access::Write) => write!(out, ",\"access\":\"write\"")?,
        Some(Access::Unknown) => write!(out, ",\"access\":\"unknown\"")?,
        None => {}
    }
    if let Some((start, size)) = finding.extent {
        write!(out, ",\"access_start\":\"0x{:x}\",\"access_size\":{size}", start.get())?;
    }
    if let Some(wild) = &finding.wild {
        match wild.resembles {
            Some(Resemblance::Canary) => write!(out, ",\"resembles\":\"canary\"")?,
            Some(Resemblance::Fill(_)) => write!(out, ",\"resembles\":\"fill\"")?,
            None => {}
        }
        for (index, (name, value)) in render::REGISTERS.iter().zip(wild.registers).enumerate() {
            let before = if index == 0 { ",\"registers\":{" } else { "," };
            write!(out, "{before}\"{name}\":\"0x{value:x}\"")?;
        }
        write!(out, "}}")?;
    }
    if let Some(freed_by) = finding.freed_by {
        write!(out, ",\"freed_with\":\"{}\"", freed_by.deallocator_name())?;
    }
    if let Some(stated) = finding.stated {
        let what = if finding.kind == Kind::BadAlignment { "alignment" } else { "size" };
        write!(out, ",\"stated_{what}\":{stated}")?;
    }
    if let Some(function) = finding.passed_to {
        write!(out, ",\"passed_to\":\"{function}\"")?;
    }
    if let Some(function) = finding.made_by {
        write!(out, ",\"made_by\":\"{function}\"")?;
    }
    if let Some(function) = &finding.called {
        write!(out, ",\"called\":\"")?;
        escaped(out, function.as_bytes(), render::SYMBOL_BYTES)?;
        write!(out, "\"")?;
    }
    if let Some((start, len)) = finding.poisoned {
        write!(out, ",\"poisoned_start\":\"0x{:x}\",\"poisoned_size\":{len}", start.get())?;
    }
    write!(out, ",\"frames\":")?;
    frames(out, &finding.frames, !finding.is_fault(), sources.modules)?;
    if let Some(found) = finding.object {
        write!(out, ",\"object\":")?;
        object(out, &found, finding, sources)?;
    }
    if let (Some((start, size)), Some(relation)) = (finding.other, finding.other_relation()) {
        let (place, distance) = place(relation);
        write!(
            out,
            ",\"other_object\":{{\"start\":\"0x{:x}\",\"size\":{size},\"relation\":\"{place}\",\"distance\":{distance}}}",
            start.get(),
        )?;
    }
    write!(
        out,
        ",\"guarded_permille\":{},\"allocations\":{},\"refused\":{},\"seed\":{},\"rerun\":\"",
        sources.totals.guarded_permille(),
        sources.totals.all(),
        sources.totals.refused(),
        sources.seed,
    )?;
    escaped(out, render::rerun(sources).as_bytes(), usize::MAX)?;
    write!(out, "\"")?;
    if let Some(hint) = finding::of(finding, sources.options) {
        let options = hint.applied_to(sources.options);
        write!(out, ",\"hint\":\"")?;
        escaped(out, render::rerun(&Sources { options: &options, ..*sources }).as_bytes(), usize::MAX)?;
        write!(out, "\"")?;
    }
    writeln!(out, "}}")
}

fn object(out: &mut dyn Write, object: &Object, finding: &Finding, sources: &Sources<'_>) -> fmt::Result {
    write!(out, "{{\"start\":\"0x{:x}\"", object.start.get())?;
    if let Some(size) = object.size {
        write!(out, ",\"size\":{size}")?;
    }
    let (place, distance) = finding.relation().map_or(("unknown", 0), place);
    write!(
        out,
        ",\"relation\":\"{place}\",\"distance\":{distance},\"freed\":{},\"allocated_with\":\"{}\"",
        object.freed,
        object.origin.allocator_name(),
    )?;
    event(out, "allocated_by", object.history.allocated, sources)?;
    if object.freed {
        event(out, "freed_by", object.history.freed, sources)?;
    }
    write!(out, "}}")
}

fn place(relation: Relation) -> (&'static str, usize) {
    match relation {
        Relation::Before(distance) => ("before", distance),
        Relation::After(distance) => ("after", distance),
        Relation::Inside(distance) => ("inside", distance),
    }
}

fn event(out: &mut dyn Write, name: &str, event: Event, sources: &Sources<'_>) -> fmt::Result {
    if event.thread == 0 {
        return Ok(());
    }
    write!(out, ",\"{name}\":{{\"thread\":{},\"frames\":", event.thread)?;
    frames(out, &sources.depot.get(event.stack), true, sources.modules)?;
    write!(out, "}}")
}

/// Writes the frames; `called` says that the innermost is a return address, too.
pub fn frames(out: &mut dyn Write, frames: &Frames, called: bool, modules: &Modules<'_>) -> fmt::Result {
    write!(out, "[")?;
    for (index, pc) in modules.shown(frames).iter().enumerate() {
        write!(out, "{}", if index == 0 { "" } else { "," })?;
        frame(out, *pc, called || index != 0, modules)?;
    }
    write!(out, "]")
}

/// Writes one frame as an object.
pub fn frame(out: &mut dyn Write, pc: usize, called: bool, modules: &Modules<'_>) -> fmt::Result {
    write!(out, "{{\"pc\":\"0x{pc:x}\"")?;
    if let Some(place) = modules.locate(Addr::new(pc)) {
        write!(out, ",\"module\":\"")?;
        escaped(out, place.path, render::PATH_BYTES)?;
        write!(out, "\",\"offset\":\"0x{:x}\"", place.offset)?;
        if let Some(id) = place.build_id() {
            write!(out, ",\"build_id\":\"")?;
            id.as_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
            write!(out, "\"")?;
        }
        if let Some(symbol) = place.symbol(called) {
            write!(out, ",\"symbol\":\"")?;
            escaped(out, symbol.name(), render::SYMBOL_BYTES)?;
            write!(out, "\",\"symbol_offset\":\"0x{:x}\"", symbol.into)?;
        }
    }
    write!(out, "}}")
}

/// Writes bytes as the inside of a JSON string, in no more than `most` bytes and `...` if there are more; what is not UTF-8
/// becomes the replacement character.
fn escaped(out: &mut dyn Write, bytes: &[u8], most: usize) -> fmt::Result {
    let mut left = most;
    for chunk in bytes.utf8_chunks() {
        let replaced = if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
        for character in chunk.valid().chars().chain(replaced.chars()) {
            // The longest is the escaped pair of a character beyond 16 bits.
            left =
                left.saturating_sub(if is_unprintable(character) { 12 } else { 2.max(character.len_utf8()) });
            if left == 0 {
                return out.write_str("...");
            }
            match character {
                '"' | '\\' => write!(out, "\\{character}")?,
                odd if is_unprintable(odd) => {
                    odd.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
                }
                plain => out.write_char(plain)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn strings_stay_strings() {
        for (bytes, most, expected) in [
            (&b"/tmp/a\"b\\c"[..], 99, "/tmp/a\\\"b\\\\c"),
            (b"a\n\x1b\x7f\xc2\x9b\xff", 99, "a\\u000a\\u001b\\u007f\\u009b\u{fffd}"),
            ("\u{2028}\u{e0001}\u{e4}".as_bytes(), 99, "\\u2028\\udb40\\udc01\u{e4}"),
            (b"abcd", 5, "ab..."),
        ] {
            let mut out = String::new();
            escaped(&mut out, bytes, most).expect("a string takes all");
            assert_eq!(out, expected);
        }
    }
}
