//! The files that an installation has besides programs and libraries. Manual pages, completions and the configuration
//! template are made of the flags that `clap` knows and of the table of options, so that none of them can be out of date.

use crate::settings::default_of;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use fencepost_core::options::ROWS;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the program.
const PROGRAM: &str = "fencepost";
/// Files that are installed as they are in the source tree.
const COPIES: &[(&str, &str)] = &[
    ("include/fencepost.h", include_str!("../../../include/fencepost.h")),
    ("share/doc/fencepost/README.md", include_str!("../../../../README.md")),
    ("share/doc/fencepost/ffi/README.md", include_str!("../../../README.md")),
    ("share/doc/fencepost/ffi/SERVICES.md", include_str!("../../../SERVICES.md")),
    ("share/doc/fencepost/ffi/COOKBOOK.md", include_str!("../../../COOKBOOK.md")),
    ("share/doc/fencepost/ffi/REPORTS.md", include_str!("../../../REPORTS.md")),
    ("share/doc/fencepost/ffi/OPTIONS.md", include_str!("../../../OPTIONS.md")),
    ("share/doc/fencepost/ffi/report.schema.json", include_str!("../../../report.schema.json")),
    ("share/doc/fencepost/LICENSE-MIT", include_str!("../../../../LICENSE-MIT")),
    ("share/doc/fencepost/LICENSE-APACHE", include_str!("../../../../LICENSE-APACHE")),
];
/// The commands for gdb.
const GDB: &str = include_str!("../../../share/fencepost-gdb.py");

/// A file of an installation: its path below the prefix, and its content.
pub type Artefact = (PathBuf, Vec<u8>);

/// All of them. `prefix` decides where gdb looks for its commands.
pub fn all(prefix: &Path) -> io::Result<Vec<Artefact>> {
    let mut files: Vec<Artefact> =
        COPIES.iter().map(|(place, text)| (PathBuf::from(place), text.as_bytes().to_vec())).collect();
    let mut add = |place: &str, text: String| files.push((PathBuf::from(place), text.into_bytes()));
    add("lib/pkgconfig/fencepost.pc", pkg_config());
    add("share/doc/fencepost/fencepost.conf.example", configuration());
    add("share/man/man5/fencepost.conf.5", configuration_page());
    files.push((gdb_place(prefix), GDB.as_bytes().to_vec()));
    let mut command = crate::Cli::command();
    command.build();
    files.extend(pages(&command)?);
    for (shell, place) in [
        (Shell::Bash, "share/bash-completion/completions/fencepost"),
        (Shell::Zsh, "share/zsh/site-functions/_fencepost"),
        (Shell::Fish, "share/fish/vendor_completions.d/fencepost.fish"),
    ] {
        let mut text = Vec::new();
        generate(shell, &mut crate::Cli::command(), PROGRAM, &mut text);
        files.push((PathBuf::from(place), text));
    }
    Ok(files)
}

/// Where gdb finds commands for the library by itself: below its own data for `/usr`, else beside the library, where it
/// runs them if the user's `auto-load safe-path` allows that.
fn gdb_place(prefix: &Path) -> PathBuf {
    const FILE: &str = "lib/fencepost/libfencepost.so-gdb.py";
    if prefix == Path::new("/usr") {
        Path::new("share/gdb/auto-load/usr").join(FILE)
    } else {
        PathBuf::from(FILE)
    }
}

fn pkg_config() -> String {
    format!(
        "prefix=${{pcfiledir}}/../..\n\
         libdir=${{prefix}}/lib/fencepost\n\
         includedir=${{prefix}}/include\n\n\
         Name: fencepost\n\
         Description: A hardening memory allocator\n\
         Version: {}\n\
         Libs: -L${{libdir}} -Wl,-rpath,${{libdir}} -lfencepost\n\
         Cflags: -I${{includedir}}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// A configuration file that changes nothing: every option with its default, commented out.
pub fn configuration() -> String {
    let mut text = String::from(
        "# /etc/fencepost.conf: options for every program that runs under libfencepost.so.\n\
         # One or more name=value a line. The environment and the launcher's flags come after it and win.\n",
    );
    for row in ROWS {
        let default = default_of(row);
        let value = if default == "unset" { "" } else { default.as_str() };
        // Writing to a string does not fail.
        let _ = write!(text, "\n# {}\n# ({})\n#{}={value}\n", row.help, row.range, row.name);
    }
    text
}

/// `fencepost.conf(5)`.
fn configuration_page() -> String {
    let mut page = Roff::new();
    let version = format!("fencepost {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["fencepost.conf", "5", "", version.as_str()]);
    page.control("SH", ["NAME"]);
    page.text([roman("fencepost.conf - options of the fencepost memory allocator")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([italic("/etc/fencepost.conf")]).control("br", []);
    page.text([bold("FENCEPOST_OPTIONS="), italic("name"), roman("="), italic("value"), roman(":...")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The file holds one or more name=value a line, separated by blanks, commas or colons. A value that holds a separator \
         stands in double quotes. A line that begins with # is a comment. A program's own options, the environment variable \
         FENCEPOST_OPTIONS and the flags of fencepost(1) come after the file, and of two that set the same the later wins. \
         The variable is ignored in programs that run with raised privileges. What is not understood is named in one line \
         on standard error and skipped.",
    )]);
    page.control("SH", ["OPTIONS"]);
    for row in ROWS {
        page.control("TP", []);
        page.text([bold(row.name), roman("="), italic(default_of(row))] as [Inline; 3]);
        page.text([roman(format!("{} ({})", row.help, row.range))]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("fencepost"), roman("(1), "), bold("ld.so"), roman("(8)")]);
    page.render()
}

/// `fencepost(1)`, and a page for each subcommand.
fn pages(command: &Command) -> io::Result<Vec<Artefact>> {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    let mut pages = Vec::new();
    for command in std::iter::once(command).chain(shown) {
        let name = command.get_display_name().unwrap_or(PROGRAM).to_owned();
        let mut text = Vec::new();
        Man::new(command.clone()).title(name.clone()).render(&mut text)?;
        pages.push((PathBuf::from(format!("share/man/man1/{name}.1")), text));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencepost_core::options::{Options, apply_line};

    /// With its comments taken off the template sets every option to its default.
    #[test]
    fn the_template_sets_what_is_the_default() {
        let template = configuration();
        let mut options = Options::DEFAULT;
        let mut given = 0;
        for line in template.lines().filter_map(|line| line.strip_prefix('#')) {
            if line.starts_with(' ') {
                continue;
            }
            given += 1;
            apply_line(&mut options, line.as_bytes(), |warning| {
                panic!("{line}: {}", crate::settings::explain(&warning));
            });
        }
        assert_eq!(given, ROWS.len());
        for row in ROWS {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            (row.spell)(&options, &mut |bytes| one.extend_from_slice(bytes));
            (row.spell)(&Options::DEFAULT, &mut |bytes| other.extend_from_slice(bytes));
            assert_eq!(one, other, "{}", row.name);
        }
        // As it stands it sets nothing.
        let mut untouched = Options::DEFAULT;
        for line in template.lines() {
            apply_line(&mut untouched, line.as_bytes(), |_| panic!("{line}"));
        }
        assert!(ROWS.iter().all(|row| !(row.is_given)(&untouched)));
    }

    #[test]
    fn every_option_and_every_command_has_its_place_in_a_page() {
        let files = all(Path::new("/usr")).unwrap();
        let text = |place: &str| {
            let found = files.iter().find(|(path, _)| path == Path::new(place));
            String::from_utf8(found.unwrap_or_else(|| panic!("no {place}")).1.clone()).unwrap()
        };
        let (page, run) = (text("share/man/man5/fencepost.conf.5"), text("share/man/man1/fencepost-run.1"));
        let completion = text("share/bash-completion/completions/fencepost");
        for row in ROWS {
            assert!(page.contains(&format!("\\fB{}\\fR", row.name)), "{} in fencepost.conf(5)", row.name);
            let flag = row.name.replace('_', "-");
            assert!(
                row.name == "help" || run.contains(&format!("\\-\\-{}", flag.replace('-', "\\-"))),
                "{flag}"
            );
            assert!(completion.contains(&format!("--{flag}")), "{flag}");
        }
        text("share/man/man1/fencepost.1");
        text("share/gdb/auto-load/usr/lib/fencepost/libfencepost.so-gdb.py");
        for hidden in [crate::victim::COMMAND, crate::worker::COMMAND] {
            assert!(!files.iter().any(|(path, _)| path.ends_with(format!("fencepost-{hidden}.1"))));
        }
    }
}
