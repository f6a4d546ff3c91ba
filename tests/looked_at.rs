//! `fill` and `fail_every` under `GlobalAlloc`: what is new is filled and nothing else, and what is refused is null.

mod support;

use fencepost::Fencepost;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::env;
use support::process::{self, End, LIMIT, Run};

#[global_allocator]
static HEAP: Fencepost = Fencepost::new();

/// Says that this process is to run the named part.
const PART: &str = "FENCEPOST_LOOKED_AT";
const FILL: u8 = 0xa5;
/// More than the test harness allocates before and beside a part.
const EVERY: usize = 200_000;

fn execute(part: &str, options: &str) -> Run {
    let this = env::current_exe().expect("the system knows which file this is");
    let mut command = process::command(this, None, "");
    command.args(["part", "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    process::run(command.env("FENCEPOST_OPTIONS", options), LIMIT)
}

#[test]
fn part() {
    match env::var(PART).as_deref() {
        Err(_) => {}
        Ok("filled") => filled(Some(FILL)),
        Ok("off") => filled(None),
        Ok("refused") => refused(),
        Ok(other) => panic!("there is no part {other:?}"),
    }
}

/// Sizes of slots, of pages, of objects with chunks of their own.
const SIZES: [usize; 9] = [1, 13, 64, 280, 1000, 4095, 5000, 70_000, 600_000];

fn filled(expected: Option<u8>) {
    for size in SIZES {
        for align in [1, 16, 64, 4096] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let larger = size * 3 + 7;
            // SAFETY: objects are used within their sizes and freed with their layouts.
            unsafe {
                let object = alloc(layout);
                let bytes = |object: *mut u8, len| std::slice::from_raw_parts(object, len);
                if let Some(byte) = expected {
                    assert!(bytes(object, size).iter().all(|found| *found == byte), "{size} {align}");
                }
                object.write_bytes(7, size);
                let object = realloc(object, layout, larger);
                let grown = bytes(object, larger);
                assert!(grown[..size].iter().all(|found| *found == 7), "{size} {align}");
                if let Some(byte) = expected {
                    assert!(grown[size..].iter().all(|found| *found == byte), "{size} {align}");
                }
                let object = realloc(object, Layout::from_size_align_unchecked(larger, align), size);
                assert!(bytes(object, size).iter().all(|found| *found == 7), "{size} {align}");
                dealloc(object, layout);
                // After what was just freed, too.
                let zeroed = alloc_zeroed(layout);
                assert!(bytes(zeroed, size).iter().all(|found| *found == 0), "{size} {align}");
                dealloc(zeroed, layout);
            }
        }
    }
}

/// One in `EVERY` is refused, whichever function is called; what is refused a growth is as it was.
fn refused() {
    let layout = Layout::new::<[u8; 40]>();
    let larger = Layout::new::<[u8; 9000]>();
    let mut nulls = [0; 3];
    for round in 0..3 * EVERY {
        // SAFETY: as in `filled`.
        unsafe {
            let object = if round % 2 == 0 { alloc(layout) } else { alloc_zeroed(layout) };
            if object.is_null() {
                nulls[round % 2] += 1;
                continue;
            }
            object.write_bytes(9, 40);
            if round % 50 != 0 {
                dealloc(object, layout);
                continue;
            }
            let grown = realloc(object, layout, larger.size());
            let (object, layout) = if grown.is_null() { (object, layout) } else { (grown, larger) };
            nulls[2] += usize::from(grown.is_null());
            assert!(std::slice::from_raw_parts(object, 40).iter().all(|byte| *byte == 9));
            dealloc(object, layout);
        }
    }
    let all: usize = nulls.iter().sum();
    assert!((2..=4).contains(&all), "{nulls:?}");
    assert!(Vec::<u8>::new().try_reserve(100).is_ok());
}

fn passes(part: &str, options: &str) {
    let run = execute(part, options);
    assert_eq!(run.end, End::Status(0), "{part} {options}: {}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("1 passed"), "{part} {options}: {}", run.stdout);
    let said = run.stderr.matches("NOTE: fencepost: refused allocation ").count();
    assert_eq!(said != 0, part == "refused", "{part} {options}: {}", run.stderr);
}

#[test]
fn what_is_new_is_filled() {
    for mode in ["harden", "patrol", "hunt"] {
        for more in
            ["", ":canary=0", ":zero=0", ":canary=0:zero=0", ":guard_side=left", ":unmap_threshold=131072"]
        {
            passes("filled", &format!("mode={mode}:fill={FILL}{more}"));
        }
        passes("off", &format!("mode={mode}:fill=0"));
    }
    passes("filled", "mode=harden:seal=pkey:fill=165:sample_rate=3");
}

#[test]
fn what_is_refused_is_null() {
    for options in ["mode=harden", "mode=patrol", "mode=harden:seal=pkey"] {
        passes("refused", &format!("{options}:fail_every={EVERY}"));
    }
}
