//! Tables and charts of whole programs: time and memory as multiples of glibc.

use super::{Table, chart, columns, short, source};
use crate::record::{Record, Run};
use crate::stats::{geomean, median, spread};

/// One cell: the medians over rounds of the ratios to glibc in the same round.
struct Ratios {
    time: f64,
    least: f64,
    greatest: f64,
    peak: f64,
}

struct View<'a> {
    record: &'a Record<Run>,
    set: &'a str,
    programs: Vec<&'a str>,
    heaps: Vec<&'a str>,
}

impl<'a> View<'a> {
    fn new(record: &'a Record<Run>, set: &'a str) -> Self {
        let runs = || record.rows.iter().filter(move |run| run.set == set);
        let mut programs: Vec<&str> = Vec::new();
        for run in runs() {
            if !programs.contains(&run.program.as_str()) {
                programs.push(&run.program);
            }
        }
        Self { record, set, programs, heaps: columns(runs().map(|run| run.heap.as_str())) }
    }

    fn runs(&self, program: &str, heap: &str) -> impl Iterator<Item = &'a Run> {
        let matches = move |run: &&Run, set: &str, program: &str, heap: &str| {
            run.set == set && run.program == program && run.heap == heap
        };
        self.record
            .rows
            .iter()
            .filter(|run| matches(run, self.set, program, heap))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The ratios, or how the program failed, or nothing where it was not run.
    fn cell(&self, program: &str, heap: &str) -> Result<Ratios, String> {
        if let Some(failed) = self.runs(program, heap).find(|run| run.status != "ok") {
            return Err(failed.status.clone());
        }
        let pairs: Vec<(&Run, &Run)> = self
            .runs(program, heap)
            .filter_map(|run| {
                let base = self
                    .runs(program, "glibc")
                    .find(|base| base.round == run.round && base.status == "ok")?;
                Some((run, base))
            })
            .collect();
        // Round 0 writes its output to a file; it counts only where there is no other.
        let timed = pairs.iter().any(|(run, _)| run.round > 0);
        let counted = || pairs.iter().filter(|(run, _)| run.round > 0 || !timed);
        let cpu = |run: &Run| (run.user_us + run.system_us).max(1) as f64;
        let times: Vec<f64> = counted().map(|(run, base)| cpu(run) / cpu(base)).collect();
        let peaks: Vec<f64> =
            counted().map(|(run, base)| run.peak_kib as f64 / base.peak_kib.max(1) as f64).collect();
        match (median(&times), spread(&times), median(&peaks)) {
            (Some(time), Some((least, greatest)), Some(peak)) => Ok(Ratios { time, least, greatest, peak }),
            _ => Err(String::new()),
        }
    }

    fn finished(&self, heap: &str, pick: impl Fn(&Ratios) -> f64) -> Vec<f64> {
        self.programs
            .iter()
            .filter_map(|program| self.cell(program, heap).ok())
            .map(|cell| pick(&cell))
            .collect()
    }

    /// Allocators down, programs across: there are more programs than a page is wide the other way round.
    fn table(&self, pick: impl Fn(&Ratios) -> f64, show: impl Fn(&Ratios) -> String) -> String {
        let last = ["geomean", "finished"];
        let mut table = Table::new("× glibc", self.programs.iter().copied().chain(last));
        for heap in &self.heaps {
            let cells = self
                .programs
                .iter()
                .map(|program| self.cell(program, heap).map_or_else(|why| why, |cell| show(&cell)));
            let done = self.finished(heap, &pick);
            let tried =
                self.programs.iter().filter(|program| self.runs(program, heap).next().is_some()).count();
            let end = [geomean(&done).map_or_else(String::new, short), format!("{} of {tried}", done.len())];
            table.row(heap, cells.chain(end).collect::<Vec<_>>());
        }
        table.finish()
    }

    /// What one run took under glibc, to judge the ratios by.
    fn absolute(&self) -> String {
        let mut table = Table::new("glibc", self.programs.iter().copied());
        let of = |pick: fn(&Run) -> f64| {
            self.programs.iter().map(move |program| {
                let values: Vec<f64> =
                    self.runs(program, "glibc").filter(|run| run.status == "ok").map(pick).collect();
                median(&values).map_or_else(String::new, short)
            })
        };
        table.row("CPU s", of(|run| (run.user_us + run.system_us) as f64 / 1e6).collect::<Vec<_>>());
        table.row("peak MiB", of(|run| run.peak_kib as f64 / 1024.0).collect::<Vec<_>>());
        table.finish()
    }
}

/// Every table of an `apps-speed` or `apps-hunt` record.
pub fn tables(record: &Record<Run>) -> String {
    let mut text = source(record);
    for set in ["speed", "hunt"] {
        let view = View::new(record, set);
        if view.programs.is_empty() {
            continue;
        }
        text +=
            "\nCPU time, median over rounds of the ratio to glibc in the same round (least to greatest):\n\n";
        let show =
            |cell: &Ratios| format!("{} ({}–{})", short(cell.time), short(cell.least), short(cell.greatest));
        text += &view.table(|cell| cell.time, show);
        text += "\nPeak resident size:\n\n";
        text += &view.table(|cell| cell.peak, |cell| short(cell.peak));
        text += "\nWhat one run takes:\n\n";
        text += &view.absolute();
    }
    text
}

/// Time and memory by program.
pub fn charts(record: &Record<Run>) -> Vec<(&'static str, String)> {
    let mut charts = Vec::new();
    for (set, time, peak) in [("speed", "apps-time", "apps-rss"), ("hunt", "hunt-time", "hunt-rss")] {
        let view = View::new(record, set);
        if view.programs.is_empty() {
            continue;
        }
        let labels: Vec<String> =
            view.programs.iter().map(|name| (*name).to_owned()).chain(["geomean".to_owned()]).collect();
        let series = |pick: fn(&Ratios) -> f64| {
            let heaps =
                view.heaps.iter().filter(|heap| **heap != "glibc" && !view.finished(heap, pick).is_empty());
            heaps
                .map(|heap| {
                    let cells = view
                        .programs
                        .iter()
                        .map(|program| view.cell(program, heap).map_or(f64::NAN, |cell| pick(&cell)));
                    let mean = geomean(&view.finished(heap, pick)).unwrap_or(f64::NAN);
                    ((*heap).to_owned(), cells.chain([mean]).collect())
                })
                .collect()
        };
        let graph = |title, series| chart::Graph {
            title,
            labels: labels.clone(),
            series,
            logarithmic: true,
            reference: Some(1.0),
        };
        charts.push((time, chart::bars(&graph("CPU time as a multiple of glibc", series(|cell| cell.time)))));
        charts.push((
            peak,
            chart::bars(&graph("Peak resident size as a multiple of glibc", series(|cell| cell.peak))),
        ));
    }
    charts
}
