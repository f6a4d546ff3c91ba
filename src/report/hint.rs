//! Which options show more of an error than the run that found it.

use super::finding::{Finding, Relation};
use crate::fault::Kind;
use crate::options::{Align, GuardSide, Intercept, Key, Mode, Options};
use crate::request::Origin;

/// Options, and what they do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// What they are for.
    pub why: &'static str,
    change: Change,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// Every object has a guard and stacks; ends to the byte if that is wanted.
    Hunt { exact: bool },
    /// Objects end at their guard to the byte.
    Exact,
    /// Objects begin at their guard.
    Left,
    /// Functions of the C library look at bounds.
    Intercept,
}

const AT_ONCE: &str = "to stop at the access that did it";
const STACKS: &str = "for the stacks of the object";
const CALL: &str = "for the function, its size and its object";

/// What shows more of this finding than a run with these options.
pub fn of(finding: &Finding, options: &Options) -> Option<Hint> {
    let late = matches!(finding.kind, Kind::CanaryOverwritten | Kind::WriteAfterFree);
    let object = finding.object;
    let has_stacks = object.is_some_and(|object| object.history.allocated.thread != 0);
    let is_c = object.is_some_and(|object| object.origin != Origin::Rust);
    if options.mode != Mode::Hunt && late {
        let exact = finding.kind == Kind::CanaryOverwritten && is_c;
        return Some(Hint { why: AT_ONCE, change: Change::Hunt { exact } });
    }
    if late && finding.kind == Kind::CanaryOverwritten {
        return match finding.relation() {
            Some(Relation::Before(_)) if options.guard_side != GuardSide::Left => {
                Some(Hint { why: AT_ONCE, change: Change::Left })
            }
            Some(Relation::After(_)) if is_c && options.align != Align::Exact => {
                Some(Hint { why: AT_ONCE, change: Change::Exact })
            }
            _ => None,
        };
    }
    if options.mode != Mode::Hunt && object.is_some() && !has_stacks {
        return Some(Hint { why: STACKS, change: Change::Hunt { exact: false } });
    }
    (finding.in_library && object.is_some()).then_some(Hint { why: CALL, change: Change::Intercept })
}

impl Hint {
    /// The options of a run that shows it.
    pub fn applied_to(self, options: &Options) -> Options {
        let mut changed = *options;
        let mut given = |key| changed.given = changed.given.with(key);
        match self.change {
            Change::Hunt { exact } => {
                given(Key::mode);
                changed.mode = Mode::Hunt;
                if exact {
                    changed.align = Align::Exact;
                }
            }
            Change::Exact => changed.align = Align::Exact,
            Change::Left => changed.guard_side = GuardSide::Left,
            Change::Intercept => changed.intercept = Intercept::All,
        }
        changed
    }
}
