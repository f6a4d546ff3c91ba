//! Writes a report, one at a time, and ends the process or lets it go on.

use super::finding::Finding;
use super::modules::Modules;
use super::render::{self, Sources};
use super::suppress::RULES;
use super::tally::{self, TALLY};
use super::{access, json, replay, turn};
use crate::addr::Addr;
use crate::canary::Content;
use crate::fault::Object;
use crate::options::{OnError, Options, PathBuf, ReportForm};
use crate::stats::Totals;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, Rank};
use crate::sys::{collector, file, process, signal, thread};
use crate::text::{Excerpt, Text};
use crate::trace::{Depot, Frames};
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
    /// Says what the allocator put at an address, near the object that the report is about.
    pub content: fn(Addr, Option<&Object>) -> Content,
    /// The socket of the process that collects reports, empty if there is none; see
    /// [`crate::sys::collector`].
    pub collector: PathBuf,
    /// Whether the process runs with raised privileges: no file is written then.
    pub secure: bool,
}

/// What became of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was reported.
    Written,
    /// Its like, or the same of its object, was reported before; the program goes on.
    Known,
    /// A suppression covers it; the program goes on.
    Suppressed,
    /// The thread was writing a report already.
    Nested,
}

/// Reports written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Bytes of a report, of which three stacks of 32 frames take 384 KiB at most, and of the text of the process's mappings.
const REPORT_BYTES: usize = 512 << 10;
const MAPS_BYTES: usize = 512 << 10;

/// Too large for a signal stack; used by the reporting thread alone.
static BUFFERS: Lock<Buffers> =
    Lock::new(Rank::Buffers, Buffers { report: Text::new(), maps: [0; MAPS_BYTES] });

struct Buffers {
    report: Text<REPORT_BYTES>,
    maps: [u8; MAPS_BYTES],
}

/// Reports `finding` unless it is known or suppressed. Other threads that find something meanwhile wait;
/// the same thread coming back means that writing failed, and leaves one line.
pub fn report(context: &Context, finding: &Finding) -> Outcome {
    if !turn::enter(finding.is_fault()) {
        file::write_stderr(b"fencepost: a second error while reporting the first\n");
        return Outcome::Nested;
    }
    let outcome = report_alone(context, finding);
    if outcome == Outcome::Written {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that ends the process by itself lets no other report meanwhile. A fault ends it at the
    // return, which is not certain to fault again: others must be able to go on.
    // A child of `vfork` ends itself and not the process, whose next report is another's turn.
    let ends = outcome == Outcome::Written && context.options.on_error != OnError::Continue;
    if !ends || finding.is_fault() || !thread::is_own_process() {
        turn::leave();
    }
    outcome
}

fn report_alone(context: &Context, finding: &Finding) -> Outcome {
    let goes_on = context.options.on_error == OnError::Continue;
    // The turn's owner has these alone.
    let (Some(mut tally), Some(mut buffers)) = (TALLY.enter(), BUFFERS.enter()) else {
        return Outcome::Nested;
    };
    // Where the program does not go on after errors, only after one that is suppressed.
    if tally.know_object(finding) {
        return Outcome::Known;
    }
    let Buffers { report, maps } = &mut *buffers;
    report.clear();
    let modules = Modules::read(maps).with(context.options);
    if is_suppressed(context, finding, &modules) {
        tally::count_suppressed();
        return Outcome::Suppressed;
    }
    let known = tally.count(finding, context.depot);
    if goes_on && known {
        return Outcome::Known;
    }
    let innermost = finding.frames.as_slice().first().copied().unwrap_or(0);
    // What the instruction accesses is a piece of what the function was told to.
    let in_library = finding.is_fault() && finding.wild.is_none() && modules.is_c_library(innermost);
    let finding = &if in_library { of_the_call(finding, &modules) } else { *finding };
    let sources = Sources {
        options: context.options,
        seed: context.seed,
        depot: context.depot,
        totals: (context.totals)(),
        content: context.content,
        modules: &modules,
    };
    let _ = match context.options.report {
        ReportForm::Text => render::text(report, finding, &sources),
        ReportForm::Json => json::line(report, finding, &sources),
    };
    emit(context, report.as_bytes());
    Outcome::Written
}

/// A fault in the C library told as the call that made it: by the function's name, and by what it was told to copy where
/// that can be found out.
fn of_the_call(finding: &Finding, modules: &Modules<'_>) -> Finding {
    let called = access::called(modules, &finding.frames);
    let copies = called.is_some_and(|name| {
        matches!(name.as_bytes(), b"memcpy" | b"memmove" | b"memset")
            && modules.is_called_outside(&finding.frames)
    });
    let fault = finding.fault.filter(|_| copies);
    let extent = fault.and_then(|context| {
        let copied = replay::follow(&context)?;
        let start = copied.side(context.write?, finding.address)?;
        Some((start, copied.size))
    });
    Finding { in_library: true, called, extent, ..*finding }
}

/// For errors found at exit, which have no stack of their own, suppressions match the allocation stack.
fn is_suppressed(context: &Context, finding: &Finding, modules: &Modules<'_>) -> bool {
    let Some(mut rules) = RULES.enter().filter(|rules| !rules.is_empty()) else { return false };
    let frames = match finding.object {
        Some(object) if finding.frames.as_slice().is_empty() => {
            context.depot.get(object.history.allocated.stack)
        }
        _ => finding.frames,
    };
    rules.cover(finding.kind.name(), &frames, modules)
}

/// Writes pieces of text that are no report of an error: `piece` fills the empty buffer and says whether it
/// was the last. Nothing is written by a thread that is reporting.
pub fn write_pieces(context: &Context, piece: impl FnMut(&mut dyn Write, &Modules<'_>) -> bool) {
    if turn::enter(false) {
        write_in_turn(context, piece);
        turn::leave();
    }
}

fn write_in_turn(context: &Context, mut piece: impl FnMut(&mut dyn Write, &Modules<'_>) -> bool) {
    let Some(mut buffers) = BUFFERS.enter() else { return };
    let Buffers { report, maps } = &mut *buffers;
    let modules = Modules::read(maps).with(context.options);
    loop {
        report.clear();
        let last = piece(report, &modules);
        emit(context, report.as_bytes());
        if last {
            break;
        }
    }
}

/// Whether a suppression covers a leak allocated from `frames`; in a turn.
pub fn leak_is_suppressed(frames: &Frames, modules: &Modules<'_>) -> bool {
    let covered = RULES.enter().is_some_and(|mut rules| rules.cover(super::suppress::LEAK, frames, modules));
    if covered {
        tally::count_suppressed();
    }
    covered
}

/// Writes what was found in all, if anything was; whether there were errors. At once, or not at all, if `now`: who is
/// reporting may wait for a reader that does not read.
pub fn summarise(context: &Context, now: bool) -> bool {
    let errors = tally::errors();
    if errors == 0 && tally::suppressed() == 0 {
        return false;
    }
    let in_turn = if now { turn::try_enter(false) } else { turn::enter(false) };
    if in_turn {
        write_in_turn(context, |out, modules| {
            let (Some(tally), Some(rules)) = (TALLY.enter(), RULES.enter()) else { return true };
            let _ = match context.options.report {
                ReportForm::Text => tally::text(out, &tally, &rules, modules),
                ReportForm::Json => tally::json(out, &tally, modules),
            };
            true
        });
        turn::leave();
    }
    errors != 0
}

/// Says in one line that the program is about to end by a general protection fault, for which there is no report: the
/// kernel knows no address for it, and the instruction has no pointer outside the address space.
pub fn note_general_protection(registers: &signal::Context) {
    let mut why = Text::<200>::new();
    let _ = match access::without_address(registers) {
        Some(extent) if extent.is_wild() => return,
        Some(extent) => {
            let verb = if extent.written { "WRITE" } else { "READ" };
            let what = "a vector that is not aligned (with align=exact C objects are aligned to nothing)";
            write!(why, "{verb} of size {} at 0x{:012x}, {what}", extent.size, extent.start.get())
        }
        None => write!(
            why,
            "a wild pointer, or a misaligned vector access (with align=exact C objects are aligned to nothing)"
        ),
    };
    note("general protection fault", registers.pc, why.as_bytes());
}

/// Says in one line that a thread has used up its stack.
pub fn note_stack_overflow(pc: usize) {
    note("stack overflow", pc, b"the address is no heap memory, and at the stack pointer");
}

/// Says in one line what the program is about to end by, and where.
pub fn note(what: &str, pc: usize, why: &[u8]) {
    if !turn::try_enter(true) {
        return;
    }
    if let Some(mut buffers) = BUFFERS.enter() {
        write_note(&mut buffers, what, pc, why);
    }
    turn::leave();
}

fn write_note(buffers: &mut Buffers, what: &str, pc: usize, why: &[u8]) {
    let Buffers { report, maps } = buffers;
    report.clear();
    let modules = Modules::read(maps);
    let _ = write!(report, "fencepost: {what} at pc 0x{pc:012x} ");
    let _ = render::location(report, pc, &modules);
    report.push_bytes(b": ");
    report.push_bytes(why);
    report.push_bytes(b"\n");
    signal::without_sigpipe(|| file::write_stderr(report.as_bytes()));
}

/// Reports written so far.
pub fn written() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

/// Writes to `log_path`, or where that is unset to the collector, or where all of that is forbidden or
/// fails, to stderr.
fn emit(context: &Context, bytes: &[u8]) {
    signal::without_sigpipe(|| {
        let path = context.options.log_path.as_bytes();
        if !path.is_empty() && !context.secure {
            match append(path, bytes) {
                Ok(()) => return,
                Err(errno) => {
                    let mut line = Text::<512>::new();
                    let path = Excerpt { bytes: path, most: 400 };
                    let _ = write!(line, "fencepost: cannot write to {path} (errno {errno}); the report:");
                    line.end_line();
                    file::write_stderr(line.as_bytes());
                }
            }
        }
        let collects = path.is_empty() && !context.secure && !context.collector.as_bytes().is_empty();
        if !collects || !collector::deliver(context.collector.as_bytes(), bytes) {
            file::write_stderr(bytes);
        }
    });
}

/// Appends to the file that `pattern` names, `%p` standing for the process; the errno if that fails.
fn append(pattern: &[u8], bytes: &[u8]) -> Result<(), i32> {
    let mut name = Text::<300>::new();
    let mut rest = pattern;
    while let Some((byte, tail)) = rest.split_first() {
        rest = match rest.strip_prefix(b"%p") {
            Some(tail) => {
                let _ = write!(name, "{}", thread::pid());
                tail
            }
            None => {
                name.push_bytes(&[*byte]);
                tail
            }
        };
    }
    name.push_bytes(&[0]);
    if name.truncated() {
        return Err(libc::ENAMETOOLONG);
    }
    file::append(name.as_bytes(), bytes)
}

/// Reports a misuse that a call found, then ends the process unless it is to go on.
pub fn misuse(context: &Context, finding: &Finding) {
    match report(context, finding) {
        Outcome::Known | Outcome::Suppressed => return,
        Outcome::Nested => signal::abort_process(),
        Outcome::Written => {}
    }
    match context.options.on_error {
        OnError::Continue => {}
        OnError::Exit => {
            before_dying(context);
            process::exit_now(exit_status(context));
        }
        OnError::Abort => {
            before_dying(context);
            signal::abort_process();
        }
    }
}

/// The exit status that `exitcode` asks for.
pub fn exit_status(context: &Context) -> i32 {
    i32::try_from(context.options.exitcode).unwrap_or(1)
}

/// Waits for a debugger, if that is wanted.
pub fn before_dying(context: &Context) {
    let seconds = context.options.sleep_before_dying;
    if seconds == 0 {
        return;
    }
    let (pid, tid) = (thread::pid(), thread::id());
    let mut line = Text::<200>::new();
    let _ = writeln!(line, "fencepost: T{tid} waits {seconds} s before the end: gdb -p {pid}");
    file::write_stderr(line.as_bytes());
    thread::sleep_seconds(seconds);
}

/// Ends what a fault in the middle of a report leaves: the process, as that report would have ended it.
/// Returns if that is by the fault's signal.
pub fn end_failed_report(number: i32) {
    file::write_stderr(b"fencepost: a fault while reporting an error\n");
    if turn::is_of_fault() {
        signal::restore_default(number);
    } else {
        signal::abort_process();
    }
}

/// Releases what the calling thread's report has, which goes on no more.
pub(super) fn abandon() {
    // SAFETY: the report's guards lie on a stack that others use by now, so this thread uses none of them any
    // more.
    unsafe {
        TALLY.abandon(|_| ());
        RULES.abandon(|_| ());
        BUFFERS.abandon(|_| ());
    }
}

/// What a thread of another process left taken.
pub(super) struct Orphans(u32);

impl Orphans {
    /// Of a thread that had this id.
    pub(super) const fn of(owner: u32) -> Self {
        Self(owner)
    }

    /// Releases it.
    pub(super) fn release(&self) {
        // SAFETY: what was in use under these locks is no more: their owner had the turn, and is gone. Buffers are
        // cleared before use; counts and rules change a number at a time.
        unsafe {
            if TALLY.owner() == self.0 {
                TALLY.clear(|_| ());
            }
            if RULES.owner() == self.0 {
                RULES.clear(|_| ());
            }
            if BUFFERS.owner() == self.0 {
                BUFFERS.clear(|_| ());
            }
        }
    }
}

/// In a forked child: nobody else reports, and the errors are the parent's.
///
/// # Safety
/// As [`Lock::inherit`].
pub unsafe fn in_child() {
    // SAFETY: as the caller says.
    unsafe {
        turn::in_child();
        TALLY.inherit(|_| ());
        RULES.inherit(|_| ());
        BUFFERS.inherit(|_| ());
    }
    if let Some(mut tally) = TALLY.try_lock() {
        tally.forget();
    }
    if let Some(mut rules) = RULES.try_lock() {
        rules.forget_uses();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Event, History, Kind};
    use crate::report::handler::{self, Whose};
    use crate::request::Origin;
    use crate::trace::Stack;
    use std::boxed::Box;
    use std::os::unix::process::ExitStatusExt;
    use std::string::String;

    const CASE: &str = "FENCEPOST_FAILING_REPORT";

    fn wild() -> *const u64 {
        Addr::new(core::hint::black_box(64)).as_ptr()
    }

    fn faulting() -> Totals {
        // SAFETY: none: the fault is what is tested, in a process of its own.
        let value = unsafe { wild().read_volatile() };
        Totals { slab: value, ..Totals::default() }
    }

    fn erring() -> Totals {
        misuse(context(erring), &finding());
        Totals::default()
    }

    /// An object whose record is nonsense.
    fn forged() -> Object {
        let nonsense = Event { thread: u32::MAX, stack: u32::MAX };
        let history = History { allocated: nonsense, freed: nonsense };
        let (start, size) = (Addr::new(usize::MAX - 3), Some(usize::MAX));
        Object { start, size, freed: true, origin: Origin::NewArray, history }
    }

    fn finding() -> Finding {
        let fault = crate::fault::Fault::new(Kind::DoubleFree, Addr::new(usize::MAX), Some(forged()));
        let mut frames = Frames::EMPTY;
        [usize::MAX, 0, 1].into_iter().for_each(|pc| frames.push(pc));
        Finding::of_fault(fault, frames, (usize::MAX, 0))
    }

    fn context(totals: fn() -> Totals) -> &'static Context {
        static DEPOT: Depot = Depot::EMPTY;
        let options = Box::leak(Box::new(Options::DEFAULT));
        Box::leak(Box::new(Context {
            options,
            seed: 1,
            depot: &DEPOT,
            totals,
            content: |_, _| Content::Program,
            secure: false,
            collector: PathBuf::EMPTY,
        }))
    }

    struct Forged;

    impl handler::Heap for Forged {
        fn context() -> Option<&'static Context> {
            Some(context(faulting))
        }

        fn whose(_: Addr) -> Whose {
            Whose::Ours(Some(forged()))
        }
        fn mend(_: Addr) -> bool {
            false
        }
        fn open(_: Addr) -> bool {
            false
        }
        fn poisoned(_: Addr) -> Option<core::ops::Range<usize>> {
            None
        }

        fn stack() -> Stack {
            Stack::default()
        }
    }

    fn fail(case: &str) {
        let totals = match case {
            "sound" => Totals::default,
            "erring" => erring,
            _ => faulting,
        };
        let context = context(totals);
        handler::install::<Forged>();
        if case == "fault" {
            faulting();
        }
        misuse(context, &finding());
    }

    #[test]
    fn a_report_that_fails_leaves_a_line_and_the_signal() {
        if let Ok(case) = std::env::var(CASE) {
            return fail(&case);
        }
        let name = "report::fatal::tests::a_report_that_fails_leaves_a_line_and_the_signal";
        for (case, signal, line) in [
            ("sound", libc::SIGABRT, "SUMMARY: fencepost: double-free"),
            ("check", libc::SIGABRT, "fencepost: a fault while reporting an error\n"),
            ("fault", libc::SIGSEGV, "fencepost: a fault while reporting an error\n"),
            ("erring", libc::SIGABRT, "fencepost: a second error while reporting the first\n"),
        ] {
            let mut command = std::process::Command::new(std::env::current_exe().expect("a test has a name"));
            let output = command.args([name, "--exact", "--nocapture"]).env(CASE, case).output();
            let output = output.expect("a test can be executed");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(signal), "{case}: {text}");
            assert!(text.contains(line), "{case}: {text}");
        }
    }
}
