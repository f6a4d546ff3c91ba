//! The dynamic loader: which loaded object an address belongs to, asked without its lock.
//!
//! `_dl_find_object` (glibc 2.35) is made for unwinders: it takes no lock, allocates nothing and may be
//! called in signal handlers. It is looked up as a weak symbol, so that a C library without it leaves a
//! null in the offset table, and nobody has to call `dlsym`.

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
