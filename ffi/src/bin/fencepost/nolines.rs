//! What would give a module's code source lines.

use crate::printable;
use std::collections::HashMap;
use std::process::{Command, Stdio};

/// Debian's name for the debug information of a package.
const DEBUG: &str = "-dbgsym";

/// What was said of modules, each looked up once.
#[derive(Default)]
pub struct Advice {
    known: HashMap<String, String>,
}

impl Advice {
    /// A line about a module, as a report writes its path.
    pub fn of(&mut self, module: &str) -> &str {
        self.known.entry(module.to_owned()).or_insert_with(|| {
            let what = match package(module) {
                Some(package) => format!("install its debug information (Debian: {package}{DEBUG})"),
                None => "compile it with -g (cargo: CARGO_PROFILE_RELEASE_DEBUG=line-tables-only)".to_owned(),
            };
            format!("no line is known in {module}: {what}")
        })
    }
}

/// Debian's package that a file is from.
fn package(module: &str) -> Option<String> {
    let path = printable::path(module);
    let path = path.to_str().filter(|path| path.starts_with("/usr/") || path.starts_with("/lib"))?;
    // Where /lib is a link the package may name either.
    let other = path.strip_prefix("/usr").map_or_else(|| format!("/usr{path}"), str::to_owned);
    let mut command = Command::new("dpkg-query");
    command.args(["--search", path, &other]).stdin(Stdio::null()).stderr(Stdio::null());
    owner(&String::from_utf8(command.output().ok()?.stdout).ok()?)
}

/// The package in `package:architecture: path`.
fn owner(found: &str) -> Option<String> {
    let (packages, _) = found.lines().next()?.split_once(": ")?;
    let name = packages.split([',', ':']).next()?;
    (!name.is_empty() && !name.contains(' ')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_without_their_architecture() {
        assert_eq!(
            owner("libssl3:amd64: /usr/lib/x86_64-linux-gnu/libssl.so.3\n").as_deref(),
            Some("libssl3")
        );
        assert_eq!(owner("jq: /usr/bin/jq\n").as_deref(), Some("jq"));
        assert_eq!(owner("diversion by a from: /usr/bin/b\n"), None);
        assert_eq!(owner(""), None);
    }

    #[test]
    fn what_is_no_packages_is_compiled_again() {
        let mut advice = Advice::default();
        assert!(advice.of("/home/a/b").starts_with("no line is known in /home/a/b: compile it with -g "));
    }
}
