//! A fuzz target for the heap seen from another process: whatever its memory holds, there is an answer.
//!
//! A module of the crate's own tests.

use super::{ALIGN, Image, MAGIC, Memory, VERSION};
use crate::addr::Addr;
use crate::mutate::fuzz;
use std::vec::Vec;

/// A MiB of memory that holds an input again and again.
struct Repeated<'a>(&'a [u8]);

const ANCHOR: usize = 0x10_0000;
const BYTES: usize = 1 << 20;

impl Memory for Repeated<'_> {
    fn read(&self, address: usize, buffer: &mut [u8]) -> bool {
        let inside =
            address.checked_sub(ANCHOR).is_some_and(|from| from < BYTES && buffer.len() <= BYTES - from);
        if self.0.is_empty() || !inside {
            return false;
        }
        for (index, byte) in buffer.iter_mut().enumerate() {
            *byte = self.0[address.wrapping_sub(ANCHOR).wrapping_add(index) % self.0.len()];
        }
        true
    }
}

#[test]
fn fuzz_images() {
    let mut seed: Vec<u8> = MAGIC.to_vec();
    let base = ANCHOR as u64;
    let words = [
        VERSION,
        base,
        1 << 40,
        1 << 30,
        base,
        base,
        base + 512,
        100,
        1 << 41,
        1 << 30,
        20,
        base,
        9,
        base,
        99,
        4096,
        base,
        base,
    ];
    words.iter().for_each(|word| seed.extend_from_slice(&word.to_le_bytes()));
    seed.resize(1024, 3);
    let addresses: Vec<[u8; 8]> =
        [base, 1 << 40, 1 << 41, u64::MAX, 1 << 60].iter().map(|word: &u64| word.to_le_bytes()).collect();
    let dictionary: Vec<&[u8]> = addresses.iter().map(|word| &word[..]).collect();
    fuzz("images", &[&seed], &dictionary, |input| {
        // What is opened has the right words at its start, whatever follows.
        let mut input = input.to_vec();
        let head = seed.len().min(32);
        if input.len() < head {
            return;
        }
        input[..head].copy_from_slice(&seed[..head]);
        let memory = Repeated(&input);
        let image = Image::open(&memory, ANCHOR / ALIGN * ALIGN).expect("the first words are right");
        for address in [0, 8, ANCHOR, 1 << 40, (1 << 40) + 4096, 1 << 41, (1 << 41) + 5000, usize::MAX] {
            let _ = std::format!("{:?}", image.find(Addr::new(address)));
        }
        for number in [0, 1, 50, u32::MAX] {
            assert!(image.stack(number).len() <= crate::trace::MAX_FRAMES);
        }
    });
}
