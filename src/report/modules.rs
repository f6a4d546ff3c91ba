//! Which file an address was mapped from, read from /proc/self/maps without allocating.

use crate::addr::Addr;
use crate::sys::file;

/// A place in a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The file's path.
    pub path: &'a [u8],
    /// Bytes from where the file's first mapping starts.
    pub offset: usize,
}

/// The process's mappings, as text.
pub struct Modules<'a> {
    text: &'a [u8],
}

impl<'a> Modules<'a> {
    /// Reads the mappings into `buffer`; what does not fit is not known.
    pub fn read(buffer: &'a mut [u8]) -> Self {
        Self { text: file::read(b"/proc/self/maps\0", buffer).unwrap_or(&[]) }
    }

    /// The place of `address` in its file; `None` for memory that is not a file's.
    pub fn place(&self, address: Addr) -> Option<Place<'a>> {
        let mut path: &[u8] = &[];
        let mut base = 0;
        for line in self.text.split(|byte| *byte == b'\n') {
            let Some(mapping) = Mapping::parse(line) else { continue };
            if mapping.path != path {
                path = mapping.path;
                base = mapping.start;
            }
            if (mapping.start..mapping.end).contains(&address.get()) {
                let named = path.first().is_some_and(|byte| *byte == b'/' || *byte == b'[');
                return named.then(|| Place { path, offset: address.get().saturating_sub(base) });
            }
        }
        None
    }
}

struct Mapping<'a> {
    start: usize,
    end: usize,
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut range = fields.next()?.splitn(2, |byte| *byte == b'-');
        let hex = |digits: &[u8]| usize::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok();
        let start = hex(range.next()?)?;
        let end = hex(range.next()?)?;
        Some(Self { start, end, path: fields.nth(4).unwrap_or(&[]).trim_ascii_start() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_files_first_mapping() {
        let text = b"1000-2000 r--p 00000000 08:01 7      /bin/a b\n2000-3000 r-xp 00001000 08:01 7      /bin/a b\n5000-6000 rw-p 00000000 00:00 0 \n";
        let modules = Modules { text };
        let place = modules.place(Addr::new(0x2010)).expect("mapped");
        assert_eq!(place, Place { path: b"/bin/a b", offset: 0x1010 });
        assert_eq!(modules.place(Addr::new(0x5000)), None);
        assert_eq!(modules.place(Addr::new(0x9000)), None);
    }

    #[test]
    fn damaged_text_is_skipped() {
        let modules = Modules { text: b"zz-\n-\n\n1000\n7-8" };
        assert_eq!(modules.place(Addr::new(7)), None);
    }
}
