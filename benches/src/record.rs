//! Raw figures: dated CSV files whose first lines say where they come from.
//!
//! A full run goes to `benches/record/`, everything else (`--smoke`, `--quick`, a selection) to `bench-scratch/` in the
//! target directory, so that a document never shows a partial run.

use crate::cargo::{home, target};
use crate::heap::HEAPS;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// One round of one cell of `micro` or `vm`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// `rust`, `c`, or `kernel`.
    pub api: String,
    pub work: String,
    pub size: usize,
    pub align: usize,
    pub threads: usize,
    pub heap: String,
    pub round: usize,
    /// `ok`, or how it failed.
    pub status: String,
    pub samples: usize,
    pub iterations: u64,
    /// Median of the samples, nanoseconds an iteration.
    pub ns: f64,
    /// The fastest sample.
    pub ns_min: f64,
    /// Peak resident size of the process.
    pub peak_kib: u64,
    /// What the workload adds.
    pub extra: String,
}

/// One run of one program of `apps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// `speed` or `hunt`.
    pub set: String,
    pub program: String,
    pub heap: String,
    /// Round 0 compares the output with glibc's and is left out of the medians.
    pub round: usize,
    /// `ok`, `exit N`, `signal N`, `timeout`, `wrong output`, or why it was skipped.
    pub status: String,
    pub user_us: u64,
    pub system_us: u64,
    pub wall_us: u64,
    pub peak_kib: u64,
}

/// A record being written.
pub struct Writer {
    path: PathBuf,
    csv: csv::Writer<File>,
}

impl Writer {
    /// Opens a record of `kind`; `full` runs are kept, others are scratch.
    pub fn create(kind: &str, full: bool, more: &[(String, String)]) -> io::Result<Self> {
        let directory = if full { home().join("record") } else { target().join("bench-scratch") };
        fs::create_dir_all(&directory)?;
        let (date, minute) = now();
        let path = directory.join(format!("{date}-{}-{kind}.csv", minute.replace(':', "")));
        let mut file = File::create(&path)?;
        writeln!(file, "# kind: {kind}\n# date: {date} {minute} UTC")?;
        for (key, value) in machine().iter().chain(more) {
            writeln!(file, "# {key}: {}", value.replace('\n', " "))?;
        }
        Ok(Self { path, csv: csv::Writer::from_writer(file) })
    }

    pub fn row(&mut self, row: impl Serialize) -> io::Result<()> {
        self.csv.serialize(row).map_err(io::Error::other)?;
        self.csv.flush()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A record read back.
pub struct Record<Row> {
    pub path: PathBuf,
    /// The first lines, in order.
    pub head: Vec<(String, String)>,
    pub rows: Vec<Row>,
}

impl<Row: DeserializeOwned> Record<Row> {
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let head = text
            .lines()
            .map_while(|line| line.strip_prefix("# "))
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
        let rows = reader.deserialize().collect::<Result<_, _>>().map_err(io::Error::other)?;
        Ok(Self { path: path.to_owned(), head, rows })
    }

    /// The newest kept record of `kind`.
    pub fn newest(kind: &str) -> io::Result<Option<Self>> {
        let ending = format!("-{kind}.csv");
        let directory = match fs::read_dir(home().join("record")) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut names: Vec<PathBuf> = directory
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&ending)))
            .collect();
        names.sort();
        names.last().map(|path| Self::read(path)).transpose()
    }
}

impl<Row> Record<Row> {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.head.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Today and the minute, UTC.
fn now() -> (String, String) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs());
    let (mut year, mut days) = (1970, seconds / 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    (format!("{year}-{:02}-{:02}", month + 1, days + 1), format!("{hour:02}:{minute:02}"))
}

/// What a reader must know of the machine and the tools.
fn machine() -> Vec<(String, String)> {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut lines = vec![
        ("cpu", field(&file("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", field(&file("/proc/meminfo"), "MemTotal")),
        ("kernel", file("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("max_map_count", file("/proc/sys/vm/max_map_count").trim().to_owned()),
        ("transparent_hugepage", file("/sys/kernel/mm/transparent_hugepage/enabled").trim().to_owned()),
        ("load", file("/proc/loadavg").trim().to_owned()),
        ("system", field(&file("/etc/os-release").replace('=', ":"), "PRETTY_NAME").replace('"', "")),
        ("fencepost", format!("{} {}", env!("CARGO_PKG_VERSION"), commit())),
        ("rustc", said("rustc", &["--version"])),
        ("libc", said("/usr/bin/dpkg-query", &["-W", "-f", "${Version}", "libc6"])),
    ];
    lines.retain(|(_, value)| !value.is_empty());
    lines.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The commit, and whether the tree differs from it.
fn commit() -> String {
    let root = home().join("..");
    let root = root.to_string_lossy();
    let commit = said("git", &["-C", &root, "rev-parse", "--short", "HEAD"]);
    let changed = said("git", &["-C", &root, "status", "--porcelain", "--", "src", "ffi", "Cargo.toml"]);
    let commit = if commit.is_empty() { "unknown".to_owned() } else { commit };
    if changed.is_empty() { commit } else { format!("{commit} with changes") }
}

/// The first line a command prints, or nothing.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(home()).output();
    let text =
        output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// The versions of the peers' crates and Debian packages.
pub fn versions() -> Vec<(String, String)> {
    let lock = fs::read_to_string(home().join("../Cargo.lock")).unwrap_or_default();
    let locked = |name: &str| {
        let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
        lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned)
    };
    let mut seen = Vec::new();
    for heap in HEAPS {
        if let Some((_, name)) = heap.global
            && let Some(version) = locked(name)
            && name != "fencepost"
        {
            seen.push((format!("crate {name}"), version));
        }
        if let Some(package) = heap.package() {
            let version = said("/usr/bin/dpkg-query", &["-W", "-f", "${Version}", package]);
            seen.push((
                format!("package {package}"),
                if version.is_empty() { "not installed".to_owned() } else { version },
            ));
        }
    }
    seen.sort();
    seen.dedup();
    seen
}
