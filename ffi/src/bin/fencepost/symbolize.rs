//! `fencepost symbolize`: a saved log with functions, files and lines.

use crate::colour::{self, When};
use crate::failure::Failure;
use crate::rewrite::rewrite;
use crate::symbols::Symbols;
use crate::{collect, print, sarif};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

/// Prints the log in `file`, or on stdin, symbolised.
pub fn symbolize(file: Option<&Path>, colour: When, sarif: Option<&Path>) -> Result<ExitCode, Failure> {
    let (name, log) = match file.filter(|path| *path != Path::new("-")) {
        Some(path) => (path.display().to_string(), fs::read(path)),
        None => {
            let mut log = Vec::new();
            ("stdin".to_owned(), io::stdin().lock().read_to_end(&mut log).map(|_| log))
        }
    };
    let log = log.map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    let (text, reports) = rewrite(&String::from_utf8_lossy(&log), &mut Symbols::default());
    if let Some(path) = sarif {
        collect::write_sarif(path, &sarif::log(&reports))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    print(&if colour.applies(&io::stdout()) { colour::paint(&text) } else { text })?;
    Ok(ExitCode::SUCCESS)
}
