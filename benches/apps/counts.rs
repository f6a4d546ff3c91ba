//! Instructions and data-cache misses of whole programs, counted by Cachegrind: the same on a busy machine as on an
//! idle one.
//!
//! Counts of one machine are not those of another that has other versions of the programs; so what is kept and compared
//! is how many times glibc's they are, counted in the same run.

use crate::columns::Column;
use crate::programs::{Place, Program};
use fencepost_benches::cargo::home;
use fencepost_benches::child;
use fencepost_benches::heap::program;
use fencepost_benches::record::{Record, said};
use fencepost_benches::report::Table;
use fencepost_benches::stats::geomean;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The programs: those that allocate most for their instructions, and no server.
pub const PROGRAMS: &[&str] = &["sqlite3", "python3", "perl", "lua", "xmllint", "jq"];
/// How large the inputs are.
pub const SCALE: u64 = 3;
/// `seed` fixes every random choice, and `reserve_gb` keeps the arenas within the address space that Valgrind grants.
const OPTIONS: &str = "seed=1:reserve_gb=1";
/// The caches that are simulated: of no processor in particular, the same everywhere.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64"];
const LIMIT: Duration = Duration::from_secs(300);
/// By how much more than instructions misses may grow, since they depend on where the loader puts things.
const MISSES: f64 = 3.0;

/// What one run took.
#[derive(Clone, Copy)]
struct Count {
    instructions: f64,
    misses: f64,
}

/// Program, allocator, instructions and first-level data-cache misses as multiples of glibc's.
type Row = (String, String, f64, f64);

/// Counts every program under every column, prints the multiples, and compares fencepost's with the baseline or, to
/// `bless`, writes it. A growth of more than `allow` percent is an error.
pub fn compare(
    place: &Place,
    programs: &[Program],
    columns: &[Column],
    bless: bool,
    allow: f64,
) -> Result<(), Box<dyn Error>> {
    let valgrind = program("valgrind").ok_or("valgrind is not installed")?;
    let libc = columns.iter().find(|column| column.is_libc()).ok_or("glibc is not among the allocators")?;
    let mut cells = Vec::new();
    for program in programs {
        let others = columns.iter().filter(|column| !column.is_libc() && column.suits(program));
        cells.extend([libc].into_iter().chain(others).map(|column| (program, column)));
    }
    let counts = child::side_by_side(&cells, |(program, column)| count(&valgrind, place, program, column));
    let mut rows: Vec<Row> = Vec::new();
    let mut base = Count { instructions: f64::NAN, misses: f64::NAN };
    for ((program, column), count) in cells.iter().zip(counts) {
        match count {
            Ok(count) if column.is_libc() => base = count,
            Ok(count) => rows.push((
                program.name.to_owned(),
                column.name.clone(),
                count.instructions / base.instructions,
                count.misses / base.misses,
            )),
            Err(why) if column.is_libc() || column.name.starts_with("fencepost") => return Err(why.into()),
            Err(why) => eprintln!("skipped: {why}"),
        }
    }
    let baseline = home().join("programs.csv");
    let before = if baseline.exists() { Record::<Row>::read(&baseline)?.rows } else { Vec::new() };
    let grown = print(&before, &rows, allow);
    if bless {
        write(&baseline, &rows)?;
        println!("wrote {}", baseline.display());
    } else if grown > 0 {
        return Err(format!("{grown} counts grew by more than {allow} %; --bless accepts them").into());
    }
    Ok(())
}

fn count(valgrind: &Path, place: &Place, program: &Program, column: &Column) -> Result<Count, String> {
    let what = |why: String| format!("{} under {}: {why}", program.name, column.name);
    static COUNTED: AtomicUsize = AtomicUsize::new(0);
    let number = COUNTED.fetch_add(1, Ordering::Relaxed);
    let counted = place.scratch.join(format!("cachegrind.{number}.out"));
    let inner = program.command(place, column);
    let mut command = Command::new(valgrind);
    command.args(["--tool=cachegrind", "--cache-sim=yes"]).args(CACHES);
    command.arg(format!("--cachegrind-out-file={}", counted.display()));
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    for (name, value) in inner.get_envs() {
        let Some(value) = value else { continue };
        command.env(name, value);
    }
    if let Some(directory) = inner.get_current_dir() {
        command.current_dir(directory);
    }
    let own = inner.get_envs().find(|(name, _)| *name == "FENCEPOST_OPTIONS").and_then(|(_, value)| value);
    let own = own.map(|value| format!("{}:", value.to_string_lossy())).unwrap_or_default();
    command.env("FENCEPOST_OPTIONS", own + OPTIONS);
    command.stdin(program.input(place).map_err(|error| what(error.to_string()))?);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (end, _) = child::run(&mut command, LIMIT).map_err(|error| what(error.to_string()))?;
    if end.text() != "ok" {
        return Err(what(end.text()));
    }
    let text = fs::read_to_string(&counted).map_err(|error| what(error.to_string()))?;
    parse(&text).ok_or_else(|| what("no counts".to_owned()))
}

/// The counts in Cachegrind's file: a line that names the events, and one with their sums.
fn parse(text: &str) -> Option<Count> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let sums: Vec<f64> = line("summary: ")?.split_whitespace().filter_map(|sum| sum.parse().ok()).collect();
    let events = line("events: ")?;
    let sum = |name: &str| {
        let at = events.split_whitespace().position(|event| event == name)?;
        sums.get(at).copied()
    };
    Some(Count { instructions: sum("Ir")?, misses: sum("D1mr")? + sum("D1mw")? })
}

/// Prints the multiples beside the baseline's; how many of fencepost's grew too much.
fn print(before: &[Row], now: &[Row], allow: f64) -> usize {
    let mut table = Table::new("× glibc", ["instructions", "change", "misses", "change"]);
    let mut grown = 0;
    for (program, heap, instructions, misses) in now {
        let old = before.iter().find(|row| (&row.0, &row.1) == (program, heap));
        let change = |now: f64, old: Option<f64>| old.map(|old| (now / old - 1.0) * 100.0);
        let changes = [change(*instructions, old.map(|row| row.2)), change(*misses, old.map(|row| row.3))];
        let limits = [allow, MISSES * allow];
        if heap.starts_with("fencepost") {
            grown += changes
                .iter()
                .zip(limits)
                .filter(|(change, limit)| change.is_some_and(|change| change > *limit))
                .count();
        }
        let [by_instructions, by_misses] =
            changes.map(|change| change.map_or_else(|| "new".to_owned(), |change| format!("{change:+.1} %")));
        table.row(
            &format!("{program} {heap}"),
            [format!("{instructions:.3}"), by_instructions, format!("{misses:.2}"), by_misses],
        );
    }
    let mut heaps: Vec<&String> = now.iter().map(|row| &row.1).collect();
    heaps.dedup();
    heaps.sort();
    heaps.dedup();
    for heap in heaps {
        let of = |value: fn(&Row) -> f64| {
            let values: Vec<f64> = now.iter().filter(|row| &row.1 == heap).map(value).collect();
            geomean(&values).unwrap_or(f64::NAN)
        };
        let none = String::new;
        table.row(
            &format!("geometric mean {heap}"),
            [format!("{:.3}", of(|row| row.2)), none(), format!("{:.2}", of(|row| row.3)), none()],
        );
    }
    println!("{}", table.finish());
    grown
}

fn write(path: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(path)?;
    writeln!(file, "# made by: cargo run --release -p fencepost-benches --bin apps -- --counts --bless")?;
    writeln!(file, "# options: {OPTIONS}; caches: {}; inputs of size {SCALE}", CACHES.join(" "))?;
    writeln!(file, "# valgrind: {}", said("valgrind", &["--version"]))?;
    writeln!(
        file,
        "# instructions and first-level data-cache misses, as multiples of glibc's in the same run"
    )?;
    let mut csv = csv::Writer::from_writer(file);
    csv.write_record(["program", "heap", "instructions", "misses"])?;
    for (program, heap, instructions, misses) in rows.iter().filter(|row| row.1.starts_with("fencepost")) {
        csv.write_record([program, heap, &format!("{instructions:.4}"), &format!("{misses:.3}")])?;
    }
    csv.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_their_names() {
        let text = "events: Ir I1mr Dr D1mr Dw D1mw\nfn=main\n1 2 3 4 5 6 7\nsummary: 100 1 30 7 20 5\n";
        let count = parse(text).expect("counts");
        assert_eq!((count.instructions, count.misses), (100.0, 12.0));
        assert!(parse("events: Ir\n").is_none());
    }
}
