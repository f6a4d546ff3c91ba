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

/// Runs a build into `directory`; `Err` is the line of cargo's output that says why it failed.
fn build(arguments: &[&str], environment: &[(&str, &str)], directory: &Path) -> Result<(), String> {
    let output = cargo()
        .args(["build", "--release"])
        .args(arguments)
        .arg("--target-dir")
        .arg(directory)
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
    build(&["-p", "fencepost-ffi"], &[], &target())?;
    let library = target().join("release/libfencepost.so");
    if library.exists() { Ok(library) } else { Err("the build left no libfencepost.so".to_owned()) }
}

/// The environment that the build of a peer wants, or what is not installed.
fn environment(peer: &str) -> Result<Vec<(&'static str, &'static str)>, String> {
    // Several peers' build scripts take any debug information in the profile for a wish to be built for debugging.
    let mut environment = vec![("CARGO_PROFILE_RELEASE_DEBUG", "false")];
    if peer.starts_with("snmalloc") && program("cmake").is_none() {
        return Err("wants cmake".to_owned());
    }
    if peer.starts_with("hardened-malloc") && env::var_os("CC").is_none() {
        // It is written in C23, which Debian 12's gcc does not know.
        if program("clang-19").is_none() {
            return Err("wants a C23 compiler: install clang-19, or set CC and CXX".to_owned());
        }
        environment.extend([("CC", "clang-19"), ("CXX", "clang++-19")]);
    }
    Ok(environment)
}

/// Copies what a build left, so that the next build does not replace it.
fn keep(built: &Path, kept: &Path) -> Result<PathBuf, String> {
    // A new file beside the old one, so that a copy that still runs does not refuse the write.
    let fresh = kept.with_extension("new");
    let directory = kept.parent().unwrap_or(kept);
    fs::create_dir_all(directory)
        .and_then(|()| fs::copy(built, &fresh))
        .and_then(|_| fs::rename(&fresh, kept))
        .map_err(|error| format!("cannot keep {}: {error}", built.display()))?;
    Ok(kept.to_owned())
}

/// `runner` with the allocator of `feature` in it; the empty feature is the system's.
pub fn runner(feature: &str) -> Result<PathBuf, String> {
    let environment = environment(feature.trim_start_matches("heap-"))?;
    build(&["-p", "fencepost-benches", "--bin", "runner", "--features", feature], &environment, &target())?;
    let name = if feature.is_empty() { "plain" } else { feature };
    keep(&target().join("release/runner"), &target().join("runners").join(name))
}

/// The peer's crate as a library to preload.
fn peer(feature: &str) -> Result<PathBuf, String> {
    let mut environment = environment(feature)?;
    match feature {
        // Its functions get the names that the library forwards to.
        name if name.starts_with("hardened-malloc") => environment.push(("CFLAGS", "-DH_MALLOC_PREFIX")),
        // It throws nothing, and a program in C should load no C++ library for it.
        name if name.starts_with("snmalloc") => environment.push(("CXXFLAGS", "-fno-exceptions")),
        _ => {}
    }
    // Apart from the runners, which are built with other flags.
    let directory = target().join("peers");
    build(&["-p", "fencepost-benches-preload", "--features", feature], &environment, &directory)?;
    keep(&directory.join("release/libpreload.so"), &directory.join(format!("lib{feature}.so")))
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
    peers: HashMap<&'static str, Result<PathBuf, String>>,
    serving: HashMap<PathBuf, Result<(), String>>,
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
        let found = match heap.preload {
            Preload::Libc => return Some(Ok(None)),
            Preload::None | Preload::Wrapper { .. } | Preload::Recompiled { .. } => return None,
            Preload::Fencepost => {
                let built = self.library.get_or_insert_with(|| {
                    eprintln!("building libfencepost.so");
                    libfencepost()
                });
                built.clone()
            }
            Preload::Crate(feature) => {
                let built = self.peers.entry(feature).or_insert_with(|| {
                    eprintln!("building the library of {feature}");
                    peer(feature)
                });
                built.clone()
            }
            Preload::Debian { package, paths } => {
                existing(paths).ok_or_else(|| format!("not installed (Debian package {package})"))
            }
        };
        Some(found.and_then(|library| {
            self.serves(&library, heap.env)?;
            Ok(Some(library))
        }))
    }

    /// Whether a process that preloads `library` has its memory from it.
    pub fn serves(&mut self, library: &Path, env: &[(&str, &str)]) -> Result<(), String> {
        let plain = self.plain()?;
        let check = || {
            let mut command = Command::new(plain);
            command.arg("serves").arg(library).stdin(Stdio::null());
            command.env_remove("FENCEPOST_OPTIONS").envs(env.iter().copied()).env("LD_PRELOAD", library);
            let output = command.output().map_err(|error| error.to_string())?;
            if output.status.success() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&output.stderr);
            let why = text.lines().last().map_or_else(|| output.status.to_string(), str::to_owned);
            Err(format!("does not serve malloc: {why}"))
        };
        self.serving.entry(library.to_owned()).or_insert_with(check).clone()
    }
}
