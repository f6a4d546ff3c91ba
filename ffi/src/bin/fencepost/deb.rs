//! `fencepost install --deb FILE`: an installation as a Debian package, by `dpkg-deb`, which every Debian has.

use crate::failure::Failure;
use crate::install::{LIST, trouble};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By the names of Rust and of Debian.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "amd64"), ("aarch64", "arm64")];

const COPYRIGHT: &str = concat!(
    "fencepost, ",
    env!("CARGO_PKG_REPOSITORY"),
    "\n\nCopyright: The fencepost authors\nLicense: ",
    env!("CARGO_PKG_LICENSE"),
    "\n\nThe Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0. The other one is this:\n\n",
    include_str!("../../../../LICENSE-MIT"),
);

/// Writes the package of what `install` puts below a directory; how many files it has.
pub fn build(
    package: &Path,
    install: impl FnOnce(&Path) -> Result<usize, Failure>,
) -> Result<usize, Failure> {
    let stage = Stage::new()?;
    let files = install(&stage.0)?;
    // dpkg keeps a list of its own, in which this one would be.
    for list in find(&stage.0, &|path| path.ends_with(LIST))? {
        fs::remove_file(&list).map_err(|error| trouble("remove", &list, &error))?;
    }
    write(&stage.0.join("usr/share/doc/fencepost/copyright"), COPYRIGHT)?;
    let files_in_it = find(&stage.0, &|path| path.is_file())?;
    let size = files_in_it.iter().filter_map(|path| path.metadata().ok());
    let kibibytes = size.map(|file| file.len().div_ceil(1024)).sum::<u64>();
    write(&stage.0.join("DEBIAN/control"), &control(kibibytes))?;
    // Whatever the mask of the user who packs.
    for directory in find(&stage.0, &|path| path.is_dir())?.iter().chain([&stage.0]) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
            .map_err(|error| trouble("change the mode of", directory, &error))?;
    }
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "--build"]).arg(&stage.0).arg(package);
    match command.output() {
        Ok(output) if output.status.success() => Ok(files),
        Ok(output) => {
            Err(Failure::new(format!("dpkg-deb: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
        }
        Err(error) => Err(Failure::new(format!("cannot run dpkg-deb: {error}"))),
    }
}

fn control(kibibytes: u64) -> String {
    let own = std::env::consts::ARCH;
    let architecture = ARCHITECTURES.iter().find(|(name, _)| *name == own).map_or(own, |(_, debian)| debian);
    format!(
        "Package: fencepost\nVersion: {}\nArchitecture: {architecture}\nMaintainer: The fencepost authors <fencepost@localhost>\n\
         Installed-Size: {kibibytes}\nDepends: libc6 (>= 2.34)\nSuggests: gdb, valgrind\nSection: devel\nPriority: optional\n\
         Homepage: {}\nDescription: memory allocator that stops heap bugs at the instruction\n \
         A library to be preloaded under programs as they are, and a launcher that gives its\n \
         reports source lines. Small objects lie in randomised slabs, large ones between guard\n \
         pages; a mode for bug hunting puts every object between guard pages.\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory).map_err(|error| trouble("make", directory, &error))?;
    fs::write(path, text).map_err(|error| trouble("write", path, &error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(|error| trouble("change the mode of", path, &error))
}

/// All below a directory that `wanted` wants.
fn find(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(&directory).map_err(|error| trouble("read", &directory, &error))?;
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if path.is_dir() && !path.is_symlink() {
                left.push(path.clone());
            }
            if wanted(&path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// A directory that goes away.
struct Stage(PathBuf);

impl Stage {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("fencepost-package-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| trouble("make", &path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
