//! Documents against what they speak of: the report in the README, its figures, the table of options, links, and each command
//! of the cookbook.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{LAUNCHER, Scratch, bare_launcher, run, skip, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What stands between two comments.
fn between(text: &str, name: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name}"), format!("<!-- end {name} -->"));
    let rest = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}")).1;
    let rest = rest.split_once("-->\n").unwrap().1;
    rest.split_once(&end).unwrap_or_else(|| panic!("no {end}")).0.to_owned()
}

#[test]
fn the_readme_is_short_and_has_its_commands() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 200, "{lines} lines");
    for command in ["cargo run --release -p fencepost-ffi -- demo", "cargo test --workspace"] {
        assert!(readme.lines().any(|line| line == command), "{command}");
    }
}

#[test]
fn the_table_of_options_is_the_launchers() {
    let written = between(&read("ffi/OPTIONS.md"), "options");
    let listed = text(&run(Command::new(LAUNCHER).args(["options", "--markdown"])).stdout);
    assert_eq!(written, listed, "left: OPTIONS.md, right: fencepost options --markdown");
}

/// The program of the README's report.
const BUG: &str = "\
#include <stdlib.h>

static void fill(char *place, int count)
{
    for (int i = 0; i <= count; i++)
        place[i] = 'x';
}

int main(void)
{
    char *place = malloc(16);
    fill(place, 16);
    free(place);
    return 0;
}
";

/// Numbers that differ from run to run, and paths, made alike.
fn masked(report: &str, directory: &str) -> Vec<String> {
    let mask = |line: &str| {
        let line = line.replace(directory, "/tmp");
        let mut out = String::new();
        let mut rest = line.as_str();
        while let Some(first) = rest.chars().next() {
            let digits = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
            let number = |prefix: &str| rest.strip_prefix(prefix).map(digits).filter(|count| *count >= 3);
            let known =
                ["0x", "==", "thread T", "seed=", "BuildId: "].iter().find_map(|p| Some((p, number(p)?)));
            if let Some((prefix, count)) = known {
                out.push_str(prefix);
                out.push('N');
                rest = &rest[prefix.len() + count..];
            } else {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        out.trim_end().to_owned()
    };
    report.lines().map(mask).collect()
}

#[test]
fn the_report_in_the_readme_is_a_real_one() {
    if Command::new("gcc").arg("--version").output().is_err() {
        return skip("there is no gcc");
    }
    let scratch = Scratch::new("readme");
    fs::write(scratch.0.join("bug.c"), BUG).unwrap();
    let source = scratch.0.join("bug.c");
    let mut gcc = Command::new("gcc");
    let built =
        run(gcc.arg("-g").arg(&source).arg("-o").arg(scratch.0.join("bug")).arg("-Wl,--build-id=none"));
    assert!(built.status.success(), "{}", text(&built.stderr));
    let mut command = bare_launcher();
    command.current_dir(&scratch.0).args(["hunt", "--color", "never", "--", "./bug"]);
    let real = text(&run(&mut command).stderr);
    let shown = between(&read("README.md"), "report");
    let shown = shown.trim().trim_start_matches("```").trim_end_matches("```").trim();
    let directory = scratch.0.display().to_string();
    let (left, right) = (masked(shown, &directory), masked(real.trim(), &directory));
    assert_eq!(left, right, "left: README.md, right: this run:\n{real}");
}

/// Each figure is the one of the table that is made of the record that the README names, unless there is a newer one.
#[test]
fn the_figures_have_their_records() {
    let (readme, benches) = (read("README.md"), read("benches/README.md"));
    let figures = between(&readme, "figures");
    for set in ["apps-speed", "apps-hunt"] {
        let record = readme
            .split('`')
            .find(|word| word.ends_with(&format!("-{set}.csv")))
            .unwrap_or_else(|| panic!("no record of {set}"));
        assert!(root().join("benches/record").join(record).is_file(), "{record}");
    }
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches(|c| c == '|' || c == ' ').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut compared = 0;
    for (set, is_hunt) in [("apps-speed", false), ("apps-hunt", true)] {
        let section = between(&benches, set);
        let newest = section.split('`').nth(1).unwrap();
        if !readme.contains(newest) {
            continue;
        }
        let rows = |part: &str| -> Vec<Vec<String>> {
            let part = section.split_once(part).unwrap().1.split("\n\n").nth(1).unwrap();
            part.lines().map(cells).collect()
        };
        let (time, memory) = (rows("CPU time, median"), rows("Peak resident size:"));
        let table = figures.split("\n\n").find(|table| table.contains("bug hunters") == is_hunt).unwrap();
        for row in table.trim().lines().skip(2).map(cells) {
            let find = |rows: &[Vec<String>]| rows.iter().find(|cells| cells[0] == row[0]).unwrap().clone();
            let (time, memory) = (find(&time), find(&memory));
            let expected = [&row[0], &time[time.len() - 2], &memory[memory.len() - 2], &time[time.len() - 1]];
            assert_eq!(row.iter().collect::<Vec<_>>(), expected, "{set}");
            compared += 1;
        }
    }
    assert!(compared > 0 || !benches.contains("2026-11-28"), "nothing was compared");
}

#[test]
fn links_lead_somewhere() {
    for file in [
        "README.md",
        "ffi/README.md",
        "ffi/REPORTS.md",
        "ffi/OPTIONS.md",
        "ffi/SERVICES.md",
        "ffi/COOKBOOK.md",
    ] {
        let text = read(file);
        let home = root().join(file).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.starts_with("http") {
                continue;
            }
            let target = if path.is_empty() { root().join(file) } else { home.join(path) };
            assert!(target.exists(), "{file}: {link}");
            if !anchor.is_empty() {
                let as_anchor = |line: &str| {
                    let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                    title
                        .chars()
                        .filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_')
                        .collect::<String>()
                };
                let target = fs::read_to_string(&target).unwrap();
                let found =
                    target.lines().filter(|line| line.starts_with('#')).any(|line| as_anchor(line) == anchor);
                assert!(found, "{file}: {link}");
            }
        }
    }
}

/// Each command of the documents and of the workflow is one that the launcher takes, and that runs a correct program.
#[test]
fn commands_of_the_documents_run() {
    let scratch = Scratch::new("cookbook");
    let program = scratch.0.join("prog");
    fs::copy("/bin/true", &program).unwrap();
    fs::copy("/bin/true", scratch.0.join("tests")).unwrap();
    let texts = [
        read("README.md"),
        read("ffi/REPORTS.md"),
        read("ffi/COOKBOOK.md"),
        read(".github/examples/heap-bugs.yml"),
        read(".github/examples/tasks.json"),
    ];
    let mut ran = 0;
    for line in texts.iter().flat_map(|text| text.lines()) {
        // What stands behind a command in its block is said of it.
        let line = line.split("  #").next().unwrap_or(line);
        let begins = ["run --", "run  --", "hunt --", "oom --", "doctor ./"];
        let Some(at) = begins.iter().find_map(|begin| line.find(&format!("fencepost {begin}"))) else {
            continue;
        };
        if line.contains('`')
            || line.contains("rr record") && Command::new("rr").arg("--version").output().is_err()
        {
            continue;
        }
        let words = line[at..].trim_end_matches(['"', ',']).replace("${workspaceFolder}", ".");
        let mut command = bare_launcher();
        let output = run(command.current_dir(&scratch.0).args(words.split_whitespace().skip(1)));
        // Many runs have something to say in the end, and a look at the machine, too.
        let tells = ["--passes", " oom ", " doctor "].iter().any(|what| words.contains(what));
        let said = text(&output.stderr);
        assert!(output.status.success() && (said.is_empty() || tells), "{words}: {said}");
        ran += 1;
    }
    assert!(ran >= 12, "{ran}");
}

/// The problem matcher of the examples finds kind, file and line in a summary.
#[test]
fn the_problem_matcher_reads_a_summary() {
    let tasks: serde_json::Value = serde_json::from_str(&read(".github/examples/tasks.json")).unwrap();
    let pattern = &tasks["tasks"][0]["problemMatcher"]["pattern"];
    let expression = pattern["regexp"].as_str().unwrap();
    let Some(program) = support::bugs("-O0") else { return };
    let report = text(&support::commit(&program, "heap-buffer-overflow", &[]).stderr);
    let summary = report.lines().find(|line| line.starts_with("SUMMARY: ")).unwrap();
    let scratch = Scratch::new("matcher");
    fs::write(scratch.0.join("summary"), summary).unwrap();
    let mut sed = Command::new("sed");
    // The same expression in the words of sed.
    let expression = expression.replace("(?:", "(").replace("\\d", "[0-9]").replace('#', "\\#");
    let script = format!("s#{expression}#\\1|\\2|\\3#;t;d");
    let found = text(&run(sed.args(["-E", &script]).arg(scratch.0.join("summary"))).stdout);
    let parts: Vec<&str> = found.trim().split('|').collect();
    assert!(
        matches!(parts.as_slice(), ["heap-buffer-overflow", file, line]
        if file.ends_with("bugs.cc") && line.parse::<u32>().is_ok()),
        "{found} of {summary}"
    );
}
