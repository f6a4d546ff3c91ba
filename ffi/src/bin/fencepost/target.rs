//! The memory and the modules of a process: a live one, or one that left a core file.
//!
//! A core file may be cut, damaged or made by somebody, and so may a process's memory: every range is checked where it is
//! read, and what is searched or kept is bounded.

use crate::failure::Failure;
use crate::printable::printable;
use crate::symbols::Location;
use fencepost_core::addr::Addr;
use fencepost_core::heap::image::Memory;
use fencepost_core::report::elf::Image;
use object::read::ReadCache;
use object::read::elf::ProgramHeader;
use object::{Object, ObjectKind, ObjectSegment, SegmentFlags};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `PF_W` of elf.h.
const WRITABLE: u32 = 2;
/// The note of a core file that lists what files are mapped where.
const NT_FILE: u32 = 0x4649_4c45;
/// Bytes of notes that are read, and mappings that are kept of them.
const MOST_NOTES: u64 = 64 << 20;
const MOST_MAPPINGS: usize = 1 << 20;
/// Bytes of one module's data that are searched, and of all modules' together.
const MOST_DATA: u64 = 256 << 20;
const MOST_SEARCHED: u64 = 2 << 30;

/// A process to look into.
pub struct Target {
    memory: Source,
    mappings: Vec<Mapping>,
}

enum Source {
    Live(File),
    /// The segments in the order of their addresses.
    Core {
        file: File,
        segments: Vec<Segment>,
    },
}

/// A part of memory that a core file holds.
#[derive(Clone, Copy)]
struct Segment {
    start: u64,
    bytes: u64,
    offset: u64,
    writable: bool,
}

/// A mapped part of a file, of at least a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    file_offset: u64,
    writable: bool,
    /// As [`printable`] shows it; empty for memory of no file.
    path: String,
}

impl Target {
    /// The process or core file that `name` names: a number is a process unless a file is called so.
    pub fn open(name: &Path) -> Result<Self, Failure> {
        let process = name.to_str().and_then(|name| name.parse::<u32>().ok());
        match process.filter(|_| !name.exists()) {
            Some(process) => Self::live(process),
            None => Self::core(name),
        }
    }

    fn live(process: u32) -> Result<Self, Failure> {
        let trouble = |error| Failure::new(format!("cannot look into process {process}: {error}"));
        let maps = fs::read(format!("/proc/{process}/maps")).map_err(trouble)?;
        let memory = File::open(format!("/proc/{process}/mem")).map_err(trouble)?;
        Ok(Self { memory: Source::Live(memory), mappings: mappings(&maps) })
    }

    /// A process of which nothing but its table of mappings can be read.
    #[cfg(test)]
    pub fn of_maps(maps: &[u8]) -> Self {
        let file = File::open("/dev/null").expect("it is there");
        Self { memory: Source::Core { file, segments: Vec::new() }, mappings: mappings(maps) }
    }

    fn core(path: &Path) -> Result<Self, Failure> {
        let trouble = |problem: &dyn std::fmt::Display| {
            Failure::new(format!("cannot read {}: {problem}", path.display()))
        };
        let kind = fs::metadata(path).map_err(|error| trouble(&error))?;
        if !kind.is_file() {
            return Err(trouble(&"it is no core file"));
        }
        let file = File::open(path).map_err(|error| trouble(&error))?;
        let cache = ReadCache::new(file.try_clone().map_err(|error| trouble(&error))?);
        let core = object::read::elf::ElfFile64::<object::LittleEndian, _>::parse(&cache)
            .map_err(|error| trouble(&error))?;
        if core.kind() != ObjectKind::Core {
            return Err(trouble(&"it is no core file"));
        }
        let mut segments: Vec<Segment> = core
            .segments()
            .map(|segment| {
                let (offset, bytes) = segment.file_range();
                let writable = match segment.flags() {
                    SegmentFlags::Elf { p_flags } => p_flags & WRITABLE != 0,
                    _ => false,
                };
                // What the file does not have is in no segment.
                let bytes = bytes.min(kind.len().saturating_sub(offset));
                Segment { start: segment.address(), bytes, offset, writable }
            })
            .collect();
        segments.sort_by_key(|segment| segment.start);
        let mut mappings = Vec::new();
        let mut left = MOST_NOTES;
        for header in core.elf_program_headers() {
            let bytes = header.p_filesz(core.endian());
            if bytes > left {
                continue;
            }
            let Ok(Some(mut notes)) = header.notes(core.endian(), core.data()) else { continue };
            left -= bytes;
            while let Ok(Some(note)) = notes.next() {
                if note.n_type(core.endian()) == NT_FILE {
                    mappings.extend(files(note.desc()).take(MOST_MAPPINGS - mappings.len()));
                }
            }
        }
        for mapping in &mut mappings {
            let at = segments.binary_search_by_key(&mapping.start, |segment| segment.start);
            mapping.writable =
                at.is_ok_and(|index| segments.get(index).is_some_and(|segment| segment.writable));
        }
        Ok(Self { memory: Source::Core { file, segments }, mappings })
    }

    /// Writable parts of modules, as address and length, as far as there is memory of them.
    pub fn data(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let writable = self.mappings.iter().filter(|mapping| mapping.writable && !mapping.path.is_empty());
        let mut left = MOST_SEARCHED;
        writable.map_while(move |mapping| {
            let known = match &self.memory {
                Source::Live(_) => u64::MAX,
                Source::Core { segments, .. } => holding(segments, mapping.start)
                    .map_or(0, |segment| segment.bytes - (mapping.start - segment.start)),
            };
            let bytes = (mapping.end - mapping.start).min(known).min(MOST_DATA);
            // A look costs something even where nothing is found.
            left = left.checked_sub(bytes.max(4096))?;
            Some((usize::try_from(mapping.start).ok()?, usize::try_from(bytes).ok()?))
        })
    }

    /// The place of `pc` in its module, with the build id that the module has in memory.
    pub fn place(&self, pc: u64) -> Option<Location> {
        let index = self.mappings.iter().position(|mapping| (mapping.start..mapping.end).contains(&pc))?;
        let path = &self.mappings.get(index)?.path;
        if path.is_empty() {
            return None;
        }
        let mut module = self.mappings.get(..=index)?.iter().rev().filter(|mapping| mapping.path == *path);
        let first = module.find(|mapping| mapping.file_offset == 0 && mapping.start <= pc);
        let base = first.map_or(pc, |mapping| mapping.start);
        let last = self.mappings.iter().rfind(|mapping| mapping.path == *path && mapping.start >= base);
        let read = |address: Addr, buffer: &mut [u8]| {
            if self.read(address.get(), buffer) { buffer.len() } else { 0 }
        };
        let ends = (usize::try_from(base).ok()?, usize::try_from(last?.end).ok()?);
        let build_id = Image::open(&read, ends.0, ends.1).and_then(|image| image.build_id());
        let hex = |byte: &u8| format!("{byte:02x}");
        Some(Location {
            module: path.clone(),
            offset: pc - base,
            build_id: build_id.map(|id| id.as_bytes().iter().map(hex).collect()),
        })
    }
}

impl Memory for Target {
    fn read(&self, address: usize, buffer: &mut [u8]) -> bool {
        let address = address as u64;
        match &self.memory {
            Source::Live(memory) => memory.read_exact_at(buffer, address).is_ok(),
            Source::Core { file, segments } => holding(segments, address).is_some_and(|segment| {
                let into = address - segment.start;
                let held = (buffer.len() as u64) <= segment.bytes - into;
                let at = segment.offset.checked_add(into);
                held && at.is_some_and(|at| file.read_exact_at(buffer, at).is_ok())
            }),
        }
    }
}

/// The segment that holds an address.
fn holding(segments: &[Segment], address: u64) -> Option<&Segment> {
    let after = segments.partition_point(|segment| segment.start <= address);
    let segment = segments.get(after.checked_sub(1)?)?;
    (address - segment.start < segment.bytes).then_some(segment)
}

/// The lines of `/proc/PID/maps` that can be read.
fn mappings(maps: &[u8]) -> Vec<Mapping> {
    maps.split(|byte| *byte == b'\n').filter_map(Mapping::parse).collect()
}

impl Mapping {
    /// A line of `/proc/PID/maps`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut field = || fields.next();
        let (range, rights, file_offset) = (field()?, field()?, field()?);
        let path = fields.nth(2).unwrap_or_default().trim_ascii_start();
        let (start, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        let file_offset = hex(std::str::from_utf8(file_offset).ok()?)?;
        let path = if path.starts_with(b"/") { printable(path) } else { String::new() };
        (start < end).then_some(Self {
            start,
            end,
            file_offset,
            writable: rights.get(1) == Some(&b'w'),
            path,
        })
    }
}

/// The mapped files that a core file's note lists: a count, the page size, three words for each, and
/// then the names. Those that make no sense are left out.
fn files(note: &[u8]) -> impl Iterator<Item = Mapping> + '_ {
    let word = |index: usize| {
        let bytes = note.get(index.checked_mul(8)?..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let (count, page) = word(0).zip(word(1)).unwrap_or((0, 0));
    let count = usize::try_from(count).unwrap_or(0).min(note.len() / 24);
    let names = note.get(16 + 24 * count..).unwrap_or_default().split(|byte| *byte == 0);
    let mappings = names.zip(0..count).map(move |(name, index)| {
        let at = 2 + 3 * index;
        let (start, end) = (word(at)?, word(at + 1)?);
        let file_offset = word(at + 2)?.checked_mul(page)?;
        let path = printable(name);
        (start < end).then_some(Mapping { start, end, file_offset, writable: false, path })
    });
    mappings.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let line = b"7f00-8000 rw-p 00001000 08:01 77    /lib/a b.so (deleted)";
        let path = "/lib/a b.so (deleted)".to_owned();
        let expected = Mapping { start: 0x7f00, end: 0x8000, file_offset: 0x1000, writable: true, path };
        assert_eq!(Mapping::parse(line), Some(expected));
        assert_eq!(Mapping::parse(b"7f00-8000 r--p 0 00:00 0 [heap]").unwrap().path, "");
        for wrong in
            [&b"nonsense"[..], b"8000-7f00 rw-p 0 00:00 0 /a", b"8000-8000 rw-p 0 00:00 0 /a", b"8000"]
        {
            assert_eq!(Mapping::parse(wrong), None);
        }
        let odd = Mapping::parse(b"7f00-8000 r--p 0 00:00 0 /a\x1b\xff").unwrap();
        assert_eq!(odd.path, "/a\\x1b\\xff");
    }

    #[test]
    fn the_note_of_files_is_read() {
        let words = [2_u64, 4096, 0x1000, 0x3000, 0, 0x3000, 0x4000, 2];
        let mut note: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        note.extend(b"/bin/a\0/bin/a\0");
        let files = |note: &[u8]| files(note).collect::<Vec<_>>();
        let read = files(&note);
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].start, read[1].file_offset, read[1].path.as_str()), (0x3000, 8192, "/bin/a"));
        for len in 0..note.len() {
            files(&note[..len]);
        }
        files(&[0xff; 64]);
    }

    #[test]
    fn this_process_is_a_target() {
        let target = Target::open(Path::new(&std::process::id().to_string())).unwrap();
        let pc = holding as fn(&[Segment], u64) -> Option<&Segment> as usize as u64;
        let place = target.place(pc).unwrap();
        assert_eq!(Path::new(&place.module), std::env::current_exe().unwrap());
        assert!(place.build_id.is_some());
        let bytes = *b"read me";
        let mut copy = [0; 7];
        assert!(target.read(bytes.as_ptr() as usize, &mut copy) && copy == bytes);
        assert!(!target.read(8, &mut copy));
        assert!(Target::open(Path::new("/bin/sh")).is_err(), "no core file");
        assert!(Target::open(Path::new("/nonexistent")).is_err());
    }
}
