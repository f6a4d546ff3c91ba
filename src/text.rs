//! Formatting into fixed buffers, and showing bytes that others chose.
//!
//! People at terminals read a report's lines, and programs that go by lines. Names and paths come from the program,
//! which may be under attack. [`Printable`] shows them so that they stay within their line and control no terminal, and
//! so that the bytes can be recovered.

use core::fmt;

/// A buffer of `N` bytes that drops what does not fit and says so with [`Text::truncated`].
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
    truncated: bool,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Text<N> {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0, truncated: false }
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Appends raw bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.bytes.get_mut(self.len) {
                Some(place) => {
                    *place = *byte;
                    self.len = self.len.saturating_add(1);
                }
                None => self.truncated = true,
            }
        }
    }

    /// Whether something did not fit.
    pub const fn truncated(&self) -> bool {
        self.truncated
    }

    /// Ends the line: where something did not fit, the last bytes give way to `...`.
    pub fn end_line(&mut self) {
        const ENDING: &[u8] = b"...\n";
        if !self.truncated && self.len < N {
            self.push_bytes(b"\n");
            return;
        }
        // A character of several bytes is left out whole.
        let mut end = N.saturating_sub(ENDING.len());
        while end != 0 && self.bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end = end.saturating_sub(1);
        }
        self.len = end;
        self.push_bytes(ENDING);
        self.truncated = true;
    }

    /// Empties the buffer.
    pub fn clear(&mut self) {
        self.len = 0;
        self.truncated = false;
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_bytes(text.as_bytes());
        Ok(())
    }
}

/// Whether a character moves the cursor, ends a line, starts a terminal's command, or changes the order or the look of
/// what stands around it: control characters of both sets, line and paragraph separators, marks of direction.
pub const fn is_unprintable(character: char) -> bool {
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes as part of a line of text: what is not printable, or no UTF-8, as `\xHH`, and a backslash as two.
#[derive(Clone, Copy)]
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some(at) = rest.find(|next| next == '\\' || is_unprintable(next)) {
                let (plain, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
                out.write_str(plain)?;
                let mut characters = tail.chars();
                match characters.next() {
                    Some('\\') => out.write_str("\\\\")?,
                    Some(odd) => hexadecimal(out, odd.encode_utf8(&mut [0; 4]).as_bytes())?,
                    None => {}
                }
                rest = characters.as_str();
            }
            out.write_str(rest)?;
            hexadecimal(out, chunk.invalid())?;
        }
        Ok(())
    }
}

fn hexadecimal(out: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))
}

/// The start of some bytes, as [`Printable`] and in no more than `most` bytes, and `...` if there are more.
#[derive(Clone, Copy)]
pub struct Excerpt<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// How many bytes are written of them.
    pub most: usize,
}

impl Excerpt<'_> {
    /// How many of the bytes are shown.
    fn fits(self) -> usize {
        let (mut taken, mut written) = (0_usize, 0_usize);
        for chunk in self.bytes.utf8_chunks() {
            let valid = chunk.valid().chars().map(|next| {
                let len = next.len_utf8();
                let shown = if next == '\\' { 2 } else { len };
                (len, if is_unprintable(next) { len.saturating_mul(4) } else { shown })
            });
            for (len, shown) in valid.chain(chunk.invalid().iter().map(|_| (1, 4))) {
                written = written.saturating_add(shown);
                if written > self.most {
                    return taken;
                }
                taken = taken.saturating_add(len);
            }
        }
        taken
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes.get(..self.fits()) {
            Some(start) if start.len() < self.bytes.len() => write!(out, "{}...", Printable(start)),
            _ => Printable(self.bytes).fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::string::ToString;

    #[test]
    fn keeps_what_fits() {
        let mut text = Text::<4>::new();
        let _ = write!(text, "{}", 12345);
        assert_eq!(text.as_bytes(), b"1234");
        assert!(text.truncated());
    }
    #[test]
    fn a_line_always_ends() {
        for (what, expected) in [
            ("abc", "abc\n"),
            ("abcdefg", "abcdefg\n"),
            ("abcdefgh", "abcd...\n"),
            ("abc\u{e4}fgh", "abc...\n"),
        ] {
            let mut text = Text::<8>::new();
            text.push_bytes(what.as_bytes());
            text.end_line();
            assert_eq!(core::str::from_utf8(text.as_bytes()), Ok(expected), "{what}");
        }
        let mut short = Text::<3>::new();
        short.push_bytes(b"abcd");
        short.end_line();
        assert_eq!(short.as_bytes(), b"...");
    }

    #[test]
    fn what_others_chose_stays_in_its_line() {
        for (bytes, shown) in [
            (&b"plain (name) \xc3\xa4"[..], "plain (name) \u{e4}"),
            (b"a)\n==7==END\x1b[31m", "a)\\x0a==7==END\\x1b[31m"),
            (b"C:\\x0a", "C:\\\\x0a"),
            (b"\xff\xc3", "\\xff\\xc3"),
            (b"\xc2\x9b31m\x7f", "\\xc2\\x9b31m\\x7f"),
            ("a\u{2028}b\u{202e}".as_bytes(), "a\\xe2\\x80\\xa8b\\xe2\\x80\\xae"),
        ] {
            assert_eq!(Printable(bytes).to_string(), shown);
        }
        for byte in 0..=u8::MAX {
            let shown = Printable(&[byte]).to_string();
            assert!(shown.chars().all(|shown| !is_unprintable(shown)), "{byte}");
        }
        assert_eq!(Excerpt { bytes: b"abc", most: 3 }.to_string(), "abc");
        assert_eq!(Excerpt { bytes: b"ab\x01d", most: 6 }.to_string(), "ab\\x01...");
        assert_eq!(Excerpt { bytes: b"ab\xffd", most: 5 }.to_string(), "ab...");
        assert_eq!(Excerpt { bytes: b"\\\\", most: 3 }.to_string(), "\\\\...");
    }
}
