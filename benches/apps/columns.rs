//! The allocators a set of programs is run under.

use crate::Arguments;
use crate::programs::Program;
use fencepost_benches::cargo::Shop;
use fencepost_benches::heap::{HEAPS, Kind, Preload, program};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a column changes a program's command.
enum How {
    /// `LD_PRELOAD` or, for the libc, nothing.
    Library(Option<PathBuf>),
    /// The program is an argument of this command.
    Wrapper(PathBuf, &'static [&'static str]),
    /// The program is compiled by this command.
    Compiler(PathBuf, &'static [&'static str]),
}

/// One allocator, ready for use.
pub struct Column {
    pub name: String,
    env: &'static [(&'static str, &'static str)],
    how: How,
}

impl Column {
    /// Whether `program` can be run this way.
    pub fn suits(&self, program: &Program) -> bool {
        program.is_compiled || !matches!(self.how, How::Compiler(..))
    }

    /// The command for a program at `path`, with this column's library and environment.
    pub fn command(&self, path: &Path) -> Command {
        let mut command = match &self.how {
            How::Wrapper(wrapper, arguments) => {
                let mut command = Command::new(wrapper);
                command.args(*arguments).arg(path);
                command
            }
            How::Library(_) | How::Compiler(..) => Command::new(path),
        };
        command.env_clear().envs(self.env.iter().copied());
        if let How::Library(Some(library)) = &self.how {
            command.env("LD_PRELOAD", library);
        }
        command
    }

    /// Which compiler's output it wants to run: `gcc`'s, or the one it brings.
    pub fn compiler(&self) -> Option<(&Path, &'static [&'static str])> {
        match &self.how {
            How::Compiler(path, arguments) => Some((path, arguments)),
            How::Library(_) | How::Wrapper(..) => None,
        }
    }

    /// Whether nothing is preloaded, so that the program's own libraries decide.
    pub fn is_libc(&self) -> bool {
        matches!(self.how, How::Library(None))
    }
}

/// The columns of a set, and the names and reasons of what is left out.
pub fn columns(shop: &mut Shop, hunt: bool, arguments: &Arguments) -> (Vec<Column>, Vec<(String, String)>) {
    let mut columns = Vec::new();
    let mut skipped = Vec::new();
    for heap in HEAPS {
        let in_set = match heap.kind {
            Kind::Baseline => true,
            // Among the fast, `hunt` would take longer than all others together.
            Kind::Fencepost => {
                hunt == (heap.name == "fencepost-hunt") || arguments.only.iter().any(|name| name == heap.name)
            }
            Kind::Peer => !hunt,
            Kind::Hunter => hunt,
        };
        if !in_set || !heap.wanted(&arguments.only) {
            continue;
        }
        let tool = |command: &[&str], package: &str| {
            let name = command.first().copied().unwrap_or_default();
            program(name).ok_or_else(|| format!("not installed (Debian package {package})"))
        };
        let how =
            match heap.preload {
                Preload::None => continue,
                Preload::Wrapper { package, command } => tool(command, package)
                    .map(|path| How::Wrapper(path, command.get(1..).unwrap_or_default())),
                Preload::Recompiled { package, command } => tool(command, package)
                    .map(|path| How::Compiler(path, command.get(1..).unwrap_or_default())),
                Preload::Libc | Preload::Fencepost | Preload::Crate(_) | Preload::Debian { .. } => {
                    match shop.preload(heap) {
                        Some(found) => found.map(How::Library),
                        None => continue,
                    }
                }
            };
        match how {
            Ok(how) => columns.push(Column { name: heap.name.to_owned(), env: heap.env, how }),
            Err(reason) => skipped.push((heap.name.to_owned(), reason)),
        }
    }
    for (name, path) in &arguments.preload {
        match shop.serves(path, &[]) {
            Ok(()) => {
                columns.push(Column { name: name.clone(), env: &[], how: How::Library(Some(path.clone())) })
            }
            Err(reason) => skipped.push((name.clone(), reason)),
        }
    }
    (columns, skipped)
}
