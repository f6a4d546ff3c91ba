//! What the faulting instruction accessed: where, how many bytes, and whether it read or wrote.
//!
//! The kernel says which byte could not be accessed and, for page faults, whether it was to be written.
//! The rest is in the instruction: it is decoded, and the address of its operand put together from the
//! registers. What does not agree with the kernel's address is not told.
//!
//! In the C library the instruction is one of a function that the program called. It is named by the name that the program
//! calls it by, which the library itself may not tell, since its own functions lie behind selectors and have no dynamic
//! symbols: before a return address stands the call, which goes through a word that the loader filled, directly or by a
//! stub of the linker's; the relocation of that word has the name.

use super::modules::Modules;
use crate::addr::Addr;
use crate::sys::signal::Context;
use crate::sys::{thread, vm};
use crate::trace::Frames;
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
        let start = effective_address(&instruction, index, context, ALL)?;
        let written = behavior.operand_access(index).is_some_and(|access| access.is_write());
        Some(Extent { start: Addr::new(start), size: usize::from(size), written })
    });
    for (place, extent) in found.iter_mut().zip(all) {
        *place = Some(extent);
    }
    found
}

/// All registers are known.
const ALL: u16 = u16::MAX;

/// The address of an operand, `None` if it is not in memory or not to be told from the `known` registers, a bit each.
pub(super) fn effective_address(
    instruction: &Instruction,
    index: u8,
    context: &Context,
    known: u16,
) -> Option<usize> {
    let register = |register| value(register, instruction, context, known);
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

/// The DWARF number of a general register, for an operand of four or eight bytes.
pub(super) fn general(register: RegSpec) -> Option<usize> {
    let is_general = matches!(register.class(), register_class::Q | register_class::D);
    DWARF_NUMBERS.get(usize::from(register.num())).copied().filter(|_| is_general)
}

/// The DWARF number of the general register of which this one is all or the lowest bytes.
pub(super) fn low_part(register: RegSpec) -> Option<usize> {
    let number = usize::from(register.num());
    let is_low = match register.class() {
        register_class::Q | register_class::D | register_class::W | register_class::RB => true,
        // The others without a prefix are second bytes.
        register_class::B => number < 4,
        _ => false,
    };
    DWARF_NUMBERS.get(number).copied().filter(|_| is_low)
}

/// What a register held when the instruction began, if it is one of the `known`; a vector of indices has no one value.
pub(super) fn value(
    register: RegSpec,
    instruction: &Instruction,
    context: &Context,
    known: u16,
) -> Option<usize> {
    let held = || {
        let number = general(register)?;
        context.registers.get(number).copied().filter(|_| known >> number & 1 == 1)
    };
    match register.class() {
        register_class::Q => held(),
        register_class::D => held().map(|value| value & 0xffff_ffff),
        // Counted from the next instruction.
        register_class::RIP => {
            Some(context.pc.wrapping_add(usize::try_from(instruction.len().to_const()).ok()?))
        }
        _ => None,
    }
}

/// Bytes of a call through a word; one of a stub takes five.
const CALL: usize = 6;
/// Bytes of a stub.
const STUB: usize = 16;

/// A function's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl Name {
    /// The C library's are not longer.
    const LONGEST: usize = 40;

    /// The name by which a programmer knows a function: without what a compiler that checks sizes makes of it
    /// (`__memcpy_chk`).
    fn of(name: &[u8]) -> Option<Self> {
        let inner = name.strip_prefix(b"__").and_then(|name| name.strip_suffix(b"_chk"));
        let name = inner.unwrap_or(name);
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { bytes, len: name.len() })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// The function of the C library that is called from outside it, the fault of `frames` being in the C library.
pub fn called(modules: &Modules<'_>, frames: &Frames) -> Option<Name> {
    let all = frames.as_slice();
    let outside = all.iter().skip(1).find(|pc| !modules.is_library(**pc))?;
    let slot = slot(*outside)?;
    Name::of(modules.locate(Addr::new(slot))?.import(slot)?.name())
}

/// The word that the call before `returned` goes through.
fn slot(returned: usize) -> Option<usize> {
    let call: [u8; CALL] = read(returned.checked_sub(CALL)?)?;
    if let [0xff, 0x15, offset @ ..] = call {
        return Some(beside(returned, offset));
    }
    let [_, 0xe8, offset @ ..] = call else { return None };
    let stub = beside(returned, offset);
    let code: [u8; STUB] = read(stub)?;
    // It may begin with an instruction that marks it as a target (`endbr64`), and the jump may have a prefix (`bnd`).
    let marked = if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    let prefix = usize::from(code.get(marked) == Some(&0xf2));
    let jump = marked + prefix;
    match code.get(jump..jump + CALL)? {
        [0xff, 0x25, offset @ ..] => Some(beside(stub.wrapping_add(jump + CALL), *offset.first_chunk()?)),
        _ => None,
    }
}

/// The address that lies so far from the end of an instruction.
const fn beside(end: usize, offset: [u8; 4]) -> usize {
    end.wrapping_add_signed(i32::from_le_bytes(offset) as isize)
}

fn read<const N: usize>(address: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (vm::peek(Addr::new(address), &mut bytes) == N).then_some(bytes)
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

    #[test]
    fn names_are_those_that_programs_use() {
        let plain = |name: &[u8]| Name::of(name).map(|name| name.as_bytes().to_vec());
        assert_eq!(plain(b"memcpy").as_deref(), Some(&b"memcpy"[..]));
        assert_eq!(plain(b"__memcpy_chk").as_deref(), Some(&b"memcpy"[..]));
        assert_eq!(plain(b"__strdup").as_deref(), Some(&b"__strdup"[..]));
        assert_eq!(plain(&[b'f'; 100]), None, "no function of the C library is called so");
    }
}
