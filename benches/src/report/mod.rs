//! Tables in Markdown and charts in SVG, made from records and from nothing else.

pub mod apps;
pub mod chart;
pub mod micro;
pub mod threads;
pub mod vm;

use crate::heap::HEAPS;
use std::fmt::Write;

/// A Markdown table under construction.
pub struct Table {
    text: String,
}

impl Table {
    pub fn new<Name: AsRef<str>>(corner: &str, columns: impl IntoIterator<Item = Name>) -> Self {
        let mut text = format!("| {corner} |");
        let mut rule = "|---|".to_owned();
        for column in columns {
            text += &format!(" {} |", column.as_ref());
            rule += "---:|";
        }
        Self { text: format!("{text}\n{rule}\n") }
    }

    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        let _ = write!(self.text, "| {name} |");
        for cell in cells {
            let _ = write!(self.text, " {cell} |");
        }
        self.text.push('\n');
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// The allocators that `present` names, in the order of the one table; others follow in the order they come.
pub fn columns<'a>(present: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in present.filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| HEAPS.iter().position(|heap| heap.name == *name).unwrap_or(HEAPS.len()));
    names
}

/// A number with about three digits.
pub fn short(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".to_owned(),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Nanoseconds, or microseconds from ten thousand on.
pub fn time(ns: f64) -> String {
    if ns >= 10_000.0 { format!("{} µs", short(ns / 1000.0)) } else { short(ns) }
}

/// Where a table's figures come from: the record, the machine, what was skipped.
pub fn source<Row>(record: &crate::record::Record<Row>) -> String {
    let value = |key: &str| record.get(key).unwrap_or("unknown").to_owned();
    let name = record.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut text = format!(
        "Record `{name}`: {}, {} cores, {}, Linux {}, {}; fencepost {}; load at the start {}.\n",
        value("cpu"),
        value("cores"),
        value("memory"),
        value("kernel"),
        value("system"),
        value("fencepost"),
        value("load"),
    );
    for (key, reason) in record.head.iter().filter(|(key, _)| key.starts_with("skipped ")) {
        let _ = writeln!(text, "\n{key}: {reason}.");
    }
    text
}
