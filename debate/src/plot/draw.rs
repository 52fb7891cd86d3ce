//! Drawing a chart with plotters' SVG back end.

use std::error::Error;

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::scale::{Axis, SPAN};
use super::{Chart, Mark, Marker, Series, Side, Stroke};

const SIZE: (u32, u32) = (900, 520);
/// Pixels right of the plot, for the series' labels.
const LABEL_WIDTH: i32 = 215;
/// The least distance between two labels' base lines, in pixels.
const LABEL_HEIGHT: i32 = 18;
const FONT: &str = "sans-serif";

/// Shades that stay apart in grey and for the colour-blind (after Okabe and Ito), darkest first.
const SHADES: [RGBColor; super::SERIES_MAX] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 90, 160),
    RGBColor(200, 80, 0),
    RGBColor(0, 130, 95),
    RGBColor(150, 70, 130),
    RGBColor(110, 110, 110),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticks, Ticks>>;

pub(super) fn svg(chart: &Chart) -> Result<String> {
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let title = (FONT, 19).into_font().color(&BLACK);
        root.draw(&Text::new(chart.title.clone(), (16, 12), title))?;
        let subtitle = (FONT, 14).into_font().color(&SHADES[5]);
        root.draw(&Text::new(chart.subtitle.clone(), (16, 37), subtitle))?;
        let mut context = ChartBuilder::on(&root)
            .margin(12)
            .margin_top(62)
            .margin_right(LABEL_WIDTH)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(Ticks::of(&chart.x), Ticks::of(&chart.y))?;
        context
            .configure_mesh()
            .x_desc(&chart.x.label)
            .y_desc(&chart.y.label)
            .axis_desc_style((FONT, 15))
            .label_style((FONT, 13))
            .x_labels(20)
            .y_labels(20)
            .bold_line_style(RGBColor(225, 225, 225))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let mut ends = Vec::new();
        for (series, shade) in chart.series.iter().zip(SHADES) {
            let points = positions(chart, &series.points);
            draw_series(&mut context, series, &points, shade)?;
            if let Some(last) = points.last() {
                ends.push((context.backend_coord(last), series.label.as_str(), shade));
            }
        }
        draw_end_labels(&root, ends)?;
        for mark in &chart.marks {
            if let [at] = positions(chart, &[mark.at])[..] {
                draw_mark(&root, context.backend_coord(&at), mark)?;
            }
        }
        root.present()?;
    }
    Ok(out)
}

/// An axis in plotters' terms: positions from 0 to [`SPAN`], with a label at each tick.
struct Ticks(Vec<(i32, String)>);

impl Ticks {
    fn of(axis: &Axis) -> Self {
        let ticks = axis.ticks().into_iter();
        Self(
            ticks
                .filter_map(|tick| Some((axis.position(tick)?, axis.tick_label(tick))))
                .collect(),
        )
    }
}

impl Ranged for Ticks {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i32;

    fn map(&self, value: &i32, limit: (i32, i32)) -> i32 {
        let pixels = i64::from(limit.1 - limit.0);
        let offset = i64::from(*value) * pixels / i64::from(SPAN);
        // The offset lies between 0 and the pixels between the limits.
        limit.0 + offset as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<i32> {
        self.0.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<i32> {
        0..SPAN
    }
}

impl ValueFormatter<i32> for Ticks {
    fn format_ext(&self, value: &i32) -> String {
        self.0
            .iter()
            .find(|(at, _)| at == value)
            .map_or_else(String::new, |(_, label)| label.clone())
    }
}

fn positions(chart: &Chart, points: &[(u64, u64)]) -> Vec<(i32, i32)> {
    points
        .iter()
        .filter_map(|&(x, y)| Some((chart.x.position(x)?, chart.y.position(y)?)))
        .collect()
}

fn draw_series(
    context: &mut Context<'_, '_>,
    series: &Series,
    points: &[(i32, i32)],
    shade: RGBColor,
) -> Result<()> {
    let line = shade.stroke_width(2);
    match series.stroke {
        Stroke::Solid => {
            context.draw_series([PathElement::new(points.to_vec(), line)])?;
        }
        Stroke::Dashed => {
            context.draw_series([DashedPathElement::new(points.to_vec(), 12, 6, line)])?;
        }
        Stroke::Dotted => {
            context.draw_series([DashedPathElement::new(points.to_vec(), 3, 5, line)])?;
        }
        Stroke::None => {}
    }
    let points = points.iter().copied();
    match series.marker {
        Marker::None => {}
        Marker::Circle => {
            context.draw_series(points.map(|at| Circle::new(at, 4, shade.filled())))?;
        }
        Marker::Square => {
            let square = |at| {
                EmptyElement::at(at) + Rectangle::new([(-4, -4), (4, 4)], shade.stroke_width(2))
            };
            context.draw_series(points.map(square))?;
        }
        Marker::Triangle => {
            context.draw_series(points.map(|at| TriangleMarker::new(at, 6, shade.filled())))?;
        }
        Marker::Cross => {
            context.draw_series(points.map(|at| Cross::new(at, 4, shade.stroke_width(2))))?;
        }
    }
    Ok(())
}

/// Writes each label beside its line's end, moved apart where two ends are close, with a thin leader.
fn draw_end_labels(root: &Area<'_>, mut ends: Vec<((i32, i32), &str, RGBColor)>) -> Result<()> {
    // A stable order: by height, then as the series come.
    ends.sort_by_key(|((_, y), ..)| *y);
    let column = SIZE.0 as i32 - LABEL_WIDTH + 18;
    let mut heights: Vec<i32> = ends.iter().map(|((_, y), ..)| *y).collect();
    for i in 1..heights.len() {
        heights[i] = heights[i].max(heights[i - 1] + LABEL_HEIGHT);
    }
    let lowest = SIZE.1 as i32 - 64;
    for i in (0..heights.len()).rev() {
        let below = heights
            .get(i + 1)
            .map_or(lowest, |next| next - LABEL_HEIGHT);
        heights[i] = heights[i].min(below);
    }
    for ((end, label, shade), y) in ends.into_iter().zip(heights) {
        root.draw(&PathElement::new(
            vec![end, (column - 4, y)],
            shade.mix(0.5).stroke_width(1),
        ))?;
        root.draw(&Text::new(
            label.to_owned(),
            (column, y),
            text(shade, HPos::Left),
        ))?;
    }
    Ok(())
}

fn draw_mark(root: &Area<'_>, at: (i32, i32), mark: &Mark) -> Result<()> {
    root.draw(&Circle::new(at, 7, BLACK.stroke_width(2)))?;
    let (x, anchor) = match mark.side {
        // Clear of a line that climbs to the mark from the left.
        Side::Left => (at.0 - 44, HPos::Right),
        Side::Right => (at.0 + 14, HPos::Left),
    };
    for (line, y) in mark.lines.iter().zip((at.1 + 14..).step_by(17)) {
        root.draw(&Text::new(line.clone(), (x, y), text(BLACK, anchor)))?;
    }
    Ok(())
}

fn text(shade: RGBColor, anchor: HPos) -> TextStyle<'static> {
    (FONT, 14)
        .into_font()
        .color(&shade)
        .pos(Pos::new(anchor, VPos::Center))
}
