//! From an object's unwind tables (`.eh_frame`) to the rule of one program counter.
//!
//! The tables are read by `gimli`, in storage of fixed size: a frame that saves more registers than that holds is not
//! understood, nor is one with an expression other than the few that compilers, linkers and the C library emit. Damaged
//! tables end in an error of gimli's, since every slice ends where the mapping does. All this takes some 3.7 KiB of
//! stack, of the thread's signal stack where it has one ([`crate::sys::stacks::with_room`]).

use super::objects::Object;
use super::rule::{CallerFp, FP, Kind, Rule, SP};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Format, LittleEndian, Operation,
    Pointer, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression, UnwindSection,
    UnwindTableRow,
};

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
    let mut places = operations.iter_mut().take(OPERATIONS);
    let mut all = expression.get(frames).ok()?.operations(ENCODING);
    while let Some(operation) = all.next().ok()? {
        *places.next()? = Some(operation);
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
