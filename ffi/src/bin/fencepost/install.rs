//! `fencepost install`: the launcher, the library and what belongs to them below a prefix, and away again.
//!
//! Every file is written beside its place and renamed into it: programs that run under an older library keep the file they
//! have mapped. A list of what was made, `lib/fencepost/files`, lies below the prefix; directories that were not there
//! before end in a slash. `--uninstall` goes by that list, and so does a later installation, which removes what it no
//! longer has. A Debian package has its own list: see [`deb`].

use crate::artefacts;
use crate::checkout;
use crate::deb;
use crate::failure::Failure;
use crate::library::{self, FILE};
use crate::{complain, print};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

/// The list of what was made, below the prefix.
pub const LIST: &str = "lib/fencepost/files";
/// What every program of a machine is preloaded with.
const PRELOAD_FILE: &str = "etc/ld.so.preload";
/// Programs that are installed if they lie beside the launcher.
const COMPANIONS: &[&str] = &["cargo-fencepost"];
/// The static library.
const STATIC: &str = "libfencepost.a";

/// Where to install.
#[derive(Args)]
pub struct Install {
    /// The directory below which bin, lib, include and share lie [default: /usr/local, in a package /usr]
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// Write below this root instead, for packages
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
    /// Write a Debian package instead, by the program `dpkg-deb`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["destdir", "uninstall"])]
    deb: Option<PathBuf>,
    /// Leave symbols and debug information out, by the program `strip`
    #[arg(long)]
    strip: bool,
    /// Remove what an installation with the same prefix made
    #[arg(long)]
    uninstall: bool,
}

impl Install {
    /// Installs or uninstalls; `lib` is what `--lib` says.
    pub fn go(self, lib: Option<&Path>) -> Result<ExitCode, Failure> {
        let prefix = self.prefix();
        if !prefix.is_absolute() {
            return Err(Failure::new(format!("--prefix {}: no absolute path", prefix.display())));
        }
        if let Some(package) = &self.deb {
            let count = deb::build(package, |stage| self.install_below(&below(stage, prefix), lib))?;
            print(&format!("{}: {count} files\n", package.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        let root = match &self.destdir {
            Some(root) => below(root, prefix),
            None => prefix.to_path_buf(),
        };
        if self.uninstall {
            self.warn_of_preload(&root);
            let count = remove(&root)?;
            print(&format!("removed {count} files below {}\n", root.display()))?;
        } else {
            let count = self.install_below(&root, lib)?;
            print(&format!("installed {count} files below {}\n", root.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn prefix(&self) -> &Path {
        let default = if self.deb.is_some() { "/usr" } else { "/usr/local" };
        self.prefix.as_deref().unwrap_or(Path::new(default))
    }

    /// Installs below a directory; how many files.
    fn install_below(&self, root: &Path, lib: Option<&Path>) -> Result<usize, Failure> {
        let files = self.files(lib)?;
        let binaries: Vec<PathBuf> = files.iter().filter_map(|item| item.binary(root)).collect();
        let count = install(root, files)?;
        if self.strip {
            strip(&binaries)?;
        }
        Ok(count)
    }

    fn files(&self, lib: Option<&Path>) -> Result<Vec<Item>, Failure> {
        let launcher = library::own_path()?;
        let library = match library::locate(lib) {
            Ok(library) => library.path,
            Err(failure) => checkout::build_here()?.ok_or(failure)?,
        };
        let mut items = vec![
            Item::program("bin/fencepost", &launcher),
            Item::copy(&format!("lib/fencepost/{FILE}"), &library),
        ];
        let archive = library.with_file_name(STATIC);
        if archive.is_file() {
            items.push(Item::copy(&format!("lib/fencepost/{STATIC}"), &archive));
        }
        for name in COMPANIONS {
            let companion = launcher.with_file_name(name);
            if companion.is_file() {
                items.push(Item::program(&format!("bin/{name}"), &companion));
            }
        }
        let artefacts = artefacts::all(self.prefix())
            .map_err(|error| Failure::new(format!("cannot make the manual pages: {error}")))?;
        items.extend(artefacts.into_iter().map(|(place, bytes)| Item {
            place,
            content: Content::Bytes(bytes),
            mode: 0o644,
        }));
        Ok(items)
    }

    /// Programs start without a library that is gone, and each says so.
    fn warn_of_preload(&self, root: &Path) {
        let file = below(self.destdir.as_deref().unwrap_or(Path::new("/")), Path::new(PRELOAD_FILE));
        let library = self.prefix().join("lib/fencepost").join(FILE);
        let named = |text: String| text.split([' ', '\t', '\n', ':']).any(|word| Path::new(word) == library);
        if fs::read_to_string(&file).is_ok_and(named) && root.join(LIST).is_file() {
            complain(&format!("warning: {} still names {}", file.display(), library.display()));
        }
    }
}

/// Where a file's bytes come from.
enum Content {
    Copy(PathBuf),
    Bytes(Vec<u8>),
}

/// A file to install.
struct Item {
    /// Below the prefix.
    place: PathBuf,
    content: Content,
    mode: u32,
}

impl Item {
    fn program(place: &str, from: &Path) -> Self {
        Self { place: place.into(), content: Content::Copy(from.to_path_buf()), mode: 0o755 }
    }

    fn copy(place: &str, from: &Path) -> Self {
        Self { mode: 0o644, ..Self::program(place, from) }
    }

    /// Where a program or a library is installed; `None` for text, and for the launcher that stays where it is.
    fn binary(&self, root: &Path) -> Option<PathBuf> {
        let Content::Copy(from) = &self.content else { return None };
        let place = root.join(&self.place);
        (from.canonicalize().ok() != place.canonicalize().ok()).then_some(place)
    }
}

/// Has `strip` take from binaries what running and linking do not need.
fn strip(binaries: &[PathBuf]) -> Result<(), Failure> {
    let status = Command::new("strip").arg("--strip-unneeded").args(binaries).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("strip: {status}"))),
        Err(error) => Err(Failure::new(format!("cannot run strip: {error}"))),
    }
}

/// `path`, which may be absolute, below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

pub fn trouble(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

fn install(root: &Path, items: Vec<Item>) -> Result<usize, Failure> {
    let before = list(root)?;
    let mut made: BTreeSet<String> = before.iter().filter(|entry| entry.ends_with('/')).cloned().collect();
    let mut files: BTreeSet<String> = BTreeSet::new();
    for item in items {
        let place = root.join(&item.place);
        make_directories(root, item.place.parent().unwrap_or(Path::new("")), &mut made)?;
        write(&place, &item)?;
        files.insert(item.place.to_string_lossy().into_owned());
    }
    files.insert(LIST.to_owned());
    make_directories(root, Path::new(LIST).parent().unwrap_or(Path::new("")), &mut made)?;
    for stale in before.iter().filter(|entry| !entry.ends_with('/') && !files.contains(*entry)) {
        remove_file(&root.join(stale))?;
    }
    let count = files.len();
    let text: String = files.iter().chain(&made).map(|entry| format!("{entry}\n")).collect();
    write(
        &root.join(LIST),
        &Item { place: LIST.into(), content: Content::Bytes(text.into_bytes()), mode: 0o644 },
    )?;
    Ok(count)
}

/// Makes the directories from the prefix to `place`, and notes those that were not there. The prefix itself is the
/// user's, unless it has to be made.
fn make_directories(root: &Path, place: &Path, made: &mut BTreeSet<String>) -> Result<(), Failure> {
    fs::create_dir_all(root).map_err(|error| trouble("make", root, &error))?;
    let mut path = PathBuf::new();
    for part in place.components() {
        path.push(part);
        let whole = root.join(&path);
        match fs::create_dir(&whole) {
            Ok(()) => {
                made.insert(format!("{}/", path.display()));
            }
            Err(_) if whole.is_dir() => {}
            Err(error) => return Err(trouble("make", &whole, &error)),
        }
    }
    Ok(())
}

fn write(place: &Path, item: &Item) -> Result<(), Failure> {
    if let Content::Copy(from) = &item.content
        && from.canonicalize().ok().is_some_and(|from| place.canonicalize().is_ok_and(|place| place == from))
    {
        return Ok(());
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let fresh = place.with_file_name(format!(".{name}.{}", std::process::id()));
    let result = match &item.content {
        Content::Copy(from) => fs::copy(from, &fresh).map(|_| ()),
        Content::Bytes(bytes) => fs::write(&fresh, bytes),
    };
    result
        .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(item.mode)))
        .and_then(|()| fs::rename(&fresh, place))
        .map_err(|error| {
            // Whether it is there or not: the error that matters is told.
            let _ = fs::remove_file(&fresh);
            trouble("write", place, &error)
        })
}

/// What the list below `root` names; nothing without one. What leads out of the prefix makes it no list of ours.
fn list(root: &Path) -> Result<Vec<String>, Failure> {
    let path = root.join(LIST);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(trouble("read", &path, &error)),
    };
    let entries: Vec<String> = text.lines().map(str::to_owned).collect();
    let inside = |entry: &String| {
        let mut parts = Path::new(entry).components().peekable();
        parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    match entries.iter().find(|entry| !inside(entry)) {
        Some(entry) => {
            Err(Failure::new(format!("{}: '{entry}' is no path below the prefix", path.display())))
        }
        None => Ok(entries),
    }
}

fn remove_file(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(trouble("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Removes what was installed below `root`; how many files. Directories that something else lies in stay.
fn remove(root: &Path) -> Result<usize, Failure> {
    let entries = list(root)?;
    if entries.is_empty() {
        return Err(Failure::new(format!(
            "{} is not there: nothing was installed below {} by this command",
            root.join(LIST).display(),
            root.display()
        )));
    }
    let files = entries.iter().filter(|entry| !entry.ends_with('/'));
    let mut count = 0;
    // The list goes last, so that a removal that stops can be repeated.
    for file in files.filter(|entry| *entry != LIST) {
        remove_file(&root.join(file))?;
        count += 1;
    }
    remove_file(&root.join(LIST))?;
    let mut directories: Vec<&String> = entries.iter().filter(|entry| entry.ends_with('/')).collect();
    directories.sort_by_key(|entry| std::cmp::Reverse(entry.len()));
    for directory in directories {
        // One that is not empty is left as it is.
        let _ = fs::remove_dir(root.join(directory));
    }
    Ok(count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(place: &str, text: &str) -> Item {
        Item { place: place.into(), content: Content::Bytes(text.as_bytes().to_vec()), mode: 0o644 }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("fencepost-install-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_was_made_goes_and_what_was_there_stays() {
        let root = scratch("again");
        fs::create_dir_all(root.join("share/man")).unwrap();
        fs::write(root.join("share/man/theirs"), "").unwrap();
        install(&root, vec![item("bin/one", "1"), item("share/man/man1/two", "2")]).unwrap();
        // A later version has another file, and one fewer.
        install(&root, vec![item("bin/one", "1b"), item("share/new/three", "3")]).unwrap();
        assert_eq!(fs::read_to_string(root.join("bin/one")).unwrap(), "1b");
        assert!(!root.join("share/man/man1/two").exists() && root.join("share/new/three").exists());
        assert_eq!(remove(&root).unwrap(), 3);
        let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["share"]);
        assert!(root.join("share/man/theirs").exists() && !root.join("share/man/man1").exists());
        assert!(remove(&root).is_err());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_list_leads_nowhere_else() {
        let root = scratch("astray");
        fs::create_dir_all(root.join("lib/fencepost")).unwrap();
        let victim = root.with_extension("victim");
        fs::write(&victim, "").unwrap();
        for entry in [format!("../{}", victim.file_name().unwrap().display()), victim.display().to_string()] {
            fs::write(root.join(LIST), format!("{entry}\n")).unwrap();
            assert!(remove(&root).is_err(), "{entry}");
        }
        assert!(victim.exists());
        fs::remove_file(victim).unwrap();
        fs::remove_dir_all(root).unwrap();
    }
}
