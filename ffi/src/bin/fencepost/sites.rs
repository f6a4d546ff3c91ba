//! The table in which a run's allocations are counted by stack.

use crate::failure::Failure;
use crate::input::unique;
use fencepost_core::heap::sites::{Counted, MAGIC, TABLE_BYTES, read_table};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A table, empty until a run has it as its `site_table`.
pub struct Table(PathBuf);

/// What a run counted.
pub struct Counts {
    /// Allocations.
    pub all: u64,
    /// Where they come from, in the order of their first.
    pub sites: Vec<Counted>,
}

impl Table {
    /// Makes one, in a file that goes away with it.
    pub fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(unique(0));
        let make = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&MAGIC.to_ne_bytes())?;
            file.set_len(TABLE_BYTES as u64)
        };
        make().map_err(|error| Failure::new(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    /// The file's name.
    pub fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// What was counted.
    pub fn read(&self) -> Result<Counts, Failure> {
        let bytes = fs::read(&self.0)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", self.0.display())))?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)))
            .collect();
        let Some((all, sites)) = read_table(&words) else {
            return Err(Failure::new("the table of allocation stacks was damaged"));
        };
        let mut sites: Vec<Counted> = sites.collect();
        sites.sort_unstable_by_key(|site| (site.first, site.hash));
        Ok(Counts { all, sites })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
