//! Instructions an operation takes, counted by Callgrind: the same on a busy machine as on an idle one.
//!
//! Two runs of one workload differ in their iterations only, so the difference of their counts divided by the
//! difference of their iterations is the loop, and the same loop without an allocator is taken off. Callgrind leaves
//! `malloc` alone (Memcheck would replace it). `seed` fixes every random choice, and `reserve_gb` keeps the arenas
//! within the address space that Valgrind grants.

use clap::Parser;
use fencepost_benches::cargo::{Shop, home};
use fencepost_benches::child;
use fencepost_benches::heap::program;
use fencepost_benches::record::{Record, said};
use fencepost_benches::report::Table;
use fencepost_benches::runner::{Door, Task, doors};
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Instruction counts of the fast paths against the checked-in baseline.
#[derive(Parser)]
struct Arguments {
    /// Rewrite the baseline
    #[arg(long)]
    bless: bool,
    /// The growth, in percent, that counts as a regression
    #[arg(long, default_value_t = 2.0)]
    allow: f64,
    /// One count: only that everything runs
    #[arg(long)]
    smoke: bool,
}

const OPTIONS: &str = "mode=harden:seed=1:reserve_gb=1";
/// More than a quarantine holds of the largest objects: from there on slots only go round.
const FEW: u64 = 20_000;
const MANY: u64 = 60_000;
const LIMIT: Duration = Duration::from_secs(120);

const TASKS: &[Task] = &[
    Task::new("pair", 16),
    Task::new("pair", 64),
    Task::new("pair", 256),
    Task::new("pair", 1024),
    Task::new("batch", 64),
    Task::new("random", 0),
    Task::new("calloc", 64),
    Task::new("calloc", 1024),
    Task::new("inplace", 64),
];

/// Allocator, interface, work, size, instructions.
type Row = (String, String, String, usize, f64);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    child::forbid_cores();
    let valgrind = program("valgrind").ok_or("valgrind is not installed")?;
    let mut shop = Shop::default();
    let wanted = ["fencepost-harden".to_owned()];
    let (mut all, mut skipped) = doors(&mut shop, "rust", &wanted);
    let (c, skipped_c) = doors(&mut shop, "c", &wanted);
    all.retain(|door| door.heap.name != "glibc");
    all.extend(c);
    skipped.extend(skipped_c);
    if let Some((name, reason)) = skipped.first() {
        return Err(format!("{name}: {reason}").into());
    }
    let null = Task::new("null", 0);
    let tasks = if arguments.smoke { &TASKS[..1] } else { TASKS };
    let mut cells = Vec::new();
    for door in all.iter().filter(|door| door.heap.name != "fencepost-harden-128k") {
        let door = door.with_options(OPTIONS);
        cells.extend([&null].into_iter().chain(tasks).map(|task| (door.clone(), task)));
    }
    let counts = child::side_by_side(&cells, |(door, task)| each(&valgrind, door, task));
    let mut rows: Vec<Row> = Vec::new();
    let mut loop_cost = 0.0;
    for ((door, task), count) in cells.iter().zip(counts) {
        let count = count?;
        if task.name == null.name {
            loop_cost = count;
            continue;
        }
        let count = count - loop_cost;
        rows.push((door.heap.name.to_owned(), door.api.to_owned(), task.name.to_owned(), task.size, count));
    }
    let baseline = home().join("instructions.csv");
    if arguments.bless {
        write(&rows)?;
        println!("wrote {}", baseline.display());
        return Ok(());
    }
    let before = if baseline.exists() { Record::<Row>::read(&baseline)?.rows } else { Vec::new() };
    let regressions = compare(&before, &rows, arguments.allow);
    if regressions > 0 {
        return Err(format!(
            "{regressions} counts grew by more than {} %; --bless accepts them",
            arguments.allow
        )
        .into());
    }
    Ok(())
}

/// Instructions of one iteration.
fn each(valgrind: &std::path::Path, door: &Door, task: &Task) -> Result<f64, String> {
    let few = count(valgrind, door, task, FEW)?;
    let many = count(valgrind, door, task, MANY)?;
    Ok((many as f64 - few as f64) / (MANY - FEW) as f64)
}

fn count(valgrind: &std::path::Path, door: &Door, task: &Task, iterations: u64) -> Result<u64, String> {
    static DUMPS: AtomicUsize = AtomicUsize::new(0);
    let number = DUMPS.fetch_add(1, Ordering::Relaxed);
    let dump = fencepost_benches::cargo::target().join(format!("callgrind.{number}.out"));
    let tool = ["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", dump.display())];
    let tool: Vec<&str> = tool.iter().map(String::as_str).collect();
    let mut command = door.command(Some((valgrind, &tool)), task);
    command.arg(iterations.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (end, _) = child::run(&mut command, LIMIT).map_err(|error| format!("valgrind: {error}"))?;
    let what = || format!("{} ({}) {} {} under callgrind", door.heap.name, door.api, task.name, task.size);
    if end.text() != "ok" {
        return Err(format!("{}: {}", what(), end.text()));
    }
    let text = fs::read_to_string(&dump).map_err(|error| format!("{}: {error}", what()))?;
    let _ = fs::remove_file(&dump);
    let total =
        text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    total.and_then(|text| text.trim().parse().ok()).ok_or_else(|| format!("{}: no count", what()))
}

fn write(rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(home().join("instructions.csv"))?;
    writeln!(file, "# made by: cargo run --release -p fencepost-benches --bin instructions -- --bless")?;
    writeln!(
        file,
        "# options: {OPTIONS}\n# rustc: {}\n# valgrind: {}",
        said("rustc", &["--version"]),
        said("valgrind", &["--version"])
    )?;
    let mut csv = csv::Writer::from_writer(file);
    csv.write_record(["heap", "api", "work", "size", "instructions"])?;
    for (heap, api, work, size, count) in rows {
        csv.write_record([heap, api, work, &size.to_string(), &format!("{count:.1}")])?;
    }
    csv.flush()?;
    Ok(())
}

/// Prints both counts; how many of fencepost's grew too much.
fn compare(before: &[Row], after: &[Row], allow: f64) -> usize {
    let mut table = Table::new("instructions", ["baseline", "now", "change"]);
    let mut regressions = 0;
    for (heap, api, work, size, now) in after {
        let old = before
            .iter()
            .find(|row| (&row.0, &row.1, &row.2, &row.3) == (heap, api, work, size))
            .map(|row| row.4);
        let change = old.map(|old| (now / old - 1.0) * 100.0);
        if heap.starts_with("fencepost") && change.is_some_and(|change| change > allow) {
            regressions += 1;
        }
        table.row(
            &format!("{heap} {api} {work} {size}"),
            [
                old.map_or_else(String::new, |old| format!("{old:.1}")),
                format!("{now:.1}"),
                change.map_or_else(|| "new".to_owned(), |change| format!("{change:+.1} %")),
            ],
        );
    }
    println!("{}", table.finish());
    regressions
}
