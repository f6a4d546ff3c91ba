//! The mutation run: for each protection and each protocol a change of one line that some test must fail for.
//!
//! The lists in `mutations/` have them; `mutations/slots` says what a record is. By default it is only made sure that each is still about the source. `FENCEPOST_MUTATIONS=all`
//! applies one after the other to a copy of the tree, runs the suites that must fail, and lists the survivors; any other value
//! is a list of words between bars, which picks those whose name or file contains one. The copy has a target directory of its
//! own, so a mutation costs what changed in the build, and its suites name the tests that matter: some ten seconds each.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Which mutations are tried.
const PICKED: &str = "FENCEPOST_MUTATIONS";
/// What a suite may take: a mutation may make threads wait for ever, which is a failure.
const LIMIT: Duration = Duration::from_secs(240);

/// A record of a list.
#[derive(Clone, Debug, Default)]
struct Mutation {
    name: String,
    file: String,
    suites: Vec<String>,
    /// What only some machines have, as `/proc/cpuinfo` calls it.
    needs: Option<String>,
    old: Vec<String>,
    new: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read() -> Vec<Mutation> {
    let directory = fs::read_dir(root().join("tests/mutations")).expect("the lists are in the source tree");
    let mut files: Vec<PathBuf> =
        directory.map(|entry| entry.expect("a directory can be read").path()).collect();
    files.sort();
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("a list can be read"));
    let text: String = texts.collect();
    let mut mutations: Vec<Mutation> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            mutations.push(Mutation { name: name.to_owned(), ..Mutation::default() });
            continue;
        }
        let mutation = mutations.last_mut().expect("a record begins with its name");
        match line.split_once(' ').expect("a word and what belongs to it") {
            ("file", file) => file.clone_into(&mut mutation.file),
            ("needs", needs) => mutation.needs = Some(needs.to_owned()),
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
    assert!(mutations.len() >= 110, "{}", mutations.len());
    let names: BTreeSet<&str> = mutations.iter().map(|mutation| mutation.name.as_str()).collect();
    assert_eq!(names.len(), mutations.len(), "names are given once");
    for mutation in &mutations {
        let source = fs::read_to_string(root().join(&mutation.file)).expect("the file is there");
        assert_ne!(mutation.apply(&source), source, "{}", mutation.name);
        assert!(!mutation.suites.is_empty(), "{}", mutation.name);
        for suite in &mutation.suites {
            let name = suite.split(' ').next().expect("a name");
            let is_file =
                ["tests", "ffi/tests"].iter().any(|at| root().join(format!("{at}/{name}.rs")).is_file());
            assert!(name == "lib" || is_file, "{suite}");
        }
    }
}

/// The directory of the copy and of what is built of it.
fn place() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations")
}

/// A copy of the tree, without what was built. What is there from another run keeps its time if it is the same, so that a second
/// run builds little. Everything else is new: the build of a mutation, or of a file that was changed during the last run, is
/// younger than the file in the tree.
fn copy() -> PathBuf {
    let tree = place().join("tree");
    fs::create_dir_all(&tree).expect("the build's directory for temporary files is writable");
    for part in ["Cargo.toml", "Cargo.lock", "README.md", "src", "tests", "ffi", "benches"] {
        let copied = copy_part(&root().join(part), &tree.join(part));
        copied.unwrap_or_else(|error| panic!("{part} cannot be copied: {error}"));
    }
    tree
}

fn copy_part(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        let same = fs::read(to).is_ok_and(|copied| fs::read(from).is_ok_and(|source| copied == source));
        return if same { Ok(()) } else { fs::copy(from, to).map(|_| ()) };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        match (from.join(entry.file_name()).exists(), entry.path().is_dir()) {
            (true, _) => (),
            (false, true) => fs::remove_dir_all(entry.path())?,
            (false, false) => fs::remove_file(entry.path())?,
        }
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy_part(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Killed(String),
    Survived,
    /// It does not compile.
    Invalid(String),
}

/// How a suite ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// So many tests passed.
    Passed(usize),
    Failed,
    /// It was ended at [`LIMIT`]: on a busy machine that may be no failure.
    Late,
    NotBuilt,
}

/// Cargo's test of a suite in the copy: a suite's name, and perhaps what its tests are picked by.
fn test(tree: &Path, suite: &str) -> Command {
    let name = suite.split(' ').next().unwrap_or(suite);
    let mut command = cargo(tree, "target");
    command.arg("test");
    match name {
        "lib" => command.args(["-p", "fencepost", "--lib"]),
        "loom" => {
            command.env("CARGO_TARGET_DIR", place().join("loom"));
            command.env("RUSTFLAGS", "--cfg loom").args(["--release", "--test", "loom"])
        }
        name => command.args(["--workspace", "--test", name]),
    };
    command
}

/// Cargo in the copy, with a target directory of that name.
fn cargo(tree: &Path, target: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(tree).env("CARGO_TARGET_DIR", place().join(target));
    command.env_remove("FENCEPOST_TEST_SEED").env_remove(PICKED);
    // The library under test is to be built soon rather than well.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    // Another process group: a test that kills its own is not to end this one.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}

/// Whether a process ends well; `None` if not in time. Then it and what it started are killed.
fn ends_well(mut child: Child) -> Option<bool> {
    let end = Instant::now() + LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            _ => break,
        }
    }
    // SAFETY: no memory is involved; the group is the child's, which was not waited for.
    unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
    let _ = child.wait();
    None
}

/// Where what a suite says goes.
fn output() -> PathBuf {
    place().join("output")
}

/// What the last suite said.
fn said() -> String {
    String::from_utf8_lossy(&fs::read(output()).expect("it was written")).into_owned()
}

/// Runs a suite in the copy.
fn run(tree: &Path, suite: &str) -> End {
    let filter = suite.split_once(' ').map_or("", |(_, filter)| filter);
    if !test(tree, suite).arg("--no-run").status().is_ok_and(|status| status.success()) {
        return End::NotBuilt;
    }
    let file = fs::File::create(output()).expect("the build's directory for temporary files is writable");
    let mut command = test(tree, suite);
    command.arg("--").args(filter.split_whitespace()).stdout(file);
    let child = command.spawn().expect("cargo starts");
    match ends_well(child) {
        None => return End::Late,
        Some(false) => return End::Failed,
        Some(true) => (),
    }
    let text = said();
    let passed =
        |line: &str| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<usize>().ok();
    End::Passed(text.lines().filter_map(passed).sum())
}

fn try_out(tree: &Path, mutation: &Mutation) -> Verdict {
    let path = tree.join(&mutation.file);
    let source = fs::read_to_string(&path).expect("the copy has the file");
    fs::write(&path, mutation.apply(&source)).expect("the copy is writable");
    let mut verdict = Verdict::Survived;
    for suite in &mutation.suites {
        match run(tree, suite) {
            End::NotBuilt => verdict = Verdict::Invalid(suite.clone()),
            End::Failed => verdict = Verdict::Killed(suite.clone()),
            End::Late => verdict = Verdict::Killed(format!("{suite}, not done in {} s", LIMIT.as_secs())),
            End::Passed(_) => continue,
        }
        break;
    }
    fs::write(&path, source).expect("the copy is writable");
    verdict
}

#[test]
fn all_are_killed() {
    let Ok(picked) = env::var(PICKED) else { return };
    let words: Vec<&str> = picked.split('|').collect();
    let chosen = |mutation: &Mutation| {
        let has =
            |word: &&str| *word == "all" || mutation.name.contains(word) || mutation.file.contains(word);
        words.iter().any(has)
    };
    let mutations: Vec<Mutation> = read().into_iter().filter(chosen).collect();
    let tree = copy();
    // Before a suite's time begins, since its first build takes as long as a suite may.
    let library =
        cargo(&tree, "target").args(["build", "--release", "-p", "fencepost-ffi", "--lib"]).status();
    assert!(library.is_ok_and(|status| status.success()), "the library is not built");
    let suites: BTreeSet<&String> = mutations.iter().flat_map(|mutation| &mutation.suites).collect();
    for suite in suites {
        let end = run(&tree, suite);
        assert!(matches!(end, End::Passed(1..)), "{suite} must pass without a mutation: {end:?}\n{}", said());
    }
    let machine = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let (mut killed, mut left) = (0, Vec::new());
    for mutation in &mutations {
        if let Some(needs) = mutation.needs.as_ref().filter(|needs| !machine.contains(needs.as_str())) {
            println!("Skipped: {}: it needs {needs}", mutation.name);
            continue;
        }
        let begin = Instant::now();
        let verdict = try_out(&tree, mutation);
        println!("{verdict:?}: {} ({:.0} s)", mutation.name, begin.elapsed().as_secs_f64());
        if matches!(verdict, Verdict::Killed(_)) {
            killed += 1;
        } else {
            left.push(format!("{verdict:?}: {}", mutation.name));
        }
    }
    let skipped = mutations.len() - killed - left.len();
    println!("{killed} of {} killed, {skipped} skipped", mutations.len());
    assert!(left.is_empty(), "{}", left.join("\n"));
}
