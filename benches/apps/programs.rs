//! The programs, and how each is started on its input.

use crate::columns::Column;
use fencepost_benches::heap::program;
use fencepost_benches::record::said;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the inputs are, and how large (100 is the speed set's size).
pub struct Place {
    pub inputs: PathBuf,
    pub scale: u64,
    /// Of this process alone: what programs print and complain, sockets.
    pub scratch: PathBuf,
}

impl Place {
    pub fn file(&self, name: &str) -> PathBuf {
        self.inputs.join(name)
    }
}

/// One program of a set.
#[derive(Clone, Copy)]
pub struct Program {
    pub name: &'static str,
    /// The executable, found in Debian's directory or `PATH`; `cc1` is gcc's, `objects` is compiled here.
    executable: &'static str,
    /// Arguments; a leading `@` stands for the directory of the inputs.
    arguments: &'static [&'static str],
    /// A file on stdin.
    stdin: Option<&'static str>,
    env: &'static [(&'static str, &'static str)],
    /// Whether what it prints is the same every time.
    pub prints: bool,
    /// Whether it is the server that `redis.rs` drives.
    pub is_server: bool,
    /// Whether this driver compiles it.
    pub is_compiled: bool,
    /// Whether two of its threads allocate at once: such programs have tables of their own.
    pub has_threads: bool,
}

const PLAIN: Program = Program {
    name: "",
    executable: "",
    arguments: &[],
    stdin: None,
    env: &[],
    prints: true,
    is_server: false,
    is_compiled: false,
    has_threads: false,
};

const SQLITE: Program = Program {
    name: "sqlite3",
    executable: "sqlite3",
    arguments: &[":memory:"],
    stdin: Some("sqlite.sql"),
    ..PLAIN
};
const PYTHON: Program = Program {
    name: "python3",
    executable: "python3",
    arguments: &["-s", "-S", "-B", "@work.py"],
    env: &[("PYTHONMALLOC", "malloc"), ("PYTHONHASHSEED", "0")],
    ..PLAIN
};
const PERL: Program = Program {
    name: "perl",
    executable: "perl",
    arguments: &["@work.pl"],
    env: &[("PERL_HASH_SEED", "0"), ("PERL_PERTURB_KEYS", "0")],
    ..PLAIN
};
const LUA: Program = Program { name: "lua", executable: "lua5.4", arguments: &["@work.lua"], ..PLAIN };
const XMLLINT: Program =
    Program { name: "xmllint", executable: "xmllint", arguments: &["--c14n", "@big.xml"], ..PLAIN };
const JQ: Program = Program {
    name: "jq",
    executable: "jq",
    arguments: &[
        "-c",
        "group_by(.city) | map({city: .[0].city, n: length, age: (map(.age) | add / length), \
         tags: ([.[].tags[]] | unique | length), names: (map(.name | ascii_upcase) | sort | .[0:3])}) | sort_by(.n)",
        "@people.json",
    ],
    ..PLAIN
};
const GS: Program = Program {
    name: "gs",
    executable: "gs",
    arguments: &["-q", "-dBATCH", "-dNOPAUSE", "-sDEVICE=pgmraw", "-r72", "-sOutputFile=-", "@pages.ps"],
    ..PLAIN
};
const GIT: Program = Program {
    name: "git",
    executable: "git",
    arguments: &["-C", "@repository.git", "--no-pager", "log", "-p", "--stat"],
    ..PLAIN
};
const CC1: Program =
    Program { name: "cc1", executable: "cc1", arguments: &["-quiet", "-O0", "@large.c", "-o", "-"], ..PLAIN };
const REDIS: Program =
    Program { name: "redis", executable: "redis-server", prints: false, is_server: true, ..PLAIN };
/// Two interpreters that share nothing but the allocator.
const PERL_THREADS: Program =
    Program { name: "perl-threads", arguments: &["@threads.pl"], has_threads: true, ..PERL };
/// The search for deltas. What it writes depends on which thread was faster.
const GIT_PACK: Program = Program {
    name: "git-pack",
    arguments: &[
        "-C",
        "@repository.git",
        "pack-objects",
        "--threads=2",
        "--revs",
        "--all",
        "--stdout",
        "--window=20",
        "--no-reuse-delta",
        "-q",
    ],
    prints: false,
    has_threads: true,
    ..GIT
};
/// Two workers; the engine's own threads free what they have dropped.
const NODE: Program =
    Program { name: "node", executable: "node", arguments: &["@threads.js"], has_threads: true, ..PLAIN };

/// The ten programs of the speed set and the three with threads, or the ten of the hunting set and one that can be recompiled.
pub fn list(hunt: bool) -> Vec<Program> {
    if !hunt {
        return vec![
            SQLITE,
            PYTHON,
            PERL,
            LUA,
            XMLLINT,
            JQ,
            GS,
            GIT,
            CC1,
            REDIS,
            PERL_THREADS,
            GIT_PACK,
            NODE,
        ];
    }
    let ls = Program { name: "ls", executable: "ls", arguments: &["-laR", "@tree"], ..PLAIN };
    let log = Program { arguments: &["-C", "@repository.git", "--no-pager", "log"], ..GIT };
    let small = Program { arguments: &["-quiet", "-O1", "@small.c", "-o", "-"], ..CC1 };
    let objects = Program {
        name: "objects",
        executable: "@objects",
        arguments: &["100000"],
        is_compiled: true,
        ..PLAIN
    };
    vec![ls, log, GS, small, PYTHON, PERL, LUA, JQ, XMLLINT, SQLITE, objects]
}

impl Program {
    fn path(&self, place: &Place, column: Option<&Column>) -> Option<PathBuf> {
        match self.executable {
            "cc1" => {
                let path = PathBuf::from(said("gcc", &["-print-prog-name=cc1"]));
                path.is_absolute().then_some(path)
            }
            "@objects" => {
                let recompiled = column.is_some_and(|column| column.compiler().is_some());
                Some(place.file(if recompiled { "objects-recompiled" } else { "objects" }))
            }
            name => program(name),
        }
    }

    /// What is to be installed before it can run.
    pub fn missing(&self) -> Option<&'static str> {
        match self.executable {
            "cc1" => said("gcc", &["-print-prog-name=cc1"]).is_empty().then_some("gcc"),
            "@objects" => program("gcc").is_none().then_some("gcc"),
            "redis-server" => ["redis-server", "redis-benchmark", "redis-cli"]
                .into_iter()
                .find(|name| program(name).is_none()),
            name => program(name).is_none().then_some(name),
        }
    }

    /// The version of the Debian package its file belongs to.
    pub fn version(&self) -> String {
        let package = match self.executable {
            "python3" => "python3-minimal",
            "lua5.4" => "lua5.4",
            "xmllint" => "libxml2-utils",
            "gs" => "ghostscript",
            "cc1" | "@objects" => "gcc-12",
            "perl" => "perl-base",
            "ls" => "coreutils",
            "node" => "nodejs",
            name => name,
        };
        let version = said("/usr/bin/dpkg-query", &["-W", "-f", "${Version}", package]);
        if version.is_empty() { "unknown".to_owned() } else { format!("{package} {version}") }
    }

    /// The command under `column`, without its standard streams.
    pub fn command(&self, place: &Place, column: &Column) -> Command {
        let path = self.path(place, Some(column)).unwrap_or_else(|| PathBuf::from(self.executable));
        let mut command = column.command(&path);
        command.args(self.arguments.iter().map(|argument| match argument.strip_prefix('@') {
            Some(name) => place.file(name).into_os_string(),
            None => (*argument).into(),
        }));
        calm(&mut command, &place.inputs);
        command.env("BENCH_SCALE", place.scale.to_string()).envs(self.env.iter().copied());
        command
    }

    /// Its standard input.
    pub fn input(&self, place: &Place) -> io::Result<Stdio> {
        Ok(match self.stdin {
            Some(name) => Stdio::from(File::open(place.file(name))?),
            None => Stdio::null(),
        })
    }
}

/// The part of the environment that is the same for all: no user's configuration, no locale, no time zone.
pub fn calm(command: &mut Command, home: &Path) {
    command.envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC"), ("GIT_CONFIG_NOSYSTEM", "1")]);
    command.env("HOME", home).env("TMPDIR", home).current_dir(home);
}
