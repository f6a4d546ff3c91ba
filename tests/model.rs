//! The model test: random operations through `Fencepost` as a `GlobalAlloc`, beside an oracle that knows
//! what every live object must contain and where it lies.
//!
//! After each operation: the object is aligned, overlaps no other, has its size, reads as zero where that
//! was asked for, and holds what was written, in full, whenever it is resized or freed. In between the
//! allocator checks itself, and must find nothing.
//!
//! Options are a process's, so this binary executes itself for each set of them. A failed run prints its
//! seed; set it as `FENCEPOST_TEST_SEED` to repeat the operations, and the options' `seed` to repeat the
//! placement.

#[path = "model/random.rs"]
mod random;
mod support;

use fencepost::Fencepost;
use fencepost::addr::Addr;
use random::Random;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::env;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT};

/// Names the largest size, and with it says that this process is to run the operations.
const MOST: &str = "FENCEPOST_MODEL_MOST";

const OPERATIONS: usize = 8_000;
/// Operations between two checks of everything.
const CHECK_EVERY: usize = 2_000;
/// The most live objects, and the most bytes in them.
const LIVE_OBJECTS: usize = 1_500;
const LIVE_BYTES: usize = 32 << 20;
const MAX_ALIGN: usize = 64 << 10;
/// Contents start at one of so many places of the pattern.
const PATTERN_STARTS: usize = 64 << 10;

#[test]
fn operations() {
    let Ok(most) = env::var(MOST) else { return };
    let most = most.parse().expect("the largest size is a number");
    let seed = random::seed();
    println!("repeat with {}", random::again(seed));
    let mut model = Model::new(seed, most);
    for count in 1..=OPERATIONS {
        model.step(most);
        if count.is_multiple_of(CHECK_EVERY) {
            assert_eq!(model.heap.check(), 0, "false alarm after {count} operations");
        }
    }
    while model.free() {}
    assert_eq!(model.heap.check(), 0, "false alarm at the end");
}

/// A live object: everything the oracle knows of it but its address.
#[derive(Clone, Copy)]
struct Object {
    layout: Layout,
    /// Where its contents start in the pattern.
    from: usize,
}

struct Model {
    heap: Fencepost,
    random: Random,
    /// By address.
    live: BTreeMap<usize, Object>,
    /// Their addresses, to choose one from.
    addresses: Vec<usize>,
    /// Bytes in live objects.
    bytes: usize,
    /// Random bytes, which every object's contents are a part of.
    pattern: Vec<u8>,
}

impl Model {
    fn new(seed: u64, most: usize) -> Self {
        let mut random = Random::new(seed);
        let pattern = (0..most + PATTERN_STARTS).map(|_| random.next() as u8).collect();
        Self {
            heap: Fencepost::new(),
            random,
            live: BTreeMap::new(),
            addresses: Vec::new(),
            bytes: 0,
            pattern,
        }
    }

    fn step(&mut self, most: usize) {
        let full = self.live.len() >= LIVE_OBJECTS || self.bytes >= LIVE_BYTES;
        match self.random.below(8) {
            _ if full => {
                self.free();
            }
            0..=3 => self.allocate(most),
            4..=5 => self.resize(most),
            _ => {
                self.free();
            }
        }
    }

    fn allocate(&mut self, most: usize) {
        let size = self.random.size(most);
        let align = self.alignment();
        let layout = Layout::from_size_align(size, align).expect("small");
        let zeroed = self.random.below(3) == 0;
        // SAFETY: the size is not zero.
        let pointer =
            unsafe { if zeroed { self.heap.alloc_zeroed(layout) } else { self.heap.alloc(layout) } };
        assert!(!pointer.is_null(), "no memory for {layout:?}");
        if zeroed {
            // SAFETY: the object was just allocated with this size, and all of it written.
            let bytes = unsafe { std::slice::from_raw_parts(pointer, size) };
            assert_eq!(bytes.iter().position(|byte| *byte != 0), None, "{layout:?} is not clear");
        }
        self.insert(pointer, layout);
    }

    /// Mostly small alignments, sometimes any up to the largest.
    fn alignment(&mut self) -> usize {
        let bits = match self.random.below(4) {
            0 => self.random.below(MAX_ALIGN.ilog2() as usize + 1),
            _ => self.random.below(5),
        };
        1 << bits
    }

    fn resize(&mut self, most: usize) {
        let Some((pointer, object)) = self.take() else { return };
        // Now and then only a little, as growing vectors and strings do.
        let size = match self.random.below(3) {
            0 => (object.layout.size() + self.random.below(64)).min(most),
            _ => self.random.size(most),
        };
        // SAFETY: the object is live, with this layout; the size is not zero.
        let new = unsafe { self.heap.realloc(pointer, object.layout, size) };
        assert!(!new.is_null(), "no memory to resize {:?} to {size}", object.layout);
        let kept = Object {
            layout: Layout::from_size_align(size.min(object.layout.size()), 1).expect("small"),
            ..object
        };
        self.compare(new, &kept, "after a resize");
        self.insert(new, Layout::from_size_align(size, object.layout.align()).expect("small"));
    }

    /// Frees a random object; `false` if there is none.
    fn free(&mut self) -> bool {
        let Some((pointer, object)) = self.take() else { return false };
        // SAFETY: the object is live, with this layout.
        unsafe { self.heap.dealloc(pointer, object.layout) };
        true
    }

    /// Takes a random object out of the oracle, its contents compared.
    fn take(&mut self) -> Option<(*mut u8, Object)> {
        let count = self.addresses.len();
        if count == 0 {
            return None;
        }
        let address = self.addresses.swap_remove(self.random.below(count));
        let object = self.live.remove(&address).expect("the addresses are those of the live objects");
        self.bytes -= object.layout.size();
        let pointer = std::ptr::with_exposed_provenance_mut(address);
        self.compare(pointer, &object, "while it was live");
        Some((pointer, object))
    }

    /// Checks where a new object lies and writes its contents.
    fn insert(&mut self, pointer: *mut u8, layout: Layout) {
        let start = pointer.expose_provenance();
        assert!(start.is_multiple_of(layout.align()), "{start:#x} for {layout:?}");
        let known = fencepost::heap::size_of(Addr::new(start));
        assert_eq!(known, Some(layout.size()), "{start:#x} for {layout:?}");
        let end = start + layout.size();
        if let Some((other, object)) = self.live.range(..end).next_back() {
            let other_end = other + object.layout.size();
            assert!(other_end <= start, "[{start:#x},{end:#x}) overlaps [{other:#x},{other_end:#x})");
        }
        let object = Object { layout, from: self.random.below(PATTERN_STARTS) };
        // SAFETY: the object is live, of this size, and nobody else's.
        let bytes = unsafe { std::slice::from_raw_parts_mut(pointer, layout.size()) };
        bytes.copy_from_slice(&self.pattern[object.from..][..layout.size()]);
        self.addresses.push(start);
        self.live.insert(start, object);
        self.bytes += layout.size();
    }

    /// Compares an object's bytes with what was written.
    fn compare(&self, pointer: *mut u8, object: &Object, when: &str) {
        // SAFETY: the object is live, of at least this size, and was written in full.
        let bytes = unsafe { std::slice::from_raw_parts(pointer, object.layout.size()) };
        let expected = &self.pattern[object.from..][..bytes.len()];
        if bytes == expected {
            return;
        }
        let wrong = bytes.iter().zip(expected).position(|(byte, expected)| byte != expected);
        assert_eq!(wrong, None, "{:?} at {pointer:p} changed {when}", object.layout);
    }
}

/// Runs the operations with these options and sizes up to `most`.
fn run(options: &str, most: usize) {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["operations", "--exact", "--nocapture", "--test-threads=1"]);
    let seed = random::again(random::seed());
    let (name, value) = seed.split_once('=').expect("a variable and its value");
    command.env(name, value).env(MOST, most.to_string()).env("FENCEPOST_OPTIONS", options);
    let run = process::run(&mut command, LIMIT);
    let verdict = judge_silent(&run, End::Status(0));
    let again = format!("{seed} {MOST}={most} FENCEPOST_OPTIONS={options}");
    assert_eq!(verdict, Verdict::Match, "repeat with {again}\n{}{}", run.stdout, run.stderr);
}

/// The slab allocator alone, with some objects of the page allocator.
const SMALL: usize = 6_000;
/// Objects with chunks of their own as well.
const LARGE: usize = 3 << 20;

/// A test for each set of options.
macro_rules! models {
    ($($name:ident: $options:literal;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn small() {
                run($options, SMALL);
            }

            #[test]
            fn large() {
                run($options, LARGE);
            }
        }
    )+};
}

models! {
    harden: "mode=harden";
    harden_mprotect: "mode=harden:guards=mprotect";
    harden_threshold: "mode=harden:unmap_threshold=131072";
    harden_no_zero: "mode=harden:zero=0";
    harden_no_canary: "mode=harden:canary=0";
    harden_bare: "mode=harden:zero=0:canary=0:quarantine_mb=0:backtrace=0:unmap_threshold=131072";
    harden_left: "mode=harden:guard_side=left";
    patrol: "mode=patrol:sample_rate=5";
    hunt: "mode=hunt";
    hunt_mprotect: "mode=hunt:guards=mprotect";
    hunt_left: "mode=hunt:guard_side=left";
    hunt_random: "mode=hunt:guard_side=random:align=exact";
    hunt_no_canary: "mode=hunt:canary=0:zero=0";
    hunt_over_budget: "mode=hunt:budget_mb=1:history=64";
    hunt_batch: "mode=hunt:unmap=batch:7";
}
