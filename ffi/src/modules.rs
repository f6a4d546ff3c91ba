//! The loaded modules and their definitions, read from their own tables. This takes no lock but that of the loader's
//! list, which is never held while a constructor runs. It allocates nothing and leaves no trace in `dlerror`.
//!
//! The tables are those that the loader itself uses: the GNU hash table with its filter, the dynamic symbols and their
//! names. A module without a GNU hash table is taken to define nothing.

use core::ffi::{CStr, c_int, c_void};
use core::ops::ControlFlow;
use libc::{Elf64_Phdr, Elf64_Sym, dl_phdr_info};

const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_SONAME: i64 = 14;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
#[cfg(target_env = "gnu")]
const DT_VERSYM: i64 = 0x6fff_fff0;

/// The name of `std::bad_alloc` as a C++ runtime has it. Names of symbols end the same way and begin otherwise.
const BAD_ALLOC: &[u8] = b"\0St9bad_alloc\0";

/// A loaded module, as the loader describes it during [`each`].
pub struct Module<'a> {
    base: usize,
    /// The path it was loaded from; empty for the program.
    name: &'a [u8],
    headers: &'a [Elf64_Phdr],
}

/// Calls `visit` for each module of the caller's namespace in the order they were loaded in, until it breaks. The
/// loader's list is locked meanwhile: `visit` may not ask the loader for anything.
pub fn each(mut visit: impl FnMut(&Module<'_>) -> ControlFlow<()>) {
    let mut visit: &mut dyn FnMut(&Module<'_>) -> ControlFlow<()> = &mut visit;
    // SAFETY: the callback has the right type and is done with its argument when this returns.
    unsafe { libc::dl_iterate_phdr(Some(on_module), (&raw mut visit).cast::<c_void>()) };
}

unsafe extern "C" fn on_module(info: *mut dl_phdr_info, _size: usize, visit: *mut c_void) -> c_int {
    // SAFETY: the loader passes a live description of a module.
    let info = unsafe { &*info };
    let name = match info.dlpi_name.is_null() {
        true => &[],
        // SAFETY: not null, a C string of the loader.
        false => unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes(),
    };
    let headers = match info.dlpi_phdr.is_null() {
        true => &[],
        // SAFETY: the loader passes the module's program headers and their number.
        false => unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) },
    };
    let module = Module { base: info.dlpi_addr as usize, name, headers };
    // SAFETY: `each` passes the address of its reference, which nobody else uses meanwhile.
    let visit = unsafe { &mut *visit.cast::<&mut dyn FnMut(&Module<'_>) -> ControlFlow<()>>() };
    c_int::from(visit(&module).is_break())
}

impl Module<'_> {
    /// Whether `address` lies in it.
    pub fn contains(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.base);
        self.headers.iter().any(|header| {
            header.p_type == libc::PT_LOAD
                && offset.wrapping_sub(header.p_vaddr as usize) < header.p_memsz as usize
        })
    }

    /// From its first byte to the end of its last, whatever lies between.
    #[cfg(target_env = "gnu")]
    pub fn addresses(&self) -> core::ops::Range<usize> {
        let loaded = self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let part = |header: &Elf64_Phdr| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            start..start.wrapping_add(header.p_memsz as usize)
        };
        let all = loaded.map(part).reduce(|all, part| all.start.min(part.start)..all.end.max(part.end));
        all.unwrap_or(0..0)
    }

    /// Whether it is this library.
    pub fn is_ours(&self) -> bool {
        self.contains(on_module as *const () as usize)
    }

    /// Whether one of its notes is of this owner.
    #[cfg(target_env = "gnu")]
    pub fn has_note_of(&self, owner: &CStr) -> bool {
        let owner = owner.to_bytes_with_nul();
        self.headers.iter().filter(|header| header.p_type == libc::PT_NOTE).any(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            let (bytes, align) = (header.p_memsz as usize, header.p_align.clamp(4, 8) as usize);
            let mut at = 0_usize;
            while at + 12 + owner.len() <= bytes {
                let words = core::ptr::with_exposed_provenance::<[u32; 3]>(start.wrapping_add(at));
                // SAFETY: the loader mapped the segment, readable, and what is read ends within it: three words and a name's
                // first bytes.
                let ([name, text, _], found) = unsafe {
                    let found = core::slice::from_raw_parts(words.add(1).cast::<u8>(), owner.len());
                    (words.read_unaligned(), found)
                };
                // Some count the bytes that fill the last word as well.
                if name as usize >= owner.len() && found == owner {
                    return true;
                }
                let padded = |bytes: u32| (bytes as usize).next_multiple_of(align);
                at += (12 + name as usize).next_multiple_of(align) + padded(text);
            }
            false
        })
    }

    /// Whether it is the C library or the loader, which brings a `malloc` for itself.
    pub fn is_c_library(&self) -> bool {
        [&b"libc.so.6"[..], b"ld-linux-x86-64.so.2"].into_iter().any(|name| self.is_called(name))
    }

    /// Whether it is the C++ runtime that programs share, by its file's name.
    pub fn is_shared_runtime(&self) -> bool {
        let named = |part: &[u8]| self.name.windows(part.len()).any(|window| window == part);
        [&b"libstdc++.so"[..], b"libc++.so", b"libc++abi.so"].into_iter().any(named)
    }

    /// Whether it holds a C++ runtime: the constants have the name of `std::bad_alloc`.
    pub fn holds_runtime(&self) -> bool {
        self.holds(libc::PF_R, BAD_ALLOC)
    }

    /// Whether what the file has of a segment with these rights to read and write holds `text`.
    pub fn holds(&self, rights: u32, text: &[u8]) -> bool {
        let has = |header: &&Elf64_Phdr| header.p_flags & (libc::PF_R | libc::PF_W) == rights;
        self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD).filter(has).any(|header| {
            let start =
                core::ptr::with_exposed_provenance::<c_void>(self.base.wrapping_add(header.p_vaddr as usize));
            // SAFETY: the loader mapped the segment, readable. Where it may be written the C library's function finds what
            // is there at the time, or nothing.
            let found =
                unsafe { libc::memmem(start, header.p_filesz as usize, text.as_ptr().cast(), text.len()) };
            !found.is_null()
        })
    }

    /// Whether the loader takes it for the needed library of this name: it was loaded by it, or calls itself so.
    pub fn is_called(&self, name: &[u8]) -> bool {
        let own_name = || {
            let [strings, own] = self.dynamic([DT_STRTAB, DT_SONAME])?;
            let text = core::ptr::with_exposed_provenance(self.relocated(strings).wrapping_add(own));
            // SAFETY: the module is mapped; its own name is a string of its string table.
            Some(unsafe { CStr::from_ptr(text) }.to_bytes() == name)
        };
        self.name == name || own_name() == Some(true)
    }

    /// What it defines; `None` without a GNU hash table.
    pub fn symbols(&self) -> Option<Symbols> {
        let tables = self.dynamic([DT_STRTAB, DT_SYMTAB, DT_GNU_HASH])?;
        let [strings, symbols, hash] = tables.map(|table| self.relocated(table));
        #[cfg(target_env = "gnu")]
        let versions = self.dynamic([DT_VERSYM]).map_or(0, |[table]| self.relocated(table));
        #[cfg(not(target_env = "gnu"))]
        let versions = 0;
        Some(Symbols { base: self.base, strings, symbols, hash, versions })
    }

    /// The values that its dynamic section has for these tags; `None` if one is missing.
    fn dynamic<const N: usize>(&self, tags: [i64; N]) -> Option<[usize; N]> {
        let dynamic = self.headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let mut values = [0; N];
        let mut entry =
            core::ptr::with_exposed_provenance::<[i64; 2]>(self.base.wrapping_add(dynamic.p_vaddr as usize));
        loop {
            // SAFETY: the module is mapped; its dynamic section is an array of pairs that ends with a zero tag.
            let [tag, value] = unsafe { entry.read() };
            if tag == 0 {
                return (!values.contains(&0)).then_some(values);
            }
            if let Some((_, found)) = tags.iter().zip(&mut values).find(|(wanted, _)| **wanted == tag) {
                *found = value as usize;
            }
            // SAFETY: the section goes on until its zero tag.
            entry = unsafe { entry.add(1) };
        }
    }

    /// The address of a table. The loader has relocated what the dynamic section says in most modules, and has left it
    /// alone in some (the vDSO).
    fn relocated(&self, table: usize) -> usize {
        if table < self.base { self.base.wrapping_add(table) } else { table }
    }
}

/// What this library defines, found without the loader and its lock; `None` without a GNU hash table.
#[cfg(target_env = "gnu")]
pub fn own_symbols() -> Option<Symbols> {
    unsafe extern "C" {
        #[link_name = "__ehdr_start"]
        static HEADER: libc::Elf64_Ehdr;
    }
    let header = &raw const HEADER;
    // SAFETY: the linker defines the symbol where the file's header is mapped, for each file of its own; the program
    // headers lie behind it in the same segment.
    let headers = unsafe {
        let first = header.byte_add((*header).e_phoff as usize).cast::<Elf64_Phdr>();
        core::slice::from_raw_parts(first, usize::from((*header).e_phnum))
    };
    let first = headers.iter().find(|header| header.p_type == libc::PT_LOAD)?;
    let base = header.expose_provenance().wrapping_sub(first.p_vaddr as usize);
    Module { base, name: &[], headers }.symbols()
}

/// A name with its hash.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    text: &'a CStr,
    hash: u32,
}

impl<'a> Name<'a> {
    /// The name `text`; hashed when the library is compiled, if it is known then.
    pub const fn new(text: &'a CStr) -> Self {
        let (bytes, mut hash, mut at) = (text.to_bytes(), 5381_u32, 0);
        while at < bytes.len() {
            hash = hash.wrapping_mul(33).wrapping_add(bytes[at] as u32);
            at += 1;
        }
        Self { text, hash }
    }

    /// The name.
    pub const fn text(&self) -> &'a CStr {
        self.text
    }
}

/// The dynamic symbols of a module that stays mapped while this is used.
#[derive(Clone, Copy)]
pub struct Symbols {
    base: usize,
    strings: usize,
    symbols: usize,
    hash: usize,
    /// The table of versions, 0 for none.
    versions: usize,
}

/// The modules in which the loader looks for a definition after this library's (`RTLD_NEXT`), the C library's last.
///
/// A process begins with its modules in the order in which they are searched, and that is the order of the loader's list; what is
/// opened later comes behind them. So none of these is ever closed, and they can be asked without the loader: a few dozen
/// instructions a name in place of some two thousand.
#[cfg(target_env = "gnu")]
pub struct Behind {
    modules: [Option<Symbols>; Self::MOST],
    len: usize,
}

#[cfg(target_env = "gnu")]
impl Behind {
    /// Modules between this library and the C library, and that, at most.
    const MOST: usize = 64;

    /// `None` where only the loader knows: this library was opened later, or is far from the C library's, or a module between them
    /// cannot be read.
    pub fn find() -> Option<Self> {
        let mut behind = Self { modules: [None; Self::MOST], len: 0 };
        let (mut passed, mut complete) = (false, false);
        each(|module| {
            if !passed {
                passed = module.is_ours();
                return ControlFlow::Continue(());
            }
            let (Some(place), Some(symbols)) = (behind.modules.get_mut(behind.len), module.symbols()) else {
                return ControlFlow::Break(());
            };
            *place = Some(symbols);
            behind.len += 1;
            complete = module.is_called(b"libc.so.6");
            if complete { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        complete.then_some(behind)
    }

    /// The address that the loader would find for `name`; `None` if it is to be asked.
    pub fn address(&self, name: &Name<'_>) -> Option<usize> {
        let mut modules = self.modules.iter().take(self.len).flatten();
        modules.find_map(|symbols| symbols.find_symbol(name)).map(|(symbols, symbol)| {
            let address = symbols.base.wrapping_add(symbol.st_value as usize);
            match symbol.st_info & 0xf {
                // SAFETY: what the symbol names is a function without arguments that says where the function is. The loader
                // relocated its module before it called anything of this library, or calls it as `dlsym` would.
                STT_GNU_IFUNC => unsafe {
                    core::mem::transmute::<usize, extern "C" fn() -> usize>(address)()
                },
                _ => address,
            }
        })
    }
}

/// The type of a symbol whose address a function of the module's chooses.
#[cfg(target_env = "gnu")]
const STT_GNU_IFUNC: u8 = 10;

impl Symbols {
    /// The address of the module's definition of `name`.
    pub fn find(&self, name: &Name<'_>) -> Option<usize> {
        let (_, symbol) = self.find_symbol(name)?;
        Some(self.base.wrapping_add(symbol.st_value as usize))
    }

    /// Whether a symbol is of a version that only those get who ask for it.
    fn is_hidden(&self, index: u32) -> bool {
        const HIDDEN: u16 = 1 << 15;
        /// Versions below are those of symbols without one.
        const FIRST: u16 = 2;
        let table = core::ptr::with_exposed_provenance::<u16>(self.versions);
        self.versions != 0 && {
            // SAFETY: the module's table of versions has an entry for each of its symbols, and the index is one's.
            let version = unsafe { table.add(index as usize).read() };
            version & HIDDEN != 0 && version & !HIDDEN >= FIRST
        }
    }

    /// The module's definition of `name`.
    fn find_symbol(&self, name: &Name<'_>) -> Option<(&Self, Elf64_Sym)> {
        let words = core::ptr::with_exposed_provenance::<u32>(self.hash);
        // SAFETY: `Module::symbols` found the tables of a mapped module. The GNU hash section is four words, the
        // filter in words of eight bytes, the buckets, the chains; an index in a chain is one of a symbol, a
        // symbol's name is a string of the string table.
        unsafe {
            let (buckets, first) = (words.read(), words.add(1).read());
            let (filter_words, shift) = (words.add(2).read(), words.add(3).read());
            let filter = words.add(4).cast::<u64>();
            if buckets == 0 || filter_words == 0 {
                return None;
            }
            let bits = filter.add((name.hash / u64::BITS) as usize % filter_words as usize).read_unaligned();
            let second = name.hash.wrapping_shr(shift);
            if bits >> (name.hash % u64::BITS) & (bits >> (second % u64::BITS)) & 1 == 0 {
                return None;
            }
            let bucket_table = filter.add(filter_words as usize).cast::<u32>();
            let chains = bucket_table.add(buckets as usize);
            let mut index = bucket_table.add((name.hash % buckets) as usize).read();
            if index < first {
                return None;
            }
            loop {
                let chain = chains.add((index - first) as usize).read();
                if chain | 1 == name.hash | 1 {
                    let symbol = core::ptr::with_exposed_provenance::<Elf64_Sym>(self.symbols)
                        .add(index as usize)
                        .read();
                    let text = core::ptr::with_exposed_provenance(
                        self.strings.wrapping_add(symbol.st_name as usize),
                    );
                    let is_defined = symbol.st_shndx != 0 && symbol.st_value != 0;
                    if is_defined && CStr::from_ptr(text) == name.text && !self.is_hidden(index) {
                        return Some((self, symbol));
                    }
                }
                if chain & 1 != 0 {
                    return None;
                }
                index = index.wrapping_add(1);
            }
        }
    }
}
