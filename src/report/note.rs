//! What is said with a stack and is no error: an allocation that was refused or filled, a fault of the program's own.

use super::fatal::{self, Context};
use super::json;
use super::render;
use crate::options::ReportForm;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sys::thread;
use crate::trace::Frames;
use core::fmt;

/// Whether faults that are the program's own are told of, too.
static TELLS_OF_OWN: AtomicBool = AtomicBool::new(false);

/// From now on a fault by which the program ends is told of with its stack, whoever's it is: an allocation was refused.
pub fn tell_of_own_faults() {
    TELLS_OF_OWN.store(true, Ordering::Relaxed);
}

/// Whether [`tell_of_own_faults`] was called.
pub(super) fn tells_of_own_faults() -> bool {
    TELLS_OF_OWN.load(Ordering::Relaxed)
}

/// Says `what` and the stack, all of whose frames are return addresses.
pub fn note(context: &Context, what: fmt::Arguments<'_>, frames: &Frames) {
    fatal::write_pieces(context, |out, modules| {
        let pid = thread::pid();
        let _ = match context.options.report {
            ReportForm::Text => writeln!(out, "=={pid}==NOTE: fencepost: {what}")
                .and_then(|()| render::frames(out, frames, true, modules)),
            ReportForm::Json => write!(
                out,
                "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{pid},\"note\":\"{what}\",\"frames\":"
            )
            .and_then(|()| json::frames(out, frames, true, modules))
            .and_then(|()| writeln!(out, "}}")),
        };
        true
    });
}
