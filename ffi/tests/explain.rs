//! `fencepost explain` on a live process and on a core file.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{Scratch, bare_launcher, bugs, line_of, not_here, run, text};

/// The program, waiting, with a live and a freed object.
struct Waiting {
    child: Child,
    live: String,
    freed: String,
}

impl Waiting {
    /// Starts it in the launcher's place, so that the process id is its own.
    fn start(mode: &str, directory: &Path, core: &str) -> Option<Self> {
        let program = bugs("-O0")?;
        let limits = format!("--core={core}");
        let launcher = bare_launcher();
        let mut command = Command::new("prlimit");
        command.arg(limits).arg(launcher.get_program()).current_dir(directory).process_group(0);
        command.args(["run", "--exec", "--mode", mode, "--"]).arg(program).arg("wait");
        for (name, value) in launcher.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (live, freed) = line.trim().split_once(' ').expect("two addresses");
        Some(Self { child, live: live.to_owned(), freed: freed.to_owned() })
    }

    fn explain(&self, target: &str, address: &str) -> (Option<i32>, String) {
        let output = run(bare_launcher().args(["explain", target, address]));
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    /// What `target` must say of both objects.
    fn check(&self, target: &str, mode: &str) {
        let near = |address: &str, add: u64| {
            let number = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap();
            format!("{:#x}", number + add)
        };
        let (code, said) = self.explain(target, &near(&self.live, 5));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(" is located 5 bytes inside of 13-byte region ["), "{said}");
        assert!(said.contains("state: live ("), "{said}");
        let (code, said) = self.explain(target, &near(&self.freed, 99));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(" is located 99 bytes inside of 100-byte region ["), "{said}");
        assert!(said.contains("state: freed ("), "{said}");
        if mode == "hunt" {
            for (heading, mark) in [("allocated by thread T", "allocated"), ("freed by thread T", "freed")] {
                let top =
                    said.lines().skip_while(|line| !line.starts_with(heading)).nth(1).unwrap_or_default();
                assert!(top.ends_with(&format!("bugs.cc:{}", line_of(mark))), "{said}");
            }
            let (_, said) = self.explain(target, &near(&self.live, 13));
            assert!(said.contains(" is located 0 bytes after 13-byte region ["), "{said}");
        }
        let (code, said) = self.explain(target, "0x1000");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("not an address of fencepost's heap"), "{said}");
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_live_process_is_explained() {
    let scratch = Scratch::new("live");
    for mode in ["hunt", "harden"] {
        let Some(waiting) = Waiting::start(mode, &scratch.0, "0:") else { return };
        waiting.check(&waiting.child.id().to_string(), mode);
    }
}

#[test]
fn a_core_file_is_explained() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let pattern = pattern.trim();
    if pattern.contains(['|', '/', '%']) {
        not_here(&format!("core files: the kernel makes them elsewhere ({pattern})"));
        return;
    }
    for mode in ["hunt", "harden"] {
        let scratch = Scratch::new(&format!("core-{mode}"));
        let Some(mut waiting) = Waiting::start(mode, &scratch.0, "unlimited") else { return };
        let process = libc::pid_t::try_from(waiting.child.id()).unwrap();
        // SAFETY: signals a child that has not been waited for. Not SIGQUIT: a shell has its jobs ignore it.
        unsafe { libc::kill(process, libc::SIGABRT) };
        waiting.child.wait().unwrap();
        let cores: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [core] = &cores[..] else {
            not_here("core files: none was made here");
            return;
        };
        let length = fs::metadata(core).unwrap().len();
        assert!(length < 256 << 20, "the core file has {length} bytes");
        // The states of the slots in a class's first slab are in core files.
        waiting.check(core.to_str().unwrap(), mode);
    }
}

#[test]
fn what_cannot_be_explained_is_said() {
    let own = std::process::id().to_string();
    for (target, address, complaint) in [
        ("/nonexistent", "0x1000", "cannot read"),
        ("/bin/sh", "0x1000", "no core file"),
        (own.as_str(), "here", "no address"),
        (own.as_str(), "0x1000", "no heap"),
        ("4194305", "0x1000", "cannot look into process"),
    ] {
        let output = run(bare_launcher().args(["explain", target, address]));
        assert_eq!(output.status.code(), Some(125), "{target}");
        assert!(text(&output.stderr).contains(complaint), "{target}: {}", text(&output.stderr));
    }
}
