//! A finding: the contents of a report, and how they follow from a fault.
//!
//! # Hints
//!
//! A hint names the options with which another run shows more of the error.

use super::access;
use crate::addr::{Addr, PAGE_SIZE};
use crate::canary;
use crate::fault::{Fault, Kind, Object};
use crate::options::{Align, GuardSide, Intercept, Key, Mode, Options};
use crate::request::Origin;
use crate::sys::signal;
use crate::trace::Frames;
use core::ops::Range;

/// How memory was accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// Unknown.
    Unknown,
}

/// Where an address lies relative to an object, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// So many bytes before the first.
    Before(usize),
    /// So many bytes into it.
    Inside(usize),
    /// So many bytes after the last.
    After(usize),
}

/// A pointer outside the address space, and what the processor held when it was used.
#[derive(Clone, Copy)]
pub struct Wild {
    /// The registers, by their DWARF numbers; what looks like a canary without its secret.
    pub registers: [usize; 16],
    /// Where the pointer's value seems to come from.
    pub resembles: Option<Resemblance>,
}

/// What a pointer that is none looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resemblance {
    /// A canary.
    Canary,
    /// The byte that fresh memory is filled with, again and again.
    Fill(u8),
}

impl Resemblance {
    /// What a value resembles; `fill` is the byte that memory is filled with.
    pub fn of(value: usize, fill: Option<u8>) -> Option<Self> {
        let value = value as u64;
        // A displacement changes the lowest bytes.
        let filled = |byte: &u8| (value ^ u64::from_le_bytes([*byte; 8])) >> 16 == 0;
        match fill.filter(filled) {
            Some(byte) => Some(Self::Fill(byte)),
            None => canary::resembles_word(value).then_some(Self::Canary),
        }
    }
}

/// How far from a register's value a pointer that was made of it lies at most, in bytes.
const REACH: usize = 1 << 20;

impl Wild {
    /// What is told of these registers and of a pointer that was made of them; and the pointer, without secrets.
    pub fn of(registers: &[usize; 16], pointer: usize, fill: Option<u8>) -> (Self, usize) {
        let told = |value: usize| match Resemblance::of(value, fill) {
            Some(Resemblance::Canary) => canary::without_secret(value as u64) as usize,
            _ => value,
        };
        let wild = |value: &usize| Resemblance::of(*value, fill);
        // Not any register: what `malloc` leaves in one may be a canary.
        let base = |register: &&usize| pointer.wrapping_sub(**register).wrapping_add(REACH) < 2 * REACH;
        let resembles = wild(&pointer).or_else(|| registers.iter().filter(base).find_map(wild));
        (Self { registers: registers.map(told), resembles }, told(pointer))
    }
}

/// A report's content.
#[derive(Clone, Copy)]
pub struct Finding {
    /// The kind of error.
    pub kind: Kind,
    /// The address it is about.
    pub address: Addr,
    /// The object it is about.
    pub object: Option<Object>,
    /// For overwritten canaries: start and size of another object that may have been run over as well.
    pub other: Option<(Addr, usize)>,
    /// For faults: how memory was accessed.
    pub access: Option<Access>,
    /// For faults: all that the instruction accessed, where that is known: from an address on, so many
    /// bytes.
    pub extent: Option<(Addr, usize)>,
    /// For faults: whether it was the seal of the allocator's tables that was hit.
    pub sealed: bool,
    /// For pointers outside the address space: what is known of them.
    pub wild: Option<Wild>,
    /// For mismatches: the family that frees.
    pub freed_by: Option<Origin>,
    /// For sizes and alignments: what the caller stated.
    pub stated: Option<usize>,
    /// For faults: whether the instruction is the C library's, which accesses what it was told in pieces of its own.
    pub in_library: bool,
    /// For faults: the registers.
    pub fault: Option<signal::Context>,
    /// For faults in the C library: its function, as the program calls it.
    pub called: Option<access::Name>,
    /// For questions: the function that was asked.
    pub passed_to: Option<&'static str>,
    /// For accesses that were found by their bounds and not by a fault: the function that makes them.
    pub made_by: Option<&'static str>,
    /// For accesses to poisoned bytes of the object: these and those around them, from the first on so many.
    pub poisoned: Option<(Addr, usize)>,
    /// Where it was found; the innermost frame is the faulting instruction or the caller.
    pub frames: Frames,
    /// The frame pointer and stack pointer there.
    pub registers: (usize, usize),
}

impl Finding {
    /// The report of a misuse that a call found.
    pub fn of_fault(fault: Fault, frames: Frames, registers: (usize, usize)) -> Self {
        let Fault { kind, address, object, detail } = fault;
        Self {
            kind,
            address,
            object,
            other: detail.other(),
            access: None,
            extent: None,
            sealed: false,
            wild: None,
            freed_by: detail.freed_by(),
            stated: detail.stated(),
            in_library: false,
            fault: None,
            called: None,
            passed_to: None,
            made_by: None,
            poisoned: None,
            frames,
            registers,
        }
    }

    /// The report of a bad access to `address`, given the object nearest to it.
    pub fn of_access(
        address: Addr,
        access: Access,
        object: Option<Object>,
        frames: Frames,
        registers: (usize, usize),
    ) -> Self {
        let kind = object.map_or(Kind::WildAccess, |object| kind_of_access(address, &object));
        let access = Some(access);
        Self {
            kind,
            address,
            object,
            other: None,
            access,
            extent: None,
            sealed: false,
            wild: None,
            freed_by: None,
            stated: None,
            in_library: false,
            fault: None,
            called: None,
            passed_to: None,
            made_by: None,
            poisoned: None,
            frames,
            registers,
        }
    }

    /// The same of an access to `poisoned` bytes of its object.
    pub fn to_poisoned(self, poisoned: &Range<usize>) -> Self {
        let poisoned = Some((Addr::new(poisoned.start), poisoned.len()));
        Self { kind: Kind::UseAfterPoison, poisoned, ..self }
    }

    /// Whether a fault found it: its signal ends the process, and the first frame is the faulting instruction.
    pub fn is_fault(&self) -> bool {
        self.access.is_some() && self.made_by.is_none()
    }

    /// Where the address lies relative to the object, if both are known.
    pub fn relation(&self) -> Option<Relation> {
        let object = self.object?;
        Some(relation(self.address, object.start, object.size.unwrap_or(0)))
    }

    /// Where the address lies relative to the other object that may be meant.
    pub fn other_relation(&self) -> Option<Relation> {
        self.other.map(|(start, size)| relation(self.address, start, size))
    }
}

fn relation(address: Addr, start: Addr, size: usize) -> Relation {
    match address.offset_from(start) {
        None => Relation::Before(start.get() - address.get()),
        Some(into) if into < size => Relation::Inside(into),
        Some(into) => Relation::After(into - size),
    }
}

/// Whether `address` lies inside an object that is live: a fault there is not the heap's.
pub fn is_inside_live(address: Addr, object: &Object) -> bool {
    let size = object.size.unwrap_or(0);
    !object.freed && matches!(relation(address, object.start, size), Relation::Inside(_))
}

/// What a bad access to `address` is, given the object nearest to it. Accesses far from any object
/// are wild: further than a page past a live object, or past a freed one's own pages.
fn kind_of_access(address: Addr, object: &Object) -> Kind {
    let size = object.size.unwrap_or(0);
    match (relation(address, object.start, size), object.freed) {
        (Relation::Inside(_), true) => Kind::HeapUseAfterFree,
        (Relation::After(distance), true) if distance < PAGE_SIZE => Kind::HeapUseAfterFree,
        (Relation::Before(distance), true) if distance < PAGE_SIZE => Kind::HeapUseAfterFree,
        (Relation::After(distance), false) if distance < FAR => Kind::HeapBufferOverflow,
        (Relation::Before(distance), false) if distance < FAR => Kind::HeapBufferUnderflow,
        _ => Kind::WildAccess,
    }
}

/// From this distance on an access is not taken for one past a live object.
const FAR: usize = 16 * PAGE_SIZE;

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
    (finding.in_library && finding.extent.is_none() && object.is_some())
        .then_some(Hint { why: CALL, change: Change::Intercept })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn object(freed: bool) -> Object {
        let (start, size) = (Addr::new(0x10_0ff3), Some(13));
        Object { start, size, freed, origin: Origin::Malloc, history: Default::default() }
    }

    fn kind(address: usize, freed: bool) -> Kind {
        let finding =
            Finding::of_access(Addr::new(address), Access::Write, Some(object(freed)), Frames::EMPTY, (0, 0));
        finding.kind
    }

    #[test]
    fn accesses_around_an_object_are_told_apart() {
        assert_eq!(kind(0x10_1000, false), Kind::HeapBufferOverflow);
        assert_eq!(kind(0x10_0ff2, false), Kind::HeapBufferUnderflow);
        assert_eq!(kind(0x10_0ff4, true), Kind::HeapUseAfterFree);
        assert_eq!(kind(0x20_0000, false), Kind::WildAccess);
        assert_eq!(kind(0x20_0000, true), Kind::WildAccess);
    }

    #[test]
    fn a_live_object_ends_with_its_last_byte() {
        let inside = |address, freed| is_inside_live(Addr::new(address), &object(freed));
        assert!(inside(0x10_0ff3, false) && inside(0x10_0fff, false));
        assert!(!inside(0x10_0ff2, false) && !inside(0x10_1000, false) && !inside(0x10_0ff4, true));
    }

    #[test]
    fn values_are_recognised_and_canaries_not_told() {
        let canary = 0xa997_bd85_93af_00b1_usize;
        let filled = 0xa5a5_a5a5_a5a5_a5a5_usize;
        for (value, fill, expected) in [
            (canary, None, Some(Resemblance::Canary)),
            (canary + 0x20, Some(0xa5), Some(Resemblance::Canary)),
            (filled, Some(0xa5), Some(Resemblance::Fill(0xa5))),
            (filled + 0x30, Some(0xa5), Some(Resemblance::Fill(0xa5))),
            (0x4141_4141_4141_4141, Some(0xa5), None),
            (0, Some(0xa5), None),
        ] {
            assert_eq!(Resemblance::of(value, fill), expected, "{value:x}");
        }
        let mut registers = [0; 16];
        registers[3] = canary;
        let (wild, pointer) = Wild::of(&registers, canary + 8, None);
        assert_eq!(wild.resembles, Some(Resemblance::Canary));
        assert!(wild.registers[3] >> 16 == 0x8181_8181_8181 && pointer >> 16 == 0x8181_8181_8181);
    }

    #[test]
    fn forged_records_do_no_harm() {
        for (start, size) in [(0, usize::MAX), (usize::MAX, usize::MAX), (usize::MAX, 0)] {
            let forged = Object { start: Addr::new(start), size: Some(size), ..object(false) };
            let finding =
                Finding::of_access(Addr::new(77), Access::Read, Some(forged), Frames::EMPTY, (0, 0));
            assert!(finding.relation().is_some());
        }
    }

    #[test]
    fn distances_count_from_the_object() {
        assert_eq!(relation(Addr::new(113), Addr::new(100), 13), Relation::After(0));
        assert_eq!(relation(Addr::new(99), Addr::new(100), 13), Relation::Before(1));
        assert_eq!(relation(Addr::new(104), Addr::new(100), 13), Relation::Inside(4));
    }
}
