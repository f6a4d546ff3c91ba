//! Fuzz targets for what the launcher reads that others wrote: logs, JSON lines, core files, modules with debug information,
//! tables of mappings, options on the command line.
//!
//! A module of the launcher's own tests. What it makes of them stays lines, JSON and SARIF, and takes neither the time nor the
//! memory that a few bytes of input may not cost.

#[path = "json.rs"]
mod json;
use crate::explain;
use crate::mutate::{Taken, fuzz};
use crate::rewrite::rewrite;
use crate::settings::Settings;
use crate::symbols::{Location, Symbols};
use crate::target::Target;
use crate::{collect, colour, sarif};
use fencepost_core::addr::Addr;
use fencepost_core::heap::image::{self, Memory};
use fencepost_core::options::{Options, apply};
use serde_json::Value;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes that a line of a log may become: names are written out, and a stack's lines are copied.
const GROWTH: usize = 64;

const LOG: &[u8] = b"before
==7==ERROR: fencepost: heap-use-after-free on address 0x10 at pc 0x20 bp 0x0 sp 0x0
READ of size 4 at 0x10 by thread T8 (main)
    #0 0x000000000030 in _ZN3foo3barEi+0x4 (/nonexistent/a+0x30) (BuildId: 00ff)
    #1 0x000000000040 (unknown)
    #2 0x000000000050 in test::__rust_begin_short_backtrace+0x4 (/nonexistent/b (deleted)+0x30)

0x10 is located 0 bytes inside of 64-byte region [0x10,0x50), freed
allocated by thread T7 here:
    #0 0x31 (/nonexistent/a+0x31)
freed by thread T9 here:
    (no stack)
SUMMARY: fencepost: heap-use-after-free (/nonexistent/a+0x30)
rerun with: FENCEPOST_OPTIONS=seed=4
==7==END
==8==NOTE: fencepost: refused allocation 3 (7 bytes, malloc, site 0x12) here:
    #0 0x1 in _RNvCs1234_7mycrate3foo+0x1 (/nonexistent/b+0x1)
==8==END
==7==SUMMARY: fencepost: 2 errors, 1 distinct, 0 suppressed
";

const JSON: &[u8] = br#"{"tool":"fencepost","version":1,"pid":7,"kind":"heap-buffer-overflow","address":"0x10","thread":8,"access":"write","made_by":"memcpy","frames":[{"pc":"0x30","module":"/nonexistent/a","offset":"0x30","build_id":"00ff","symbol":"_ZN3foo3barEi","symbol_offset":"0x4"},{"pc":"0x40"}],"object":{"start":"0x10","size":64,"relation":"after","distance":0,"freed":true,"allocated_with":"malloc","allocated_by":{"thread":7,"frames":[{"pc":"0x31","module":"/a\u001b","offset":"0x31"}]},"freed_by":{"thread":9,"frames":[]}},"seed":4,"rerun":"FENCEPOST_OPTIONS=seed=4:frames=all"}
{"tool":"fencepost","version":1,"pid":7,"summary":{"errors":2,"suppressed":0,"distinct":[]}}
"#;

const LOG_WORDS: &[&[u8]] = &[
    b"==7==ERROR: fencepost: ",
    b"==7==NOTE: fencepost: ",
    b"==7==END",
    b" by thread T7",
    b"allocated by thread T",
    b"freed by thread T",
    b" is located ",
    b"SUMMARY: fencepost: ",
    b"rerun with: ",
    b"    #0 0x1 in ",
    b" (/nonexistent/a+0x1)",
    b" (BuildId: 00)",
    b"_ZN3foo3barEi",
    b"_ZSt",
    b"_RNvC",
    b"_RINv",
    b"I_",
    b"\"frames\":[",
    b"{\"pc\":\"0x1\",\"module\":\"/a\",\"offset\":\"0x1\"}",
    b"\"object\":{",
    b"frames=all",
    b"\n",
    b"\xe2\x80\xa8",
    b"\x1b[31m",
];

/// SARIF is JSON, its rules are there, and two logs make one.
fn sarif_holds(log: &mut Value) {
    let text = log.to_string();
    assert_eq!(json::check(&text), Ok(()), "{text}");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results").len();
    for result in run["results"].as_array().into_iter().flatten() {
        let rule = result["ruleIndex"].as_u64().and_then(|index| rules.get(index as usize)).expect("a rule");
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(result["message"]["text"].is_string() && result["locations"].is_array());
    }
    let mut whole = sarif::log(&[]);
    collect::merge(&mut whole, log);
    assert_eq!(whole["runs"][0]["results"].as_array().map(Vec::len), Some(results));
}

/// What becomes of a log: as many lines but for advice, each JSON line JSON, not too much, and the same again.
fn log_holds(input: &[u8]) {
    let log = String::from_utf8_lossy(input);
    let (text, reports) = rewrite(&log, &mut Symbols::default());
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with("no line is known in ")).count();
    assert!(lines(&text) <= lines(&log), "{text}");
    assert!(text.len() <= GROWTH * (log.len() + 4096), "{} of {} bytes", text.len(), log.len());
    for (was, is) in log.lines().zip(text.lines()).filter(|(was, _)| was.starts_with('{')) {
        if serde_json::from_str::<Value>(was).is_ok() && log.lines().count() == 1 {
            assert!(serde_json::from_str::<Value>(is).is_ok(), "{is}");
        }
    }
    for report in &reports {
        let _ = (report.key(), report.site(), report.whereabouts());
        let note = sarif::note(report).to_string();
        assert_eq!(json::check(&note), Ok(()), "{note}");
    }
    sarif_holds(&mut sarif::log(&reports));
    assert!(colour::paint(&text).len() >= text.len());
}

#[test]
fn fuzz_launcher_logs() {
    fuzz("launcher-logs", &[LOG, JSON], LOG_WORDS, log_holds);
}

/// Each line by itself, so that what is JSON stays it.
#[test]
fn fuzz_launcher_json() {
    let lines: Vec<&[u8]> = JSON.split(|byte| *byte == b'\n').collect();
    let words: Vec<&[u8]> = LOG_WORDS.iter().copied().filter(|word| *word != b"\n").collect();
    fuzz("launcher-json", &lines, &words, |input| {
        let line: Vec<u8> = input.iter().copied().filter(|byte| *byte != b'\n' && *byte != b'\r').collect();
        log_holds(&line);
    });
}

/// A file of its own for what only files are read of.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let shared = PathBuf::from("/dev/shm");
        let directory = if shared.is_dir() { shared } else { env::temp_dir() };
        Self(directory.join(format!("fencepost-{name}-{}", std::process::id())))
    }

    fn set(&self, bytes: &[u8]) {
        fs::write(&self.0, bytes).expect("the directory is writable");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A core file: a note that names two mappings, and the memory of one, with an anchor in it.
fn core() -> Vec<u8> {
    const MEMORY: u64 = 0x1000;
    let mut note: Vec<u8> = Vec::new();
    let words = [2_u64, 4096, MEMORY, MEMORY + 0x1000, 0, MEMORY + 0x1000, MEMORY + 0x2000, 1];
    let names = b"/bin/a\0/bin/a\0";
    [5_u32, (8 * words.len() + names.len()) as u32, 0x4649_4c45]
        .iter()
        .for_each(|word| note.extend(word.to_le_bytes()));
    note.extend(b"CORE\0\0\0\0");
    words.iter().for_each(|word| note.extend(word.to_le_bytes()));
    note.extend(names);
    note.resize(note.len().next_multiple_of(4), 0);
    let memory_at = 64 + 2 * 56 + note.len() as u64;
    let mut memory = vec![0; 512];
    let at = (image::ALIGN).min(128);
    memory[at..at + image::MAGIC.len()].copy_from_slice(&image::MAGIC);
    memory[at + 16..at + 24].copy_from_slice(&image::VERSION.to_le_bytes());
    memory[at + 24..at + 32].copy_from_slice(&(MEMORY + at as u64).to_le_bytes());
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    [4_u16, 62].iter().for_each(|half| file.extend(half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    [0_u64, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    [64_u16, 56, 2, 64, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    let mut header = |kind: u32, flags: u32, offset: u64, address: u64, bytes: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        [offset, address, address, bytes, bytes, 1].iter().for_each(|word| file.extend(word.to_le_bytes()));
    };
    header(4, 0, 64 + 2 * 56, 0, note.len() as u64);
    header(1, 6, memory_at, MEMORY, memory.len() as u64);
    file.extend(note);
    file.extend(memory);
    file
}

/// Whatever a target says, all questions about it come to an end.
fn target_holds(target: &Target, addresses: &[u64]) {
    let mut bytes = 0;
    for (start, len) in target.data() {
        bytes += len;
        assert!(start.checked_add(len).is_some() || len == 0 || start > 0);
    }
    assert!(bytes <= 2 << 30);
    for address in addresses {
        if let Some(place) = target.place(*address) {
            assert!(!place.module.is_empty() && !place.module.contains('\n'), "{:?}", place.module);
        }
        let _ = target.read(*address as usize, &mut [0; 64]);
    }
    for heap in explain::heaps(target).unwrap_or_default() {
        for address in addresses {
            let found = heap.find(Addr::new(*address as usize));
            let text = explain::describe(*address as usize, &found, &heap, target);
            assert!(text.len() < 1 << 20 && (text.is_empty() || text.ends_with('\n')), "{text}");
        }
    }
}

#[test]
fn fuzz_launcher_cores() {
    let (scratch, seed) = (Scratch::new("core"), core());
    scratch.set(&seed);
    let target = Target::open(&scratch.0).unwrap_or_else(|_| panic!("the seed is a core file"));
    assert!(target.data().count() == 1 && explain::heaps(&target).is_ok_and(|heaps| heaps.len() == 1));
    let words: &[&[u8]] = &[b"CORE\0", b"ELIF", b"\x7fELF\x02\x01", &image::MAGIC, b"/bin/a\0"];
    fuzz("launcher-cores", &[&seed], words, |input| {
        scratch.set(input);
        if let Ok(target) = Target::open(&scratch.0) {
            target_holds(&target, &[0, 0x1000, 0x1080, 0x1fff, 0x2000, 1 << 47, u64::MAX]);
        }
    });
}

/// The launcher reads symbols and lines of what may be any file.
#[test]
fn fuzz_launcher_modules() {
    let scratch = Scratch::new("module");
    let words: &[&[u8]] =
        &[b".debug_line\0", b".debug_info\0", b".symtab\0", b"\x7fELF\x02\x01", b"\xff\xff\xff\xff\x0f"];
    let mut lines = false;
    fuzz("launcher-modules", &[], words, |input| {
        scratch.set(input);
        let mut symbols = Symbols::default();
        for offset in [0, 0x24f, 0x255, 0x1f50, u64::MAX] {
            let module = scratch.0.display().to_string();
            let sources = symbols.at(&Location { module, offset, build_id: None }, offset & 1 == 0);
            assert!(sources.len() < 1 << 16, "{} frames", sources.len());
            lines |= sources.iter().any(|source| source.line.is_some());
        }
    });
    assert!(lines, "the corpus has a module with lines");
}

#[test]
fn fuzz_launcher_maps() {
    const MAPS: &[u8] = b"7f0000001000-7f0000002000 r--p 00000000 08:01 77    /lib/a b.so (deleted)
7f0000002000-7f0000003000 r-xp 00001000 08:01 77    /lib/a b.so (deleted)
7f0000003000-7f0000004000 rw-p 00002000 08:01 77    /lib/a b.so (deleted)
7ffe00000000-7ffe00001000 rw-p 00000000 00:00 0     [stack]
";
    let words: &[&[u8]] = &[b"-", b" ", b" rw-p ", b"/lib/a", b"\n", b"ffffffffffffffff", b"\x1b"];
    fuzz("launcher-maps", &[MAPS], words, |input| {
        let target = Target::of_maps(input);
        let mut bytes = Taken(input);
        target_holds(&target, &[0x7f00_0000_1234, 0x7f00_0000_3fff, 0, u64::MAX, bytes.word()]);
    });
}

/// What is said on the command line is what the program gets, whatever its environment has.
#[test]
fn fuzz_launcher_settings() {
    let seeds: &[&[u8]] = &[
        b"mode=hunt:log_path=\"/tmp/a b:\"\"c\"\"\"\x01seed=7",
        b"unmap=batch:16\x01mode=\"harden",
        b"a=b\x01\"",
    ];
    let words: &[&[u8]] =
        &[b"mode=hunt", b"=", b":", b"\"", b"\"\"", b"\x01", b"seed=", b"batch:", b"log_path="];
    fuzz("launcher-settings", seeds, words, |input| {
        let mut parts = input.splitn(2, |byte| *byte == 1);
        let (own, existing) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut settings = Settings::default();
        if settings.add(OsStr::from_bytes(own)).is_err() {
            return;
        }
        let (merged, _) = settings.merged_with(Some(OsStr::from_bytes(existing)));
        let merged = merged.expect("there are options");
        assert!(merged.len() <= own.len() + existing.len() + 8);
        // What the flags set alone is what they set behind others.
        let (mut alone, mut behind) =
            (Options::DEFAULT, settings.resulting(Some(OsStr::from_bytes(existing))));
        apply(&mut alone, own, |warning| panic!("{warning:?}"));
        for row in fencepost_core::options::ROWS {
            let spelled = |options: &Options| {
                let mut bytes = Vec::new();
                (row.spell)(options, &mut |part| bytes.extend_from_slice(part));
                bytes
            };
            let given = spelled(&alone) != spelled(&Options::DEFAULT);
            assert!(!given || spelled(&alone) == spelled(&behind), "{}", row.name);
        }
        apply(&mut behind, own, |warning| panic!("{warning:?}"));
    });
}
