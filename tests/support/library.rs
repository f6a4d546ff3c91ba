//! Builds `libfencepost.so` once a test run and says where it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library's path, built in release form at the first call.
///
/// # Panics
/// If the build fails: then there is nothing to test.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build)
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace).args(["build", "--release", "-p", "fencepost-ffi", "--lib"]);
    let output = cargo.output().unwrap_or_else(|error| panic!("cannot start {cargo:?}: {error}"));
    assert!(
        output.status.success(),
        "{cargo:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let library = workspace.join(target).join("release/libfencepost.so");
    assert!(library.is_file(), "{} was not built", library.display());
    library
}
