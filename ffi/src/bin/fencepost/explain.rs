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
use fencepost_core::slab::SlotState;
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
pub fn heaps(target: &Target) -> Result<Vec<Image<'_, Target>>, Failure> {
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
pub fn describe(address: usize, found: &Found, heap: &Image<'_, Target>, target: &Target) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match found {
        Found::Nothing => Ok(()),
        Found::Guarded(None) => {
            writeln!(out, "0x{address:012x} lies in the page allocator, near no object that is remembered")
        }
        Found::Guarded(Some(object)) => {
            relation(&mut out, address, object);
            let pages = if object.freed { "its pages are inaccessible" } else { "it has pages of its own" };
            writeln!(out, "state: {} (page allocator: {pages})", state(object))
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
                    let what = match known {
                        Some(SlotState::POISONED) => "with an object of which the program poisoned bytes",
                        _ => "without an object",
                    };
                    let _ = writeln!(out, "0x{address:012x} is located {into} bytes into a slot {what}");
                }
            }
            let state = match (object, known) {
                (Some(object), _) => state(object),
                (None, Some(SlotState::POISONED)) => "live",
                (None, Some(_)) => "never used, or given back",
                (None, None) => "not in the core file",
            };
            writeln!(out, "state: {state} (slab allocator: slot of {size} bytes at 0x{:012x})", start.get())
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
    use std::fs;
    use std::time::{Duration, Instant};

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

    /// A core file of one module with an anchor in its data: a header, three segments, the note of files, the data.
    struct Core {
        bytes: Vec<u8>,
    }

    const DATA: u64 = 0x10_0000;
    const NOTE: usize = 64 + 3 * 56;

    impl Core {
        fn new() -> Self {
            let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
            bytes.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend([0_u16, 0, 64, 56, 3, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
            let names = b"/tmp/module\0/tmp/module\0";
            let files = [2, 4096, DATA - 4096, DATA, 0, DATA, DATA + 8192, 1];
            let note_bytes = (20 + 8 * files.len() + names.len()).next_multiple_of(4);
            let data = (NOTE + note_bytes).next_multiple_of(64);
            let segments = [
                [4 | 4 << 32, NOTE as u64, 0, 0, note_bytes as u64, 0, 4],
                [1 | 5 << 32, 0, DATA - 4096, 0, 0, 4096, 4096],
                [1 | 6 << 32, data as u64, DATA, 0, 8192, 8192, 4096],
            ];
            bytes.extend(segments.iter().flatten().flat_map(|word: &u64| word.to_le_bytes()));
            let head = [5_u32, (8 * files.len() + names.len()) as u32, 0x4649_4c45];
            bytes.extend(head.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(b"CORE\0\0\0\0");
            bytes.extend(files.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(names);
            bytes.resize(data, 0);
            bytes.extend(image::MAGIC);
            // Its version and address; where everything else lies is in the same page.
            bytes.extend([image::VERSION, DATA].iter().flat_map(|word| word.to_le_bytes()));
            let rest =
                [1 << 40, 1 << 30, DATA, DATA, DATA + 512, 100, 1 << 41, 1 << 30, 20, DATA, 9, DATA, 99];
            bytes.extend(rest.iter().flat_map(|word: &u64| word.to_le_bytes()));
            bytes.resize(data + 8192, 1);
            Self { bytes }
        }

        /// What `explain` makes of it, and how long that took.
        fn explained(&self, path: &Path, address: usize) -> (Result<usize, String>, Duration) {
            fs::write(path, &self.bytes).unwrap();
            let begin = Instant::now();
            let result = Target::open(path).and_then(|target| {
                let heaps = heaps(&target)?;
                for heap in &heaps {
                    let found = heap.find(Addr::new(address));
                    let (text, _) =
                        rewrite(&describe(address, &found, heap, &target), &mut Symbols::default());
                    assert!(!text.chars().any(|next| next.is_control() && next != '\n'), "{text:?}");
                }
                Ok(heaps.len())
            });
            (result.map_err(|failure| failure.message), begin.elapsed())
        }

        fn put(&mut self, at: usize, word: u64) {
            let place = self.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
            *place.unwrap() = word.to_le_bytes();
        }
    }

    fn core_path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("fencepost-core-{name}-{}", std::process::id()))
    }

    /// The end of a mapping before its start, segments and mappings without end: nothing that is searched is longer
    /// than what the file holds.
    #[test]
    fn ranges_that_make_no_sense_are_not_searched() {
        let path = core_path("ranges");
        let mut core = Core::new();
        assert_eq!(core.explained(&path, 1 << 40).0, Ok(1));
        // The words of the second mapping in the note, and of the data's segment.
        let (mapping, segment) = (NOTE + 20 + 8 * 5, 64 + 2 * 56);
        for (at, word) in [
            (mapping, u64::MAX),
            (mapping + 8, 0),
            (mapping + 8, DATA - 1),
            (mapping + 8, u64::MAX),
            (segment + 32, u64::MAX),
            (segment + 32, 1 << 62),
            (segment + 8, u64::MAX - 8),
            (segment + 16, u64::MAX),
            (NOTE + 20, u64::MAX),
            (NOTE + 28, u64::MAX),
            (NOTE + 4, u64::MAX),
            (64 + 32, u64::MAX),
        ] {
            let known = core.bytes.clone();
            core.put(at, word);
            let (_, time) = core.explained(&path, 1 << 40);
            assert!(time < Duration::from_secs(20), "{at} {word:x}: {time:?}");
            core.bytes = known;
        }
        let _ = fs::remove_file(path);
    }

    /// Whatever is in the file, there is an answer, soon.
    #[test]
    fn damage_anywhere_is_survived() {
        let path = core_path("damage");
        let whole = Core::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let begin = Instant::now();
        for round in 0..3000 {
            let mut core = Core { bytes: whole.bytes.clone() };
            for _ in 0..=random() % 4 {
                let at = usize::try_from(random()).unwrap() % (NOTE + 512) / 4 * 4;
                let word = match random() % 5 {
                    0 => u64::MAX,
                    1 => 1 << (random() % 64),
                    2 => random() >> (random() % 64),
                    3 => DATA + random() % 8192,
                    _ => 0,
                };
                core.put(at, word);
            }
            if random() % 16 == 0 {
                core.bytes.truncate(usize::try_from(random()).unwrap() % core.bytes.len());
            }
            let address = [1 << 40, (1 << 41) + 8, 8, usize::MAX, DATA as usize][round % 5];
            let _ = core.explained(&path, address);
        }
        assert!(begin.elapsed() < Duration::from_secs(300), "{:?}", begin.elapsed());
        let _ = fs::remove_file(path);
    }

    /// Names in a core file are whatever its maker wrote.
    #[test]
    fn names_of_modules_stay_in_their_lines() {
        let path = core_path("names");
        let mut core = Core::new();
        let at = NOTE + 20 + 64;
        core.bytes[at..at + 11].copy_from_slice(b"/a\n==1==\x1b[K");
        core.bytes[at + 12..at + 23].copy_from_slice(b"/a\n==1==\x1b[K");
        fs::write(&path, &core.bytes).unwrap();
        let target = Target::open(&path).unwrap_or_else(|failure| panic!("{}", failure.message));
        assert_eq!(target.place(DATA + 1).unwrap().module, "/a\\x0a==1==\\x1b[K");
        let _ = fs::remove_file(path);
    }
}
