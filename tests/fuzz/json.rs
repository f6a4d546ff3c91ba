//! Whether a text is one JSON value (RFC 8259).

/// The text is one value and nothing else; the place of the first byte that is not.
pub fn check(text: &str) -> Result<(), usize> {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    match reader.value(0) {
        Some(()) if reader.at == text.len() => Ok(()),
        _ => Err(reader.at),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' if depth < 64 => self.list(b'{', b'}', |reader| {
                reader.string()?;
                reader.take(b':')?;
                reader.value(depth + 1)
            }),
            b'[' if depth < 64 => self.list(b'[', b']', |reader| reader.value(depth + 1)),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => ["true", "false", "null"].iter().find_map(|word| {
                let is = self.bytes[self.at..].starts_with(word.as_bytes());
                is.then(|| self.at += word.len())
            }),
        }
    }

    fn list(&mut self, open: u8, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        if self.peek()? == close {
            return self.take(close);
        }
        loop {
            item(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.take(close),
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'"' => return self.take(b'"'),
                b'\\' => {
                    self.at += 1;
                    let escape = self.peek()?;
                    self.at += 1;
                    match escape {
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then(|| self.at += 4)?;
                        }
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        let digits = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let leading = digits > 1 && self.peek() == Some(b'0');
        self.at += digits;
        (digits > 0 && !leading).then_some(())
    }
}

#[test]
fn values_are_told_from_others() {
    for good in ["{}", "[1,-2,\"a\\u00e4\\n\"]", "{\"a\":{\"b\":[true,null]},\"c\":0}"] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in ["", "{", "{\"a\"}", "[1,]", "\"\n\"", "\"\\x\"", "01", "{} ", "{\"a\":1,}", "\"\\u12\""] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
