//! Whether the process has more than one C++ runtime.
//!
//! A library with a runtime of its own linked in (a private `operator new`) allocates with plain
//! `malloc` what others then free with this library's `operator delete`. That is no bug of the
//! program, and so no mismatch is reported in such a process between `malloc` and `delete`. The
//! question is asked when a mismatch was found, and only then.
//!
//! A private runtime may hide its operators: Debian's rustc frees with one what libLLVM made with the shared
//! one. But it has the names of its types: that of `std::bad_alloc` is in the C++ runtime and nowhere else.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{Elf64_Phdr, Elf64_Sym, dl_phdr_info};

const NEW: &[u8] = b"_Znwm";
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;

/// The name of `std::bad_alloc` as the runtime has it. Names of symbols end the same way and begin otherwise.
const BAD_ALLOC: &[u8] = b"\0St9bad_alloc\0";

/// Whether some module besides this library and the shared C++ runtime defines `operator new`, or has a runtime
/// that hides its own.
pub fn are_mixed() -> bool {
    static FOUND: AtomicBool = AtomicBool::new(false);
    if FOUND.load(Ordering::Relaxed) {
        return true;
    }
    let mut found = false;
    // SAFETY: the callback has the right type and is done with its argument when this returns.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast::<c_void>()) };
    FOUND.store(found, Ordering::Relaxed);
    found
}

unsafe extern "C" fn look(info: *mut dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: the loader passes a live description of a module.
    let info = unsafe { &*info };
    let name = if info.dlpi_name.is_null() {
        &[]
    } else {
        // SAFETY: not null, a C string of the loader.
        unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes()
    };
    let shared_runtime =
        [&b"libstdc++.so"[..], b"libc++.so", b"libc++abi.so"].iter().any(|part| contains(name, part));
    let ours = (look as *const () as usize).wrapping_sub(info.dlpi_addr as usize);
    // SAFETY: the loader passes the module's program headers.
    let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let is_ours = headers.iter().any(|header| {
        header.p_type == libc::PT_LOAD && ours.wrapping_sub(header.p_vaddr as usize) < header.p_memsz as usize
    });
    if shared_runtime || is_ours {
        return 0;
    }
    let base = info.dlpi_addr as usize;
    let dynamic = headers.iter().find(|header| header.p_type == PT_DYNAMIC);
    // SAFETY: the module is mapped, and this is its dynamic section.
    let defines = dynamic.is_some_and(|dynamic| unsafe { defines(base, dynamic, NEW) });
    // SAFETY: the module is mapped, and these are its headers.
    if defines || unsafe { holds(base, headers, BAD_ALLOC) } {
        // SAFETY: `are_mixed` passed a live bool.
        unsafe { found.cast::<bool>().write(true) };
        return 1;
    }
    0
}

/// Whether the constants of the module at `base` hold these bytes.
///
/// # Safety
/// `headers` are those of a module that is mapped at `base`.
unsafe fn holds(base: usize, headers: &[Elf64_Phdr], bytes: &[u8]) -> bool {
    let rights = |header: &&Elf64_Phdr| header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R;
    headers.iter().filter(|header| header.p_type == libc::PT_LOAD).filter(rights).any(|header| {
        let start = core::ptr::with_exposed_provenance::<c_void>(base.wrapping_add(header.p_vaddr as usize));
        // SAFETY: the loader mapped the segment, readable, and nobody writes it.
        !unsafe { libc::memmem(start, header.p_filesz as usize, bytes.as_ptr().cast(), bytes.len()) }
            .is_null()
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Whether the module at `base` defines the dynamic symbol `name`, by its GNU hash table; modules
/// without one are taken not to.
///
/// # Safety
/// `dynamic` is the header of the dynamic section of a module that is mapped at `base`.
unsafe fn defines(base: usize, dynamic: &Elf64_Phdr, name: &[u8]) -> bool {
    let mut tables = [0_usize; 3];
    let mut entry =
        core::ptr::with_exposed_provenance::<[i64; 2]>(base.wrapping_add(dynamic.p_vaddr as usize));
    loop {
        // SAFETY: the section is an array of pairs that ends with a zero tag.
        let [tag, value] = unsafe { entry.read() };
        match tag {
            0 => break,
            DT_STRTAB => tables[0] = value as usize,
            DT_SYMTAB => tables[1] = value as usize,
            DT_GNU_HASH => tables[2] = value as usize,
            _ => {}
        }
        // SAFETY: the section goes on until its zero tag.
        entry = unsafe { entry.add(1) };
    }
    // The loader has relocated these in most modules, and has left them alone in some (the vDSO).
    let [strings, symbols, hash] =
        tables.map(|table| if table < base { base.wrapping_add(table) } else { table });
    if tables.contains(&0) {
        return false;
    }
    // SAFETY: the tables of a mapped module are as the ELF format's GNU hash section says: four
    // words, the Bloom filter in words of eight bytes, the buckets, the chains.
    unsafe {
        let words = core::ptr::with_exposed_provenance::<u32>(hash);
        let (buckets, first, bloom) = (words.read(), words.add(1).read(), words.add(2).read());
        if buckets == 0 {
            return false;
        }
        let bucket_table = words.add(4 + 2 * bloom as usize);
        let chains = bucket_table.add(buckets as usize);
        let wanted = gnu_hash(name);
        let mut index = bucket_table.add((wanted % buckets) as usize).read();
        if index < first {
            return false;
        }
        loop {
            let chain = chains.add((index - first) as usize).read();
            if chain | 1 == wanted | 1 {
                let symbol =
                    core::ptr::with_exposed_provenance::<Elf64_Sym>(symbols).add(index as usize).read();
                let text = core::ptr::with_exposed_provenance(strings + symbol.st_name as usize);
                if symbol.st_shndx != 0 && CStr::from_ptr(text).to_bytes() == name {
                    return true;
                }
            }
            if chain & 1 != 0 {
                return false;
            }
            index += 1;
        }
    }
}

/// The hash of the GNU hash section.
fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}
