//! Whole programs under preloaded allocators, in turn, by CPU time and peak memory.
//!
//! A round runs every program under every allocator, forwards in odd rounds and backwards in even ones. Round 0 writes
//! what the program prints to a file and compares it with glibc's: an allocator that changes the output fails. A cell
//! that has failed is not run again.

mod columns;
mod counts;
mod inputs;
mod programs;
mod redis;

use clap::{Parser, ValueEnum};
use columns::Column;
use fencepost_benches::cargo::{Shop, insist, target};
use fencepost_benches::child::{self, End, Usage};
use fencepost_benches::record::{Record, Run, Writer, versions};
use fencepost_benches::report;
use programs::{Place, Program};
use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Whole programs under fencepost and its peers.
#[derive(Parser)]
struct Arguments {
    /// Programs at full size beside the fast and the hardened, or small ones beside the bug hunters
    #[arg(long, value_enum, default_value = "speed")]
    set: Set,
    /// Allocators (beginnings of names, by comma); glibc is always in
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Programs (by comma)
    #[arg(long, value_delimiter = ',')]
    program: Vec<String>,
    /// A further column: NAME=/path/lib.so
    #[arg(long, value_parser = named_path)]
    preload: Vec<(String, PathBuf)>,
    /// Rounds over everything, after the one that checks the output (5)
    #[arg(long)]
    rounds: Option<usize>,
    /// Start no further round when the run would pass this many minutes
    #[arg(long, default_value_t = 12.0)]
    minutes: f64,
    /// Time limit of one run, seconds
    #[arg(long)]
    timeout: Option<u64>,
    /// Keep the record of a selection, too: the tables then show it
    #[arg(long)]
    keep: bool,
    /// One round
    #[arg(long)]
    quick: bool,
    /// Seconds: tiny inputs, fencepost and glibc unless --only says otherwise
    #[arg(long)]
    smoke: bool,
    /// Instructions and cache misses of six programs under Cachegrind, compared with benches/programs.csv
    #[arg(long)]
    counts: bool,
    /// With --counts: rewrite the baseline
    #[arg(long, requires = "counts")]
    bless: bool,
    /// With --counts: the growth, in percent, that counts as a regression
    #[arg(long, requires = "counts", default_value_t = 5.0)]
    allow: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Set {
    Speed,
    Hunt,
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Hunt => "hunt",
        }
    }
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=/path/lib.so")?;
    let path = PathBuf::from(path);
    if path.exists() {
        Ok((name.to_owned(), path))
    } else {
        Err(format!("{} does not exist", path.display()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::parse();
    child::forbid_cores();
    let set = arguments.set;
    let selected =
        !(arguments.only.is_empty() && arguments.program.is_empty() && arguments.preload.is_empty());
    let full = (arguments.keep || !selected) && !arguments.quick && !arguments.smoke;
    if arguments.only.is_empty() {
        // Under `patrol` and `hunt` nothing is gained from counts: what they take is the kernel's.
        let few: &[&str] = match (arguments.counts, arguments.smoke) {
            (true, _) => &["fencepost-harden-128k"],
            (_, true) => &["fencepost"],
            _ => &[],
        };
        arguments.only.extend(few.iter().map(|name| (*name).to_owned()));
    }
    if arguments.counts && arguments.program.is_empty() {
        arguments.program.extend(counts::PROGRAMS.iter().map(|name| (*name).to_owned()));
    }
    let (columns, mut skipped) = columns::columns(&mut Shop::default(), set == Set::Hunt, &arguments);
    insist(&skipped)?;
    let scale = match (arguments.smoke, set) {
        _ if arguments.counts => counts::SCALE,
        (true, _) => 2,
        (_, Set::Hunt) => 10,
        (_, Set::Speed) => 100,
    };
    let place = Place {
        inputs: target().join(format!("bench-inputs/{scale}")),
        scale,
        scratch: target().join(format!("bench-scratch/run-{}", std::process::id())),
    };
    fs::create_dir_all(&place.scratch)?;
    eprintln!("inputs in {}", place.inputs.display());
    inputs::prepare(&place)?;
    let mut programs = Vec::new();
    for program in programs::list(set == Set::Hunt) {
        if !arguments.program.is_empty() && !arguments.program.iter().any(|name| name == program.name) {
            continue;
        }
        match program.missing() {
            None => programs.push(program),
            Some(what) => skipped.push((program.name.to_owned(), format!("{what} is not installed"))),
        }
    }
    if arguments.counts {
        counts::compare(&place, &programs, &columns, arguments.bless, arguments.allow)?;
        fs::remove_dir_all(&place.scratch)?;
        return Ok(());
    }
    let mut head = versions();
    for program in &programs {
        head.push((format!("program {}", program.name), program.version()));
    }
    for (name, reason) in skipped {
        eprintln!("skipped: {name}: {reason}");
        head.push((format!("skipped {name}"), reason));
    }
    let writer = Writer::create(&format!("apps-{}", set.name()), full, &head)?;
    let limit = arguments.timeout.unwrap_or(if set == Set::Hunt { 30 } else { 60 });
    let rounds = arguments.rounds.unwrap_or(match (arguments.smoke, arguments.quick) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 5,
    });
    let mut bench = Bench {
        writer,
        place,
        set,
        limit: Duration::from_secs(limit),
        failed: Vec::new(),
        outputs: HashMap::new(),
    };
    // What had to be built first is not counted.
    let started = Instant::now();
    bench.all(&programs, &columns, rounds, started, Duration::from_secs_f64(arguments.minutes * 60.0))?;
    fs::remove_dir_all(&bench.place.scratch)?;
    println!("{}", report::apps::tables(&Record::read(bench.writer.path())?));
    println!("record: {}", bench.writer.path().display());
    Ok(())
}

struct Bench {
    writer: Writer,
    place: Place,
    set: Set,
    limit: Duration,
    /// Cells not to run again.
    failed: Vec<(&'static str, String)>,
    /// What each program prints under glibc.
    outputs: HashMap<&'static str, u64>,
}

impl Bench {
    fn all(
        &mut self,
        programs: &[Program],
        columns: &[Column],
        rounds: usize,
        started: Instant,
        budget: Duration,
    ) -> io::Result<()> {
        for round in 0..=rounds {
            let round_started = Instant::now();
            for program in programs {
                let mut order: Vec<&Column> = columns.iter().filter(|column| column.suits(program)).collect();
                if round % 2 == 0 && round > 0 {
                    order.reverse();
                }
                for column in order {
                    // The deterministic hunter costs seconds where others cost a fraction: two rounds in the speed set.
                    let slow = self.set == Set::Speed && column.name == "fencepost-hunt" && round > 2;
                    let again =
                        !self.failed.iter().any(|(name, heap)| *name == program.name && *heap == column.name);
                    if !slow && again {
                        self.cell(program, column, round)?;
                    }
                }
            }
            let next = started.elapsed() + round_started.elapsed();
            eprintln!("round {round} of {rounds} took {} s", round_started.elapsed().as_secs());
            if round < rounds && next > budget {
                eprintln!("time is up after {round} rounds");
                break;
            }
        }
        Ok(())
    }

    fn cell(&mut self, program: &Program, column: &Column, round: usize) -> io::Result<()> {
        let check = round == 0 && program.prints;
        let printed = self.place.scratch.join("printed");
        let (end, usage, complaint) = self.run(program, column, check.then_some(printed.as_path()))?;
        let mut status = end.text();
        if check && end == End::Exit(0) {
            let hash = hash(&printed)?;
            let expected = *self.outputs.entry(program.name).or_insert(hash);
            if hash != expected {
                status = "wrong output".to_owned();
            }
        }
        if status != "ok" {
            eprintln!("failed: {} under {}: {status}: {complaint}", program.name, column.name);
            self.failed.push((program.name, column.name.clone()));
        }
        self.writer.row(Run {
            set: if program.has_threads { "threads" } else { self.set.name() }.to_owned(),
            program: program.name.to_owned(),
            heap: column.name.clone(),
            round,
            status,
            user_us: usage.user_us,
            system_us: usage.system_us,
            wall_us: usage.wall_us,
            peak_kib: usage.peak_kib,
        })
    }

    /// One run: how it ended, what it used, and the last line of complaint.
    fn run(
        &self,
        program: &Program,
        column: &Column,
        printed: Option<&Path>,
    ) -> io::Result<(End, Usage, String)> {
        if program.is_server {
            return redis::run(&self.place, column, self.limit);
        }
        let complaints = self.place.scratch.join("complaints");
        let mut command = program.command(&self.place, column);
        command.stdin(program.input(&self.place)?).stderr(File::create(&complaints)?);
        command.stdout(match printed {
            Some(path) => Stdio::from(File::create(path)?),
            None => Stdio::null(),
        });
        let (end, usage) = child::run(&mut command, self.limit)?;
        let text = String::from_utf8_lossy(&fs::read(&complaints)?).into_owned();
        let line =
            text.lines().find(|line| line.contains("ERROR")).or(text.lines().last()).unwrap_or_default();
        Ok((end, usage, line.chars().take(200).collect()))
    }
}

/// Of the whole file, a buffer at a time: the driver must stay small.
fn hash(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = [0; 65_536];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            length => hasher.write(&buffer[..length]),
        }
    }
}
