//! Micro-benchmarks through criterion: every workload for every allocator, in turn.
//!
//! Criterion decides how often and how long, prints its estimates and compares with the run before; the work itself
//! happens in a `runner` process for each cell, so a round is A B C … and the rounds make it A B C A B C. Each round
//! starts fresh processes: an allocator's luck with its address space is part of the spread.

mod tasks;

use clap::Parser;
use criterion::{BenchmarkId, Criterion, SamplingMode};
use fencepost_benches::cargo::{Shop, insist};
use fencepost_benches::record::{Cell, Record, Writer, versions};
use fencepost_benches::runner::{Door, Runner, Task, doors};
use fencepost_benches::{child, report, stats};
use std::cell::RefCell;
use std::error::Error;
use std::time::{Duration, Instant};

/// Pair costs, batches, growth and threads of fencepost beside its peers.
#[derive(Parser)]
struct Arguments {
    /// Allocators (beginnings of names, by comma); glibc is always in
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Workloads (beginnings of names, by comma): pair, batch, random, calloc, grow, aligned, cross, mixed, live, million, fork
    #[arg(long, value_delimiter = ',')]
    work: Vec<String>,
    /// Interfaces: rust, c
    #[arg(long, value_delimiter = ',', default_values = ["rust", "c"])]
    api: Vec<String>,
    /// Rounds over everything
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Start no further round when the run would pass this many minutes
    #[arg(long, default_value_t = 12.0)]
    minutes: f64,
    /// Only what one thread costs beside two, through C and without hunt, as a record of its own
    #[arg(long)]
    threads: bool,
    /// Keep the record of a selection, too: the tables then show it
    #[arg(long)]
    keep: bool,
    /// One round of fewer workloads, fencepost and glibc, under a minute
    #[arg(long)]
    quick: bool,
    /// Seconds: only that everything runs
    #[arg(long)]
    smoke: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

const LIMIT: Duration = Duration::from_secs(20);
/// Too slow for the workloads that make much of it.
const HUNT: &str = "fencepost-hunt";
const SAMPLES: usize = 10;
/// Time on the clock for one iteration of several threads.
const SPAN: Duration = Duration::from_millis(25);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        println!("micro: run it with `cargo bench -p fencepost-benches --bench micro`");
        return Ok(());
    }
    let started = Instant::now();
    child::forbid_cores();
    let selected = !(arguments.only.is_empty() && arguments.work.is_empty());
    let full = (arguments.keep || !selected) && !arguments.quick && !arguments.smoke;
    if arguments.threads {
        arguments.api = vec!["c".to_owned()];
    }
    if (arguments.quick || arguments.smoke) && arguments.only.is_empty() {
        arguments.only.push("fencepost".to_owned());
    }
    if arguments.quick || arguments.smoke {
        arguments.rounds = 1;
    }
    let mut shop = Shop::default();
    let mut all: Vec<Vec<Door>> = Vec::new();
    let mut head = versions();
    for api in ["rust", "c"].into_iter().filter(|api| arguments.api.iter().any(|wanted| wanted == api)) {
        let (ready, skipped) = doors(&mut shop, api, &arguments.only);
        insist(&skipped)?;
        all.push(ready.into_iter().filter(|door| !arguments.threads || door.heap.name != HUNT).collect());
        head.extend(skipped.into_iter().map(|(name, reason)| (format!("skipped {name}"), reason)));
    }
    let tasks: Vec<Task> = tasks::ALL
        .iter()
        .filter(|(_, task, _)| !arguments.threads || tasks::THREADS.contains(task))
        .filter(|(name, _, level)| {
            let chosen = arguments.work.is_empty()
                || arguments.work.iter().any(|work| name.starts_with(work.as_str()));
            chosen
                && (!arguments.smoke || *level == tasks::SMOKE)
                && (!arguments.quick || *level >= tasks::QUICK)
        })
        .map(|(_, task, _)| *task)
        .collect();
    let mut writer = Writer::create(if arguments.threads { "micro-threads" } else { "micro" }, full, &head)?;
    let mut criterion = criterion(arguments.smoke);
    let mut round_time = Duration::ZERO;
    for round in 1..=arguments.rounds {
        let round_started = Instant::now();
        if started.elapsed() + round_time > Duration::from_secs_f64(arguments.minutes * 60.0) {
            eprintln!("time is up after {} rounds", round - 1);
            break;
        }
        for (doors, task) in all.iter().flat_map(|doors| tasks.iter().map(move |task| (doors, task))) {
            measure(&mut criterion, &mut writer, doors, task, (round, arguments.smoke))?;
        }
        round_time = round_started.elapsed();
    }
    let record = Record::read(writer.path())?;
    let tables = if arguments.threads { report::threads::tables } else { report::micro::tables };
    println!("{}", tables(&record));
    println!("record: {}", writer.path().display());
    Ok(())
}

fn criterion(smoke: bool) -> Criterion {
    let (warm, measure) = if smoke { (2, 10) } else { (20, 80) };
    Criterion::default()
        .without_plots()
        .sample_size(SAMPLES)
        .nresamples(1001)
        .warm_up_time(Duration::from_millis(warm))
        .measurement_time(Duration::from_millis(measure))
}

/// One workload, each allocator in turn.
fn measure(
    criterion: &mut Criterion,
    writer: &mut Writer,
    doors: &[Door],
    task: &Task,
    (round, smoke): (usize, bool),
) -> Result<(), Box<dyn Error>> {
    let Some(first) = doors.first() else {
        return Ok(());
    };
    let label = tasks::label(task);
    if task.name == "million" {
        for door in doors.iter().filter(|door| door.heap.name != HUNT) {
            writer.row(million(door, task, round))?;
        }
        return Ok(());
    }
    let mut group = criterion.benchmark_group(format!("{} {label}", first.api));
    if tasks::in_spans(task) {
        group.sampling_mode(SamplingMode::Flat);
    }
    for door in doors {
        let mut cell = blank(door, task, round);
        let (runner, scale) = match probe(door, task, smoke) {
            Ok(probed) => probed,
            Err(reason) => {
                eprintln!("failed: {label} {} ({}): {reason}", door.heap.name, door.api);
                cell.status = reason;
                writer.row(cell)?;
                continue;
            }
        };
        let state = RefCell::new((runner, Vec::<(u64, u64)>::new(), None::<String>));
        group.bench_function(BenchmarkId::new(door.heap.name, format!("round {round}")), |bencher| {
            bencher.iter_custom(|iterations| {
                let (runner, samples, failure) = &mut *state.borrow_mut();
                if failure.is_some() {
                    return Duration::from_nanos(iterations);
                }
                match runner.measure(iterations * scale, LIMIT) {
                    Ok(reply) => {
                        samples.push((iterations * scale, reply.nanos));
                        Duration::from_secs_f64(reply.nanos as f64 * 1e-9 / scale as f64)
                    }
                    Err(reason) => {
                        *failure = Some(reason);
                        Duration::from_nanos(iterations)
                    }
                }
            });
        });
        let (runner, samples, failure) = state.into_inner();
        // Criterion's warm-up comes first and is not a sample.
        let samples = &samples[samples.len().saturating_sub(SAMPLES)..];
        let each: Vec<f64> = samples.iter().map(|(count, nanos)| *nanos as f64 / *count as f64).collect();
        cell.samples = samples.len();
        cell.iterations = samples.iter().map(|(count, _)| count).sum();
        cell.ns = stats::median(&each).unwrap_or(f64::NAN);
        cell.ns_min = stats::spread(&each).map_or(f64::NAN, |(least, _)| least);
        cell.status = failure.unwrap_or_else(|| "ok".to_owned());
        cell.peak_kib = runner.finish().peak_kib;
        writer.row(cell)?;
    }
    group.finish();
    Ok(())
}

/// A runner that has done the work once, and how many operations one of criterion's iterations stands for.
///
/// Starting threads costs far more than an operation, and with more threads than cores the first may be done before the
/// last begins. So several threads get [`SPAN`] of work for each iteration, and so does what is compared with them.
fn probe(door: &Door, task: &Task, smoke: bool) -> Result<(Runner, u64), String> {
    let mut runner = Runner::start(door, task)?;
    runner.measure(1, LIMIT)?;
    if !tasks::in_spans(task) {
        return Ok((runner, 1));
    }
    let span = if smoke { SPAN / 10 } else { SPAN };
    let mut scale = 64;
    for _ in 0..4 {
        let nanos = runner.measure(scale, LIMIT)?.nanos;
        // By no more than sixteen times at once: the first answers are mostly the start.
        let fits = (u128::from(scale) * span.as_nanos() / u128::from(nanos)) as u64;
        scale = fits.clamp(1, scale * 16);
    }
    Ok((runner, scale))
}

fn blank(door: &Door, task: &Task, round: usize) -> Cell {
    Cell {
        api: door.api.to_owned(),
        work: if task.align > 16 { "aligned".to_owned() } else { task.name.to_owned() },
        size: task.size,
        align: task.align,
        threads: task.threads,
        heap: door.heap.name.to_owned(),
        round,
        status: String::new(),
        samples: 0,
        iterations: 0,
        ns: f64::NAN,
        ns_min: f64::NAN,
        peak_kib: 0,
        extra: String::new(),
    }
}

/// A million objects once: too long for criterion's samples, and the memory is the point.
fn million(door: &Door, task: &Task, round: usize) -> Cell {
    let mut cell = blank(door, task, round);
    let measured = Runner::start(door, task).and_then(|mut runner| Ok((runner.measure(1, LIMIT)?, runner)));
    match measured {
        Ok((reply, runner)) => {
            let [free, live, after] = reply.extra;
            cell.status = "ok".to_owned();
            (cell.samples, cell.iterations) = (1, 1_000_000);
            cell.ns = reply.nanos as f64 / 1e6;
            cell.ns_min = cell.ns;
            cell.extra = format!("free_ns={:.1} live_kib={live} after_kib={after}", free as f64 / 1e6);
            cell.peak_kib = runner.finish().peak_kib;
        }
        Err(reason) => cell.status = reason,
    }
    cell
}
