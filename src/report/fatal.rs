//! Writing a report, once, and what follows it.

use super::access;
use super::finding::Finding;
use super::json;
use super::modules::Modules;
use super::render::{self, Sources};
use crate::options::{OnError, Options, PathBuf, ReportForm};
use crate::stats::Totals;
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::{collector, die, file, signal, thread};
use crate::text::Text;
use crate::trace::Depot;
use core::fmt::Write;

/// What stays the same for all reports of a process.
pub struct Context {
    /// The options.
    pub options: &'static Options,
    /// The seed, given or drawn.
    pub seed: u64,
    /// Where stacks are kept.
    pub depot: &'static Depot,
    /// Adds up what was allocated.
    pub totals: fn() -> Totals,
    /// The socket of the process that collects reports, empty if there is none; see
    /// [`crate::sys::collector`].
    pub collector: PathBuf,
    /// Whether the process runs with raised privileges: no file is written then.
    pub secure: bool,
}

/// The thread that writes a report, 0 when none does.
static REPORTER: AtomicU32 = AtomicU32::new(0);
/// Reports written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Bytes of a report, and of the text of the process's mappings.
const REPORT_BYTES: usize = 128 << 10;
const MAPS_BYTES: usize = 512 << 10;

/// Too large for a signal stack; used by the reporting thread alone.
static BUFFERS: Lock<Buffers> = Lock::new(Buffers { report: Text::new(), maps: [0; MAPS_BYTES] });

struct Buffers {
    report: Text<REPORT_BYTES>,
    maps: [u8; MAPS_BYTES],
}

/// Writes the report of `finding`. Other threads that find something meanwhile wait; the same thread
/// coming back means that writing it failed, and leaves one line. `false` in that case.
pub fn write(context: &Context, finding: &Finding) -> bool {
    let me = thread::id();
    while let Err(reporter) = REPORTER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        if reporter == me {
            file::write_stderr(b"fencepost: a second error while reporting the first\n");
            return false;
        }
        thread::sleep_micros(1000);
    }
    {
        let mut buffers = BUFFERS.lock();
        let Buffers { report, maps } = &mut *buffers;
        report.clear();
        let modules = Modules::read(maps);
        let sources = Sources {
            options: context.options,
            seed: context.seed,
            depot: context.depot,
            totals: (context.totals)(),
            modules: &modules,
        };
        let _ = match context.options.report {
            ReportForm::Text => render::text(report, finding, &sources),
            ReportForm::Json => json::line(report, finding, &sources),
        };
        emit(context, report.as_bytes());
    }
    WRITTEN.fetch_add(1, Ordering::Relaxed);
    REPORTER.store(0, Ordering::Release);
    true
}

/// Says in one line that the program is about to end by a general protection fault. The kernel knows no
/// address for it; the instruction may tell.
pub fn note_general_protection(registers: &signal::Context) {
    let Some(mut buffers) = BUFFERS.try_lock() else { return };
    let Buffers { report, maps } = &mut *buffers;
    report.clear();
    let modules = Modules::read(maps);
    let pc = registers.pc;
    let _ = write!(report, "fencepost: general protection fault at pc 0x{pc:012x} ");
    let _ = render::place(report, pc, &modules);
    let _ = match access::without_address(registers) {
        Some(extent) => {
            let verb = if extent.written { "WRITE" } else { "READ" };
            let what = match extent.is_wild() {
                true => "a wild pointer",
                false => "a vector that is not aligned (with align=exact C objects are aligned to nothing)",
            };
            writeln!(report, ": {verb} of size {} at 0x{:012x}, {what}", extent.size, extent.start.get())
        }
        None => writeln!(
            report,
            ": a wild pointer, or a misaligned vector access (with align=exact C objects are aligned to nothing)"
        ),
    };
    file::write_stderr(report.as_bytes());
}

/// Whether the calling thread is writing a report.
pub fn reporting_here() -> bool {
    let reporter = REPORTER.load(Ordering::Acquire);
    reporter != 0 && reporter == thread::id()
}

/// Reports written so far.
pub fn written() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

/// Writes to `log_path`, or where that is unset to the collector, or where all of that is forbidden or
/// fails, to stderr.
fn emit(context: &Context, bytes: &[u8]) {
    let path = context.options.log_path.as_bytes();
    if !path.is_empty() && !context.secure {
        let mut name = Text::<300>::new();
        let mut rest = path;
        while let Some((byte, tail)) = rest.split_first() {
            if let Some(tail) = rest.strip_prefix(b"%p") {
                let _ = write!(name, "{}", thread::pid());
                rest = tail;
            } else {
                name.push_bytes(&[*byte]);
                rest = tail;
            }
        }
        name.push_bytes(&[0]);
        if let Some(fd) = file::open_append(name.as_bytes()) {
            file::write_all(fd, bytes);
            file::close(fd);
            return;
        }
    }
    let collects = path.is_empty() && !context.secure && !context.collector.as_bytes().is_empty();
    if !collects || !collector::deliver(context.collector.as_bytes(), bytes) {
        file::write_stderr(bytes);
    }
}

/// Reports a misuse that a call found, then ends the process unless `on_error=continue`.
pub fn misuse(context: &Context, finding: &Finding) {
    if !write(context, finding) {
        signal::abort_process();
    }
    match context.options.on_error {
        OnError::Continue => {}
        OnError::Exit => die::exit_now(i32::try_from(context.options.exitcode).unwrap_or(1)),
        OnError::Abort => signal::abort_process(),
    }
}
