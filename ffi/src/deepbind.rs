//! Which libraries may be opened with `RTLD_DEEPBIND`.
//!
//! With the flag a library, and the libraries that it brings, look for names in their own libraries before the
//! program's. One that allocates would bind the C library's allocator instead of this one, and free our objects with
//! it. The purpose of the flag is another: a plugin calls its own functions where the program has some of the same
//! names. So the flag is kept where it does no harm: if no file that this opening would load refers to a function that
//! this library defines, or to `dlsym`, which could find one.
//!
//! The files are read before the loader reads them, and nothing is kept open or mapped. If anything is uncertain the
//! answer is no, and the library is opened as if the flag had not been given.
//!
//! | what | taken as |
//! |---|---|
//! | a name without a slash, or with `$` | no: the search for it depends on the caller |
//! | a file that cannot be read, is for another machine, or has inconsistent tables | no |
//! | a needed library that is loaded | it is bound already, and stays as it is |
//! | a needed library that is not loaded | looked for where the library that needs it says (`RUNPATH`, `RPATH`), and inspected in turn; else no |
//! | filters, more than [`DEEPEST`] libraries in a row, [`MOST_FILES`] in all | no |

use crate::modules;
use core::ffi::CStr;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};
use fencepost_core::sys::errno::ErrnoGuard;
use fencepost_core::sys::{auxv, file};
use fencepost_core::text::Text;
use libc::{Elf64_Ehdr, Elf64_Phdr};

/// Libraries that bring each other, one below the other.
const DEEPEST: usize = 4;
/// Libraries looked at for one opening.
const MOST_FILES: usize = 16;
const MOST_HEADERS: usize = 32;
const MOST_NEEDED: usize = 48;
const MOST_SYMBOLS: u64 = 1 << 17;
/// A path, or a list of them; longer ones mean no.
const PATH: usize = 512;

macro_rules! c_names {
    ($($family:literal $name:ident($($argument:ident: $type:ty),*) -> $result:ty, $sp:literal, $fp:literal, $work:path;)+) => {
        &[$(stringify!($name).as_bytes()),+]
    };
}

macro_rules! new_names {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $aligned:literal, $calls:ident;)+) => {
        &[$($symbol.as_bytes()),+]
    };
}

macro_rules! delete_names {
    ($($row:literal, $symbol:literal, $name:ident, $origin:ident, $sized:literal, $calls:ident;)+) => {
        &[$($symbol.as_bytes()),+]
    };
}

macro_rules! other_names {
    ($($family:literal $name:ident;)+) => {
        &[$(stringify!($name).as_bytes()),+]
    };
}

/// What this library defines, and what finds definitions by name.
const NAMES: &[&[&[u8]]] = &[
    c_symbols!(c_names),
    glibc_symbols!(c_names),
    new_symbols!(new_names),
    delete_symbols!(delete_names),
    other_symbols!(other_names),
    &[b"dlsym", b"dlvsym"],
];

/// Whether the loader was told of directories that it searches before a library's `RUNPATH`.
static SEARCHES_ELSEWHERE: AtomicBool = AtomicBool::new(true);

/// Reads what the loader read of the environment. At load, before the program changes it.
pub fn look_at_environment() {
    let path = auxv::variable(b"LD_LIBRARY_PATH").unwrap_or_default();
    SEARCHES_ELSEWHERE.store(!path.is_empty(), Ordering::Relaxed);
}

/// Whether the library `name` may be opened with the flag.
pub fn is_harmless(name: &CStr) -> bool {
    let _errno = ErrnoGuard::new();
    let name = name.to_bytes();
    let mut files = MOST_FILES;
    name.contains(&b'/') && !name.contains(&b'$') && brings_nothing(name, DEEPEST, &mut files) == Some(())
}

/// `Some` if neither the file at `path` nor what it brings refers to a function of this library's.
#[inline(never)]
fn brings_nothing(path: &[u8], deepest: usize, files: &mut usize) -> Option<()> {
    *files = files.checked_sub(1)?;
    let deepest = deepest.checked_sub(1)?;
    let image = Image::open(path)?;
    let dynamic = image.dynamic()?;
    image.refers_to_nothing(&dynamic)?;
    for needed in dynamic.needed.get(..dynamic.needed_count)? {
        let mut buffer = [0; PATH];
        let name = image.string(&dynamic, *needed, &mut buffer)?;
        if is_loaded(name) {
            continue;
        }
        if name.contains(&b'$') {
            return None;
        }
        let mut place = Text::<PATH>::new();
        match name.contains(&b'/') {
            true => put(&mut place, name)?,
            false => image.find(&dynamic, path, name, &mut place)?,
        }
        brings_nothing(place.as_bytes(), deepest, files)?;
    }
    Some(())
}

/// Appends `bytes` if they fit.
fn put(text: &mut Text<PATH>, bytes: &[u8]) -> Option<()> {
    text.push_bytes(bytes);
    (!text.truncated()).then_some(())
}

/// Whether the loader takes a library that it has for the needed one of this name.
fn is_loaded(name: &[u8]) -> bool {
    let mut loaded = false;
    modules::each(|module| {
        loaded = module.is_called(name);
        if loaded { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    loaded
}

/// What the dynamic section of a file says.
struct Dynamic {
    strings: u64,
    strings_size: u64,
    symbols: u64,
    needed: [u64; MOST_NEEDED],
    needed_count: usize,
    run_path: Option<u64>,
    old_path: Option<u64>,
}

/// An ELF file that is open, and where its addresses lie in it.
struct Image {
    fd: i32,
    headers: [Segment; MOST_HEADERS],
    count: usize,
}

#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Drop for Image {
    fn drop(&mut self) {
        file::close(self.fd);
    }
}

impl Image {
    fn open(path: &[u8]) -> Option<Self> {
        const ET_DYN: u16 = 3;
        const EM_X86_64: u16 = 62;
        let mut name = Text::<PATH>::new();
        put(&mut name, path)?;
        put(&mut name, &[0])?;
        let fd = file::open_to_look(name.as_bytes())?;
        let none = Segment { kind: 0, offset: 0, address: 0, size: 0 };
        let mut image = Self { fd, headers: [none; MOST_HEADERS], count: 0 };
        let mut start = [0; size_of::<Elf64_Ehdr>()];
        image.read(0, &mut start)?;
        let is_ours = start.starts_with(b"\x7fELF\x02\x01\x01")
            && half(&start, 16)? == ET_DYN
            && half(&start, 18)? == EM_X86_64
            && usize::from(half(&start, 54)?) == size_of::<Elf64_Phdr>();
        let (table, count) = (word(&start, 32)?, usize::from(half(&start, 56)?));
        if !is_ours || count > MOST_HEADERS {
            return None;
        }
        image.count = count;
        let mut at = table;
        for index in 0..count {
            let mut header = [0; size_of::<Elf64_Phdr>()];
            image.read(at, &mut header)?;
            let kind = u32::try_from(word(&header, 0)? & u64::from(u32::MAX)).ok()?;
            *image.headers.get_mut(index)? = Segment {
                kind,
                offset: word(&header, 8)?,
                address: word(&header, 16)?,
                size: word(&header, 32)?,
            };
            at = at.checked_add(header.len() as u64)?;
        }
        Some(image)
    }

    /// Fills `buffer` from a place of the file.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        (self.read_some(offset, buffer)? == buffer.len()).then_some(())
    }

    /// Reads what the file has from a place on, up to the buffer's length.
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        file::read_at(self.fd, usize::try_from(offset).ok()?, buffer)
    }

    /// Where in the file an address lies.
    fn place(&self, address: u64) -> Option<u64> {
        let segments = self.headers.get(..self.count)?.iter();
        let mut loaded = segments.filter(|segment| segment.kind == libc::PT_LOAD);
        let segment = loaded.find(|segment| address.wrapping_sub(segment.address) < segment.size)?;
        segment.offset.checked_add(address.wrapping_sub(segment.address))
    }

    fn dynamic(&self) -> Option<Dynamic> {
        const NEEDED: u64 = 1;
        const STRTAB: u64 = 5;
        const SYMTAB: u64 = 6;
        const STRSZ: u64 = 10;
        const RPATH: u64 = 15;
        const RUNPATH: u64 = 29;
        const AUXILIARY: u64 = 0x7fff_fffd;
        const FILTER: u64 = 0x7fff_ffff;
        let mut found = Dynamic {
            strings: 0,
            strings_size: 0,
            symbols: 0,
            needed: [0; MOST_NEEDED],
            needed_count: 0,
            run_path: None,
            old_path: None,
        };
        let section =
            self.headers.get(..self.count)?.iter().find(|segment| segment.kind == libc::PT_DYNAMIC)?;
        let (mut at, end) = (section.offset, section.offset.checked_add(section.size)?);
        while at < end {
            let mut entry = [0; 16];
            self.read(at, &mut entry)?;
            let value = word(&entry, 8)?;
            match word(&entry, 0)? {
                0 => break,
                NEEDED => {
                    *found.needed.get_mut(found.needed_count)? = value;
                    found.needed_count = found.needed_count.checked_add(1)?;
                }
                STRTAB => found.strings = value,
                SYMTAB => found.symbols = value,
                STRSZ => found.strings_size = value,
                RPATH => found.old_path = Some(value),
                RUNPATH => found.run_path = Some(value),
                AUXILIARY | FILTER => return None,
                _ => {}
            }
            at = at.checked_add(entry.len() as u64)?;
        }
        (found.strings != 0 && found.symbols != 0).then_some(found)
    }

    /// A string of the file's, which has to end within the buffer.
    fn string<'a>(&self, dynamic: &Dynamic, at: u64, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let rest = dynamic.strings_size.checked_sub(at)?;
        let place = self.place(dynamic.strings)?.checked_add(at)?;
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.read_some(place, buffer.get_mut(..length)?)?;
        let read = buffer.get(..count)?;
        read.get(..read.iter().position(|byte| *byte == 0)?)
    }

    /// `Some` if no symbol that the file leaves to others is one of [`NAMES`]. The table of symbols has no length of its
    /// own: linkers put its names behind it. What may lie between is no symbol, and can only be mistaken for one that
    /// means no.
    fn refers_to_nothing(&self, dynamic: &Dynamic) -> Option<()> {
        const ENTRY: usize = size_of::<libc::Elf64_Sym>();
        const BLOCK: usize = 32;
        let count = dynamic.strings.checked_sub(dynamic.symbols)? / ENTRY as u64;
        if count == 0 || count > MOST_SYMBOLS {
            return None;
        }
        let mut at = self.place(dynamic.symbols)?;
        let mut rest = usize::try_from(count).ok()?;
        while rest > 0 {
            let mut block = [0; ENTRY * BLOCK];
            let read = block.get_mut(..rest.min(BLOCK).checked_mul(ENTRY)?)?;
            self.read(at, read)?;
            at = at.checked_add(read.len() as u64)?;
            rest = rest.saturating_sub(BLOCK);
            for symbol in read.as_chunks::<ENTRY>().0 {
                let name = word(symbol, 0)? & u64::from(u32::MAX);
                let is_defined = half(symbol, 6)? != 0;
                if name != 0 && !is_defined && self.is_named(dynamic, name) {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Whether the name at this place of the names is one of [`NAMES`]. One that does not end in the buffer is longer
    /// than any of them, and one beyond the end is none.
    fn is_named(&self, dynamic: &Dynamic, at: u64) -> bool {
        let mut buffer = [0; 64];
        let name = self.string(dynamic, at, &mut buffer);
        name.is_some_and(|name| NAMES.iter().copied().flatten().any(|ours| *ours == name))
    }

    /// Finds a needed library as the loader does, as far as the file that needs it says where: the first of its
    /// directories that has it. `path` is that file's own, `place` where the path found is put.
    fn find(&self, dynamic: &Dynamic, path: &[u8], name: &[u8], place: &mut Text<PATH>) -> Option<()> {
        let list = match (dynamic.run_path, dynamic.old_path) {
            (Some(list), _) if !SEARCHES_ELSEWHERE.load(Ordering::Relaxed) => list,
            (None, Some(list)) => list,
            _ => return None,
        };
        let slash = path.iter().rposition(|byte| *byte == b'/')?;
        let origin = path.get(..slash.max(1))?;
        let mut buffer = [0; PATH];
        for directory in self.string(dynamic, list, &mut buffer)?.split(|byte| *byte == b':') {
            let mut start = Text::<PATH>::new();
            let below = directory.strip_prefix(b"$ORIGIN").or_else(|| directory.strip_prefix(b"${ORIGIN}"));
            if let Some(below) = below {
                put(&mut start, origin)?;
                put(&mut start, below)?;
            } else if directory.starts_with(b"/") {
                put(&mut start, directory)?;
            }
            // Relative ones, and what else the loader would put in for a word.
            if start.as_bytes().is_empty() || start.as_bytes().contains(&b'$') {
                return None;
            }
            // The loader looks into these first, by what the processor can do.
            for special in [&b"glibc-hwcaps"[..], b"tls", b"haswell", b"xeon_phi", b"avx512_1", b"x86_64"] {
                if exists(start.as_bytes(), special)? {
                    return None;
                }
            }
            if exists(start.as_bytes(), name)? {
                put(place, start.as_bytes())?;
                put(place, b"/")?;
                return put(place, name);
            }
        }
        None
    }
}

/// Whether a directory has a file of this name; `None` if the two are too long together.
fn exists(directory: &[u8], name: &[u8]) -> Option<bool> {
    let mut path = Text::<PATH>::new();
    put(&mut path, directory)?;
    put(&mut path, b"/")?;
    put(&mut path, name)?;
    put(&mut path, &[0])?;
    Some(file::exists(path.as_bytes()))
}

/// The half word at a place of some bytes.
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

/// The word at a place of some bytes.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
