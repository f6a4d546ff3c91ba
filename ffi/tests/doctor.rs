//! What `fencepost doctor` says of a program and of its surroundings: one line for each thing that keeps the library from
//! seeing its memory.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{LAUNCHER, Scratch, bare_launcher, not_here, run, skip, text};

/// The lines that begin with `subject`, of what doctor says of `program`.
fn said(program: &Path, subject: &str) -> Vec<String> {
    let output = text(&run(bare_launcher().arg("doctor").arg(program)).stdout);
    let found =
        |line: &&str| line.split_once("  ").is_some_and(|(_, rest)| rest.trim_start().starts_with(subject));
    output.lines().filter(found).map(str::to_owned).collect()
}

/// A program of these lines; `None`, with the reason, if it does not compile.
fn compiled(directory: &Path, name: &str, lines: &str, compiler: &str, flags: &[&str]) -> Option<PathBuf> {
    let source = directory.join(format!("{name}.c"));
    fs::write(&source, lines).unwrap();
    let program = directory.join(name);
    let mut command = Command::new(compiler);
    match command.args(flags).arg(&source).arg("-o").arg(&program).output() {
        Ok(output) if output.status.success() => Some(program),
        _ => {
            not_here(&format!("{name}: {compiler} {}", flags.join(" ")));
            None
        }
    }
}

const MAIN: &str = "int main(void) { return 0; }\n";

#[test]
fn programs_that_the_library_does_not_see_are_named() {
    if Command::new("gcc").arg("--version").output().is_err() {
        return skip("there is no gcc");
    }
    let scratch = Scratch::new("doctor");
    let own = "#include <stddef.h>\nvoid *malloc(size_t n) { (void)n; return 0; }\nint main(void) { return !!malloc(1); }\n";
    let go = "__attribute__((section(\".go.buildinfo\"), used)) static char info[32];\nint main(void) { return 0; }\n";
    for (name, lines, compiler, flags, subject, expected) in [
        ("plain", MAIN, "gcc", &[][..], "program", "brings no allocator that is known"),
        ("sanitized", MAIN, "gcc", &["-fsanitize=address"], "pools", "sanitizer"),
        ("threads", MAIN, "gcc", &["-fsanitize=thread"], "pools", "sanitizer"),
        ("own", own, "gcc", &["-fno-builtin"], "pools", "defines malloc itself"),
        ("go", go, "gcc", &[], "pools", "Go has a heap of its own"),
        ("static", MAIN, "gcc", &["-static"], "program", "is statically linked"),
        ("musl", MAIN, "musl-gcc", &[], "program", "is linked with musl"),
    ] {
        let Some(program) = compiled(&scratch.0, name, lines, compiler, flags) else { continue };
        let lines = said(&program, subject);
        assert!(lines.iter().any(|line| line.contains(expected)), "{name}: {lines:?}");
        if name == "plain" {
            assert!(lines.iter().all(|line| line.starts_with("ok")) && said(&program, "pools").is_empty());
        }
    }
}

#[test]
fn children_that_go_without_are_named() {
    let scratch = Scratch::new("children");
    // SAFETY: asks for a number.
    let raised = if unsafe { libc::getuid() } == 0 {
        let path = scratch.0.join("raised");
        fs::copy("/bin/true", &path).unwrap();
        chown(&path, Some(1), None).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        path
    } else {
        let known = ["/usr/bin/su", "/usr/bin/passwd", "/usr/bin/sudo", "/bin/su"];
        let is_raised = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.mode() & 0o4000 != 0);
        match known.map(PathBuf::from).into_iter().find(is_raised) {
            Some(path) => path,
            None => return not_here("a setuid program"),
        }
    };
    let script = scratch.0.join("script");
    fs::write(&script, format!("#!/bin/sh\n/bin/true\nexec '{}' \"$@\"\n", raised.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let lines = said(&script, "children");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(raised.to_str().unwrap()) && lines[0].contains("is setuid"), "{lines:?}");
    fs::write(&script, "#!/bin/sh\n/bin/true\n").unwrap();
    assert_eq!(said(&script, "children"), Vec::<String>::new());
}

#[test]
fn surroundings_are_named() {
    let lines = |command: &mut Command, subject: &str| -> Vec<String> {
        let output = text(&run(command).stdout);
        output.lines().filter(|line| line.contains(subject)).map(str::to_owned).collect()
    };
    let recorded = lines(bare_launcher().arg("doctor").env("RUNNING_UNDER_RR", "1"), "rr ");
    assert!(recorded.iter().any(|line| line.contains("guards=mprotect")), "{recorded:?}");
    let sandbox = lines(bare_launcher().arg("doctor"), "sandbox");
    assert_eq!(sandbox.len(), 1, "{sandbox:?}");
    let mut strace = Command::new("strace");
    if strace.arg("--version").output().is_err() {
        return not_here("strace");
    }
    let mut traced = Command::new("strace");
    traced.args(["-o", "/dev/null", "-e", "trace=none", LAUNCHER, "doctor"]);
    let debugger = lines(traced.env_remove("LD_PRELOAD"), "debugger");
    assert!(debugger.iter().any(|line| line.contains("strace traces this process")), "{debugger:?}");
}
