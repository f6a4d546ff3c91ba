//! The stacks of a report as names of functions, by the symbol tables of the files that they name.

use super::process::{self, End};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// The three stacks of a report, innermost frame first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    pub found: Vec<Place>,
    pub allocated: Vec<Place>,
    pub freed: Vec<Place>,
}

/// `(module+0xoffset)` of a frame; `None` where the report knows none.
pub type Place = Option<(String, u64)>;

impl Stacks {
    /// Of the first report in `text`.
    pub fn parse(text: &str) -> Self {
        let mut stacks = Self::default();
        let mut which = 0;
        for line in text.lines() {
            if line.starts_with("==") && line.contains("==END") {
                break;
            }
            if line.starts_with("allocated by thread T") {
                which = 1;
            } else if line.starts_with("freed by thread T") {
                which = 2;
            } else if line.trim_start().starts_with('#') {
                let stack = match which {
                    0 => &mut stacks.found,
                    1 => &mut stacks.allocated,
                    _ => &mut stacks.freed,
                };
                stack.push(place(line));
            }
        }
        stacks
    }
}

fn place(line: &str) -> Place {
    let line = line.split_once(" (BuildId: ").map_or(line, |(frame, _)| frame);
    let (_, rest) = line.rsplit_once('(')?;
    let (module, offset) = rest.split_once(')')?.0.rsplit_once("+0x")?;
    Some((module.to_owned(), u64::from_str_radix(offset, 16).ok()?))
}

/// The functions of one file: address, length, name.
struct Table(Vec<(u64, u64, String)>);

impl Table {
    /// By `nm`. Addresses count from the file's first mapping: position-independent files only.
    fn read(path: &Path) -> Self {
        let mut command = Command::new("nm");
        let run = process::run(command.args(["-S", "--defined-only"]).arg(path), process::LIMIT);
        assert_eq!(run.end, End::Status(0), "{command:?}: {}", run.stderr);
        let functions = run.stdout.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
            let (address, length) = (number()?, number()?);
            let (kind, name) = (fields.next()?, fields.next()?);
            // The compiler splits functions into parts: `name.cold`, `name.part.0`.
            let name = name.split('.').next()?.to_owned();
            matches!(kind, "t" | "T" | "w" | "W").then_some((address, length, name))
        });
        Self(functions.collect())
    }

    fn name(&self, offset: u64) -> Option<&str> {
        let inside =
            |(address, length, _): &&(u64, u64, String)| (*address..address + length).contains(&offset);
        // Of several names for one function always the same.
        self.0.iter().filter(inside).map(|(_, _, name)| name.as_str()).max()
    }
}

/// Names frames of the files below one directory: the program's own and its libraries'.
pub struct Symbols<'a> {
    directory: &'a Path,
    tables: HashMap<String, Table>,
}

impl<'a> Symbols<'a> {
    pub fn below(directory: &'a Path) -> Self {
        Self { directory, tables: HashMap::new() }
    }

    /// The names of `stack`'s frames, without those of other files; `?` for a frame of no known function.
    /// The address of a frame is one past its code, but for `exact` stacks the first one's is its code.
    pub fn names(&mut self, stack: &[Place], exact: bool) -> Vec<String> {
        let mut names = Vec::new();
        for (index, place) in stack.iter().enumerate() {
            let Some((module, offset)) = place else {
                names.push("?".to_owned());
                continue;
            };
            if !Path::new(module).starts_with(self.directory) {
                continue;
            }
            let at = if exact && index == 0 { *offset } else { offset - 1 };
            let table = self.tables.entry(module.clone()).or_insert_with(|| Table::read(Path::new(module)));
            names.push(table.name(at).unwrap_or("?").to_owned());
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_stacks_are_told_apart() {
        let text = "\
==1==ERROR: fencepost: heap-use-after-free on address 0x10
READ of size 1 at 0x10 by thread T1
    #0 0x11 in name (/tmp/a b+0x1f)
    #1 0x12 (unknown)

allocated by thread T1 (x) here:
    #0 0x13 (/lib/c+0x2)
freed by thread T1 here:
    #0 0x14 (/lib/c+0x3)
==1==END
    #0 0x15 (/lib/c+0x4)
";
        let at = |module: &str, offset| Some((module.to_owned(), offset));
        let expected = Stacks {
            found: vec![at("/tmp/a b", 0x1f), None],
            allocated: vec![at("/lib/c", 2)],
            freed: vec![at("/lib/c", 3)],
        };
        assert_eq!(Stacks::parse(text), expected);
    }

    #[test]
    fn functions_are_found_by_their_range() {
        let table = Table(vec![(0x10, 0x10, "first".to_owned()), (0x20, 0x8, "second".to_owned())]);
        let names = [0xf, 0x10, 0x1f, 0x20, 0x28].map(|offset| table.name(offset));
        assert_eq!(names, [None, Some("first"), Some("first"), Some("second"), None]);
    }
}
