//! Fault injection: each place in the shipped library that makes a system call fails in turn, once, always, and a third of
//! the time, with what a kernel or a sandbox may answer, or pretends to have done what was asked. The program must do what
//! it does without the library: no crash, no other output.
//!
//! `faults/inject.c` finds the places and lets them fail, under `ptrace`. By default a drawn part of all combinations is
//! tried on `hostile/work.c`; `FENCEPOST_FAULTS=1` tries all on that and on real programs, and prints a table;
//! `FENCEPOST_FAULTS=N` every Nth.

#[allow(dead_code)]
#[path = "model/random.rs"]
mod random;
mod support;

use random::Random;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::expectation::is_degraded;
use support::process::{self, End, Run};
use support::{compiler, library, skip};

/// Every how many of all combinations are tried, on all programs.
const EVERY: &str = "FENCEPOST_FAULTS";
/// Combinations that are tried by default, in each mode.
const DRAWN: usize = 12;
const LIMIT: Duration = Duration::from_secs(30);
/// What the injector says where it may not trace.
const NOT_PERMITTED: End = End::Status(77);

/// Calls that a sandbox or an emulator may answer with success and not make.
const PRETENDED: &[&str] = &[
    "madvise",
    "munmap",
    "msync",
    "munlock",
    "membarrier",
    "process_madvise",
    "prctl",
    "rt_sigaction",
    "sigaltstack",
    "futex",
    "close",
    "pkey_mprotect",
    "rt_sigprocmask",
];

/// Errors that calls may answer with: numbers of `errno.h`.
const ERRORS: [(&str, i32); 5] = [
    ("ENOMEM", libc::ENOMEM),
    ("EPERM", libc::EPERM),
    ("EINVAL", libc::EINVAL),
    ("ENOSYS", libc::ENOSYS),
    ("EAGAIN", libc::EAGAIN),
];
const WHEN: [&str; 4] = ["1", "2", "third", "all"];

/// A program and its arguments.
struct Subject {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

/// A call of the library's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    at: String,
    call: String,
    times: u64,
}

fn injector() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/inject.c");
    compiler::with_flags(&source, &["-O1"], "faults-inject")
}

fn work() -> Option<Subject> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/work.c");
    let program = compiler::with_flags(&source, &["-O1"], "hostile-work")?;
    Some(Subject { name: "work", program, arguments: vec!["threads=2".to_owned()] })
}

/// The real programs that are installed.
fn real() -> Vec<Subject> {
    let python = "import json, threading, os\n\
        d = {str(i): [i, i * 2.5, 'x' * (i % 300)] for i in range(3000)}\n\
        t = [threading.Thread(target=lambda: json.dumps(d)) for _ in range(3)]\n\
        [x.start() for x in t]; [x.join() for x in t]\n\
        p = os.fork()\n\
        if p == 0: os._exit(len(json.dumps(d)) % 100)\n\
        print(len(json.dumps(d)), os.waitpid(p, 0)[1], sum(len(b'y' * (1 << i)) for i in range(20)))";
    let sqlite = "create table t(a integer primary key, b text); \
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000) \
        insert into t select i, hex(i * 7919) || substr('abcdefghij', i % 10) from n; \
        create index u on t(b); delete from t where a % 3 = 0; \
        select count(*), sum(length(b)), max(b) from t; select b from t order by b limit 5;";
    let jq = "[range(4000) | {a: ., b: (. * 3 | tostring), c: [range(. % 7)]}] \
        | group_by(.a % 11) | map({n: length, s: (map(.b | length) | add)}) | tojson | length, .[0:60]";
    let rows: [(&'static str, &[&str], &[&str]); 3] = [
        ("python3", &["/usr/bin/python3", "/usr/local/bin/python3"], &["-S", "-c", python]),
        ("sqlite3", &["/usr/bin/sqlite3"], &[":memory:", sqlite]),
        ("jq", &["/usr/bin/jq"], &["-n", jq]),
    ];
    let mut found = Vec::new();
    for (name, places, arguments) in rows {
        let program = places.iter().map(PathBuf::from).find(|path| path.is_file()).or_else(|| asked(name));
        match program {
            Some(program) => {
                let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
                found.push(Subject { name, program, arguments });
            }
            None => skip::skip(&format!("faults: there is no {name}")),
        }
    }
    found
}

/// Where an interpreter says that it is: what a shell finds may be a script.
fn asked(name: &str) -> Option<PathBuf> {
    let output = Command::new(name).args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// The program under the injector; what that says of itself goes to a file.
fn injected(subject: &Subject, rule: &[&str], options: &str) -> Option<(Run, String)> {
    let library = library::path();
    let said = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "faults-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut command = process::command("/bin/sh", None, "");
    command.args(["-c", "exec 9> \"$SAID\"; exec \"$@\"", "sh"]).arg(injector()?).args(rule);
    command.arg(library.file_name().expect("a library is a file")).arg("--");
    command.arg(&subject.program).args(&subject.arguments);
    command.env("SAID", &said).env("INJECT_PRELOAD", library).env("FENCEPOST_OPTIONS", options);
    let run = process::run(&mut command, LIMIT);
    let text = fs::read_to_string(&said).unwrap_or_default();
    let _ = fs::remove_file(said);
    Some((run, text))
}

/// The places of the library's that make calls when it runs the program.
fn sites(subject: &Subject, options: &str) -> Option<Vec<Site>> {
    let (run, text) = injected(subject, &["list"], options)?;
    if run.end == NOT_PERMITTED {
        skip::skip("faults: tracing is not permitted here");
        return None;
    }
    assert_eq!(run.end, End::Status(0), "{}: {}{}", subject.name, run.stdout, run.stderr);
    let mut sites: Vec<Site> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let (at, call) = (words.next()?, words.next()?);
            Some(Site { at, call, times: words.next()?.parse().ok()? })
        })
        .collect();
    sites.sort();
    Some(sites)
}

/// What calls at a place may answer: the names, and the numbers for the injector.
fn answers(call: &str) -> Vec<(&'static str, i32)> {
    let nothing = PRETENDED.contains(&call).then_some(("nothing", 0));
    ERRORS.into_iter().chain(nothing).collect()
}

/// All that can be tried.
fn combinations(sites: &[Site]) -> Vec<(Site, (&'static str, i32), &'static str)> {
    let mut all = Vec::new();
    for site in sites {
        for answer in answers(&site.call) {
            if answer.1 == 0 && site.call == "madvise" {
                continue;
            }
            let when = WHEN.iter().filter(|when| site.times > 1 || **when == "1");
            all.extend(when.map(|when| (site.clone(), answer, *when)));
        }
    }
    // A filter that pretends to follow advice does so wherever it is given, from when it is there.
    let anywhere = Site { at: "any".to_owned(), call: "madvise".to_owned(), times: 0 };
    all.extend(["1+", "2+", "20+", "200+"].map(|when| (anywhere.clone(), ("nothing", 0), when)));
    all
}

/// Lines that say that there is less protection, or none.
fn is_less(line: &str) -> bool {
    is_degraded(line)
        || line.starts_with("fencepost: the heap can get no more address space: ")
        || line.starts_with("fencepost: there is no address space for ")
        || line.starts_with("fencepost: /etc/fencepost.conf: ")
        || line.starts_with("fencepost: guards=madvise has no effect here")
}

/// What is wrong with a run, if anything.
fn wrong(run: &Run, plain: &Run) -> Option<&'static str> {
    let reported = run.stderr.contains("ERROR: fencepost");
    match run.end {
        _ if reported => Some("report"),
        End::Signal(_) => Some("crash"),
        End::TimeLimit | End::LeftOver => Some("hang"),
        end if end != plain.end => Some("status"),
        _ if run.stdout != plain.stdout => Some("output"),
        _ if run.stderr.lines().any(|line| !is_less(line)) => Some("said"),
        _ => None,
    }
}

/// By call and answer, how often a run came out how.
type Outcomes = BTreeMap<String, BTreeMap<&'static str, usize>>;

/// Tries some of all combinations on a program; the outcomes by call and answer.
fn attempt(
    subject: &Subject,
    options: &str,
    choose: impl Fn(usize) -> Vec<usize>,
) -> Option<(Outcomes, Vec<String>)> {
    let mut command = process::command(&subject.program, None, "");
    let plain = process::run(command.args(&subject.arguments), LIMIT);
    let sites = sites(subject, options)?;
    let all = combinations(&sites);
    let (mut outcomes, mut failures) = (BTreeMap::new(), Vec::new());
    for index in choose(all.len()) {
        let (site, (error, number), when) = &all[index];
        let number = number.to_string();
        let (run, said) = injected(subject, &[&site.at, &site.call, &number, when], options)?;
        let outcome = wrong(&run, &plain);
        let row: &mut BTreeMap<&'static str, usize> =
            outcomes.entry(format!("{} {error}", site.call)).or_default();
        *row.entry(outcome.unwrap_or("same")).or_default() += 1;
        if let Some(what) = outcome {
            let stderr: String = run.stderr.chars().take(600).collect();
            failures.push(format!(
                "{what}: {} {options} {} {} {error} {when} ({}): {} {stderr}",
                subject.name,
                site.at,
                site.call,
                said.trim(),
                run.end
            ));
        }
    }
    println!("{} {options}: {} sites, {} combinations", subject.name, sites.len(), all.len());
    Some((outcomes, failures))
}

const MODES: [&str; 2] = ["mode=harden", "mode=hunt:guards=madvise"];

#[test]
fn drawn_faults() {
    let Some(work) = work() else { return };
    let seed = random::seed();
    println!("repeat with {}", random::again(seed));
    let mut failures = Vec::new();
    for (number, options) in MODES.iter().enumerate() {
        let choose = |count: usize| {
            let mut random = Random::new(seed ^ number as u64);
            (0..DRAWN).map(|_| random.below(count)).collect()
        };
        let Some((_, found)) = attempt(&work, options, choose) else { return };
        failures.extend(found);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_fault() {
    let Some(every) = env::var(EVERY).ok().map(|text| text.parse::<usize>().expect("a number")) else {
        return;
    };
    let mut subjects = real();
    subjects.extend(work());
    let (mut table, mut failures) = (BTreeMap::new(), Vec::new());
    for subject in &subjects {
        for options in MODES {
            let choose = |count: usize| (0..count).step_by(every.max(1)).collect();
            let Some((outcomes, found)) = attempt(subject, options, choose) else { return };
            for (row, counts) in outcomes {
                for (outcome, count) in counts {
                    *table.entry(row.clone()).or_insert_with(BTreeMap::new).entry(outcome).or_insert(0) +=
                        count;
                }
            }
            println!("{} findings so far:\n{}", failures.len() + found.len(), found.join("\n"));
            failures.extend(found);
        }
    }
    let mut all = 0;
    for (row, counts) in &table {
        println!("{row}: {counts:?}");
        all += counts.values().sum::<usize>();
    }
    println!("{all} runs, {} findings", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The injector's own test: a call that matters, refused, is seen.
#[test]
fn a_refused_call_is_seen() {
    let Some(work) = work() else { return };
    let Some(sites) = sites(&work, "mode=harden") else { return };
    assert!(sites.len() > 20, "{sites:?}");
    for call in ["mmap", "madvise", "mprotect", "rt_sigaction"] {
        assert!(sites.iter().any(|site| site.call == call), "{sites:?}");
    }
    let mprotect = libc::ENOMEM.to_string();
    let Some((_, said)) = injected(&work, &["any", "mprotect", &mprotect, "all"], "mode=harden") else {
        return;
    };
    let (refused, met) = said.trim().split_once(" of ").expect("the injector counts");
    assert!(refused == met && refused != "0", "{said}");
}
