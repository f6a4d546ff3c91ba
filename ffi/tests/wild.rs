//! Pointers outside the address space: the processor refuses them without an address, and the report has all the same a
//! stack, the registers, and what the value looks like.

mod support;

use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use support::{launcher, marked, program, run, text};

fn commit(options: &str, what: &str) -> Option<Output> {
    let wild = program("wild.c")?;
    let mut command = launcher();
    Some(run(command.env("FENCEPOST_OPTIONS", options).args(["run", "--"]).arg(wild).arg(what)))
}

const MODES: [&str; 3] = ["mode=harden", "mode=patrol", "mode=hunt"];

#[test]
fn a_pointer_of_text_is_reported() {
    for mode in MODES {
        let Some(output) = commit(mode, "text") else { return };
        let stderr = text(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{mode}: {stderr}");
        let address = format!("0x{:016x}", u64::from_le_bytes(*b"overwrit") + 8);
        for line in [
            format!("ERROR: fencepost: wild-access on address {address} at pc "),
            format!("WRITE of size 8 at {address} by thread T"),
            format!("{address} is outside the address space: nothing is allocated there\n"),
            format!("SUMMARY: fencepost: wild-access {} in store\n", marked("wild.c", "store")),
            "registers:\n    rax 0x".to_owned(),
        ] {
            assert!(stderr.contains(&line), "{mode}: {line}: {stderr}");
        }
        assert!(stderr.contains(&format!("{:016x}", u64::from_le_bytes(*b"overwrit"))), "{mode}: {stderr}");
        assert!(!stderr.contains("looks like") && !stderr.contains("general protection"), "{mode}: {stderr}");
        let frames =
            stderr.lines().filter(|line| line.contains(" in store ") || line.contains(" in main ")).count();
        assert_eq!(frames, 2, "{mode}: {stderr}");
    }
}

#[test]
fn a_pointer_that_was_never_written_is_recognised() {
    for mode in MODES {
        let Some(output) = commit(&format!("{mode}:fill=0xa5"), "unwritten") else { return };
        let stderr = text(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{mode}: {stderr}");
        let line =
            "the pointer looks like the fill byte 0xa5: it was read from memory that was never written\n";
        assert!(stderr.contains(line), "{mode}: {stderr}");
        assert!(stderr.contains("READ of size 8 at 0xa5a5a5a5a5a5a5ad by "), "{mode}: {stderr}");
        let summary = format!("SUMMARY: fencepost: wild-access {} in follow\n", marked("wild.c", "follow"));
        assert!(stderr.contains(&summary), "{mode}: {stderr}");
    }
}

/// And nowhere in the report stands what would tell the secret of canaries.
#[test]
fn a_pointer_from_slack_is_recognised_and_not_shown() {
    for mode in MODES {
        let Some(output) = commit(&format!("{mode}:report=json"), "canary") else { return };
        let stderr = text(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{mode}: {stderr}");
        let report: Value = stderr.lines().find_map(|line| serde_json::from_str(line).ok()).expect(&stderr);
        assert_eq!(
            (report["kind"].as_str(), report["resembles"].as_str()),
            (Some("wild-access"), Some("canary"))
        );
        let number = |value: &Value| {
            u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
        };
        let address = number(&report["address"]);
        assert_eq!(address >> 16, 0x8181_8181_8181, "{mode}: {report:#}");
        let secret = 0x3e3e_3e3e_3e3e_0000_u64;
        for (name, value) in report["registers"].as_object().unwrap() {
            let value = number(value);
            let canary = value & 0xc1c1_c1c1_c1c1_0000 == 0x8181_8181_8181_0000;
            assert!(!canary || value & secret == 0, "{mode}: {name}: {report:#}");
        }
        assert_eq!(report["registers"].as_object().unwrap().len(), 16);
    }
}

#[test]
fn what_the_program_handles_is_its_own() {
    for mode in MODES {
        let Some(handled) = commit(mode, "handled") else { return };
        assert_eq!((handled.status.code(), text(&handled.stderr)), (Some(7), String::new()), "{mode}");
        let Some(handled) = commit(mode, "null-handled") else { return };
        assert_eq!((handled.status.code(), text(&handled.stderr)), (Some(7), String::new()), "{mode}");
    }
}

/// A fault outside the heap, which ends the program.
#[test]
fn an_address_that_is_nobodys_is_reported() {
    for mode in MODES {
        for (what, address, access, place, why) in [
            (
                "null",
                "0x000000000008",
                "WRITE of size 8",
                "store",
                "is in the first page: the pointer was null",
            ),
            ("low", "0x000000010008", "READ of size 8", "follow", "is not an address of any known object"),
            ("constant", "", "WRITE of size 1", "constant", "is not an address of any known object"),
        ] {
            let Some(output) = commit(mode, what) else { return };
            let stderr = text(&output.stderr);
            assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{mode} {what}: {stderr}");
            for part in [
                format!("ERROR: fencepost: wild-access on address {address}"),
                format!("{access} at {address}"),
                format!("{address} {why}\n").trim_start().to_owned(),
                format!("SUMMARY: fencepost: wild-access {} in {place}\n", marked("wild.c", place)),
            ] {
                assert!(stderr.contains(&part), "{mode} {what}: {part}: {stderr}");
            }
            assert!(!stderr.contains("there is no report"), "{mode} {what}: {stderr}");
        }
    }
    let Some(output) = commit("mode=harden:on_error=exit:exitcode=43", "null") else { return };
    assert_eq!(output.status.code(), Some(43), "{}", text(&output.stderr));
}

/// A fault of the heap's where no handler can run leaves a line.
#[test]
fn a_hidden_fault_leaves_a_line() {
    for what in ["blocked", "ignored", "masked", "cramped"] {
        let Some(output) = commit("mode=hunt", what) else { return };
        let stderr = text(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{what}: {stderr}");
        let line = "the program ended by SIGSEGV, and there is no report: ";
        let report = "ERROR: fencepost: heap-buffer-overflow";
        assert!(stderr.contains(line) != stderr.contains(report), "{what}: {stderr}");
    }
    let Some(logged) = commit("mode=hunt:log_path=/dev/null", "null") else { return };
    assert_eq!((logged.status.signal(), text(&logged.stderr)), (Some(libc::SIGSEGV), String::new()));
}

#[test]
fn what_follows_is_as_for_other_errors() {
    let Some(exit) = commit("mode=harden:on_error=exit:exitcode=43", "text") else { return };
    assert_eq!(exit.status.code(), Some(43), "{}", text(&exit.stderr));
    // There is no page that could be opened.
    let Some(goes_on) = commit("mode=harden:on_error=continue", "text") else { return };
    assert_eq!(goes_on.status.signal(), Some(libc::SIGSEGV));
    assert_eq!(text(&goes_on.stderr).matches("ERROR: fencepost: wild-access").count(), 1);
}
