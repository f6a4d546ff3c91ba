//! `fencepost explain`: which object an address of a live process, or of a core file, belongs or belonged
//! to, where it was allocated and where it was freed.

use crate::colour::{self, When};
use crate::failure::Failure;
use crate::print;
use crate::rewrite::rewrite;
use crate::symbols::Symbols;
use crate::target::Target;
use fencepost_core::addr::Addr;
use fencepost_core::fault::{Event, Object};
use fencepost_core::heap::image::{self, Found, Image, Memory, Refusal};
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Bytes of a module's data that are searched at once, a multiple of an anchor's alignment.
const BLOCK: usize = 1 << 16;
/// Heaps that a process may have.
const MOST_HEAPS: usize = 16;
/// Exit status when no heap knows the address.
const UNKNOWN: u8 = 1;

/// Prints what is known of `address`; status 1 if that is nothing.
pub fn explain(target: &Path, address: &str, colour: When) -> Result<ExitCode, Failure> {
    let address = parse(address)
        .ok_or_else(|| Failure::new(format!("'{address}' is no address (hexadecimal, as in a report)")))?;
    let target = Target::open(target)?;
    let heaps = heaps(&target)?;
    let found = heaps.iter().map(|heap| (heap, heap.find(Addr::new(address))));
    let known = found.clone().find(|(_, found)| !matches!(found, Found::Nothing));
    let Some((heap, found)) = known else {
        print(&format!("0x{address:012x} is not an address of fencepost's heap\n"))?;
        return Ok(ExitCode::from(UNKNOWN));
    };
    let raw = describe(address, &found, heap, &target);
    let (text, _) = rewrite(&raw, &mut Symbols::default());
    print(&if colour.applies(&io::stdout()) { colour::paint(&text) } else { text })?;
    let object = match found {
        Found::Nothing => None,
        Found::Guarded(object) | Found::Slot { object, .. } => object,
    };
    Ok(if object.is_some() { ExitCode::SUCCESS } else { ExitCode::from(UNKNOWN) })
}

fn parse(address: &str) -> Option<usize> {
    let digits = address.strip_prefix("0x").or(address.strip_prefix("0X")).unwrap_or(address);
    usize::from_str_radix(digits, 16).ok()
}

/// The heaps of a process: several if the program has one of its own under the preloaded library.
fn heaps(target: &Target) -> Result<Vec<Image<'_, Target>>, Failure> {
    let mut heaps = Vec::new();
    let mut refused = None;
    for (start, bytes) in target.data() {
        for anchor in anchors(target, start, bytes) {
            match Image::open(target, anchor) {
                Ok(_) if heaps.len() == MOST_HEAPS => return Ok(heaps),
                Ok(heap) => heaps.push(heap),
                Err(Refusal::Version(version)) => refused = Some(version),
                Err(Refusal::None | Refusal::Unused) => {}
            }
        }
    }
    match (heaps.is_empty(), refused) {
        (false, _) => Ok(heaps),
        (true, Some(version)) => Err(Failure::new(format!(
            "its heap is of layout version {version}, and this program knows version {}",
            image::VERSION
        ))),
        (true, None) => Err(Failure::new("it has no heap of fencepost's, or has not used it")),
    }
}

/// Where in a stretch of memory an anchor may be.
fn anchors(target: &Target, start: usize, bytes: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut block = vec![0; BLOCK];
    for offset in (0..bytes).step_by(BLOCK) {
        let (Some(part), Some(at)) = (block.get_mut(..BLOCK.min(bytes - offset)), start.checked_add(offset))
        else {
            break;
        };
        if target.read(at, part) {
            let places = part.chunks(image::ALIGN).enumerate();
            let magic = places.filter(|(_, bytes)| bytes.starts_with(&image::MAGIC));
            found.extend(magic.filter_map(|(index, _)| at.checked_add(index * image::ALIGN)));
        }
    }
    found
}

/// The answer as text, with raw frames.
fn describe(address: usize, found: &Found, heap: &Image<'_, Target>, target: &Target) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match found {
        Found::Nothing => Ok(()),
        Found::Guarded(None) => {
            writeln!(out, "0x{address:012x} lies in the page arm, near no object that is remembered")
        }
        Found::Guarded(Some(object)) => {
            relation(&mut out, address, object);
            let pages = if object.freed { "its pages are inaccessible" } else { "it has pages of its own" };
            writeln!(out, "state: {} (page arm: {pages})", state(object))
        }
        Found::Slot { start, size, object, state: known } => {
            match object {
                Some(object) => relation(&mut out, address, object),
                None if known.is_none() => {
                    let into = address.saturating_sub(start.get());
                    let _ = writeln!(out, "0x{address:012x} is located {into} bytes into a slot");
                }
                None => {
                    let into = address.saturating_sub(start.get());
                    let _ = writeln!(
                        out,
                        "0x{address:012x} is located {into} bytes into a slot without an object"
                    );
                }
            }
            let state = match (object, known) {
                (Some(object), _) => state(object),
                (None, Some(_)) => "never used, or given back",
                (None, None) => "not in the core file",
            };
            writeln!(out, "state: {state} (slab arm: slot of {size} bytes at 0x{:012x})", start.get())
        }
    };
    let object = match found {
        Found::Nothing => None,
        Found::Guarded(object) | Found::Slot { object, .. } => *object,
    };
    if let Some(object) = object {
        let name = object.origin.allocator_name();
        event(&mut out, "allocated", &format!(" with {name}"), object.history.allocated, heap, target);
        if object.freed {
            event(&mut out, "freed", "", object.history.freed, heap, target);
        }
    }
    out
}

fn state(object: &Object) -> &'static str {
    if object.freed { "freed" } else { "live" }
}

fn relation(out: &mut String, address: usize, object: &Object) {
    let start = object.start.get();
    let size = object.size.unwrap_or(0);
    let end = object.start.plus(size).get();
    let (distance, place) = if address < start {
        (start - address, "before")
    } else if address < end {
        (address - start, "inside of")
    } else {
        (address - end, "after")
    };
    let freed = if object.freed { ", freed" } else { "" };
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "0x{address:012x} is located {distance} bytes {place} {size}-byte region \
         [0x{start:012x},0x{end:012x}){freed}"
    );
}

fn event(out: &mut String, verb: &str, with: &str, event: Event, heap: &Image<'_, Target>, target: &Target) {
    if event.thread == 0 {
        return;
    }
    // Writing to a string does not fail.
    let _ = writeln!(out, "{verb} by thread T{}{with} here:", event.thread);
    let frames = heap.stack(event.stack);
    if frames.as_slice().is_empty() {
        out.push_str("    (no stack)\n");
    }
    for (index, pc) in frames.as_slice().iter().enumerate() {
        let _ = write!(out, "    #{index} 0x{pc:012x} ");
        let _ = match target.place(*pc as u64) {
            None => writeln!(out, "(unknown)"),
            Some(place) => {
                let _ = write!(out, "({}+0x{:x})", place.module, place.offset);
                match place.build_id {
                    Some(id) => writeln!(out, " (BuildId: {id})"),
                    None => writeln!(out),
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hexadecimal() {
        assert_eq!(parse("0x7f10"), Some(0x7f10));
        assert_eq!(parse("7f10"), Some(0x7f10));
        assert_eq!(parse("here"), None);
    }

    #[test]
    fn a_process_without_the_library_has_no_heap() {
        let own = std::process::id().to_string();
        // This test program has the crate linked in and does not use its heap.
        let failure = explain(Path::new(&own), "0x1000", When::Never).unwrap_err();
        assert!(failure.message.contains("no heap"), "{}", failure.message);
    }
}
