//! The cost model's charts.

use super::crossover::{Crossover, downtime_with};
use super::error::CostError;
use super::inputs::{Inputs, Rearm, Tracking};
use super::precopy::{Outcome, StopReason, simulate};
use super::steps::stop_and_copy;
use super::sweep::{Parameter, Sweep};
use super::units::{MS, SECOND};
use super::workload::Writer;
use crate::plot::{Axis, Chart, Mark, Marker, SERIES_MAX, Scale, Series, Side, Stroke, grouped};

/// Steps from nothing to the highest dirty rate.
const POINTS: u64 = 25;

/// Downtime against the pages left to the final bitmap, with the alternatives that it crosses.
///
/// # Errors
/// [`CostError`], if a downtime overflows.
pub fn downtime_chart(
    inputs: &Inputs,
    outcome: &Outcome,
    crossings: &Crossover,
) -> Result<Chart, CostError> {
    let memory = inputs.memory_pages();
    let from = memory.min(100);
    // Evenly spaced to the eye on a logarithmic axis: two values in each doubling.
    let mut pages: Vec<u64> = (0..40u32)
        .flat_map(|power| [1u64 << power, (3u64 << power) / 2])
        .filter(|pages| (from..memory).contains(pages))
        .collect();
    pages.extend([from, memory]);
    pages.sort_unstable();
    pages.dedup();
    let line = pages
        .iter()
        .map(|&pages| Ok((pages, downtime_with(inputs, outcome, pages)?)))
        .collect::<Result<Vec<_>, CostError>>()?;
    let level = |ns: u64| vec![(from, ns), (memory, ns)];
    let mut series = vec![
        Series::new("with the final bitmap", line.clone()),
        Series::new(
            "stop and copy everything",
            level(crossings.stop_and_copy_ns),
        )
        .stroke(Stroke::Dashed),
        Series::new("the bitmap alone", level(crossings.bitmap_alone_ns)).stroke(Stroke::Dotted),
    ];
    let mut marks = Vec::new();
    if let Some(limit) = inputs.stop.downtime_limit_ns {
        let ends = level(limit).into_iter();
        series.push(Series::new("downtime limit", ends.collect()).marker(Marker::Triangle));
        marks.extend(mark(
            crossings.beyond_limit,
            limit,
            "beyond the limit from",
            Side::Right,
        ));
    }
    marks.extend(mark(
        crossings.stop_and_copy,
        crossings.stop_and_copy_ns,
        "as bad as stop and copy",
        Side::Left,
    ));
    let heights = series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| point.1));
    let (low, high) = heights.fold((u64::MAX, 1), |(low, high), ns| (low.min(ns), high.max(ns)));
    Ok(Chart {
        title: "Downtime against the pages left to the final bitmap".into(),
        subtitle: describe(inputs),
        x: Axis::new(
            "pages that only the final bitmap holds",
            Scale::Log,
            from,
            memory + memory / 3,
        ),
        y: Axis::new(
            "downtime, s",
            Scale::Log,
            (low / 2).max(1),
            high.saturating_mul(2),
        )
        .divided_by(SECOND),
        series,
        marks,
    })
}

fn mark(pages: Option<u64>, ns: u64, what: &str, side: Side) -> Option<Mark> {
    let pages = pages?;
    Some(Mark {
        at: (pages, ns),
        lines: vec![what.to_owned(), format!("{} pages", grouped(pages))],
        side,
    })
}

/// Total time against the rate at which the first vCPU working set is written, for each way of tracking. A line ends
/// where pre-copy no longer converges.
///
/// # Errors
/// [`CostError`], if a rate up to `rate_max` cannot be simulated.
pub fn total_time_chart(inputs: &Inputs, rate_max: u64) -> Result<Chart, CostError> {
    let at_once = stop_and_copy(inputs)?.total_ns()?;
    let entries = inputs.tracking.ring_entries().unwrap_or(4096);
    let outside = inputs.device_save_pages > 0
        || inputs
            .working_sets
            .iter()
            .any(|set| set.writer == Writer::NonVcpu);
    let ring = if outside {
        Tracking::RingWithBitmap { entries }
    } else {
        Tracking::Ring { entries }
    };
    let ways = [
        (
            ring,
            "ring: RESET re-arms at once",
            Stroke::Solid,
            Marker::Circle,
        ),
        (
            Tracking::Bitmap(Rearm::Get),
            "bitmap: GET re-arms at once",
            Stroke::Dashed,
            Marker::Square,
        ),
        (
            Tracking::Bitmap(Rearm::Clear),
            "bitmap: CLEAR before sending",
            Stroke::Dotted,
            Marker::Triangle,
        ),
        (
            Tracking::Bitmap(Rearm::ClearInitiallySet),
            "the same, initially set",
            Stroke::Solid,
            Marker::Cross,
        ),
    ];
    let mut series = Vec::new();
    for (tracking, label, stroke, marker) in ways {
        let mut points = Vec::new();
        for i in 0..=POINTS {
            let rate = u64::try_from(u128::from(rate_max) * u128::from(i) / u128::from(POINTS))
                .unwrap_or(rate_max);
            let mut inputs = Inputs {
                tracking,
                ..inputs.clone()
            };
            Parameter::DirtyRate.set(&mut inputs, rate);
            let outcome = simulate(&inputs)?;
            if outcome.stop == StopReason::Rounds {
                break;
            }
            points.push((rate, outcome.total_ns));
        }
        series.push(Series::new(label, points).stroke(stroke).marker(marker));
    }
    series.push(
        Series::new(
            "stop and copy everything",
            vec![(0, at_once), (rate_max, at_once)],
        )
        .stroke(Stroke::Dashed),
    );
    let high = series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| point.1))
        .max()
        .unwrap_or(1);
    Ok(Chart {
        title: "Total time against the dirty rate, by what is tracked with".into(),
        subtitle: format!(
            "{}; a line that ends early no longer converges",
            describe(inputs)
        ),
        x: Axis::new(
            "pages written by the guest, MB/s",
            Scale::Linear,
            0,
            rate_max,
        )
        .divided_by(1_000_000),
        y: Axis::new(
            "total migration time, s",
            Scale::Linear,
            0,
            high + high / 10,
        )
        .divided_by(SECOND),
        series,
        marks: Vec::new(),
    })
}

/// Downtime, and total time, against the first parameter of a sweep; of two a line for each value of the second.
///
/// # Errors
/// More values of the second than a chart has lines for.
pub fn sweep_charts(
    inputs: &Inputs,
    sweeps: &[Sweep],
    rows: &[(Vec<u64>, Outcome)],
) -> Result<Vec<(&'static str, Chart)>, CostError> {
    let [first, rest @ ..] = sweeps else {
        return Ok(Vec::new());
    };
    let lines: Vec<Option<u64>> = match rest {
        [] => vec![None],
        [second, ..] => second.values().into_iter().map(Some).collect(),
    };
    if let (Some(second), true) = (rest.first(), lines.len() > SERIES_MAX) {
        return Err(CostError::Sweep {
            text: second.parameter.name().to_owned(),
            why: format!(
                "{} values; a plot has a line for each of the second parameter's, at most {SERIES_MAX}",
                lines.len()
            ),
        });
    }
    let strokes = [Stroke::Solid, Stroke::Dashed, Stroke::Dotted];
    let markers = [
        Marker::Circle,
        Marker::Square,
        Marker::Triangle,
        Marker::Cross,
    ];
    let chart = |what: &str, label: &str, of: &dyn Fn(&Outcome) -> u64| {
        let series: Vec<Series> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| {
                let points = rows
                    .iter()
                    .filter(|(values, _)| values.get(1).copied() == *line)
                    .map(|(values, outcome)| (values[0], of(outcome)));
                let name = match (line, rest.first()) {
                    (Some(value), Some(second)) => {
                        let (divisor, unit) = second.parameter.shown();
                        format!(
                            "{} {} {unit}",
                            second.parameter.name(),
                            grouped(value / divisor)
                        )
                    }
                    _ => what.to_owned(),
                };
                Series::new(name.trim_end(), points.collect())
                    .stroke(strokes[n % strokes.len()])
                    .marker(markers[n % markers.len()])
            })
            .collect();
        let high = rows
            .iter()
            .map(|(_, outcome)| of(outcome))
            .max()
            .unwrap_or(1);
        let values = first.values();
        let (from, to) = (values[0], values[values.len() - 1]);
        let (divisor, unit) = first.parameter.shown();
        let x = format!("{}, {unit}", first.parameter.name());
        Chart {
            title: format!("{what} against {}", first.parameter.name()),
            subtitle: format!("{}, but for what is varied", describe(inputs)),
            x: Axis::new(x.trim_end_matches(", "), Scale::Linear, from, to).divided_by(divisor),
            y: Axis::new(label, Scale::Linear, 0, (high + high / 10).max(1)).divided_by(MS),
            series,
            marks: Vec::new(),
        }
    };
    Ok(vec![
        (
            "sweep-downtime.svg",
            chart("downtime", "downtime, ms", &|o| o.downtime_ns),
        ),
        (
            "sweep-total-time.svg",
            chart("total time", "total migration time, ms", &|o| o.total_ns),
        ),
    ])
}

fn describe(inputs: &Inputs) -> String {
    let limit = inputs
        .stop
        .downtime_limit_ns
        .map_or_else(String::new, |ns| format!(", limit {} ms", ns / MS));
    format!(
        "{} GiB guest, {} vCPUs, {} Gbit/s{limit}",
        inputs.memory_bytes >> 30,
        inputs.vcpus,
        inputs.link_bits_per_s / 1_000_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::super::crossover::crossover;
    use super::*;

    #[test]
    fn charts_are_the_same_bytes_every_time() {
        let inputs = Inputs::default();
        let outcome = simulate(&inputs).unwrap();
        let crossings = crossover(&inputs, &outcome).unwrap();
        let draw = || {
            let downtime = downtime_chart(&inputs, &outcome, &crossings)
                .unwrap()
                .to_svg()
                .unwrap();
            let total = total_time_chart(&inputs, 1_000_000_000)
                .unwrap()
                .to_svg()
                .unwrap();
            (downtime, total)
        };
        let (downtime, total) = draw();
        assert_eq!((downtime.clone(), total.clone()), draw());
        assert!(downtime.contains("downtime, s") && downtime.contains("as bad as stop and copy"));
        assert!(total.contains("total migration time, s"));
    }
}
