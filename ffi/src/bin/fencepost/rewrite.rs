//! Text with reports in it, rewritten: each frame gets its function, file and line, and a frame for each
//! inlined function; each summary names the program's own line. All other text stays as it is.

use crate::demangle::demangled;
use crate::model::{self, Frame, Report, Role, Stack, expand, hexadecimal};
use crate::printable::{self, printable};
use crate::symbols::{Location, Symbols};
use serde_json::Value;
use std::fmt::Write;

const SUMMARY: &str = "SUMMARY: fencepost: ";

/// Rewrites `text`; the reports and notes in it besides.
pub fn rewrite(text: &str, symbols: &mut Symbols) -> (String, Vec<Report>) {
    let mut rewriter = Rewriter {
        out: String::new(),
        symbols,
        reports: Vec::new(),
        open: false,
        stack: Vec::new(),
        indent: String::new(),
        // So says a report of itself.
        all: text.contains("frames=all"),
    };
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        if let Some(frame) = RawFrame::parse(body) {
            rewriter.frame(&frame, end);
        } else {
            rewriter.end_stack();
            rewriter.line(body);
            rewriter.out.push_str(end);
        }
    }
    rewriter.end_stack();
    (rewriter.out, rewriter.reports)
}

struct Rewriter<'a> {
    out: String,
    symbols: &'a mut Symbols,
    reports: Vec<Report>,
    /// Whether the last report has not come to its end.
    open: bool,
    /// The lines of the stack that is being read, without indent and number, and their frames.
    stack: Vec<(String, Frame)>,
    indent: String,
    /// Whether all frames are shown.
    all: bool,
}

impl Rewriter<'_> {
    fn line(&mut self, line: &str) {
        if line.starts_with('{')
            && let Ok(Value::Object(mut object)) = serde_json::from_str(line)
            && object.get("tool").and_then(Value::as_str) == Some("fencepost")
        {
            self.reports.push(model::symbolise_json(&mut object, self.symbols));
            self.out.push_str(&printable::json(&Value::Object(object)));
            return;
        }
        if let Some(report) = first_line(line).or_else(|| note_line(line)) {
            self.reports.push(report);
            self.open = true;
        } else if self.open
            && let Some(report) = self.reports.last_mut()
        {
            if line.starts_with("==") && line.ends_with("==END") {
                self.open = false;
            } else if let Some(rest) = line.strip_prefix(SUMMARY) {
                let summary = summary(rest, report);
                self.out.push_str(SUMMARY);
                self.out.push_str(&summary);
                let blamed = report.users_frame().filter(|frame| frame.location().is_none());
                if let Some(place) = blamed.and_then(|frame| frame.place.as_ref()) {
                    self.out.push('\n');
                    self.out.push_str(self.symbols.advice.of(&place.module));
                }
                return;
            } else {
                note(report, line);
            }
        }
        self.out.push_str(line);
    }

    fn frame(&mut self, raw: &RawFrame<'_>, end: &str) {
        if raw.number == 0 {
            self.end_stack();
        }
        let stack = self.reports.last().filter(|_| self.open).and_then(|report| report.stacks.last());
        // The address of an access is the instruction's own; all others are where calls return to.
        let exact = raw.number == 0
            && stack.as_ref().is_some_and(|stack| {
                stack.role == Role::Found
                    && ["READ ", "WRITE ", "ACCESS "].iter().any(|start| stack.title.starts_with(start))
                    // What a function is about to access is told at its call.
                    && !stack.title.contains("() at 0x")
            });
        let mut frames = expand(raw.pc, raw.place.clone(), !exact, self.symbols).into_iter().peekable();
        while let Some(mut frame) = frames.next() {
            if frame.source.function.is_none() {
                frame.source.function = raw.symbol.map(|(symbol, _)| demangled(symbol));
            }
            let mut line = raw.written.to_owned();
            raw.describe(&frame, &mut line);
            if frame.source.function.is_none() {
                frame.source.function = raw.symbol.map(|(symbol, _)| demangled(symbol));
            }
            line.push_str(if frames.peek().is_some() { "\n" } else { end });
            self.indent = raw.indent.to_owned();
            self.stack.push((line, frame));
        }
    }

    /// Writes the stack that was read, up to the program's own outermost function.
    fn end_stack(&mut self) {
        if let Some(report) = self.reports.last_mut().filter(|report| self.open && report.test.is_none()) {
            report.test = model::test(self.stack.iter().map(|(_, frame)| frame));
        }
        let functions: Vec<_> =
            self.stack.iter().map(|(_, frame)| (frame.pc, frame.source.function.as_deref())).collect();
        let shown = if self.all { 0..functions.len() } else { model::shown(&functions) };
        let stack = self.reports.last_mut().filter(|_| self.open).and_then(|report| report.stacks.last_mut());
        let mut frames = Vec::new();
        let skipped = shown.start;
        for (number, (line, frame)) in self.stack.drain(..).take(shown.end).skip(skipped).enumerate() {
            // Writing to a string does not fail.
            let _ = write!(self.out, "{}#{number} {line}", self.indent);
            frames.push(frame);
        }
        if let Some(stack) = stack {
            stack.frames.extend(frames);
        }
    }
}

/// `==PID==ERROR: fencepost: KIND on address 0x…`
fn first_line(line: &str) -> Option<Report> {
    let (pid, rest) = line.strip_prefix("==")?.split_once("==ERROR: fencepost: ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let address = rest.strip_prefix("on address ").and_then(|rest| rest.split(' ').next());
    Some(Report {
        kind: kind.to_owned(),
        pid: pid.parse().ok()?,
        address: address.unwrap_or_default().to_owned(),
        ..Report::default()
    })
}

/// `==PID==NOTE: fencepost: WHAT here:`
fn note_line(line: &str) -> Option<Report> {
    let (pid, what) = line.strip_prefix("==")?.split_once("==NOTE: fencepost: ")?;
    let stack = Stack { title: what.trim_end_matches(" here:").to_owned(), ..Stack::default() };
    let headline = stack.title.clone();
    Some(Report { pid: pid.parse().ok()?, headline, stacks: vec![stack], ..Report::default() })
}

/// Takes from a line of a report what it says.
fn note(report: &mut Report, line: &str) {
    let begins = if line.starts_with("allocated by thread T") {
        Some(Role::Allocated)
    } else if line.starts_with("freed by thread T") {
        Some(Role::Freed)
    } else if report.stacks.is_empty() && line.contains(" by thread T") {
        report.headline = line.to_owned();
        Some(Role::Found)
    } else {
        None
    };
    if let Some(role) = begins {
        let title = line.trim_end_matches(" here:").to_owned();
        report.stacks.push(Stack { role, title, frames: Vec::new() });
    } else if let Some((_, relation)) = line.split_once(" is located ") {
        report.relation.get_or_insert_with(|| relation.to_owned());
    } else if let Some(options) = line.strip_prefix("rerun with: ") {
        report.rerun.get_or_insert_with(|| options.to_owned());
    }
}

/// `KIND file:line in function`, or `KIND (module+0xoffset) in function` if the source is not known.
fn summary(rest: &str, report: &Report) -> String {
    let place = report.stack(Role::Found).and_then(Stack::whereabouts);
    place.map_or_else(|| rest.to_owned(), |place| format!("{} {place}", report.kind))
}

/// A frame as the process writes it.
#[derive(Debug, PartialEq, Eq)]
struct RawFrame<'a> {
    indent: &'a str,
    number: usize,
    pc: u64,
    /// The program counter as it was written.
    written: &'a str,
    /// The dynamic symbol, and how far into it the frame is.
    symbol: Option<(&'a str, &'a str)>,
    place: Option<Location>,
}

impl<'a> RawFrame<'a> {
    /// Reads `    #0 0xaddress in symbol+0x1f (module+0xoffset) (BuildId: hex)`.
    fn parse(line: &'a str) -> Option<Self> {
        let rest = line.trim_start();
        let indent = line.strip_suffix(rest)?;
        let (number, rest) = rest.strip_prefix('#')?.split_once(' ')?;
        let (written, rest) = rest.split_once(' ')?;
        let (rest, build_id) = match rest.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (BuildId: ")) {
            Some((rest, id)) => (rest, Some(id.to_owned())),
            None => (rest, None),
        };
        let (symbol, rest) = match rest.strip_prefix("in ").and_then(|rest| rest.split_once(" (")) {
            Some((symbol, rest)) => (Some(symbol.rsplit_once('+')?), rest),
            None => (None, rest.strip_prefix('(')?),
        };
        let rest = rest.strip_suffix(')')?;
        let place = match rest.rsplit_once('+') {
            Some((module, offset)) => {
                Some(Location { module: module.to_owned(), offset: hexadecimal(offset)?, build_id })
            }
            None if rest == "unknown" => None,
            None => return None,
        };
        Some(Self { indent, number: number.parse().ok()?, pc: hexadecimal(written)?, written, symbol, place })
    }

    /// Writes what follows the program counter.
    fn describe(&self, frame: &Frame, out: &mut String) {
        // Writing to a string does not fail.
        if let Some(function) = &frame.source.function {
            let _ = write!(out, " in {}", printable(function.as_bytes()));
            // A dynamic symbol alone may be of a function before this one.
            if let Some((_, into)) = self.symbol.filter(|(symbol, _)| demangled(symbol) == *function)
                && frame.location().is_none()
            {
                let _ = write!(out, "+{into}");
            }
        }
        let Some(Location { module, offset, build_id }) = &self.place else {
            out.push_str(" (unknown)");
            return;
        };
        let _ = write!(out, " ({module}+0x{offset:x})");
        match (frame.location(), build_id) {
            (Some(location), _) => {
                let _ = write!(out, " {location}");
            }
            (None, Some(id)) => {
                let _ = write!(out, " (BuildId: {id})");
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let place = |module: &str, id: Option<&str>| {
            Some(Location { module: module.to_owned(), offset: 0x1f, build_id: id.map(str::to_owned) })
        };
        for (line, symbol, expected) in [
            ("    #3 0x10 (/tmp/a b (c)+0x1f)", None, place("/tmp/a b (c)", None)),
            ("    #3 0x10 (/a+0x1f) (BuildId: 0aff)", None, place("/a", Some("0aff"))),
            (
                "    #3 0x10 in f+0x2 (/a (deleted)+0x1f) (BuildId: 0aff)",
                Some(("f", "0x2")),
                place("/a (deleted)", Some("0aff")),
            ),
            ("    #3 0x10 (unknown)", None, None),
        ] {
            let frame = RawFrame::parse(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((frame.number, frame.pc, frame.written, frame.indent), (3, 16, "0x10", "    "));
            assert_eq!((frame.symbol, &frame.place), (symbol, &expected), "{line}");
        }
        for line in
            ["", "#", "    #1 main.c", "    #0 0x10 in f (/a+0x1f) a.c:3", "    (no stack)", "#x 0x1 (a+0x1)"]
        {
            assert_eq!(RawFrame::parse(line), None, "{line}");
        }
    }

    const RAW: &str = "\
before
==7==ERROR: fencepost: double-free on address 0x10 at pc 0x20 bp 0x0 sp 0x0
found by thread T8 (main)
    #0 0x000000000030 in _ZN3foo3barEi+0x4 (/nonexistent/a+0x30) (BuildId: 00ff)
    #1 0x000000000040 (unknown)

0x10 is located 0 bytes inside of 64-byte region [0x10,0x50), freed
allocated by thread T7 here:
    #0 0x31 (/nonexistent/a+0x31)
freed by thread T9 here:
    (no stack)
SUMMARY: fencepost: double-free (/nonexistent/a+0x30)
rerun with: FENCEPOST_OPTIONS=seed=4
==7==END
    #0 0x1 (/nonexistent/b+0x1)
after";

    #[test]
    fn what_is_not_known_stays_and_names_are_demangled() {
        let (text, reports) = rewrite(RAW, &mut Symbols::default());
        let summary = "SUMMARY: fencepost: double-free (/nonexistent/a+0x30)";
        let advice = "compile it with -g (cargo: CARGO_PROFILE_RELEASE_DEBUG=line-tables-only)";
        let known = format!("{summary} in foo::bar(int)\nno line is known in /nonexistent/a: {advice}");
        assert_eq!(text, RAW.replace("_ZN3foo3barEi", "foo::bar(int)").replace(summary, &known));
        let [report] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((report.kind.as_str(), report.pid, report.address.as_str()), ("double-free", 7, "0x10"));
        assert_eq!(report.headline, "found by thread T8 (main)");
        assert_eq!(report.rerun.as_deref(), Some("FENCEPOST_OPTIONS=seed=4"));
        let relation = "0 bytes inside of 64-byte region [0x10,0x50), freed";
        assert_eq!(report.relation.as_deref(), Some(relation));
        let counts: Vec<_> = report.stacks.iter().map(|it| (it.role, it.frames.len())).collect();
        assert_eq!(counts, [(Role::Found, 2), (Role::Allocated, 1), (Role::Freed, 0)]);
        assert_eq!(report.stacks[1].title, "allocated by thread T7");
    }

    /// The summary names the innermost function that is not of the C library, whether or not its source is known.
    #[test]
    fn the_summary_names_the_innermost_own_function() {
        let module = std::env::current_exe().unwrap();
        let module = module.to_str().unwrap();
        let raw = RAW.replace(
            "    #0 0x000000000030",
            "    #0 0x28 in memmove+0x8 (/lib/libc.so.6+0x28)\n    #1 0x000000000030",
        );
        let raw = raw.replace("    #1 0x000000000040 (unknown)", &format!("    #2 0x40 ({module}+0x40)"));
        let (text, _) = rewrite(&raw, &mut Symbols::default());
        let summary = text.lines().find(|line| line.starts_with(SUMMARY));
        let expected = "SUMMARY: fencepost: double-free (/nonexistent/a+0x30) in foo::bar(int)";
        assert_eq!(summary, Some(expected), "{text}");
    }

    #[test]
    fn start_code_is_left_out() {
        let shown = |names: &[&'static str]| {
            let frames: Vec<_> = names.iter().zip(0..).map(|(name, pc)| (pc, Some(*name))).collect();
            model::shown(&frames)
        };
        let start = "std::sys::backtrace::__rust_begin_short_backtrace";
        let call = "core::ops::function::FnOnce::call_once";
        assert_eq!(shown(&["own::deep", "own::main", call, start, "std::rt::lang_start", "main"]), 0..2);
        assert_eq!(shown(&["own::thread::{{closure}}", start, call, "clone"]), 0..1);
        assert_eq!(shown(&["own::called", call, "own::main"]), 0..3);
        assert_eq!((shown(&[start, "main"]), shown(&[call]), shown(&[])), (0..2, 0..1, 0..0));
        assert_eq!(model::shown(&[(1, None), (2, Some("main")), (3, None)]), 0..3);
    }

    #[test]
    fn stacks_begin_where_the_allocator_was_called() {
        let (general, shim) = (Some("fencepost::global::dealloc_general"), Some("__rustc::__rust_dealloc"));
        let frames = [(1, Some("site")), (1, general), (2, shim), (3, Some("own::drop")), (4, general)];
        assert_eq!(model::shown(&frames), 3..5);
        let inlined =
            [(1, Some("frame")), (1, general), (2, shim), (2, Some("own::drop")), (2, Some("main"))];
        assert_eq!(model::shown(&inlined), 3..5);
        assert_eq!(model::shown(&[(1, Some("own::handler")), (2, general)]), 0..2);
        assert_eq!(model::shown(&[(1, general)]), 0..1);
    }

    #[test]
    fn own_code_is_found_in_text_and_json() {
        let module = std::env::current_exe().unwrap();
        let module = module.to_str().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let first = maps.lines().find(|line| line.ends_with(module)).unwrap();
        let base = u64::from_str_radix(first.split('-').next().unwrap(), 16).unwrap();
        let pc = rewrite as fn(&str, &mut Symbols) -> (String, Vec<Report>) as usize as u64;
        let offset = pc - base;
        let head =
            "==7==ERROR: fencepost: double-free on address 0x10 at pc 0x20\nREAD at 0x10 by thread T7\n";
        let raw = format!(
            "{head}    #0 0x{pc:x} ({module}+0x{offset:x})\nSUMMARY: fencepost: double-free ({module}+0x{offset:x})"
        );
        let (text, reports) = rewrite(&raw, &mut Symbols::default());
        // Line tables alone have no namespaces.
        let name = if cfg!(debug_assertions) { "rewrite::rewrite" } else { " in rewrite (" };
        assert!(text.contains(name), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("    #0 0x") && line.contains("rewrite.rs:")),
            "{text}"
        );
        assert!(text.lines().last().unwrap().starts_with("SUMMARY: fencepost: double-free "), "{text}");
        assert!(text.lines().last().unwrap().contains("rewrite.rs:"), "{text}");
        let raw = format!(
            "{{\"tool\":\"fencepost\",\"pid\":7,\"kind\":\"double-free\",\"address\":\"0x10\",\"thread\":7,\"access\":\"read\",\"frames\":[{{\"pc\":\"0x{pc:x}\",\"module\":\"{module}\",\"offset\":\"0x{offset:x}\"}}]}}\n"
        );
        let (json, more) = rewrite(&raw, &mut Symbols::default());
        let value: Value = serde_json::from_str(&json).unwrap();
        assert!(value["frames"][0]["file"].as_str().unwrap().ends_with("rewrite.rs"), "{json}");
        assert!(value["frames"][0]["line"].as_u64().is_some() && json.ends_with("}\n"));
        assert_eq!(more[0].stacks[0].frames, reports[0].stacks[0].frames);
    }

    /// What a log holds is taken for no more than it says, and what is added to it stays in its line.
    #[test]
    fn a_damaged_log_is_survived() {
        let json = "{\"tool\":\"fencepost\",\"pid\":7,\"kind\":\"x\",\"frames\":[{\"pc\":\"0x1\",\"module\":\"/a\\u001b\\u009b\",\"offset\":\"0x1\"}]}\n";
        let whole = format!("{RAW}\n{json}").into_bytes();
        let (text, _) = rewrite(json, &mut Symbols::default());
        assert_eq!(text, json, "escaped as it was");
        let mut state = 7_u64;
        for _ in 0..5000 {
            let mut log = whole.clone();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % log.len();
                match state >> 20 & 3 {
                    0 => log[at] = u8::try_from(state >> 24 & 0xff).unwrap(),
                    1 => log[at] = b"0x9f{}[]\",:#+() \n="[usize::try_from(state >> 24 & 15).unwrap()],
                    2 => log.truncate(at + 1),
                    _ => drop(log.remove(at)),
                }
                if log.is_empty() {
                    log.push(b'#');
                }
            }
            let log = String::from_utf8_lossy(&log);
            let (text, reports) = rewrite(&log, &mut Symbols::default());
            let advice = |line: &&str| line.starts_with("no line is known in ");
            let lines = |text: &str| text.lines().filter(|line| !advice(line)).count();
            assert_eq!(lines(&text), lines(&log), "{log}");
            let _ = crate::sarif::log(&reports).to_string();
        }
        for line in [
            "    #99999999999999999999 0x1 (/a+0x1)",
            "    #18446744073709551615 0x1 (/a+0x1)",
            "    #0 0xffffffffffffffffff (/a+0x1)",
            "    #0 0xffffffffffffffff in f+0xffffffffffffffff (/a+0xffffffffffffffff) (BuildId: zz)",
        ] {
            let (text, _) = rewrite(&format!("{line}\n{line}"), &mut Symbols::default());
            assert_eq!(text.lines().count(), 2);
        }
    }
}
