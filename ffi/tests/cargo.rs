//! `cargo fencepost` on a small crate with bugs: findings by test, statuses, runners of the user's, programs that take no library.

mod support;

use serde_json::Value;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use support::{Scratch, launcher, run, skip, text};

const MANIFEST: &str = "[package]\nname = \"shaky\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
const FILES: [(&str, &str); 4] = [
    ("src/lib.rs", include_str!("programs/crate/lib.rs")),
    ("src/main.rs", include_str!("programs/crate/main.rs")),
    ("tests/integration.rs", include_str!("programs/crate/integration.rs")),
    ("build.rs", include_str!("programs/crate/build.rs")),
];
const RUNNER: &str = "[target.'TRIPLE']\nrunner = [\"env\", \"SHAKY_RUNNER=yes\"]\n";

/// The crate in a directory of its own.
struct Crate(Scratch);

impl Crate {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(&format!("cargo-{name}"));
        for (file, content) in FILES.into_iter().chain([("Cargo.toml", MANIFEST)]) {
            scratch.write(file, content);
        }
        scratch.write(".cargo/config.toml", &RUNNER.replace("TRIPLE", &host()));
        Self(scratch)
    }

    /// `cargo fencepost` with these words.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-fencepost"));
        for (name, value) in launcher().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TERM_COLOR"] {
            command.env_remove(name);
        }
        command.env("CARGO_TARGET_DIR", self.0.0.join("target")).env("CARGO_NET_OFFLINE", "true");
        command.current_dir(&self.0.0).arg("fencepost").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        run(&mut self.command(words))
    }

    fn place(&self, file: &str, mark: &str) -> String {
        let content = FILES.iter().find(|(name, _)| *name == file).map_or("", |(_, content)| content);
        let mark = format!("// MARK {mark}");
        let line =
            content.lines().position(|line| line.ends_with(&mark)).unwrap_or_else(|| panic!("{mark}")) + 1;
        format!("{}:{line}", self.0.0.join(file).display())
    }
}

fn host() -> String {
    let output = run(Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"));
    let output = text(&output.stdout);
    output.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// The lines of the sum, without the indent.
fn sum(output: &Output) -> Vec<String> {
    let all = text(&output.stderr);
    let lines = all.lines().skip_while(|line| {
        !(line.starts_with("fencepost: ") && line.contains(" in ") && line.ends_with("programs"))
    });
    lines.map(|line| line.trim_start().to_owned()).collect()
}

#[test]
fn each_finding_stands_once_with_its_tests() {
    let shaky = Crate::new("findings");
    let log = shaky.0.0.join("findings.sarif");
    let output = shaky.run(&["test", "--sarif", log.to_str().unwrap(), "--color", "never"]);
    let report = text(&output.stderr);
    // No test failed, and yet the status is no success.
    assert_eq!(output.status.code(), Some(99), "{report}{}", text(&output.stdout));
    let (word, doctested) = (shaky.place("src/lib.rs", "word"), shaky.place("src/lib.rs", "doctested"));
    let freed = shaky.place("tests/integration.rs", "freed");
    for (kind, place, function) in [
        ("heap-buffer-overflow", &word, "shaky::word"),
        ("heap-buffer-overflow", &doctested, "shaky::doctested"),
        ("double-free", &freed, "integration::freed_twice"),
    ] {
        let summary = format!("SUMMARY: fencepost: {kind} {place} in {function}\n");
        assert_eq!(report.matches(&summary).count(), 1, "{summary}{report}");
    }
    let expected = [
        ("the crate", "test tests::a_long_name_that_begins_like_another_and_reads_behind (shaky)"),
        ("a thread", "test tests::in_a_thread (shaky)"),
        ("elsewhere", "test the_same_as_in_the_crate (integration)"),
        ("freed", "test freed_twice (integration)"),
        ("doctest", "test src/lib.rs - word (line 9) (doctest)"),
    ];
    let sum = sum(&output);
    for (what, line) in expected {
        // Doctests of one function, whose names begin alike, are told apart by nothing.
        let there = |known: &String| {
            known == line || what == "doctest" && known.contains("src/lib.rs - word (line 9)")
        };
        assert_eq!(sum.iter().filter(|known| there(known)).count(), 1, "{what}: {sum:#?}");
    }
    assert!(sum[0].starts_with("fencepost: 3 findings, reported 5 times, in "), "{sum:#?}");
    let log: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 3, "{log:#}");
    let overflow = results.iter().find(|result| result["properties"]["tests"].as_array().unwrap().len() == 3);
    let overflow = overflow.unwrap_or_else(|| panic!("{log:#}"));
    let physical = &overflow["locations"][0]["physicalLocation"];
    assert!(word.ends_with(&format!("/src/lib.rs:{}", physical["region"]["startLine"])), "{overflow:#}");

    // What is built is used again: one thread, and a program of its own for each test.
    let output = shaky.run(&["test", "--lib", "--", "--test-threads=1", "reads_behind"]);
    assert_eq!(output.status.code(), Some(99));
    let named = "in test tests::a_long_name_that_begins_like_another_and_reads_behind (shaky)\n";
    assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
    if run(Command::new(env!("CARGO")).args(["nextest", "--version"])).status.success() {
        let output = shaky.run(&["nextest", "run", "--lib", "--no-fail-fast", "thread", "right"]);
        let report = text(&output.stderr);
        assert!(!output.status.success(), "{report}");
        assert!(report.contains("in test tests::in_a_thread (shaky)\n"), "{report}");
        let fails = |line: &str, test: &str| line.contains("FAIL") && line.ends_with(test);
        assert!(report.lines().any(|line| fails(line, " tests::in_a_thread")), "{report}");
        assert!(!report.lines().any(|line| fails(line, "_is_right")), "{report}");
    } else {
        skip("there is no cargo-nextest");
    }
}

#[test]
fn statuses_are_cargos_and_the_programs() {
    let shaky = Crate::new("statuses");
    let output = shaky.run(&["test", "--lib", "is_right"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(sum(&output).len(), 0, "one program: {}", text(&output.stderr));
    assert!(text(&output.stderr).contains("fencepost: 0 findings in 1 program\n"));
    let output = run(shaky.command(&["test", "--lib", "fails_if_told_to"]).env("SHAKY_FAILS", "1"));
    assert_eq!(output.status.code(), Some(101), "{}", text(&output.stderr));
    for (words, status) in [(&["0"][..], 0), (&["3"], 3), (&["0", "reads"], 99), (&["3", "reads"], 3)] {
        let output = shaky.run(&[&["run", "--quiet", "--"], words].concat());
        assert_eq!(output.status.code(), Some(status), "{words:?}: {}", text(&output.stderr));
        let reads = text(&output.stderr).contains("in program shaky\n");
        assert_eq!(reads, words.len() == 2, "{words:?}: {}", text(&output.stderr));
    }
    for (words, part) in [
        (&["test", "--options", "mode=x"][..], "mode takes"),
        (&["test", "--options", "log_path=/tmp/x"], "log_path cannot be set"),
        (&["clean"], "invalid value 'clean'"),
    ] {
        let output = shaky.run(words);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(part), "{words:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_program_that_takes_no_library_is_not_passed_over() {
    let shaky = Crate::new("static");
    let triple = host();
    let mut command = shaky.command(&["run", "--quiet", "--target", &triple, "--", "0"]);
    let output = run(command.env("RUSTFLAGS", "-Ctarget-feature=+crt-static"));
    let report = text(&output.stderr);
    if report.contains("error: linking with") {
        skip("there is no static C library");
        return;
    }
    assert_eq!(output.status.code(), Some(125), "{report}");
    let line = report.lines().find(|line| line.starts_with("fencepost: not watched: "));
    let line = line.unwrap_or_else(|| panic!("{report}"));
    assert!(line.contains("/debug/shaky: is statically linked"), "{report}");
}

impl Scratch {
    fn write(&self, file: &str, content: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, content).unwrap();
    }
}
