//! Small line charts as SVG, drawn with `plotters`.
//!
//! Made to be read in a mail's attachment, in print and by the colour-blind: series differ in stroke and marker first
//! and in shade second, each is labelled at its end instead of in a legend, and both axes name their unit. Text is SVG
//! text; no font library is used, so the viewer's sans-serif draws it.
//!
//! Deterministic: points are integers, the logarithm is computed with integers, and what floats `plotters` uses inside
//! are sums, products and square roots, which IEEE 754 fixes to the last bit.
//!
//! ```
//! use dirtysim_debate::plot::{Axis, Chart, Marker, Scale, Series, Stroke};
//!
//! let chart = Chart {
//!     title: "States explored by bound".into(),
//!     subtitle: "4 pages, 2 vCPUs".into(),
//!     x: Axis::new("stores per vCPU", Scale::Linear, 1, 3),
//!     y: Axis::new("distinct states", Scale::Log, 10, 1_000_000),
//!     series: vec![Series::new("no reduction", vec![(1, 40), (2, 9_000), (3, 700_000)])
//!         .stroke(Stroke::Dashed)
//!         .marker(Marker::Square)],
//!     marks: vec![],
//! };
//! assert!(chart.to_svg()?.starts_with("<svg"));
//! # Ok::<(), dirtysim_debate::plot::PlotError>(())
//! ```

mod draw;
mod scale;

use std::fmt;

pub use scale::{Axis, Scale, grouped};

/// How a series' line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stroke {
    /// An unbroken line.
    #[default]
    Solid,
    /// Long dashes.
    Dashed,
    /// Short dashes.
    Dotted,
    /// No line, markers only.
    None,
}

/// What is drawn at a series' points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marker {
    /// Nothing.
    #[default]
    None,
    /// A filled circle.
    Circle,
    /// An open square.
    Square,
    /// A filled triangle.
    Triangle,
    /// A diagonal cross.
    Cross,
}

/// One line of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The text at the line's end.
    pub label: String,
    /// The points, by ascending x, in the axes' raw units; what lies outside an axis is left out.
    pub points: Vec<(u64, u64)>,
    /// The line.
    pub stroke: Stroke,
    /// The points' marker.
    pub marker: Marker,
}

impl Series {
    /// A solid line without markers.
    #[must_use]
    pub fn new(label: impl Into<String>, points: Vec<(u64, u64)>) -> Self {
        Self {
            label: label.into(),
            points,
            stroke: Stroke::default(),
            marker: Marker::default(),
        }
    }

    /// With this line.
    #[must_use]
    pub fn stroke(self, stroke: Stroke) -> Self {
        Self { stroke, ..self }
    }

    /// With this marker.
    #[must_use]
    pub fn marker(self, marker: Marker) -> Self {
        Self { marker, ..self }
    }
}

/// A point worth naming: a ring around it, and text beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where, in the axes' raw units.
    pub at: (u64, u64),
    /// What it is: one entry a line.
    pub lines: Vec<String>,
    /// On which side the text stands.
    pub side: Side,
}

/// A side of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Left of it, below its height.
    Left,
    /// Right of it, below its height.
    Right,
}

/// A chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// What is shown: one line above the plot.
    pub title: String,
    /// Under which circumstances: a smaller line below the title; may be empty.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines, at most [`SERIES_MAX`].
    pub series: Vec<Series>,
    /// The named points.
    pub marks: Vec<Mark>,
}

/// The most series of one chart: beyond that no reader tells them apart.
pub const SERIES_MAX: usize = 6;

/// Why a chart cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlotError {
    /// An axis is empty, or a logarithmic one begins at zero.
    Axis {
        /// The axis' label.
        label: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There are more series than [`SERIES_MAX`].
    TooManySeries {
        /// How many there are.
        count: usize,
    },
    /// The drawing library refused, with its message.
    Backend(String),
}

impl fmt::Display for PlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Axis { label, why } => write!(f, "axis `{label}`: {why}"),
            Self::TooManySeries { count } => {
                write!(
                    f,
                    "{count} series are too many to tell apart; draw at most {SERIES_MAX}"
                )
            }
            Self::Backend(message) => write!(f, "the chart could not be drawn: {message}"),
        }
    }
}

impl std::error::Error for PlotError {}

impl Chart {
    /// The chart as an SVG document of 900 by 520 pixels.
    ///
    /// # Errors
    /// [`PlotError`].
    pub fn to_svg(&self) -> Result<String, PlotError> {
        self.x.check()?;
        self.y.check()?;
        if self.series.len() > SERIES_MAX {
            return Err(PlotError::TooManySeries {
                count: self.series.len(),
            });
        }
        draw::svg(self).map_err(|error| PlotError::Backend(error.to_string()))
    }
}
