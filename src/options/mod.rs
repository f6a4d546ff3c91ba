//! Options: what can be set, by whom, and in which order.
//!
//! [`table`] is the one list: a row gives a field of [`Options`], its type, default, range and help text. [`parse`]
//! turns bytes into options and warnings, without side effects. [`item`] writes what it reads, and [`shell`] makes that
//! a word of a shell.
//!
//! Later sources win: defaults, `/etc/fencepost.conf`, the builder or the program's symbol `fencepost_options`, the
//! environment variable `FENCEPOST_OPTIONS` (ignored when the kernel set `AT_SECURE`), the launcher's flags (which
//! travel at the end of the environment variable).

pub mod parse;
pub mod table;
mod value;

pub use parse::{Warning, apply, apply_line, apply_text, item, shell, value as quoted};
pub use table::{Given, Key, Options, ROWS, Row};
pub use value::{
    Align, Count, Fill, Foreign, GuardSide, Guards, Intercept, Mebibytes, Mode, OnError, OptionValue,
    PathBuf, ReportForm, Seal, Shown, Sites, Switch, Unmap,
};
