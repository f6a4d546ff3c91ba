//! Writes the newest records' tables and charts into the README, between its markers.
//!
//! A section is what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`. Charts go to `charts/`.

use fencepost_benches::cargo::home;
use fencepost_benches::record::{Cell, Record, Run};
use fencepost_benches::report::{Table, apps, micro, threads, vm};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::io;

/// A section's Markdown and its charts, by file name.
type Section = (String, Vec<(&'static str, String)>);

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    if argument.as_deref().is_some_and(|argument| argument != "--smoke") {
        return Err("usage: tables [--smoke], which makes everything and writes nothing".into());
    }
    let writes = argument.is_none();
    let readme = home().join("README.md");
    let mut text = fs::read_to_string(&readme)?;
    let sections = [
        ("micro", made("micro", |record: &Record<Cell>| (micro::tables(record), micro::charts(record)))?),
        (
            "micro-threads",
            made("micro-threads", |record: &Record<Cell>| {
                (threads::tables(record), threads::charts(record))
            })?,
        ),
        ("vm", made("vm", |record: &Record<Cell>| (vm::tables(record), vm::charts(record)))?),
        (
            "apps-speed",
            made("apps-speed", |record: &Record<Run>| (apps::tables(record), apps::charts(record)))?,
        ),
        (
            "apps-hunt",
            made("apps-hunt", |record: &Record<Run>| (apps::tables(record), apps::charts(record)))?,
        ),
        ("instructions", Some((instructions()?, Vec::new()))),
    ];
    let charts = home().join("charts");
    if writes {
        fs::create_dir_all(&charts)?;
    }
    for (name, section) in sections {
        let body = match section {
            None => "No record yet.\n".to_owned(),
            Some((mut body, drawn)) => {
                for (chart, svg) in drawn {
                    if writes {
                        fs::write(charts.join(format!("{chart}.svg")), svg)?;
                    }
                    let _ = write!(body, "\n![{chart}](charts/{chart}.svg)\n");
                }
                body
            }
        };
        println!("{name}: {} lines", body.lines().count());
        text = replaced(&text, name, &body).ok_or_else(|| format!("the README has no section {name}"))?;
    }
    if writes {
        fs::write(readme, text)?;
    }
    Ok(())
}

fn made<Row: serde::de::DeserializeOwned>(
    kind: &str,
    make: impl FnOnce(&Record<Row>) -> Section,
) -> io::Result<Option<Section>> {
    Ok(Record::newest(kind)?.map(|record| make(&record)))
}

/// The checked-in instruction counts as a table.
fn instructions() -> Result<String, Box<dyn Error>> {
    let path = home().join("instructions.csv");
    if !path.exists() {
        return Ok("No baseline yet.\n".to_owned());
    }
    let record = Record::<(String, String, String, usize, f64)>::read(&path)?;
    let mut table = Table::new(
        "instructions an operation",
        ["fencepost, GlobalAlloc", "fencepost, C ABI", "glibc, C ABI"],
    );
    let mut lines: Vec<(&str, usize)> = Vec::new();
    for (_, _, work, size, _) in &record.rows {
        if !lines.contains(&(work, *size)) {
            lines.push((work, *size));
        }
    }
    for line in lines {
        let columns = [("fencepost-harden", "rust"), ("fencepost-harden", "c"), ("glibc", "c")];
        table.row(
            &format!("{} {} B", line.0, line.1),
            columns.map(|(heap, api)| {
                let found = record.rows.iter().find(|row| {
                    (row.0.as_str(), row.1.as_str()) == (heap, api) && (row.2.as_str(), row.3) == line
                });
                found.map_or_else(String::new, |row| format!("{:.1}", row.4))
            }),
        );
    }
    Ok(table.finish())
}

/// `text` with the section's body in place of the old one.
fn replaced(text: &str, name: &str, body: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let start = text.find(&begin)? + begin.len();
    let stop = start + text.get(start..)?.find(&end)?;
    Some(format!("{}\n\n{}\n{}", text.get(..start)?, body.trim_end(), text.get(stop..)?))
}
