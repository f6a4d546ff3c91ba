//! Suppressions: errors that the user knows of and does not want to hear about.
//!
//! A file of rules `kind:pattern`, one a line, `#` to the end of a line a comment. The kind is one of the
//! reports' or `leak`; the pattern is looked for in the module path and the function name of each frame.
//! Both may hold `*` for any bytes; `^` at the start and `$` at the end of a pattern bind it there.
//!
//! The file is read once, at start, into a fixed buffer. Matching is pure; only the counts change.

use super::modules::Modules;
use crate::addr::Addr;
use crate::fault::Kind;
use crate::sync::{Lock, Rank};
use crate::sys::file;
use crate::trace::Frames;

/// Bytes of a file that are read.
const BYTES: usize = 32 << 10;
/// Lines whose uses are counted.
const LINES: usize = 1024;

/// The kind that rules on leaks name.
pub const LEAK: &str = "leak";

/// The rules of the process, and how often each was used.
pub struct Rules {
    text: [u8; BYTES],
    len: usize,
    used: [u32; LINES],
}

/// Used by the thread that reports, and by the one that starts the heap.
pub static RULES: Lock<Rules> = Lock::new(Rank::Rules, Rules::NONE);

/// What is wrong with a file of suppressions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw<'a> {
    /// It cannot be read, or is no file.
    Unreadable,
    /// It is longer than what is read of it.
    TooLong,
    /// A line is no rule, or names no kind of error.
    NoRule(&'a [u8]),
}

#[derive(Clone, Copy)]
struct Rule<'a> {
    kind: &'a [u8],
    pattern: &'a [u8],
}

impl Rules {
    /// No rules.
    pub const NONE: Self = Self { text: [0; BYTES], len: 0, used: [0; LINES] };

    /// Reads the file at `path`, a NUL-terminated name; hands the first flaw of each sort to `warn`.
    pub fn load(&mut self, path: &[u8], mut warn: impl FnMut(Flaw<'_>)) {
        self.len = match file::read_named(path, &mut self.text) {
            Some(text) => text.len(),
            None => {
                warn(Flaw::Unreadable);
                0
            }
        };
        if self.len == BYTES {
            warn(Flaw::TooLong);
            // The last line may be cut.
            let whole = self.text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            self.len = whole;
        }
        let wrong = lines(self.text()).find(|line| !line.is_empty() && parse(line).is_none());
        if let Some(wrong) = wrong {
            warn(Flaw::NoRule(wrong));
        }
    }

    fn text(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or(&[])
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a rule covers an error of `kind` with this stack; counts the first that does.
    pub fn cover(&mut self, kind: &str, frames: &Frames, modules: &Modules<'_>) -> bool {
        let covering = lines(self.text()).position(|line| {
            parse(line).is_some_and(|rule| {
                rule.is_about(kind)
                    && frames.as_slice().iter().enumerate().any(|(index, pc)| {
                        with_names(*pc, index != 0, modules, |name| matches(rule.pattern, name))
                    })
            })
        });
        if let Some(count) = covering.and_then(|line| self.used.get_mut(line)) {
            *count = count.saturating_add(1);
        }
        covering.is_some()
    }

    /// The rules that were used, with how often.
    pub fn used(&self) -> impl Iterator<Item = (&[u8], u32)> {
        lines(self.text()).zip(self.used.iter().copied()).filter(|(_, count)| *count != 0)
    }

    /// Forgets how often rules were used.
    pub fn forget_uses(&mut self) {
        // What is not written need not be copied.
        if self.used.iter().any(|uses| *uses != 0) {
            self.used = [0; LINES];
        }
    }
}

impl Rule<'_> {
    fn is_about(self, kind: &str) -> bool {
        glob(self.kind, kind.as_bytes())
    }
}

/// Asks `is_it` about the names that a frame has: its module's path, and its function.
fn with_names(pc: usize, called: bool, modules: &Modules<'_>, is_it: impl Fn(&[u8]) -> bool) -> bool {
    let Some(place) = modules.locate(Addr::new(pc)) else { return false };
    is_it(place.path) || place.symbol(called).is_some_and(|symbol| is_it(symbol.name()))
}

/// The lines without comments and blanks around them; empty ones stay, so that places are line numbers.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(|line| {
        let code = line.split(|byte| *byte == b'#').next().unwrap_or(&[]);
        code.trim_ascii()
    })
}

fn parse(line: &[u8]) -> Option<Rule<'_>> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (kind, rest) = line.split_at_checked(colon)?;
    let (kind, pattern) = (kind.trim_ascii(), rest.get(1..)?.trim_ascii());
    let known =
        Kind::ALL.iter().map(|kind| kind.name()).chain([LEAK]).any(|name| glob(kind, name.as_bytes()));
    (known && !pattern.is_empty()).then_some(Rule { kind, pattern })
}

/// Whether `pattern`, bound or not, occurs in `text`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (from_start, pattern) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (to_end, pattern) = match pattern.strip_suffix(b"$") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let starts = if from_start { 0..=0 } else { 0..=text.len() };
    starts.into_iter().any(|start| {
        let rest = text.get(start..).unwrap_or(&[]);
        match to_end {
            true => glob(pattern, rest),
            false => glob_prefix(pattern, rest),
        }
    })
}

/// Whether all of `text` is as `pattern` says, where `*` stands for anything.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    walk(pattern, text, false)
}

/// Whether some start of `text` is as `pattern` says.
fn glob_prefix(pattern: &[u8], text: &[u8]) -> bool {
    walk(pattern, text, true)
}

/// Goes back to the last `*` only: no more than the product of both lengths.
fn walk(pattern: &[u8], text: &[u8], prefix: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (None, Some(_)) if prefix => return true,
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, t));
            }
            (Some(wanted), Some(byte)) if wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) if from < text.len() => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_anywhere_unless_they_are_bound() {
        for (pattern, text, expected) in [
            ("libfoo.so", "/usr/lib/libfoo.so.1", true),
            ("libfoo.so$", "/usr/lib/libfoo.so.1", false),
            ("libfoo*$", "/usr/lib/libfoo.so.1", true),
            ("^/usr", "/usr/lib/libfoo.so", true),
            ("^usr", "/usr/lib/libfoo.so", false),
            ("^parse_config$", "parse_config", true),
            ("^parse_*$", "parse_config", true),
            ("^parse$", "parse_config", false),
            ("*libbar*", "/opt/libbar.so", true),
            ("lib*x.so", "/opt/libbar.so", false),
            ("a*b*c", "xxaybbzc", true),
            ("a*b*c", "xxaybbz", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} in {text}");
        }
    }

    #[test]
    fn rules_name_a_kind_and_a_pattern() {
        let covers = |rule: &str, kind: &str| parse(rule.as_bytes()).is_some_and(|rule| rule.is_about(kind));
        assert!(covers("heap-use-after-free:libfoo.so", "heap-use-after-free"));
        assert!(covers("heap-*:libfoo.so", "heap-use-after-free"));
        assert!(covers("*:x", LEAK) && covers("leak: x", LEAK));
        assert!(!covers("leak:x", "double-free"));
        for wrong in ["leak", "leak:", "no-such-kind:x", ":x", "nothing"] {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_first_flaw_is_named() {
        let path = std::env::temp_dir().join(std::format!("fencepost-rules-{}", std::process::id()));
        std::fs::write(&path, "# a comment\n\nleak:good # and why\nbad line\nworse\n").expect("writable");
        let name = std::format!("{}\0", path.display());
        let mut rules = std::boxed::Box::new(Rules::NONE);
        let mut flaws = std::vec::Vec::new();
        rules.load(name.as_bytes(), |flaw| flaws.push(std::format!("{flaw:?}")));
        assert_eq!(flaws, [std::format!("{:?}", Flaw::NoRule(b"bad line"))]);
        rules.load(b"/no/such/file\0", |flaw| assert_eq!(flaw, Flaw::Unreadable));
        assert!(rules.is_empty());
        std::fs::remove_file(path).expect("there");
    }

    #[test]
    fn a_stack_is_covered_by_its_modules() {
        let mut maps = std::vec![0; 1 << 20];
        let modules = Modules::read(&mut maps);
        let mut frames = Frames::EMPTY;
        frames.push(libc::getpid as *const () as usize);
        let mut rules = std::boxed::Box::new(Rules::NONE);
        let text = b"leak:libnothing\ndouble-free:libc.so\n";
        rules.text[..text.len()].copy_from_slice(text);
        rules.len = text.len();
        assert!(rules.cover("double-free", &frames, &modules));
        assert!(!rules.cover(LEAK, &frames, &modules));
        assert!(!rules.cover("double-free", &Frames::EMPTY, &modules));
        assert_eq!(rules.used().collect::<std::vec::Vec<_>>(), [(&b"double-free:libc.so"[..], 1)]);
    }
}
