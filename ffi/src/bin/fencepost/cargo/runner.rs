//! The target's runner: the launcher, started by cargo in place of a program, becomes that program under the library.
//!
//! What it becomes it notes in a file of the directory that [`VARIABLE`] names, a line of JSON each: from a process
//! id the launcher that waits for cargo learns which binary a report is of, and which tests its arguments name.

use crate::collect;
use crate::failure::Failure;
use crate::launch;
use crate::library;
use crate::program;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// The hidden subcommand.
pub const COMMAND: &str = "__runner";
/// The variable that names the directory.
pub const VARIABLE: &str = "FENCEPOST_CARGO";

/// A program that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its process.
    pub pid: u64,
    /// Its file.
    pub binary: PathBuf,
    /// The one test that its arguments name.
    pub test: Option<String>,
    /// Why the library is not in it.
    pub obstacle: Option<String>,
}

/// Where the notes are.
pub fn notes(directory: &Path) -> PathBuf {
    directory.join("runs")
}

/// The runner as cargo reads it: words between blanks, which its own path must not hold.
pub fn words(directory: &Path) -> Result<String, Failure> {
    let own = library::own_path()?;
    let has_no_blank =
        |path: &Path| path.to_str().filter(|path| !path.contains(char::is_whitespace)).map(str::to_owned);
    let path = has_no_blank(&own).or_else(|| {
        let link = directory.join("fencepost");
        let _ = symlink(&own, &link);
        has_no_blank(&link)
    });
    let path = path.ok_or_else(|| {
        Failure::new(format!("{}: cargo takes no runner with a blank in its path", own.display()))
    })?;
    Ok(format!("{path} {COMMAND}"))
}

/// Becomes the program. Returns only what went wrong.
pub fn become_program(words: &[OsString]) -> Failure {
    let Some((name, arguments)) = words.split_first() else {
        return Failure::new("no program to run");
    };
    let found = program::resolve(name);
    let obstacle = found.as_deref().and_then(program::obstacle);
    // Lists of tests are of no interest: harnesses are asked for them before each run.
    let lists = arguments.iter().any(|word| word == "--list");
    let mut child = if lists {
        let mut child = std::process::Command::new(name);
        child.args(arguments);
        child
    } else {
        if let Some(directory) = env::var_os(VARIABLE) {
            note(Path::new(&directory), name, arguments, obstacle.as_deref());
        }
        match library::locate(None)
            .and_then(|library| launch::command(&library.path, &Settings::default(), words, true))
        {
            Ok((mut child, _)) => {
                if let Some(collector) = env::var_os(collect::VARIABLE) {
                    child.env(collect::VARIABLE, collector);
                }
                child
            }
            Err(failure) => return failure,
        }
    };
    launch::refusal(name, found.as_deref(), &child.exec())
}

/// Notes what this process becomes. That it cannot be noted costs a test its name and is no reason to stop.
fn note(directory: &Path, name: &OsString, arguments: &[OsString], obstacle: Option<&str>) {
    let line = json!({
        "pid": std::process::id(),
        "binary": name.to_string_lossy(),
        "test": exact(arguments),
        "obstacle": obstacle,
    });
    let file = OpenOptions::new().append(true).create(true).open(notes(directory));
    let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// The test that the arguments name, if it is one: `--exact NAME`.
fn exact(arguments: &[OsString]) -> Option<&str> {
    if !arguments.iter().any(|word| word == "--exact") {
        return None;
    }
    let mut names = arguments.iter().filter_map(|word| word.to_str()).filter(|word| !word.starts_with('-'));
    let first = names.next();
    first.filter(|_| names.next().is_none())
}

/// What a note says.
pub fn read(line: &str) -> Option<Run> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Run {
        pid: value.get("pid")?.as_u64()?,
        binary: PathBuf::from(text("binary")?),
        test: text("test"),
        obstacle: text("obstacle"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_a_test() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(exact(&words("--exact a::b --nocapture")), Some("a::b"));
        assert_eq!(exact(&words("a::b --exact")), Some("a::b"));
        for other in ["", "--exact", "a::b", "--exact a b"] {
            assert_eq!(exact(&words(other)), None, "{other}");
        }
    }

    #[test]
    fn notes_are_read_again() {
        let directory = env::temp_dir().join(format!("fencepost-notes-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        note(&directory, &"/a b/c".into(), &["--exact".into(), "x".into()], Some("why"));
        let text = std::fs::read_to_string(notes(&directory)).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let run = read(text.trim_end()).unwrap();
        assert_eq!(run.pid, u64::from(std::process::id()));
        assert_eq!((run.test.as_deref(), run.obstacle.as_deref()), (Some("x"), Some("why")));
        assert_eq!(run.binary, Path::new("/a b/c"));
    }
}
