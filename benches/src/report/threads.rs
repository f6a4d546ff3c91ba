//! Tables and chart of what one thread costs beside two.

use super::micro::{keys, series, table, value};
use super::{Table, chart, columns, short, source};
use crate::record::{Cell, Record};

const API: &str = "c";

fn heaps(record: &Record<Cell>) -> Vec<&str> {
    columns(record.rows.iter().map(|cell| cell.heap.as_str()))
}

/// Every table of a `micro-threads` record.
pub fn tables(record: &Record<Cell>) -> String {
    let heaps = heaps(record);
    let mut text = source(record);
    text += "\nThrough the C ABI (preloaded), ns an operation on each thread; in brackets the median over rounds of the \
             ratio to glibc:\n\n";
    text += &table(record, API, &heaps, |_| true);
    let mut scaling = Table::new("throughput of two threads over that of one", &heaps);
    for (work, name) in [("live", "16 B to 1 KiB, 5,000 live a thread"), ("mixed", "mixed sizes")] {
        let of = |heap: &str, threads: usize| value(record, API, (work, 0, 16, threads), heap).ok();
        scaling.row(
            name,
            heaps.iter().map(|heap| match (of(heap, 1), of(heap, 2)) {
                (Some(one), Some(two)) => format!("{}×", short(2.0 * one / two)),
                _ => String::new(),
            }),
        );
    }
    text + &scaling.finish()
}

/// Cost by workload.
pub fn charts(record: &Record<Cell>) -> Vec<(&'static str, String)> {
    let lines = keys(record, API, |_| true);
    let labels = lines.iter().map(|(work, _, _, threads)| match *work {
        "cross" => "freed by another".to_owned(),
        work => format!("{work}, {threads} threads"),
    });
    let graph = chart::Graph {
        title: "Random sizes on one thread and on two, objects freed by another thread: ns an operation, C ABI",
        labels: labels.collect(),
        series: series(record, API, &heaps(record), &lines, |ns, _| ns),
        ..chart::Graph::LINEAR
    };
    vec![("two-threads", chart::bars(&graph))]
}
