//! Loaded objects, numbered: where their code and their unwind tables are.
//!
//! A rule from an object's tables holds only while that object is mapped. So a rule names the object by its number
//! here. A trace asks the loader, once for each object that it enters, whether the code still belongs to that object
//! ([`Objects::is_at`]). An object is identified by where it is mapped, where its tables are, and a part of its build
//! id: another build of a library may be mapped where a closed one was. A library without a build id gets no number.
//!
//! The table has a fixed size and is hashed by the identity. An entry is claimed once and does not change afterwards.
//! Objects beyond its size have no number, and rules are read anew for each of their frames.
//!
//! | state of an entry | next | by |
//! |---|---|---|
//! | `VACANT` | `CLAIMED` | the thread that describes a new object, by compare and exchange |
//! | `CLAIMED` | `READY` | the same, when all else is written |
//!
//! # From tables to rules
//!
//! An object's unwind tables (`.eh_frame`) give the rule of a program counter.
//!
//! `gimli` reads the tables, in storage of fixed size. A frame that saves more registers than that holds gets no rule.
//! Neither does a frame with an expression other than the few that compilers, linkers and the C library emit. Damaged
//! tables end in an error of gimli's, since every slice ends where the mapping does. Reading takes some 3.7 KiB of
//! stack, on the thread's signal stack where it has one ([`crate::sys::stacks::with_room`]).

use super::cache::{CallerFp, FP, Kind, Rule, SP};
use crate::addr::{Addr, PAGE_SIZE};
use crate::sys::loader::Mapped;
use crate::sys::{auxv, vm};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Format, LittleEndian, Operation,
    Pointer, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression, UnwindSection,
    UnwindTableRow,
};
use libc::{Elf64_Ehdr, Elf64_Phdr};

const PF_X: u32 = 1;
const PF_R: u32 = 4;
/// The type of the note that holds a build id.
const NT_GNU_BUILD_ID: u32 = 3;

/// Places, a power of two.
const ENTRIES: usize = 512;
/// Places tried before an object gets no number.
const PROBES: usize = 16;

const VACANT: u32 = 0;
const CLAIMED: u32 = 1;
const READY: u32 = 2;

/// An object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object {
    mapped: Mapped,
    /// The segment in which its unwind tables are.
    tables: (usize, usize),
    /// Its first segment of code.
    code: (usize, usize),
    /// Eight bytes that tell it from another object at its place: where they are and what they are.
    sample: (usize, u64),
    /// Whether rules of it may be kept: it has a build id, or is the program, which nobody can close.
    lasting: bool,
}

impl Object {
    /// Reads the object's program headers. `None` if they are not at its start, as the loader puts them.
    pub fn describe(mapped: Mapped) -> Option<Self> {
        let header = read::<Elf64_Ehdr>(mapped, mapped.start)?;
        let regular = header.e_ident.starts_with(b"\x7fELF\x02\x01")
            && usize::from(header.e_phentsize) == size_of::<Elf64_Phdr>();
        if !regular {
            return None;
        }
        let at = |index: u16| {
            let offset = usize::try_from(header.e_phoff).ok()?;
            let offset = offset.checked_add(usize::from(index).checked_mul(size_of::<Elf64_Phdr>())?)?;
            read::<Elf64_Phdr>(mapped, mapped.start.checked_add(offset)?)
        };
        let headers = || (0..header.e_phnum).map_while(at);
        let first = headers().find(|header| header.p_type == libc::PT_LOAD)?;
        let bias = mapped.start.wrapping_sub(first.p_vaddr as usize & !(PAGE_SIZE - 1));
        let range = |header: &Elf64_Phdr| {
            let start = bias.wrapping_add(header.p_vaddr as usize);
            start..start.saturating_add(header.p_memsz as usize).min(mapped.end)
        };
        let readable = |address: usize| {
            headers()
                .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & PF_R != 0)
                .map(|header| range(&header))
                .find(|range| range.contains(&address))
        };
        let code = headers()
            .find(|header| header.p_type == libc::PT_LOAD && header.p_flags & (PF_R | PF_X) == PF_R | PF_X)
            .map(|header| range(&header))?;
        let tables = readable(mapped.eh_frame_hdr)?;
        let build_id = headers()
            .filter(|header| header.p_type == libc::PT_NOTE)
            .find_map(|header| build_id(mapped, range(&header)));
        let sample_at = build_id.unwrap_or(mapped.start);
        Some(Self {
            mapped,
            tables: (tables.start, tables.end),
            code: (code.start, code.end),
            sample: (sample_at, sample(sample_at)),
            lasting: build_id.is_some() || (mapped.start..mapped.end).contains(&auxv::entry()),
        })
    }

    /// Where its `.eh_frame_hdr` is.
    pub fn header(&self) -> usize {
        self.mapped.eh_frame_hdr
    }

    /// The bytes from an address in the segment of its unwind tables to the end of that, empty for other
    /// addresses. They are mapped as long as the object is: while a frame of its code is on the stack.
    pub fn tables_from(&self, address: usize) -> &[u8] {
        let (start, end) = self.tables;
        if address < start || address >= end {
            return &[];
        }
        // SAFETY: the loader mapped the segment, readable, and nobody writes it once it is relocated.
        unsafe { core::slice::from_raw_parts(Addr::new(address).as_ptr::<u8>(), end - address) }
    }

    /// Whether an address is one of its code, which may be read.
    pub fn has_code(&self, address: usize) -> bool {
        (self.code.0..self.code.1).contains(&address)
    }
}

/// Reads a header from the first page of an object.
fn read<T: Copy>(mapped: Mapped, at: usize) -> Option<T> {
    let end = mapped.start.saturating_add(PAGE_SIZE).min(mapped.end);
    if at < mapped.start || at.checked_add(size_of::<T>())? > end {
        return None;
    }
    // SAFETY: the first page of a loaded object is mapped and readable: the loader has read these headers
    // there. `T` is a plain structure of numbers.
    Some(unsafe { Addr::new(at).as_ptr::<T>().read_unaligned() })
}

/// Where the build id is, if it is among these notes, which have to be in the first page.
fn build_id(mapped: Mapped, notes: Range<usize>) -> Option<usize> {
    let mut at = notes.start;
    while at < notes.end {
        let [name, length, kind] = read::<[u32; 3]>(mapped, at)?;
        let content = at.checked_add(12)?.checked_add((name as usize).checked_next_multiple_of(4)?)?;
        if kind == NT_GNU_BUILD_ID && length >= 8 && read::<[u8; 4]>(mapped, at + 12)? == *b"GNU\0" {
            read::<u64>(mapped, content)?;
            return Some(content);
        }
        at = content.checked_add((length as usize).checked_next_multiple_of(4)?)?;
    }
    None
}

fn sample(at: usize) -> u64 {
    // SAFETY: `describe` chose eight bytes of the first page; a later reader has made sure that an
    // object starts there, and the first page of one is mapped and readable.
    unsafe { Addr::new(at).as_ptr::<u64>().read_unaligned() }
}

/// An entry of the table. All but the state is written while it is `CLAIMED`.
#[repr(C, align(128))]
struct Entry {
    object: core::cell::UnsafeCell<Object>,
    state: AtomicU32,
}

/// The table.
pub struct Objects {
    entries: *const Entry,
}

// SAFETY: the mapping lives as long as the process; what is in it is handed over by the states.
unsafe impl Send for Objects {}
// SAFETY: an entry is written by the one thread that claimed it, and read by others only once its state is
// `READY`.
unsafe impl Sync for Objects {}

impl Objects {
    /// A table without entries.
    pub const EMPTY: Self = Self { entries: core::ptr::null() };

    /// Maps a table; `None` if the kernel refuses.
    pub fn map() -> Option<Self> {
        Some(Self { entries: vm::tables(size_of::<Entry>() * ENTRIES)?.as_ptr() })
    }

    /// The place with this index, if the table is mapped.
    #[inline(always)]
    fn entry(&self, index: usize) -> Option<&Entry> {
        if self.entries.is_null() {
            return None;
        }
        // SAFETY: masked to the table's length; zeroed memory is a vacant entry.
        Some(unsafe { &*self.entries.add(index & (ENTRIES - 1)) })
    }

    /// The object called `number`.
    #[inline(always)]
    fn get(&self, number: u16) -> Option<&Object> {
        let entry = self.entry(usize::from(number.checked_sub(1)?))?;
        // SAFETY: an entry that is ready does not change any more.
        (entry.state.load(Ordering::Acquire) == READY).then(|| unsafe { &*entry.object.get() })
    }

    /// Whether the object called `number` is what the loader has `mapped`.
    #[inline(always)]
    pub fn is_at(&self, number: u16, mapped: Mapped) -> bool {
        self.get(number)
            .is_some_and(|object| object.mapped == mapped && sample(object.sample.0) == object.sample.1)
    }

    /// The number of `object`, which it gets if it has none; 0 if it may have none or there is no place left.
    pub fn number_of(&self, object: &Object) -> u16 {
        if !object.lasting {
            return 0;
        }
        let identity = object.mapped.start as u64 ^ object.sample.1.rotate_left(17);
        let home = (identity.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        for index in (home..home.saturating_add(PROBES)).map(|index| index & (ENTRIES - 1)) {
            let Some(entry) = self.entry(index) else {
                return 0;
            };
            let number = (index + 1) as u16;
            match entry.state.compare_exchange(VACANT, CLAIMED, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    // SAFETY: the exchange made this thread the only one that may touch the object.
                    unsafe { entry.object.get().write(*object) };
                    entry.state.store(READY, Ordering::Release);
                    return number;
                }
                Err(READY) if self.get(number) == Some(object) => return number,
                // Another's, or being written: one object may get two numbers.
                Err(_) => {}
            }
        }
        0
    }
}

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Room for the rules of so many registers, and for as many remembered rows as compilers nest.
struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 12];
    type Stack = [UnwindTableRow<usize, Self>; 4];
}

/// The return address's column.
const RETURN: Register = Register(16);

/// Of the expressions.
const ENCODING: Encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };

/// Where an `.eh_frame_hdr` says how its count of entries is written.
const COUNT_ENCODING_AT: usize = 2;

/// The rule of `address` by the tables of `object`.
#[inline(never)]
pub fn rule(object: &Object, address: usize) -> Rule {
    let header = object.header();
    // How many entries the table has stands there in 32 bits, as linkers write it. In more, a corrupted number is one that
    // the search cannot reckon with.
    if object.tables_from(header).get(COUNT_ENCODING_AT) != Some(&gimli::DW_EH_PE_udata4.0) {
        return Rule::plain(Kind::Guess);
    }
    // The tables' bytes are numbers to everyone, so that they may be asked for by any address.
    let parsed = EhFrameHdr::new(object.tables_from(header), LittleEndian)
        .parse(&BaseAddresses::default().set_eh_frame_hdr(header as u64), 8);
    let Ok(parsed) = parsed else {
        return Rule::plain(Kind::Guess);
    };
    let (Pointer::Direct(frames_at), Some(table)) = (parsed.eh_frame_ptr(), parsed.table()) else {
        return Rule::plain(Kind::Guess);
    };
    let bases = BaseAddresses::default().set_eh_frame_hdr(header as u64).set_eh_frame(frames_at);
    let frames = EhFrame::new(object.tables_from(frames_at as usize), LittleEndian);
    let Ok(Pointer::Direct(entry_at)) = table.lookup(address as u64, &bases) else {
        return Rule::plain(Kind::Guess);
    };
    let Some(offset) = entry_at.checked_sub(frames_at).and_then(|offset| usize::try_from(offset).ok()) else {
        return Rule::plain(Kind::Guess);
    };
    let Ok(entry) = frames.fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset) else {
        return Rule::plain(Kind::Guess);
    };
    if !entry.contains(address as u64) {
        return Rule::plain(Kind::Guess);
    }
    if entry.is_signal_trampoline() {
        return Rule::plain(Kind::Signal);
    }
    let mut context = UnwindContext::<usize, Storage>::new_in();
    match entry.unwind_info_for_address(&frames, &bases, &mut context, address as u64) {
        Ok(row) => of_row(row, &frames).unwrap_or(Rule::plain(Kind::Stop)),
        Err(_) => Rule::plain(Kind::Stop),
    }
}

/// `None` for a row that says something else than the fields of a rule can.
fn of_row(row: &UnwindTableRow<usize, Storage>, frames: &EhFrame<Reader<'_>>) -> Option<Rule> {
    match row.register(RETURN) {
        Some(RegisterRule::Offset(-8)) => {}
        Some(RegisterRule::Undefined) => return Some(Rule::plain(Kind::End)),
        _ => return None,
    }
    let (fp, fp_offset) = match row.register(Register(FP)) {
        // A callee may not touch the frame pointer without a word: no word means the same value.
        None | Some(RegisterRule::SameValue) => (CallerFp::Same, 0),
        Some(RegisterRule::Offset(offset)) => (CallerFp::AtCfa, offset),
        Some(RegisterRule::Expression(expression)) => match operations(&expression, frames)? {
            [Some(Operation::RegisterOffset { register: Register(FP), offset, .. }), None, ..] => {
                (CallerFp::AtFp, offset)
            }
            _ => (CallerFp::Lost, 0),
        },
        _ => (CallerFp::Lost, 0),
    };
    let (kind, base, offset, extra) = match row.cfa() {
        // What gimli has for a table that defines none.
        CfaRule::RegisterAndOffset { register: Register(0), offset: 0 } => return None,
        CfaRule::RegisterAndOffset { register, offset } => (Kind::Offset, register.0, *offset, 0),
        CfaRule::Expression(expression) => of_expression(&operations(expression, frames)?)?,
    };
    Some(Rule::frame(kind, base, offset, extra, fp, fp_offset))
}

/// The most operations of an expression that is understood.
const OPERATIONS: usize = 9;

type Operations<'a> = [Option<Operation<Reader<'a>>>; OPERATIONS + 1];

fn operations<'a>(
    expression: &UnwindExpression<usize>,
    frames: &EhFrame<Reader<'a>>,
) -> Option<Operations<'a>> {
    let mut operations = [const { None }; OPERATIONS + 1];
    let mut entries = operations.iter_mut().take(OPERATIONS);
    let mut all = expression.get(frames).ok()?.operations(ENCODING);
    while let Some(operation) = all.next().ok()? {
        *entries.next()? = Some(operation);
    }
    Some(operations)
}

/// Kind, base register, offset and extra number of a CFA that is an expression.
fn of_expression(operations: &Operations<'_>) -> Option<(Kind, u16, i64, u64)> {
    use Operation::{And, Deref, Ge, Plus, PlusConstant, RegisterOffset, Shl, UnsignedConstant};
    match operations {
        [
            Some(RegisterOffset { register, offset, .. }),
            Some(Deref { size: 8, space: false, .. }),
            None,
            ..,
        ] => Some((Kind::Indirect, register.0, *offset, 0)),
        [
            Some(RegisterOffset { register, offset, .. }),
            Some(Deref { size: 8, space: false, .. }),
            Some(PlusConstant { value }),
            None,
            ..,
        ] if value % 8 == 0 => Some((Kind::Indirect, register.0, *offset, value / 8)),
        // rsp + offset + ((rip & 15 >= extra) << 3)
        [
            Some(RegisterOffset { register: Register(SP), offset, .. }),
            Some(RegisterOffset { register: RETURN, offset: 0, .. }),
            Some(UnsignedConstant { value: 15 }),
            Some(And),
            Some(UnsignedConstant { value: extra }),
            Some(Ge),
            Some(UnsignedConstant { value: 3 }),
            Some(Shl),
            Some(Plus),
            None,
        ] => Some((Kind::Stub, SP, *offset, *extra)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::loader;

    fn mine() -> Object {
        let here = loader::object_of((mine as fn() -> Object) as usize).expect("a loaded object");
        Object::describe(here).expect("with headers")
    }

    #[test]
    fn an_object_is_described_by_its_headers() {
        let object = mine();
        assert!(object.has_code((mine as fn() -> Object) as usize));
        assert!(!object.has_code(object.mapped.start));
        assert!(object.tables.1 <= object.mapped.end);
        let libc = loader::object_of(libc::getpid as *const () as usize).expect("a loaded object");
        let libc = Object::describe(libc).expect("with headers");
        assert!(libc.sample.0 < libc.mapped.start + PAGE_SIZE, "distributions give a build id");
    }

    #[test]
    fn equal_objects_have_one_number() {
        let objects = Objects::map().expect("mapping");
        let object = mine();
        let number = objects.number_of(&object);
        assert_ne!(number, 0);
        assert_eq!(objects.number_of(&object), number);
        assert!(objects.is_at(number, object.mapped));
    }

    #[test]
    fn another_object_at_the_same_place_is_another() {
        let objects = Objects::map().expect("mapping");
        let object = mine();
        let earlier = Object { sample: (object.sample.0, !object.sample.1), ..object };
        let number = objects.number_of(&earlier);
        assert_ne!(number, 0);
        assert!(!objects.is_at(number, object.mapped));
        assert_ne!(objects.number_of(&object), number);
        assert!(!objects.is_at(0, object.mapped));
        assert!(!objects.is_at(u16::MAX, object.mapped));
    }

    #[test]
    fn objects_beyond_the_table_have_no_number() {
        let objects = Objects::map().expect("mapping");
        let object = mine();
        let many = (0..4 * ENTRIES as u64).map(|id| Object { sample: (object.sample.0, id), ..object });
        let numbered = many.filter(|object| objects.number_of(object) != 0).count();
        assert!(numbered <= ENTRIES && numbered > ENTRIES / 2, "{numbered}");
        assert_eq!(Objects::EMPTY.number_of(&object), 0);
    }
}
