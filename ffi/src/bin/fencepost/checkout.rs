//! Builds the library where a developer runs the launcher from a source checkout.
//!
//! Cargo builds a package's binary without its cdylib, so `cargo run -p fencepost-ffi` leaves a
//! launcher with no library beside it. Only a launcher in a target directory that cargo made, whose
//! checkout still exists, builds anything: an installed one never does.

use crate::complain;
use crate::failure::Failure;
use crate::library::FILE;
use serde_json::Value;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of the package that this launcher was compiled from.
const PACKAGE_DIR: &str = env!("CARGO_MANIFEST_DIR");
/// The name of that package.
const PACKAGE: &str = env!("CARGO_PKG_NAME");

/// A target directory of cargo, and the target triple if one was asked for.
#[derive(Debug, PartialEq, Eq)]
struct TargetDir {
    path: PathBuf,
    triple: Option<OsString>,
}

/// Builds the library into the target directory that holds `launcher` and returns its path; `None` if
/// the launcher does not lie in one, or its checkout is gone.
pub fn build(launcher: &Path) -> Result<Option<PathBuf>, Failure> {
    let Some(target) = target_dir(launcher).filter(|_| holds_package(Path::new(PACKAGE_DIR))) else {
        return Ok(None);
    };
    run(Command::new(cargo()), Some(&target))
}

fn run(mut command: Command, target: Option<&TargetDir>) -> Result<Option<PathBuf>, Failure> {
    command.args(["build", "--release", "--quiet", "--lib", "--package", PACKAGE]);
    command.arg("--message-format=json-render-diagnostics");
    if let Some(target) = target {
        command.arg("--target-dir").arg(&target.path);
        if let Some(triple) = &target.triple {
            command.arg("--target").arg(triple);
        }
    }
    command.current_dir(PACKAGE_DIR).stdin(Stdio::null()).stderr(Stdio::inherit());
    complain(&format!("building {FILE} (cargo build --release -p {PACKAGE} --lib)"));
    let output = command.output().map_err(|error| {
        Failure::new(format!("cannot run {} to build {FILE}: {error}", cargo().display()))
    })?;
    if !output.status.success() {
        return Err(Failure::new(format!("building {FILE} failed: cargo: {}", output.status)));
    }
    match artifact(&String::from_utf8_lossy(&output.stdout)) {
        Some(path) => Ok(Some(path)),
        None => Err(Failure::new(format!("cargo built no {FILE}"))),
    }
}

/// Builds the library in the checkout that this launcher was compiled from, wherever the launcher lies now, and returns its
/// path; `None` if the checkout is gone. For who asks to install it.
pub fn build_here() -> Result<Option<PathBuf>, Failure> {
    if !holds_package(Path::new(PACKAGE_DIR)) {
        return Ok(None);
    }
    run(Command::new(cargo()), None)
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The path of the library in cargo's messages, one JSON object a line.
fn artifact(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.ends_with(FILE) && path.is_file())
}

/// The target directory around `target/[triple/]profile/launcher`.
fn target_dir(launcher: &Path) -> Option<TargetDir> {
    let inner = launcher.parent()?.parent().filter(|dir| is_cargos(dir))?;
    let triple = inner.file_name().filter(|name| {
        name.to_str().is_some_and(|name| name.starts_with(&format!("{}-", env::consts::ARCH)))
    });
    match (triple, inner.parent().filter(|dir| is_cargos(dir))) {
        (Some(triple), Some(outer)) => {
            Some(TargetDir { path: outer.to_path_buf(), triple: Some(triple.to_os_string()) })
        }
        _ => Some(TargetDir { path: inner.to_path_buf(), triple: None }),
    }
}

/// Whether cargo made this directory for build products: it tags them.
fn is_cargos(dir: &Path) -> bool {
    fs::read_to_string(dir.join("CACHEDIR.TAG")).is_ok_and(|tag| tag.contains("created by cargo"))
}

/// Whether `dir` holds the package.
fn holds_package(dir: &Path) -> bool {
    fs::read_to_string(dir.join("Cargo.toml"))
        .is_ok_and(|manifest| manifest.lines().any(|line| line.trim() == format!("name = \"{PACKAGE}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artifact_is_the_shared_library() {
        let file = env::temp_dir().join(format!("fencepost-artifact-{}", std::process::id())).join(FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        let shown = file.display();
        let messages = format!(
            "{{\"reason\":\"build-script-executed\"}}\nnot json\n\
             {{\"reason\":\"compiler-artifact\",\"filenames\":[\"/x/libfencepost.a\",\"{shown}\"]}}\n"
        );
        assert_eq!(artifact(&messages).as_deref(), Some(file.as_path()));
        assert_eq!(artifact("{\"reason\":\"build-finished\"}"), None);
        fs::remove_dir_all(file.parent().unwrap()).unwrap();
    }

    #[test]
    fn only_tagged_directories_are_target_directories() {
        let root = env::temp_dir().join(format!("fencepost-target-{}", std::process::id()));
        let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        let inner = root.join(&triple);
        fs::create_dir_all(inner.join("release")).unwrap();
        let launcher = inner.join("release/fencepost");
        assert_eq!(target_dir(&launcher), None);
        for dir in [&root, &inner] {
            fs::write(dir.join("CACHEDIR.TAG"), "# created by cargo.\n").unwrap();
        }
        let plain = TargetDir { path: root.clone(), triple: None };
        assert_eq!(target_dir(&root.join("debug/fencepost")), Some(plain));
        let crossed = TargetDir { path: root.clone(), triple: Some(triple.into()) };
        assert_eq!(target_dir(&launcher), Some(crossed));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn this_checkout_holds_the_package() {
        assert!(holds_package(Path::new(PACKAGE_DIR)));
        assert!(!holds_package(Path::new("/")));
    }
}
