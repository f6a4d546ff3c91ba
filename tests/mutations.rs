//! The mutation run: for each protection and each protocol a change of one line that some test must fail for.
//!
//! `mutations/list` has them. By default it is only made sure that each is still about the source. `FENCEPOST_MUTATIONS=all`
//! applies one after the other to a copy of the tree, runs the suites that must fail, and lists the survivors; any other value
//! picks those whose name or file contains it. It takes a minute or two for each.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Which mutations are tried.
const PICKED: &str = "FENCEPOST_MUTATIONS";

/// A record of the list.
#[derive(Clone, Debug, Default)]
struct Mutation {
    name: String,
    file: String,
    suites: Vec<String>,
    old: Vec<String>,
    new: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read() -> Vec<Mutation> {
    let text =
        fs::read_to_string(root().join("tests/mutations/list")).expect("the list is in the source tree");
    let mut mutations: Vec<Mutation> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            mutations.push(Mutation { name: name.to_owned(), ..Mutation::default() });
            continue;
        }
        let mutation = mutations.last_mut().expect("a record begins with its name");
        match line.split_once(' ').expect("a word and what belongs to it") {
            ("file", file) => file.clone_into(&mut mutation.file),
            ("suite", suites) => mutation.suites = suites.split(" | ").map(str::to_owned).collect(),
            ("-", old) => mutation.old.push(old.to_owned()),
            ("+", new) => mutation.new.push(new.to_owned()),
            _ => panic!("{line:?} is no line of a record"),
        }
    }
    mutations
}

impl Mutation {
    /// The source with the change.
    ///
    /// # Panics
    /// If the lines are not there exactly once.
    fn apply(&self, source: &str) -> String {
        let lines: Vec<&str> = source.lines().collect();
        let is_at = |at: &usize| {
            let here = lines.get(*at..*at + self.old.len());
            here.is_some_and(|here| here.iter().zip(&self.old).all(|(line, old)| line.trim() == old))
        };
        let places: Vec<usize> = (0..lines.len()).filter(is_at).collect();
        let [at] = places[..] else { panic!("{}: its lines are there {} times", self.name, places.len()) };
        let mut changed: Vec<&str> = lines[..at].to_vec();
        changed.extend(self.new.iter().map(String::as_str));
        changed.extend(&lines[at + self.old.len()..]);
        changed.join("\n") + "\n"
    }
}

#[test]
fn each_is_about_the_source() {
    let mutations = read();
    assert!(mutations.len() >= 40, "{}", mutations.len());
    let names: BTreeSet<&str> = mutations.iter().map(|mutation| mutation.name.as_str()).collect();
    assert_eq!(names.len(), mutations.len(), "names are given once");
    for mutation in &mutations {
        let source = fs::read_to_string(root().join(&mutation.file)).expect("the file is there");
        assert_ne!(mutation.apply(&source), source, "{}", mutation.name);
        assert!(!mutation.suites.is_empty(), "{}", mutation.name);
        for suite in &mutation.suites {
            let name = suite.split(' ').next().expect("a name");
            assert!(name == "lib" || root().join(format!("tests/{name}.rs")).is_file(), "{suite}");
        }
    }
}

/// A copy of the tree, without what was built.
fn copy() -> PathBuf {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations");
    for part in ["Cargo.toml", "Cargo.lock", "README.md", "src", "tests", "ffi", "benches"] {
        let to = tree.join(part);
        fs::create_dir_all(&tree).expect("the build's directory for temporary files is writable");
        let _ = fs::remove_dir_all(&to);
        let status = Command::new("cp").arg("-r").arg(root().join(part)).arg(&to).status();
        assert!(status.is_ok_and(|status| status.success()), "{part} cannot be copied");
    }
    tree
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Killed(String),
    Survived,
    /// It does not compile.
    Invalid(String),
}

/// Whether a suite fails in the copy; `None` if it does not compile.
fn fails(tree: &Path, suite: &str) -> Option<bool> {
    let (name, filter) = suite.split_once(' ').unwrap_or((suite, ""));
    let which = match name {
        "lib" => ["-p", "fencepost", "--lib"].to_vec(),
        name => ["--workspace", "--test", name].to_vec(),
    };
    // What others made of the dependencies is of use here, too.
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(tree).arg("test").args(&which).args(more);
        command.env("CARGO_TARGET_DIR", &target).env_remove("FENCEPOST_TEST_SEED").env_remove(PICKED);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // Another process group: a test that kills its own is not to end this one.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.status().is_ok_and(|status| status.success())
    };
    run(&["--no-run"]).then(|| !run(&["--", filter]))
}

fn try_out(tree: &Path, mutation: &Mutation) -> Verdict {
    let path = tree.join(&mutation.file);
    let source = fs::read_to_string(&path).expect("the copy has the file");
    fs::write(&path, mutation.apply(&source)).expect("the copy is writable");
    let mut verdict = Verdict::Survived;
    for suite in &mutation.suites {
        match fails(tree, suite) {
            None => verdict = Verdict::Invalid(suite.clone()),
            Some(true) => verdict = Verdict::Killed(suite.clone()),
            Some(false) => continue,
        }
        break;
    }
    fs::write(&path, source).expect("the copy is writable");
    verdict
}

#[test]
fn all_are_killed() {
    let Ok(picked) = env::var(PICKED) else { return };
    let chosen = |mutation: &Mutation| {
        picked == "all" || mutation.name.contains(&picked) || mutation.file.contains(&picked)
    };
    let mutations: Vec<Mutation> = read().into_iter().filter(chosen).collect();
    let tree = copy();
    let suites: BTreeSet<&String> = mutations.iter().flat_map(|mutation| &mutation.suites).collect();
    for suite in suites {
        assert_eq!(fails(&tree, suite), Some(false), "{suite} must pass without a mutation");
    }
    let mut left = Vec::new();
    for mutation in &mutations {
        let begin = Instant::now();
        let verdict = try_out(&tree, mutation);
        println!("{verdict:?}: {} ({:.0} s)", mutation.name, begin.elapsed().as_secs_f64());
        if !matches!(verdict, Verdict::Killed(_)) {
            left.push(format!("{verdict:?}: {}", mutation.name));
        }
    }
    println!("{} of {} killed", mutations.len() - left.len(), mutations.len());
    assert!(left.is_empty(), "{}", left.join("\n"));
}
