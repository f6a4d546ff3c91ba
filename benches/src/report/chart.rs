//! Two kinds of chart, drawn by `plotters` as SVG text: grouped bars and lines over named places.

use crate::heap::{HEAPS, Kind};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Values over named places.
pub struct Graph<'a> {
    pub title: &'a str,
    /// The places on the horizontal axis.
    pub labels: Vec<String>,
    /// Name and one value for each place; NaN where there is none.
    pub series: Vec<(String, Vec<f64>)>,
    pub logarithmic: bool,
    /// A value to draw a line at.
    pub reference: Option<f64>,
}

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 460;
const LEGEND: u32 = 230;
const FONT: &str = "sans-serif";

/// Distinct enough for fourteen columns; fencepost takes the strong first ones after the baseline's grey.
const COLOURS: [RGBColor; 14] = [
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
    draw(graph, true)
}

/// One line a series.
pub fn lines(graph: &Graph) -> String {
    draw(graph, false)
}

fn draw(graph: &Graph, as_bars: bool) -> String {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        if let Err(error) = paint(&root, graph, as_bars) {
            eprintln!("chart {}: {error}", graph.title);
        }
    }
    text
}

type Fallible = Result<(), Box<dyn std::error::Error>>;

fn paint(root: &DrawingArea<SVGBackend, Shift>, graph: &Graph, as_bars: bool) -> Fallible {
    root.fill(&WHITE)?;
    let (plot, legend) = root.split_horizontally(WIDTH - LEGEND);
    let values = || {
        graph.series.iter().flat_map(|(_, points)| points.iter().copied()).filter(|value| value.is_finite())
    };
    let most = values().fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let least = values().fold(f64::INFINITY, f64::min);
    let bottom = if graph.logarithmic { least / 1.3 } else { 0.0 };
    if !least.is_finite() {
        return Ok(());
    }
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
                let solid = points.iter().enumerate().filter(|(_, value)| value.is_finite());
                if as_bars {
                    chart.draw_series(solid.map(|(place, value)| {
                        let left = place as f64 - 0.42 + index as f64 * wide;
                        Rectangle::new(
                            [(left, base), (left + wide * 0.92, *value)],
                            colour(name, index).filled(),
                        )
                    }))?;
                } else {
                    let path: Vec<(f64, f64)> = solid.map(|(place, value)| (place as f64, *value)).collect();
                    chart.draw_series(
                        path.iter().map(|point| Circle::new(*point, 3, colour(name, index).filled())),
                    )?;
                    chart.draw_series(LineSeries::new(path, colour(name, index).stroke_width(2)))?;
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
