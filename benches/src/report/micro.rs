//! Tables and charts of the micro-benchmarks.

use super::{Table, chart, columns, short, source, time};
use crate::record::{Cell, Record};
use crate::stats::median;
use chart::Point;

/// A line of a table: work, size, alignment, threads.
pub(super) type Key<'a> = (&'a str, usize, usize, usize);

fn key(cell: &Cell) -> Key<'_> {
    (&cell.work, cell.size, cell.align, cell.threads)
}

/// The distinct lines of one interface, in the order of the run.
pub(super) fn keys<'a>(record: &'a Record<Cell>, api: &str, chosen: impl Fn(&Cell) -> bool) -> Vec<Key<'a>> {
    let mut keys = Vec::new();
    for cell in record.rows.iter().filter(|cell| cell.api == api && chosen(cell)) {
        if !keys.contains(&key(cell)) {
            keys.push(key(cell));
        }
    }
    keys
}

/// The median of the rounds; how it failed otherwise; empty when it was not run.
pub(super) fn value(record: &Record<Cell>, api: &str, line: Key, heap: &str) -> Result<f64, String> {
    let cells: Vec<&Cell> =
        record.rows.iter().filter(|cell| cell.api == api && key(cell) == line && cell.heap == heap).collect();
    if let Some(failed) = cells.iter().find(|cell| cell.status != "ok") {
        return Err(failed.status.clone());
    }
    median(&cells.iter().map(|cell| cell.ns).collect::<Vec<_>>()).ok_or_else(String::new)
}

/// The median over rounds of the ratio to glibc in the same round.
fn ratio(record: &Record<Cell>, api: &str, line: Key, heap: &str) -> Option<f64> {
    let of = |heap: &str, round: usize| {
        let found = |cell: &&Cell| {
            cell.api == api
                && key(cell) == line
                && cell.heap == heap
                && cell.round == round
                && cell.status == "ok"
        };
        record.rows.iter().find(found).map(|cell| cell.ns)
    };
    let rounds = record.rows.iter().map(|cell| cell.round).max().unwrap_or(0);
    let ratios: Vec<f64> =
        (1..=rounds).filter_map(|round| Some(of(heap, round)? / of("glibc", round)?)).collect();
    median(&ratios)
}

fn name(line: Key) -> String {
    let (work, size, align, threads) = line;
    match work {
        "random" => "random sizes, 10,000 live".to_owned(),
        "grow" => "realloc 16 B to 1 MiB".to_owned(),
        "aligned" => format!("{size} B aligned to {align}"),
        "cross" => format!("{size} B freed by another thread"),
        "mixed" => format!("mixed sizes, {threads} threads"),
        "live" => format!("16 B to 1 KiB, 5,000 live a thread, {threads} threads"),
        "million" => format!("a million of {size} B"),
        "fork" => format!("fork, {size} objects"),
        work => format!("{work} {size} B"),
    }
}

pub(super) fn table(
    record: &Record<Cell>,
    api: &str,
    heaps: &[&str],
    chosen: impl Fn(&Cell) -> bool,
) -> String {
    let lines = keys(record, api, chosen);
    if lines.is_empty() {
        return String::new();
    }
    let mut table = Table::new("ns", heaps);
    for line in lines {
        table.row(
            &name(line),
            heaps.iter().map(|heap| match value(record, api, line, heap) {
                Ok(ns) => match ratio(record, api, line, heap) {
                    Some(ratio) if *heap != "glibc" => {
                        format!("{} ({}×)", time(ns), short(ratio))
                    }
                    _ => time(ns),
                },
                Err(status) => status,
            }),
        );
    }
    table.finish() + "\n"
}

fn extra(cell: &Cell, wanted: &str) -> Option<f64> {
    cell.extra.split(' ').find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('=')?.parse().ok())
}

fn million(record: &Record<Cell>, api: &str, heaps: &[&str]) -> String {
    let of = |heap: &str, wanted: &str| {
        let values: Vec<f64> = record
            .rows
            .iter()
            .filter(|cell| cell.api == api && cell.work == "million" && cell.heap == heap)
            .filter_map(|cell| if wanted == "ns" { Some(cell.ns) } else { extra(cell, wanted) })
            .collect();
        median(&values)
    };
    if !heaps.iter().any(|heap| of(heap, "ns").is_some()) {
        return String::new();
    }
    let mut table = Table::new("a million of 64 B", heaps);
    for (name, wanted, unit) in [
        ("ns a malloc", "ns", 1.0),
        ("ns a free", "free_ns", 1.0),
        ("MiB with all live", "live_kib", 1024.0),
        ("MiB after all frees", "after_kib", 1024.0),
    ] {
        table.row(
            name,
            heaps.iter().map(|heap| of(heap, wanted).map_or_else(String::new, |value| short(value / unit))),
        );
    }
    table.finish() + "\n"
}

const APIS: [(&str, &str); 2] = [("rust", "Through `GlobalAlloc`"), ("c", "Through the C ABI (preloaded)")];

/// Every table of a `micro` record.
pub fn tables(record: &Record<Cell>) -> String {
    let mut text = source(record);
    for (api, title) in APIS {
        let heaps = columns(record.rows.iter().filter(|cell| cell.api == api).map(|cell| cell.heap.as_str()));
        if heaps.is_empty() {
            continue;
        }
        text += &format!(
            "\n{title}, ns an operation on each thread; in brackets the median over rounds of the ratio to glibc:\n\n"
        );
        text += &table(record, api, &heaps, |cell| cell.work == "pair");
        text +=
            &table(record, api, &heaps, |cell| !matches!(cell.work.as_str(), "pair" | "mixed" | "million"));
        text += &table(record, api, &heaps, |cell| cell.work == "mixed");
        text += &million(record, api, &heaps);
    }
    text
}

/// Up to this size a pair is below what any system call takes.
const SMALL: usize = 2048;
/// Where bars of larger sizes end: those that go through the kernel are cut off.
const CEILING: f64 = 600.0;

/// Pair cost by size and throughput by threads, charts for each interface; `hunt` has one of its own.
pub fn charts(record: &Record<Cell>) -> Vec<(&'static str, String)> {
    let mut charts = Vec::new();
    let mut hunt = Vec::new();
    let mut sizes = Vec::new();
    for (api, name, small, large, threads) in [
        ("rust", "GlobalAlloc", "pair-rust", "pair-large-rust", "threads-rust"),
        ("c", "C ABI", "pair-c", "pair-large-c", "threads-c"),
    ] {
        let mut heaps =
            columns(record.rows.iter().filter(|cell| cell.api == api).map(|cell| cell.heap.as_str()));
        heaps.retain(|heap| *heap != "fencepost-hunt");
        let pair = |ns: f64, _: Key| ns;
        for (file, is_small) in [(small, true), (large, false)] {
            let lines = keys(record, api, |cell| cell.work == "pair" && (cell.size <= SMALL) == is_small);
            if lines.is_empty() {
                continue;
            }
            charts.push((
                file,
                chart::bars(&chart::Graph {
                    title: &format!("malloc + free, ns, {name}"),
                    labels: lines.iter().map(|line| bytes(line.1)).collect(),
                    series: series(record, api, &heaps, &lines, pair),
                    ceiling: (!is_small).then_some(CEILING),
                    ..chart::Graph::LINEAR
                }),
            ));
        }
        let lines = keys(record, api, |cell| cell.work == "pair");
        for (_, points) in series(record, api, &["fencepost-hunt"], &lines, pair) {
            sizes = lines.iter().map(|line| bytes(line.1)).collect();
            hunt.push((format!("hunt, {name}"), points));
        }
        let lines = keys(record, api, |cell| cell.work == "mixed");
        if lines.len() > 1 {
            charts.push((
                threads,
                chart::bars(&chart::Graph {
                    title: &format!("Mixed sizes, million pairs a second in all, {name}"),
                    labels: lines.iter().map(|line| format!("{} threads", line.3)).collect(),
                    series: series(record, api, &heaps, &lines, |ns, line| 1000.0 * line.3 as f64 / ns),
                    ..chart::Graph::LINEAR
                }),
            ));
        }
    }
    hunt.retain(|(_, points)| points.iter().any(|point| point.value.is_finite()));
    if !hunt.is_empty() {
        let title = "malloc + free under hunt, ns";
        let graph = chart::Graph { title, labels: sizes, series: hunt, ..chart::Graph::LINEAR };
        charts.push(("hunt-pair", chart::bars(&graph)));
    }
    charts
}

/// A series for each allocator; a point is the median of the rounds and their spread.
pub(super) fn series(
    record: &Record<Cell>,
    api: &str,
    heaps: &[&str],
    lines: &[Key],
    convert: impl Fn(f64, Key) -> f64,
) -> Vec<(String, Vec<Point>)> {
    let point = |line: &Key, heap: &str| {
        if value(record, api, *line, heap).is_err() {
            return Point::NONE;
        }
        let cells =
            record.rows.iter().filter(|cell| cell.api == api && key(cell) == *line && cell.heap == heap);
        Point::of(&cells.map(|cell| convert(cell.ns, *line)).collect::<Vec<_>>())
    };
    heaps
        .iter()
        .map(|heap| ((*heap).to_owned(), lines.iter().map(|line| point(line, heap)).collect()))
        .collect()
}

fn bytes(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}
