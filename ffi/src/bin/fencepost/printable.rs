//! What others chose, in what the launcher prints: names, paths and lines that programs, logs and debug information hold.
//!
//! The path of a module is kept as reports write it ([`Printable`]): that is one form for logs, processes and core files, it
//! can be printed as it is, and [`path`] makes the file's name of it.

use fencepost_core::text::{Printable, is_unprintable};
use serde_json::Value;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Bytes as part of a line.
pub fn printable(bytes: &[u8]) -> String {
    Printable(bytes).to_string()
}

/// The bytes that [`printable`] shows so. What is no escape of its stands for itself.
pub fn bytes(shown: &str) -> Vec<u8> {
    let mut found = Vec::with_capacity(shown.len());
    let mut rest = shown.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match tail {
            [b'\\', tail @ ..] if *first == b'\\' => (b'\\', tail),
            [b'x', high, low, tail @ ..] if *first == b'\\' => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (*first, rest.get(1..).unwrap_or_default()),
            },
            _ => (*first, tail),
        };
        found.push(byte);
        rest = tail;
    }
    found
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The path that [`printable`] shows so.
pub fn path(shown: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes(shown)))
}

/// A line of the launcher's own, whatever went into it.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) {
            out.push_str(&printable(character.encode_utf8(&mut [0; 4]).as_bytes()));
        } else {
            out.push(character);
        }
    }
    out
}

/// JSON on one line; what is not printable only by its number.
pub fn json(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    // Outside of strings all is printable, and in them any character may be given by its number.
    for character in text.chars() {
        if is_unprintable(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_come_back() {
        for path in
            [&b"/tmp/a b"[..], b"/a\\x0a", b"/a\\\\x0a\\", b"/a\n\x1b\xff", "/\u{e4}\u{2028}".as_bytes()]
        {
            let shown = printable(path);
            assert!(!shown.contains(is_unprintable));
            assert_eq!(bytes(&shown), path, "{shown}");
        }
        for odd in ["\\", "\\x", "\\x1", "\\xg1", "a\\b", "\\\u{e4}"] {
            assert_eq!(bytes(odd), odd.as_bytes());
        }
    }

    #[test]
    fn lines_and_json_stay_what_they_are() {
        assert_eq!(line("a\\ b\n\x1b[2K"), "a\\ b\\x0a\\x1b[2K");
        let odd = json!({ "a\u{9b}": "\u{2028}\u{e0001}\n\"\x7f\u{e4}" });
        let text = json(&odd);
        assert!(!text.contains(is_unprintable), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), odd);
    }
}
