//! The layers of `src/`: a module uses what stands below it, and nothing beside or above it.
//!
//! The check reads every path that starts with `crate::` or leads out of a module with `super::`, in `use`
//! declarations and elsewhere, tests included, and compares the top-level modules it leads to with the
//! table.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// The modules, low to high. Those of one layer know nothing of each other.
const LAYERS: &[&[&str]] = &[
    &["addr"],
    &["canary"],
    &["request"],
    &["fault", "options", "text"],
    &["sys"],
    &["sync"],
    &["stats", "rng"],
    &["meta", "trace"],
    &["slab", "page"],
    &["policy"],
    &["report"],
    &["heap"],
    &["global"],
];

/// What a module may not use though it is below: `sys` is told nothing of the heap, the allocators take decisions
/// as arguments, and reports are about findings and not about allocators.
const EXCEPT: &[(&str, &[&str])] = &[
    ("sys", &["request", "fault"]),
    ("slab", &["options", "stats", "trace"]),
    ("page", &["options", "stats", "trace"]),
    ("policy", &["slab", "sys", "sync"]),
    ("report", &["slab", "page", "policy", "meta"]),
];

/// The layer of a module, from 0.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// A use that the table does not allow.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    user: String,
    used: String,
    why: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, user, used, why } = self;
        write!(f, "{file}:{line}: `{user}` uses `{used}`, which is {why}")
    }
}

fn verdict(user: &str, used: &str) -> Option<&'static str> {
    if user == used {
        return None;
    }
    let (Some(mine), Some(other)) = (layer(user), layer(used)) else {
        return Some("not in the table");
    };
    let excepted = EXCEPT.iter().any(|(module, not)| *module == user && not.contains(&used));
    match mine.cmp(&other) {
        std::cmp::Ordering::Less => Some("above it"),
        std::cmp::Ordering::Equal => Some("beside it"),
        std::cmp::Ordering::Greater if excepted => Some("not for it"),
        std::cmp::Ordering::Greater => None,
    }
}

/// Every use in a file of `src/` that is not allowed. `file` is the path below `src/`.
fn check(file: &str, text: &str) -> Vec<Violation> {
    let path = module_path(file);
    let Some(user) = path.first().cloned() else {
        // The crate's root names and re-exports everything.
        return Vec::new();
    };
    let found = Scanner::new(text, path).uses();
    let judge = |(line, used): (usize, String)| {
        verdict(&user, &used).map(|why| Violation {
            file: file.to_owned(),
            line,
            user: user.clone(),
            used,
            why,
        })
    };
    found.into_iter().filter_map(judge).collect()
}

/// The module that a file is: none for `lib.rs`, `a` for `a.rs` and `a/mod.rs`, `a::b` for `a/b.rs`.
fn module_path(file: &str) -> Vec<String> {
    let mut path: Vec<_> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib") {
        path.pop();
    }
    path
}

/// A piece of source text that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Into,
    Sign(char),
}

/// Splits source text into tokens with their lines; comments and literals are left out.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    let (mut line, mut rest) = (1, text);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' || raw_string(rest).is_some() {
            raw_string(rest).unwrap_or_else(|| string(rest))
        } else if first == '\'' {
            character(rest)
        } else if rest.starts_with("::") {
            tokens.push((line, Token::Into));
            2
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push((line, Token::Word(rest[..length].to_owned())));
            length
        } else {
            if !first.is_whitespace() {
                tokens.push((line, Token::Sign(first)));
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the string literal that `text` starts with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string literal that `text` starts with, `None` if it starts with none.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// The length of the character literal that `text` starts with, or of a lifetime's quote.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => chars.find(|(_, c)| *c == '\'').map_or(text.len(), |(at, _)| at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Walks through a file and follows which module it is in.
struct Scanner {
    tokens: Vec<(usize, Token)>,
    at: usize,
    /// The module at this place.
    path: Vec<String>,
    /// For every open brace whether it is a module's.
    braces: Vec<bool>,
    found: BTreeSet<(usize, String)>,
}

impl Scanner {
    fn new(text: &str, path: Vec<String>) -> Self {
        Self { tokens: tokens(text), at: 0, path, braces: Vec::new(), found: BTreeSet::new() }
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(_, token)| token)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead)? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The top-level modules that are used, with lines.
    fn uses(mut self) -> Vec<(usize, String)> {
        while let Some(token) = self.peek(0).cloned() {
            match token {
                Token::Sign('{') => self.braces.push(false),
                Token::Sign('}') => self.close(),
                Token::Word(word) => self.keyword(&word),
                _ => {}
            }
            self.at += 1;
        }
        self.found.into_iter().collect()
    }

    fn close(&mut self) {
        if self.braces.pop() == Some(true) {
            self.path.pop();
        }
    }

    /// Looks at a word that may open a module or a path; ends on its last token.
    fn keyword(&mut self, word: &str) {
        // A path goes on with `::`; what follows another path's `::` is no start.
        let starts = self.at == 0 || self.tokens[self.at - 1].1 != Token::Into;
        let leads = starts && self.peek(1) == Some(&Token::Into);
        match word {
            "mod" if self.peek(2) == Some(&Token::Sign('{')) => {
                let name = self.word(1).unwrap_or_default().to_owned();
                self.path.push(name);
                self.braces.push(true);
                self.at += 2;
            }
            "crate" if leads => {
                self.at += 2;
                self.tree(&[]);
            }
            "super" if leads => {
                let mut base = self.path.clone();
                while self.word(0) == Some("super") && self.peek(1) == Some(&Token::Into) {
                    base.pop();
                    self.at += 2;
                }
                self.tree(&base);
            }
            _ => {}
        }
    }

    /// Reads what follows `base::`: a name, or a group of names with paths of their own. Ends on its last
    /// token.
    fn tree(&mut self, base: &[String]) {
        let line = self.tokens.get(self.at).map_or(0, |(line, _)| *line);
        match self.peek(0).cloned() {
            Some(Token::Sign('{')) => {
                let mut depth = 1;
                // Whether a name here is one of the group's own and not further down a path.
                let mut outermost = true;
                while depth > 0 {
                    self.at += 1;
                    let line = self.tokens.get(self.at).map_or(0, |(line, _)| *line);
                    match self.peek(0).cloned() {
                        Some(Token::Sign('{')) => depth += 1,
                        Some(Token::Sign('}')) => depth -= 1,
                        Some(Token::Sign(',')) if depth == 1 => outermost = true,
                        Some(Token::Word(word)) if outermost => {
                            outermost = false;
                            self.note(line, base, &word);
                        }
                        Some(_) => outermost &= depth != 1,
                        None => return,
                    }
                }
            }
            Some(Token::Word(word)) => self.note(line, base, &word),
            Some(Token::Sign('*')) => self.note(line, base, "*"),
            _ => {}
        }
    }

    fn note(&mut self, line: usize, base: &[String], name: &str) {
        let top = base.first().map_or(name, String::as_str);
        // `self` of a group is the base itself, which is a module only if it is not the root.
        if top != "self" {
            self.found.insert((line, top.to_owned()));
        }
    }
}

/// The Rust files below `directory`, as paths below it with their text.
fn sources(directory: &Path, below: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("the source tree can be read") {
        let path = entry.expect("a directory can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are ASCII");
        if path.is_dir() {
            sources(&path, &format!("{below}{name}/"), files);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            files.push((format!("{below}{name}"), text));
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    files.sort();
    files
}

/// How many files the package may have without its tests.
const PACKAGED: usize = 120;
/// What `cargo package` adds to the files of the tree: the manifest as it was written, and the commit.
const ADDED: usize = 2;

/// The files below `directory`, without what `skips`.
fn count(directory: &Path, skips: &dyn Fn(&str) -> bool) -> usize {
    let entries = fs::read_dir(directory).expect("the tree can be read");
    let size = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a directory can be read").path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if skips(name) => 0,
            _ if path.is_dir() => count(&path, &|_| false),
            _ => 1,
        }
    };
    entries.map(size).sum()
}

/// Who reads the package's list of files is to find the source in it.
#[test]
fn the_package_is_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest can be read");
    let excluded = manifest.lines().find_map(|line| line.strip_prefix("exclude = "));
    let excluded = excluded.expect("the manifest says what is no part of the package");
    let skips = |name: &str| {
        ["tests", "target", ".git"].contains(&name) || excluded.contains(&format!("\"/{name}\""))
    };
    let files = count(root, &skips) + ADDED;
    assert!(files <= PACKAGED, "the package has {files} files without its tests; {PACKAGED} are allowed");
}

#[test]
fn every_use_leads_down() {
    let violations: Vec<_> = all_sources()
        .iter()
        .flat_map(|(file, text)| check(file, text))
        .map(|found| found.to_string())
        .collect();
    assert!(
        violations.is_empty(),
        "{} uses against the layers:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

/// The table and the source tree have the same modules, so that no module escapes the check.
#[test]
fn the_table_is_complete() {
    let mut table: Vec<_> = LAYERS.iter().copied().flatten().map(|name| (*name).to_owned()).collect();
    table.sort();
    let mut modules: Vec<_> =
        all_sources().iter().filter_map(|(file, _)| module_path(file).into_iter().next()).collect();
    modules.dedup();
    assert_eq!(table, modules);
    for (module, not) in EXCEPT {
        let below = |used: &&str| layer(used).is_some() && layer(used) < layer(module);
        assert!(not.iter().all(below), "{module}");
    }
}

/// What a file is found to violate, as `line used`.
fn found(file: &str, text: &str) -> Vec<String> {
    check(file, text).iter().map(|violation| format!("{} {}", violation.line, violation.used)).collect()
}

#[test]
fn planted_violations_are_found() {
    let text = "\
use crate::addr::Addr;
use crate::page::Arm;
use crate::{
    request::{Claim, page},
    heap::{self, report},
    sync, slab::class,
};
use super::super::report::Finding;
fn f() -> crate::global::Fencepost { crate::sys::die(super::super::policy::X) }
pub use crate::nowhere;
use crate::*;
mod tests {
    use super::*;
    use super::super::class;
    use super::super::super::text;
    use super::super::super::heap;
}
";
    let expected = ["2 page", "5 heap", "8 report", "9 global", "9 policy", "10 nowhere", "11 *", "16 heap"];
    assert_eq!(found("slab/cache.rs", text), expected);
}

#[test]
fn the_allocators_do_not_know_each_other() {
    assert_eq!(found("page/mod.rs", "use super::slab;"), ["1 slab"]);
    assert_eq!(found("slab/mod.rs", "use crate::page::Side;"), ["1 page"]);
    assert_eq!(found("page/mod.rs", "use crate::options::Mode;"), ["1 options"]);
    assert!(found("policy.rs", "use crate::page::Side; use crate::options::Mode;").is_empty());
}

#[test]
fn text_that_is_no_code_is_not_read() {
    let text = r####"
// crate::heap
/* crate::heap /* crate::heap */ crate::heap */
/// [`super::heap`]
const A: &str = "crate::heap \" crate::heap";
const B: &str = r##"crate::heap "# crate::heap"##;
const C: [char; 3] = ['"', '\'', '\u{1f}'];
fn f<'a>(x: &'a str) -> &'a str { my_crate::heap::f(x) }
use crate::heap;
"####;
    assert_eq!(found("addr.rs", text), ["9 heap"]);
}

#[test]
fn files_are_modules() {
    assert_eq!(module_path("lib.rs"), [""; 0]);
    assert_eq!(module_path("addr.rs"), ["addr"]);
    assert_eq!(module_path("slab/mod.rs"), ["slab"]);
    assert_eq!(module_path("slab/cache.rs"), ["slab", "cache"]);
}
