//! `Fencepost` as the global allocator of an ordinary Rust program: the standard library's collections,
//! threads and their destructors work, and builder and environment set options in their order.

mod support;

use fencepost::Fencepost;
use fencepost::heap;
use fencepost::options::{GuardSide, Mode};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use support::expectation::{Verdict, judge_silent};
use support::process::{self, End, LIMIT, Run};
use support::{compiler, skip};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new()
    .mode(Mode::Patrol)
    .sample_rate(7)
    .guard_side(GuardSide::Left)
    .zero(true)
    .unmap_threshold(0);

/// Says that this process is to run the named part.
const PART: &str = "FENCEPOST_GLOBAL";

fn execute(part: &str, options: &str) -> Run {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["part", "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    if !options.is_empty() {
        command.env("FENCEPOST_OPTIONS", options);
    }
    process::run(&mut command, LIMIT)
}

#[test]
fn part() {
    let options = heap::options();
    match env::var(PART).as_deref() {
        Err(_) => {}
        Ok("builder") => {
            assert_eq!((options.mode, options.sample_rate), (Mode::Patrol, 7));
            assert_eq!(options.guard_side, GuardSide::Left);
        }
        Ok("environment") => {
            assert_eq!((options.mode, options.sample_rate), (Mode::Hunt, 7));
            assert_eq!(options.guard_side, GuardSide::Left);
        }
        Ok("configuration") => {
            assert_eq!((options.mode, options.sample_rate), (Mode::Patrol, 7));
            assert_eq!((options.zero, options.unmap_threshold), (true, 4096), "set, to their defaults");
            assert_eq!((options.canary, options.history), (false, 2000), "the file's");
        }
        Ok("program") => program(),
        Ok("samples") => samples(),
        // The program ends without a word to the allocator.
        Ok("freed") => return overrun(true),
        Ok("kept") => return overrun(false),
        Ok(other) => panic!("there is no part {other:?}"),
    }
    assert_eq!(HEAP.check(), 0);
    HEAP.finish();
}

#[test]
fn the_builder_sets_options() {
    let run = execute("builder", "");
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{}", run.stderr);
}

/// The sampler picks as many as the option says, and nobody can tell which.
#[test]
fn samples_are_drawn_at_the_rate() {
    let run = execute("samples", "mode=patrol:sample_rate=50");
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{}{}", run.stdout, run.stderr);
}

/// Guarded objects are those that have a page for themselves among many small ones.
fn samples() {
    const OBJECTS: usize = 20_000;
    let objects: Vec<Box<[u8; 64]>> = (0..OBJECTS).map(|_| Box::new([1; 64])).collect();
    let page = |object: &[u8; 64]| std::ptr::from_ref(object).addr() / 4096;
    let mut counts: HashMap<usize, u32> = HashMap::new();
    objects.iter().for_each(|object| *counts.entry(page(object)).or_default() += 1);
    let alone = |object: &[u8; 64]| counts[&page(object)] == 1;
    let picked: Vec<usize> = (0..OBJECTS).filter(|index| alone(&objects[*index])).collect();
    // 396 are to be expected, with a deviation of 12.
    assert!((330..470).contains(&picked.len()), "{} of {OBJECTS}", picked.len());
    let gaps: std::collections::HashSet<usize> = picked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 50, "{gaps:?}");
}

/// Writes a byte behind an object.
fn overrun(frees: bool) {
    let layout = Layout::array::<u8>(24).expect("24 bytes are no overflow");
    // SAFETY: none: the byte behind the object is what is tested.
    unsafe {
        let object = HEAP.alloc(layout);
        object.add(24).write_volatile(7);
        if frees {
            HEAP.dealloc(object, layout);
        }
    }
}

/// Whether or not it calls `finish`, and whether the error was found before the end or is found there.
#[test]
fn a_program_that_went_on_does_not_end_well() {
    for part in ["freed", "kept"] {
        let run = execute(part, "mode=harden:on_error=continue");
        assert_eq!(run.end, End::Status(99), "{part}: {}", run.stderr);
        assert_eq!(
            run.stderr.matches("ERROR: fencepost: canary-overwritten on ").count(),
            1,
            "{part}: {}",
            run.stderr
        );
        assert!(
            run.stderr.contains("==SUMMARY: fencepost: 1 errors, 1 distinct, 0 suppressed\n"),
            "{}",
            run.stderr
        );
        let run = execute(part, "mode=harden:on_error=continue:exitcode=0");
        assert_eq!(run.end, End::Status(0), "{part}: {}", run.stderr);
    }
}

#[test]
fn the_environment_wins_over_the_builder() {
    let run = execute("environment", "mode=hunt");
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{}", run.stderr);
}

/// The builder wins over the configuration file also where it sets a default. A directory of the test's stands in for
/// `/etc`.
#[test]
fn the_builder_wins_over_the_file() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/confine.c");
    let Some(confine) = compiler::with_flags(&source, &["-O1"], "hostile-confine") else { return };
    let etc = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("global-etc-{}", std::process::id()));
    fs::create_dir_all(&etc).expect("the build's directory for temporary files is writable");
    let text = "mode=hunt,zero=0,canary=0\nunmap_threshold=131072\nhistory=2000\n";
    fs::write(etc.join("fencepost.conf"), text).expect("the directory is writable");
    let _ = fs::copy("/etc/ld.so.cache", etc.join("ld.so.cache"));
    let mut command = process::command(confine, None, "");
    command.arg(format!("over={}=/etc", etc.display())).arg("--");
    command.arg(env::current_exe().expect("the system knows which file this is"));
    command.args(["part", "--exact", "--nocapture", "--test-threads=1"]).env(PART, "configuration");
    let run = process::run(&mut command, LIMIT);
    let _ = fs::remove_dir_all(etc);
    if run.end == End::Status(77) {
        skip::skip("a configuration file: no mount namespace is permitted here");
        return;
    }
    assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{}{}", run.stdout, run.stderr);
}

/// A bad option is a warning, and the program runs.
#[test]
fn a_bad_option_is_a_warning() {
    let run = execute("builder", "mode=hunted:colour=red");
    assert_eq!(run.end, End::Status(0), "{}", run.stderr);
    for part in ["mode", "hunted", "colour"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

#[test]
fn a_program_runs_in_every_mode() {
    for mode in ["harden", "patrol", "hunt"] {
        for rest in ["guards=madvise", "guards=mprotect", "guard_side=random", "canary=0:zero=0"] {
            let options = format!("mode={mode}:{rest}");
            let run = execute("program", &options);
            assert_eq!(judge_silent(&run, End::Status(0)), Verdict::Match, "{options}: {}", run.stderr);
        }
    }
}

#[repr(align(8192))]
struct Aligned([u8; 100]);

/// A little of everything that allocates.
fn program() {
    let mut words: HashMap<String, usize> = HashMap::new();
    let mut lengths: BTreeMap<usize, Vec<Box<str>>> = BTreeMap::new();
    for number in 0..5_000_usize {
        let word = format!("{:x}", number.wrapping_mul(2_654_435_761));
        lengths.entry(word.len()).or_default().push(word.as_str().into());
        *words.entry(word).or_default() += number;
    }
    assert_eq!(words.values().sum::<usize>(), 5_000 * 4_999 / 2);
    assert_eq!(lengths.values().map(Vec::len).sum::<usize>(), 5_000);

    let aligned: Vec<_> = (0..20).map(|number| Box::new(Aligned([number; 100]))).collect();
    for (number, object) in aligned.iter().enumerate() {
        assert!(std::ptr::from_ref(&**object).addr().is_multiple_of(8192));
        assert!(object.0.iter().all(|byte| usize::from(*byte) == number));
    }
    let zeroed = vec![0_u8; 1 << 20];
    assert!(zeroed.iter().all(|byte| *byte == 0));

    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let sender = sender.clone();
            thread::spawn(move || sender.send(vec![number; 10_000]).expect("the receiver waits"))
        })
        .collect();
    drop(sender);
    let sum: usize = receiver.iter().map(|part| part.iter().sum::<usize>()).sum();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(sum, 28 * 10_000);
}

/// In slabs and between guards, of which patrol has both.
#[test]
fn bounds_are_those_of_the_layout() {
    use fencepost::fault::Kind;
    for len in (1..2000).chain([4096, 5000, 200_000, 1 << 20]) {
        let bytes = vec![1_u8; len];
        let bounds = fencepost::bounds(&raw const bytes[len - 1]).expect("a vector is in the heap");
        let (start, end) = (bounds.start.addr(), bounds.end.addr());
        assert_eq!((start, end), (bytes.as_ptr().addr(), bytes.as_ptr().addr() + len), "{len}");
        assert_eq!(fencepost::check(bytes.as_ptr(), len), Ok(()));
        assert_eq!(fencepost::check(bytes.as_ptr(), len + 1), Err(Kind::HeapBufferOverflow), "{len}");
        let before = bytes.as_ptr().wrapping_sub(1);
        assert_eq!(fencepost::check(before, 2), Err(Kind::HeapBufferUnderflow), "{len}");
        let stale = bytes.as_ptr();
        drop(bytes);
        assert_eq!(fencepost::bounds(stale), None, "{len}");
        assert_eq!(fencepost::check(stale, 1), Err(Kind::HeapUseAfterFree), "{len}");
    }
    let local = [0_u64; 4];
    assert_eq!(
        (fencepost::bounds(&raw const local), fencepost::check(&raw const local, 1 << 20)),
        (None, Ok(()))
    );
}
