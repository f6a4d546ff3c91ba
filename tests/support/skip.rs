//! Names what could not be tested. With `CI` set that is a failure: CI installs everything.

use std::env;
use std::io::{self, Write};

/// Says that `what` was not tested, also when the test harness captures output.
///
/// # Panics
/// If `CI` is set.
pub fn skip(what: &str) {
    let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!in_ci, "skipped in CI: {what}");
    name(what);
}

/// Says that `what` was not tested for want of something that CI does not install either.
pub fn name(what: &str) {
    let _ = io::stderr().write_all(format!("skipped: {what}\n").as_bytes());
}
