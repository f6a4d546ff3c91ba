//! Bytes to options and warnings, and options back to bytes. Pure.
//!
//! The form is `key=value`, separated by `:`, `,` or white space. A value that itself holds a separator (a path, say)
//! can stand in double quotes, with a double quote in it written twice. A number behind a colon (`unmap=batch:16`)
//! belongs to its value. Nothing here is fatal: a bad item is skipped and reported.
//!
//! # Options to bytes
//!
//! [`super::apply`] and a shell read the written bytes back as the same options.

use super::Row;
use super::table::{Options, ROWS};
use super::value::{Intercept, Mebibytes, Mode, OptionValue, Switch};
use core::fmt;

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
        let mut room = [0; LONGEST];
        match ROWS.iter().find(|row| row.name.as_bytes() == key) {
            None => warn(Warning::UnknownKey(key)),
            Some(row) if value.plain(&mut room).is_some_and(|plain| (row.set)(options, plain)) => {}
            Some(_) => warn(Warning::BadValue(key, value.raw)),
        }
    }
}

/// Applies a configuration file: like [`apply`], with `#` comments to the end of the line.
pub fn apply_text<'a>(options: &mut Options, text: &'a [u8], mut warn: impl FnMut(Warning<'a>)) {
    for line in text.split(|byte| *byte == b'\n') {
        apply_line(options, line, &mut warn);
    }
}

/// Applies a line of a configuration file.
pub fn apply_line<'a>(options: &mut Options, line: &'a [u8], warn: impl FnMut(Warning<'a>)) {
    let code = line.split(|byte| *byte == b'#').next().unwrap_or(&[]);
    apply(options, code, warn);
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b',' | b' ' | b'\t' | b'\n' | b'\r')
}

/// The end of the item that starts `text`: the first separator outside quotes.
pub(super) fn item_end(text: &[u8]) -> usize {
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

/// Bytes of the longest value in quotes; no option takes a longer one.
pub(super) const LONGEST: usize = 256;

/// A value as it was written.
#[derive(Clone, Copy)]
struct Value<'a> {
    /// Without the quotes around it.
    raw: &'a [u8],
    quoted: bool,
}

fn unquote(value: &[u8]) -> Value<'_> {
    match value {
        [b'"', inner @ .., b'"'] => Value { raw: inner, quoted: true },
        _ => Value { raw: value, quoted: false },
    }
}

impl<'a> Value<'a> {
    /// The value that is meant: of two double quotes within quotes it has one. `None` if that is longer than any value.
    fn plain<'b>(self, room: &'b mut [u8; LONGEST]) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        if !self.quoted || !self.raw.contains(&b'"') {
            return Some(self.raw);
        }
        let (mut rest, mut len) = (self.raw, 0_usize);
        while let Some((first, tail)) = rest.split_first() {
            *room.get_mut(len)? = *first;
            len = len.saturating_add(1);
            rest = if *first == b'"' { tail.strip_prefix(b"\"").unwrap_or(tail) } else { tail };
        }
        room.get(..len)
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

    /// Whether reports show the bytes of memory.
    pub fn dumps(&self) -> bool {
        match self.dump {
            Switch::Auto => self.mode == Mode::Hunt,
            Switch::Set(dumps) => dumps,
        }
    }

    /// Whether some allocations are to fail.
    pub fn refuses_some(&self) -> bool {
        self.fail_after.get().is_some() || self.fail_every != 0 || !self.fail_site.is_all()
    }

    /// Whether each allocation is looked at, whatever its size: it may be filled, fail, or be counted.
    pub fn looks_at_all(&self) -> bool {
        self.fill.byte().is_some() || self.refuses_some() || !self.site_table.as_bytes().is_empty()
    }

    /// Which functions of the C library are intercepted, with what `auto` stands for.
    pub fn intercepts(&self) -> Intercept {
        match (self.intercept, self.mode) {
            (Intercept::Auto, Mode::Harden) => Intercept::Off,
            (Intercept::Auto, Mode::Patrol) => Intercept::Syscalls,
            (Intercept::Auto, Mode::Hunt) => Intercept::All,
            (chosen, _) => chosen,
        }
    }

    /// The text form of the option called `name`, into `out`.
    pub fn show(&self, name: &str, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        match ROWS.iter().find(|row| row.name == name) {
            Some(row) => (row.show)(self, out),
            None => false.write(out),
        }
    }
}

/// Hands over `key=value` with what `options` hold.
pub fn item(row: &Row, options: &Options, out: &mut dyn FnMut(&[u8])) {
    let mut bytes = [0; LONGEST];
    let mut len = 0_usize;
    (row.spell)(options, &mut |piece| {
        for byte in piece {
            if let Some(place) = bytes.get_mut(len) {
                *place = *byte;
                len = len.saturating_add(1);
            }
        }
    });
    out(row.name.as_bytes());
    out(b"=");
    value(bytes.get(..len).unwrap_or(&[]), out);
}

/// Hands over a value, in double quotes if it would be read as anything else without.
pub fn value(bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
    if !bytes.contains(&b'"') && item_end(bytes) == bytes.len() {
        return out(bytes);
    }
    out(b"\"");
    for part in bytes.split_inclusive(|byte| *byte == b'"') {
        out(part);
        if part.ends_with(b"\"") {
            out(b"\"");
        }
    }
    out(b"\"");
}

/// Writes `bytes` as a word of a POSIX shell: as they are, in single quotes, or, where they are not all printable ASCII, as
/// what `printf` writes.
pub fn shell(bytes: &[u8], out: &mut dyn fmt::Write) -> fmt::Result {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_=:,./@%+-".contains(byte);
    let printable = |byte: &u8| matches!(byte, b' '..=b'~');
    if bytes.iter().all(plain) {
        return bytes.iter().try_for_each(|byte| out.write_char(char::from(*byte)));
    }
    if bytes.iter().all(printable) {
        out.write_char('\'')?;
        for byte in bytes {
            match byte {
                b'\'' => out.write_str("'\\''")?,
                byte => out.write_char(char::from(*byte))?,
            }
        }
        return out.write_char('\'');
    }
    out.write_str("\"$(printf '")?;
    for byte in bytes {
        match byte {
            b'%' => out.write_str("%%")?,
            byte if printable(byte) && !b"'\\".contains(byte) => out.write_char(char::from(*byte))?,
            byte => write!(out, "\\{byte:03o}")?,
        }
    }
    out.write_str("')\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Key, OptionValue, PathBuf, ROWS, Unmap, apply};
    use core::fmt::Write;
    use std::process::Command;
    use std::string::String;
    use std::vec::Vec;

    /// What was set wins over the mode, whichever comes first.
    #[test]
    fn a_switch_follows_the_mode_unless_it_is_set() {
        for (text, dumps) in [
            (&b""[..], false),
            (b"mode=patrol", false),
            (b"mode=hunt", true),
            (b"mode=hunt:dump=0", false),
            (b"dump=0:mode=hunt", false),
            (b"dump=1:mode=harden", true),
            (b"mode=patrol:dump=yes", true),
            (b"dump=0:dump=auto:mode=hunt", true),
        ] {
            let mut options = Options::DEFAULT;
            apply(&mut options, text, |warning| panic!("{warning:?}"));
            assert_eq!(options.normalised(4096).dumps(), dumps, "{}", String::from_utf8_lossy(text));
        }
        let mut shown = String::new();
        for value in [Switch::Auto, Switch::Set(false), Switch::Set(true)] {
            value.write(&mut shown).and_then(|()| shown.write_char(' ')).expect("a string takes text");
        }
        assert_eq!(shown, "auto 0 1 ");
        assert_eq!(Switch::parse(b"perhaps"), None);
    }

    #[test]
    fn what_is_intercepted_follows_the_mode_unless_it_is_set() {
        for (text, expected) in [
            (&b""[..], Intercept::Off),
            (b"mode=patrol", Intercept::Syscalls),
            (b"mode=hunt", Intercept::All),
            (b"intercept=copy:mode=hunt", Intercept::Copy),
            (b"mode=patrol:intercept=off", Intercept::Off),
            (b"intercept=all", Intercept::All),
            (b"intercept=all:intercept=auto", Intercept::Off),
        ] {
            let mut options = Options::DEFAULT;
            apply(&mut options, text, |warning| panic!("{warning:?}"));
            assert_eq!(options.normalised(4096).intercepts(), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn values_are_brought_within_their_limits() {
        let mut options = Options::DEFAULT;
        let text =
            b"history=1:exitcode=300:leaks=9:backtrace=99:sleep_before_dying=9999999:quarantine_mb=99999";
        apply(&mut options, text, |warning| panic!("{warning:?}"));
        let options = options.normalised(4096);
        assert_eq!((options.history, options.exitcode, options.leaks, options.backtrace), (1024, 255, 2, 32));
        assert_eq!((options.sleep_before_dying, options.quarantine_mb.bytes()), (1 << 20, 4 << 30));
        assert_eq!(options.unmap_threshold, 4096);
        let mut options = Options::DEFAULT;
        apply(&mut options, b"history=99999999", |warning| panic!("{warning:?}"));
        assert_eq!(options.normalised(4096).history, 1 << 24);
    }

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

    const VALUES: &[&[u8]] = &[
        b"",
        b"/tmp/plain.%p",
        b"/tmp/a b:c,d\te",
        b"/tmp/a:16",
        b"/tmp/a:",
        b"\"",
        b"\"a\"b\" c\"\"",
        b"a\"b",
        b"it's $HOME `id` \\ ~ * ? # & ; | < > ( ) { } [ ] !",
        b"~",
        b"line\nline\x1b[31m\x7f%s\\n'",
        b"\xff\xc3\xa4",
    ];

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).expect("a row")
    }

    #[test]
    fn every_value_is_read_back() {
        for value in VALUES.iter().copied().chain([&[b'"'; 127][..]]) {
            let mut given = Options::DEFAULT;
            given.log_path = PathBuf::parse(value).expect("a path");
            let mut text = Vec::new();
            item(row("log_path"), &given, &mut |piece| text.extend(piece));
            text.extend(b":seed=7");
            let mut read = Options::DEFAULT;
            apply(&mut read, &text, |warning| panic!("{warning:?}"));
            assert_eq!(
                (read.log_path.as_bytes(), read.seed),
                (value, 7),
                "{}",
                String::from_utf8_lossy(&text)
            );
        }
        let mut text: Vec<u8> = Vec::new();
        let mut options = Options::DEFAULT;
        apply(&mut options, b"unmap=\"batch:16\"", |warning| panic!("{warning:?}"));
        item(row("unmap"), &options, &mut |piece| text.extend(piece));
        assert_eq!(text, b"unmap=batch:16");
        assert!(options.given.has(Key::unmap) && !options.given.has(Key::mode));
    }

    #[test]
    fn a_shell_reads_what_was_meant() {
        for value in VALUES {
            let mut script = String::from("X=");
            shell(value, &mut script).expect("a string takes all");
            assert!(script.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{script:?}");
            script.push_str("; printf %s \"$X\"");
            let output = Command::new("sh").args(["-c", &script]).output().expect("there is a shell");
            // What a command prints loses the line ends at its end: an option's text has none there.
            assert_eq!(output.stdout, *value, "{script}");
        }
    }
}
