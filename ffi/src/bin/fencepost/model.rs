//! A report in parts, as far as the launcher has to know them.

use crate::demangle::demangled;
use crate::printable::printable;
use crate::runtime;
use crate::symbols::{Location, Source, Symbols};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::ops::Range;

/// What one report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `heap-buffer-overflow` and so on.
    pub kind: String,
    /// The process.
    pub pid: u64,
    /// The address it is about, as written.
    pub address: String,
    /// Who did what: `WRITE at 0x… by thread T7 (name)`.
    pub headline: String,
    /// Where the address lies from the object.
    pub relation: Option<String>,
    /// Options that repeat the run.
    pub rerun: Option<String>,
    /// Where it was found, where the object was allocated, where it was freed.
    pub stacks: Vec<Stack>,
    /// The function that the test harness called, if a stack begins there; of a doctest, where it stands.
    pub test: Option<String>,
}

/// A stack and what happened there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// `found`, `allocated` or `freed`.
    pub role: Role,
    /// The line that introduces it.
    pub title: String,
    /// The innermost first; a frame for each inlined function.
    pub frames: Vec<Frame>,
}

/// What happened at a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The error was found.
    #[default]
    Found,
    /// The object was allocated.
    Allocated,
    /// The object was freed.
    Freed,
}

/// A frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The program counter.
    pub pc: u64,
    /// Where that is, if it is in a file.
    pub place: Option<Location>,
    /// What is known of it.
    pub source: Source,
}

impl Report {
    /// Whether it is of an error, and not a note of something else that happened.
    pub fn is_error(&self) -> bool {
        !self.kind.is_empty()
    }

    /// The same for the same error in another run: its kind, and the innermost frames of where it was found and of the
    /// object's allocation.
    pub fn key(&self) -> String {
        // A note is no error with an object of its own: what leads to it in many ways is one thing.
        let innermost = if self.is_error() { 4 } else { 2 };
        let mut key = self.kind.clone();
        for role in [Role::Found, Role::Allocated] {
            key.push('|');
            let frames = self.stack(role).into_iter().flat_map(|stack| &stack.frames);
            for place in frames.filter_map(|frame| frame.place.as_ref()).take(innermost) {
                // Writing to a string does not fail.
                let _ = write!(key, " {}+{:x}", place.module, place.offset);
            }
        }
        key
    }

    /// The same for the same error in any binary: its kind, and the program's own line that it was found at.
    pub fn site(&self) -> String {
        format!("{} {}", self.kind, self.whereabouts().unwrap_or_default())
    }

    /// The innermost frame of the program's own of where it was found, with a source line or without.
    pub fn users_frame(&self) -> Option<&Frame> {
        self.stack(Role::Found)?.users_frame()
    }

    /// Where it was found, in a line; what is found at exit has no stack of its own, and is where the object was allocated.
    pub fn whereabouts(&self) -> Option<String> {
        self.stack(Role::Found).into_iter().chain(&self.stacks).find_map(Stack::whereabouts)
    }

    /// The stack with this role.
    pub fn stack(&self, role: Role) -> Option<&Stack> {
        self.stacks.iter().find(|stack| stack.role == role)
    }
}

impl Stack {
    /// Where the stack is, in a line: its user's frame, and where that has no name, the function that called it.
    pub fn whereabouts(&self) -> Option<String> {
        let frame = self.users_frame()?;
        let place = frame.whereabouts()?;
        if frame.source.function.is_some() {
            return Some(place);
        }
        let module = |frame: &Frame| frame.place.as_ref().map(|place| place.module.clone());
        let outer = self.frames.iter().skip_while(|other| *other != frame);
        let caller = outer
            .filter(|other| module(other) == module(frame))
            .find_map(|other| other.source.function.as_ref());
        Some(caller.map_or_else(
            || place.clone(),
            |name| format!("{place} called by {}", printable(name.as_bytes())),
        ))
    }

    /// The innermost frame of the program's or of one of its libraries, with a source line or without; else the
    /// innermost.
    pub fn users_frame(&self) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.is_users()).or(self.frames.first())
    }
}

impl Frame {
    /// Whether it is neither of the C and C++ libraries nor of Rust's, nor the allocator's.
    fn is_users(&self) -> bool {
        let module = self.place.as_ref().map_or("", |place| place.module.as_str());
        !runtime::is_module(module)
            && !self.source.file.as_deref().is_some_and(runtime::is_source)
            && !self.source.function.as_deref().is_some_and(runtime::is_function)
    }

    /// `file:line in function`, or `(module+0xoffset) in function`, to be printed.
    pub fn whereabouts(&self) -> Option<String> {
        let place = self.location().or_else(|| {
            self.place.as_ref().map(|place| format!("({}+0x{:x})", place.module, place.offset))
        })?;
        let function = self.source.function.as_ref().map(|name| printable(name.as_bytes()));
        Some(function.map_or_else(|| place.clone(), |name| format!("{place} in {name}")))
    }

    /// `file:line`, or the file alone where the line is not known, to be printed.
    pub fn location(&self) -> Option<String> {
        let file = printable(self.source.file.as_ref()?.as_bytes());
        Some(self.source.line.map_or_else(|| file.clone(), |line| format!("{file}:{line}")))
    }
}

/// Which of a stack's frames are shown, by their functions from the innermost on: those before what Rust's library and
/// its tests call `main`, a thread's function or a test by, and from the one on that called the allocator. `FnOnce::call_once`
/// in between belongs to Rust's library.
pub fn shown(frames: &[(u64, Option<&str>)]) -> Range<usize> {
    let (mut count, mut own) = (0_usize, 0_usize);
    for (_, function) in frames {
        let name = function.unwrap_or_default();
        // Line tables alone have no namespaces.
        if name.contains("__rust_begin_short_backtrace") && own != 0 {
            count = own;
            break;
        }
        count += 1;
        if !name.contains("call_once") {
            own = count;
        }
    }
    allocators(frames).min(count.saturating_sub(1))..count
}

/// How many of a stack's innermost frames are the allocator's. What is inlined into a function of its own is its own, too, and
/// has the same program counter.
fn allocators(frames: &[(u64, Option<&str>)]) -> usize {
    let mut end = 0;
    for inlined in frames.chunk_by(|(one, _), (other, _)| one == other) {
        let is_own = |(_, name): &(u64, Option<&str>)| name.is_some_and(runtime::is_allocator);
        let own = inlined.iter().rposition(is_own).map_or(0, |last| last + 1);
        end += own;
        if own != inlined.len() {
            break;
        }
    }
    end
}

/// The function that the test harness called, of frames from the innermost on, with the source files of their functions; of a
/// doctest that is a program alone, where it stands.
pub fn test<'a>(frames: impl Iterator<Item = &'a Frame>) -> Option<String> {
    let mut last = None;
    for frame in frames {
        let Some(function) = frame.source.function.as_deref() else { continue };
        if function.contains("test::__rust_begin_short_backtrace") {
            return last;
        }
        if let Some((_, name)) = function.split_once("::_doctest_main_") {
            // It ends with the line and a number.
            let line = name.rsplit('_').nth(1).unwrap_or_default();
            let file = frame.source.file.as_deref().unwrap_or_default();
            return Some(format!("{file} (line {line})"));
        }
        if !function.contains("call_once") {
            let outer = function.split("::{").next().unwrap_or(function);
            last = Some(outer.to_owned());
        }
    }
    None
}

/// The frames that a program counter stands for.
pub fn expand(pc: u64, place: Option<Location>, is_return: bool, symbols: &mut Symbols) -> Vec<Frame> {
    let sources = place.as_ref().map(|place| symbols.at(place, is_return)).unwrap_or_default();
    if sources.is_empty() {
        return vec![Frame { pc, place, source: Source::default() }];
    }
    sources.into_iter().map(|source| Frame { pc, place: place.clone(), source }).collect()
}

/// A report as a JSON object, its frames given functions, files and lines. What it had stays.
pub fn symbolise_json(object: &mut Map<String, Value>, symbols: &mut Symbols) -> Report {
    let text = |object: &Map<String, Value>, key: &str| {
        object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |object: &Map<String, Value>, key: &str| object.get(key).and_then(Value::as_u64);
    let access = object.get("access").and_then(Value::as_str).map(str::to_uppercase);
    let address = text(object, "address");
    let thread = number(object, "thread").unwrap_or(0);
    let headline = match &access {
        None if object.contains_key("note") => text(object, "note"),
        Some(access) => {
            let function = [text(object, "made_by"), text(object, "called")].concat();
            let by = if function.is_empty() { String::new() } else { format!(" by {function}()") };
            format!("{access}{by} at {address} by thread T{thread}")
        }
        None => format!("found by thread T{thread}"),
    };
    let mut report = Report {
        kind: text(object, "kind"),
        pid: number(object, "pid").unwrap_or(0),
        headline: headline.clone(),
        rerun: object.get("rerun").and_then(Value::as_str).map(str::to_owned),
        address,
        ..Report::default()
    };
    let all = report.rerun.as_ref().is_some_and(|options| options.contains("frames=all"));
    let mut add = |role, title: String, holder: &mut Map<String, Value>, exact| {
        if let Some(Value::Array(frames)) = holder.get_mut("frames") {
            let (found, test) = symbolise_frames(frames, exact, all, symbols);
            report.test = report.test.take().or(test);
            report.stacks.push(Stack { role, title, frames: found });
        }
    };
    let is_fault = access.is_some() && !object.contains_key("made_by");
    add(Role::Found, headline, object, is_fault);
    if let Some(Value::Object(about)) = object.get_mut("object") {
        for (role, key, verb) in
            [(Role::Allocated, "allocated_by", "allocated"), (Role::Freed, "freed_by", "freed")]
        {
            if let Some(Value::Object(event)) = about.get_mut(key) {
                let thread = number(event, "thread").unwrap_or(0);
                add(role, format!("{verb} by thread T{thread}"), event, false);
            }
        }
        let distance = number(about, "distance").unwrap_or(0);
        let size = number(about, "size").map_or_else(String::new, |size| format!("{size}-byte "));
        let start = text(about, "start");
        report.relation = match text(about, "relation").as_str() {
            side @ ("before" | "after") => Some(format!("{distance} bytes {side} {size}region at {start}")),
            "inside" => Some(format!("{distance} bytes inside of {size}region at {start}")),
            _ => None,
        };
    }
    report
}

/// The frames, and the test whose they are.
fn symbolise_frames(
    frames: &mut Vec<Value>,
    exact: bool,
    all: bool,
    symbols: &mut Symbols,
) -> (Vec<Frame>, Option<String>) {
    let mut found = Vec::new();
    let mut expanded = Vec::new();
    for (index, frame) in frames.drain(..).enumerate() {
        let Value::Object(raw) = frame else { continue };
        let text = |key: &str| raw.get(key).and_then(Value::as_str);
        let place = text("module").and_then(|module| {
            let offset = hexadecimal(text("offset")?)?;
            let build_id = text("build_id").map(str::to_owned);
            Some(Location { module: printable(module.as_bytes()), offset, build_id })
        });
        let pc = text("pc").and_then(hexadecimal).unwrap_or(0);
        for frame in expand(pc, place, index != 0 || !exact, symbols) {
            let mut frame = frame;
            if frame.source.function.is_none() {
                frame.source.function = text("symbol").map(demangled);
            }
            let mut object = raw.clone();
            let Source { function, file, line, column, inlined } = frame.source.clone();
            let known = [
                ("function", function.map(Value::from)),
                ("file", file.map(Value::from)),
                ("line", line.map(Value::from)),
                ("column", column.map(Value::from)),
                ("inlined", inlined.then_some(Value::Bool(true))),
            ];
            object.extend(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
            expanded.push(Value::Object(object));
            found.push(frame);
        }
    }
    *frames = expanded;
    let test = test(found.iter());
    if !all {
        let functions: Vec<_> =
            found.iter().map(|frame| (frame.pc, frame.source.function.as_deref())).collect();
        let shown = shown(&functions);
        frames.truncate(shown.end);
        frames.drain(..shown.start);
        found.truncate(shown.end);
        found.drain(..shown.start);
    }
    (found, test)
}

/// The number that `0x…` spells.
pub fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
