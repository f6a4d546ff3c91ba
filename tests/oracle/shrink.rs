//! Makes a failing sequence shorter: leaves out lines in halving pieces, then threads, then makes numbers smaller.

use crate::sequence::{Operation, Step};

/// The shortest sequence found for which `fails` still holds, after `tries` attempts at most.
pub fn shrink(steps: Vec<Step>, tries: usize, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut left = tries;
    let mut attempt = |steps: &[Step]| {
        left > 0 && {
            left -= 1;
            fails(steps)
        }
    };
    let mut best = without_lines(steps, &mut attempt);
    best = simpler(best, &mut attempt);
    without_lines(best, &mut attempt)
}

fn without_lines(mut best: Vec<Step>, fails: &mut impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut piece = best.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < best.len() {
            let end = (at + piece).min(best.len());
            let candidate = [&best[..at], &best[end..]].concat();
            if fails(&candidate) {
                best = candidate;
                shorter = true;
            } else {
                at = end;
            }
        }
        if !shorter || piece > best.len() {
            piece = if piece == 1 && shorter { 1 } else { piece / 2 };
        }
    }
    best
}

fn simpler(mut best: Vec<Step>, fails: &mut impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let alone: Vec<Step> = best.iter().map(|step| Step { thread: 0, ..*step }).collect();
    if fails(&alone) {
        best = alone;
    }
    for index in 0..best.len() {
        if best[index].operation == Operation::End {
            continue;
        }
        let changes: [fn(&mut Step); 5] = [
            |step| step.thread = 0,
            |step| step.place = 0,
            |step| step.a = 0,
            |step| step.b = 0,
            |step| step.b /= 2,
        ];
        for change in changes {
            let mut candidate = best.clone();
            change(&mut candidate[index]);
            if candidate[index] != best[index] && fails(&candidate) {
                best = candidate;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fails only with two lines of a thousand, in this order, is left with those.
    #[test]
    fn what_matters_is_left() {
        let step = |b| Step { thread: 3, operation: Operation::Free, place: 1, a: 1, b };
        let steps: Vec<Step> = (0..1_000).map(step).collect();
        let left = shrink(steps, 10_000, |steps| {
            let place = |b| steps.iter().position(|step| step.b == b);
            matches!((place(123), place(877)), (Some(first), Some(second)) if first < second)
        });
        let simple = |b| Step { thread: 0, place: 0, a: 0, ..step(b) };
        assert_eq!(left, [simple(123), simple(877)]);
    }
}
