//! Checks on request and at exit, and what a process says and answers when it ends.

use super::start::{self, is_started, totals};
use super::{Heap, heap, leaks, thread};
use crate::options::OnError;
use crate::page;
use crate::report::fatal;
use crate::request::Site;
use crate::slab;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sys::errno::ErrnoGuard;
use crate::sys::pkey::Unsealed;
use crate::sys::{die, file, thread as sys};
use crate::text::Text;
use core::fmt::Write;

/// Checks every live object's canaries and all freed slab memory; reports what is wrong. The number of
/// errors found.
pub fn check() -> usize {
    if !is_started() {
        return 0;
    }
    let _unsealed = Unsealed::begin();
    let heap = heap();
    let mut errors = 0;
    let mut report = |fault| {
        errors += 1;
        heap.misuse(fault, Site::default());
    };
    let mut slots = slab::sweep::Cursor::START;
    while let Some(fault) = thread::with(|_| slab::sweep::next_wrong(&mut slots)).flatten() {
        report(fault);
    }
    let mut objects = page::Cursor::START;
    while let Some(fault) = thread::with(|_| heap.page.next_wrong(&mut objects)).flatten() {
        report(fault);
    }
    errors
}

/// Lists what is still allocated and what of it is lost. The number of lost objects that no suppression
/// covers.
#[inline(never)]
pub fn check_leaks() -> u64 {
    if !is_started() {
        return 0;
    }
    let registers = sys::kept_registers();
    // What lies below this frame's end is ours.
    let (_, _, sp) = sys::frame();
    let (_errno, _unsealed) = (ErrnoGuard::new(), Unsealed::begin());
    leaks::report(sp, &registers).unwrap_or(0)
}

/// Whether the final check was made.
static FINISHED: AtomicBool = AtomicBool::new(false);

/// What happens when the process ends in order: the final check, the leaks, the statistics.
pub fn on_exit() {
    if !is_started() {
        return;
    }
    FINISHED.store(true, Ordering::Relaxed);
    if let Some(status) = heap().finish() {
        die::exit_anew(status);
    }
}

/// The end of a program that has the heap as its allocator and went on after errors, whether it calls
/// [`crate::Fencepost::finish`] or not: it says what was found and has the status for it.
extern "C" fn at_end() {
    if !is_started() || !start::is_own_process() || heap().options.on_error != OnError::Continue {
        return;
    }
    if !FINISHED.load(Ordering::Relaxed) {
        on_exit();
        return;
    }
    let status = {
        let _unsealed = Unsealed::begin();
        heap().final_status(false)
    };
    if let Some(status) = status {
        die::exit_anew(status);
    }
}

// SAFETY: entries of this section are functions of the C ABI without arguments, which the C library calls when the program
// ends or the object is closed.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

/// What happens when the process ends at once (`_exit`) with `status`: the summary of errors. The status it
/// is to end with.
pub fn on_quick_exit(status: i32) -> i32 {
    if !is_started() || !start::is_own_process() {
        return status;
    }
    let _unsealed = Unsealed::begin();
    // In a handler, perhaps in the middle of a report.
    heap().final_status(true).unwrap_or(status)
}

impl Heap {
    /// The final check, the leaks, the statistics; the exit status if that is to replace the program's.
    fn finish(&self) -> Option<i32> {
        let _unsealed = Unsealed::begin();
        if self.options.check_at_exit {
            check();
        }
        if self.options.stats {
            let mut line = Text::<512>::new();
            let _ = writeln!(
                line,
                "fencepost: {}; {} pages live in lanes; guards by {}; {} reports; seed {}",
                totals(),
                self.page.live_pages(),
                slab::layout::layout().backend.name(),
                fatal::written(),
                self.seed,
            );
            file::write_stderr(line.as_bytes());
        }
        let lost = if self.options.leaks == 0 { 0 } else { check_leaks() };
        self.final_status(false).or_else(|| leaks::exit_status(lost))
    }

    /// Sums up what was found, `now` or not at all if somebody is reporting; the exit status if that is to replace the program's.
    fn final_status(&self, now: bool) -> Option<i32> {
        let context = super::reports()?;
        let errors = fatal::summarise(context, now);
        let replaces = errors && self.options.on_error == OnError::Continue && self.options.exitcode != 0;
        replaces.then(|| fatal::exit_status(context))
    }
}
