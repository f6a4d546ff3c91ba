//! Random bytes from the kernel.

use super::{aux, thread};

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
    let [low, high] = aux::random().unwrap_or_default();
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
