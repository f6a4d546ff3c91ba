//! Bytes to options and warnings, pure.
//!
//! `key=value`, separated by `:`, `,` or white space. A value that itself holds a separator (a path,
//! say) can stand in double quotes; a number behind a colon (`unmap=batch:16`) belongs to its value. Nothing here is fatal: a bad item is skipped and reported.

use super::table::{Options, ROWS};
use super::value::{Mebibytes, OptionValue};

/// An item that was not understood; its option keeps the value it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning<'a> {
    /// No option has this name.
    UnknownKey(&'a [u8]),
    /// The option exists and does not take this value.
    BadValue(&'a [u8], &'a [u8]),
    /// The item has no `=`.
    NoValue(&'a [u8]),
}

/// Applies `text` to `options`, handing each item that is not understood to `warn`.
pub fn apply<'a>(options: &mut Options, text: &'a [u8], mut warn: impl FnMut(Warning<'a>)) {
    let mut rest = text;
    while let Some(start) = rest.iter().position(|byte| !is_separator(*byte)) {
        rest = rest.get(start..).unwrap_or(&[]);
        let end = item_end(rest);
        let (item, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = tail;
        let Some(equals) = item.iter().position(|byte| *byte == b'=') else {
            warn(Warning::NoValue(item));
            continue;
        };
        let key = item.get(..equals).unwrap_or(&[]);
        let value = unquote(item.get(equals.saturating_add(1)..).unwrap_or(&[]));
        match ROWS.iter().find(|row| row.name.as_bytes() == key) {
            None => warn(Warning::UnknownKey(key)),
            Some(row) if (row.set)(options, value) => {}
            Some(_) => warn(Warning::BadValue(key, value)),
        }
    }
}

/// Applies a configuration file: like [`apply`], with `#` comments to the end of the line.
pub fn apply_text<'a>(options: &mut Options, text: &'a [u8], mut warn: impl FnMut(Warning<'a>)) {
    for line in text.split(|byte| *byte == b'\n') {
        let code = line.split(|byte| *byte == b'#').next().unwrap_or(&[]);
        apply(options, code, &mut warn);
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b',' | b' ' | b'\t' | b'\n' | b'\r')
}

/// The end of the item that starts `text`: the first separator outside quotes.
fn item_end(text: &[u8]) -> usize {
    let mut quoted = false;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b':' if !quoted && starts_with_number(text.get(index + 1..).unwrap_or(&[])) => {}
            byte if !quoted && is_separator(*byte) => return index,
            _ => {}
        }
    }
    text.len()
}

/// Whether the item that starts `text` is nothing but digits.
fn starts_with_number(text: &[u8]) -> bool {
    let item = text.split(|byte| is_separator(*byte)).next().unwrap_or(&[]);
    !item.is_empty() && item.iter().all(u8::is_ascii_digit)
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// Keeps values in their ranges, after all sources were applied.
impl Options {
    /// The options with every number brought into its range; `page` is the page size in bytes.
    pub fn normalised(mut self, page: usize) -> Self {
        if self.unmap_threshold == 0 {
            self.unmap_threshold = page as u64;
        }
        self.backtrace = self.backtrace.min(32);
        self.exitcode = self.exitcode.min(255);
        self.sleep_before_dying = self.sleep_before_dying.min(1 << 20);
        self.leaks = self.leaks.min(2);
        if self.quarantine_mb.bytes() > Mebibytes::new(4096).bytes() {
            self.quarantine_mb = Mebibytes::new(4096);
        }
        self.history = self.history.clamp(1024, 1 << 24);
        self
    }

    /// The text form of the option called `name`, into `out`.
    pub fn show(&self, name: &str, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        match ROWS.iter().find(|row| row.name == name) {
            Some(row) => (row.show)(self, out),
            None => false.write(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Mode, Unmap};

    #[test]
    fn a_number_behind_a_colon_belongs_to_its_value() {
        let mut options = Options::DEFAULT;
        apply(&mut options, b"unmap=batch:16:mode=hunt,seed=7", |warning| panic!("{warning:?}"));
        assert_eq!((options.unmap, options.mode, options.seed), (Unmap::Batch(16), Mode::Hunt, 7));
        for wrong in [&b"unmap=batch:1"[..], b"unmap=batch:65", b"unmap=batch:", b"unmap=batch"] {
            let mut warnings = 0;
            apply(&mut options, wrong, |_| warnings += 1);
            assert_eq!((warnings, options.unmap), (1, Unmap::Batch(16)));
        }
    }
}
