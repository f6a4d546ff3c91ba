//! `fencepost whatis` in gdb: the commands come with the library, and tell of a live process and of a core file what
//! `fencepost explain` tells.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::{LAUNCHER, Scratch, library, not_here, program, run, skip, text};

/// gdb with Python, and without the user's files.
fn gdb() -> Option<Command> {
    let mut probe = Command::new("gdb");
    let answer = probe.args(["-nx", "-batch", "-ex", "python print(6 * 7)"]).output();
    match answer {
        Ok(output) if text(&output.stdout).contains("42") => {
            let mut command = Command::new("gdb");
            command.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]).env("DEBUGINFOD_URLS", "");
            command.env_remove("LD_PRELOAD").env_remove("FENCEPOST");
            Some(command)
        }
        _ => {
            skip("there is no gdb with Python");
            None
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn gdb_says_what_an_address_is() {
    let (Some(mut gdb), Some(program)) = (gdb(), program("service.c")) else { return };
    let scratch = Scratch::new("gdb");
    let prefix = scratch.0.join("prefix");
    let mut install = Command::new(LAUNCHER);
    install.args(["install", "--prefix"]).arg(&prefix).env("FENCEPOST_LIB", library());
    assert!(run(&mut install).status.success());
    let installed = prefix.join("lib/fencepost/libfencepost.so");
    let set = |name: &str, value: &str| format!("set environment {name} {value}");
    gdb.arg("-iex").arg(format!("add-auto-load-safe-path {}", prefix.display()));
    for line in [
        "set startup-with-shell off",
        &set("LD_PRELOAD", installed.to_str().unwrap()),
        &set("FENCEPOST_OPTIONS", "mode=hunt"),
        "break comes_a_byte",
        "run",
        "fencepost whatis (char *)kept[3] + 7",
        "fencepost whatis &kept",
        "fencepost whatis",
    ] {
        gdb.arg("-ex").arg(line);
    }
    let output = run(gdb.arg(&program));
    let answer = said(&output);
    if answer.contains("ptrace: Operation not permitted") || answer.contains("Could not trace the inferior") {
        return not_here("gdb may not trace here");
    }
    assert!(answer.contains("is located 7 bytes inside of 40-byte region"), "{answer}");
    assert!(
        answer.contains("state: live") && answer.contains(" in main ") && answer.contains("service.c:"),
        "{answer}"
    );
    assert!(answer.contains("is not an address of fencepost's heap"), "{answer}");
    assert!(answer.contains("fencepost whatis EXPRESSION"), "{answer}");
}

/// A core file that the kernel made: gdb's own would hold all address space that is reserved.
#[test]
fn gdb_says_what_an_address_of_a_core_file_was() {
    let (Some(mut gdb), Some(program)) = (gdb(), program("service.c")) else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with('|') || pattern.contains('/') {
        return not_here(&format!("core files: the kernel makes them elsewhere ({})", pattern.trim()));
    }
    let scratch = Scratch::new("gdb-core");
    let mut command = Command::new("prlimit");
    command.arg("--core=268435456:").arg(&program).current_dir(&scratch.0).env("LD_PRELOAD", library());
    command
        .env("FENCEPOST_OPTIONS", "mode=hunt")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The byte has it free an object twice.
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    child.wait().unwrap();
    let cores: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [core] = &cores[..] else { return not_here("core files: none was made here") };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("share/fencepost-gdb.py");
    gdb.arg("-iex").arg(format!("source {}", script.display())).env("FENCEPOST", LAUNCHER);
    gdb.args(["-ex", "fencepost whatis kept[0]", "-ex", "fencepost whatis kept[1005]"]);
    let answer = said(&run(gdb.arg(&program).arg(core)));
    assert!(answer.contains("is located 0 bytes inside of 40-byte region"), "{answer}");
    assert!(answer.contains("state: freed") && answer.contains("freed by thread T"), "{answer}");
    assert!(answer.contains("is located 0 bytes inside of 8192-byte region"), "{answer}");
}

#[test]
fn without_a_process_it_says_so() {
    let Some(mut gdb) = gdb() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("share/fencepost-gdb.py");
    gdb.arg("-ex").arg(format!("source {}", script.display())).env("FENCEPOST", LAUNCHER);
    let answer = said(&run(gdb.args(["-ex", "fencepost whatis 0x1000"])));
    assert!(answer.contains("there is no process and no core file"), "{answer}");
}
