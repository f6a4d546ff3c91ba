//! For which targets cargo is to use the launcher as the runner, and which runners the user has for them.
//!
//! A variable of the environment wins over `target.TRIPLE.runner` and `target.'cfg(…)'.runner` of cargo's
//! configuration. So what these say is put before the launcher: `USERS-RUNNER fencepost __runner PROGRAM`.

use crate::complain;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

/// The variables to set, for the host and for each target that is named.
pub fn runners(command: &[OsString], own: &str) -> Vec<(String, String)> {
    let files = configurations();
    let mut triples = named(command);
    triples.extend(env::var("CARGO_BUILD_TARGET").ok());
    triples.extend(files.iter().flat_map(build_targets));
    triples.extend(host());
    triples.sort();
    triples.dedup();
    triples.retain(|triple| !triple.ends_with(".json"));
    triples
        .into_iter()
        .map(|triple| {
            let variable = variable(&triple);
            let users =
                env::var(&variable).ok().or_else(|| files.iter().find_map(|file| runner(file, &triple)));
            (variable, users.map_or_else(|| own.to_owned(), |users| format!("{} {own}", users.trim())))
        })
        .collect()
}

fn variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", triple.to_uppercase().replace(['-', '.'], "_"))
}

/// The targets on cargo's command line.
fn named(command: &[OsString]) -> Vec<String> {
    let mut named = Vec::new();
    let mut words = command.iter().take_while(|word| *word != "--").filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if let Some(triple) = word.strip_prefix("--target=") {
            named.push(triple.to_owned());
        } else if word == "--target" {
            named.extend(words.next().map(str::to_owned));
        }
    }
    named
}

/// The target of this machine.
fn host() -> Option<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// Cargo's configuration files, the nearest first.
fn configurations() -> Vec<Table> {
    let here = env::current_dir().unwrap_or_default();
    let mut directories: Vec<PathBuf> = here.ancestors().map(|directory| directory.join(".cargo")).collect();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    directories.extend(home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"))));
    let mut tables = Vec::new();
    for directory in directories {
        let text =
            ["config", "config.toml"].iter().find_map(|name| fs::read_to_string(directory.join(name)).ok());
        tables.extend(text.and_then(|text| text.parse::<Table>().ok()));
    }
    tables
}

fn build_targets(file: &Table) -> Vec<String> {
    match file.get("build").and_then(|build| build.get("target")) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// What a file says of the runner of a target. A runner whose words hold blanks cannot be told to cargo by a variable.
fn runner(file: &Table, triple: &str) -> Option<String> {
    let targets = file.get("target")?.as_table()?;
    let of = |value: &Value| match value.get("runner")? {
        Value::String(words) => Some(words.clone()),
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            if words.iter().any(|word| word.contains(char::is_whitespace)) {
                complain("warning: the target's runner has words with blanks: it is not used");
                return None;
            }
            Some(words.join(" "))
        }
        _ => None,
    };
    if let Some(found) = targets.get(triple).and_then(of) {
        return Some(found);
    }
    // Which expression holds, cargo knows.
    let (expression, _) =
        targets.iter().find(|(name, value)| name.starts_with("cfg(") && of(value).is_some())?;
    complain(&format!(
        "warning: the runner of target.'{expression}' is not used; name it in {} to have it started first",
        variable(triple)
    ));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_runner_is_found() {
        let file: Table = "[build]\ntarget = ['a-b', 'c']\n[target.a-b]\nrunner = ['sudo', '-E']\n\
                           [target.c]\nrunner = 'env A=1'\n[target.d]\nrunner = ['a b']"
            .parse()
            .unwrap();
        assert_eq!(build_targets(&file), ["a-b", "c"]);
        assert_eq!(runner(&file, "a-b").as_deref(), Some("sudo -E"));
        assert_eq!(runner(&file, "c").as_deref(), Some("env A=1"));
        assert_eq!(runner(&file, "d"), None);
        assert_eq!(variable("x86_64-unknown-linux-gnu"), "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER");
    }

    #[test]
    fn targets_are_named_before_the_dashes() {
        let words: Vec<OsString> =
            "test --target a --target=b -- --target c".split(' ').map(OsString::from).collect();
        assert_eq!(named(&words), ["a", "b"]);
    }
}
