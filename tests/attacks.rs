//! What an attacker can still do under `harden`: the techniques of `attacks/attack.c`, each many times, and bounds on how often
//! one reaches its goal and how often a try is noticed.
//!
//! `FENCEPOST_ATTACKS=N` makes N tries of each and prints the table that stands in `tests/README.md`.

mod support;

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::process::{self, End};
use support::{compiler, library};

/// How many tries of each technique.
const TRIES_VARIABLE: &str = "FENCEPOST_ATTACKS";
const TRIES: u32 = 24;
const LIMIT: Duration = Duration::from_secs(600);

/// What must hold of a technique, in percent of the tries.
struct Row {
    name: &'static str,
    /// The most that reach the goal.
    goals: u32,
    /// The most that reach it and are never noticed.
    silent: u32,
    /// The fewest that are noticed.
    noticed: u32,
}

/// It never reaches its goal, and each try is noticed.
const fn stopped(name: &'static str) -> Row {
    Row { name, goals: 0, silent: 0, noticed: 100 }
}

/// It never reaches its goal, and does nothing that could be noticed.
const fn in_vain(name: &'static str) -> Row {
    Row { name, goals: 0, silent: 0, noticed: 0 }
}

/// It reaches its goal, and each try is noticed.
const fn noticed(name: &'static str, goals: u32) -> Row {
    Row { name, goals, silent: 0, noticed: 100 }
}

/// It reaches its goal, and nobody notices.
const fn open(name: &'static str, goals: u32) -> Row {
    Row { name, goals, silent: goals, noticed: 0 }
}

/// Techniques whose chance is a few in a hundred have room for the luck of few tries.
const ROWS: &[Row] = &[
    noticed("overflow_one_victim", 30),
    noticed("overflow_after_spray", 100),
    stopped("overflow_by_a_word"),
    stopped("overflow_of_a_page"),
    stopped("overflow_without_end"),
    noticed("underflow", 100),
    open("overflow_with_own_canary", 100),
    stopped("overflow_with_a_leaked_canary"),
    stopped("double_free_at_once"),
    stopped("double_free_with_one_between"),
    stopped("double_free_after_many"),
    open("double_free_after_reuse", 100),
    stopped("double_free_of_large"),
    stopped("double_free_by_threads"),
    in_vain("reuse_next"),
    in_vain("reuse_in_100"),
    in_vain("reuse_in_1000_kept"),
    in_vain("reuse_in_1000_freed"),
    open("reuse_in_10000_freed", 100),
    in_vain("reuse_by_another_size"),
    open("reuse_of_1_kib", 100),
    in_vain("reuse_of_large"),
    in_vain("reuse_by_a_thread"),
    stopped("stale_write"),
    stopped("stale_write_of_large"),
    stopped("fake_in_globals"),
    stopped("fake_on_stack"),
    stopped("fake_inside_an_object"),
    stopped("fake_inside_a_large_object"),
    stopped("fake_in_a_mapping"),
    stopped("realloc_of_a_freed"),
    stopped("realloc_of_an_inner_pointer"),
    noticed("realloc_shrinks", 100),
    stopped("realloc_moves"),
    open("partial_byte", 30),
    open("partial_two_bytes", 30),
    open("partial_two_bytes_one_object", 10),
    open("partial_two_bytes_known", 40),
    open("guess_next", 20),
    open("guess_other_size", 10),
    open("guess_large", 30),
];

/// What a technique's tries came to.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    tries: u32,
    goals: u32,
    silent: u32,
    noticed: u32,
}

fn program() -> Option<std::path::PathBuf> {
    compiler::program(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/attack.c"), "-O1")
}

/// Without a library the C library's own allocator is attacked. `None` without a compiler.
fn attack(name: &str, library: Option<&Path>, tries: u32) -> Option<Outcome> {
    let mut command = process::command(program()?, library, "mode=harden");
    let run = process::run(command.args([name, &tries.to_string()]), LIMIT);
    let said = run.stdout.trim().to_owned();
    assert_eq!(run.end, End::Status(0), "{name}: {said}{}", run.stderr);
    let numbers: Vec<u32> = said.split(' ').map(|word| word.parse().expect("a number")).collect();
    let [tries, goals, silent, noticed] = numbers[..] else { panic!("{name}: {said}") };
    Some(Outcome { tries, goals, silent, noticed })
}

/// The techniques and their goals, as the program lists them.
fn goals() -> Option<Vec<(String, String)>> {
    let run = process::run(process::command(program()?, None, "").arg("list"), LIMIT);
    let line = |line: &str| line.split_once(": ").map(|(name, goal)| (name.to_owned(), goal.to_owned()));
    Some(run.stdout.lines().filter_map(line).collect())
}

#[test]
fn techniques_stay_within_their_bounds() {
    let Some(goals) = goals() else { return };
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(goals.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
    let asked = env::var(TRIES_VARIABLE).ok().map(|text| text.parse().expect("a number"));
    let mut failures = Vec::new();
    for (row, (name, goal)) in ROWS.iter().zip(&goals) {
        let Some(outcome) = attack(name, Some(library::path()), asked.unwrap_or(TRIES)) else { return };
        let Outcome { tries, goals, silent, noticed } = outcome;
        let percent = |count: u32| f64::from(count) * 100.0 / f64::from(tries);
        if asked.is_some() {
            let (goals, silent, noticed) = (percent(goals), percent(silent), percent(noticed));
            println!("| {goal} | {goals:.1} % | {silent:.1} % | {noticed:.1} % |");
        }
        // What may look like the value that is there already, one in some hundred, is not told from it.
        let few = 100 - 100 / tries.max(1) - 1;
        let good = percent(goals) <= f64::from(row.goals)
            && percent(silent) <= f64::from(row.silent)
            && percent(noticed) >= f64::from(row.noticed.min(few));
        if !good {
            failures.push(format!("{name}: {outcome:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The techniques work where nothing stops them: on the C library's own allocator.
#[test]
fn techniques_reach_their_goals_elsewhere() {
    for name in [
        "overflow_after_spray",
        "overflow_with_own_canary",
        "reuse_next",
        "stale_write",
        "realloc_of_a_freed",
    ] {
        let Some(outcome) = attack(name, None, 3) else { return };
        assert!(outcome.goals > 0, "{name}: {outcome:?}");
    }
}

/// The table of the document has a row for each technique.
#[test]
fn the_table_is_complete() {
    let Some(goals) = goals() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md");
    let text = fs::read_to_string(path).expect("the document is in the source tree");
    for (_, goal) in goals {
        assert!(text.contains(&format!("| {goal} |")), "{goal}");
    }
}
