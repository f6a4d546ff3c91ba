//! Options to bytes: what [`super::apply`] and a shell read back as it was.

use super::parse::{LONGEST, item_end};
use super::{Options, Row};
use core::fmt;

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
    use crate::options::{Key, OptionValue, PathBuf, ROWS, apply};
    use std::process::Command;
    use std::string::String;
    use std::vec::Vec;

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
