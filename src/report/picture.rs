//! The memory around an address: rows of sixteen bytes, the object in brackets, and a caret under the byte in
//! question.
//!
//! | cell | byte |
//! |---|---|
//! | `--` | inaccessible |
//! | `##` | a canary as it should be: one that is shown is one that can be forged |
//! | `!!` | a canary that was overwritten, without `dump` |
//! | `..` | any other, without `dump` |
//! | two digits | its value: the program's data, and what overwrote a canary |

use crate::addr::Addr;
use crate::canary::Content;
use crate::fault::Object;
use crate::sys::vm;
use core::fmt;

const ROW: usize = 16;
/// Rows before and after the one with the address.
const CONTEXT: usize = 2;

/// What a byte is shown as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    Inaccessible,
    Canary,
    Overwritten,
    Hidden,
    Value(u8),
}

impl Cell {
    fn of(byte: Option<u8>, content: Content, dump: bool) -> Self {
        let Some(byte) = byte else { return Self::Inaccessible };
        match content {
            Content::Canary(expected) | Content::Perhaps(expected) if byte == expected => Self::Canary,
            Content::Withheld => Self::Hidden,
            _ if dump => Self::Value(byte),
            Content::Canary(_) => Self::Overwritten,
            Content::Program | Content::Perhaps(_) => Self::Hidden,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inaccessible => out.write_str("--"),
            Self::Canary => out.write_str("##"),
            Self::Overwritten => out.write_str("!!"),
            Self::Hidden => out.write_str(".."),
            Self::Value(byte) => write!(out, "{byte:02x}"),
        }
    }
}

/// Writes the picture; with `dump` the bytes, else what they are. `content` says what the allocator put at an address.
pub fn write(
    out: &mut dyn fmt::Write,
    address: Addr,
    object: Option<&Object>,
    content: fn(Addr, Option<&Object>) -> Content,
    dump: bool,
) -> fmt::Result {
    let middle = address.align_floor(ROW);
    let (start, end) = match object {
        Some(object) => (object.start, object.start.plus(object.size.unwrap_or(0))),
        None => (Addr::NULL, Addr::NULL),
    };
    let legend = match dump {
        true => "-- inaccessible, ## canary",
        false => "-- inaccessible, ## canary, !! overwritten canary, .. other; bytes by dump=1",
    };
    writeln!(out, "Memory around it ([object], {legend}):")?;
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
            let byte = (vm::peek(at, &mut byte) == 1).then_some(byte[0]);
            write!(out, "{mark}{}", Cell::of(byte, content(at, object), dump))?;
            column += 3;
        }
        writeln!(out, "{}", if base.plus(ROW) == end && start != end { "]" } else { "" })?;
        if let Some(caret) = caret {
            writeln!(out, "{:width$}^^", "", width = 17 + caret)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Origin;
    use std::string::String;

    /// No canary is ever shown, and no byte of the program without `dump`.
    #[test]
    fn cells_tell_no_more_than_they_may() {
        use Content::{Canary, Perhaps, Program, Withheld};
        for (byte, content, with, without) in [
            (None, Program, "--", "--"),
            (None, Canary(1), "--", "--"),
            (Some(0x9d), Canary(0x9d), "##", "##"),
            (Some(0x9d), Perhaps(0x9d), "##", "##"),
            (Some(0x41), Canary(0x9d), "41", "!!"),
            (Some(0x41), Perhaps(0x9d), "41", ".."),
            (Some(0x41), Program, "41", ".."),
            (Some(0x41), Withheld, "..", ".."),
        ] {
            let shown = [true, false].map(|dump| std::format!("{}", Cell::of(byte, content, dump)));
            assert_eq!(shown, [with, without], "{byte:?} {content:?}");
        }
    }

    #[repr(align(16))]
    struct Memory([u8; 80]);

    #[test]
    fn the_object_its_canary_and_the_byte_are_marked() {
        static MEMORY: Memory = Memory({
            let mut bytes = [0x6f; 80];
            bytes[45] = 0x42;
            bytes[46] = 0;
            bytes[47] = 0x9d;
            bytes
        });
        let base = Addr::of(MEMORY.0.as_ptr());
        fn content(at: Addr, _: Option<&Object>) -> Content {
            match at.offset_from(Addr::of(MEMORY.0.as_ptr())) {
                Some(45 | 47) => Content::Canary(0x9d),
                Some(46) => Content::Canary(0),
                _ => Content::Program,
            }
        }
        let object = Object {
            start: base.plus(32),
            size: Some(13),
            freed: false,
            origin: Origin::Malloc,
            history: Default::default(),
        };
        for (dump, object_bytes, wrong, legend) in [
            (true, "6f", "42", "-- inaccessible, ## canary):"),
            (false, "..", "!!", "!! overwritten canary, .. other; bytes by dump=1):"),
        ] {
            let mut text = String::new();
            write(&mut text, base.plus(45), Some(&object), content, dump).expect("a string takes text");
            let bytes = [object_bytes; 13].join(" ");
            let row = std::format!("=>0x{:012x} [{bytes}]{wrong} ## ##\n", base.plus(32).get());
            assert!(text.contains(&row), "{text}");
            assert!(text.lines().next().is_some_and(|line| line.ends_with(legend)), "{text}");
            let caret = text.lines().skip_while(|line| !line.starts_with("=>")).nth(1);
            assert_eq!(caret.map(|line| line.find("^^")), Some(row.find(wrong)), "{text}");
        }
    }
}
