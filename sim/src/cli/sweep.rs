//! `dirtysim check --over`: one scenario on many machines, as a table, as CSV and as a plot.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value};

use super::axes::{Axis, Machine, keys, machines, on, words};
use super::check_args::CheckArgs;
use super::coverage::coverage_words;
use super::report::grouped;
use super::spinner::Spinner;
use super::{CliError, CliResult, Report, Verdict, interrupted};
use crate::plot::{self, Chart, Marker, Scale, Series, Stroke};
use crate::scenario::Scenario;
use crate::search::{self, Options};
use crate::trace::PendingFile;

/// What a search on a machine came to; none where the machine was refused, which says why.
type Searched = Result<search::Report, String>;

pub(super) fn run(args: &CheckArgs, scenarios: &[Scenario], options: &Options) -> CliResult {
    let [scenario] = scenarios else {
        return Err(CliError(
            "--over takes one scenario through many machines\nhelp: name one scenario".to_owned(),
        ));
    };
    let all = machines(&args.over)?;
    if args.plot.is_some() {
        drawable(&args.over)?;
    }
    // What is told is how large it is and whether it holds: `check` without --over shows how it breaks.
    let options = Options {
        counterexample: false,
        ..*options
    };
    let mut rows: Vec<(&Machine, Searched)> = Vec::new();
    let mut report = Report {
        command: "check",
        ..Report::default()
    };
    for machine in &all {
        if interrupted() {
            report.cut = true;
            break;
        }
        let searched = on(scenario, machine).and_then(|mut on_it| {
            // The claim that it is about is looked for on each.
            on_it.expect = scenario.expect;
            let scenario = on_it;
            let wide = args
                .any_number
                .then(|| scenario.widened())
                .flatten()
                .map(|wide| wide.scenario);
            let scenario = wide.unwrap_or(scenario);
            let spinner = Spinner::new(&words(machine), Instant::now(), &options);
            search::check(&scenario, &options, &|progress| {
                spinner.show(progress);
                !interrupted()
            })
            .map_err(|error| error.to_string())
        });
        if let Ok(found) = &searched {
            report.cut |= Verdict::from(found.verdict) == Verdict::Inconclusive;
        }
        rows.push((machine, searched));
    }
    report
        .extra
        .insert("scenario".into(), scenario.name.clone().into());
    let results: Vec<Value> = rows
        .iter()
        .map(|(machine, row)| document(machine, row))
        .collect();
    report.extra.insert("results".into(), results.into());
    report.tail = table(scenario, &rows);
    if let Some(path) = &args.csv {
        write(path, &csv(&args.over, &rows))?;
        report.tail.push_str(&format!("{}\n", path.display()));
    }
    if let Some(path) = &args.plot {
        let svg = chart(scenario, &args.over, &rows).to_svg()?;
        write(path, &svg)?;
        report.tail.push_str(&format!("{}\n", path.display()));
    }
    Ok(report)
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let cannot =
        |error: std::io::Error| CliError(format!("{}: cannot be written: {error}", path.display()));
    let mut out = PendingFile::create(path).map_err(cannot)?;
    out.write_all(text.as_bytes()).map_err(cannot)?;
    out.keep().map_err(cannot)
}

/// The verdict in words, and how it was come by.
fn verdict(found: &search::Report) -> (String, String) {
    let name = Verdict::from(found.verdict).name();
    let verdict = match &found.violation {
        Some(violation) => format!("{name} ({})", violation.invariant.name()),
        None => name.to_owned(),
    };
    let (coverage, limit) = coverage_words(found.coverage);
    let by = limit.map_or(String::new(), |limit| format!(" by {limit}"));
    (verdict, format!("{coverage}{by}"))
}

fn document(machine: &Machine, row: &Searched) -> Value {
    let mut json = Map::new();
    json.insert("machine".into(), keys(machine));
    match row {
        Err(why) => {
            json.insert("refused".into(), why.clone().into());
        }
        Ok(found) => {
            let (coverage, limit) = coverage_words(found.coverage);
            json.insert("verdict".into(), Verdict::from(found.verdict).name().into());
            if let Some(violation) = &found.violation {
                json.insert("invariant".into(), violation.invariant.name().into());
            }
            json.insert("coverage".into(), coverage.into());
            if let Some(limit) = limit {
                json.insert("limit".into(), limit.into());
            }
            json.insert("states".into(), found.states.into());
            json.insert("transitions".into(), found.transitions.into());
            json.insert("depth".into(), found.depth.into());
        }
    }
    json.into()
}

fn table(scenario: &Scenario, rows: &[(&Machine, Searched)]) -> String {
    let mut text = format!("{}: {}\n", scenario.name, scenario.sentence);
    let cells: Vec<(String, String, String)> = rows
        .iter()
        .map(|(machine, row)| match row {
            Err(why) => (words(machine), format!("refused: {why}"), String::new()),
            Ok(found) => {
                let (verdict, coverage) = verdict(found);
                let size = format!(
                    "{coverage}: {} states, {} transitions, depth {}",
                    grouped(found.states),
                    grouped(found.transitions),
                    found.depth
                );
                (words(machine), verdict, size)
            }
        })
        .collect();
    let wide = |of: &dyn Fn(&(String, String, String)) -> usize| cells.iter().map(of).max();
    let machine = wide(&|row| row.0.chars().count()).unwrap_or(0);
    let verdict = wide(&|row| row.1.chars().count() * usize::from(!row.2.is_empty())).unwrap_or(0);
    for (words, said, size) in &cells {
        let line = format!("  {words:<machine$}  {said:<verdict$}  {size}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A line of names, then a line a machine. Why a machine was refused is a sentence, and stands in quotes.
fn csv(axes: &[Axis], rows: &[(&Machine, Searched)]) -> String {
    let mut text = String::new();
    for axis in axes {
        text.push_str(&format!("{},", axis.key));
    }
    text.push_str("verdict,invariant,coverage,states,transitions,depth,refused\n");
    for (machine, row) in rows {
        for (_, value) in *machine {
            text.push_str(&format!("{value},"));
        }
        match row {
            Err(why) => text.push_str(&format!(",,,,,,\"{}\"\n", why.replace('"', "\"\""))),
            Ok(found) => {
                let broken = found.violation.as_ref().map(|v| v.invariant.name());
                text.push_str(&format!(
                    "{},{},{},{},{},{},\n",
                    Verdict::from(found.verdict).name(),
                    broken.unwrap_or_default(),
                    coverage_words(found.coverage).0,
                    found.states,
                    found.transitions,
                    found.depth
                ));
            }
        }
    }
    text
}

/// Whether that can be drawn: numbers along the first axis, and few lines.
fn drawable(axes: &[Axis]) -> Result<(), CliError> {
    let lines: usize = axes.iter().skip(1).map(|axis| axis.values.len()).product();
    let numbers = axes[0]
        .values
        .iter()
        .all(|value| value.parse::<u64>().is_ok());
    if !numbers || axes[0].values.len() < 2 {
        return Err(CliError(format!(
            "--plot: {} is no axis to draw along\nhelp: begin --over with two numbers or more: vcpus=1..3",
            axes[0].key
        )));
    }
    if lines > plot::SERIES_MAX {
        return Err(CliError(format!(
            "--plot: {lines} lines, one for each value of the other axes; at most {} can be told apart\nhelp: leave values out, or --plot away",
            plot::SERIES_MAX
        )));
    }
    Ok(())
}

/// States against the first axis, a line for the others' values. A machine that was refused has no point, nor has one whose search was cut.
fn chart(scenario: &Scenario, axes: &[Axis], rows: &[(&Machine, Searched)]) -> Chart {
    const STROKES: [Stroke; 3] = [Stroke::Solid, Stroke::Dashed, Stroke::Dotted];
    const MARKERS: [Marker; 4] = [
        Marker::Circle,
        Marker::Square,
        Marker::Triangle,
        Marker::Cross,
    ];
    let along = |machine: &Machine| {
        machine
            .first()
            .and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let whole = |row: &Searched| match row {
        Ok(found) if Verdict::from(found.verdict) != Verdict::Inconclusive => Some(found.states),
        _ => None,
    };
    let mut lines: Vec<(String, Vec<(u64, u64)>)> = Vec::new();
    for (machine, row) in rows {
        let name = match &machine[1..] {
            [] => "states".to_owned(),
            others => words(others),
        };
        let point = along(machine).zip(whole(row));
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.extend(point),
            None => lines.push((name, point.into_iter().collect())),
        }
    }
    let numbers: Vec<u64> = rows
        .iter()
        .filter_map(|(machine, _)| along(machine))
        .collect();
    let states: Vec<u64> = rows.iter().filter_map(|(_, row)| whole(row)).collect();
    let (from, to) = (
        numbers.iter().min().copied().unwrap_or(0),
        numbers.iter().max().copied().unwrap_or(1),
    );
    let (low, high) = (
        states.iter().min().copied().unwrap_or(1).max(2) / 2,
        states.iter().max().copied().unwrap_or(1).saturating_mul(2),
    );
    let series = lines.into_iter().enumerate().map(|(n, (name, points))| {
        Series::new(name, points)
            .stroke(STROKES[n % STROKES.len()])
            .marker(MARKERS[n % MARKERS.len()])
    });
    Chart {
        title: format!("{}: states by {}", scenario.name, axes[0].key),
        subtitle: "distinct states of a whole search".to_owned(),
        x: plot::Axis::new(axes[0].key, Scale::Linear, from, to.max(from + 1)),
        y: plot::Axis::new("distinct states", Scale::Log, low, high.max(low + 1)),
        series: series.collect(),
        marks: Vec::new(),
    }
}
