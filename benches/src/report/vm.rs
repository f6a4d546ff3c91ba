//! The kernel's prices and `hunt` beside them.

use super::{Table, chart, short, source, time};
use crate::record::{Cell, Record};
use crate::stats::{median, spread};

/// What the operations are called in the tables, and over how many pages a figure is spread.
const OPS: &[(&str, &str, f64)] = &[
    ("vm-syscall", "system call", 1.0),
    ("vm-fault", "first-touch fault", 1.0),
    ("vm-touch-install", "touch + `MADV_GUARD_INSTALL`", 1.0),
    ("vm-install-populated", "`MADV_GUARD_INSTALL`, populated page", 1.0),
    ("vm-install-empty", "`MADV_GUARD_INSTALL`, empty page", 1.0),
    ("vm-install-bulk", "`MADV_GUARD_INSTALL`, a page of 64 in one call", 64.0),
    ("vm-remove", "`MADV_GUARD_REMOVE`", 1.0),
    ("vm-mmap-munmap", "`mmap` + `munmap`, untouched", 1.0),
    ("vm-classic", "`mmap` + `mprotect` + touch + `munmap`", 1.0),
    ("vm-mprotect-split", "`mprotect` that splits", 1.0),
    ("vm-dontneed-1", "`MADV_DONTNEED`, one page", 1.0),
    ("vm-dontneed-64", "`MADV_DONTNEED`, a page of 64 in one call", 64.0),
    ("vm-memset-4096", "memset of 4 KiB", 1.0),
];

fn picked<'a>(
    record: &'a Record<Cell>,
    api: &'a str,
    work: &'a str,
    threads: usize,
) -> impl Iterator<Item = &'a Cell> + 'a {
    record.rows.iter().filter(move |cell| {
        cell.api == api && cell.work == work && cell.threads == threads && cell.status == "ok"
    })
}

/// The ratio of `hunt` to a floor, round by round.
fn ratios(record: &Record<Cell>, api: &str, floor: &str, threads: usize) -> Vec<f64> {
    picked(record, api, "pair", threads)
        .filter_map(|cell| {
            let base = picked(record, "kernel", floor, threads).find(|base| base.round == cell.round)?;
            Some(cell.ns / base.ns)
        })
        .collect()
}

fn with_spread(values: &[f64]) -> String {
    match (median(values), spread(values)) {
        (Some(middle), Some((least, greatest))) => {
            format!("{} ({}–{})", short(middle), short(least), short(greatest))
        }
        _ => "–".to_owned(),
    }
}

/// Every table of a `vm` record.
pub fn tables(record: &Record<Cell>) -> String {
    let mut text = source(record);
    let mut prices = Table::new("operation, ns", ["1 thread", "2 threads", "4 threads"]);
    for (work, name, pages) in OPS {
        prices.row(
            name,
            [1, 2, 4].map(|threads| {
                let values: Vec<f64> =
                    picked(record, "kernel", work, threads).map(|cell| cell.ns / pages).collect();
                median(&values).map_or_else(String::new, time)
            }),
        );
    }
    text += "\nMedian time of one operation on each thread:\n\n";
    text += &prices.finish();
    let mut hunt =
        Table::new("malloc + touch + free of 64 B", ["ns", "× touch + install", "× classic fence"]);
    for api in ["c", "rust"] {
        for threads in [1, 2, 4] {
            let ns: Vec<f64> = picked(record, api, "pair", threads).map(|cell| cell.ns).collect();
            if let Some(middle) = median(&ns) {
                hunt.row(
                    &format!("{api}, {threads} threads"),
                    [
                        time(middle),
                        with_spread(&ratios(record, api, "vm-touch-install", threads)),
                        with_spread(&ratios(record, api, "vm-classic", threads)),
                    ],
                );
            }
        }
    }
    text += &format!(
        "\n`{}`, median of the rounds' ratios (least to greatest); the classic fence is `mmap` + `mprotect` + touch + \
         `munmap`:\n\n",
        record.get("options").unwrap_or("hunt")
    );
    text + &hunt.finish()
}

/// `hunt` and its floors by threads.
pub fn charts(record: &Record<Cell>) -> Vec<(&'static str, String)> {
    let lines = [
        ("hunt, C ABI", "c", "pair"),
        ("hunt, GlobalAlloc", "rust", "pair"),
        ("touch + install", "kernel", "vm-touch-install"),
        ("classic fence", "kernel", "vm-classic"),
    ];
    let series = lines
        .iter()
        .map(|(name, api, work)| {
            let points = [1, 2, 4].map(|threads| {
                chart::Point::of(&picked(record, api, work, threads).map(|cell| cell.ns).collect::<Vec<_>>())
            });
            ((*name).to_owned(), points.to_vec())
        })
        .collect();
    let graph = chart::Graph {
        title: "A guarded object against the kernel's floor, ns for a pair on each thread",
        labels: vec!["1 thread".to_owned(), "2 threads".to_owned(), "4 threads".to_owned()],
        series,
        ..chart::Graph::LINEAR
    };
    vec![("vm", chart::bars(&graph))]
}
