//! `fencepost whatis` in gdb: the commands come with the library, and tell of a live process what `fencepost explain` tells.
//! (gdb's own core files hold all reserved address space; `explain.rs` has the kernel's.)

mod support;

use std::path::Path;
use std::process::{Command, Output};
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

#[test]
fn without_a_process_it_says_so() {
    let Some(mut gdb) = gdb() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("share/fencepost-gdb.py");
    gdb.arg("-ex").arg(format!("source {}", script.display())).env("FENCEPOST", LAUNCHER);
    let answer = said(&run(gdb.args(["-ex", "fencepost whatis 0x1000"])));
    assert!(answer.contains("there is no process and no core file"), "{answer}");
}
