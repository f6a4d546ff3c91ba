//! The dynamic loader: which loaded object an address belongs to, without the loader's lock; and keeping the object
//! with this code loaded.
//!
//! `_dl_find_object` (glibc 2.35) is made for unwinders: it takes no lock, allocates nothing and may be called in
//! signal handlers. It is a weak symbol here. So a C library without it leaves a null in the offset table, and no
//! `dlsym` is needed.

use core::arch::asm;
use core::mem::MaybeUninit;
use libc::{c_int, c_void};

/// What the loader fills in, as its header declares it for x86-64.
#[repr(C)]
struct FoundObject {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// A loaded object: the addresses it is mapped at, and where its `.eh_frame_hdr` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mapped {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The header of its unwind tables.
    pub eh_frame_hdr: usize,
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

/// The loaded object that `address` lies in. `None` where there is none, where it has no unwind tables,
/// and with a C library that cannot say.
pub fn object_of(address: usize) -> Option<Mapped> {
    let symbol: usize;
    // SAFETY: loads the symbol's address, or null, from the global offset table.
    unsafe {
        asm!(
            ".weak _dl_find_object",
            "mov {symbol}, qword ptr [rip + _dl_find_object@GOTPCREL]",
            symbol = out(reg) symbol,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    if symbol == 0 {
        return None;
    }
    let mut found = MaybeUninit::<FoundObject>::uninit();
    // SAFETY: the symbol, where it is defined, is a function of this type, which fills the structure and
    // looks at no byte of the address's.
    let found = unsafe {
        let find = core::mem::transmute::<usize, FindObject>(symbol);
        match find(core::ptr::without_provenance_mut(address), found.as_mut_ptr()) {
            0 => found.assume_init(),
            _ => return None,
        }
    };
    let mapped = Mapped {
        start: found.map_start.expose_provenance(),
        end: found.map_end.expose_provenance(),
        eh_frame_hdr: found.eh_frame.expose_provenance(),
    };
    let inside = mapped.start < mapped.eh_frame_hdr && mapped.eh_frame_hdr < mapped.end;
    inside.then_some(mapped)
}

/// What the search for this code's own object finds.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
struct Own {
    /// An address in it.
    address: usize,
    /// The name it was loaded by; null for the program, which nobody closes, and for an object that says of itself
    /// that it stays.
    name: *const libc::c_char,
}

/// Keeps the object that this code is in loaded for good.
///
/// Once the heap is set up, the C library calls it at the end of each thread, around a fork and for a signal, and the
/// objects it gave out are in its mappings: it must not go when a library that has it as its allocator is closed. The
/// loader runs this with the object's constructors, in the thread that opens it, which may ask it for more; the first
/// allocation may be another thread's, for which a constructor waits.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
extern "C" fn stay_loaded() {
    let mut own = Own { address: stay_loaded as *const () as usize, name: core::ptr::null() };
    // SAFETY: the callback has the right type and is done with its arguments when this returns.
    unsafe { libc::dl_iterate_phdr(Some(find_own), (&raw mut own).cast::<c_void>()) };
    if own.name.is_null() {
        return;
    }
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the name is the loader's own of an object that is loaded. The handle is never closed.
    unsafe { libc::dlopen(own.name, flags) };
}

#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static STAY_LOADED: extern "C" fn() = stay_loaded;

/// Ends the iteration at the object that holds `own.address`, and notes its name if it needs keeping.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
unsafe extern "C" fn find_own(info: *mut libc::dl_phdr_info, _size: usize, own: *mut c_void) -> c_int {
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_NODELETE: u64 = 8;
    // SAFETY: `stay_loaded` passes its own, which nobody else uses meanwhile; the loader a live description.
    let (info, own) = unsafe { (&*info, &mut *own.cast::<Own>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader passes the object's program headers and their number.
    let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let offset = own.address.wrapping_sub(info.dlpi_addr as usize);
    let holds = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD
            && offset.wrapping_sub(header.p_vaddr as usize) < header.p_memsz as usize
    };
    if !headers.iter().any(|header| holds(&header)) {
        return 0;
    }
    // SAFETY: the loader's name of an object is a C string.
    let is_program = info.dlpi_name.is_null() || unsafe { info.dlpi_name.read() } == 0;
    let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
    let stays = dynamic.is_some_and(|dynamic| {
        let start = info.dlpi_addr.wrapping_add(dynamic.p_vaddr) as usize;
        let mut entry = core::ptr::with_exposed_provenance::<[u64; 2]>(start);
        loop {
            // SAFETY: the object is mapped; its dynamic section is an array of pairs that ends with a zero tag.
            match unsafe { entry.read() } {
                [0, _] => return false,
                [DT_FLAGS_1, flags] => return flags & DF_1_NODELETE != 0,
                // SAFETY: the section goes on until its zero tag.
                _ => entry = unsafe { entry.add(1) },
            }
        }
    });
    if !is_program && !stays {
        own.name = info.dlpi_name;
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_lie_in_the_object_they_are_of() {
        let here = (functions_lie_in_the_object_they_are_of as fn()) as usize;
        let mine = object_of(here).expect("this test has unwind tables");
        assert!((mine.start..mine.end).contains(&here));
        let other = object_of(libc::getpid as *const () as usize).expect("so has the C library");
        assert!(other.end <= mine.start || mine.end <= other.start);
    }

    #[test]
    fn data_and_wild_addresses_are_in_no_object() {
        let local = 0_u8;
        for address in [0, 1, usize::MAX, (&raw const local).addr()] {
            assert_eq!(object_of(address), None);
        }
    }
}
