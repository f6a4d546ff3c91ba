//! Where stacks lie, and the walk over their frames.
//!
//! # The walk
//!
//! A frame is left by the rule of its program counter. The rule comes from the cache if it is there and its object is
//! still mapped, and otherwise from the object's tables. Code without tables (hand-written assembly, generated code) is
//! left by the frame pointer, if that leads to a frame of the same stack whose return address follows a call.
//!
//! Every step goes upwards in one stack and reads within it only. The one exception is the frame that the kernel made
//! for a signal handler: it leads to the interrupted code, on its own stack. A step that cannot be certain ends the
//! trace, which is then short but not wrong.

use super::cache::{Cache, CallerFp, FP, Kind, Rule, SP};
use super::depot::{Frames, MAX_FRAMES};
use super::objects::{self, Object, Objects};
use crate::addr::{Addr, PAGE_SIZE, PageCount, Span};
use crate::sys::{auxv, loader, machine, stacks, thread, vm};
use core::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes of a stack that are walked.
const MAX_DEPTH: usize = 64 << 20;

/// A thread's stack, as much of it as is known: from a stack pointer in it up to its end all is mapped.
///
/// The C library could tell a thread's stack, but asking takes the thread's lock, and a thread's first
/// allocation may be the C library's own under that lock. So the end of a stack is the thread's control
/// block, and its low end is as far down as the kernel was asked whether all up to there may be read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stack {
    /// The lowest address it may grow to.
    pub low: usize,
    /// One past the highest.
    pub end: usize,
}

impl Stack {
    /// Whether a stack pointer lies in it.
    pub const fn holds(self, sp: usize) -> bool {
        self.low <= sp && sp < self.end
    }

    /// The running thread's stack, of which `self` is known, down to `sp`; `self` if `sp` is not in it.
    #[inline]
    #[must_use]
    pub fn down_to(self, sp: usize) -> Self {
        if self.holds(sp) { self } else { self.extended(sp) }
    }

    #[cold]
    fn extended(self, sp: usize) -> Self {
        let first = Self { low: FIRST_LOW.load(Ordering::Relaxed), end: FIRST_END.load(Ordering::Relaxed) };
        if first.holds(sp) {
            return first;
        }
        let (low, end) = (Addr::new(sp).page_floor(), thread::pointer());
        let near = sp < end && end - sp <= MAX_DEPTH;
        if near && vm::is_readable(Span::new(low, PageCount::holding(end - low.get()))) {
            return Self { low: low.get(), end };
        }
        self
    }
}

/// The first thread's stack, which the C library can tell by reading /proc only. Written once at start.
static FIRST_LOW: AtomicUsize = AtomicUsize::new(0);
static FIRST_END: AtomicUsize = AtomicUsize::new(0);

/// Remembers where the first thread's stack is. Called once, at start.
pub fn init() {
    let end = auxv::stack_end().get();
    let size = machine::stack().min(MAX_DEPTH);
    FIRST_LOW.store(end.saturating_sub(size), Ordering::Relaxed);
    FIRST_END.store(end, Ordering::Relaxed);
}

/// What of a stack may be read: from the stack pointer of the frame that is being left up to the stack's
/// end. Both only grow, except over the frame of a signal, which may lie on a stack of its own.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    low: usize,
    end: usize,
}

impl Window {
    /// From `sp` to the end of the stack it lies in: the running thread's, of which `stack` is known, or
    /// the alternate one that a signal is handled on. Empty on a stack of the program's own making.
    #[inline]
    pub fn of(sp: usize, stack: Stack) -> Self {
        let end = if stack.holds(sp) { stack.end } else { end_of_other(sp, stack) };
        Self { low: sp, end }
    }

    /// The word at `at`, if it may be read.
    #[inline(always)]
    pub fn word(self, at: usize) -> Option<usize> {
        let inside = at >= self.low && at.is_multiple_of(8) && at < self.end && self.end - at >= 8;
        if !inside {
            return None;
        }
        // SAFETY: the aligned word lies between a stack pointer and the end of the stack that it is in:
        // mapped, see `Stack`. Whatever the program keeps there, it is read as a number.
        Some(unsafe { Addr::new(at).as_ptr::<usize>().read_volatile() })
    }

    /// Leaves out what is below `sp`; `None` if that is not upwards or past the end.
    #[inline(always)]
    pub fn above(self, sp: usize) -> Option<Self> {
        (sp > self.low && sp <= self.end).then_some(Self { low: sp, ..self })
    }
}

#[cold]
fn end_of_other(sp: usize, stack: Stack) -> usize {
    let stack = stack.down_to(sp);
    if stack.holds(sp) {
        return stack.end;
    }
    match stacks::in_use(sp) {
        Some((low, end)) if (Stack { low, end }).holds(sp) => end,
        _ => sp,
    }
}

/// Registers of a frame, by DWARF number.
pub type Registers = [usize; 16];

/// What is kept between traces.
pub struct Tables {
    cache: Cache,
    objects: Objects,
}

impl Tables {
    /// Nothing is kept.
    pub const EMPTY: Self = Self { cache: Cache::EMPTY, objects: Objects::EMPTY };

    /// Maps both tables, small ones if address space is limited.
    pub fn map(limited: bool) -> Option<Self> {
        Some(Self { cache: Cache::map(limited)?, objects: Objects::map()? })
    }
}

/// One trace.
pub struct Walk<'a> {
    tables: &'a Tables,
    stack: Stack,
    /// Where the frame's code is: the program counter itself, or for a return address the byte before
    /// it, which is the call's.
    at: usize,
    sp: usize,
    fp: usize,
    window: Window,
    /// The object that was last made sure of, 0 at first.
    object: u16,
}

/// Where a ucontext has the interrupted code's registers; the stack pointer points at one when the
/// handler has returned.
mod ucontext {
    use core::mem::offset_of;
    use libc::{mcontext_t, ucontext_t};

    const REGISTERS: usize = offset_of!(ucontext_t, uc_mcontext) + offset_of!(mcontext_t, gregs);
    pub const FP: usize = REGISTERS + 8 * libc::REG_RBP as usize;
    pub const SP: usize = REGISTERS + 8 * libc::REG_RSP as usize;
    pub const PC: usize = REGISTERS + 8 * libc::REG_RIP as usize;
}

impl<'a> Walk<'a> {
    /// A trace that starts in the frame whose code is at `at`, with these registers.
    pub fn new(tables: &'a Tables, stack: Stack, at: usize, sp: usize, fp: usize) -> Self {
        Self { tables, stack, at, sp, fp, window: Window::of(sp, stack), object: 0 }
    }

    /// Adds the callers of the frame until there are `depth` frames.
    #[inline]
    pub fn callers(mut self, frames: &mut Frames, depth: usize) {
        while frames.len() < depth.min(MAX_FRAMES) {
            let rule = self.rule();
            let Some(pc) = self.leave(rule, None) else {
                return;
            };
            frames.push(pc);
        }
    }

    /// Leaves the innermost frame, of which all registers are known; the caller's program counter.
    pub fn leave_first(&mut self, registers: &Registers) -> Option<usize> {
        let rule = self.rule();
        self.leave(rule, Some(registers))
    }

    /// Leaves a frame that is none yet: the code was jumped to and has not run, as at a null pointer.
    pub fn leave_call(&mut self) -> Option<usize> {
        let pc = self.window.word(self.sp)?;
        self.move_to(self.sp.checked_add(8)?)?;
        self.returned_to(pc)
    }

    #[inline(always)]
    fn rule(&mut self) -> Rule {
        if let Some(rule) = self.tables.cache.get(self.at)
            && (rule.object() == self.object || self.enter(rule.object()))
        {
            return rule;
        }
        self.read_rule()
    }

    /// Makes sure that the code is still of the object called `number`.
    fn enter(&mut self, number: u16) -> bool {
        let there =
            loader::object_of(self.at).is_some_and(|mapped| self.tables.objects.is_at(number, mapped));
        if there {
            self.object = number;
        }
        there
    }

    #[cold]
    #[inline(never)]
    fn read_rule(&mut self) -> Rule {
        let Some(object) = loader::object_of(self.at).and_then(Object::describe) else {
            return Rule::plain(Kind::Guess);
        };
        let rule = stacks::with_room(|| objects::rule(&object, self.at));
        let number = self.tables.objects.number_of(&object);
        if number != 0 {
            self.object = number;
            self.tables.cache.set(self.at, rule.of_object(number));
        }
        rule
    }

    /// Goes to the caller's frame; its program counter.
    #[inline(always)]
    fn leave(&mut self, rule: Rule, registers: Option<&Registers>) -> Option<usize> {
        if rule.kind() == Kind::Offset {
            let base = self.register(rule.base(), registers)?;
            return self.leave_to(rule, base.wrapping_add_signed(rule.offset()));
        }
        self.leave_rare(rule, registers)
    }

    #[inline(always)]
    fn register(&self, number: u16, registers: Option<&Registers>) -> Option<usize> {
        match number {
            SP => Some(self.sp),
            FP => Some(self.fp),
            other => registers?.get(usize::from(other)).copied(),
        }
    }

    #[inline(always)]
    fn leave_to(&mut self, rule: Rule, cfa: usize) -> Option<usize> {
        let pc = self.window.word(cfa.wrapping_sub(8))?;
        match rule.caller_fp() {
            CallerFp::Same => {}
            CallerFp::AtCfa => self.fp = self.window.word(cfa.wrapping_add_signed(rule.fp_offset()))?,
            CallerFp::AtFp => self.fp = self.window.word(self.fp.wrapping_add_signed(rule.fp_offset()))?,
            CallerFp::Lost => self.fp = 0,
        }
        self.move_to(cfa)?;
        self.returned_to(pc)
    }

    #[inline(always)]
    fn move_to(&mut self, sp: usize) -> Option<()> {
        self.window = self.window.above(sp)?;
        self.sp = sp;
        Some(())
    }

    #[inline(always)]
    fn returned_to(&mut self, pc: usize) -> Option<usize> {
        // In the first page there is no code: the word is no return address.
        if pc < PAGE_SIZE {
            return None;
        }
        self.at = pc - 1;
        Some(pc)
    }

    #[cold]
    fn leave_rare(&mut self, rule: Rule, registers: Option<&Registers>) -> Option<usize> {
        match rule.kind() {
            Kind::Offset | Kind::Indirect => {
                let base = self.register(rule.base(), registers)?;
                let at = base.wrapping_add_signed(rule.offset());
                let cfa = self.window.word(at)?.checked_add(8 * rule.extra())?;
                self.leave_to(rule, cfa)
            }
            Kind::Stub => {
                let pushed = if self.at & 15 >= rule.extra() { 8 } else { 0 };
                self.leave_to(rule, self.sp.checked_add_signed(rule.offset())?.checked_add(pushed)?)
            }
            Kind::Signal => self.leave_signal(),
            Kind::Guess => self.leave_by_fp(),
            Kind::End | Kind::Stop => None,
        }
    }

    /// To the code that a signal interrupted, which need not be on the same stack.
    fn leave_signal(&mut self) -> Option<usize> {
        let at = |offset| self.window.word(self.sp.checked_add(offset)?);
        let (pc, sp, fp) = (at(ucontext::PC)?, at(ucontext::SP)?, at(ucontext::FP)?);
        self.window = match self.window.above(sp) {
            Some(above) => above,
            None => Window::of(sp, self.stack),
        };
        (self.sp, self.fp, self.at) = (sp, fp, pc);
        // As if it had called: the byte before names the frame.
        (pc >= PAGE_SIZE).then_some(pc.saturating_add(1))
    }

    /// By the chain of frame pointers. The word found must look like a return address: it follows a call
    /// in a loaded object's code, or leads from generated code to generated code.
    fn leave_by_fp(&mut self) -> Option<usize> {
        let (pc, fp) = (self.window.word(self.fp.checked_add(8)?)?, self.window.word(self.fp)?);
        let plausible = match loader::object_of(pc.checked_sub(1)?) {
            Some(mapped) => Object::describe(mapped).is_some_and(|object| follows_call(&object, pc)),
            None => loader::object_of(self.at).is_none() && pc < MAX_USER,
        };
        if !plausible {
            return None;
        }
        self.move_to(self.fp.checked_add(16)?)?;
        self.fp = fp;
        self.returned_to(pc)
    }
}

/// One past the highest address that code can have, with five levels of page tables.
const MAX_USER: usize = 1 << 56;

/// Whether the instruction before `pc` can have called code without tables: `e8` with four bytes behind
/// it, which lead to such code or to a linkage stub, or `ff /2` with two to seven bytes in all. A direct
/// call to a function with tables is another frame's: the frame pointer was not the code's own.
fn follows_call(object: &Object, pc: usize) -> bool {
    const LONGEST: usize = 7;
    let Some(first) = pc.checked_sub(LONGEST) else {
        return false;
    };
    if !object.has_code(first) || !object.has_code(pc - 1) {
        return false;
    }
    // SAFETY: the object's code is mapped readable, and the bytes lie in it from the first to the last.
    let bytes = unsafe { Addr::new(first).as_ptr::<[u8; LONGEST]>().read_unaligned() };
    if let [_, _, 0xe8, offset @ ..] = bytes {
        let callee = pc.wrapping_add_signed(i32::from_le_bytes(offset) as isize);
        if object.has_code(callee) {
            return matches!(objects::rule(object, callee).kind(), Kind::Guess | Kind::Stub);
        }
    }
    bytes.windows(2).any(|pair| pair[0] == 0xff && pair[1] >> 3 & 7 == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_inside() {
        let words = [1_usize, 2, 3, 4];
        let low = words.as_ptr().expose_provenance();
        let window = Window::of(low + 8, Stack { low, end: low + 24 });
        assert_eq!(window.word(low + 8), Some(2));
        assert_eq!(window.word(low + 16), Some(3));
        for outside in [0, low, low + 4, low + 12, low + 24, usize::MAX & !7] {
            assert_eq!(window.word(outside), None);
        }
        assert!(window.above(low + 8).is_none(), "no step is one too few");
        assert!(window.above(low + 32).is_none());
        assert_eq!(window.above(low + 16).and_then(|window| window.word(low + 8)), None);
    }

    #[test]
    fn a_threads_stack_ends_at_its_control_block() {
        let word = 7_usize;
        let at = (&raw const word).expose_provenance();
        let stack = Stack::default().down_to(at);
        assert!(stack.holds(at) && stack.end == thread::pointer(), "{stack:?}");
        assert_eq!(Window::of(at, Stack::default()).word(at), Some(7));
        assert_eq!(stack.down_to(at + 8), stack, "what is known is not asked for again");
    }

    #[test]
    fn other_stacks_are_not_read() {
        let elsewhere = std::vec![7_usize; 4096];
        let at = elsewhere.as_ptr().expose_provenance();
        for sp in [at, at + 8, 16, usize::MAX & !15] {
            assert_eq!(Stack::default().down_to(sp), Stack::default());
            assert_eq!(Window::of(sp, Stack::default()).word(sp), None);
        }
    }
}
