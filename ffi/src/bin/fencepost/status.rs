//! `fencepost status`: which processes run under the library, in which mode, how much of what they allocated is guarded, and
//! how many errors were found so far. All is read from outside; a process neither knows nor waits.

use crate::explain;
use crate::failure::Failure;
use crate::library::FILE;
use crate::print;
use crate::printable;
use crate::target::Target;
use clap::{Args, ValueEnum};
use fencepost_core::heap::image::Image;
use fencepost_core::options::{Options, apply};
use fencepost_core::stats::Totals;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bytes of options that are read of a process.
const OPTIONS_BYTES: usize = 4096;
/// The exit status for a process that does not run under the library.
const NOT_UNDER: u8 = 1;
/// What stands for the mode of a process whose heap is not in use.
const NO_HEAP: &str = "none";

/// Which processes, and in which form.
#[derive(Args)]
pub struct Status {
    /// One process, in detail [default: all that have the library mapped]
    pid: Option<u32>,
    /// The form
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    format: Form,
    /// Write to this file instead, which is replaced as a whole
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How it is printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For a person
    #[default]
    Text,
    /// Prometheus' exposition format
    Prometheus,
}

/// A process that has the library, or a heap of the crate's.
struct Process {
    pid: u32,
    name: String,
    /// The path of the library, empty for a program that has the crate.
    library: String,
    heap: Result<Heap, String>,
}

/// What its heap says.
struct Heap {
    release: [u64; 3],
    mode: &'static str,
    markers: bool,
    given: String,
    totals: Totals,
    errors: u64,
    suppressed: u64,
}

impl Status {
    /// Prints what is known; status 1 if a process was named and has no heap of fencepost's.
    pub fn go(&self) -> Result<ExitCode, Failure> {
        let processes = match self.pid {
            Some(pid) => vec![Process::look(pid, library_of(pid).unwrap_or_default())],
            None => all()?,
        };
        let text = match (self.format, self.pid, processes.as_slice()) {
            (Form::Prometheus, ..) => prometheus(&processes),
            (Form::Text, Some(_), [process]) => detail(process),
            (Form::Text, ..) => table(&processes),
        };
        match &self.output {
            Some(path) => replace(path, &text)?,
            None => print(&text)?,
        }
        let missing = self.pid.is_some() && processes.iter().any(|process| process.heap.is_err());
        Ok(if missing { ExitCode::from(NOT_UNDER) } else { ExitCode::SUCCESS })
    }
}

/// All processes that have the library mapped, as far as this user may look.
fn all() -> Result<Vec<Process>, Failure> {
    let list = fs::read_dir("/proc").map_err(|error| Failure::new(format!("cannot read /proc: {error}")))?;
    let mut pids: Vec<u32> =
        list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let with_library = pids.into_iter().filter_map(|pid| Some((pid, library_of(pid)?)));
    Ok(with_library.map(|(pid, library)| Process::look(pid, library)).collect())
}

/// The path of the library that a process has mapped.
fn library_of(pid: u32) -> Option<String> {
    let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let path = line.get(line.iter().position(|byte| *byte == b'/')?..)?;
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        name.starts_with(FILE.as_bytes()).then(|| printable::printable(path))
    })
}

impl Process {
    fn look(pid: u32, library: String) -> Self {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = printable::printable(name.strip_suffix(b"\n").unwrap_or(&name));
        let target = Target::open(Path::new(&pid.to_string())).map_err(|failure| failure.message);
        let heap = target.and_then(|target| {
            let heaps = explain::heaps(&target).map_err(|failure| failure.message)?;
            heaps.first().and_then(Heap::read).ok_or_else(|| "its heap makes no sense".to_owned())
        });
        Self { pid, name, library, heap }
    }
}

impl Heap {
    fn read(image: &Image<'_, Target>) -> Option<Self> {
        let mut buffer = [0; OPTIONS_BYTES];
        let given = image.options(&mut buffer)?;
        let mut options = Options::DEFAULT;
        apply(&mut options, given, |_| ());
        let [errors, suppressed] = image.errors()?;
        Some(Self {
            release: image.release(),
            mode: options.mode.name(),
            markers: image.has_markers(),
            given: printable::printable(given),
            totals: image.totals()?,
            errors,
            suppressed,
        })
    }

    fn version(&self) -> String {
        self.release.map(|number| number.to_string()).join(".")
    }
}

fn table(processes: &[Process]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{:>8} {:<16} {:<7} {:>14} {:>8} {:>7}  OPTIONS",
        "PID", "NAME", "MODE", "ALLOCATIONS", "GUARDED", "ERRORS"
    );
    for process in processes {
        let _ = write!(out, "{:>8} {:<16} ", process.pid, process.name);
        let _ = match &process.heap {
            Ok(heap) => {
                let share = heap.totals.guarded_permille();
                writeln!(
                    out,
                    "{:<7} {:>14} {:>6}.{}% {:>7}  {}",
                    heap.mode,
                    heap.totals.all(),
                    share / 10,
                    share % 10,
                    heap.errors,
                    heap.given
                )
            }
            Err(problem) => writeln!(out, "{NO_HEAP:<7} {:>14} {:>8} {:>7}  ({problem})", "-", "-", "-"),
        };
    }
    out
}

fn detail(process: &Process) -> String {
    let mut out = String::new();
    let library =
        if process.library.is_empty() { "none: the program has the crate" } else { &process.library };
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:12} {value}");
    };
    line("process:", &format!("{} ({})", process.pid, process.name));
    match &process.heap {
        Ok(heap) => {
            line("library:", library);
            line("version:", &heap.version());
            line("mode:", heap.mode);
            line("guard pages:", if heap.markers { "markers (madvise)" } else { "mappings (mprotect)" });
            line("allocations:", &heap.totals.to_string());
            line("errors:", &format!("{}, and {} suppressed", heap.errors, heap.suppressed));
            line("options:", if heap.given.is_empty() { "all at their defaults" } else { &heap.given });
        }
        Err(problem) => {
            if !process.library.is_empty() {
                line("library:", library);
            }
            line("heap:", &format!("{NO_HEAP}: {problem}"));
        }
    }
    out
}

/// The text that node_exporter's textfile collector reads.
fn prometheus(processes: &[Process]) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, sample: &dyn Fn(&Process) -> Vec<(String, u64)>| {
        let _ = writeln!(out, "# HELP fencepost_{name} {help}\n# TYPE fencepost_{name} {kind}");
        for process in processes {
            for (labels, value) in sample(process) {
                let (pid, process) = (process.pid, label(&process.name));
                let _ = writeln!(out, "fencepost_{name}{{pid=\"{pid}\",name=\"{process}\"{labels}}} {value}");
            }
        }
    };
    let of_heap = |process: &Process, sample: &dyn Fn(&Heap) -> Vec<(String, u64)>| {
        process.heap.as_ref().map(sample).unwrap_or_default()
    };
    family("process_info", "gauge", "Processes that have the library mapped, by mode.", &|process| {
        let (mode, version) = match &process.heap {
            Ok(heap) => (heap.mode, heap.version()),
            Err(_) => (NO_HEAP, String::new()),
        };
        vec![(format!(",mode=\"{mode}\",version=\"{version}\""), 1)]
    });
    family("allocations_total", "counter", "Objects that were allocated, by where they went.", &|process| {
        of_heap(process, &|heap| {
            let counts = [("guarded", heap.totals.guarded), ("slab", heap.totals.slab)];
            counts.map(|(route, count)| (format!(",route=\"{route}\""), count)).to_vec()
        })
    });
    family(
        "unguarded_total",
        "counter",
        "Objects that were to be guarded and are in slabs, by what was lacking.",
        &|process| {
            of_heap(process, &|heap| {
                let totals = &heap.totals;
                let counts = [
                    ("budget", totals.over_budget),
                    ("mappings", totals.no_mappings),
                    ("memory", totals.no_memory),
                ];
                counts.map(|(reason, count)| (format!(",reason=\"{reason}\""), count)).to_vec()
            })
        },
    );
    family("errors_total", "counter", "Errors that were found and not suppressed.", &|process| {
        of_heap(process, &|heap| vec![(String::new(), heap.errors)])
    });
    family("suppressed_errors_total", "counter", "Errors that suppressions cover.", &|process| {
        of_heap(process, &|heap| vec![(String::new(), heap.suppressed)])
    });
    out
}

/// A label's value, without what ends it.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Replaces a file as a whole: who reads it at any time finds one text or the other.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let trouble = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    debug_assert!(!name.as_bytes().contains(&b'/'), "a file name has no slash");
    let fresh = path.with_file_name(name);
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path)).map_err(|error| {
        // Whether it is there or not: the error that matters is told.
        let _ = fs::remove_file(&fresh);
        trouble(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str) -> Process {
        let totals = Totals { slab: 990, guarded: 10, over_budget: 2, ..Totals::default() };
        let heap = Heap {
            release: [1, 2, 3],
            mode: "patrol",
            markers: true,
            given: "mode=patrol".to_owned(),
            totals,
            errors: 4,
            suppressed: 5,
        };
        Process { pid: 7, name: name.to_owned(), library: "/l/libfencepost.so".to_owned(), heap: Ok(heap) }
    }

    #[test]
    fn samples_have_labels_that_are_quoted() {
        let exempt = Process { pid: 8, heap: Err("no".to_owned()), ..process("b") };
        let text = prometheus(&[process("a\"\\"), exempt]);
        for line in [
            r#"fencepost_process_info{pid="7",name="a\"\\",mode="patrol",version="1.2.3"} 1"#,
            r#"fencepost_process_info{pid="8",name="b",mode="none",version=""} 1"#,
            r#"fencepost_allocations_total{pid="7",name="a\"\\",route="guarded"} 10"#,
            r#"fencepost_unguarded_total{pid="7",name="a\"\\",reason="budget"} 2"#,
            r#"fencepost_errors_total{pid="7",name="a\"\\"} 4"#,
            r#"fencepost_suppressed_errors_total{pid="7",name="a\"\\"} 5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), 5);
    }

    #[test]
    fn a_row_holds_what_matters() {
        let text = table(&[process("redis")]);
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["7", "redis", "patrol", "1000", "1.0%", "4", "mode=patrol"]);
        assert!(detail(&process("redis")).contains("guarded 1.0 % of 1000 allocations"));
    }
}
