//! Fuzz targets for what is read and written around a report: options, suppressions, ELF images, mappings, findings.
//!
//! A module of the crate's own tests, so that it reaches the parts of `report`.

#[path = "json.rs"]
mod json;
use super::elf::Image;
use super::finding::{Access, Finding, Wild};
use super::modules::Modules;
use super::render::{self, Sources};
use super::suppress::Rules;
use crate::addr::Addr;
use crate::canary::Content;
use crate::fault::{Event, Fault, History, Kind, Object};
use crate::mutate::{Taken, fuzz};
use crate::options::{self, Options, ROWS};
use crate::request::Origin;
use crate::stats::Totals;
use crate::sys::vm;
use crate::trace::{Depot, Frames};
use std::borrow::ToOwned;
use std::boxed::Box;
use std::path::Path;
use std::string::String;
use std::vec::Vec;
use std::{env, format, fs};

const OPTION_SEEDS: &[&[u8]] = &[
    b"mode=hunt:guards=mprotect:unmap=batch:16:seed=7",
    b"log_path=\"/tmp/a b:\"\"c\"\"\":suppressions=/x, exitcode=7\tdump=auto",
    b"# comment\nmode=patrol # and\nsample_rate=10\nquarantine_mb=0.5\n",
    b"fill_site=0x10-0x20:fail_after=off:fill=0xa5:fail_site=all",
    b"unmap_threshold=18446744073709551615:reserve_gb=32768:history=0:backtrace=-1:leaks=9",
];

fn option_words() -> Vec<&'static [u8]> {
    let mut words: Vec<&[u8]> = ROWS.iter().map(|row| row.name.as_bytes()).collect();
    words.extend([&b"="[..], b":", b"\"", b"\"\"", b"#", b"\n", b",", b"batch:", b"auto", b"off", b"all"]);
    words.extend([&b"0x"[..], b"0.25", b"-1", b"18446744073709551616", b"random", b"exact", b"%p", b"/tmp/"]);
    words
}

fn spelled(row: &options::Row, options: &Options) -> Vec<u8> {
    let mut bytes = Vec::new();
    (row.spell)(options, &mut |part| bytes.extend_from_slice(part));
    bytes
}

/// What is shown, kept in range, and read back as it was written.
fn options_hold(options: &Options) {
    let kept = options.normalised(4096);
    assert!(kept.backtrace <= 32 && kept.exitcode <= 255 && kept.leaks <= 2 && kept.unmap_threshold > 0);
    for row in ROWS {
        let mut shown = String::new();
        (row.show)(options, &mut shown).expect("a string takes all");
        let mut item = Vec::new();
        options::item(row, options, &mut |part| item.extend_from_slice(part));
        let mut again = Options::DEFAULT;
        options::apply(&mut again, &item, |warning| {
            panic!("{warning:?} of {:?}", String::from_utf8_lossy(&item))
        });
        assert_eq!(spelled(row, &again), spelled(row, options), "{:?}", String::from_utf8_lossy(&item));
        let mut word = String::new();
        options::shell(&item, &mut word).expect("a string takes all");
        assert!(word.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{word:?}");
        assert_eq!(unshelled(&word), item, "{word:?}");
    }
}

/// What a shell makes of the word.
fn unshelled(word: &str) -> Vec<u8> {
    if let Some(printed) = word.strip_prefix("\"$(printf '").and_then(|rest| rest.strip_suffix("')\"")) {
        let (mut bytes, mut rest) = (Vec::new(), printed.as_bytes());
        while let Some((first, tail)) = rest.split_first() {
            let digits = tail.get(..3).filter(|_| *first == b'\\');
            match (first, digits) {
                (b'\\', Some(digits)) => {
                    let text = core::str::from_utf8(digits).expect("digits");
                    bytes.push(u8::from_str_radix(text, 8).expect("an octal number of a byte"));
                    rest = &tail[3..];
                }
                (b'%', _) => {
                    assert_eq!(tail.first(), Some(&b'%'), "{word:?}");
                    bytes.push(b'%');
                    rest = &tail[1..];
                }
                (b'\'' | b'\\', _) => panic!("{word:?}"),
                (other, _) => {
                    bytes.push(*other);
                    rest = tail;
                }
            }
        }
        return bytes;
    }
    match word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => {
            let parts: Vec<&str> = inner.split("'\\''").collect();
            assert!(parts.iter().all(|part| !part.contains('\'')), "{word:?}");
            parts.join("'").into_bytes()
        }
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_=:,./@%+-".contains(&byte);
            assert!(word.bytes().all(plain), "{word:?}");
            word.as_bytes().to_owned()
        }
    }
}

#[test]
fn fuzz_options() {
    fuzz("options", OPTION_SEEDS, &option_words(), |input| {
        let mut options = Options::DEFAULT;
        options::apply(&mut options, input, |warning| {
            let _ = format!("{warning:?}");
        });
        options_hold(&options);
    });
}

/// A file is its lines without comments, one after the other.
#[test]
fn fuzz_config() {
    fuzz("config", OPTION_SEEDS, &option_words(), |input| {
        let mut options = Options::DEFAULT;
        let mut warnings = 0;
        options::apply_text(&mut options, input, |_| warnings += 1);
        options_hold(&options);
        let (mut others, mut other_warnings) = (Options::DEFAULT, 0);
        for line in input.split(|byte| *byte == b'\n') {
            let code = line.split(|byte| *byte == b'#').next().unwrap_or(&[]);
            options::apply(&mut others, code, |_| other_warnings += 1);
        }
        assert_eq!(warnings, other_warnings);
        assert!(ROWS.iter().all(|row| spelled(row, &options) == spelled(row, &others)));
    });
}

const MAPS: &[u8] = b"1000-2000 r-xp 00000000 08:01 7      /usr/lib/libfoo.so.1\n\
    2000-3000 r-xp 00001000 08:01 7      /usr/lib/libfoo.so.1\n3000-4000 rw-p 00000000 00:00 0 \n\
    5000-6000 r-xp 00000000 08:01 9      /opt/a b/bar\n\
    7ffe0000-7fff0000 rw-p 00000000 00:00 0                          [stack]\n";

/// What the pattern of a suppression means, said another way.
fn found(pattern: &[u8], text: &[u8]) -> bool {
    fn glob(pattern: &[u8], text: &[u8], to_end: bool) -> bool {
        // Which ends of the text the pattern so far may reach.
        let mut reached: Vec<bool> = (0..=text.len()).map(|at| at == 0).collect();
        for wanted in pattern {
            let mut next = std::vec![false; text.len() + 1];
            for at in 0..=text.len() {
                match wanted {
                    b'*' => next[at] = reached[..=at].contains(&true),
                    _ => next[at] = at > 0 && reached[at - 1] && text[at - 1] == *wanted,
                }
            }
            reached = next;
        }
        if to_end { reached[text.len()] } else { reached.contains(&true) }
    }
    let (from_start, pattern) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let (to_end, pattern) = match pattern {
        [rest @ .., b'$'] => (true, rest),
        _ => (false, pattern),
    };
    let last = if from_start { 0 } else { text.len() };
    (0..=last).any(|start| glob(pattern, &text[start..], to_end))
}

#[test]
fn fuzz_suppressions() {
    let modules = Modules::of(MAPS);
    let mut frames = Frames::EMPTY;
    frames.push(0x1010);
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    let path = directory.join(format!("fencepost-fuzz-rules-{}", std::process::id()));
    let mut name = path.as_os_str().as_encoded_bytes().to_owned();
    name.push(0);
    let mut rules = Box::new(Rules::NONE);
    let seeds: [&[u8]; 3] = [
        b"# known\nheap-use-after-free:libfoo.so\nleak:^/usr/lib/*libfontconfig\n*:libvendor*.so$\n",
        b"double-free:^/usr/lib/libfoo.so.1$\n  heap-*  :  l*b  # x\n",
        b"heap-buffer-overflow:*f*o*.*1$\ndouble-free:^*$",
    ];
    let words: [&[u8]; 12] =
        [b"double-free:", b"*:", b"leak:", b"*", b"^", b"$", b"\n", b"#", b":", b"libfoo", b".so", b"/usr"];
    fuzz("suppressions", &seeds, &words, |input| {
        fs::write(&path, input).expect("the temporary directory is writable");
        rules.load(&name, |flaw| {
            let _ = format!("{flaw:?}");
        });
        let covered = rules.cover("double-free", &frames, &modules);
        if input.len() >= 32 << 10 {
            return;
        }
        let expected = input.split(|byte| *byte == b'\n').any(|line| {
            let code = line.split(|byte| *byte == b'#').next().unwrap_or(&[]).trim_ascii();
            let Some(colon) = code.iter().position(|byte| *byte == b':') else { return false };
            let (kind, pattern) = (code[..colon].trim_ascii(), code[colon + 1..].trim_ascii());
            let about = found(&[b"^", kind, b"$"].concat(), b"double-free");
            about && !pattern.is_empty() && found(pattern, b"/usr/lib/libfoo.so.1")
        });
        assert_eq!(covered, expected, "{}", String::from_utf8_lossy(input));
        assert_eq!(rules.used().count(), usize::from(covered));
        rules.forget_uses();
    });
    let _ = fs::remove_file(path);
}

/// The kernel's own small shared object, which every process has.
fn vdso() -> Vec<u8> {
    // SAFETY: asks for a number.
    let at = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    let mut bytes = std::vec![0; 8192];
    let got = if at == 0 { 0 } else { vm::peek(Addr::new(at), &mut bytes) };
    bytes.truncate(got);
    bytes
}

#[test]
fn fuzz_elf() {
    const BASE: usize = 0x7f00_0000_0000;
    let vdso = vdso();
    let words: [&[u8]; 5] =
        [b"GNU\0", b"\x7fELF\x02\x01", &[2, 0, 0, 0], &[4, 0, 0, 0], &[0xf5, 0xfe, 0xff, 0x6f, 0, 0, 0, 0]];
    fuzz("elf", &[&vdso], &words, |input| {
        let peek = |address: Addr, buffer: &mut [u8]| {
            let from = address.get().wrapping_sub(BASE).min(input.len());
            let part = &input[from..(from + buffer.len()).min(input.len())];
            buffer[..part.len()].copy_from_slice(part);
            part.len()
        };
        for end in [BASE + input.len(), usize::MAX] {
            let Some(image) = Image::open(&peek, BASE, end) else { return };
            assert!(image.build_id().is_none_or(|id| (1..=32).contains(&id.as_bytes().len())));
            for at in [0, 1, 0x600, 0xa10, 0xfff, usize::MAX - BASE] {
                let symbol = image.symbol(BASE + at);
                assert!(symbol.is_none_or(|symbol| !symbol.name().is_empty() && symbol.into <= BASE + at));
            }
        }
    });
    assert!(vdso.is_empty() || Image::open(&|_, _| 0, BASE, usize::MAX).is_none());
}

static NO_STACKS: Depot = Depot::EMPTY;

fn content(at: Addr, _: Option<&Object>) -> Content {
    match at.get() / 16 % 5 {
        0 => Content::Program,
        1 => Content::Canary(at.get() as u8),
        2 => Content::Perhaps(0),
        _ => Content::Withheld,
    }
}

fn frames(input: &mut Taken<'_>) -> Frames {
    let mut frames = Frames::EMPTY;
    for _ in 0..input.byte() % 33 {
        frames.push(if input.flag() {
            0x1000 + usize::from(input.byte()) * 64
        } else {
            input.word() as usize
        });
    }
    frames
}

fn object(input: &mut Taken<'_>) -> Object {
    let event = |input: &mut Taken<'_>| Event {
        thread: if input.flag() { 0 } else { input.word() as u32 },
        stack: input.word() as u32,
    };
    Object {
        start: Addr::new(input.word() as usize),
        size: input.flag().then(|| input.word() as usize),
        freed: input.flag(),
        origin: Origin::from_tag(input.byte()),
        history: History { allocated: event(input), freed: event(input) },
    }
}

/// A finding of damaged records: every number is anything.
fn finding(input: &mut Taken<'_>) -> Finding {
    let object = input.flag().then(|| object(input));
    let address = match object {
        Some(object) if input.flag() => object.start.plus(usize::from(input.byte())),
        _ => Addr::new(input.word() as usize),
    };
    let frames = frames(input);
    let registers = (input.word() as usize, input.word() as usize);
    let kind = Kind::ALL[usize::from(input.byte()) % Kind::ALL.len()];
    let name = |input: &mut Taken<'_>| input.flag().then_some("memcpy");
    let mut finding = if input.flag() {
        let access = [Access::Read, Access::Write, Access::Unknown][usize::from(input.byte()) % 3];
        Finding::of_access(address, access, object, frames, registers)
    } else {
        Finding::of_fault(Fault::new(kind, address, object), frames, registers)
    };
    finding.stated = input.flag().then(|| input.word() as usize);
    finding.freed_by = input.flag().then(|| Origin::from_tag(input.byte()));
    finding.extent = input.flag().then(|| (Addr::new(input.word() as usize), input.word() as usize));
    finding.sealed = input.flag() && input.flag();
    finding.passed_to = name(input);
    finding.made_by = name(input);
    finding.in_library = input.flag();
    finding.poisoned = input.flag().then(|| (Addr::new(input.word() as usize), input.word() as usize));
    finding.wild = (input.flag() && input.flag()).then(|| {
        let registers: [usize; 16] = core::array::from_fn(|_| input.word() as usize);
        Wild::of(&registers, input.word() as usize, input.flag().then_some(0xa5)).0
    });
    finding
}

/// Text stays lines and JSON stays JSON, whatever records, mappings and options hold.
#[test]
fn fuzz_reports() {
    let mut seed = std::vec![0x11_u8; 200];
    seed.extend_from_slice(MAPS);
    let mut other: Vec<u8> = (0..=255).collect();
    other.extend_from_slice(MAPS);
    other.extend_from_slice(b"\0log_path=\"/tmp/a b\"");
    let words: [&[u8]; 9] = [
        b"\n",
        b"/tmp/\x1b[2K",
        b"\xe2\x80\xa8",
        b"\"\\",
        b"0-ffffffffffffffff r-xp 00000000 08:01 7      /a\n",
        b"==1==ERROR",
        b"SUMMARY: fencepost:",
        b"\0mode=hunt:dump=1:frames=all",
        b"1000-2000 r-xp",
    ];
    fuzz("reports", &[&seed, &other], &words, |input| {
        let (numbers, rest) = input.split_at(input.len().min(200));
        let (maps, set) = match rest.iter().position(|byte| *byte == 0) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &rest[..0]),
        };
        let mut options = Options::DEFAULT;
        options::apply(&mut options, set, |_| {});
        let options = options.normalised(4096);
        let modules = Modules::of(maps).with(&options);
        let totals = Totals::default();
        let sources =
            Sources { options: &options, seed: 7, depot: &NO_STACKS, totals, content, modules: &modules };
        let finding = finding(&mut Taken(numbers));
        let mut text = String::new();
        render::text(&mut text, &finding, &sources).expect("a string takes all");
        text_holds(&text, finding.kind.name());
        let mut line = String::new();
        super::json::line(&mut line, &finding, &sources).expect("a string takes all");
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        assert!(line.chars().all(|next| next == '\n' || !crate::text::is_unprintable(next)), "{line:?}");
        json::check(line.trim_end_matches('\n')).unwrap_or_else(|at| panic!("no JSON at {at}: {line}"));
    });
}

fn text_holds(text: &str, kind: &str) {
    assert!(text.chars().all(|next| next == '\n' || !crate::text::is_unprintable(next)), "{text:?}");
    let starts = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    let pid = std::process::id();
    assert_eq!(starts(&format!("=={pid}==ERROR: fencepost: {kind} on address 0x")), 1, "{text}");
    assert_eq!(starts("=="), 3, "{text}");
    assert_eq!(starts("SUMMARY: fencepost: "), 1, "{text}");
    assert_eq!(starts("rerun with: FENCEPOST_OPTIONS="), 1, "{text}");
    assert!(text.ends_with(&format!("\n=={pid}==END\n")), "{text}");
    let known =
        ["==", "    ", "  0x", "=>0x", "0x", "READ ", "WRITE ", "ACCESS ", "allocated ", "freed ", "found "];
    let others = [
        "a range ",
        "a pointer ",
        "a freed pointer ",
        "bytes next ",
        "freed memory ",
        "Memory ",
        "guarded ",
        "SUMMARY",
        "rerun ",
        "hint: ",
        "or ",
        "registers:",
        "the pointer ",
    ];
    for line in text.lines() {
        let is_known = line.is_empty() || known.iter().chain(&others).any(|start| line.starts_with(start));
        assert!(is_known, "{line:?} in {text}");
    }
}
