//! Where `libfencepost.so` is.
//!
//! In this order: `--lib`, `FENCEPOST_LIB`, beside the launcher, `../lib/` and `../lib/fencepost/` from
//! it, and last, for a launcher that lies in the target directory of its own source checkout, a build.
//! What is named explicitly and does not exist is an error: silently using another library would be
//! worse than none.

use crate::checkout;
use crate::failure::Failure;
use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};

/// The file name of the library.
pub const FILE: &str = "libfencepost.so";
/// The variable that names the library.
pub const VARIABLE: &str = "FENCEPOST_LIB";
/// Where it is looked for, from the directory of the launcher.
const PLACES: &[&str] = &["", "../lib", "../lib/fencepost"];

/// A library and who named it.
pub struct Library {
    /// An absolute path.
    pub path: PathBuf,
    /// How it was found, for `doctor`.
    pub source: &'static str,
}

/// Finds the library; `flag` is what `--lib` says.
pub fn locate(flag: Option<&Path>) -> Result<Library, Failure> {
    if let Some(path) = flag {
        return named(path, "--lib");
    }
    if let Some(path) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return named(Path::new(&path), VARIABLE);
    }
    let launcher = own_path()?;
    let home = launcher.parent().unwrap_or(Path::new("/"));
    for place in PLACES {
        let candidate = home.join(place).join(FILE);
        if candidate.is_file() {
            let path = candidate.canonicalize().unwrap_or(candidate);
            return preloadable(path, "beside the launcher");
        }
    }
    match checkout::build(&launcher)? {
        Some(path) => preloadable(path, "built from this checkout"),
        None => Err(Failure::new(format!(
            "{FILE} was not found beside {}, nor in ../lib or ../lib/fencepost from there; \
             name it with --lib PATH or {VARIABLE}",
            launcher.display()
        ))),
    }
}

/// The path of this executable.
pub fn own_path() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|error| {
        Failure::new(format!("cannot tell where the launcher itself is (/proc/self/exe): {error}"))
    })
}

fn named(name: &Path, source: &'static str) -> Result<Library, Failure> {
    if !name.is_file() {
        let problem = if name.exists() { "is not a file" } else { "does not exist" };
        return Err(Failure::new(format!("{source}: {} {problem}", name.display())));
    }
    let path = path::absolute(name)
        .map_err(|error| Failure::new(format!("{source}: {}: {error}", name.display())))?;
    preloadable(path, source)
}

/// The loader splits `LD_PRELOAD` at colons and blanks, and knows no way to quote them.
fn preloadable(path: PathBuf, source: &'static str) -> Result<Library, Failure> {
    if path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b' ' | b'$')) {
        return Err(Failure::new(format!(
            "{}: LD_PRELOAD cannot carry a path with a colon, a blank or a dollar sign; \
             reach the library through a link",
            path.display()
        )));
    }
    Ok(Library { path, source })
}

/// The value for `LD_PRELOAD`: the library, then what was there.
pub fn preload_list(library: &Path, existing: Option<&OsStr>) -> std::ffi::OsString {
    let mut list = library.as_os_str().to_os_string();
    if let Some(rest) = existing.filter(|rest| !rest.is_empty()) {
        list.push(":");
        list.push(rest);
    }
    list
}
