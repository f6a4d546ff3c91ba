//! A file line by line, in a buffer that need not hold it all.

use super::file;

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// The start of a line that is longer than the buffer. The rest of it is left out.
    LongLine(&'a [u8]),
    /// The file is longer than what is read of it; this was all.
    Rest,
}

/// Hands over the lines of the file at `path`, a NUL-terminated name, up to `most` bytes of it. A line that is cut there is
/// left out. The errno if the file cannot be opened, is none to be read, or cannot be read to its end.
pub fn read(path: &[u8], buffer: &mut [u8], most: usize, mut each: impl FnMut(Piece<'_>)) -> Result<(), i32> {
    let fd = file::open_named(path)?;
    let result = split(buffer, most, |room| file::read_some(fd, room), &mut each);
    file::close(fd);
    result
}

fn split(
    buffer: &mut [u8],
    most: usize,
    mut more: impl FnMut(&mut [u8]) -> Result<usize, i32>,
    each: &mut impl FnMut(Piece<'_>),
) -> Result<(), i32> {
    // Of the buffer the first `filled` bytes are the start of a line, or, while `skips`, nothing.
    let (mut filled, mut skips, mut total) = (0_usize, false, 0_usize);
    loop {
        let count = more(buffer.get_mut(filled..).unwrap_or(&mut []))?;
        let known = buffer.get(..filled.saturating_add(count)).unwrap_or(&[]);
        total = total.saturating_add(count);
        if count == 0 {
            if !skips && !known.is_empty() {
                each(Piece::Line(known));
            }
            return Ok(());
        }
        // What lies beyond the bound is not looked at.
        let known = known.get(..known.len().saturating_sub(total.saturating_sub(most))).unwrap_or(&[]);
        let mut rest = known;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            if !skips {
                each(Piece::Line(line));
            }
            skips = false;
            rest = tail.get(1..).unwrap_or(&[]);
        }
        if total > most {
            each(Piece::Rest);
            return Ok(());
        }
        let (start, len) = (known.len().saturating_sub(rest.len()), rest.len());
        if len == buffer.len() && !skips {
            each(Piece::LongLine(rest));
            skips = true;
        }
        filled = if skips { 0 } else { len };
        if !skips {
            buffer.copy_within(start..start.saturating_add(len), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    /// The pieces of `text`, read `step` bytes at a time through a buffer of eight.
    fn pieces(text: &str, step: usize, most: usize) -> Vec<String> {
        let mut rest = text.as_bytes();
        let mut found = Vec::new();
        let more = |room: &mut [u8]| {
            let count = step.min(room.len()).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            Ok(count)
        };
        let mut each = |piece: Piece<'_>| {
            found.push(match piece {
                Piece::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Piece::LongLine(start) => format!("long {}", String::from_utf8_lossy(start)),
                Piece::Rest => String::from("rest"),
            });
        };
        split(&mut [0; 8], most, more, &mut each).expect("nothing fails");
        found
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        for step in 1..=9 {
            for (text, most, expected) in [
                ("", 100, &[][..]),
                ("a\nbc\n\nd", 100, &["a", "bc", "", "d"]),
                ("1234567\nx\n", 100, &["1234567", "x"]),
                ("12345678\nx\n", 100, &["long 12345678", "x"]),
                ("123456789abcdefghijklmnop\nx", 100, &["long 12345678", "x"]),
                ("x\n123456789abcdefghijklmnop", 100, &["x", "long 12345678"]),
                ("ab\ncd\nef", 8, &["ab", "cd", "ef"]),
                ("ab\ncd\nef\n", 8, &["ab", "cd", "rest"]),
                ("ab\ncdefg", 5, &["ab", "rest"]),
                ("123456789abcdefghijklmnop\nx", 12, &["long 12345678", "rest"]),
            ] {
                assert_eq!(pieces(text, step, most), expected, "{text:?} {step} {most}");
            }
        }
    }

    #[test]
    fn an_error_is_handed_on() {
        let mut each = |_: Piece<'_>| ();
        assert_eq!(split(&mut [0; 8], 9, |_| Err(5), &mut each), Err(5));
        assert_eq!(read(b"/no/such/file\0", &mut [0; 8], 9, |_| ()), Err(libc::ENOENT));
        assert_eq!(read(b"/tmp\0", &mut [0; 8], 9, |_| ()), Err(libc::EINVAL));
    }
}
