//! Builds what the drivers measure, through the cargo that started them.

use crate::heap::{Heap, Preload, existing, program};
use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The benches' own directory in the source tree.
pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The target directory this driver was built in.
pub fn target() -> PathBuf {
    let fallback = || home().join("../target");
    let Ok(exe) = env::current_exe() else {
        return fallback();
    };
    exe.ancestors()
        .find(|path| path.ends_with("release") || path.ends_with("debug"))
        .and_then(Path::parent)
        .map_or_else(fallback, Path::to_path_buf)
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(home()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs a build; `Err` is the line of cargo's output that says why it failed.
fn build(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let output = cargo()
        .args(["build", "--release"])
        .args(arguments)
        .arg("--target-dir")
        .arg(target())
        .envs(environment.iter().copied())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.trim_start().starts_with("error")).unwrap_or("the build failed");
    Err(line.trim().to_owned())
}

/// `libfencepost.so`, built from the tree as it stands.
pub fn libfencepost() -> Result<PathBuf, String> {
    build(&["-p", "fencepost-ffi"], &[])?;
    let library = target().join("release/libfencepost.so");
    if library.exists() { Ok(library) } else { Err("the build left no libfencepost.so".to_owned()) }
}

/// `runner` with the allocator of `feature` in it; the empty feature is the system's.
pub fn runner(feature: &str) -> Result<PathBuf, String> {
    // Several peers' build scripts take any debug information in the profile for a wish to be built for debugging.
    let mut environment = vec![("CARGO_PROFILE_RELEASE_DEBUG", "false")];
    if feature == "heap-hardened-malloc" && env::var_os("CC").is_none() {
        // It is written in C23, which Debian 12's gcc does not know.
        if program("clang-19").is_none() {
            return Err("wants a C23 compiler: install clang-19, or set CC and CXX".to_owned());
        }
        environment.extend([("CC", "clang-19"), ("CXX", "clang++-19")]);
    }
    build(&["-p", "fencepost-benches", "--bin", "runner", "--features", feature], &environment)?;
    let kept = target().join("runners");
    let name = if feature.is_empty() { "plain" } else { feature };
    let path = kept.join(name);
    let copied = fs::create_dir_all(&kept).and_then(|()| {
        // A new file beside the old one, so that a copy that still runs does not refuse the write.
        let fresh = kept.join(format!("{name}.new"));
        fs::copy(target().join("release/runner"), &fresh)?;
        fs::rename(fresh, &path)
    });
    copied.map_err(|error| format!("cannot keep the runner: {error}"))?;
    Ok(path)
}

/// A peer that is not there is left out; a run without fencepost would say nothing.
pub fn insist(skipped: &[(String, String)]) -> Result<(), String> {
    match skipped.iter().find(|(name, _)| name.starts_with("fencepost")) {
        Some((name, reason)) => Err(format!("{name}: {reason}")),
        None => Ok(()),
    }
}

/// Everything built or found so far, so that three modes of one library build it once.
#[derive(Default)]
pub struct Shop {
    runners: HashMap<&'static str, Result<PathBuf, String>>,
    library: Option<Result<PathBuf, String>>,
}

impl Shop {
    /// The runner whose `GlobalAlloc` is `heap`; `None` where there is no such crate.
    pub fn runner(&mut self, heap: &Heap) -> Option<Result<PathBuf, String>> {
        let (feature, _) = heap.global?;
        Some(self.feature(feature))
    }

    /// The runner without any allocator of its own, for the C ABI.
    pub fn plain(&mut self) -> Result<PathBuf, String> {
        self.feature("")
    }

    fn feature(&mut self, feature: &'static str) -> Result<PathBuf, String> {
        self.runners
            .entry(feature)
            .or_insert_with(|| {
                eprintln!("building runner {feature}");
                runner(feature)
            })
            .clone()
    }

    /// The library to preload for `heap` (`None` for the libc); the outer `None` where it is not a preloaded one.
    pub fn preload(&mut self, heap: &Heap) -> Option<Result<Option<PathBuf>, String>> {
        match heap.preload {
            Preload::Libc => Some(Ok(None)),
            Preload::Fencepost => {
                let built = self.library.get_or_insert_with(|| {
                    eprintln!("building libfencepost.so");
                    libfencepost()
                });
                Some(built.clone().map(Some))
            }
            Preload::Debian { package, paths } => Some(
                existing(paths).map(Some).ok_or_else(|| format!("not installed (Debian package {package})")),
            ),
            Preload::None | Preload::Wrapper { .. } | Preload::Recompiled { .. } => None,
        }
    }
}
