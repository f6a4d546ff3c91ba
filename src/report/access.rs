//! What the faulting instruction accessed: where, how many bytes, and whether it read or wrote.
//!
//! The kernel says which byte could not be accessed and, for page faults, whether it was to be written.
//! The rest is in the instruction: it is decoded, and the address of its operand put together from the
//! registers. What does not agree with the kernel's address is not told.

use crate::addr::Addr;
use crate::sys::signal::Context;
use crate::sys::{thread, vm};
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Operand, RegSpec, Segment, register_class};

/// The most bytes of an instruction.
const LONGEST: usize = 15;

/// The operand in memory of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Its first byte.
    pub start: Addr,
    /// Its length in bytes; one element's of a string instruction that repeats.
    pub size: usize,
    /// Whether it is written.
    pub written: bool,
}

impl Extent {
    fn holds(&self, address: Addr) -> bool {
        address.offset_from(self.start).is_some_and(|into| into < self.size)
    }

    /// Whether no pointer can have this address: with four levels of page tables bits 47 and up are equal.
    pub fn is_wild(&self) -> bool {
        let high = (self.start.get() as u64).cast_signed() >> 47;
        high != 0 && high != -1
    }

    /// Whether it is a vector's that does not lie at a multiple of its size.
    pub fn is_misaligned(&self) -> bool {
        self.size >= 16 && self.size.is_power_of_two() && !self.start.is_aligned(self.size)
    }
}

/// The access that faulted at `address`.
pub fn at(context: &Context, address: Addr) -> Option<Extent> {
    let (bytes, len) = instruction(context)?;
    operands(bytes.get(..len)?, context).into_iter().flatten().find(|extent| extent.holds(address))
}

/// The access that raised a general protection fault, for which there is no address.
pub fn without_address(context: &Context) -> Option<Extent> {
    let (bytes, len) = instruction(context)?;
    operands(bytes.get(..len)?, context)
        .into_iter()
        .flatten()
        .find(|extent| extent.is_wild() || extent.is_misaligned())
}

/// The bytes at the program counter, as many as there are in readable memory.
fn instruction(context: &Context) -> Option<([u8; LONGEST], usize)> {
    let mut bytes = [0; LONGEST];
    // Code that could not be fetched is not to be looked at.
    let len = if context.fetch { 0 } else { vm::peek(Addr::new(context.pc), &mut bytes) };
    (len != 0).then_some((bytes, len))
}

/// The operands in memory of the instruction that `bytes` start with; two at most.
fn operands(bytes: &[u8], context: &Context) -> [Option<Extent>; 2] {
    let mut found = [None; 2];
    let Ok(instruction) = InstDecoder::default().decode_slice(bytes) else {
        return found;
    };
    let Some(size) = instruction.mem_size().and_then(|size| size.bytes_size()) else {
        return found;
    };
    let behavior = instruction.behavior();
    let all = (0..instruction.operand_count().min(4)).filter_map(|index| {
        let start = effective_address(&instruction, index, context)?;
        let written = behavior.operand_access(index).is_some_and(|access| access.is_write());
        Some(Extent { start: Addr::new(start), size: usize::from(size), written })
    });
    for (place, extent) in found.iter_mut().zip(all) {
        *place = Some(extent);
    }
    found
}

/// The address of an operand, `None` if it is not in memory or not to be told from these registers.
fn effective_address(instruction: &Instruction, index: u8, context: &Context) -> Option<usize> {
    let register = |register| value(register, instruction, context);
    let scaled = |index, scale: u8| Some(register(index)?.wrapping_mul(usize::from(scale)));
    let displaced = |address: usize, disp: i32| address.wrapping_add_signed(disp as isize);
    let offset = match instruction.operand(index) {
        Operand::AbsoluteU32 { addr } => addr as usize,
        Operand::AbsoluteU64 { addr } => addr as usize,
        Operand::MemDeref { base } | Operand::MemDerefMasked { base, .. } => register(base)?,
        Operand::Disp { base, disp } | Operand::DispMasked { base, disp, .. } => {
            displaced(register(base)?, disp)
        }
        Operand::MemIndexScale { index, scale } | Operand::MemIndexScaleMasked { index, scale, .. } => {
            scaled(index, scale)?
        }
        Operand::MemIndexScaleDisp { index, scale, disp }
        | Operand::MemIndexScaleDispMasked { index, scale, disp, .. } => {
            displaced(scaled(index, scale)?, disp)
        }
        Operand::MemBaseIndexScale { base, index, scale }
        | Operand::MemBaseIndexScaleMasked { base, index, scale, .. } => {
            register(base)?.wrapping_add(scaled(index, scale)?)
        }
        Operand::MemBaseIndexScaleDisp { base, index, scale, disp }
        | Operand::MemBaseIndexScaleDispMasked { base, index, scale, disp, .. } => {
            displaced(register(base)?.wrapping_add(scaled(index, scale)?), disp)
        }
        _ => return None,
    };
    match instruction.segment_override_for_op(index) {
        Some(Segment::FS) => Some(thread::pointer().wrapping_add(offset)),
        Some(Segment::GS) => None,
        _ => Some(offset),
    }
}

/// By the processor's number of a register, its DWARF number.
const DWARF_NUMBERS: [usize; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

/// What a register held when the instruction began; a vector of indices has no one value.
fn value(register: RegSpec, instruction: &Instruction, context: &Context) -> Option<usize> {
    let number = DWARF_NUMBERS.get(usize::from(register.num())).copied();
    match register.class() {
        register_class::Q => context.registers.get(number?).copied(),
        register_class::D => context.registers.get(number?).map(|value| value & 0xffff_ffff),
        // Counted from the next instruction.
        register_class::RIP => {
            Some(context.pc.wrapping_add(usize::try_from(instruction.len().to_const()).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RDX: usize = 1;
    const RCX: usize = 2;
    const RSI: usize = 4;
    const RDI: usize = 5;
    const R9: usize = 9;

    fn context() -> Context {
        let mut context = Context { pc: 0x40_0000, ..Context::default() };
        for (number, value) in
            [(0, 0x1000), (RDX, 0x2000), (RCX, 3), (RSI, 0x5000), (RDI, 0x6000), (R9, 0x9000)]
        {
            context.registers[number] = value;
        }
        context
    }

    /// Start, size and whether written.
    type Expected = (usize, usize, bool);

    fn operands_of(bytes: &[u8]) -> std::vec::Vec<Expected> {
        let found = operands(bytes, &context());
        found.iter().flatten().map(|extent| (extent.start.get(), extent.size, extent.written)).collect()
    }

    #[test]
    fn operands_have_place_size_and_use() {
        let cases: &[(&[u8], &[Expected])] = &[
            // mov byte [rax], 1
            (&[0xc6, 0x00, 0x01], &[(0x1000, 1, true)]),
            // mov rax, [rdx + rcx*8 + 16]
            (&[0x48, 0x8b, 0x44, 0xca, 0x10], &[(0x2028, 8, false)]),
            // movzx eax, word [r9 - 2]
            (&[0x41, 0x0f, 0xb7, 0x41, 0xfe], &[(0x8ffe, 2, false)]),
            // add dword [rdx], 1
            (&[0x83, 0x02, 0x01], &[(0x2000, 4, true)]),
            // movups [rdi], xmm0
            (&[0x0f, 0x11, 0x07], &[(0x6000, 16, true)]),
            // vmovdqu ymm0, [rsi]
            (&[0xc5, 0xfe, 0x6f, 0x06], &[(0x5000, 32, false)]),
            // vmovdqu64 [rdi], zmm0
            (&[0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x07], &[(0x6000, 64, true)]),
            // rep movsq
            (&[0xf3, 0x48, 0xa5], &[(0x6000, 8, true), (0x5000, 8, false)]),
            // rep stosb
            (&[0xf3, 0xaa], &[(0x6000, 1, true)]),
            // mov eax, [rip + 0x10]
            (&[0x8b, 0x05, 0x10, 0, 0, 0], &[(0x40_0016, 4, false)]),
            // lock cmpxchg [rdx], rcx
            (&[0xf0, 0x48, 0x0f, 0xb1, 0x0a], &[(0x2000, 8, true)]),
            // xor eax, eax
            (&[0x31, 0xc0], &[]),
            // mov eax, gs:[0]
            (&[0x65, 0x8b, 0x04, 0x25, 0, 0, 0, 0], &[]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(operands_of(bytes), *expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn the_kernels_address_decides() {
        let code = [0x48, 0xa5_u8]; // movsq
        let mut context = context();
        context.pc = code.as_ptr().addr();
        let at = |address| at(&context, Addr::new(address));
        assert_eq!(at(0x6007).map(|extent| extent.written), Some(true));
        assert_eq!(at(0x5000).map(|extent| extent.written), Some(false));
        assert_eq!(at(0x6008), None);
    }

    #[test]
    fn wild_pointers_are_told_from_misaligned_vectors() {
        let code = [0x0f, 0x28, 0x02_u8]; // movaps xmm0, [rdx]
        let mut context = context();
        context.pc = code.as_ptr().addr();
        assert_eq!(without_address(&context), None);
        context.registers[RDX] = 0x2008;
        assert!(without_address(&context).is_some_and(|extent| extent.is_misaligned() && !extent.is_wild()));
        context.registers[RDX] = 0x4141_4141_4141_4140;
        assert!(without_address(&context).is_some_and(|extent| extent.is_wild()));
    }

    /// Whatever stands at a program counter, nothing panics.
    #[test]
    fn any_bytes_are_decoded_without_harm() {
        let mut state = 1_u64;
        let mut bytes = [0; LONGEST];
        for round in 0..300_000 {
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            operands(&bytes[..1 + round % LONGEST], &context());
        }
    }
}
