//! A report in parts, as far as the launcher has to know them.

use crate::printable::printable;
use crate::symbols::{Place, Source, Symbols};
use serde_json::{Map, Value};
use std::fmt::Write;

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
    pub place: Option<Place>,
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

    /// The innermost frame of the program's own of where it was found, with a source line or without.
    pub fn users_frame(&self) -> Option<&Frame> {
        let stack = self.stack(Role::Found)?;
        let known = stack.top().filter(|frame| frame.source.file.is_some() && frame.is_users());
        known.or_else(|| stack.frames.iter().find(|frame| frame.is_users())).or(stack.frames.first())
    }

    /// Where it was found, in a line.
    pub fn whereabouts(&self) -> Option<String> {
        let frame = self.users_frame()?;
        let function = frame.source.function.as_ref().map(|name| printable(name.as_bytes()));
        let place = frame.location().or_else(|| frame.place.as_ref().map(Place::to_string))?;
        Some(function.map_or_else(|| place.clone(), |name| format!("{place} in {name}")))
    }

    /// The stack with this role.
    pub fn stack(&self, role: Role) -> Option<&Stack> {
        self.stacks.iter().find(|stack| stack.role == role)
    }
}

impl Stack {
    /// The innermost frame of the program's own: not of the C and C++ libraries, the Rust library or
    /// fencepost. Else the innermost with a source line, else the innermost.
    pub fn top(&self) -> Option<&Frame> {
        let with_file = |frame: &&Frame| frame.source.file.is_some();
        let users = |frame: &&Frame| with_file(frame) && frame.is_users();
        let mut frames = self.frames.iter();
        frames.clone().find(users).or_else(|| frames.clone().find(with_file)).or_else(|| frames.next())
    }
}

impl Stack {
    /// The innermost frame that is not of the C and C++ libraries, the Rust library or fencepost, with a source line or
    /// without; else the innermost.
    pub fn innermost(&self) -> Option<&Frame> {
        let own = self.frames.iter().find(|frame| frame.place.is_some() && frame.is_users());
        own.or_else(|| self.top())
    }
}

/// How the paths of source files start that are nobody's own.
const SYSTEM_SOURCES: &[&str] =
    &["/usr/include/", "/usr/lib/", "/rustc/", "/build/", "/usr/src/", "../", "./"];
/// How the names of modules start that are nobody's own.
const SYSTEM_MODULES: &[&str] = &[
    "libfencepost",
    "libc.so",
    "libc-",
    "ld-linux",
    "libstdc++",
    "libc++",
    "libgcc_s",
    "libm.so",
    "libpthread",
];

impl Frame {
    fn is_users(&self) -> bool {
        let file = self.source.file.as_deref().unwrap_or_default();
        let module = self.place.as_ref().map_or("", |place| place.module.as_str());
        let name = module.rsplit('/').next().unwrap_or_default();
        !SYSTEM_SOURCES.iter().any(|start| file.starts_with(start))
            && !SYSTEM_MODULES.iter().any(|start| name.starts_with(start))
    }

    /// `file:line`, or the file alone where the line is not known, to be printed.
    pub fn location(&self) -> Option<String> {
        let file = printable(self.source.file.as_ref()?.as_bytes());
        Some(self.source.line.map_or_else(|| file.clone(), |line| format!("{file}:{line}")))
    }
}

/// How many of a stack's frames are shown, by their functions from the innermost on: those before what Rust's library and
/// its tests call `main`, a thread's function or a test by. `FnOnce::call_once` in between belongs to it.
pub fn shown<'a>(functions: impl Iterator<Item = Option<&'a str>>) -> usize {
    let (mut count, mut own) = (0, 0);
    for function in functions {
        let name = function.unwrap_or_default();
        // Line tables alone have no namespaces.
        if name.contains("__rust_begin_short_backtrace") && own != 0 {
            return own;
        }
        count += 1;
        if !name.contains("call_once") {
            own = count;
        }
    }
    count
}

/// The frames that a program counter stands for.
pub fn expand(pc: u64, place: Option<Place>, is_return: bool, symbols: &mut Symbols) -> Vec<Frame> {
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
        Some(access) => format!("{access} at {address} by thread T{thread}"),
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
            let found = symbolise_frames(frames, exact, all, symbols);
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

fn symbolise_frames(frames: &mut Vec<Value>, exact: bool, all: bool, symbols: &mut Symbols) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut expanded = Vec::new();
    for (index, frame) in frames.drain(..).enumerate() {
        let Value::Object(raw) = frame else { continue };
        let text = |key: &str| raw.get(key).and_then(Value::as_str);
        let place = text("module").and_then(|module| {
            let offset = hexadecimal(text("offset")?)?;
            let build_id = text("build_id").map(str::to_owned);
            Some(Place { module: printable(module.as_bytes()), offset, build_id })
        });
        let pc = text("pc").and_then(hexadecimal).unwrap_or(0);
        for frame in expand(pc, place, index != 0 || !exact, symbols) {
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
    if !all {
        let shown = shown(found.iter().map(|frame| frame.source.function.as_deref()));
        frames.truncate(shown);
        found.truncate(shown);
    }
    found
}

/// The number that `0x…` spells.
pub fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
