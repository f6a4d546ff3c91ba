//! Tables and charts of whole programs: time and memory as multiples of glibc.

use super::{Table, chart, columns, short, source};
use crate::record::{Record, Run};
use crate::stats::{geomean, median};
use chart::Point;

/// One cell: the medians over rounds of the ratios to glibc in the same round.
struct Ratios {
    time: Point,
    wall: Point,
    peak: Point,
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
        let ratios = |of: &dyn Fn(&Run) -> f64| {
            Point::of(&counted().map(|(run, base)| of(run) / of(base)).collect::<Vec<_>>())
        };
        let cell = Ratios {
            time: ratios(&cpu),
            wall: ratios(&|run| run.wall_us.max(1) as f64),
            peak: ratios(&|run| run.peak_kib.max(1) as f64),
        };
        if cell.time.value.is_finite() { Ok(cell) } else { Err(String::new()) }
    }

    fn finished(&self, heap: &str, pick: impl Fn(&Ratios) -> Point) -> Vec<f64> {
        self.programs
            .iter()
            .filter_map(|program| self.cell(program, heap).ok())
            .map(|cell| pick(&cell).value)
            .collect()
    }

    /// Allocators down, programs across: there are more programs than a page is wide the other way round.
    fn table(&self, pick: impl Fn(&Ratios) -> Point, show: impl Fn(Point) -> String) -> String {
        let last = ["geomean", "finished"];
        let mut table = Table::new("× glibc", self.programs.iter().copied().chain(last));
        for heap in &self.heaps {
            let cells = self
                .programs
                .iter()
                .map(|program| self.cell(program, heap).map_or_else(|why| why, |cell| show(pick(&cell))));
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
        table.row("clock s", of(|run| run.wall_us as f64 / 1e6).collect::<Vec<_>>());
        table.row("peak MiB", of(|run| run.peak_kib as f64 / 1024.0).collect::<Vec<_>>());
        table.finish()
    }
}

/// Every table of an `apps-speed` or `apps-hunt` record.
pub fn tables(record: &Record<Run>) -> String {
    let mut text = source(record);
    for set in ["speed", "threads", "hunt"] {
        let view = View::new(record, set);
        if view.programs.is_empty() {
            continue;
        }
        if set == "threads" {
            text += "\nPrograms of which two threads allocate at once:\n";
        }
        text +=
            "\nCPU time, median over rounds of the ratio to glibc in the same round (least to greatest):\n\n";
        let show = |point: Point| {
            format!("{} ({}–{})", short(point.value), short(point.least), short(point.greatest))
        };
        text += &view.table(|cell| cell.time, show);
        if set == "threads" {
            text += "\nTime on the clock:\n\n";
            text += &view.table(|cell| cell.wall, show);
        }
        text += "\nPeak resident size:\n\n";
        text += &view.table(|cell| cell.peak, |point| short(point.value));
        text += "\nWhat one run takes:\n\n";
        text += &view.absolute();
    }
    text
}

/// A bar that is longer is cut off.
const CEILING: f64 = 3.0;

/// Time and memory by program. Only the hunters need a logarithmic axis, and `hunt` is not among the others.
pub fn charts(record: &Record<Run>) -> Vec<(&'static str, String)> {
    let mut charts = Vec::new();
    for (set, time, other) in [
        ("speed", "apps-time", "apps-rss"),
        ("threads", "apps-threads-time", "apps-threads-wall"),
        ("hunt", "hunt-time", "hunt-rss"),
    ] {
        let view = View::new(record, set);
        if view.programs.is_empty() {
            continue;
        }
        let is_hunt = set == "hunt";
        let labels: Vec<String> =
            view.programs.iter().map(|name| (*name).to_owned()).chain(["geomean".to_owned()]).collect();
        let graph = |title: &str, pick: fn(&Ratios) -> Point| {
            let heaps = view.heaps.iter().filter(|heap| {
                **heap != "glibc"
                    && (is_hunt || **heap != "fencepost-hunt")
                    && !view.finished(heap, pick).is_empty()
            });
            let series = heaps.map(|heap| {
                let cells = view
                    .programs
                    .iter()
                    .map(|program| view.cell(program, heap).map_or(Point::NONE, |cell| pick(&cell)));
                let mean = geomean(&view.finished(heap, pick)).map_or(Point::NONE, Point::single);
                ((*heap).to_owned(), cells.chain([mean]).collect())
            });
            chart::bars(&chart::Graph {
                title,
                labels: labels.clone(),
                series: series.collect(),
                logarithmic: is_hunt,
                reference: Some(1.0),
                ceiling: Some(CEILING),
            })
        };
        charts.push((time, graph("CPU time as a multiple of glibc", |cell| cell.time)));
        charts.push(match set {
            "threads" => (other, graph("Time on the clock as a multiple of glibc", |cell| cell.wall)),
            _ => (other, graph("Peak resident size as a multiple of glibc", |cell| cell.peak)),
        });
    }
    charts
}
