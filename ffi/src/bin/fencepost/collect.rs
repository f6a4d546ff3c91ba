//! Collecting the reports of a program and of everything it starts.
//!
//! The launcher listens on a socket in a directory of its own and names it to the library. A report is a
//! connection: it is read to its end, symbolised, printed, and only then taken, by one byte. A process
//! whose report is not taken, because the launcher is gone, cannot be reached or fails, prints it itself.
//!
//! Nobody else can open the directory, so nobody else can put a report on the user's terminal.

use crate::blocking;
use crate::colour;
use crate::complain;
use crate::input::unique;
use crate::sarif;
use crate::worker::Worker;
use serde_json::Value;
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The variable that names the socket to the library.
pub const VARIABLE: &str = "FENCEPOST_COLLECTOR";
/// The answer to a report that was printed.
const TAKEN: &[u8] = b"+";
/// What a process may take to write its report, which lies ready in its memory.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a report.
const LONGEST: u64 = 4 << 20;
/// The longest path of a socket, with its final zero.
const LONGEST_PATH: usize = 108;

/// A running collector.
pub struct Collector {
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

/// What takes a report that came.
pub type Taker = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// What is done with reports.
pub enum Output {
    /// They are symbolised and printed.
    Print {
        /// When to colour them.
        colour: colour::When,
        /// The SARIF file to write.
        sarif: Option<PathBuf>,
    },
    /// They are kept as they came.
    Keep(Arc<Mutex<Vec<String>>>),
    /// They are given to this as they came, before their process goes on.
    Give(Taker),
}

impl Collector {
    /// Starts to listen.
    pub fn start(output: Output) -> io::Result<Self> {
        let directory = private_directory()?;
        let listener = UnixListener::bind(socket(&directory)).inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(&listener, &stopped, Desk::new(output)));
        Ok(Self { directory, stop, thread })
    }

    /// The socket's path.
    pub fn path(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// Prints what has come in and stops; how many texts came.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread up.
        let _ = UnixStream::connect(socket(&self.directory));
        let came = self.thread.join().unwrap_or(0);
        let _ = fs::remove_file(socket(&self.directory));
        let _ = fs::remove_dir(&self.directory);
        came
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("reports")
}

/// A new directory for this user alone.
pub fn private_directory() -> io::Result<PathBuf> {
    let mut places = vec![std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/dev/shm")];
    places.dedup();
    let mut problem = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        for attempt in 0..16_u32 {
            let directory = place.join(unique(attempt));
            if !directory.is_absolute() || socket(&directory).as_os_str().len() >= LONGEST_PATH {
                break;
            }
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(directory),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    problem = error;
                    break;
                }
            }
        }
    }
    Err(problem)
}

fn serve(listener: &UnixListener, stop: &AtomicBool, mut desk: Desk) -> u64 {
    loop {
        match listener.accept() {
            Ok((stream, _)) => desk.take(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Out of descriptors, say: what cannot be accepted is printed by its process.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        // Whatever waits is still taken.
        if stop.load(Ordering::Acquire) && listener.set_nonblocking(true).is_err() {
            break;
        }
    }
    desk.came
}

/// Where reports are handled, one after another.
struct Desk {
    output: Output,
    worker: Worker,
    sarif: Option<Value>,
    /// Texts that came.
    came: u64,
}

impl Desk {
    fn new(output: Output) -> Self {
        Self { output, worker: Worker::default(), sarif: None, came: 0 }
    }

    fn take(&mut self, mut stream: UnixStream) {
        let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(TIMEOUT)));
        let mut raw = Vec::new();
        let read = ready.and_then(|()| Read::by_ref(&mut stream).take(LONGEST).read_to_end(&mut raw));
        if read.is_err() || raw.is_empty() {
            return;
        }
        self.came += 1;
        if self.print(&String::from_utf8_lossy(&raw)).is_ok() {
            // The process may have been killed meanwhile.
            let _ = stream.write_all(TAKEN);
        }
    }

    fn print(&mut self, raw: &str) -> io::Result<()> {
        let when = match &mut self.output {
            Output::Print { colour, .. } => *colour,
            Output::Keep(kept) => {
                let mut kept = kept.lock().map_err(|_| io::Error::other("nobody keeps it"))?;
                kept.push(raw.to_owned());
                return Ok(());
            }
            Output::Give(take) => return take(raw),
        };
        let symbolised = self.worker.symbolise(raw);
        if let Some(log) = symbolised.as_ref().map(|it| it.sarif.clone()) {
            self.keep(log);
        }
        let text = symbolised.map_or_else(|| raw.to_owned(), |it| it.text);
        let mut stderr = io::stderr().lock();
        let text = if when.applies(&stderr) { colour::paint(&text) } else { text };
        blocking::write_all(&mut stderr, text.as_bytes())
    }

    /// Adds the results of `log` to the SARIF file.
    fn keep(&mut self, mut log: Value) {
        let Output::Print { sarif: Some(path), .. } = &self.output else { return };
        let whole = match &mut self.sarif {
            None => self.sarif.insert(log),
            Some(whole) => {
                merge(whole, &mut log);
                whole
            }
        };
        if let Err(error) = write_sarif(path, whole) {
            complain(&format!("warning: cannot write {}: {error}", path.display()));
        }
    }
}

/// Appends the results of one log to another; rules are the same unless a kind is new.
pub fn merge(whole: &mut Value, log: &mut Value) {
    let Some(results) = log["runs"][0]["results"].as_array_mut() else { return };
    let rules = log_rules(whole);
    for mut result in results.drain(..) {
        if !rules.iter().any(|id| result["ruleId"] == id.as_str()) {
            // A rule by name alone is valid, one by a wrong index is not.
            if let Some(object) = result.as_object_mut() {
                object.remove("ruleIndex");
            }
        }
        if let Some(all) = whole["runs"][0]["results"].as_array_mut() {
            all.push(result);
        }
    }
}

fn log_rules(log: &Value) -> Vec<String> {
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array();
    let ids = rules.into_iter().flatten().filter_map(|rule| rule["id"].as_str());
    ids.map(str::to_owned).collect()
}

/// Writes a log without results, so that a run that finds nothing leaves a file that says so.
pub fn begin_sarif(path: &Path) -> io::Result<()> {
    write_sarif(path, &sarif::log(&[]))
}

/// Writes a SARIF log in place of what was there.
pub fn write_sarif(path: &Path, log: &Value) -> io::Result<()> {
    fs::write(path, format!("{log:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Report;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_directory_is_private_and_goes_away() {
        let output = Output::Print { colour: colour::When::Never, sarif: None };
        let collector = Collector::start(output).unwrap();
        let directory = collector.directory.clone();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        assert!(collector.path().exists());
        collector.finish();
        assert!(!directory.exists());
    }

    /// The symboliser of this test program fails (it is none), and yet the report is taken.
    #[test]
    fn a_report_that_cannot_be_symbolised_is_printed_as_it_is() {
        let output = Output::Print { colour: colour::When::Never, sarif: None };
        let collector = Collector::start(output).unwrap();
        let mut stream = UnixStream::connect(collector.path()).unwrap();
        stream.write_all(b"a raw report\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, TAKEN);
        collector.finish();
    }

    #[test]
    fn logs_are_merged() {
        let report = |kind: &str| Report { kind: kind.to_owned(), ..Report::default() };
        let mut whole = sarif::log(&[report("double-free")]);
        merge(&mut whole, &mut sarif::log(&[report("bad-size"), report("new-kind")]));
        let results = whole["runs"][0]["results"].as_array().unwrap();
        let kinds: Vec<_> = results.iter().map(|result| result["ruleId"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["double-free", "bad-size", "new-kind"]);
        assert!(results[1]["ruleIndex"].is_u64() && results[2].get("ruleIndex").is_none());
    }
}
