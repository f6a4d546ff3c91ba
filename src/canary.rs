//! Canary words, which both allocators put around objects: a keyed function of an address. Pure.
//!
//! ```text
//! word = fold((address ^ whitener) × multiplier)     the product's high half xor its low half
//! byte:  | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |           byte 1 is 0 in slots; all others are odd, 0x81 to 0xbf
//! ```
//!
//! **What a word tells.** Both keys are secret, independent and of 64 bits. A word shows 35 bits. The words of two
//! addresses differ by the multiplier times a distance whose sign the whitener decides bit by bit. So one word tells
//! nothing of another: for every other address each value of each byte is as likely as any other. An attacker who reads
//! many words of one allocator can in principle solve for its keys. Each allocator has keys of its own, and a slot
//! keeps its word as long as its slab has memory.
//!
//! **Which writes of one byte go unseen.** A 0 on byte 1 of a word, and the value that is there already: one of 32,
//! odd, from 0x81 to 0xbf. Text, a NUL, small numbers, even numbers and 0xc0 to 0xff are seen on every byte for
//! certain, except for the NUL on byte 1. Byte 0 lies behind an object and byte 7 before the next one, so an overflow
//! or underflow by one byte meets an odd byte. Byte 1 ends a string that is read past its object.

/// Bits that an address decides.
const FREE: u64 = 0x3e3e_3e3e_3e3e_3e3e;
/// Bits that are always set.
const SET: u64 = 0x8181_8181_8181_8181;
/// The byte that is 0.
const ZERO: u64 = 0xff00;

/// The bits that all words have in common, and their values. Of the lowest bytes a pointer's displacement may have changed
/// some, and byte 1 is 0 in slots.
const COMMON: u64 = 0xc1c1_c1c1_c1c1_0000;

/// Whether a value looks like a word, or like one to which a small number was added. Of random values one in 2^18 does; a
/// byte that is repeated, as others fill memory with, does not.
pub const fn resembles_word(value: u64) -> bool {
    let repeated = (value ^ value.rotate_left(8)) >> 24 == 0;
    value & COMMON == SET & COMMON && !repeated
}

/// A value that looks like a word without what is secret of it.
pub const fn without_secret(value: u64) -> u64 {
    value & !FREE
}

/// What an allocator has put at an address, for dumps of memory: canaries must not be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing: bytes of the program, or cleared ones.
    Program,
    /// A canary, this byte of it unless it was overwritten.
    Canary(u8),
    /// This byte of a canary, if it is that: else nothing.
    Perhaps(u8),
    /// It is not to be told: another thread is changing it.
    Withheld,
}

/// The secret of one allocator's words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Key {
    whitener: u64,
    multiplier: u64,
    /// The masks of [`Key::word`]. As operands in memory, beside the keys, they save the fast paths the making of 64-bit
    /// constants.
    free: u64,
    set: u64,
}

impl Key {
    /// A key of two random numbers.
    pub const fn new(whitener: u64, multiplier: u64) -> Self {
        Self { whitener, multiplier, free: FREE & !ZERO, set: SET & !ZERO }
    }

    /// The word of an address, with its byte 1 zero.
    #[inline(always)]
    pub const fn word(&self, address: usize) -> u64 {
        self.fold(address) & self.free | self.set
    }

    /// The word of an address without a zero byte.
    #[inline(always)]
    pub const fn word_without_zero(&self, address: usize) -> u64 {
        self.fold(address) & FREE | SET
    }

    #[inline(always)]
    const fn fold(&self, address: usize) -> u64 {
        let product = (address as u64 ^ self.whitener) as u128 * self.multiplier as u128;
        (product >> 64) as u64 ^ product as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Numbers to draw keys from, the same in every run (splitmix64).
    struct Draws(u64);

    impl Draws {
        fn next_u64(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }
    }

    fn key(draws: &mut Draws) -> Key {
        Key::new(draws.next_u64(), draws.next_u64())
    }

    /// The five free bits of each byte but the zero.
    fn parts(word: u64) -> [usize; 7] {
        [0, 2, 3, 4, 5, 6, 7].map(|byte| (word >> (8 * byte + 1) & 31) as usize)
    }

    /// Distances between slot ends, near and far.
    const DISTANCES: [usize; 10] = [16, 32, 48, 64, 80, 128, 1040, 4096, 1 << 20, 1 << 36];

    const ROUNDS: usize = 32_000;

    /// Chi squared of counts that should be equal.
    fn chi_squared(counts: &[usize]) -> f64 {
        let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum()
    }

    /// With 31 degrees of freedom chi squared exceeds this once in a million times.
    const LIKELY: f64 = 85.0;

    #[test]
    fn words_have_their_form() {
        let mut draws = Draws(1);
        for _ in 0..1000 {
            let (key, address) = (key(&mut draws), draws.next_u64() as usize & !15);
            for (index, byte) in key.word(address).to_le_bytes().into_iter().enumerate() {
                assert!(if index == 1 { byte == 0 } else { byte & 0xc1 == 0x81 }, "{index} {byte:x}");
            }
            assert!(key.word_without_zero(address).to_le_bytes().iter().all(|byte| byte & 0xc1 == 0x81));
        }
    }

    /// Words are recognised, with a field's offset added, too; text, small numbers and addresses are not.
    #[test]
    fn words_are_told_from_other_values() {
        let mut draws = Draws(3);
        for _ in 0..1000 {
            let (key, address) = (key(&mut draws), draws.next_u64() as usize & !15);
            for word in [key.word(address), key.word_without_zero(address)] {
                assert!(resembles_word(word) && resembles_word(word.wrapping_add(0x38)), "{word:x}");
                assert_eq!(without_secret(word) & !0xffff, 0x8181_8181_8181_0000);
            }
        }
        let values = [
            0,
            8,
            u64::MAX,
            0x7fff_1234_5678,
            0x4141_4141_4141_4141,
            0xa5a5_a5a5_a5a5_a5a5,
            0xc3a4_c3a4_c3a4_c3a4,
        ];
        assert!(values.iter().all(|value| !resembles_word(*value)));
        assert!((0..1 << 16).filter(|_| resembles_word(draws.next_u64())).count() < 8);
    }

    /// Whatever is done with a word and an address, another's word is no likelier to come of it: over keys, each
    /// byte of the xor and of the difference of two words takes every value equally often.
    #[test]
    fn a_word_tells_nothing_of_another() {
        let mut draws = Draws(1);
        for distance in DISTANCES {
            let mut xors = [[0; 32]; 7];
            let mut differences = [[0; 32]; 7];
            for _ in 0..ROUNDS {
                let key = key(&mut draws);
                let address = 0x7f00_0000_0000 + (draws.next_u64() as usize & 0xff_ffff_fff0);
                let (one, other) = (key.word(address), key.word(address + distance));
                for (byte, (one, other)) in parts(one).into_iter().zip(parts(other)).enumerate() {
                    xors[byte][one ^ other] += 1;
                    differences[byte][(32 + one - other) % 32] += 1;
                }
            }
            for counts in xors.iter().chain(&differences) {
                let chi = chi_squared(counts);
                assert!(chi < LIKELY, "{distance}: {chi}");
            }
        }
    }

    /// What holds between one pair of words holds between no other pair of the same key: one relation that was read is
    /// not carried on.
    #[test]
    fn a_relation_of_two_words_is_not_that_of_the_next() {
        let mut draws = Draws(1);
        for distance in DISTANCES {
            let (mut same_xor, mut same_difference) = (0, 0);
            for _ in 0..ROUNDS {
                let key = key(&mut draws);
                let address = 0x7f00_0000_0000 + (draws.next_u64() as usize & 0xff_ffff_fff0);
                let [a, b, c] = [0, 1, 2].map(|step| key.word(address + step * distance));
                same_xor += usize::from(a ^ b == b ^ c);
                same_difference += usize::from(b.wrapping_sub(a) == c.wrapping_sub(b));
            }
            assert!(same_xor < 4 && same_difference < 4, "{distance}: {same_xor} {same_difference}");
        }
    }

    /// With one key every byte of the words of a class's slots takes all values, wherever the slots lie.
    #[test]
    fn every_byte_varies_along_a_slab() {
        let mut draws = Draws(1);
        for size in [16, 32, 80, 1040] {
            let mut distinct = [0; 7];
            for _ in 0..64 {
                let (key, start) =
                    (key(&mut draws), 0x7f00_0000_0000 + (draws.next_u64() as usize & !0xfff) % (1 << 36));
                let words: Vec<_> = (1..4096).map(|slot| parts(key.word(start + slot * size))).collect();
                for (byte, distinct) in distinct.iter_mut().enumerate() {
                    let seen = words.iter().fold(0_u32, |seen, word| seen | 1 << word[byte]);
                    *distinct += seen.count_ones();
                }
            }
            for (byte, distinct) in distinct.iter().enumerate() {
                assert!(*distinct > 64 * 24, "{size}: byte {byte} takes {distinct} of {} values", 64 * 32);
            }
        }
    }

    /// The words of one allocator are no help with the other's keys.
    #[test]
    fn keys_are_independent() {
        let mut draws = Draws(1);
        let mut counts = [[0; 32]; 7];
        for _ in 0..ROUNDS {
            let (one, other) = (key(&mut draws), key(&mut draws));
            let address = 0x7f00_0000_0000 + (draws.next_u64() as usize & 0xff_ffff_fff0);
            let both = parts(one.word(address)).into_iter().zip(parts(other.word_without_zero(address)));
            for (counts, (one, other)) in counts.iter_mut().zip(both) {
                counts[one ^ other] += 1;
            }
        }
        assert!(counts.iter().all(|counts| chi_squared(counts) < LIKELY));
    }
}
