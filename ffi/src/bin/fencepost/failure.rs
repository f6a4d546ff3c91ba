//! What ends the launcher, and the exit status that says so.
//!
//! The statuses are those of `env` and the shells: 127 the program was not found, 126 it was found and
//! cannot be executed, 125 the launcher itself failed.

/// The launcher itself failed: a bad flag, no library.
pub const TROUBLE: u8 = 125;
/// The program exists and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program does not exist.
pub const NOT_FOUND: u8 = 127;

/// An error that ends the launcher.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong, for a person; no prefix, no final stop.
    pub message: String,
    /// The exit status.
    pub code: u8,
}

impl Failure {
    /// A failure of the launcher itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: TROUBLE }
    }

    /// A failure to execute the program.
    pub fn executing(message: impl Into<String>, code: u8) -> Self {
        Self { message: message.into(), code }
    }
}
