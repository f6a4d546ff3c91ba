//! Reports as SARIF 2.1.0, which code-scanning user interfaces read.
//!
//! One run, a rule for each kind of error, a result for each report: its location is the program's own
//! innermost line, related locations are where the object was allocated and freed, and all stacks go
//! along whole.

use crate::model::{Frame, Report, Role, Stack};
use crate::printable;
use serde_json::{Map, Value, json};
use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const VERSION: &str = "2.1.0";
/// What relative paths of artifacts are relative to.
const ROOT: &str = "SRCROOT";

/// What each kind means.
const RULES: &[(&str, &str)] = &[
    ("heap-buffer-overflow", "An access past the end of a heap object."),
    ("heap-buffer-underflow", "An access before the start of a heap object."),
    ("heap-use-after-free", "An access to a heap object after it was freed."),
    ("use-after-poison", "An access to bytes of a live heap object that the program poisoned."),
    ("double-free", "A heap object was freed a second time."),
    ("invalid-free", "A pointer was freed that is not the start of a heap object."),
    ("alloc-dealloc-mismatch", "A heap object was freed by another family of functions than allocated it."),
    ("bad-size", "A heap object was freed with another size than it was allocated with."),
    ("bad-alignment", "Memory was requested with an alignment that is no power of two."),
    ("canary-overwritten", "Bytes next to a heap object were overwritten."),
    ("write-after-free", "Freed heap memory was written to."),
    ("wild-access", "An access by a pointer that leads to no object."),
    ("uninitialised-memory", "Heap memory was read that was never written."),
    ("failed-allocation", "The program crashes, errs or hangs when an allocation fails."),
];

/// The reports as one SARIF log.
pub fn log(reports: &[Report]) -> Value {
    let mut rules: Vec<(String, String)> =
        RULES.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
    let reports: Vec<&Report> = reports.iter().filter(|report| report.is_error()).collect();
    for report in &reports {
        if !rules.iter().any(|(id, _)| *id == report.kind) {
            rules.push((report.kind.clone(), report.kind.replace('-', " ")));
        }
    }
    let results: Vec<Value> = reports.into_iter().map(|report| result(report, &rules)).collect();
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|(id, text)| {
            json!({
                "id": id,
                "shortDescription": { "text": text },
                "defaultConfiguration": { "level": "error" },
                "properties": { "tags": ["memory-safety", "security"] },
            })
        })
        .collect();
    let mut run = json!({
        "tool": { "driver": {
            "name": "fencepost",
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "informationUri": env!("CARGO_PKG_REPOSITORY"),
            "rules": rules,
        }},
        "columnKind": "unicodeCodePoints",
        "results": results,
    });
    if let Some(root) = env::current_dir().ok().map(|path| format!("{}/", uri(path.as_os_str().as_bytes()))) {
        run["originalUriBaseIds"] = json!({ ROOT: { "uri": root } });
    }
    json!({ "$schema": SCHEMA, "version": VERSION, "runs": [run] })
}

/// A result of the launcher's own about what these notes tell: the first names the place, all bring their stacks.
pub fn own(kind: &str, headline: &str, notes: &[&Value]) -> Value {
    let report = Report { kind: kind.to_owned(), headline: headline.to_owned(), ..Report::default() };
    let mut log = log(&[report]);
    let result = &mut log["runs"][0]["results"][0];
    let all = |key| notes.iter().filter_map(|note| note.get(key)).cloned().collect::<Vec<Value>>();
    result["locations"] = all("location").into_iter().take(1).collect();
    result["stacks"] = all("stack").into();
    let prints = all("fingerprint");
    let prints: Vec<&str> = prints.iter().filter_map(Value::as_str).collect();
    result["partialFingerprints"] = json!({ "stack/v1": format!("{kind}/{}", prints.join("/")) });
    log
}

/// What [`own`] takes of a note.
pub fn note(report: &Report) -> Value {
    let mut note = json!({ "fingerprint": fingerprint(report) });
    if let Some(whole) = report.stacks.first().filter(|stack| !stack.frames.is_empty()) {
        note["stack"] = stack(whole);
    }
    if let Some(frame) = report.users_frame() {
        note["location"] = Value::Object(location(frame));
    }
    note
}

fn result(report: &Report, rules: &[(String, String)]) -> Value {
    let mut message = format!("{}: {}", report.kind, report.headline);
    if let Some(relation) = &report.relation {
        message = format!("{message}; {} is located {relation}", report.address);
    }
    let others = || report.stacks.iter().filter(|stack| stack.role != Role::Found);
    let related: Vec<Value> = others()
        .filter_map(|stack| Some((stack, stack.users_frame()?)))
        .enumerate()
        .map(|(index, (stack, frame))| {
            let mut place = location(frame);
            place.insert("id".to_owned(), json!(index));
            place.insert("message".to_owned(), json!({ "text": stack.title }));
            Value::Object(place)
        })
        .collect();
    let stacks: Vec<Value> =
        report.stacks.iter().filter(|stack| !stack.frames.is_empty()).map(self::stack).collect();
    // What is found at exit has no stack of its own; the object's is the next best.
    let top = report.stack(Role::Found).into_iter().chain(&report.stacks).find_map(Stack::users_frame);
    let locations: Vec<Value> = top.map(|frame| Value::Object(location(frame))).into_iter().collect();
    let mut properties = json!({ "pid": report.pid, "address": report.address });
    if let Some(rerun) = &report.rerun {
        properties["rerun"] = json!(rerun);
    }
    json!({
        "ruleId": report.kind,
        "ruleIndex": rules.iter().position(|(id, _)| *id == report.kind),
        "level": "error",
        "message": { "text": message },
        "locations": locations,
        "relatedLocations": related,
        "stacks": stacks,
        "partialFingerprints": { "stack/v1": fingerprint(report) },
        "properties": properties,
    })
}

fn stack(stack: &Stack) -> Value {
    let frames: Vec<Value> = stack
        .frames
        .iter()
        .map(|frame| {
            let mut object = json!({ "location": location(frame) });
            if let Some(place) = &frame.place {
                object["module"] = json!(place.module);
            }
            object
        })
        .collect();
    json!({ "message": { "text": stack.title }, "frames": frames })
}

fn location(frame: &Frame) -> Map<String, Value> {
    let mut physical = Map::new();
    let source = &frame.source;
    if let Some(file) = &source.file {
        physical.insert("artifactLocation".to_owned(), artifact(file.as_bytes()));
        if let Some(line) = source.line {
            let mut region = json!({ "startLine": line });
            if let Some(column) = source.column {
                region["startColumn"] = json!(column);
            }
            physical.insert("region".to_owned(), region);
        }
    } else if let Some(place) = &frame.place {
        physical.insert("artifactLocation".to_owned(), artifact(&printable::bytes(&place.module)));
    }
    physical.insert("address".to_owned(), json!({ "absoluteAddress": frame.pc }));
    let mut place = Map::new();
    place.insert("physicalLocation".to_owned(), Value::Object(physical));
    if let Some(function) = &source.function {
        let logical = json!([{ "fullyQualifiedName": function, "kind": "function" }]);
        place.insert("logicalLocations".to_owned(), logical);
    }
    place
}

/// A file below the working directory relative to it, any other by its absolute path.
fn artifact(path: &[u8]) -> Value {
    let root = env::current_dir().ok();
    let whole = Path::new(OsStr::from_bytes(path));
    match root.and_then(|root| whole.strip_prefix(root).ok()) {
        Some(relative) => json!({ "uri": escaped(relative.as_os_str().as_bytes()), "uriBaseId": ROOT }),
        None if path.starts_with(b"/") => json!({ "uri": uri(path) }),
        None => json!({ "uri": escaped(path) }),
    }
}

fn uri(path: &[u8]) -> String {
    format!("file://{}", escaped(path))
}

/// A path as part of a URI.
fn escaped(path: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~+@".contains(&byte);
    path.iter()
        .map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The same for the same bug in another run: made of the kind and the functions and modules of the
/// stacks, without addresses and lines.
fn fingerprint(report: &Report) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    mix(&report.kind);
    for stack in &report.stacks {
        for frame in stack.frames.iter().take(4) {
            let module = frame.place.as_ref().and_then(|place| place.module.rsplit('/').next());
            mix(frame.source.function.as_deref().or(module).unwrap_or_default());
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri(b"/a b/c#d"), "file:///a%20b/c%23d");
        assert_eq!(escaped("x/\u{e4}.c".as_bytes()), "x/%C3%A4.c");
        assert_eq!(artifact(b"/a\n\xff")["uri"], "file:///a%0A%FF");
    }

    #[test]
    fn unknown_kinds_get_a_rule() {
        let report = Report { kind: "new-kind".to_owned(), ..Report::default() };
        let log = log(&[report]);
        let run = &log["runs"][0];
        let index = run["results"][0]["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "new-kind");
    }
}
