//! What a mapped module says of itself: its build id, and the dynamic symbol an address lies in.
//!
//! Read from the ELF image in memory while the process is in an unknown state: nothing here trusts what
//! it reads. Every read goes through a function that cannot fault and has to lie within the module's
//! mappings, every count is capped, every sum is checked or wraps, and nothing is kept between calls.

use crate::addr::{Addr, PAGE_SIZE};

/// Copies bytes at an address into a buffer; how many it got.
pub type Peek<'a> = &'a dyn Fn(Addr, &mut [u8]) -> usize;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SYMBOL: usize = 24;
const RELOCATION: usize = 24;
/// Segments, notes of a segment, and entries of the dynamic section that are looked at.
const MOST_SEGMENTS: usize = 64;
const MOST_NOTES: usize = 64;
const MOST_ENTRIES: usize = 256;
/// Symbols that are looked at, and relocations.
const MOST_SYMBOLS: usize = 1 << 20;
const MOST_RELOCATIONS: usize = 1 << 20;
/// Bytes that are read at once: a whole number of symbols, of relocations and of hash words.
const BLOCK: usize = 3072;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_PLTRELSZ: u64 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_JMPREL: u64 = 23;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// A build id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildId {
    bytes: [u8; 32],
    len: usize,
}

impl BuildId {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// A symbol's name, and how far into it an address lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Symbol {
    name: [u8; Self::LONGEST],
    len: usize,
    /// Bytes from the symbol's start.
    pub into: usize,
}

impl Symbol {
    /// The longest name that is kept; longer ones are as good as none.
    const LONGEST: usize = 512;

    /// The name as the module has it, mangled.
    pub fn name(&self) -> &[u8] {
        self.name.get(..self.len).unwrap_or(&[])
    }
}

/// An ELF image in memory.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    peek: Peek<'a>,
    base: usize,
    end: usize,
    /// What is added to the file's addresses.
    bias: usize,
    segments: usize,
    count: usize,
}

impl<'a> Image<'a> {
    /// The 64-bit image whose header is at `base` and of which nothing lies at `end` or beyond.
    pub fn open(peek: Peek<'a>, base: usize, end: usize) -> Option<Self> {
        let mut image = Self { peek, base, end, bias: base, segments: 0, count: 0 };
        let header = image.read::<HEADER>(base)?;
        if !header.starts_with(b"\x7fELF\x02\x01") || half(&header, 54)? as usize != SEGMENT {
            return None;
        }
        image.segments = base.checked_add(word(&header, 32)?)?;
        image.count = usize::from(half(&header, 56)?).min(MOST_SEGMENTS);
        let first = image.all().find(|segment| segment.kind == PT_LOAD)?;
        image.bias = base.wrapping_sub(first.address & !(PAGE_SIZE - 1));
        Some(image)
    }

    /// The bytes at `address` if they lie in the image and can be read.
    fn read<const N: usize>(&self, address: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read_into(address, &mut bytes).then_some(bytes)
    }

    fn read_into(&self, address: usize, bytes: &mut [u8]) -> bool {
        let inside =
            address >= self.base && address.checked_add(bytes.len()).is_some_and(|end| end <= self.end);
        inside && (self.peek)(Addr::new(address), bytes) == bytes.len()
    }

    /// As many bytes of `block` as can be read before the image ends.
    fn read_block<'b>(&self, address: usize, block: &'b mut [u8]) -> &'b [u8] {
        let len = self.end.saturating_sub(address).min(block.len());
        let got = block.get_mut(..len).is_some_and(|part| self.read_into(address, part));
        block.get(..len).filter(|_| got).unwrap_or(&[])
    }

    fn all(&self) -> impl Iterator<Item = Segment> + '_ {
        (0..self.count).map_while(|index| {
            let bytes = self.read::<SEGMENT>(self.segments.checked_add(index.checked_mul(SEGMENT)?)?)?;
            Some(Segment {
                kind: quarter(&bytes, 0)?,
                address: word(&bytes, 16)?,
                size: word(&bytes, 40)?,
                align: word(&bytes, 48)?,
            })
        })
    }

    /// The build id, if the module carries one.
    pub fn build_id(&self) -> Option<BuildId> {
        self.all().filter(|segment| segment.kind == PT_NOTE).find_map(|segment| self.build_id_in(segment))
    }

    fn build_id_in(&self, segment: Segment) -> Option<BuildId> {
        let mut at = self.bias.wrapping_add(segment.address);
        let end = at.checked_add(segment.size)?;
        let align = if segment.align == 8 { 8 } else { 4 };
        for _ in 0..MOST_NOTES {
            let header = self.read::<16>(at).filter(|_| at < end)?;
            let name_len = quarter(&header, 0)? as usize;
            let len = quarter(&header, 4)? as usize;
            let body = at.checked_add(12)?.checked_add(name_len)?.checked_next_multiple_of(align)?;
            if quarter(&header, 8)? == NT_GNU_BUILD_ID && name_len == 4 && header.ends_with(b"GNU\0") {
                let mut bytes = [0; 32];
                let found = bytes.get_mut(..len).is_some_and(|part| self.read_into(body, part));
                return (found && len != 0).then_some(BuildId { bytes, len });
            }
            at = body.checked_add(len)?.checked_next_multiple_of(align)?;
        }
        None
    }

    /// The function among the module's dynamic symbols that `address` lies in. Symbols without a size
    /// reach up to the next one.
    pub fn symbol(&self, address: usize) -> Option<Symbol> {
        let tables = self.tables()?;
        let count = self.symbol_count(&tables)?.min(MOST_SYMBOLS);
        let mut best: Option<(usize, usize, usize)> = None;
        let mut block = [0; BLOCK];
        let mut index = 0;
        while index < count {
            let at = tables.symbols.checked_add(index.checked_mul(SYMBOL)?)?;
            let symbols = self.read_block(at, &mut block);
            for symbol in symbols.chunks_exact(SYMBOL).take(count - index) {
                let kind = symbol.get(4).map_or(0, |info| info & 15);
                if !matches!(kind, STT_FUNC | STT_GNU_IFUNC) || half(symbol, 6)? == 0 {
                    continue;
                }
                let start = self.bias.wrapping_add(word(symbol, 8)?);
                let better = best.is_none_or(|(known, _, _)| start > known);
                if start <= address && better {
                    best = Some((start, word(symbol, 16)?, quarter(symbol, 0)? as usize));
                }
            }
            let read = symbols.len() / SYMBOL;
            if read == 0 {
                break;
            }
            index = index.saturating_add(read);
        }
        let (start, size, name) = best?;
        let into = address.checked_sub(start)?;
        if size != 0 && into >= size {
            return None;
        }
        self.named(&tables, name, into)
    }

    /// The symbol whose address the loader puts at `slot`: what a call through that word calls.
    pub fn import(&self, slot: usize) -> Option<Symbol> {
        let tables = self.tables()?;
        let all = [(tables.jumps, tables.jumps_size), (tables.relocations, tables.relocations_size)];
        let index = all.into_iter().find_map(|(start, size)| self.import_in(start, size, slot))?;
        let symbol = self.read::<SYMBOL>(tables.symbols.checked_add(index.checked_mul(SYMBOL)?)?)?;
        self.named(&tables, quarter(&symbol, 0)? as usize, 0)
    }

    /// The number of the symbol that the relocation of `slot` names.
    fn import_in(&self, start: usize, size: usize, slot: usize) -> Option<usize> {
        let mut block = [0; BLOCK];
        let mut left = (size / RELOCATION).min(MOST_RELOCATIONS);
        let mut at = start;
        while left != 0 && start != 0 {
            let relocations = self.read_block(at, &mut block);
            let read = relocations.len() / RELOCATION;
            for relocation in relocations.chunks_exact(RELOCATION).take(left) {
                let symbol = quarter(relocation, 12)? as usize;
                if self.bias.wrapping_add(word(relocation, 0)?) == slot && symbol != 0 {
                    return Some(symbol);
                }
            }
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
            at = at.checked_add(read.checked_mul(RELOCATION)?)?;
        }
        None
    }

    /// A symbol by where its name stands.
    fn named(&self, tables: &Tables, name: usize, into: usize) -> Option<Symbol> {
        let mut symbol = Symbol { name: [0; Symbol::LONGEST], len: 0, into };
        let mut text = [0; Symbol::LONGEST];
        let text = self.read_block(tables.strings.checked_add(name)?, &mut text);
        let len = text.iter().position(|byte| *byte == 0).filter(|len| *len != 0)?;
        symbol.name.get_mut(..len)?.copy_from_slice(text.get(..len)?);
        symbol.len = len;
        Some(symbol)
    }

    fn tables(&self) -> Option<Tables> {
        let dynamic = self.all().find(|segment| segment.kind == PT_DYNAMIC)?;
        let start = self.bias.wrapping_add(dynamic.address);
        let mut tables = Tables::default();
        for index in 0..(dynamic.size / 16).min(MOST_ENTRIES) {
            let entry = self.read::<16>(start.checked_add(index.checked_mul(16)?)?)?;
            let value = word(&entry, 8)?;
            let place = match word(&entry, 0)? as u64 {
                0 => break,
                DT_PLTRELSZ => {
                    tables.jumps_size = value;
                    continue;
                }
                DT_RELASZ => {
                    tables.relocations_size = value;
                    continue;
                }
                DT_JMPREL => &mut tables.jumps,
                DT_RELA => &mut tables.relocations,
                DT_STRTAB => &mut tables.strings,
                DT_SYMTAB => &mut tables.symbols,
                DT_GNU_HASH => &mut tables.gnu_hash,
                DT_HASH => &mut tables.hash,
                _ => continue,
            };
            // The loader has turned these into addresses in most modules, and not in some.
            let is_address = (self.base..self.end).contains(&value);
            *place = if is_address { value } else { self.bias.wrapping_add(value) };
        }
        (tables.strings != 0 && tables.symbols != 0).then_some(tables)
    }

    /// The number of dynamic symbols, which only the hash tables tell.
    fn symbol_count(&self, tables: &Tables) -> Option<usize> {
        if tables.hash != 0 {
            return Some(quarter(&self.read::<8>(tables.hash)?, 4)? as usize);
        }
        let header = self.read::<16>(tables.gnu_hash)?;
        let buckets = quarter(&header, 0)? as usize;
        let first = quarter(&header, 4)? as usize;
        let bloom = (quarter(&header, 8)? as usize).checked_mul(8)?;
        let start = tables.gnu_hash.checked_add(16)?.checked_add(bloom)?;
        let chains = start.checked_add(buckets.checked_mul(4)?)?;
        let mut last = 0;
        self.each_word(start, buckets.min(MOST_SYMBOLS), |bucket| {
            last = last.max(bucket as usize);
            true
        });
        let chain = chains.checked_add(last.checked_sub(first)?.checked_mul(4)?)?;
        let mut count = last;
        self.each_word(chain, MOST_SYMBOLS, |hash| {
            count = count.saturating_add(1);
            hash & 1 == 0
        });
        Some(count)
    }

    /// Hands on up to `count` words from `at` on while `more` wants them.
    fn each_word(&self, at: usize, count: usize, mut more: impl FnMut(u32) -> bool) {
        let mut block = [0; BLOCK];
        let mut index = 0_usize;
        while index < count {
            let words = self.read_block(at.saturating_add(index.saturating_mul(4)), &mut block);
            for bytes in words.chunks_exact(4).take(count - index) {
                if !more(quarter(bytes, 0).unwrap_or(1)) {
                    return;
                }
            }
            if words.len() < 4 {
                return;
            }
            index = index.saturating_add(words.len() / 4);
        }
    }
}

struct Segment {
    kind: u32,
    address: usize,
    size: usize,
    align: usize,
}

/// Addresses of the tables of dynamic symbols, 0 for those that are missing, and of relocations with their sizes in bytes.
#[derive(Default)]
struct Tables {
    jumps: usize,
    jumps_size: usize,
    relocations: usize,
    relocations_size: usize,
    strings: usize,
    symbols: usize,
    gnu_hash: usize,
    hash: usize,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn quarter(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::vec::Vec;

    /// Where the image of a test lies.
    const BASE: usize = 0x10_0000;
    static IMAGE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn peek(address: Addr, buffer: &mut [u8]) -> usize {
        let image = IMAGE.lock().expect("no panic holds the lock");
        let Some(part) = address.get().checked_sub(BASE).and_then(|at| image.get(at..)) else { return 0 };
        let len = part.len().min(buffer.len());
        buffer[..len].copy_from_slice(&part[..len]);
        len
    }

    fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A header, three segments, a build id, two functions and a hash table of one bucket.
    fn module() -> Vec<u8> {
        let mut image = std::vec![0; 0x1000];
        put(&mut image, 0, b"\x7fELF\x02\x01");
        put(&mut image, 32, &64_u64.to_le_bytes());
        put(&mut image, 54, &56_u16.to_le_bytes());
        put(&mut image, 56, &3_u16.to_le_bytes());
        for (index, [kind, address, size]) in
            [[1, 0x40_0000, 0x1000], [4, 0x40_0200, 0x24], [2, 0x40_0300, 0x50]].into_iter().enumerate()
        {
            let at = 64 + 56 * index;
            put(&mut image, at, &(kind as u32).to_le_bytes());
            put(&mut image, at + 16, &(address as u64).to_le_bytes());
            put(&mut image, at + 40, &(size as u64).to_le_bytes());
            put(&mut image, at + 48, &4_u64.to_le_bytes());
        }
        put(&mut image, 0x200, &[4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0]);
        put(&mut image, 0x20c, b"GNU\0\xde\xad\xbe\xef");
        for (index, [tag, value]) in
            [[5_u64, 0x40_0400], [6, (BASE + 0x500) as u64], [0x6fff_fef5, 0x40_0600]].into_iter().enumerate()
        {
            put(&mut image, 0x300 + 16 * index, &tag.to_le_bytes());
            put(&mut image, 0x308 + 16 * index, &value.to_le_bytes());
        }
        put(&mut image, 0x400, b"\0first\0second\0");
        for (index, (name, start, size)) in
            [(0_u32, 0_u64, 0_u64), (1, 0x40_0800, 0x10), (7, 0x40_0820, 0)].into_iter().enumerate()
        {
            let at = 0x500 + 24 * index;
            put(&mut image, at, &name.to_le_bytes());
            put(&mut image, at + 4, &[if index == 0 { 0 } else { 0x12 }, 0, index.min(1) as u8, 0]);
            put(&mut image, at + 8, &start.to_le_bytes());
            put(&mut image, at + 16, &size.to_le_bytes());
        }
        // One bucket, symbols from 1 on, one word of Bloom filter; the second chain entry is the last.
        for (index, value) in [1_u32, 1, 1, 0, 0, 0, 1, 2, 3].into_iter().enumerate() {
            put(&mut image, 0x600 + 4 * index, &value.to_le_bytes());
        }
        image
    }

    fn with<T>(image: Vec<u8>, look: impl FnOnce(Option<Image<'_>>) -> T) -> T {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *IMAGE.lock().expect("no panic holds the lock") = image;
        look(Image::open(&peek, BASE, BASE + 0x1000))
    }

    fn name(image: &Image<'_>, at: usize) -> Option<(Vec<u8>, usize)> {
        image.symbol(BASE + at).map(|symbol| (symbol.name().to_vec(), symbol.into))
    }

    #[test]
    fn a_module_is_read() {
        with(module(), |image| {
            let image = image.expect("an ELF image");
            assert_eq!(image.build_id().expect("a build id").as_bytes(), b"\xde\xad\xbe\xef");
            assert_eq!(name(&image, 0x7ff), None, "before the first");
            assert_eq!(name(&image, 0x80f), Some((b"first".to_vec(), 15)));
            assert_eq!(name(&image, 0x810), None, "past the first's size");
            assert_eq!(name(&image, 0x900), Some((b"second".to_vec(), 0xe0)));
        });
    }

    #[test]
    fn damage_anywhere_is_survived() {
        for at in (0..0x640).chain([0x1000]) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut image = module();
                image.resize(0x1001, 0);
                image[at] = value;
                with(image, |image| {
                    if let Some(image) = image {
                        image.build_id();
                        image.symbol(BASE + 0x805);
                    }
                });
            }
        }
        for len in (0..0x640).step_by(7) {
            let mut image = module();
            image.truncate(len);
            with(image, |image| {
                if let Some(image) = image {
                    image.build_id();
                    image.symbol(BASE + 0x805);
                }
            });
        }
    }
}
