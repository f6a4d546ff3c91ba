//! The table of options, for a terminal and for the README.

use crate::settings::default_of;
use fencepost_core::options::ROWS;
use std::fmt::Write;

/// Two lines an option: name, default and range; what it does.
pub fn table() -> String {
    let name_width = ROWS.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let default_width = ROWS.iter().map(|row| default_of(row).len()).max().unwrap_or(0).max(7);
    let mut out = String::new();
    let mut line = |name: &str, default: &str, range: &str| {
        let _ = writeln!(out, "{name:name_width$}  {default:default_width$}  {range}");
    };
    line("NAME", "DEFAULT", "RANGE");
    for row in ROWS {
        line(row.name, &default_of(row), row.range);
        line("", "", row.help);
    }
    out.push_str(
        "\nFENCEPOST_OPTIONS=name=value:name=value sets them; so do flags of `run` and `hunt`,\n\
         with dashes for underscores: --guard-side left.\n",
    );
    out
}

/// The same as a Markdown table.
pub fn markdown() -> String {
    let mut out = String::from("| option | default | range | |\n|---|---|---|---|\n");
    for row in ROWS {
        let cell = |text: &str| text.replace('|', "\\|");
        let default = default_of(row);
        let default = if default == "unset" { default } else { format!("`{default}`") };
        let (range, help) = (cell(row.range), cell(row.help));
        let _ = writeln!(out, "| `{}` | {default} | {range} | {help} |", row.name);
    }
    out
}
