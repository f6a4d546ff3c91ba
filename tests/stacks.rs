//! Stacks: every frame of the three stacks of a report, by name and in order, from the innermost to the
//! outermost, on programs with and without frame pointers.
//!
//! The scenarios are in `tests/stacks`. Frames of other files than the program and its libraries are not
//! compared; what is between them has to be right, or the frames further out would not be found.

mod support;

use std::path::{Path, PathBuf};
use support::process::{self, LIMIT, Run};
use support::report::{Access, Report};
use support::symbols::{Stacks, Symbols};
use support::{compiler, library};

/// Optimised or not, with frame pointers or not.
const BUILDS: &[(&str, &[&str])] = &[
    ("O0", &["-O0", "-fomit-frame-pointer"]),
    ("O2", &["-O2", "-fomit-frame-pointer"]),
    ("O0-fp", &["-O0", "-fno-omit-frame-pointer"]),
    ("O2-fp", &["-O2", "-fno-omit-frame-pointer"]),
];

/// A call in the last place stays a call.
const CALLS: &str = "-fno-optimize-sibling-calls";

const OPTIONS: &str = "mode=hunt:backtrace=32:frames=all";

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks").join(name)
}

fn build(name: &str, build: &str, flags: &[&str]) -> Option<PathBuf> {
    let stem = name.split('.').next().unwrap_or(name);
    compiler::with_flags(&source(name), &[flags, &[CALLS]].concat(), &format!("stacks-{stem}-{build}"))
}

fn execute(program: &Path, arguments: &[&str]) -> Run {
    let mut command = process::command(program, Some(library::path()), OPTIONS);
    process::run(command.args(arguments), LIMIT)
}

/// Found, allocated, freed: names, innermost first, separated by blanks; `*n` repeats a name.
struct Expected {
    found: &'static str,
    allocated: &'static str,
    freed: &'static str,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .flat_map(|word| match word.split_once('*') {
            Some((name, count)) => vec![name.to_owned(); count.parse().expect("a number")],
            None => vec![word.to_owned()],
        })
        .collect()
}

/// What differs between the report of `run` and what is expected.
fn compare(program: &Path, run: &Run, expected: &Expected) -> Result<(), String> {
    let [report] = &Report::parse_all(&run.stderr)[..] else {
        return Err(format!("{}: no report, or several: {}", run.end, run.stderr));
    };
    if report.kind != "heap-use-after-free" {
        return Err(format!("a {}", report.kind));
    }
    let stacks = Stacks::parse(&run.stderr);
    let mut symbols = Symbols::below(program.parent().expect("a file is in a directory"));
    for (what, stack, exact, expected) in [
        ("found", &stacks.found, true, expected.found),
        ("allocated", &stacks.allocated, false, expected.allocated),
        ("freed", &stacks.freed, false, expected.freed),
    ] {
        let names = symbols.names(stack, exact);
        if names != words(expected) {
            return Err(format!("{what}: {}, expected {expected}", names.join(" ")));
        }
    }
    Ok(())
}

/// Runs a scenario of `source` in every build.
fn check(source: &str, arguments: &[&str], expected: &Expected) {
    for (name, flags) in BUILDS {
        let Some(program) = build(source, name, flags) else { continue };
        let run = execute(&program, arguments);
        if let Err(difference) = compare(&program, &run, expected) {
            panic!("{arguments:?} {name}: {difference}");
        }
    }
}

/// Tests: the scenario's name, and its stacks.
macro_rules! scenarios {
    ($($name:ident: $found:literal, $allocated:literal, $freed:literal;)+) => {$(
        #[test]
        fn $name() {
            let expected = Expected { found: $found, allocated: $allocated, freed: $freed };
            check("stacks.c", &[stringify!($name)], &expected);
        }
    )+};
}

scenarios! {
    plain:
        "use_leaf use_outer plain main _start",
        "make_inner make_outer prepare plain main _start",
        "drop_inner drop_outer prepare plain main _start";
    callback:
        "use_leaf use_outer compare sort callback main _start",
        "make_inner make_outer prepare callback main _start",
        "drop_inner drop_outer prepare callback main _start";
    handler:
        "use_leaf use_outer handler handler_plain main _start",
        "make_inner make_outer prepare on_signal interrupted handler handler_plain main _start",
        "drop_inner drop_outer prepare on_signal interrupted handler handler_plain main _start";
    alternate:
        "use_leaf use_outer handler handler_alternate main _start",
        "make_inner make_outer prepare on_signal interrupted handler handler_alternate main _start",
        "drop_inner drop_outer prepare on_signal interrupted handler handler_alternate main _start";
    trap:
        "use_leaf use_outer trap main _start",
        "make_inner make_outer prepare on_ill trapped trap main _start",
        "drop_inner drop_outer prepare on_ill trapped trap main _start";
    thread:
        "use_leaf use_outer thread_main",
        "make_inner make_outer prepare thread_main",
        "drop_inner drop_outer prepare thread_main";
    frames:
        "use_leaf use_outer aligned frames main _start",
        "make_inner make_outer prepare sized aligned frames main _start",
        "drop_inner drop_outer prepare sized aligned frames main _start";
    large:
        "use_leaf use_outer large main _start",
        "make_inner make_outer prepare sized large main _start",
        "drop_inner drop_outer prepare sized large main _start";
    deep:
        "use_leaf use_outer recurse*30",
        "make_inner make_outer prepare recurse*29",
        "drop_inner drop_outer prepare recurse*29";
    noreturn:
        "use_leaf use_outer last_words ends_with_a_call noreturns main _start",
        "make_inner make_outer prepare ends_with_a_call noreturns main _start",
        "drop_inner drop_outer prepare ends_with_a_call noreturns main _start";
    fetch:
        "? jump fetch main _start",
        "make_inner make_outer prepare fetch main _start",
        "drop_inner drop_outer prepare fetch main _start";
    // Without tables and without a frame of its own: nobody can tell its caller.
    assembly:
        "use_leaf use_outer called_back bare",
        "make_inner make_outer prepare called_back bare",
        "drop_inner drop_outer prepare called_back bare";
    framed:
        "use_leaf use_outer called_back framed calls_framed assembly_framed main _start",
        "make_inner make_outer prepare called_back framed calls_framed assembly_framed main _start",
        "drop_inner drop_outer prepare called_back framed calls_framed assembly_framed main _start";
}

/// The same code at the same place with another frame, in a library that took another's place.
#[test]
fn closed() {
    let expected = Expected {
        found: "use_leaf use_outer closed main _start",
        allocated: "plugged by_library closed main _start",
        freed: "drop_inner drop_outer closed main _start",
    };
    for (name, id) in [("id", "-Wl,--build-id=sha1"), ("no-id", "-Wl,--build-id=none")] {
        let plugin = |room: &str| {
            let flags = ["-shared", "-fPIC", "-O2", "-fomit-frame-pointer", id, &format!("-DROOM={room}")];
            compiler::with_flags(&source("plugin.c"), &flags, &format!("libplugin-{name}-{room}.so"))
        };
        let (Some(first), Some(second)) = (plugin("512"), plugin("1024")) else { continue };
        let paths = [&first, &second].map(|path| path.to_str().expect("a plain path"));
        check("stacks.c", &["closed", paths[0], paths[1]], &expected);
    }
}

/// An exception passes: objects are freed while the stack is unwound.
#[test]
fn thrown() {
    let expected = Expected {
        found: "use_leaf catcher main _start",
        allocated: "_ZN5GuardC2Em guarded catcher main _start",
        freed: "drop _ZN5GuardD2Ev guarded catcher main _start",
    };
    check("thrown.cc", &[], &expected);
}

/// A read of eight bytes that begins in the object and ends in its guard.
#[test]
fn sizes() {
    for (name, flags) in BUILDS {
        let Some(program) = build("sizes.c", name, flags) else { continue };
        for (argument, access, size) in [
            ("read1", Access::Read, 1),
            ("read8", Access::Read, 8),
            ("write2", Access::Write, 2),
            ("write4", Access::Write, 4),
            ("add4", Access::Write, 4),
            ("vector", Access::Write, 16),
            ("movs", Access::Read, 8),
            ("stos", Access::Write, 4),
            ("across", Access::Read, 8),
        ] {
            let run = execute(&program, &[argument]);
            let reports = Report::parse_all(&run.stderr);
            let got = reports.first().and_then(|report| report.access);
            assert_eq!(got, Some((access, Some(size))), "{argument} {name}: {}", run.stderr);
        }
    }
}

/// The judge sees a frame too many, one too few and another order.
#[test]
fn a_mismatch_is_seen() {
    let right = "use_leaf use_outer plain main _start";
    let stacks = |found| Expected {
        found,
        allocated: "make_inner make_outer prepare plain main _start",
        freed: "drop_inner drop_outer prepare plain main _start",
    };
    let (name, flags) = BUILDS[1];
    let Some(program) = build("stacks.c", name, flags) else { return };
    let run = execute(&program, &["plain"]);
    assert_eq!(compare(&program, &run, &stacks(right)), Ok(()));
    for wrong in [
        "use_leaf use_outer main _start",
        "use_leaf use_outer plain main",
        "use_outer use_leaf plain main _start",
    ] {
        assert!(compare(&program, &run, &stacks(wrong)).is_err(), "{wrong}");
    }
    let silent = execute(&program, &["none"]);
    assert!(compare(&program, &silent, &stacks(right)).is_err());
}
