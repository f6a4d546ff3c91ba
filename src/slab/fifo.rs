//! A queue of numbers, first in, first out, that any thread may use at any moment.
//!
//! A ring of cells, and two ends. Each number has a weight, and an end counts the weights of all numbers that passed
//! it: so how much the queue holds is the difference of two words, and is right whenever it is read.
//!
//! ```text
//! cell:  | round | full | weight: 15 bits | number: 24 bits |      one for each position modulo the ring's length
//! end:   | weight of all before it: 32 bits | position: 32 bits |
//! ```
//!
//! The round of a position is how often the ring was gone through before it. For a position `p` of round `r`:
//!
//! | cell | meaning | next | by whom |
//! |---|---|---|---|
//! | round `r`, not full | nobody has put `p`'s number | round `r`, full | [`Fifo::put`], by one exchange |
//! | round `r`, full | the number waits | round `r + 1`, not full | [`Fifo::take`], by one exchange |
//! | round `r + 1`, not full | it was taken; its weight still stands there | round `r + 1`, full | `put` of `p` + length |
//!
//! | end | is at `p` while | is moved on by |
//! |---|---|---|
//! | tail | `p`'s cell is not full, or is and its putter has not said so yet | whoever finds the cell full |
//! | head | `p`'s number was not taken, or was and its taker has not said so yet | whoever finds it taken |
//!
//! A cell is filled in round `r + 1` only when the head is beyond it in round `r`, and emptied only when the tail is
//! beyond it: else an end that lags would find another number's weight. Nobody waits: a try that fails does so
//! because another thread's succeeded, and what another began is finished for it. So a fork, a thread that ends and a
//! signal handler find the queue whole between any two instructions.

use crate::sync::atomic::{AtomicU64, Ordering};

const NUMBER_BITS: u32 = 24;
const WEIGHT_BITS: u32 = 15;
const FULL: u64 = 1 << (NUMBER_BITS + WEIGHT_BITS);
const ROUND_SHIFT: u32 = NUMBER_BITS + WEIGHT_BITS + 1;

/// Numbers are below this.
pub const NUMBERS: u32 = 1 << NUMBER_BITS;
/// The largest weight.
pub const WEIGHT_MAX: u32 = (1 << WEIGHT_BITS) - 1;
/// Rounds that a cell tells apart.
const ROUNDS: u64 = 1 << (64 - ROUND_SHIFT);

/// A cell's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
struct Cell(u64);

impl Cell {
    const fn round(self) -> u64 {
        self.0 >> ROUND_SHIFT
    }

    const fn is_full(self) -> bool {
        self.0 & FULL != 0
    }

    const fn weight(self) -> u32 {
        (self.0 >> NUMBER_BITS) as u32 & WEIGHT_MAX
    }

    const fn number(self) -> u32 {
        self.0 as u32 & (NUMBERS - 1)
    }

    /// Full, in the same round.
    const fn filled(self, number: u32, weight: u32) -> Self {
        let (number, weight) = ((number & (NUMBERS - 1)) as u64, (weight & WEIGHT_MAX) as u64);
        Self(self.round() << ROUND_SHIFT | FULL | weight << NUMBER_BITS | number)
    }

    /// Emptied, for the next round. What stood there stays to be read.
    const fn emptied(self, next_round: u64) -> Self {
        Self(next_round << ROUND_SHIFT | self.0 & (FULL - 1))
    }
}

/// An end's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
struct End(u64);

impl End {
    const fn position(self) -> u32 {
        self.0 as u32
    }

    const fn weight(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// One position further, past a number of this weight.
    const fn past(self, weight: u32) -> Self {
        let weight = self.weight().wrapping_add(weight) as u64;
        Self(weight << 32 | self.position().wrapping_add(1) as u64)
    }
}

/// An end, in a line of its own.
#[repr(align(64))]
struct Line(AtomicU64);

impl Line {
    fn load(&self) -> End {
        End(self.0.load(Ordering::Acquire))
    }

    /// Moves the end past a number of this weight, unless somebody did.
    fn pass(&self, at: End, weight: u32) {
        let _ = self.0.compare_exchange(at.0, at.past(weight).0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// The two ends of a queue; its cells lie elsewhere. All zero bytes are those of an empty queue, if all of its cells'
/// are zero, too.
#[repr(C)]
pub struct Ends {
    tail: Line,
    head: Line,
}

/// A queue: its ends and its cells.
#[derive(Clone, Copy)]
pub struct Fifo<'a> {
    ends: &'a Ends,
    cells: &'a [AtomicU64],
    /// log2 of the number of cells.
    shift: u32,
}

impl<'a> Fifo<'a> {
    /// The queue of these parts; `None` unless the number of cells is a power of two and at most [`NUMBERS`].
    pub fn new(ends: &'a Ends, cells: &'a [AtomicU64]) -> Option<Self> {
        let shift = cells.len().checked_ilog2()?;
        let good = cells.len().is_power_of_two() && shift <= NUMBER_BITS;
        good.then_some(Self { ends, cells, shift })
    }

    /// The weight of all numbers in it. What is put meanwhile may be counted in, what is taken meanwhile as well.
    pub fn weight(self) -> u32 {
        // In this order: the tail is never behind a head that was read before.
        let head = self.ends.head.load();
        self.ends.tail.load().weight().wrapping_sub(head.weight())
    }

    /// Puts a number, below [`NUMBERS`], of a weight of at most [`WEIGHT_MAX`]; `false` if every cell is full.
    #[must_use]
    pub fn put(self, number: u32, weight: u32) -> bool {
        loop {
            let tail = self.ends.tail.load();
            let head = self.ends.head.load();
            let Some((cell, seen)) = self.cell(tail) else { return false };
            let round = self.round(tail);
            if seen.round() == round && seen.is_full() {
                // Another thread's, which has not said so yet.
                self.ends.tail.pass(tail, seen.weight());
            } else if seen.round() == round {
                if tail.position().wrapping_sub(head.position()) as usize == self.cells.len() {
                    // The number of the round before was taken, and its taker has not said so yet.
                    self.ends.head.pass(head, seen.weight());
                } else if exchange(cell, seen, seen.filled(number, weight)) {
                    self.ends.tail.pass(tail, weight);
                    return true;
                }
            } else if seen.round() == self.round_before(round) && self.ends.tail.load() == tail {
                return false;
            }
        }
    }

    /// Takes the oldest number; `None` if there is none.
    pub fn take(self) -> Option<u32> {
        loop {
            let head = self.ends.head.load();
            let tail = self.ends.tail.load();
            let (cell, seen) = self.cell(head)?;
            let round = self.round(head);
            let full = seen.round() == round && seen.is_full();
            if head.position() == tail.position() {
                if !full {
                    return None;
                }
                // Its putter has not said so yet.
                self.ends.tail.pass(tail, seen.weight());
            } else if full {
                if exchange(cell, seen, seen.emptied(self.round_after(round))) {
                    self.ends.head.pass(head, seen.weight());
                    return Some(seen.number());
                }
            } else if seen.round() == self.round_after(round) && !seen.is_full() {
                // Taken by another thread, which has not said so yet.
                self.ends.head.pass(head, seen.weight());
            }
        }
    }

    fn cell(self, end: End) -> Option<(&'a AtomicU64, Cell)> {
        let cell = self.cells.get(end.position() as usize & (self.cells.len() - 1))?;
        Some((cell, Cell(cell.load(Ordering::Acquire))))
    }

    fn round(self, end: End) -> u64 {
        (end.position() >> self.shift) as u64 & self.last_round()
    }

    fn round_after(self, round: u64) -> u64 {
        (round + 1) & self.last_round()
    }

    fn round_before(self, round: u64) -> u64 {
        round.wrapping_sub(1) & self.last_round()
    }

    /// Rounds are counted modulo a power of two: what a cell tells apart, and no more than there are positions for.
    fn last_round(self) -> u64 {
        ROUNDS.min(1 << (32 - self.shift)) - 1
    }
}

fn exchange(cell: &AtomicU64, seen: Cell, new: Cell) -> bool {
    cell.compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn parts(length: usize) -> (Ends, Vec<AtomicU64>) {
        let line = || Line(AtomicU64::new(0));
        (Ends { tail: line(), head: line() }, (0..length).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn numbers_come_out_in_order_with_their_weight() {
        for length in [1, 2, 16, 512] {
            let (ends, cells) = parts(length as usize);
            let fifo = Fifo::new(&ends, &cells).expect("a power of two");
            assert_eq!((fifo.take(), fifo.weight()), (None, 0));
            for number in 0..length {
                assert!(fifo.put(number, number % 7));
            }
            let all: u32 = (0..length).map(|number| number % 7).sum();
            assert!(!fifo.put(0, 1) && fifo.weight() == all);
            for number in 0..10 * length {
                assert_eq!(fifo.take(), Some(number));
                assert!(fifo.put(number + length, (number + length) % 7));
            }
            assert!(!fifo.put(0, 1));
            while fifo.take().is_some() {}
            assert_eq!(fifo.weight(), 0);
            assert!(fifo.put(NUMBERS - 1, WEIGHT_MAX) && fifo.weight() == WEIGHT_MAX);
            assert_eq!((fifo.take(), fifo.take()), (Some(NUMBERS - 1), None));
        }
        let (ends, cells) = parts(3);
        assert!(Fifo::new(&ends, &cells).is_none() && Fifo::new(&ends, &[]).is_none());
    }

    /// Positions and weights begin anew after 2^32.
    #[test]
    fn the_counts_may_wrap() {
        for length in [1_usize, 4, 512] {
            let (ends, cells) = parts(length);
            let fifo = Fifo::new(&ends, &cells).expect("a power of two");
            let near = u32::MAX - 5;
            for line in [&ends.tail, &ends.head] {
                line.0.store(u64::from(near) << 32 | u64::from(near), Ordering::Relaxed);
            }
            let (first, round) = (near as usize & (length - 1), fifo.round(ends.tail.load()));
            for (position, cell) in cells.iter().enumerate() {
                let round = if position >= first { round } else { fifo.round_after(round) };
                cell.store(round << ROUND_SHIFT, Ordering::Relaxed);
            }
            for number in 0..2 * length as u32 + 20 {
                assert!(fifo.put(number, 2) && fifo.weight() == 2, "{number} of {length}");
                assert_eq!((fifo.take(), fifo.weight()), (Some(number), 0), "{number} of {length}");
            }
        }
    }

    /// A thread that ends, or is not there in a forked child, between its exchange of the cell and that of the end.
    #[test]
    fn what_another_thread_began_is_finished() {
        let (ends, cells) = parts(8);
        let fifo = Fifo::new(&ends, &cells).expect("a power of two");
        let seen = |position: usize| Cell(cells[position].load(Ordering::Relaxed));
        let fill = |position: usize, number| {
            cells[position].store(seen(position).filled(number, 3).0, Ordering::Relaxed)
        };
        let empty = |position: usize| {
            let cell = seen(position);
            cells[position].store(cell.emptied(cell.round() + 1).0, Ordering::Relaxed);
        };
        fill(0, 10);
        assert_eq!(fifo.take(), Some(10));
        fill(1, 11);
        assert!(fifo.put(12, 3) && fifo.weight() == 6);
        empty(1);
        assert_eq!((fifo.take(), fifo.weight()), (Some(12), 0));
        (0..8).for_each(|number| assert!(fifo.put(number, 1)));
        assert!(!fifo.put(0, 1));
        empty(3);
        assert!(fifo.put(99, 1) && fifo.weight() == 8);
        let rest: Vec<_> = core::iter::from_fn(|| fifo.take()).collect();
        assert_eq!((rest, fifo.weight()), ((1..8).chain([99]).collect(), 0));
    }
}
