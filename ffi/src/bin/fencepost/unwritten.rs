//! Whether a program reads heap memory that it never wrote.
//!
//! Fresh memory reads as zero. Two passes fill it with patterns that have no bit in common, `0x5a` and `0xa5`: a program
//! whose output or end differs from the first pass's reads what it never wrote. Which allocation that is, is found by
//! bisection: all stacks that allocate are listed by name, a part of them is filled, and the part that makes the
//! difference is divided until one stack is left.

use crate::attempt::{Item, Ran};
use crate::complain;
use crate::failure::Failure;
use crate::passes::{Difference, Hunt};
use crate::sites::Table;
use crate::worker::Part;
use std::fmt::Write;

/// The patterns, complements of each other.
const PATTERNS: [&str; 2] = ["0x5a", "0xa5"];
/// How objects lie: as in the pass that is compared with.
const LAYOUT: [Item<'static>; 2] = [("guard_side", "right"), ("align", "abi")];
/// Stacks that are named at most, and runs that may be spent on it.
const MOST_NAMED: usize = 8;
const MOST_RUNS: usize = 200;
/// The kind of error.
const KIND: &str = "uninitialised-memory";

/// Runs the two passes, and names what they show.
pub fn search(hunt: &mut Hunt<'_>) -> Result<(), Failure> {
    for pattern in PATTERNS {
        let ran = run(hunt, pattern, None)?;
        hunt.count();
        let name = format!("fill {pattern}");
        let verdict = hunt.ledger.take(&ran.reports, false);
        let differs = hunt.difference(&ran)?;
        if differs.is_empty() {
            let more = "; cannot see reads of unwritten memory that change neither output nor end";
            hunt.say(&name, verdict.found, verdict.new, more);
            continue;
        }
        let names: Vec<_> = differs.iter().map(|what| what.name()).collect();
        let more = format!("; the program's {} differs", names.join(" and its "));
        hunt.say(&name, verdict.found, verdict.new, &more);
        // Once more: a program may do now this, now that.
        let again = run(hunt, pattern, None)?;
        if hunt.difference(&again)?.is_empty() {
            complain("and does not a second time: it is not judged");
            continue;
        }
        return name_allocations(hunt, pattern, &differs, &ran);
    }
    Ok(())
}

fn run(hunt: &Hunt<'_>, pattern: &str, sites: Option<&str>) -> Result<Ran, Failure> {
    let mut items = LAYOUT.to_vec();
    items.push(("fill", pattern));
    items.extend(sites.map(|sites| ("fill_site", sites)));
    if sites.is_some() {
        items.push(("report", "text"));
    }
    hunt.run(&items, hunt.seed)
}

/// The search for the stacks that make a difference.
struct Search<'a, 'b> {
    hunt: &'a mut Hunt<'b>,
    pattern: &'a str,
    /// Names in ascending order.
    sites: Vec<u64>,
    runs: usize,
    /// What was found: a stack, or several that make a difference together.
    found: Vec<(usize, usize)>,
}

impl Search<'_, '_> {
    /// The notes of a run that fills the stacks of a range, if it makes a difference.
    fn differs(&mut self, from: usize, to: usize) -> Result<bool, Failure> {
        let (Some(low), Some(high)) = (self.sites.get(from), self.sites.get(to.saturating_sub(1))) else {
            return Ok(false);
        };
        let range = format!("0x{low:x}-0x{high:x}");
        self.runs += 1;
        let ran = run(self.hunt, self.pattern, Some(&range))?;
        Ok(!self.hunt.difference(&ran)?.is_empty())
    }

    /// Searches a range that makes a difference.
    fn divide(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        if to - from == 1 {
            self.found.push((from, to));
            return Ok(());
        }
        let middle = from + (to - from) / 2;
        let mut either = false;
        for (from, to) in [(from, middle), (middle, to)] {
            if self.found.len() >= MOST_NAMED || self.runs >= MOST_RUNS {
                return Ok(());
            }
            if self.differs(from, to)? {
                either = true;
                self.divide(from, to)?;
            }
        }
        if !either {
            self.found.push((from, to));
        }
        Ok(())
    }
}

/// Finds and tells which allocations are read before they are written.
fn name_allocations(
    hunt: &mut Hunt<'_>,
    pattern: &str,
    differs: &[Difference],
    ran: &Ran,
) -> Result<(), Failure> {
    let whole = effect(hunt, pattern, differs, ran);
    let table = Table::new()?;
    let path = table.path().to_owned();
    let mut items = LAYOUT.to_vec();
    items.extend([("fill", pattern), ("site_table", path.as_str())]);
    hunt.run(&items, hunt.seed)?;
    let mut sites: Vec<u64> = table.read()?.sites.iter().map(|site| site.hash).collect();
    sites.sort_unstable();
    let end = sites.len();
    let mut search = Search { hunt, pattern, sites, runs: 0, found: Vec::new() };
    if end != 0 {
        search.divide(0, end)?;
    } else {
        search.found.push((0, 0));
    }
    let Search { sites, runs, found, .. } = search;
    for (from, to) in found {
        let names = sites.get(from..to).unwrap_or_default();
        let stacks = match names.len() {
            1..=MOST_NAMED => stacks(hunt, pattern, names)?,
            _ => Vec::new(),
        };
        let first = stacks.first();
        // Once more, since a program may do now this, now that: one stack by itself, several as the whole.
        let shown = match names.len() {
            1 => first.is_some_and(|stack| !stack.effect.is_empty()),
            _ => is_certain(hunt, pattern)?,
        };
        if !shown {
            complain("it does not differ each time: it is not judged");
            continue;
        }
        let place = first.map_or_else(String::new, |stack| format!(" {}", stack.part.place));
        // Of several each may make no difference by itself.
        let own = first.map(|stack| stack.effect.as_str()).filter(|effect| !effect.is_empty());
        let mut text = format!("{HEAD}{}", own.unwrap_or(&whole));
        if stacks.is_empty() {
            let _ = writeln!(text, "{} allocation stacks make the difference together", names.len());
        } else if names.len() > 1 {
            let _ = writeln!(text, "{} allocation stacks make the difference together:", names.len());
        }
        for stack in &stacks {
            text.push_str(&stack.text);
        }
        let _ = writeln!(text, "SUMMARY: fencepost: {KIND}{place}");
        if let [site] = names {
            let seed = hunt.seed;
            let _ = writeln!(
                text,
                "rerun with: FENCEPOST_OPTIONS=mode=hunt:seed={seed}:fill={pattern}:fill_site=0x{site:x}"
            );
        }
        hunt.ledger.enter_own(
            KIND,
            &format!("memory is read that was never written; allocated at{place}"),
            &text,
            &stacks.iter().map(|stack| stack.part.clone()).collect::<Vec<_>>(),
        );
    }
    complain(&format!("searched by {runs} runs over {end} allocation stacks"));
    Ok(())
}

/// Whether the program differs again with the whole filled, and not with nothing filled.
fn is_certain(hunt: &mut Hunt<'_>, pattern: &str) -> Result<bool, Failure> {
    let filled = run(hunt, pattern, None)?;
    let plain = run(hunt, "0", None)?;
    Ok(!hunt.difference(&filled)?.is_empty() && hunt.difference(&plain)?.is_empty())
}

/// How its report begins.
const HEAD: &str = "==================================================================\n\
                    fencepost: uninitialised-memory: heap memory is read that the program never wrote\n";

/// What a run shows, a line for each thing that differs from the first pass's.
fn effect(hunt: &Hunt<'_>, pattern: &str, differs: &[Difference], ran: &Ran) -> String {
    let mut effect = String::new();
    for (what, first) in differs.iter().zip(std::iter::repeat(hunt.first())) {
        if let Some(first) = first {
            let (name, detail) = (what.name(), what.detail(first, ran));
            // Writing to a string does not fail.
            let _ = writeln!(effect, "  with fill={pattern} the program's {name} differs: {detail}");
        }
    }
    effect
}

/// An allocation stack.
struct Named {
    /// As a report has it.
    text: String,
    /// The same for SARIF, and where it is, in a line.
    part: Part,
    /// What filling it alone changes.
    effect: String,
}

/// The stacks with these names.
fn stacks(hunt: &mut Hunt<'_>, pattern: &str, names: &[u64]) -> Result<Vec<Named>, Failure> {
    let mut stacks = Vec::new();
    for name in names {
        let site = format!("0x{name:x}");
        let ran = run(hunt, pattern, Some(&site))?;
        let differs = hunt.difference(&ran)?;
        let effect = effect(hunt, pattern, &differs, &ran);
        for raw in ran.reports.iter().filter(|raw| raw.contains("NOTE: fencepost: filled with ")) {
            let note = hunt.ledger.read(raw);
            let part = note.parts.first().cloned().unwrap_or_default();
            let frames: String = note.text.lines().skip(1).map(|line| format!("{line}\n")).collect();
            let size = part.headline.split_once(": ").map_or(part.headline.as_str(), |(_, size)| size);
            let text = format!("{size} here (fill_site={site}):\n{frames}");
            stacks.push(Named { text, part, effect: effect.clone() });
        }
    }
    Ok(stacks)
}
