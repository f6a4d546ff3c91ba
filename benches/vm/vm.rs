//! The kernel's prices here and now, and `hunt` as a multiple of them in the same run.
//!
//! `hunt` maps, guards and gives back a page for every object, so nanoseconds alone would say more about the machine
//! than about fencepost. Each round measures the floor and the allocator next to each other, at one, two and four
//! threads; the ratio is taken within the round.

use clap::Parser;
use fencepost_benches::cargo::{Shop, insist};
use fencepost_benches::record::{Cell, Record, Writer};
use fencepost_benches::runner::{Door, Runner, Task, doors};
use fencepost_benches::{child, report};
use std::error::Error;
use std::time::{Duration, Instant};

/// The kernel's floor and the ratio of `hunt` to it.
#[derive(Parser)]
struct Arguments {
    /// Rounds over everything
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds for each figure of a round
    #[arg(long, default_value_t = 100)]
    millis: u64,
    /// Seconds: only that everything runs
    #[arg(long)]
    smoke: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

const LIMIT: Duration = Duration::from_secs(20);
/// The mode whose floor is measured; stack traces are a cost of their own and off here.
const OPTIONS: &str = "mode=hunt:backtrace=0";

/// Operations of one thread.
const ALONE: &[&str] = &[
    "vm-syscall",
    "vm-fault",
    "vm-install-populated",
    "vm-install-empty",
    "vm-install-bulk",
    "vm-remove",
    "vm-mmap-munmap",
    "vm-mprotect-split",
    "vm-dontneed-1",
    "vm-dontneed-64",
    "vm-memset-4096",
];
/// Operations that stand beside the allocator at every thread count.
const FLOORS: &[&str] = &["vm-touch-install", "vm-classic"];
const THREADS: &[usize] = &[1, 2, 4];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        println!("vm: run it with `cargo bench -p fencepost-benches --bench vm`");
        return Ok(());
    }
    if arguments.smoke {
        (arguments.rounds, arguments.millis) = (1, 5);
    }
    child::forbid_cores();
    let mut shop = Shop::default();
    let hunt = ["fencepost-hunt".to_owned()];
    let (c, mut skipped) = doors(&mut shop, "c", &hunt);
    let (rust, skipped_rust) = doors(&mut shop, "rust", &hunt);
    skipped.extend(skipped_rust);
    insist(&skipped)?;
    let kernel = c.iter().find(|door| door.heap.name == "glibc").ok_or("the plain runner was not built")?;
    let hunters: Vec<Door> = c
        .iter()
        .chain(&rust)
        .filter(|door| door.heap.name == "fencepost-hunt")
        .map(|door| door.with_options(OPTIONS))
        .collect();
    let mut head = vec![("options".to_owned(), OPTIONS.to_owned())];
    head.extend(skipped.into_iter().map(|(name, reason)| (format!("skipped {name}"), reason)));
    let mut writer = Writer::create("vm", !arguments.smoke, &head)?;
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        for &name in ALONE {
            writer.row(measure(kernel, &Task::new(name, 0), round, arguments.millis))?;
        }
        for &threads in THREADS {
            for &name in FLOORS {
                writer.row(measure(kernel, &Task::new(name, 0).on(threads), round, arguments.millis))?;
            }
            for door in &hunters {
                writer.row(measure(door, &Task::new("pair", 64).on(threads), round, arguments.millis))?;
            }
        }
    }
    println!("{}", report::vm::tables(&Record::read(writer.path())?));
    println!("record: {}", writer.path().display());
    Ok(())
}

/// One figure: a short run says how many iterations fill the time, then those are run.
fn measure(door: &Door, task: &Task, round: usize, millis: u64) -> Cell {
    let is_kernel = task.name.starts_with("vm-");
    let mut cell = Cell {
        api: if is_kernel { "kernel" } else { door.api }.to_owned(),
        work: task.name.to_owned(),
        size: task.size,
        align: task.align,
        threads: task.threads,
        heap: if is_kernel { "" } else { door.heap.name }.to_owned(),
        round,
        status: "ok".to_owned(),
        samples: 1,
        iterations: 0,
        ns: f64::NAN,
        ns_min: f64::NAN,
        peak_kib: 0,
        extra: String::new(),
    };
    match fill(door, task, millis) {
        Ok((iterations, nanos, peak_kib)) => {
            cell.iterations = iterations;
            cell.ns = nanos as f64 / iterations as f64;
            cell.ns_min = cell.ns;
            cell.peak_kib = peak_kib;
        }
        Err(reason) => {
            eprintln!("failed: {} on {} threads, {}: {reason}", task.name, task.threads, door.heap.name);
            cell.status = reason;
        }
    }
    cell
}

fn fill(door: &Door, task: &Task, millis: u64) -> Result<(u64, u64, u64), String> {
    let mut runner = Runner::start(door, task)?;
    runner.measure(64, LIMIT)?;
    // Preparation that is not timed can take far longer than what is: both clocks bound the count.
    let probe = 512;
    let started = Instant::now();
    let timed = runner.measure(probe, LIMIT)?.nanos;
    let each = timed.max(started.elapsed().as_nanos() as u64 / 4) / probe;
    let iterations = (millis * 1_000_000 / each.max(1)).clamp(probe, 50_000_000);
    let reply = runner.measure(iterations, LIMIT)?;
    Ok((iterations, reply.nanos, runner.finish().peak_kib))
}
