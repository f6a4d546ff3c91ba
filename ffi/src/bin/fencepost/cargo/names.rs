//! Which test a report is of.
//!
//! | known from | where |
//! |---|---|
//! | `--exact NAME` among the program's arguments | nextest, and a user that runs one test |
//! | the function that the test harness called, in one of the report's stacks | everywhere, if the stack reaches that far |
//! | the name of the thread, which the harness sets to the test's; the kernel keeps 15 bytes | test binaries with several threads |
//!
//! What is cut or has no path is looked up in the list of the binary's tests. The binary is asked for it only if
//! the standard harness is in it: another program might take `--list` for something else.

use super::runner::Run;
use crate::worker::Part;
use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a thread's name that the kernel keeps.
const KEPT: usize = 15;
/// What only the standard harness has in it.
const MARK: &[u8] = b"RUST_TEST_THREADS";
/// The file of a program of doctests.
const DOCTESTS: &str = "rust_out";
/// What the name of a doctest ends with, before the number of its line.
const LINE: &[u8] = b" (line ";
/// Between names that may be meant.
const OR: &str = " or ";
/// So many names at most.
const MOST: usize = 4;
/// Bytes of the name of a doctest that are looked at.
const LONGEST_NAME: usize = 512;
/// What a list of tests may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// In the names of functions of doctests that are one program.
const MERGED: &str = "__doctest_";

/// The tests of binaries, by the binary.
#[derive(Default)]
pub struct Names {
    lists: HashMap<PathBuf, Vec<String>>,
}

impl Names {
    /// The test that a report is of, if that can be told.
    pub fn test_of(&mut self, part: &Part, run: Option<&Run>) -> Option<String> {
        if let Some(test) = run.and_then(|run| run.test.clone()) {
            return Some(test);
        }
        let binary = run.map_or_else(|| Path::new(&part.module), |run| &run.binary);
        let thread = thread_name(&part.headline).unwrap_or_default();
        match part.test.as_deref() {
            Some(function) if function.contains(MERGED) => doctest(&fs::read(binary).ok()?, thread),
            // Doctests bring a name of their own; what has a path is a function in a crate.
            Some(function) if function.contains(' ') => Some(function.to_owned()),
            Some(function) if function.contains("::") => {
                function.split_once("::").map(|(_, name)| name.to_owned())
            }
            Some(function) => {
                let of_it = |name: &&String| name.rsplit("::").next() == Some(function);
                let found = one(self.list(binary).iter().filter(of_it).filter(|name| begins(name, thread)));
                found.or_else(|| Some(function.to_owned()))
            }
            None if thread.is_empty() => None,
            None if binary.ends_with(DOCTESTS) => doctest(&fs::read(binary).ok()?, thread),
            None => {
                let mut names: Vec<_> =
                    self.list(binary).iter().filter(|name| begins(name, thread)).cloned().collect();
                names.truncate(MOST);
                (!names.is_empty()).then(|| names.join(OR))
            }
        }
    }

    /// The tests of a binary, as the harness lists them.
    fn list(&mut self, binary: &Path) -> &[String] {
        self.lists.entry(binary.to_path_buf()).or_insert_with(|| tests_of(binary).unwrap_or_default())
    }
}

/// The doctest in a program of several, which runs them whatever its arguments are, and whose names are in its file: those that
/// begin as the thread's name does, `src/lib.rs - function (line 7)`.
fn doctest(program: &[u8], thread: &str) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = program;
    while let Some(at) = find(rest, LINE) {
        let (before, after) = rest.split_at(at);
        let digits = after.iter().skip(LINE.len()).take_while(|byte| byte.is_ascii_digit()).count();
        let end = LINE.len().saturating_add(digits);
        let near = before.get(before.len().saturating_sub(LONGEST_NAME)..).unwrap_or(before);
        if after.get(end) == Some(&b')')
            && let Some(begin) = (0..near.len()).rev().find(|at| near[*at..].starts_with(thread.as_bytes()))
            && let Ok(name) = std::str::from_utf8(&[&near[begin..], &after[..=end]].concat())
            && !thread.is_empty()
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
        rest = after.get(LINE.len()..).unwrap_or_default();
    }
    names.sort();
    (!names.is_empty()).then(|| names.join(OR))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Whether a thread of this name is a test's of that name.
fn begins(name: &str, thread: &str) -> bool {
    if thread.len() < KEPT { name == thread } else { name.starts_with(thread) }
}

/// What is there, if that is one.
fn one<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<String> {
    let first = names.next()?;
    names.next().is_none().then(|| first.clone())
}

/// The name in `… by thread T7 (name)`.
fn thread_name(headline: &str) -> Option<&str> {
    headline.rsplit_once(" by thread T")?.1.split_once(" (")?.1.strip_suffix(')')
}

fn tests_of(binary: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(binary).ok()?;
    if binary.ends_with(DOCTESTS) || find(&bytes, MARK).is_none() {
        return None;
    }
    let mut command = Command::new(binary);
    command.args(["--list", "--format", "terse"]).env_remove(crate::launch::PRELOAD);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(directory) = env::temp_dir().to_str() {
        // What a profiled binary writes at its end is nobody's.
        command.env("LLVM_PROFILE_FILE", format!("{directory}/fencepost-%p.profraw"));
    }
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let begin = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if begin.elapsed() > TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let text = reader.join().ok()?.ok()?;
    let named = |line: &str| {
        line.strip_suffix(": test").or_else(|| line.strip_suffix(": benchmark")).map(str::to_owned)
    };
    Some(text.lines().filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(test: Option<&str>, thread: &str) -> Part {
        Part {
            test: test.map(str::to_owned),
            headline: format!("READ at 0x1 by thread T7 ({thread})"),
            ..Part::default()
        }
    }

    #[test]
    fn stacks_arguments_and_threads_name_a_test() {
        let mut names = Names::default();
        let list = ["tests::first_of_two", "tests::first_of_three", "tests::other", "a"];
        names.lists.insert(PathBuf::new(), list.map(str::to_owned).to_vec());
        for (test, thread, expected) in [
            (Some("krate::tests::first_of_two"), "tests::first_of", Some("tests::first_of_two")),
            (Some("first_of_three"), "tests::first_of", Some("tests::first_of_three")),
            (Some("src/lib.rs (line 9)"), "rust_out", Some("src/lib.rs (line 9)")),
            (None, "tests::other", Some("tests::other")),
            (None, "tests::first_of", Some("tests::first_of_two or tests::first_of_three")),
            (None, "a", Some("a")),
            (None, "tests", None),
        ] {
            assert_eq!(names.test_of(&part(test, thread), None).as_deref(), expected, "{test:?} {thread}");
        }
        let run = Run { pid: 1, binary: PathBuf::new(), test: Some("x".to_owned()), obstacle: None };
        assert_eq!(names.test_of(&part(None, "y"), Some(&run)).as_deref(), Some("x"));
    }

    #[test]
    fn doctests_are_found_in_their_program() {
        let program = b"x)src/lib.rs - at (line 5)src/lib.rs - at64 (line 9)\0src/a.rs - b (line 1)src/lib.rs - at (line 5)";
        assert_eq!(doctest(program, "src/a.rs - b").as_deref(), Some("src/a.rs - b (line 1)"));
        let both = "src/lib.rs - at (line 5) or src/lib.rs - at64 (line 9)";
        assert_eq!(doctest(program, "src/lib.rs - at").as_deref(), Some(both));
        assert_eq!(doctest(program, "src/c.rs"), None);
    }

    #[test]
    fn this_harness_lists_its_tests() {
        let own = env::current_exe().unwrap();
        let name = "cargo::names::tests::this_harness_lists_its_tests";
        assert!(tests_of(&own).unwrap().iter().any(|test| test == name));
    }
}
