//! Random numbers: ChaCha8 in blocks of 256 bytes, kept in pages that the kernel wipes in a forked child.
//!
//! A generator whose page was wiped has `seeded == 0` and no bytes left, so the next draw takes a new key. So parent
//! and child never share a stream, whether the child came by `fork` or by a raw `clone`. A handler may fork in the
//! middle of a draw, which the child then finishes. So each draw reads `seeded` after its other reads, and begins anew
//! if the page was wiped meanwhile. Where the kernel does not wipe, because it has no `MADV_WIPEONFORK` or only says
//! that it does, the fork hook does the same by [`Rng::forget`].
//!
//! With a fixed `seed` option the n-th generator of a process has the key (seed, n, the process's position among forked
//! children), so a single-threaded run can be repeated. The children of a bare `clone` are not counted; the key of one
//! has its process id.

use crate::sys::{auxv, thread};
use core::convert::Infallible;
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use rand::{RngExt, TryRng};
use rand_chacha::ChaCha8Core;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::rand_core::block::Generator;

const WORDS: usize = 64;
/// Bytes of one block of output.
const BLOCK: usize = WORDS * 4;

/// The seed option, 0 for keys from the kernel.
static SEED: AtomicU64 = AtomicU64::new(0);
/// Generators keyed so far.
static STREAMS: AtomicU64 = AtomicU64::new(0);

/// Forks so far, of this process.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Which child of which child the process is: 0 for none.
static LINEAGE: AtomicU64 = AtomicU64::new(0);

/// Counts a fork, before it, if keys depend on which it is; its number, from 1. Nothing is written else: the page would
/// be written at each fork, and each time fault.
pub fn count_fork() -> Option<u64> {
    (SEED.load(Ordering::Relaxed) != 0).then(|| FORKS.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
}

/// In a forked child, by the number of its fork: its keys are no other process's.
pub fn begin_child(number: u64) {
    if SEED.load(Ordering::Relaxed) == 0 {
        return;
    }
    FORKS.store(0, Ordering::Relaxed);
    let line = LINEAGE.load(Ordering::Relaxed).rotate_left(23) ^ number;
    // By an odd number, so that no two children of one process are alike.
    LINEAGE.store(line.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
}

/// Sets the seed for generators made from now on.
pub fn set_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
}

/// A generator. All zero bytes are a valid value: one that takes a key at the first draw.
#[repr(C)]
pub struct Rng {
    /// Bytes of `block` not used yet.
    left: u32,
    /// 1 once `core` holds a key.
    seeded: u32,
    block: [u32; WORDS],
    core: core::mem::MaybeUninit<ChaCha8Core>,
}

impl Rng {
    /// A generator without a key.
    pub const fn new() -> Self {
        Self { left: 0, seeded: 0, block: [0; WORDS], core: core::mem::MaybeUninit::uninit() }
    }

    /// Drops the key, so that the next draw takes a new one.
    pub fn forget(&mut self) {
        self.left = 0;
        self.seeded = 0;
    }

    /// Whether it has a key.
    pub fn has_key(&self) -> bool {
        self.seeded != 0
    }

    /// Whether the key that the draw began with is still there. What was read before is not read after.
    #[inline(always)]
    fn is_seeded(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: reads a live field; not a plain read, since the kernel may clear it at any moment.
        unsafe { (&raw const self.seeded).read_volatile() != 0 }
    }

    /// A random byte.
    #[inline(always)]
    pub fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.fill(&mut byte);
        byte[0]
    }

    /// Fills `out` with random bytes.
    #[inline]
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // SAFETY: `left` is a field of this generator, which is borrowed. The read is volatile because a
            // fork may wipe the page.
            let left = unsafe { (&raw const self.left).read_volatile() } as usize;
            if left == 0 {
                self.refill_slow();
                continue;
            }
            let count = rest.len().min(left).min(BLOCK);
            // SAFETY: the bytes lie in the block, which is plain words and readable as bytes, and are not in `out`.
            unsafe {
                let from = (&raw const self.block).cast::<u8>().add((left - count) % BLOCK);
                from.copy_to_nonoverlapping(rest.as_mut_ptr(), count);
            }
            if self.is_seeded() {
                self.left = (left - count) as u32;
                filled += count;
            } else {
                self.forget();
            }
        }
    }

    /// A random number.
    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number below `bound`, each as likely as the others; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.random_range(0..bound) }
    }

    #[cold]
    #[inline(never)]
    fn refill_slow(&mut self) {
        loop {
            if !self.is_seeded() {
                self.seeded = 1;
                compiler_fence(Ordering::SeqCst);
                self.core.write(ChaCha8Core::from_seed(fresh_key()));
            }
            // SAFETY: `seeded` says that a key was written. Where it was wiped since the core is zeros, which are one.
            unsafe { self.core.assume_init_mut() }.generate(&mut self.block);
            self.left = BLOCK as u32;
            if self.is_seeded() {
                return;
            }
        }
    }
}

/// What the distributions of `rand` draw from.
impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(Self::next_u64(self))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

fn fresh_key() -> [u8; 32] {
    let stream = STREAMS.fetch_add(1, Ordering::Relaxed);
    match SEED.load(Ordering::Relaxed) {
        0 => auxv::key(),
        seed => {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            key[8..16].copy_from_slice(&stream.to_le_bytes());
            key[16..24].copy_from_slice(&LINEAGE.load(Ordering::Relaxed).to_le_bytes());
            if !thread::is_own_process() {
                key[24..28].copy_from_slice(&thread::pid().to_le_bytes());
            }
            key
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a seed each generator and each child has numbers of its own; each part runs in a process of its own, since a seed
    /// is for the process: this binary executes itself.
    #[test]
    fn generators_and_children_go_their_own_ways() {
        if std::env::var_os("FENCEPOST_SEEDED").is_some() {
            thread::own_process();
            set_seed(7);
            let mut drawn = std::vec![Rng::new().next_u64(), Rng::new().next_u64()];
            for number in [1, 2] {
                LINEAGE.store(0, Ordering::Relaxed);
                STREAMS.store(0, Ordering::Relaxed);
                begin_child(number);
                drawn.push(Rng::new().next_u64());
            }
            std::println!("drew {drawn:x?}");
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 4);
            return;
        }
        let run = || {
            let this = std::env::current_exe().expect("the system knows which file this is");
            let mut command = std::process::Command::new(this);
            command.args(["rng::tests::generators_and_children_go_their_own_ways", "--exact", "--nocapture"]);
            let output = command.env("FENCEPOST_SEEDED", "1").output().expect("it can be executed");
            let text = std::string::String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}");
            text.lines().find_map(|line| Some(std::string::String::from(line.split_once("drew ")?.1)))
        };
        let first = run();
        assert!(first.is_some() && first == run(), "the same seed, the same numbers");
    }

    #[test]
    fn a_forgotten_key_is_replaced() {
        let mut rng = Rng::new();
        let first = rng.next_u64();
        rng.forget();
        assert_ne!(first, rng.next_u64());
    }

    /// A handler that forks in the middle of a draw: its child finds the page wiped there, whatever was read before.
    #[test]
    fn no_wiped_byte_is_handed_out() {
        for left in [1, 7, 200] {
            let mut rng = Rng::new();
            rng.next_u64();
            // As a wiped page looks to a draw that has read how much was left, or has yet to write it.
            (rng.left, rng.seeded, rng.block) = (left, 0, [0; WORDS]);
            let mut drawn = [0; 64];
            rng.fill(&mut drawn);
            // 64 random bytes: six zeros or more in one of 200,000 runs.
            assert!(drawn.iter().filter(|byte| **byte == 0).count() < 6, "{drawn:?}");
        }
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::new();
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        // 1000 expected, standard deviation 30: ten of them either way.
        assert!(seen.iter().all(|count| (700..1300).contains(count)), "{seen:?}");
    }
}
