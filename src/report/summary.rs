//! The counts at the end of a process that went on after errors.

use super::json;
use super::modules::Modules;
use super::render;
use super::suppress::Rules;
use super::tally::{self, Tally};
use crate::sys::thread;
use crate::text::Excerpt;
use core::fmt::{self, Write};

/// Distinct errors, and suppressions, that are listed.
const LISTED: usize = 100;
/// Bytes of a suppression that are written.
const RULE_BYTES: usize = 300;

/// A line with the sums, then one for each distinct error and for each suppression that was used.
pub fn text(out: &mut dyn Write, tally: &Tally, rules: &Rules, modules: &Modules<'_>) -> fmt::Result {
    let pid = thread::pid();
    let (errors, distinct) = (tally::errors(), tally.distinct());
    writeln!(
        out,
        "=={pid}==SUMMARY: fencepost: {errors} errors, {distinct} distinct, {} suppressed",
        tally::suppressed(),
    )?;
    for place in tally.places().take(LISTED) {
        write!(out, "    {} {}", place.count, place.kind.name())?;
        if place.pc != 0 {
            write!(out, " ")?;
            render::place(out, place.pc, modules)?;
        }
        writeln!(out)?;
    }
    if distinct > LISTED {
        writeln!(out, "    and {} more", distinct.saturating_sub(LISTED))?;
    }
    for (bytes, count) in rules.used().take(LISTED) {
        writeln!(out, "    {count} suppressed by {}", Excerpt { bytes, most: RULE_BYTES })?;
    }
    let more = rules.used().count().saturating_sub(LISTED);
    if more != 0 {
        writeln!(out, "    and by {more} more")?;
    }
    Ok(())
}

/// The same as one JSON object on one line.
pub fn json(out: &mut dyn Write, tally: &Tally, modules: &Modules<'_>) -> fmt::Result {
    write!(
        out,
        "{{\"tool\":\"fencepost\",\"version\":1,\"pid\":{},\"summary\":{{\"errors\":{},\"suppressed\":{},\"distinct\":[",
        thread::pid(),
        tally::errors(),
        tally::suppressed(),
    )?;
    for (index, place) in tally.places().take(LISTED).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{{\"kind\":\"{}\",\"count\":{},\"frame\":", place.kind.name(), place.count)?;
        json::frame(out, place.pc, true, modules)?;
        write!(out, "}}")?;
    }
    writeln!(out, "]}}}}")
}
