//! `fencepost doctor`: what this machine offers, and what that means for each mode.
//!
//! One line a finding: `ok`, `note` for what costs something or is worth knowing, `FAIL` for what keeps
//! the default mode from working. Only `FAIL` makes the exit status 1. The last lines do not predict:
//! a small program runs under the library in each mode.

use crate::failure::Failure;
use crate::launch::PRELOAD;
use crate::library::{self, Library};
use crate::machine::{self, Limit};
use crate::settings::{self, explain};
use crate::{pools, print, printable, program, trial};
use fencepost_core::heap::start::{CONFIGURATION_BYTES, LINE_BYTES};
use fencepost_core::options::{Mode, Options, apply, apply_line};
use fencepost_core::sys::file::{self, Piece};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

/// The configuration of the machine.
const CONFIGURATION: &str = "/etc/fencepost.conf";
/// Problems of it that are listed.
const MOST_PROBLEMS: usize = 32;
/// Reservations come from limits below this in pieces smaller than they should be.
const ROOMY: u64 = 1 << 40;

/// How good a finding is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Note,
    Fail,
}
use Grade::{Fail, Note, Ok as Fine};

/// The lines so far.
#[derive(Default)]
struct Findings {
    text: String,
    failed: bool,
}

impl Findings {
    fn add(&mut self, grade: Grade, subject: &str, finding: &str) {
        let word = match grade {
            Grade::Ok => "ok",
            Grade::Note => "note",
            Grade::Fail => "FAIL",
        };
        self.failed |= grade == Fail;
        let line = printable::line(&format!("{word:4}  {subject:17} {finding}"));
        self.text.push_str(&format!("{line}\n"));
    }
}

/// Prints the findings; `flag` is what `--lib` says. Those of a `program` as well, if one is named.
pub fn doctor(flag: Option<&Path>, program: Option<&Path>) -> Result<ExitCode, Failure> {
    let mut findings = Findings::default();
    let guards = kernel(&mut findings);
    mappings(&mut findings, guards);
    memory(&mut findings);
    processor(&mut findings);
    core_dumps(&mut findings);
    configuration(&mut findings);
    environment(&mut findings);
    surroundings(&mut findings);
    match library::locate(flag) {
        Ok(library) => under_the_library(&mut findings, &library)?,
        Err(failure) => findings.add(Fail, "library", &failure.message),
    }
    if let Some(program) = program {
        about(&mut findings, program);
    }
    print(&findings.text)?;
    Ok(if findings.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What keeps the library from seeing all of a program's memory.
fn about(findings: &mut Findings, name: &Path) {
    const SUBJECT: &str = "program";
    let Some(path) = program::resolve(name.as_os_str()) else {
        findings.add(Note, SUBJECT, &format!("{} was not found", name.display()));
        return;
    };
    let obstacle = program::obstacle(&path);
    let pools = pools::known(&path);
    let children = program::children(&path);
    if obstacle.is_none() && pools.is_empty() {
        findings.add(Fine, SUBJECT, &format!("{} brings no allocator that is known", path.display()));
    }
    if let Some(obstacle) = obstacle {
        findings.add(Note, SUBJECT, &format!("{} {obstacle}", path.display()));
    }
    for pool in pools {
        findings.add(Note, "pools", pool);
    }
    for (child, obstacle) in children {
        findings.add(Note, "children", &format!("{} is named in it and {obstacle}", child.display()));
    }
}

fn kernel(findings: &mut Findings) -> bool {
    match machine::kernel() {
        Some(release) => findings.add(Fine, "kernel", &format!("Linux {release}")),
        None => findings.add(Note, "kernel", "unknown: /proc cannot be read"),
    }
    match machine::guard_markers() {
        Ok(()) => {
            findings.add(
                Fine,
                "guard pages",
                "MADV_GUARD_INSTALL works: one mapping holds any number of guarded objects",
            );
            true
        }
        Err(error) => {
            findings.add(
                Note,
                "guard pages",
                &format!(
                    "no MADV_GUARD_INSTALL ({error}; Linux 6.13 has it): guards=mprotect instead, \
                     slower, and two mappings for each guarded object"
                ),
            );
            false
        }
    }
}

fn mappings(findings: &mut Findings, guards: bool) {
    const SUBJECT: &str = "vm.max_map_count";
    match machine::number("/proc/sys/vm/max_map_count") {
        None => findings.add(Note, SUBJECT, "unknown"),
        Some(count) if guards => {
            findings.add(Fine, SUBJECT, &format!("{count}: no limit here, guards need no mappings"));
        }
        Some(count) => {
            let objects = count / 2;
            findings.add(
                Note,
                SUBJECT,
                &format!(
                    "{count}: room for about {objects} guarded objects at a time; harden has few, \
                     hunt on a large program wants sysctl vm.max_map_count=1048576"
                ),
            );
        }
    }
}

fn memory(findings: &mut Findings) {
    const OVERCOMMIT: &str = "vm.overcommit";
    match machine::number("/proc/sys/vm/overcommit_memory") {
        Some(2) => findings.add(
            Note,
            OVERCOMMIT,
            "2 (strict): all writable address space counts, so the arenas are small; \
             patrol and hunt guard fewer objects",
        ),
        Some(mode) => findings.add(Fine, OVERCOMMIT, &format!("{mode}: reserving address space is free")),
        None => findings.add(Note, OVERCOMMIT, "unknown"),
    }
    const SPACE: &str = "RLIMIT_AS";
    match machine::address_space() {
        Some(Limit::Unlimited) => findings.add(Fine, SPACE, "unlimited"),
        Some(Limit::Bytes(bytes)) if bytes >= ROOMY => findings.add(Fine, SPACE, &size(bytes)),
        Some(Limit::Bytes(bytes)) => findings.add(
            Note,
            SPACE,
            &format!(
                "{}: the arenas share this with the program, addresses are reused sooner, and \
                 hunt falls back to slabs when it is spent (ulimit -v unlimited)",
                size(bytes)
            ),
        ),
        None => findings.add(Note, SPACE, "unknown"),
    }
    const HUGE: &str = "huge pages";
    match machine::chosen("/sys/kernel/mm/transparent_hugepage/enabled") {
        Some(setting) => {
            findings.add(Fine, HUGE, &format!("{setting}: guarded arenas opt out, no mode depends on it"));
        }
        None => findings.add(Fine, HUGE, "the kernel has none"),
    }
    let (total, group) = (machine::memory(), machine::cgroup_memory());
    // A group without a limit may state one that no machine has.
    let group = group.filter(|limit| total.is_none_or(|total| *limit < total));
    match group.or(total) {
        Some(bytes) => {
            let whose =
                if group.is_some() { "the cgroup grants" } else { "no cgroup limit, the machine has" };
            findings.add(
                Fine,
                "memory",
                &format!(
                    "{whose} {}: hunt and patrol keep up to {} of small objects guarded (budget_mb)",
                    size(bytes),
                    size(bytes / 2)
                ),
            );
        }
        None => findings.add(Note, "memory", "unknown"),
    }
}

fn processor(findings: &mut Findings) {
    match machine::protection_keys() {
        Ok(()) => findings.add(Fine, "protection keys", "offered: seal=pkey seals the allocator's tables"),
        Err(error) => findings.add(
            Fine,
            "protection keys",
            &format!("none to be had ({error}): seal=pkey changes nothing"),
        ),
    }
}

fn core_dumps(findings: &mut Findings) {
    let pattern = machine::text("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let subject = "core dumps";
    match machine::core_size() {
        // The kernel does not apply the limit to a pipe; the program at its end may.
        _ if pattern.starts_with('|') => {
            findings.add(Fine, subject, &format!("handed to {}", pattern.trim_start_matches('|')));
        }
        Some(Limit::Bytes(0)) => findings.add(
            Note,
            subject,
            "RLIMIT_CORE is 0: a report is not followed by a core dump (ulimit -c unlimited)",
        ),
        _ => findings.add(Fine, subject, &format!("written as '{pattern}' after a report")),
    }
}

fn configuration(findings: &mut Findings) {
    if fs::symlink_metadata(CONFIGURATION).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return findings.add(Fine, "configuration", &format!("no {CONFIGURATION}"));
    }
    if fs::metadata(CONFIGURATION).is_ok_and(|file| file.mode() & 0o022 != 0 || file.uid() != 0) {
        let problem = "others than root can write it, and it weakens every program that they choose";
        findings.add(Note, "configuration", &format!("{CONFIGURATION}: {problem}"));
    }
    // As the library reads it.
    let path = format!("{CONFIGURATION}\0");
    let mut problems = Vec::new();
    let read = file::read_lines::<LINE_BYTES>(path.as_bytes(), CONFIGURATION_BYTES, |piece| match piece {
        Piece::Line(line) => {
            apply_line(&mut { Options::DEFAULT }, line, |warning| problems.push(explain(&warning)));
        }
        Piece::LongLine(_) => problems.push(format!("a line is longer than {LINE_BYTES} bytes, and ignored")),
        Piece::Rest => problems.push(format!("longer than {CONFIGURATION_BYTES} bytes, the rest is ignored")),
    });
    match read {
        Ok(()) => {}
        Err(libc::EINVAL) => problems.push("no file to be read, and ignored".to_owned()),
        Err(errno) => problems.push(io::Error::from_raw_os_error(errno).to_string()),
    }
    for problem in problems.iter().take(MOST_PROBLEMS) {
        findings.add(Note, "configuration", &format!("{CONFIGURATION}: {problem}"));
    }
    if problems.is_empty() {
        findings.add(Fine, "configuration", &format!("{CONFIGURATION} is understood"));
    } else if problems.len() > MOST_PROBLEMS {
        let more = problems.len() - MOST_PROBLEMS;
        findings.add(Note, "configuration", &format!("{CONFIGURATION}: {more} more"));
    }
}

fn environment(findings: &mut Findings) {
    let subject = "environment";
    let name = settings::VARIABLE;
    match env::var_os(name) {
        None => findings.add(Fine, subject, &format!("{name} is not set")),
        Some(text) => {
            let mut clean = true;
            apply(&mut { Options::DEFAULT }, text.as_bytes(), |warning| {
                clean = false;
                findings.add(Note, subject, &format!("{name}: {}", explain(&warning)));
            });
            if clean {
                findings.add(Fine, subject, &format!("{name}={} is understood", text.display()));
            }
        }
    }
    if let Some(list) = env::var_os(PRELOAD).filter(|list| !list.is_empty()) {
        let list = list.display();
        findings.add(Note, subject, &format!("{PRELOAD}={list}: `run` puts fencepost before it"));
    }
}

/// Debuggers, sandboxes and tools that save processes.
fn surroundings(findings: &mut Findings) {
    const SANDBOX: &str = "sandbox";
    match machine::seccomp() {
        Some(0) => findings.add(Fine, SANDBOX, "no seccomp filter here"),
        Some(1) => {
            findings.add(Note, SANDBOX, "strict seccomp: a program that allocates is killed, whatever its allocator");
        }
        Some(_) => findings.add(
            Note,
            SANDBOX,
            "a seccomp filter is in force here: what it refuses costs protection, what it kills for ends programs \
             (names=0 leaves prctl out, guards=mprotect the advice of Linux 6.13)",
        ),
        None => findings.add(Note, SANDBOX, "unknown"),
    }
    if let Some(tracer) = machine::tracer() {
        findings.add(
            Note,
            "debugger",
            &format!("{tracer} traces this process: what it traces sees each SIGSEGV before fencepost"),
        );
    }
    if env::var_os("RUNNING_UNDER_RR").is_some() {
        findings.add(
            Note,
            "rr",
            "this is a recording: guards=mprotect, since rr may not replay guard markers",
        );
    } else if program::resolve("rr".as_ref()).is_some() {
        findings.add(
            Note,
            "rr",
            "installed: record with guards=mprotect, since rr may not replay guard markers",
        );
    }
    if program::resolve("criu".as_ref()).is_some() {
        findings.add(
            Note,
            "CRIU",
            "installed: processes that are to be saved want guards=mprotect, as guard markers are not in every version's images",
        );
    }
}

/// Whether the library can be loaded and is fencepost's, and whether a program runs in each mode.
fn under_the_library(findings: &mut Findings, library: &Library) -> Result<(), Failure> {
    let place = format!("{} ({})", library.path.display(), library.source);
    let problem = match trial::run(library, "help=1")? {
        // Only fencepost answers with its options.
        Ok(said) if said.contains("unmap_threshold") => None,
        Ok(_) => Some("loads, and does not list fencepost's options at help=1".to_owned()),
        Err(problem) => Some(problem),
    };
    if let Some(problem) = problem {
        findings.add(Fail, "library", &format!("{place}: {problem}"));
        return Ok(());
    }
    findings.add(Fine, "library", &format!("{place} loads"));
    for (mode, guarded) in [
        (Mode::Harden, "objects of a page or more between guard pages, small ones in slabs"),
        (Mode::Patrol, "a sample of small objects between guard pages as well"),
        (Mode::Hunt, "every object between guard pages"),
    ] {
        let bad = if mode == Mode::Harden { Fail } else { Note };
        match trial::run(library, &format!("mode={}", mode.name()))? {
            Ok(_) => findings.add(Fine, mode.name(), &format!("works: {guarded}")),
            Err(problem) => findings.add(bad, mode.name(), &problem),
        }
    }
    Ok(())
}

/// Bytes, in the unit that reads best.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(512 << 10), "512.0 KiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
