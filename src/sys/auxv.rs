//! What the kernel gave the process at its start: the auxiliary vector, the environment, and random bytes.
//!
//! The environment is read raw: no `getenv`, which a program may have replaced and which may lock.

use super::thread;
use core::ffi::CStr;
use libc::c_char;

/// Whether the kernel asks for secure execution (a setuid program, for one): then the environment
/// is not to be trusted and no file named by it may be written.
pub fn secure() -> bool {
    // SAFETY: getauxval reads the process's own auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The 16 random bytes the kernel gave the process at its start, as two numbers.
pub fn random() -> Option<[u64; 2]> {
    // SAFETY: getauxval reads the process's own auxiliary vector, which stays as it is.
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
    // SAFETY: getauxval reads the process's own auxiliary vector, which stays as it is.
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
    // SAFETY: getauxval reads the process's own auxiliary vector, which stays as it is.
    usize::try_from(unsafe { libc::getauxval(libc::AT_ENTRY) }).unwrap_or(0)
}

unsafe extern "C" {
    /// Under the name that is the C library's alone: a program may have an `environ` of its own.
    #[link_name = "__environ"]
    static environ: *const *const c_char;
}

/// The value of the variable called `name`. It borrows from the process's environment block, which
/// lives as long as nobody changes that variable: read it at start, before the program runs.
pub fn variable(name: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: the C library keeps `environ` null or pointing at a null-terminated array.
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return None;
    }
    loop {
        // SAFETY: `entry` is within the array: the loop ends at its null terminator.
        let text = unsafe { *entry };
        if text.is_null() {
            return None;
        }
        // SAFETY: each entry is a NUL-terminated string of the environment block.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        if let Some([b'=', value @ ..]) = bytes.strip_prefix(name) {
            return Some(value);
        }
        // SAFETY: the entry was not null, so the array has a further element.
        entry = unsafe { entry.add(1) };
    }
}

/// A 32-byte key. From `getrandom`; where that is forbidden or absent, from the bytes the kernel
/// placed in the auxiliary vector, the clock and this process's addresses, which is weaker but never
/// blocks or fails.
pub fn key() -> [u8; 32] {
    let mut key = [0_u8; 32];
    let mut filled = 0;
    while let Some(rest) = key.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is a live, exclusively borrowed buffer of that length.
        let count =
            unsafe { libc::syscall(libc::SYS_getrandom, rest.as_mut_ptr(), rest.len(), libc::GRND_NONBLOCK) };
        match usize::try_from(count) {
            Ok(count) if count > 0 => filled = filled.saturating_add(count),
            _ if super::errno::get() == libc::EINTR => {}
            _ => return weak_key(),
        }
    }
    key
}

fn weak_key() -> [u8; 32] {
    let [low, high] = random().unwrap_or_default();
    let here = &raw const low as usize as u64;
    let words = [
        low ^ thread::clock_ns(),
        high.rotate_left(17) ^ here,
        low.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(thread::pid()),
        high ^ thread::clock_ns().rotate_left(32),
    ];
    let mut key = [0; 32];
    for (chunk, word) in key.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    key
}
