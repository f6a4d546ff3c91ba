//! The auxiliary vector.

/// Whether the kernel asks for secure execution (a setuid program, for one): then the environment
/// is not to be trusted and no file named by it may be written.
pub fn secure() -> bool {
    // SAFETY: getauxval reads the process's own auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The 16 random bytes the kernel gave the process at its start, as two numbers.
pub fn random() -> Option<[u64; 2]> {
    // SAFETY: as above.
    let address = unsafe { libc::getauxval(libc::AT_RANDOM) };
    let pointer = core::ptr::with_exposed_provenance::<[u64; 2]>(usize::try_from(address).ok()?);
    if pointer.is_null() {
        return None;
    }
    // SAFETY: AT_RANDOM, when present, is the address of 16 bytes that live as long as the process.
    Some(unsafe { pointer.read_unaligned() })
}

/// One past the bytes of the first thread's stack: the kernel places the program's name above it.
pub fn stack_end() -> crate::addr::Addr {
    // SAFETY: as above.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) };
    crate::addr::Addr::new(usize::try_from(name).unwrap_or(0))
}

/// The name that the program was started by.
pub fn program() -> Option<&'static [u8]> {
    // SAFETY: getauxval reads the process's own auxiliary vector.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let pointer = core::ptr::with_exposed_provenance::<libc::c_char>(usize::try_from(address).ok()?);
    // SAFETY: AT_EXECFN, when present, is the address of a string that lives as long as the process.
    (!pointer.is_null()).then(|| unsafe { core::ffi::CStr::from_ptr(pointer) }.to_bytes())
}

/// Where the program's own code starts, an address in the object that is the program.
pub fn entry() -> usize {
    // SAFETY: as above.
    usize::try_from(unsafe { libc::getauxval(libc::AT_ENTRY) }).unwrap_or(0)
}
