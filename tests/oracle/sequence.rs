//! Sequences of operations: what they may do, how they are drawn, and their form as text.
//!
//! A step is a line: the thread, the operation, the place of the object, two numbers. Any part of a sequence is a
//! sequence: a step that finds no object where it needs one, or finds one that another thread has in hand, does nothing.
//! So a sequence that fails is made shorter by leaving out lines.

use crate::random::Random;

/// Threads at most.
pub const THREADS: usize = 8;
/// Places for objects, which all threads share.
pub const PLACES: usize = 64;

macro_rules! operations {
    ($($name:ident, $text:literal, $weight:literal, $help:literal;)+) => {
        /// What a step does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation { $(#[doc = $help] $name,)+ }

        impl Operation {
            const ALL: &[(Self, &str, usize)] = &[$((Self::$name, $text, $weight),)+];
        }
    };
}

operations! {
    Allocate, "allocate", 300, "An object into an empty place: the function and the alignment by `a`, the size is `b`.";
    Free, "free", 200, "Compares and frees the object: the function by `a`.";
    Resize, "resize", 140, "Compares and resizes it: the function by `a`, the size is `b`.";
    Verify, "verify", 40, "Compares its contents, its size and its bounds.";
    Refill, "refill", 20, "Writes it anew.";
    Transfer, "transfer", 20, "Lets the kernel and functions of the C library write and read all of it.";
    Poison, "poison", 10, "Poisons a part, asks, and takes it back; with an odd `b` the object stays poisoned.";
    Check, "check", 4, "The heap checks itself.";
    Trim, "trim", 3, "Gives back what is unused.";
    Figures, "figures", 3, "Asks for the heap's figures.";
    Absurd, "absurd", 6, "Asks for sizes that nobody can have.";
    Leave, "leave", 4, "The thread ends; a new one does the steps that are left.";
    Short, "short", 4, "A thread that lives for `a` objects, and frees as many at its very end.";
    Signal, "signal", 12, "A signal to thread `a`, whose handler allocates and frees.";
    Fork, "fork", 3, "A child compares and frees what it inherited, allocates `a` objects, and ends.";
    Barrier, "barrier", 6, "All threads wait for each other.";
    End, "end", 0, "All threads wait, and everything is compared and freed: the sequence is over.";
    Again, "again", 0, "A bug: the object is freed twice.";
    Inside, "inside", 0, "A bug: a pointer into the object is freed.";
    Beyond, "beyond", 0, "A bug: the byte behind the object is written, which is slack.";
    Stale, "stale", 0, "A bug: the object is resized after it was freed.";
    Plant, "plant", 0, "A change of the object that the oracle does not know of: the oracle's own test.";
}

/// The bugs, of which the heap tells and after which it goes on (`on_error=continue`).
const BUGS: [Operation; 4] = [Operation::Again, Operation::Inside, Operation::Beyond, Operation::Stale];

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub thread: usize,
    pub operation: Operation,
    pub place: usize,
    pub a: usize,
    pub b: usize,
}

impl Step {
    fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let (_, text, _) = Operation::ALL.iter().find(|row| row.0 == self.operation).expect("all are listed");
        let Self { thread, place, a, b, .. } = self;
        writeln!(out, "{thread} {text} {place} {a} {b}").expect("a string takes all");
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let thread = words.next()?.parse().ok()?;
        let word = words.next()?;
        let (operation, ..) = *Operation::ALL.iter().find(|row| row.1 == word)?;
        let mut number = || words.next()?.parse().ok();
        Some(Self { thread, operation, place: number()?, a: number()?, b: number()? })
    }
}

/// The lines.
pub fn write(steps: &[Step]) -> String {
    let mut out = String::new();
    steps.iter().for_each(|step| step.write(&mut out));
    out
}

/// The steps of the lines.
///
/// # Panics
/// If a line is none.
pub fn read(text: &str) -> Vec<Step> {
    text.lines().map(|line| Step::read(line).unwrap_or_else(|| panic!("{line:?} is no step"))).collect()
}

/// What is drawn.
#[derive(Clone, Copy)]
pub struct Draw {
    pub sequences: usize,
    pub threads: usize,
    /// The largest size.
    pub most: usize,
    /// Whether there are bugs.
    pub bugs: bool,
}

/// Several sequences, one behind the other.
pub fn draw(random: &mut Random, draw: &Draw) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..draw.sequences {
        let count = random.size(160);
        // Few places, so that objects are found, or many, so that many live.
        let places = 1 + random.below(PLACES);
        for _ in 0..count {
            steps.push(step(random, draw, places));
        }
        steps.push(Step { thread: 0, operation: Operation::End, place: 0, a: 0, b: 0 });
    }
    steps
}

fn step(random: &mut Random, draw: &Draw, places: usize) -> Step {
    let operation =
        if draw.bugs && random.below(12) == 0 { BUGS[random.below(BUGS.len())] } else { weighted(random) };
    let a = match operation {
        Operation::Signal => random.below(draw.threads),
        Operation::Fork | Operation::Short => random.below(24),
        _ => random.below(1 << 16),
    };
    let b = match operation {
        Operation::Allocate | Operation::Resize => size(random, draw.most),
        _ => random.below(1 << 24),
    };
    Step { thread: random.below(draw.threads), operation, place: random.below(places), a, b }
}

fn weighted(random: &mut Random) -> Operation {
    let all: usize = Operation::ALL.iter().map(|row| row.2).sum();
    let mut left = random.below(all);
    for (operation, _, weight) in Operation::ALL {
        if left < *weight {
            return *operation;
        }
        left -= weight;
    }
    Operation::Verify
}

/// Mostly small, often next to a border of classes or pages, now and then 0.
fn size(random: &mut Random, most: usize) -> usize {
    let size = match random.below(16) {
        0 => 0,
        1..=3 => random.below(32) * 16 + random.below(3),
        4..=5 => (1 + random.below(8)) * 4096 + random.below(35) - 17,
        6 => (1 << (7 + random.below(14))) + random.below(35) - 17,
        7..=8 => random.size(most),
        _ => random.size(1100),
    };
    size.min(most)
}
