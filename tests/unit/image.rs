//! The heap of a process, as another reads it.

use super::*;
use crate::sys::vm;

/// This process, read as another would be.
struct Own;

impl Memory for Own {
    fn read(&self, address: usize, buffer: &mut [u8]) -> bool {
        vm::peek(Addr::new(address), buffer) == buffer.len()
    }
}

#[repr(align(64))]
struct Copy([u8; size_of::<Anchor>()]);

#[test]
fn anchors_that_are_not_known_are_refused() {
    let mut copy = Copy([0; size_of::<Anchor>()]);
    let at = Addr::of(&raw const copy.0).get();
    let open = |copy: &Copy| {
        core::hint::black_box(copy);
        Image::open(&Own, at).map(|_| ()).err()
    };
    assert_eq!(open(&copy), Some(Refusal::None));
    copy.0[..16].copy_from_slice(&MAGIC);
    copy.0[16..24].copy_from_slice(&VERSION.to_le_bytes());
    assert_eq!(open(&copy), Some(Refusal::Unused));
    copy.0[24..32].copy_from_slice(&(at as u64).to_le_bytes());
    assert_eq!(open(&copy), None);
    copy.0[16..24].copy_from_slice(&(VERSION + 1).to_le_bytes());
    assert_eq!(open(&copy), Some(Refusal::Version(VERSION + 1)));
    assert_eq!(Image::open(&Own, 8).map(|_| ()).err(), Some(Refusal::None));
}

#[test]
fn an_anchor_full_of_garbage_is_survived() {
    for seed in 1..200_u64 {
        let mut word = seed;
        let mut copy = Copy([0; size_of::<Anchor>()]);
        for bytes in copy.0.chunks_exact_mut(8) {
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) >> (seed % 50);
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let image = Image { memory: &Own, anchor: Anchor::from_bytes(&copy.0) };
        for address in [0, 8, usize::MAX, seed as usize, Addr::of(&raw const copy).get()] {
            let _ = image.find(Addr::new(address));
        }
        let _ = image.stack(seed as u32);
        let _ = (image.totals(), image.errors(), image.options(&mut [0; 64]).is_some());
    }
}
