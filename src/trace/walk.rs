//! From frame to frame outwards.
//!
//! A frame is left by the rule of its program counter: from the cache if it is there and of an object
//! that is still mapped, else read from the object's tables. Code without tables (hand-written assembly,
//! generated code) is left by the frame pointer, if that leads to a frame of the same stack whose return
//! address follows a call.
//!
//! Every step goes upwards in one stack and reads within it only. The one exception is the frame that the
//! kernel made for a signal handler, which leads to the interrupted code, on its own stack. What a step
//! cannot tell ends the trace: it is cut short and not wrong.

use super::cache::Cache;
use super::compile;
use super::frames::{Frames, MAX_FRAMES};
use super::objects::{Object, Objects};
use super::rule::{CallerFp, FP, Kind, Rule, SP};
use super::stack::{Stack, Window};
use crate::addr::{Addr, PAGE_SIZE};
use crate::sys::{loader, stacks};

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
        let rule = stacks::with_room(|| compile::rule(&object, self.at));
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
        // As if it had called: whoever names the frame looks at the byte before.
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
            return matches!(compile::rule(object, callee).kind(), Kind::Guess | Kind::Stub);
        }
    }
    bytes.windows(2).any(|pair| pair[0] == 0xff && pair[1] >> 3 & 7 == 2)
}
