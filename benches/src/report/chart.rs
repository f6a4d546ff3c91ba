//! Charts of grouped bars over named places, drawn by `plotters` as SVG text. A thin line on a bar goes from the least
//! to the greatest of the rounds.

use crate::heap::{HEAPS, Kind};
use crate::stats::{median, spread};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Values over named places.
pub struct Graph<'a> {
    pub title: &'a str,
    /// The places on the horizontal axis.
    pub labels: Vec<String>,
    /// Name and one point for each place.
    pub series: Vec<(String, Vec<Point>)>,
    pub logarithmic: bool,
    /// A value to draw a line at, where bars begin.
    pub reference: Option<f64>,
    /// Where a linear axis ends at most. A bar that would go on is cut off, and its value written into it.
    pub ceiling: Option<f64>,
}

impl Graph<'_> {
    /// An empty graph, on a linear axis.
    pub const LINEAR: Graph<'static> = Graph {
        title: "",
        labels: Vec::new(),
        series: Vec::new(),
        logarithmic: false,
        reference: None,
        ceiling: None,
    };
}

/// A value and its spread; NaN where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub value: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Point {
    pub const NONE: Self = Self { value: f64::NAN, least: f64::NAN, greatest: f64::NAN };

    /// The median of `values`, and how far they are apart.
    pub fn of(values: &[f64]) -> Self {
        match (median(values), spread(values)) {
            (Some(value), Some((least, greatest))) => Self { value, least, greatest },
            _ => Self::NONE,
        }
    }

    /// A value of which nothing was repeated.
    pub fn single(value: f64) -> Self {
        Self { value, least: value, greatest: value }
    }
}

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 460;
const LEGEND: u32 = 230;
const FONT: &str = "sans-serif";

/// Distinct enough for fifteen columns; fencepost takes the strong first ones after the baseline's grey.
const COLOURS: [RGBColor; 15] = [
    RGBColor(120, 120, 120),
    RGBColor(200, 30, 30),
    RGBColor(240, 130, 40),
    RGBColor(140, 20, 90),
    RGBColor(60, 120, 200),
    RGBColor(20, 60, 140),
    RGBColor(40, 160, 100),
    RGBColor(150, 200, 80),
    RGBColor(0, 160, 170),
    RGBColor(0, 100, 110),
    RGBColor(150, 110, 60),
    RGBColor(90, 60, 30),
    RGBColor(170, 120, 210),
    RGBColor(210, 180, 40),
    RGBColor(240, 120, 180),
];

/// An allocator has the same colour in every chart; the hunters, which never meet the peers, use the peers' ones.
fn colour(name: &str, index: usize) -> RGBColor {
    let place = HEAPS.iter().position(|heap| heap.name == name);
    let hunters = HEAPS.iter().position(|heap| heap.kind == Kind::Hunter).unwrap_or(HEAPS.len());
    let index = match place {
        Some(place) if place >= hunters => place - hunters + 4,
        Some(place) => place,
        None => index,
    };
    COLOURS[index % COLOURS.len()]
}

/// Bars in groups, one group a place.
pub fn bars(graph: &Graph) -> String {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        if let Err(error) = paint(&root, graph) {
            eprintln!("chart {}: {error}", graph.title);
        }
    }
    text
}

type Fallible = Result<(), Box<dyn std::error::Error>>;

fn paint(root: &DrawingArea<SVGBackend, Shift>, graph: &Graph) -> Fallible {
    root.fill(&WHITE)?;
    let (plot, legend) = root.split_horizontally(WIDTH - LEGEND);
    let values = || {
        let points = graph.series.iter().flat_map(|(_, points)| points);
        points.flat_map(|point| [point.least, point.greatest]).filter(|value| value.is_finite())
    };
    let most = values().fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let most = graph.ceiling.filter(|_| !graph.logarithmic).map_or(most, |ceiling| most.min(ceiling));
    let least = values().fold(f64::INFINITY, f64::min);
    if !least.is_finite() {
        return Ok(());
    }
    let bottom = match graph.reference {
        _ if graph.logarithmic => least / 1.3,
        // Bars that begin at the reference may leave out what is far below it.
        Some(reference) => least.min(reference) * 0.9,
        None => 0.0,
    };
    let base = graph.reference.unwrap_or(bottom);
    let places = graph.labels.len() as f64;
    let mut builder = ChartBuilder::on(&plot);
    builder.caption(graph.title, (FONT, 18)).margin(10).x_label_area_size(30).y_label_area_size(60);
    // The two scales are of different types, so the body exists once for each.
    macro_rules! body {
        ($scale:expr) => {{
            let mut chart = builder.build_cartesian_2d(-0.5..places - 0.5, $scale)?;
            let label = |place: &f64| {
                let near = place.round();
                let named = (place - near).abs() < 0.01 && near >= 0.0;
                graph.labels.get(near as usize).filter(|_| named).cloned().unwrap_or_default()
            };
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(WHITE)
                .x_labels(graph.labels.len() * 2 + 1)
                .x_label_formatter(&label)
                .y_label_formatter(&|value| super::short(*value))
                .label_style((FONT, 13))
                .draw()?;
            if let Some(value) = graph.reference {
                chart.draw_series(std::iter::once(PathElement::new(
                    vec![(-0.5, value), (places - 0.5, value)],
                    BLACK.stroke_width(1),
                )))?;
            }
            let wide = 0.84 / graph.series.len().max(1) as f64;
            for (index, (name, points)) in graph.series.iter().enumerate() {
                for (place, point) in points.iter().enumerate().filter(|(_, point)| point.value.is_finite()) {
                    let left = place as f64 - 0.42 + index as f64 * wide;
                    let (top, middle) = (point.value.min(most), left + wide * 0.46);
                    chart.draw_series(std::iter::once(Rectangle::new(
                        [(left, base), (left + wide * 0.92, top)],
                        colour(name, index).filled(),
                    )))?;
                    if point.value > most {
                        let font = (FONT, 11).into_font().transform(FontTransform::Rotate90);
                        let style = font.color(&WHITE).pos(Pos::new(HPos::Left, VPos::Center));
                        let text = Text::new(super::short(point.value), (middle, most), style);
                        chart.draw_series(std::iter::once(text))?;
                    } else if point.least < point.greatest {
                        chart.draw_series(std::iter::once(PathElement::new(
                            vec![(middle, point.least), (middle, point.greatest.min(most))],
                            BLACK.stroke_width(1),
                        )))?;
                    }
                }
            }
        }};
    }
    if graph.logarithmic {
        body!((bottom..most).log_scale());
    } else {
        body!(bottom..most);
    }
    for (index, (name, _)) in graph.series.iter().enumerate() {
        let top = 50 + index as i32 * 22;
        legend.draw(&Rectangle::new([(8, top), (24, top + 12)], colour(name, index).filled()))?;
        legend.draw(&Text::new(name.clone(), (32, top), (FONT, 14).into_font()))?;
    }
    root.present()?;
    Ok(())
}
