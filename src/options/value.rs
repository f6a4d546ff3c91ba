//! The types that option values have, each with its spelling.

use core::fmt;

/// A type that an option can have: read from bytes, written for `help=1`.
pub trait OptionValue: Sized {
    /// The value that `text` spells, or `None` if it spells none.
    fn parse(text: &[u8]) -> Option<Self>;
    /// Writes the value the way [`OptionValue::parse`] reads it, as far as it is text.
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result;
    /// Hands over the bytes that [`OptionValue::parse`] reads.
    fn spell(&self, out: &mut dyn FnMut(&[u8])) {
        // Nothing that is handed over fails.
        let _ = self.write(&mut Bytes(out));
    }
}

/// Text as bytes.
struct Bytes<'a>(&'a mut dyn FnMut(&[u8]));

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (self.0)(text.as_bytes());
        Ok(())
    }
}

/// An enumeration whose variants have the given spellings.
macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// The spelling of the value in `FENCEPOST_OPTIONS`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl OptionValue for $name {
            fn parse(text: &[u8]) -> Option<Self> {
                $(if text == $text.as_bytes() { return Some(Self::$variant); })+
                None
            }
            fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
                out.write_str(self.name())
            }
        }
    };
}

spelled! {
    /// Which objects go to which allocator.
    Mode {
        /// Small objects in slabs, objects from `unmap_threshold` on between guard pages.
        Harden = "harden",
        /// Like `harden`, with selected small objects between guard pages.
        Patrol = "patrol",
        /// Every object between guard pages.
        Hunt = "hunt",
    }
}

spelled! {
    /// How the end of a guarded object meets its guard page.
    Align {
        /// The alignment the C ABI promises (16 bytes); slack bytes carry a canary.
        Abi = "abi",
        /// The last byte touches the guard; the address has the alignment that was asked for only.
        Exact = "exact",
    }
}

spelled! {
    /// Which end of a guarded object touches a guard page.
    GuardSide {
        /// The end: overflows stop at the access.
        Right = "right",
        /// The start: underflows stop at the access.
        Left = "left",
        /// Either, chosen for each object.
        Random = "random",
    }
}

spelled! {
    /// The kernel facility that makes guard pages.
    Guards {
        /// `madvise` if the kernel has it, else `mprotect`.
        Auto = "auto",
        /// `madvise(MADV_GUARD_INSTALL)`, Linux 6.13 and later.
        Madvise = "madvise",
        /// `PROT_NONE` mappings, any kernel.
        Mprotect = "mprotect",
    }
}

spelled! {
    /// The form of a report.
    ReportForm {
        /// Text for a person.
        Text = "text",
        /// One JSON object on one line.
        Json = "json",
    }
}

spelled! {
    /// What follows a report.
    OnError {
        /// The original signal, or `SIGABRT`.
        Abort = "abort",
        /// `_exit(exitcode)`.
        Exit = "exit",
        /// The program goes on: the page is opened, the bad free ignored.
        Continue = "continue",
    }
}

spelled! {
    /// What to do with a freed pointer that no allocator knows.
    Foreign {
        /// Report it as `invalid-free`.
        Abort = "abort",
        /// Ignore it.
        Ignore = "ignore",
        /// Hand it to the C library's own `free`.
        Libc = "libc",
    }
}

spelled! {
    /// What keeps others than the allocator from writing its tables.
    Seal {
        /// Nothing.
        None = "none",
        /// A memory protection key of the processor; nothing where there are none.
        Pkey = "pkey",
    }
}

spelled! {
    /// Which functions of the C library compare what they access with the bounds of objects.
    Intercept {
        /// As the mode has it.
        Auto = "auto",
        /// None.
        Off = "off",
        /// Those that copy and fill memory.
        Copy = "copy",
        /// System calls and streams.
        Syscalls = "syscalls",
        /// All of these, and those of strings.
        All = "all",
    }
}

spelled! {
    /// Which frames of a stack are shown.
    Shown {
        /// Up to the program's outermost function: `main`, or that which a thread was made with.
        Program = "program",
        /// Those that called it, too.
        All = "all",
    }
}

/// When the pages of a freed object are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// Before its free returns.
    Now,
    /// With others, so many at a time.
    Batch(u8),
}

impl Unmap {
    /// The most objects of a batch.
    pub const MOST: u8 = 64;
}

impl OptionValue for Unmap {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == b"now" {
            return Some(Self::Now);
        }
        let count = u64::parse(text.strip_prefix(b"batch:")?)?;
        u8::try_from(count).ok().filter(|count| (2..=Self::MOST).contains(count)).map(Self::Batch)
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Self::Now => out.write_str("now"),
            Self::Batch(count) => write!(out, "batch:{count}"),
        }
    }
}

impl OptionValue for bool {
    fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"1" | b"true" | b"yes" | b"on" => Some(true),
            b"0" | b"false" | b"no" | b"off" => Some(false),
            _ => None,
        }
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(if *self { "1" } else { "0" })
    }
}

/// A switch whose default depends on the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// As the mode has it.
    Auto,
    /// Set to this.
    Set(bool),
}

impl OptionValue for Switch {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == b"auto" { Some(Self::Auto) } else { bool::parse(text).map(Self::Set) }
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::Set(value) => value.write(out),
        }
    }
}

impl OptionValue for u64 {
    fn parse(text: &[u8]) -> Option<Self> {
        let (digits, radix) = match text {
            [b'0', b'x' | b'X', hex @ ..] => (hex, 16),
            _ => (text, 10),
        };
        u64::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// Bytes, spelled in MiB: `64`, or `0.25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mebibytes(u64);

impl Mebibytes {
    /// Digits behind the point at most.
    const DIGITS: u32 = 6;
    const MILLIONTHS: u64 = 10_u64.pow(Self::DIGITS);

    /// So many MiB.
    pub const fn new(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1 << 20))
    }

    /// So many KiB.
    pub const fn kib(kibibytes: u64) -> Self {
        Self(kibibytes.saturating_mul(1 << 10))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl OptionValue for Mebibytes {
    fn parse(text: &[u8]) -> Option<Self> {
        let Some(point) = text.iter().position(|byte| *byte == b'.') else {
            return u64::parse(text).map(Self::new);
        };
        let (whole, fraction) = (text.get(..point)?, text.get(point.checked_add(1)?..)?);
        let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit).then(|| u64::parse(text)).flatten();
        let missing = Self::DIGITS.checked_sub(u32::try_from(fraction.len()).ok()?)?;
        let millionths = digits(fraction)?.checked_mul(10_u64.checked_pow(missing)?)?;
        // To the nearest byte: fewer than 2^40 before the division.
        let bytes = ((millionths << 20) + Self::MILLIONTHS / 2) / Self::MILLIONTHS;
        Some(Self(Self::new(digits(whole)?).0.saturating_add(bytes)))
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let millionths = ((self.0 & ((1 << 20) - 1)) * Self::MILLIONTHS + (1 << 19)) >> 20;
        let (carry, mut millionths) = (millionths / Self::MILLIONTHS, millionths % Self::MILLIONTHS);
        write!(out, "{}", (self.0 >> 20).saturating_add(carry))?;
        if millionths == 0 {
            return Ok(());
        }
        let mut width = Self::DIGITS as usize;
        while millionths.is_multiple_of(10) {
            (millionths, width) = (millionths / 10, width - 1);
        }
        write!(out, ".{millionths:0width$}")
    }
}

/// A byte that memory is filled with, spelled as a number; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill(u8);

impl Fill {
    /// Nothing is filled.
    pub const OFF: Self = Self(0);

    /// This byte; nothing if it is 0.
    pub const fn new(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte, if memory is to be filled.
    pub const fn byte(self) -> Option<u8> {
        if self.0 == 0 { None } else { Some(self.0) }
    }
}

impl OptionValue for Fill {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == b"off" {
            return Some(Self::OFF);
        }
        u8::try_from(u64::parse(text)?).ok().map(Self)
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.byte() {
            Some(byte) => write!(out, "0x{byte:02x}"),
            None => out.write_str("0"),
        }
    }
}

/// A number, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(Option<u64>);

impl Count {
    /// None.
    pub const OFF: Self = Self(None);

    /// This number.
    pub const fn new(count: u64) -> Self {
        Self(Some(count))
    }

    /// The number.
    pub const fn get(self) -> Option<u64> {
        self.0
    }
}

impl OptionValue for Count {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == b"off" { Some(Self::OFF) } else { u64::parse(text).map(|count| Self(Some(count))) }
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.0 {
            Some(count) => count.write(out),
            None => out.write_str("off"),
        }
    }
}

/// Call sites by the hash of their stacks: all, one, or those of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sites {
    low: u64,
    high: u64,
}

impl Sites {
    /// All.
    pub const ALL: Self = Self { low: 0, high: u64::MAX };

    /// Whether it is all of them.
    pub const fn is_all(self) -> bool {
        self.low == 0 && self.high == u64::MAX
    }

    /// Whether it is one alone.
    pub const fn is_one(self) -> bool {
        self.low == self.high
    }

    /// Whether a hash is among them.
    pub const fn hold(self, hash: u64) -> bool {
        self.low <= hash && hash <= self.high
    }
}

impl OptionValue for Sites {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == b"all" {
            return Some(Self::ALL);
        }
        let mut ends = text.splitn(2, |byte| *byte == b'-').map(u64::parse);
        let low = ends.next()??;
        let high = ends.next().unwrap_or(Some(low))?;
        (low <= high).then_some(Self { low, high })
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match (self.is_all(), self.is_one()) {
            (true, _) => out.write_str("all"),
            (_, true) => write!(out, "0x{:016x}", self.low),
            _ => write!(out, "0x{:016x}-0x{:016x}", self.low, self.high),
        }
    }
}

/// A path of at most 255 bytes, none of them zero; empty when unset.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PathBuf {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl PathBuf {
    const CAPACITY: usize = 255;
    /// The unset path.
    pub const EMPTY: Self = Self { bytes: [0; Self::CAPACITY], len: 0 };

    /// A path, in a constant as well; the unset one if it is too long or holds a zero byte.
    pub const fn new(path: &str) -> Self {
        let bytes = path.as_bytes();
        let mut made = Self::EMPTY;
        if bytes.len() > Self::CAPACITY {
            return made;
        }
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] == 0 {
                return Self::EMPTY;
            }
            made.bytes[at] = bytes[at];
            at += 1;
        }
        made.len = bytes.len();
        made
    }

    /// The bytes of the path, without a terminator.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl OptionValue for PathBuf {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut path = Self::EMPTY;
        if text.contains(&0) {
            return None;
        }
        path.bytes.get_mut(..text.len())?.copy_from_slice(text);
        path.len = text.len();
        Some(path)
    }
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            out.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                out.write_char('\u{fffd}')?;
            }
        }
        Ok(())
    }
    fn spell(&self, out: &mut dyn FnMut(&[u8])) {
        out(self.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    /// What a value is written as is read as the same value.
    #[test]
    fn bytes_counts_and_sites_come_back() {
        fn shown<T: OptionValue>(text: &str) -> Option<String> {
            let mut shown = String::new();
            T::parse(text.as_bytes())?.write(&mut shown).ok().map(|()| shown)
        }
        for (text, expected) in [("0", "0"), ("off", "0"), ("0xA5", "0xa5"), ("90", "0x5a")] {
            assert_eq!(shown::<Fill>(text).as_deref(), Some(expected));
            assert_eq!(shown::<Fill>(expected).as_deref(), Some(expected));
        }
        assert_eq!((Fill::parse(b"256"), Fill::parse(b"-1"), Fill::parse(b"")), (None, None, None));
        assert_eq!(shown::<Count>("off").as_deref(), Some("off"));
        assert_eq!(shown::<Count>("0").as_deref(), Some("0"));
        assert_eq!(Count::parse(b"no"), None);
        let one = "0x00000000000000ff";
        for (text, expected) in
            [("all", "all"), ("255", one), ("0xff-0xff", one), ("0-0xffffffffffffffff", "all")]
        {
            assert_eq!(shown::<Sites>(text).as_deref(), Some(expected));
            assert_eq!(shown::<Sites>(expected).as_deref(), Some(expected));
        }
        let range = Sites::parse(b"0x10-0x20").expect("a range");
        assert!(
            range.hold(0x10) && range.hold(0x20) && !range.hold(0x21) && !range.is_one() && !range.is_all()
        );
        for wrong in ["", "-", "5-", "-5", "7-6", "1-2-3", "none"] {
            assert_eq!(Sites::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn mebibytes_have_fractions() {
        let rows = [
            ("0", 0),
            ("64", 64 << 20),
            ("0x40", 64 << 20),
            ("0.25", 1 << 18),
            ("1.5", 3 << 19),
            ("0.1", 104_858),
            ("3.000001", (3 << 20) + 1),
        ];
        for (text, bytes) in rows {
            let value = Mebibytes::parse(text.as_bytes());
            assert_eq!(value, Some(Mebibytes(bytes)), "{text}");
            let mut shown = String::new();
            assert!(Mebibytes(bytes).write(&mut shown).is_ok());
            assert!(shown == text || text == "0x40", "{shown}");
        }
        for wrong in ["", ".", "1.", ".5", "-1", "+1.5", "1.+5", "1.5.0", "0.0000001", "0x1.5", "1,5", "1e3"]
        {
            assert_eq!(Mebibytes::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Mebibytes::parse(b"18446744073709551615.9"), Some(Mebibytes(u64::MAX)));
        let mut shown = String::new();
        assert!(Mebibytes((1 << 20) - 1).write(&mut shown).is_ok() && shown == "0.999999");
    }
}
