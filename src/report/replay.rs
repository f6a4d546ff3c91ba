//! How much a copying function of the C library was told to copy: where it faulted, what is left of it is followed
//! instruction by instruction, without doing anything.
//!
//! The arguments are gone by then: the registers that held them count. But `memcpy`, `memmove` and `memset` keep
//! the destination, which they return; they write the last byte last, or together with all others; and which way
//! they take depends on addresses and lengths alone, not on the bytes. So the general registers and the flags are
//! enough to follow them to their return, and the end of what they write there is the end of what they were told to.
//! Where a source is read, what is loaded from it and then stored says how far the source lies from the destination.
//!
//! A loop whose registers change by the same amounts each time is left out but for its last rounds. An instruction
//! that is not known here, a register or flag that depends on data, or too long a way: nothing is told.

use super::access::{self, effective_address};
use crate::addr::Addr;
use crate::sys::signal::Context;
use crate::sys::vm;
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand, RegSpec, register_class};

/// Instructions that are followed.
const MOST_STEPS: usize = 50_000;
/// Bytes of code that are read at once.
const WINDOW: usize = 512;
/// The most bytes of an instruction.
const LONGEST: usize = 15;
/// Vector registers.
const VECTORS: usize = 32;
/// Jumps backwards whose last round is remembered.
const LOOPS: usize = 4;

const RAX: usize = 0;
const RCX: usize = 2;
const RSI: usize = 4;
const RDI: usize = 5;
/// The bit of the flags register that lets string instructions go backwards.
const BACKWARDS: usize = 1 << 10;

/// What was copied or set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// Where it is written to.
    pub destination: Addr,
    /// Where it is read from; `None` where nothing is.
    pub source: Option<Addr>,
    /// Its length in bytes.
    pub size: usize,
}

impl Copied {
    /// The first byte of the side that is `written` or read, if `address` lies in it.
    pub fn side(&self, written: bool, address: Addr) -> Option<Addr> {
        let start = if written { self.destination } else { self.source? };
        address.offset_from(start).is_some_and(|into| into < self.size).then_some(start)
    }
}

/// What a function that returns its destination was told to copy or set, from a fault in it on.
pub fn follow(context: &Context) -> Option<Copied> {
    let mut machine = Machine {
        context: *context,
        known: u16::MAX,
        flags: Flags::of(context.flags),
        compared: None,
        loaded: [None; VECTORS + 16],
        distance: None,
        end: 0,
        first: usize::MAX,
        rounds: [Round::default(); LOOPS],
    };
    let mut code = Code { start: 0, len: 0, bytes: [0; WINDOW] };
    for _ in 0..MOST_STEPS {
        match machine.step(code.at(machine.context.pc)?)? {
            After::Next => {}
            After::Returned => return machine.copied(),
        }
    }
    None
}

/// Code as it was last read.
struct Code {
    start: usize,
    len: usize,
    bytes: [u8; WINDOW],
}

impl Code {
    fn at(&mut self, pc: usize) -> Option<&[u8]> {
        let inside = |code: &Self| pc.checked_sub(code.start).filter(|into| into + LONGEST <= code.len);
        let into = match inside(self) {
            Some(into) => into,
            None => {
                self.start = pc;
                self.len = vm::peek(Addr::new(pc), &mut self.bytes);
                0
            }
        };
        self.bytes.get(into..self.len).filter(|bytes| !bytes.is_empty())
    }
}

/// The flags that conditions look at; `None` where one depends on what is not known.
#[derive(Clone, Copy)]
struct Flags {
    zero: Option<bool>,
    carry: Option<bool>,
    sign: Option<bool>,
    overflow: Option<bool>,
}

impl Flags {
    const UNKNOWN: Self = Self { zero: None, carry: None, sign: None, overflow: None };

    fn of(register: usize) -> Self {
        let flag = |bit: u32| Some(register >> bit & 1 == 1);
        Self { carry: flag(0), zero: flag(6), sign: flag(7), overflow: flag(11) }
    }

    /// After a result of `bits`; with `carries` those of carry and overflow.
    const fn after(result: usize, bits: u32, carries: Option<(bool, bool)>) -> Self {
        let (carry, overflow) = match carries {
            Some((carry, overflow)) => (Some(carry), Some(overflow)),
            None => (None, None),
        };
        Self { zero: Some(result == 0), sign: Some(result >> (bits - 1) & 1 == 1), carry, overflow }
    }

    /// Whether a conditional jump is taken.
    fn hold(self, jump: Opcode) -> Option<bool> {
        let less = || Some(self.sign? != self.overflow?);
        let below_or_equal = || Some(self.carry? || self.zero?);
        Some(match jump {
            Opcode::JO => self.overflow?,
            Opcode::JNO => !self.overflow?,
            Opcode::JB => self.carry?,
            Opcode::JNB => !self.carry?,
            Opcode::JZ => self.zero?,
            Opcode::JNZ => !self.zero?,
            Opcode::JNA => below_or_equal()?,
            Opcode::JA => !below_or_equal()?,
            Opcode::JS => self.sign?,
            Opcode::JNS => !self.sign?,
            Opcode::JL => less()?,
            Opcode::JGE => !less()?,
            Opcode::JLE => less()? || self.zero?,
            Opcode::JG => !(less()? || self.zero?),
            _ => return None,
        })
    }
}

/// What stood in the registers when a jump backwards was last taken.
#[derive(Clone, Copy, Default)]
struct Round {
    pc: usize,
    registers: [usize; 16],
    known: u16,
    /// By how much they changed in the round before.
    change: Option<[usize; 16]>,
}

/// A difference: its value, and the registers that it grows and shrinks with.
#[derive(Clone, Copy)]
struct Difference {
    value: usize,
    grows: Option<usize>,
    shrinks: Option<usize>,
}

enum After {
    Next,
    Returned,
}

struct Machine {
    /// The program counter and the registers as they would be.
    context: Context,
    /// The registers that are known, a bit each.
    known: u16,
    flags: Flags,
    /// What the flags were last set by.
    compared: Option<Difference>,
    /// From where each vector register was loaded, and each general one.
    loaded: [Option<usize>; VECTORS + 16],
    /// From the destination to the source.
    distance: Option<usize>,
    /// One past the last byte written, and the first one.
    end: usize,
    first: usize,
    rounds: [Round; LOOPS],
}

impl Machine {
    /// At the return.
    fn copied(&self) -> Option<Copied> {
        let destination = self.context.registers.first().copied().filter(|_| self.known >> RAX & 1 == 1)?;
        let size =
            self.end.checked_sub(destination).filter(|size| self.first >= destination && *size != 0)?;
        let source = self.distance.map(|distance| Addr::new(destination.wrapping_add(distance)));
        isize::try_from(size).is_ok().then_some(Copied { destination: Addr::new(destination), source, size })
    }

    /// Follows the instruction that `bytes` start with.
    fn step(&mut self, bytes: &[u8]) -> Option<After> {
        let instruction = InstDecoder::default().decode_slice(bytes.get(..bytes.len().min(LONGEST))?).ok()?;
        let len = usize::try_from(instruction.len().to_const()).ok()?;
        let here = self.context.pc;
        let next = here.wrapping_add(len);
        let opcode = instruction.opcode();
        match opcode {
            Opcode::RETURN => return Some(After::Returned),
            Opcode::JMP => {
                self.context.pc = next.wrapping_add(immediate(&instruction.operand(0))?);
                return Some(After::Next);
            }
            Opcode::MOVS | Opcode::STOS => self.string(&instruction)?,
            Opcode::MOV => self.move_word(&instruction)?,
            Opcode::MOVZX if instruction.operand(1).is_memory() => self.move_word(&instruction)?,
            Opcode::LEA => {
                let value = effective_address(&instruction, 1, &self.context, self.known);
                self.set(&instruction.operand(0), value)?;
            }
            Opcode::CMP
            | Opcode::SUB
            | Opcode::ADD
            | Opcode::AND
            | Opcode::OR
            | Opcode::XOR
            | Opcode::TEST => {
                self.arithmetic(&instruction)?;
            }
            Opcode::INC | Opcode::DEC | Opcode::NEG | Opcode::NOT => self.one_operand(&instruction)?,
            Opcode::SHL | Opcode::SAL | Opcode::SHR => self.shift(&instruction)?,
            Opcode::NOP | Opcode::ENDBR64 | Opcode::SFENCE | Opcode::VZEROUPPER => {}
            Opcode::PREFETCHNTA
            | Opcode::PREFETCH0
            | Opcode::PREFETCH1
            | Opcode::PREFETCH2
            | Opcode::PREFETCHW => {}
            _ if is_vector_move(opcode) => self.vector(&instruction)?,
            _ => {
                let target = next.wrapping_add(immediate(&instruction.operand(0))?);
                let taken = self.flags.hold(opcode)?;
                if taken && target < here {
                    self.leave_out_rounds(here);
                }
                self.context.pc = if taken { target } else { next };
                return Some(After::Next);
            }
        }
        self.context.pc = next;
        Some(After::Next)
    }

    /// Bits of the operation: 32 or 64.
    fn bits(operand: &Operand) -> Option<u32> {
        match operand {
            Operand::Register { reg } => {
                access::general(*reg)?;
                Some(if reg.class() == register_class::Q { 64 } else { 32 })
            }
            _ => None,
        }
    }

    /// The value of a register or a number; `None` outside if there is no telling what the operand is.
    fn get(&self, operand: &Operand, instruction: &Instruction) -> Option<Option<usize>> {
        match operand {
            Operand::Register { reg } => {
                access::general(*reg)?;
                Some(access::value(*reg, instruction, &self.context, self.known))
            }
            _ => immediate(operand).map(Some),
        }
    }

    fn set(&mut self, operand: &Operand, value: Option<usize>) -> Option<()> {
        let bits = Self::bits(operand)?;
        let Operand::Register { reg } = operand else { return None };
        let number = access::general(*reg)?;
        let held = self.context.registers.get_mut(number)?;
        *held = within(value.unwrap_or(0), bits);
        if let Some(loaded) = self.loaded.get_mut(VECTORS + number) {
            *loaded = None;
        }
        let bit = 1 << number;
        self.known = if value.is_some() { self.known | bit } else { self.known & !bit };
        Some(())
    }

    /// The value of an operand; what stands in memory beside the code is read.
    fn operand(&self, instruction: &Instruction, index: u8, bits: u32) -> Option<Option<usize>> {
        let operand = instruction.operand(index);
        if !operand.is_memory() {
            return self.get(&operand, instruction);
        }
        let Operand::Disp { base, .. } = operand else { return None };
        let address = effective_address(instruction, index, &self.context, self.known)?;
        let mut word = [0; 8];
        let len = bits as usize / 8;
        let got = vm::peek(Addr::new(address), word.get_mut(..len)?);
        (base.class() == register_class::RIP && got == len).then_some(Some(usize::from_le_bytes(word)))
    }

    fn move_word(&mut self, instruction: &Instruction) -> Option<()> {
        let (target, source) = (instruction.operand(0), instruction.operand(1));
        if target.is_memory() {
            return self.store(instruction, VECTORS.saturating_add(part_of(&source).unwrap_or(usize::MAX)));
        }
        let Some(bits) = Self::bits(&target) else {
            // A part of a register, of data.
            let number = part_of(&target).filter(|_| source.is_memory())?;
            let address = effective_address(instruction, 1, &self.context, self.known)?;
            self.known &= !(1 << number);
            *self.loaded.get_mut(VECTORS + number)? = Some(address);
            return Some(());
        };
        let number = number_of(&target)?;
        if !source.is_memory() {
            let value = self.get(&source, instruction)?;
            return self.set(&target, value);
        }
        if instruction.opcode() == Opcode::MOV
            && let Some(value) = self.operand(instruction, 1, bits)
        {
            return self.set(&target, value);
        }
        // Data.
        let address = effective_address(instruction, 1, &self.context, self.known)?;
        self.set(&target, None)?;
        *self.loaded.get_mut(VECTORS + number)? = Some(address);
        Some(())
    }

    fn arithmetic(&mut self, instruction: &Instruction) -> Option<()> {
        let opcode = instruction.opcode();
        let target = instruction.operand(0);
        let keeps = matches!(opcode, Opcode::CMP | Opcode::TEST);
        let bits = match Self::bits(&target) {
            Some(bits) => bits,
            None => 8 * u32::from(instruction.mem_size()?.bytes_size()?),
        };
        if !matches!(bits, 32 | 64) {
            return None;
        }
        let both = (self.operand(instruction, 0, bits)?, self.operand(instruction, 1, bits)?);
        let zeroing = opcode == Opcode::XOR && target == instruction.operand(1);
        let both = if zeroing { (Some(0), Some(0)) } else { both };
        self.compared = None;
        let (Some(a), Some(b)) = both else {
            self.flags = Flags::UNKNOWN;
            return if keeps { Some(()) } else { self.set(&target, None) };
        };
        let (a, b) = (within(a, bits), within(b, bits));
        let sign = |value: usize| value >> (bits - 1) & 1 == 1;
        let (result, carries) = match opcode {
            Opcode::CMP | Opcode::SUB => {
                let result = within(a.wrapping_sub(b), bits);
                let shrinks = number_of(&instruction.operand(1)).filter(|_| keeps);
                let difference = Difference { value: result, grows: number_of(&target), shrinks };
                self.compared = (bits == 64).then_some(difference);
                (result, (a < b, sign(a) != sign(b) && sign(result) != sign(a)))
            }
            Opcode::ADD => {
                let result = within(a.wrapping_add(b), bits);
                (result, (result < a, sign(a) == sign(b) && sign(result) != sign(a)))
            }
            Opcode::AND | Opcode::TEST => (a & b, (false, false)),
            Opcode::OR => (a | b, (false, false)),
            _ => (a ^ b, (false, false)),
        };
        self.flags = Flags::after(result, bits, Some(carries));
        if keeps { Some(()) } else { self.set(&target, Some(result)) }
    }

    fn one_operand(&mut self, instruction: &Instruction) -> Option<()> {
        let (opcode, target) = (instruction.opcode(), instruction.operand(0));
        let bits = Self::bits(&target)?;
        let value = self.get(&target, instruction)?;
        if opcode == Opcode::NOT {
            return self.set(&target, value.map(|value| !value));
        }
        self.compared = None;
        let Some(value) = value else {
            self.flags = Flags::UNKNOWN;
            return self.set(&target, None);
        };
        let result = match opcode {
            Opcode::INC => value.wrapping_add(1),
            Opcode::DEC => value.wrapping_sub(1),
            _ => value.wrapping_neg(),
        };
        let result = within(result, bits);
        let carry = if opcode == Opcode::NEG { Some(value != 0) } else { self.flags.carry };
        self.flags = Flags { carry, ..Flags::after(result, bits, None) };
        if opcode == Opcode::DEC && bits == 64 {
            self.compared = Some(Difference { value: result, grows: number_of(&target), shrinks: None });
        }
        self.set(&target, Some(result))
    }

    fn shift(&mut self, instruction: &Instruction) -> Option<()> {
        let target = instruction.operand(0);
        let bits = Self::bits(&target)?;
        let by = u32::try_from(immediate(&instruction.operand(1))?).ok()? & (bits - 1);
        let left = instruction.opcode() != Opcode::SHR;
        let shifted = |value: usize| if left { value << by } else { within(value, bits) >> by };
        let result = self.get(&target, instruction)?.map(|value| within(shifted(value), bits));
        self.compared = None;
        self.flags = result.map_or(Flags::UNKNOWN, |result| Flags::after(result, bits, None));
        self.set(&target, result)
    }

    /// A string instruction, all its rounds.
    fn string(&mut self, instruction: &Instruction) -> Option<()> {
        let size = usize::from(instruction.mem_size()?.bytes_size()?);
        let register = |number: usize| {
            self.context.registers.get(number).copied().filter(|_| self.known >> number & 1 == 1)
        };
        let repeats = instruction.prefixes.rep_any();
        let (target, count) = (register(RDI)?, if repeats { register(RCX)? } else { 1 });
        let len = count.checked_mul(size).filter(|_| self.context.flags & BACKWARDS == 0)?;
        let moves = instruction.opcode() == Opcode::MOVS;
        let source = if moves { Some(register(RSI)?) } else { None };
        if len != 0 {
            self.wrote(target, len)?;
            if let Some(source) = source {
                self.distance.get_or_insert(source.wrapping_sub(target));
            }
        }
        self.context.registers[RDI] = target.wrapping_add(len);
        if let Some(source) = source {
            self.context.registers[RSI] = source.wrapping_add(len);
        }
        if repeats {
            self.context.registers[RCX] = 0;
        }
        Some(())
    }

    /// A move between a vector register and memory or another.
    fn vector(&mut self, instruction: &Instruction) -> Option<()> {
        let (target, source) = (instruction.operand(0), instruction.operand(1));
        if target.is_memory() {
            return self.store(instruction, vector_number(&source)?);
        }
        let loaded = if source.is_memory() {
            is_whole(&source).then_some(())?;
            Some(effective_address(instruction, 1, &self.context, self.known)?)
        } else {
            self.loaded.get(vector_number(&source)?).copied().flatten()
        };
        *self.loaded.get_mut(vector_number(&target)?)? = loaded;
        Some(())
    }

    /// The first operand in memory is written from a register.
    fn store(&mut self, instruction: &Instruction, from: usize) -> Option<()> {
        is_whole(&instruction.operand(0)).then_some(())?;
        let address = effective_address(instruction, 0, &self.context, self.known)?;
        if let Some(loaded) = self.loaded.get(from).copied().flatten() {
            self.distance.get_or_insert(loaded.wrapping_sub(address));
        }
        self.wrote(address, usize::from(instruction.mem_size()?.bytes_size()?))
    }

    fn wrote(&mut self, address: usize, len: usize) -> Option<()> {
        self.first = self.first.min(address);
        self.end = self.end.max(address.checked_add(len)?);
        Some(())
    }

    /// At a jump backwards that is taken: if the registers change by the same amounts each round, and what the jump
    /// depends on comes nearer to its end, all but the last two rounds are left out.
    fn leave_out_rounds(&mut self, pc: usize) {
        let registers = self.context.registers;
        let Some(place) = self.rounds.iter().position(|round| round.pc == pc || round.pc == 0) else {
            return;
        };
        let Some(round) = self.rounds.get_mut(place) else { return };
        let last = core::mem::replace(round, Round { pc, registers, known: self.known, change: None });
        if last.pc == 0 || last.known != self.known {
            return;
        }
        let mut change = [0; 16];
        for (change, (now, before)) in change.iter_mut().zip(registers.iter().zip(last.registers)) {
            *change = now.wrapping_sub(before);
        }
        round.change = Some(change);
        let Some(compared) = self.compared.filter(|_| last.change == Some(change)) else { return };
        let moved = |register: Option<usize>| register.and_then(|at| change.get(at)).copied().unwrap_or(0);
        let step = moved(compared.grows).wrapping_sub(moved(compared.shrinks)).cast_signed();
        let left = compared.value.cast_signed();
        if step == 0 || (left > 0) == (step > 0) {
            return;
        }
        let rounds = (left.unsigned_abs() / step.unsigned_abs()).saturating_sub(2);
        for (held, change) in self.context.registers.iter_mut().zip(change) {
            *held = held.wrapping_add(change.wrapping_mul(rounds));
        }
        round.registers = self.context.registers;
    }
}

/// A number as it is in so many bits.
const fn within(value: usize, bits: u32) -> usize {
    if bits == 64 { value } else { value & 0xffff_ffff }
}

/// The DWARF number of an operand that is a general register.
fn number_of(operand: &Operand) -> Option<usize> {
    match operand {
        Operand::Register { reg } => access::general(*reg),
        _ => None,
    }
}

/// The DWARF number of the general register of which an operand is all or the lowest bytes.
fn part_of(operand: &Operand) -> Option<usize> {
    match operand {
        Operand::Register { reg } => access::low_part(*reg),
        _ => None,
    }
}

/// Whether an operand in memory is accessed as a whole and not under a mask.
fn is_whole(operand: &Operand) -> bool {
    !matches!(
        operand,
        Operand::MemDerefMasked { .. }
            | Operand::DispMasked { .. }
            | Operand::MemIndexScaleMasked { .. }
            | Operand::MemIndexScaleDispMasked { .. }
            | Operand::MemBaseIndexScaleMasked { .. }
            | Operand::MemBaseIndexScaleDispMasked { .. }
    )
}

fn vector_number(operand: &Operand) -> Option<usize> {
    let number = |reg: RegSpec| {
        let is_vector = matches!(reg.class(), register_class::X | register_class::Y | register_class::Z);
        is_vector.then_some(usize::from(reg.num()))
    };
    match operand {
        Operand::Register { reg } => number(*reg),
        Operand::RegisterMaskMerge { reg, mask, .. } if mask.num() == 0 => number(*reg),
        _ => None,
    }
}

/// A number in an instruction, with its sign.
fn immediate(operand: &Operand) -> Option<usize> {
    let signed = |number: i64| number.cast_unsigned() as usize;
    Some(match *operand {
        Operand::ImmediateI8 { imm } => signed(imm.into()),
        Operand::ImmediateU8 { imm } => imm.into(),
        Operand::ImmediateI16 { imm } => signed(imm.into()),
        Operand::ImmediateU16 { imm } => imm.into(),
        Operand::ImmediateI32 { imm } => signed(imm.into()),
        Operand::ImmediateU32 { imm } => imm as usize,
        Operand::ImmediateI64 { imm } => signed(imm),
        Operand::ImmediateU64 { imm } => usize::try_from(imm).ok()?,
        _ => return None,
    })
}

/// Moves between a vector register and memory or another register, of the whole operand.
const fn is_vector_move(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::MOVUPS
            | Opcode::MOVAPS
            | Opcode::MOVUPD
            | Opcode::MOVAPD
            | Opcode::MOVDQU
            | Opcode::MOVDQA
            | Opcode::MOVNTDQ
            | Opcode::MOVNTPS
            | Opcode::MOVQ
            | Opcode::MOVD
            | Opcode::LDDQU
            | Opcode::VMOVUPS
            | Opcode::VMOVAPS
            | Opcode::VMOVDQU
            | Opcode::VMOVDQA
            | Opcode::VMOVNTDQ
            | Opcode::VMOVNTPS
            | Opcode::VMOVQ
            | Opcode::VMOVD
            | Opcode::VMOVDQU8
            | Opcode::VMOVDQU16
            | Opcode::VMOVDQU32
            | Opcode::VMOVDQU64
            | Opcode::VMOVDQA32
            | Opcode::VMOVDQA64
    )
}

#[cfg(test)]
#[path = "../../tests/unit/replay.rs"]
mod tests;
