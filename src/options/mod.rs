//! What can be set, by whom, and in which order.
//!
//! [`table`] is the one list: a row gives a field of [`Options`], its type, default, range and help
//! text. [`parse`] turns bytes into options and warnings and touches nothing else.
//!
//! Later sources win: defaults, `/etc/fencepost.conf`, the builder or the program's symbol
//! `fencepost_options`, the environment variable `FENCEPOST_OPTIONS` (ignored when the kernel set
//! `AT_SECURE`), the launcher's flags (which travel at the end of the environment variable).

pub mod parse;
pub mod table;
mod value;

pub use parse::{Warning, apply, apply_text};
pub use table::{Options, ROWS, Row};
pub use value::{
    Align, Foreign, GuardSide, Guards, Mebibytes, Mode, OnError, OptionValue, PathBuf, ReportForm, Seal,
    Unmap,
};
