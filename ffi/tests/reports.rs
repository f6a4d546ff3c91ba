//! Reports as the launcher hands them on: source lines, forms, and none that is lost.

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::{
    KINDS, LAUNCHER, Scratch, bugs, commit, launcher, line_of, not_here, options_for, run, skip, source, text,
};

const LEVELS: [&str; 2] = ["-O0", "-O2"];

/// The lines of the stack that follows `heading`.
fn stack<'a>(report: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = report.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    lines.by_ref().take_while(|line| line.starts_with("    #")).collect()
}

fn place(mark: &str) -> String {
    format!("{}:{}", source().display(), line_of(mark))
}

#[test]
fn access_allocation_and_free_have_lines_and_inlined_frames() {
    for level in LEVELS {
        let Some(program) = bugs(level) else { return };
        let output = commit(&program, "heap-use-after-free", &[]);
        let report = text(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{report}");
        let access = stack(&report, "WRITE ");
        for (index, (frame, (function, mark))) in
            access.iter().zip([("poke (", "inlined"), ("shop::touch(char*) (", "accessed")]).enumerate()
        {
            assert!(frame.starts_with(&format!("    #{index} 0x")), "{level}: {report}");
            assert!(frame.contains(&format!(" in {function}")), "{level}: {report}");
            assert!(frame.ends_with(&place(mark)), "{level}: {report}");
        }
        // Optimised, the function has no frame of its own from which to find its caller's.
        let main = access.get(2).is_some_and(|frame| frame.contains(" in main ("));
        assert!(main || level != "-O0", "{level}: {report}");
        for (heading, function, mark) in [
            ("allocated by thread", "shop::Shelf<char>::make(unsigned long)", "allocated"),
            ("freed by thread", "shop::Shelf<char>::drop(char*)", "freed"),
        ] {
            let frames = stack(&report, heading);
            let top = frames.first().unwrap_or_else(|| panic!("{level}: {report}"));
            assert!(top.contains(&format!(" in {function} (")), "{level}: {report}");
            assert!(top.ends_with(&place(mark)), "{level}: {report}");
        }
        let summary = format!("SUMMARY: fencepost: heap-use-after-free {}", place("inlined"));
        assert!(report.lines().any(|line| line.starts_with(&summary)), "{level}: {report}");
    }
}

#[test]
fn rust_names_are_demangled() {
    let output = run(launcher().args(["hunt", "--align", "exact", "--", LAUNCHER, "__victim", "overflow"]));
    let report = text(&output.stderr);
    let top = stack(&report, "WRITE ");
    let found = |line: &&str| line.contains("write_past_the_end") && line.contains("victim.rs:");
    assert!(top.iter().any(found), "{report}");
    assert!(!report.contains("_ZN") && !report.contains("17h"), "{report}");
    let allocated = stack(&report, "allocated by");
    // Line tables alone have no namespaces, the symbol table has.
    assert!(allocated.iter().any(|line| line.contains("victim::allocate_object")), "{report}");
}

#[test]
fn processes_write_build_ids_and_dynamic_symbols() {
    let Some(program) = bugs("-O2") else { return };
    let output = commit(&program, "exported", &["--exec", "--frames", "all"]);
    let report = text(&output.stderr);
    let known = fs::read(&program).unwrap();
    let id = object::Object::build_id(&object::File::parse(&*known).unwrap()).unwrap().unwrap().to_vec();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let frames = stack(&report, "WRITE ");
    let module = format!("({}+0x", program.display());
    let exported = report.lines().find(|line| line.contains(" in exported_function+0x"));
    let exported = exported.unwrap_or_else(|| panic!("{report}"));
    assert!(exported.contains(&module) && exported.ends_with(&format!(" (BuildId: {id})")), "{report}");
    let exact = |frame: &&str| frame.contains("libc.so.6+0x") && frame.contains(" (BuildId: ");
    assert!(frames.iter().any(exact), "{report}");
    assert!(!report.contains("bugs.cc"), "the process knows no lines: {report}");
}

/// A function without a symbol has no name, and not that of the one before it.
#[test]
fn a_function_without_a_symbol_is_not_named_after_another() {
    let scratch = Scratch::new("hidden");
    let binary = scratch.0.join("hidden");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/hidden.c");
    let flags = ["-O0", "-rdynamic", "-s", "-fno-toplevel-reorder", "-o"];
    let Ok(status) = Command::new("cc").args(flags).arg(&binary).arg(source).status() else {
        return skip("there is no cc");
    };
    assert!(status.success());
    let output = run(launcher().args(["hunt", "--"]).arg(&binary));
    let report = text(&output.stderr);
    let frames = stack(&report, "WRITE ");
    assert!(!frames[0].contains(" in ") && frames[1].contains(" in main"), "{report}");
    let summary = format!("SUMMARY: fencepost: heap-buffer-overflow ({}+0x", binary.display());
    let summary = report.lines().find(|line| line.starts_with(&summary));
    assert!(summary.is_some_and(|line| line.ends_with(") called by main")), "{report}");
}

/// The log of one run, as the process writes it.
fn raw_log(program: &Path, bug: &str, form: &str, scratch: &Scratch) -> PathBuf {
    let log = scratch.0.join(format!("{bug}.{form}"));
    let output = commit(program, bug, &["--report", form, "--log-path", log.to_str().unwrap()]);
    assert!(output.stderr.is_empty(), "a log of the user's own is left alone: {}", text(&output.stderr));
    log
}

#[test]
fn a_saved_log_is_symbolised() {
    let Some(program) = bugs("-O2") else { return };
    let scratch = Scratch::new("saved");
    for form in ["text", "json"] {
        let log = raw_log(&program, "heap-use-after-free", form, &scratch);
        let raw = fs::read_to_string(&log).unwrap();
        assert!(!raw.contains("bugs.cc"), "{raw}");
        let from_file = run(launcher().arg("symbolize").arg(&log));
        let mut piped = launcher();
        let from_stdin = run(piped.arg("symbolize").stdin(fs::File::open(&log).unwrap()));
        assert!(from_file.status.success());
        assert_eq!(text(&from_file.stdout), text(&from_stdin.stdout));
        let symbolised = text(&from_file.stdout);
        for mark in ["accessed", "allocated", "freed"] {
            let place = match form {
                "text" => place(mark),
                _ => format!("\"file\":\"{}\",\"line\":{}", source().display(), line_of(mark)),
            };
            assert!(symbolised.contains(&place), "{mark}: {symbolised}");
        }
    }
    let output = run(launcher().args(["symbolize", "/nonexistent/log"]));
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn json_reports_follow_the_schema() {
    let Some(program) = bugs("-O0") else { return };
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json");
    let schema = compiler.compile(path.to_str().unwrap(), &mut schemas).unwrap();
    let scratch = Scratch::new("schema");
    for kind in KINDS {
        let raw = raw_log(&program, kind, "json", &scratch);
        let raw = fs::read_to_string(raw).unwrap();
        let shown = text(&commit(&program, kind, &["--report", "json"]).stderr);
        for report in [&raw, &shown] {
            assert_eq!(report.lines().count(), 1, "{kind}: {report}");
            let value: Value = serde_json::from_str(report).unwrap_or_else(|_| panic!("{kind}: {report}"));
            assert_eq!(value["kind"], **kind, "{report}");
            if let Err(error) = schemas.validate(&value, schema) {
                panic!("{kind}: {error:#}\n{report}");
            }
        }
        // The schema can fail.
        let mut value: Value = serde_json::from_str(&shown).unwrap();
        value["address"] = Value::from(7);
        assert!(schemas.validate(&value, schema).is_err());
    }
}

/// The members of SARIF 2.1.0 that readers rely on.
fn check_sarif(log: &Value, kind: &str) {
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().contains("sarif-schema-2.1.0"));
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "fencepost");
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{log:#}");
    let result = &results[0];
    assert_eq!(result["ruleId"], kind);
    let rule = &driver["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
    assert_eq!(rule["id"], kind);
    assert!(rule["shortDescription"]["text"].is_string());
    assert_eq!(result["level"], "error");
    assert!(result["message"]["text"].as_str().unwrap().starts_with(kind));
    assert!(result["partialFingerprints"]["stack/v1"].is_string());
    let places = |name: &str| result[name].as_array().unwrap().clone();
    assert_eq!(places("locations").len(), 1);
    for place in [places("locations"), places("relatedLocations")].concat() {
        let physical = &place["physicalLocation"];
        assert!(physical["artifactLocation"]["uri"].as_str().unwrap().ends_with("tests/programs/bugs.cc"));
        assert!(physical["region"]["startLine"].as_u64().unwrap() >= 1, "{place:#}");
    }
    for stack in places("stacks") {
        assert!(stack["message"]["text"].is_string() && !stack["frames"].as_array().unwrap().is_empty());
    }
}

#[test]
fn sarif_is_written_by_run_and_symbolize() {
    let Some(program) = bugs("-O0") else { return };
    let scratch = Scratch::new("sarif");
    let file = scratch.0.join("out.sarif");
    let name = file.to_str().unwrap();
    let read = || serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap();
    for form in ["text", "json"] {
        let kind = "heap-use-after-free";
        commit(&program, kind, &["--report", form, "--sarif", name]);
        let of_run = read();
        check_sarif(&of_run, kind);
        let result = &of_run["runs"][0]["results"][0];
        let region = |place: &Value| place["physicalLocation"]["region"]["startLine"].as_u64().unwrap();
        assert_eq!(region(&result["locations"][0]), line_of("inlined") as u64);
        let related: Vec<_> = result["relatedLocations"].as_array().unwrap().iter().map(region).collect();
        assert_eq!(related, [line_of("allocated") as u64, line_of("freed") as u64]);

        let log = raw_log(&program, kind, form, &scratch);
        assert!(run(launcher().args(["symbolize", "--sarif", name]).arg(log)).status.success());
        let of_log = read();
        check_sarif(&of_log, kind);
        let print = |log: &Value| log["runs"][0]["results"][0]["partialFingerprints"].clone();
        assert_eq!(print(&of_run), print(&of_log), "the same bug in another run");
    }
    commit(&program, "nothing", &["--sarif", name]);
    assert_eq!(read()["runs"][0]["results"], Value::Array(Vec::new()), "a clean run says so");
    let output = commit(&program, "nothing", &["--sarif", "/nonexistent/x.sarif"]);
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn every_report_of_a_run_that_goes_on_is_collected() {
    let Some(program) = bugs("-O0") else { return };
    let scratch = Scratch::new("several");
    let file = scratch.0.join("out.sarif");
    let output = commit(&program, "double-free", &["--on-error", "exit", "--exitcode", "3"]);
    assert_eq!(output.status.code(), Some(3));
    let flags = ["--on-error", "continue", "--sarif", file.to_str().unwrap()];
    let script = format!("'{0}' double-free; '{0}' bad-size", program.display());
    let mut command = launcher();
    command.args(["run", "--mode", "hunt"]).args(flags).args(["sh", "-c", &script]);
    let report = text(&run(&mut command).stderr);
    assert_eq!(report.matches("==ERROR: fencepost: ").count(), 2, "{report}");
    let log: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    let kinds: Vec<_> = results.iter().map(|result| result["ruleId"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["double-free", "bad-size"]);
}

#[test]
fn reports_of_children_are_collected() {
    let Some(program) = bugs("-O0") else { return };
    let output = commit(&program, "child", &[]);
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let child = text(&output.stdout).trim().to_owned();
    assert!(report.contains(&format!("=={child}==ERROR: fencepost: heap-buffer-overflow ")), "{report}");
    assert!(report.contains(&place("accessed")), "{report}");
}

#[test]
fn a_process_that_outlives_the_launcher_prints_its_report() {
    let Some(program) = bugs("-O0") else { return };
    let output = commit(&program, "daemon", &[]);
    assert_eq!(output.status.code(), Some(0));
    let report = text(&output.stderr);
    assert!(report.contains("==ERROR: fencepost: heap-buffer-overflow "), "{report}");
    assert!(report.contains("bugs-O0+0x") && !report.contains("bugs.cc:"), "{report}");
}

#[test]
fn a_process_that_cannot_reach_the_launcher_prints_its_report() {
    let Some(program) = bugs("-O0") else { return };
    // Readable for everybody, unlike a build directory perhaps.
    let scratch = Scratch::new("user");
    let copy = scratch.0.join("bugs");
    fs::copy(&program, &copy).unwrap();
    let output = commit(&copy, "other-user", &[]);
    if output.status.code() == Some(77) {
        not_here("another user: not root here");
        return;
    }
    let report = text(&output.stderr);
    assert_eq!(report.matches("==ERROR: fencepost: heap-buffer-overflow ").count(), 1, "{report}");
    assert!(report.contains("bugs+0x") && !report.contains("bugs.cc:"), "{report}");
}

#[test]
fn debug_information_apart_is_found() {
    let Some(program) = bugs("-O0") else { return };
    if Command::new("objcopy").arg("--version").output().is_err() {
        skip("there is no objcopy");
        return;
    }
    let scratch = Scratch::new("apart");
    let objcopy = |arguments: &[&Path]| {
        assert!(run(Command::new("objcopy").current_dir(&scratch.0).args(arguments)).status.success());
    };
    let (debug, bare) = (scratch.0.join("bugs.debug"), scratch.0.join("bugs"));
    objcopy(&[Path::new("--only-keep-debug"), &program, &debug]);
    objcopy(&[Path::new("--strip-all"), Path::new("--add-gnu-debuglink=bugs.debug"), &program, &bare]);
    let seen = |cache: Option<&Path>| {
        let mut command = launcher();
        if let Some(cache) = cache {
            command.env("DEBUGINFOD_CACHE_PATH", cache);
        }
        let bug = "heap-buffer-overflow";
        let output = run(command.arg("run").args(options_for(bug)).arg("--").arg(&bare).arg(bug));
        text(&output.stderr)
    };
    let by_link = seen(None);
    assert!(by_link.contains(&place("accessed")), "by link: {by_link}");
    // By build id, in a cache.
    let known = fs::read(&program).unwrap();
    let id = object::Object::build_id(&object::File::parse(&*known).unwrap()).unwrap().unwrap().to_vec();
    let folder =
        scratch.0.join("cache").join(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    fs::create_dir_all(&folder).unwrap();
    fs::rename(&debug, folder.join("debuginfo")).unwrap();
    let by_id = seen(Some(&scratch.0.join("cache")));
    assert!(by_id.contains(&place("accessed")), "by build id: {by_id}");
    let without = seen(None);
    assert!(!without.contains("bugs.cc:") && without.contains(" (BuildId: "), "{without}");
    // Another build's information is worse than none.
    fs::copy(bugs("-O2").unwrap(), folder.join("debuginfo")).unwrap();
    let wrong = seen(Some(&scratch.0.join("cache")));
    assert!(!wrong.contains("bugs.cc:"), "{wrong}");
}

#[test]
fn colour_is_for_terminals() {
    let Some(program) = bugs("-O0") else { return };
    let red = "\x1b[1;31m";
    for (flags, coloured) in
        [(&[][..], false), (&["--color", "always"], true), (&["--color", "never"], false)]
    {
        let report = text(&commit(&program, "double-free", flags).stderr);
        assert_eq!(report.contains(red), coloured, "{flags:?}: {report}");
        assert!(report.contains(&place("freed")), "{report}");
    }
    // A terminal: script(1) makes one.
    if Command::new("script").arg("--version").output().is_err() {
        skip("there is no script");
        return;
    }
    for (variable, coloured) in [("", true), ("1", false)] {
        let line = format!("'{LAUNCHER}' hunt -- '{}' double-free", program.display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
        command.env("NO_COLOR", variable).env("TERM", "xterm").env_remove("LD_PRELOAD");
        let shown = text(&run(&mut command).stdout);
        assert!(shown.contains("==ERROR: fencepost: double-free"), "{shown}");
        assert_eq!(shown.contains(red), coloured, "NO_COLOR={variable}: {shown}");
    }
}

#[test]
fn nothing_is_left_in_the_temporary_directory() {
    let Some(program) = bugs("-O0") else { return };
    let scratch = Scratch::new("tmp");
    let mut command = launcher();
    command.env("TMPDIR", &scratch.0).args(["hunt", "--"]).arg(&program).arg("double-free");
    let report = text(&run(&mut command).stderr);
    assert!(report.contains(&place("freed")), "{report}");
    let end = Instant::now() + Duration::from_secs(5);
    while fs::read_dir(&scratch.0).unwrap().count() != 0 {
        assert!(Instant::now() < end, "left behind");
        thread::sleep(Duration::from_millis(10));
    }
}
