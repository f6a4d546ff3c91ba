//! A mutational fuzzer for targets that are functions of bytes.
//!
//! The seeds and every input of the target's directory under `tests/fuzz/corpus` are tried first, each unchanged: a finding that
//! was mended stays there. Then inputs are made of the seeds and of those, for a second, or for `FENCEPOST_FUZZ` seconds of processor
//! time. The input that is being tried stands in a file, so that a crash leaves it; a panic names the file.

// Each target uses its part.
#![allow(dead_code)]

use std::borrow::ToOwned;
use std::env;
use std::format;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::println;
use std::string::String;
use std::time::{Duration, Instant};
use std::vec::Vec;

/// Inputs are no longer.
const LONGEST: usize = 64 << 10;
/// What one input may take.
const SLOW: Duration = Duration::from_secs(5);

/// Numbers that lie at borders.
const ODD: [u64; 16] = [
    0,
    1,
    7,
    8,
    0x7f,
    0xff,
    0x1000,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 47,
    1 << 62,
    i64::MAX as u64,
    u64::MAX - 4095,
    u64::MAX - 1,
    u64::MAX,
];

/// Random numbers: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`, 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One that may be odd.
    pub fn odd(&mut self) -> u64 {
        match self.below(3) {
            0 => ODD[self.below(ODD.len())],
            1 => self.next() >> self.below(64),
            _ => 1 << self.below(64),
        }
    }
}

/// Takes values from an input as long as there are bytes, then zeros.
pub struct Taken<'a>(pub &'a [u8]);

impl Taken<'_> {
    /// A byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Eight.
    pub fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// Half of them, or none.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The launcher's crate lies one level below.
    let roots = [directory.to_owned(), directory.join("..")];
    let found = roots.iter().map(|root| root.join("tests/fuzz/corpus").join(name)).find(|path| path.is_dir());
    let entries = found.and_then(|path| fs::read_dir(path).ok()).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

/// Where the input that is being tried stands.
struct Current {
    path: PathBuf,
    map: *mut u8,
}

impl Current {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("fencepost-fuzz-{name}-{}", std::process::id()));
        fs::write(&path, std::vec![0; LONGEST + 8]).expect("the temporary directory is writable");
        let file = fs::File::options().read(true).write(true).open(&path).expect("the file is there");
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: a fresh shared mapping of the file, which is so long.
        let map = unsafe { libc::mmap(core::ptr::null_mut(), LONGEST + 8, access, libc::MAP_SHARED, fd, 0) };
        assert_ne!(map, libc::MAP_FAILED);
        Self { path, map: map.cast() }
    }

    fn set(&self, input: &[u8]) {
        // SAFETY: the mapping is so long and this process's alone; inputs are bounded.
        unsafe {
            self.map.cast::<u64>().write(input.len() as u64);
            self.map.add(8).copy_from_nonoverlapping(input.as_ptr(), input.len());
        }
    }

    /// Leaves the input alone in the file, or no file.
    fn end(self, failed: Option<&[u8]>) {
        // SAFETY: the mapping is this one's.
        unsafe { libc::munmap(self.map.cast(), LONGEST + 8) };
        match failed {
            Some(input) => {
                let _ = fs::write(&self.path, input);
            }
            None => {
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

/// The processor time that this thread has used.
fn time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the answer is live.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Tries inputs made of `seeds` and of the words of `dictionary` on a target, which panics at a finding.
///
/// # Panics
/// At a finding.
pub fn fuzz(name: &str, seeds: &[&[u8]], dictionary: &[&[u8]], mut target: impl FnMut(&[u8])) {
    let seconds = env::var("FENCEPOST_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let seed = env::var("FENCEPOST_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed =
        seed.unwrap_or_else(|| u64::from(std::process::id()) ^ Instant::now().elapsed().as_nanos() as u64);
    println!("{name}: repeat with FENCEPOST_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let current = Current::new(name);
    let mut one = |input: &[u8], path: &Path| -> Result<(), String> {
        let begin = time();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            println!("{name}: the input is in {}", path.display());
            resume_unwind(panic);
        }
        let taken = time() - begin;
        (taken < SLOW).then_some(()).ok_or_else(|| format!("{name}: an input takes {taken:?}"))
    };
    let mut known: Vec<Vec<u8>> = corpus(name);
    known.extend(seeds.iter().map(|seed| (*seed).to_owned()));
    for input in &known {
        current.set(&input[..input.len().min(LONGEST)]);
        one(input, Path::new("the corpus, or a seed")).expect("quick");
    }
    let (begin, mut count) = (time(), 0_u64);
    while time() - begin < Duration::from_secs_f64(seconds) {
        for _ in 0..64 {
            let input = mutated(&mut random, &known, dictionary);
            current.set(&input);
            let path = current.path.clone();
            let tried = catch_unwind(AssertUnwindSafe(|| one(&input, &path)));
            if !matches!(tried, Ok(Ok(()))) {
                current.end(Some(&input));
                match tried {
                    Err(panic) => resume_unwind(panic),
                    Ok(slow) => panic!("{slow:?}"),
                }
            }
            count += 1;
        }
    }
    current.end(None);
    println!("{name}: {count} inputs in {seconds} s, no finding");
}

fn mutated(random: &mut Random, known: &[Vec<u8>], dictionary: &[&[u8]]) -> Vec<u8> {
    let mut input = match known.len() {
        0 => Vec::new(),
        len => known[random.below(len)].clone(),
    };
    for _ in 0..1 + random.below(8) {
        mutate(random, &mut input, known, dictionary);
    }
    input.truncate(LONGEST);
    input
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, known: &[Vec<u8>], dictionary: &[&[u8]]) {
    let len = input.len();
    let at = random.below(len + 1);
    let put = |input: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(place) = input.get_mut(at + index) {
                *place = *byte;
            }
        }
    };
    match random.below(11) {
        0 if len > 0 => input[random.below(len)] ^= 1 << random.below(8),
        1 if len > 0 => input[random.below(len)] = random.next() as u8,
        2 => put(input, at & !7, &random.odd().to_le_bytes()),
        3 => put(input, at & !3, &(random.odd() as u32).to_le_bytes()),
        4 => put(input, at & !1, &(random.odd() as u16).to_le_bytes()),
        5 if !dictionary.is_empty() => {
            let word = dictionary[random.below(dictionary.len())];
            input.splice(at..at, word.iter().copied());
        }
        6 if !dictionary.is_empty() => put(input, at, dictionary[random.below(dictionary.len())]),
        7 => {
            let end = (at + random.below(64)).min(len);
            input.drain(at..end);
        }
        8 => {
            let end = (at + 1 + random.below(64)).min(len);
            let part = input[at.min(end)..end].to_owned();
            let to = random.below(len + 1);
            for _ in 0..1 + random.below(4) {
                input.splice(to..to, part.iter().copied());
            }
        }
        9 if !known.is_empty() => {
            let other = &known[random.below(known.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        10 => {
            let bytes: Vec<u8> = (0..random.below(24)).map(|_| random.next() as u8).collect();
            input.splice(at..at, bytes);
        }
        _ => input.truncate(at),
    }
}
