//! Which file an address was mapped from, read from /proc/self/maps without allocating, and what that
//! file says of itself where it is mapped.

use super::elf::{BuildId, Image, Symbol};
use crate::addr::Addr;
use crate::options::{Options, Shown};
use crate::sys::{auxv, file, vm};
use crate::trace::depot::{Frames, MAX_FRAMES};

/// The start code of a program is not longer.
const ENTRY_BYTES: usize = 64;
/// Frames of the C library below `main` or below a thread's first function.
const START_FRAMES: usize = 2;

/// A place in a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The file's path.
    pub path: &'a [u8],
    /// Bytes from where the file's first mapping starts.
    pub offset: usize,
    /// Where that is.
    base: usize,
    /// One past the last mapping that follows it without another file's between.
    end: usize,
}

impl Location<'_> {
    fn image(&self) -> Option<Image<'static>> {
        Image::open(&vm::peek, self.base, self.end)
    }

    /// The build id of the module.
    pub fn build_id(&self) -> Option<BuildId> {
        self.image()?.build_id()
    }

    /// The dynamic symbol of the function that the place lies in; for a return address, that its call
    /// lies in.
    pub fn symbol(&self, is_return: bool) -> Option<Symbol> {
        let address = self.base.checked_add(self.offset)?;
        let into = usize::from(is_return);
        let mut symbol = self.image()?.symbol(address.checked_sub(into)?)?;
        symbol.into = symbol.into.saturating_add(into);
        Some(symbol)
    }

    /// The symbol whose address the loader puts at `slot`, a word of the module's.
    pub fn import(&self, slot: usize) -> Option<Symbol> {
        self.image()?.import(slot)
    }
}

/// The process's mappings, as text.
pub struct Modules<'a> {
    text: &'a [u8],
    /// Stacks of so many frames may go on outwards; 0: all frames of a stack are shown.
    cut_at: usize,
}

impl<'a> Modules<'a> {
    /// Reads the mappings into `buffer`; what does not fit is not known.
    pub fn read(buffer: &'a mut [u8]) -> Self {
        Self::of(file::read(b"/proc/self/maps\0", buffer).unwrap_or(&[]))
    }

    /// The mappings that `text` lists. A last line without an end may be cut, and is none.
    pub fn of(text: &'a [u8]) -> Self {
        let whole = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        Self { text: text.get(..whole).unwrap_or(&[]), cut_at: 0 }
    }

    /// These, for reports with these options.
    #[must_use]
    pub fn with(self, options: &Options) -> Self {
        let cut_at = match options.frames {
            Shown::All => 0,
            Shown::Program => usize::try_from(options.backtrace).unwrap_or(MAX_FRAMES).clamp(1, MAX_FRAMES),
        };
        Self { cut_at, ..self }
    }

    /// The frames of a stack that are shown: without those of the start code that called `main` or a thread's first
    /// function. They are the outermost in the C library, after the program's entry if that is there. One is always left.
    pub fn shown<'f>(&self, frames: &'f Frames) -> &'f [usize] {
        let all = frames.as_slice();
        let module = |pc: usize| self.locate(Addr::new(pc)).map(|place| place.base);
        let (library, entry) = (module(libc::__errno_location as *const () as usize), auxv::entry());
        let begun = all.last().is_some_and(|pc| (entry..entry + ENTRY_BYTES).contains(pc));
        // A program that has the C library in it is not told apart from that.
        if self.cut_at == 0 || !begun && all.len() >= self.cut_at || library == module(entry) {
            return all;
        }
        let called = all.len() - usize::from(begun);
        let outer = all.iter().take(called).rev().take(START_FRAMES);
        let start = outer.take_while(|pc| module(**pc) == library).count();
        let left = if start == 0 { all.len() } else { (called - start).max(1) };
        all.get(..left).unwrap_or(all)
    }

    /// The frame that a report is about, by its number, and its program counter: the innermost that is not of the C or C++
    /// library or the loader; the innermost if all are.
    pub fn blamed(&self, frames: &Frames) -> Option<(usize, usize)> {
        let shown = self.shown(frames);
        let own = |pc: &usize| self.locate(Addr::new(*pc)).is_none_or(|place| !is_runtime(place.path));
        let index = shown.iter().position(own).unwrap_or(0);
        shown.get(index).map(|pc| (index, *pc))
    }

    /// Whether a program counter lies in the C library or in this library, which calls it for the program.
    pub fn is_library(&self, pc: usize) -> bool {
        let is_ours = |place: Location<'_>| name_of(place.path).starts_with(b"libfencepost");
        self.is_c_library(pc) || self.locate(Addr::new(pc)).is_some_and(is_ours)
    }

    /// Whether what the innermost frame belongs to was called by the program itself.
    pub fn is_called_outside(&self, frames: &Frames) -> bool {
        frames.as_slice().get(1).is_some_and(|pc| !self.is_library(*pc))
    }

    /// Whether a program counter lies in the C library, where that is a file of its own.
    pub fn is_c_library(&self, pc: usize) -> bool {
        let module = |pc: usize| self.locate(Addr::new(pc)).map(|place| place.base);
        let library = module(libc::__errno_location as *const () as usize);
        library.is_some() && library != module(auxv::entry()) && module(pc) == library
    }

    /// The place of `address` in its file; `None` for memory that is not a file's. A module's mappings
    /// follow each other, memory of no file between them or not; a mapping of the file's start begins
    /// another module, even of the same file.
    pub fn locate(&self, address: Addr) -> Option<Location<'a>> {
        let mut path: &[u8] = &[];
        let mut base = 0;
        let mut found: Option<Location<'a>> = None;
        for line in self.text.split(|byte| *byte == b'\n') {
            let Some(mapping) = Mapping::parse(line) else { continue };
            let named = mapping.path.first().is_some_and(|byte| *byte == b'/' || *byte == b'[');
            let begins = named && (mapping.path != path || mapping.file_offset == 0);
            if begins {
                path = mapping.path;
                base = mapping.start;
            }
            match &mut found {
                Some(_) if begins => break,
                Some(place) if named => place.end = mapping.end,
                Some(_) => {}
                None if (mapping.start..mapping.end).contains(&address.get()) => {
                    if !named {
                        return None;
                    }
                    let offset = address.get().saturating_sub(base);
                    found = Some(Location { path, offset, base, end: mapping.end });
                }
                None => {}
            }
        }
        found
    }
}

/// How the names of files start that hold the C and C++ libraries, the loader, and this library.
const RUNTIME: [&[u8]; 9] = [
    b"libc.so",
    b"libc-",
    b"ld-",
    b"libstdc++",
    b"libc++",
    b"libgcc_s",
    b"libm.so",
    b"libpthread",
    b"libfencepost",
];

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn is_runtime(path: &[u8]) -> bool {
    let name = name_of(path);
    RUNTIME.iter().any(|start| name.starts_with(start))
}

struct Mapping<'a> {
    start: usize,
    end: usize,
    file_offset: usize,
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut range = fields.next()?.splitn(2, |byte| *byte == b'-');
        let hex = |digits: &[u8]| usize::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok();
        let start = hex(range.next()?)?;
        let end = hex(range.next()?)?;
        let file_offset = hex(fields.nth(1)?)?;
        Some(Self { start, end, file_offset, path: fields.nth(2).unwrap_or(&[]).trim_ascii_start() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_files_first_mapping() {
        let text = b"1000-2000 r--p 00000000 08:01 7      /bin/a b\n2000-3000 r-xp 00001000 08:01 7      /bin/a b\n3000-4000 rw-p 00000000 00:00 0 \n4000-5000 rw-p 00003000 08:01 7      /bin/a b\n5000-6000 rw-p 00000000 00:00 0 \n6000-7000 r--p 00000000 08:01 7      /bin/a b\n";
        let modules = Modules::of(text);
        let place = modules.locate(Addr::new(0x2010)).expect("mapped");
        assert_eq!(place, Location { path: b"/bin/a b", offset: 0x1010, base: 0x1000, end: 0x5000 });
        let behind = modules.locate(Addr::new(0x4020)).expect("mapped");
        assert_eq!((behind.offset, behind.base), (0x3020, 0x1000), "past memory of no file");
        let again = modules.locate(Addr::new(0x6010)).expect("mapped");
        assert_eq!((again.offset, again.base), (0x10, 0x6000), "mapped a second time");
        assert_eq!(modules.locate(Addr::new(0x5000)), None);
        assert_eq!(modules.locate(Addr::new(0x9000)), None);
    }

    #[test]
    fn modules_say_who_they_are() {
        let mut buffer = std::vec![0; 1 << 20];
        let modules = Modules::read(&mut buffer);
        let place = modules.locate(Addr::new(libc::getpid as *const () as usize)).expect("the C library");
        assert!(place.build_id().is_some_and(|id| id.as_bytes().len() >= 8));
        let symbol = place.symbol(false).expect("a dynamic symbol");
        assert!(symbol.name().ends_with(b"getpid") && symbol.into == 0, "{:?}", symbol.name());
        let nowhere = Location { path: b"/x", offset: 0, base: 0, end: usize::MAX };
        assert!(nowhere.build_id().is_none() && nowhere.symbol(true).is_none());
    }

    #[test]
    fn a_report_is_about_the_first_frame_outside_the_libraries() {
        let text = b"1000-2000 r-xp 00000000 08:01 7      /lib/libc.so.6\n2000-3000 r-xp 00000000 08:01 8      /usr/lib/libstdc++.so.6\n3000-4000 r-xp 00000000 08:01 9      /usr/lib/libcrypto.so.3\n4000-5000 r-xp 00000000 08:01 9      /bin/a\n";
        let modules = Modules::of(text);
        let blamed = |pcs: &[usize]| {
            let mut frames = Frames::EMPTY;
            pcs.iter().for_each(|pc| frames.push(*pc));
            modules.blamed(&frames)
        };
        assert_eq!(blamed(&[0x1010, 0x2010, 0x3010, 0x4010]), Some((2, 0x3010)));
        assert_eq!(blamed(&[0x4010, 0x1010]), Some((0, 0x4010)));
        assert_eq!(blamed(&[0x1010, 0x1020]), Some((0, 0x1010)), "all are of the library");
        assert_eq!(blamed(&[0x1010, 0x9000]), Some((1, 0x9000)), "code without a file is the program's");
        assert_eq!(blamed(&[]), None);
    }

    #[test]
    fn damaged_text_is_skipped() {
        let modules = Modules::of(b"zz-\n-\n\n1000\n7-8\n");
        assert_eq!(modules.locate(Addr::new(7)), None);
        let cut = Modules::of(
            b"1000-2000 r-xp 00000000 08:01 7      /bin/a\n2000-3000 r-xp 00000000 08:01 7      /bi",
        );
        assert!(cut.locate(Addr::new(0x1000)).is_some());
        assert_eq!(cut.locate(Addr::new(0x2000)), None, "the line may be longer");
    }
}
