//! The memory around an address: rows of sixteen bytes, the object in brackets, guards as `--`, and a
//! caret under the byte in question.

use crate::addr::Addr;
use crate::fault::Object;
use crate::sys::vm;
use core::fmt;

const ROW: usize = 16;
/// Rows before and after the one with the address.
const CONTEXT: usize = 2;

/// Writes the picture.
pub fn write(out: &mut dyn fmt::Write, address: Addr, object: Option<&Object>) -> fmt::Result {
    let middle = address.align_floor(ROW);
    let (start, end) = match object {
        Some(object) => (object.start, object.start.plus(object.size.unwrap_or(0))),
        None => (Addr::NULL, Addr::NULL),
    };
    writeln!(out, "Memory around it ([object], -- inaccessible):")?;
    let first = middle.minus(CONTEXT * ROW);
    for row in 0..=2 * CONTEXT {
        let base = first.plus(row * ROW);
        write!(out, "{}0x{:012x} ", if base == middle { "=>" } else { "  " }, base.get())?;
        let mut column = 0;
        let mut caret = None;
        for index in 0..ROW {
            let at = base.plus(index);
            // The end of a row that the object fills is marked behind the row.
            let ends = at == end && start != end && index != 0;
            let mark = match (at == start && start != end, ends) {
                (true, _) => '[',
                (_, true) => ']',
                _ => ' ',
            };
            if at == address {
                caret = Some(column + 1);
            }
            let mut byte = [0];
            match vm::peek(at, &mut byte) {
                1 => write!(out, "{mark}{:02x}", byte[0])?,
                _ => write!(out, "{mark}--")?,
            }
            column += 3;
        }
        writeln!(out, "{}", if base.plus(ROW) == end && start != end { "]" } else { "" })?;
        if let Some(caret) = caret {
            writeln!(out, "{:width$}^^", "", width = 17 + caret)?;
        }
    }
    Ok(())
}
