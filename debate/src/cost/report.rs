//! What the command line says about a migration, a sweep and the calibration: as text and as one JSON document.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::calibration::Calibration;
use super::constants::CONSTANTS;
use super::crossover::Crossover;
use super::inputs::Inputs;
use super::precopy::{Outcome, StopReason};
use super::sweep::{Parameter, Sweep};
use super::units::{Bytes, Nanos, PerMille};
use super::workload::{Pattern, Writer};

/// Adds a line. Writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {
        let _ = writeln!($out, $($arg)*);
    };
}

/// One migration for people, at most 72 columns.
#[must_use]
pub fn outcome_text(inputs: &Inputs, outcome: &Outcome, crossings: &Crossover) -> String {
    let mut out = String::new();
    line!(
        out,
        "{} guest, {} vCPUs, {} Mbit/s, tracked by {}",
        Bytes(inputs.memory_bytes),
        inputs.vcpus,
        inputs.link_bits_per_s / 1_000_000,
        inputs.tracking.name()
    );
    for set in &inputs.working_sets {
        line!(
            out,
            "  {} written at {}/s, {}, {}",
            Bytes(set.bytes),
            Bytes(set.bytes_per_s),
            pattern(set.pattern),
            writer(set.writer)
        );
    }
    line!(out, "");
    line!(
        out,
        "{:>5}  {:>9}  {:>11}  {:>11}  {:>11}  {:>9}",
        "round",
        "pages",
        "collect",
        "clear",
        "send",
        "dirtied"
    );
    for (i, round) in outcome.rounds.iter().enumerate() {
        line!(
            out,
            "{i:>5}  {:>9}  {:>11}  {:>11}  {:>11}  {:>9}",
            round.pages,
            Nanos(round.collect_ns),
            Nanos(round.clear_ns),
            Nanos(round.send_ns),
            round.dirtied
        );
    }
    line!(out, "");
    line!(
        out,
        "pre-copy ended by   {}{}",
        outcome.stop.name(),
        not_converged(outcome.stop)
    );
    line!(out, "total time          {}", Nanos(outcome.total_ns));
    line!(
        out,
        "bytes sent          {} ({})",
        outcome.bytes_sent,
        Bytes(outcome.bytes_sent)
    );
    line!(
        out,
        "vCPU time lost      {} to faults and full rings",
        Nanos(outcome.guest_stall_ns)
    );
    line!(out, "downtime            {}", Nanos(outcome.downtime_ns));
    for (name, ns) in outcome.downtime.parts() {
        line!(out, "  {name:<16}  {}", Nanos(ns));
    }
    line!(out, "");
    line!(
        out,
        "{} pages were left to vCPU records, {} to the final bitmap.",
        outcome.vcpu_pages_left,
        outcome.bitmap_pages_left
    );
    line!(
        out,
        "How many the final bitmap may hold before the downtime is"
    );
    line!(
        out,
        "  beyond its limit                            {}",
        pages(crossings.beyond_limit)
    );
    line!(
        out,
        "  no less than with the bitmap alone          {}  ({})",
        pages(crossings.bitmap_alone),
        Nanos(crossings.bitmap_alone_ns)
    );
    line!(
        out,
        "  no less than by stopping and copying all    {}  ({})",
        pages(crossings.stop_and_copy),
        Nanos(crossings.stop_and_copy_ns)
    );
    out
}

fn not_converged(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Rounds => ": it did not converge",
        _ => "",
    }
}

fn pages(pages: Option<u64>) -> String {
    pages.map_or_else(|| "never".to_owned(), |pages| format!("{pages} pages"))
}

fn pattern(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Random => "random",
        Pattern::Sweep => "sweep",
    }
}

fn writer(writer: Writer) -> &'static str {
    match writer {
        Writer::Vcpu => "vcpu",
        Writer::NonVcpu => "non-vcpu",
    }
}

/// The results of one migration that a sweep repeats.
fn results(outcome: &Outcome) -> Value {
    json!({
        "stop": outcome.stop.name(),
        "rounds": outcome.rounds.len(),
        "total_ns": outcome.total_ns,
        "downtime_ns": outcome.downtime_ns,
        "downtime_parts_ns": parts(outcome),
        "bytes_sent": outcome.bytes_sent,
        "vcpu_pages_left": outcome.vcpu_pages_left,
        "bitmap_pages_left": outcome.bitmap_pages_left,
        "guest_stall_ns": outcome.guest_stall_ns,
    })
}

fn parts(outcome: &Outcome) -> Value {
    outcome
        .downtime
        .parts()
        .iter()
        .map(|(name, ns)| ((*name).to_owned(), json!(ns)))
        .collect()
}

fn inputs_json(inputs: &Inputs) -> Value {
    let sets: Vec<Value> = inputs
        .working_sets
        .iter()
        .map(|set| {
            json!({
                "bytes": set.bytes,
                "bytes_per_s": set.bytes_per_s,
                "pattern": pattern(set.pattern),
                "writer": writer(set.writer),
            })
        })
        .collect();
    json!({
        "memory_bytes": inputs.memory_bytes,
        "link_bits_per_s": inputs.link_bits_per_s,
        "rate_bytes_per_s": inputs.full_rate(),
        "connections": inputs.connections,
        "vcpus": inputs.vcpus,
        "tracking": inputs.tracking.name(),
        "ring_entries": inputs.tracking.ring_entries(),
        "working_sets": sets,
        "device_save_pages": inputs.device_save_pages,
        "downtime_limit_ns": inputs.stop.downtime_limit_ns,
        "rounds_max": inputs.stop.rounds_max,
    })
}

/// One migration as a JSON document.
#[must_use]
pub fn outcome_json(inputs: &Inputs, outcome: &Outcome, crossings: &Crossover) -> Value {
    let mut document = json!({ "command": "cost", "inputs": inputs_json(inputs) });
    merge(&mut document, results(outcome));
    document["rounds"] = outcome
        .rounds
        .iter()
        .map(|round| {
            json!({
                "pages": round.pages,
                "rate_bytes_per_s": round.rate,
                "collect_ns": round.collect_ns,
                "clear_ns": round.clear_ns,
                "send_ns": round.send_ns,
                "dirtied_pages": round.dirtied,
                "expected_copy_ns": round.expected_copy_ns,
                "guest_stall_ns": round.guest_stall_ns,
            })
        })
        .collect();
    document["crossover"] = json!({
        "beyond_limit_pages": crossings.beyond_limit,
        "bitmap_alone_pages": crossings.bitmap_alone,
        "bitmap_alone_ns": crossings.bitmap_alone_ns,
        "stop_and_copy_pages": crossings.stop_and_copy,
        "stop_and_copy_ns": crossings.stop_and_copy_ns,
    });
    document
}

fn merge(document: &mut Value, more: Value) {
    if let (Value::Object(document), Value::Object(more)) = (document, more) {
        document.extend(more);
    }
}

/// Values of the parameters that were varied, and what came of them.
type Point = (Vec<u64>, Outcome);

/// A sweep, of one parameter or two, for people.
#[must_use]
pub fn sweep_text(sweeps: &[Sweep], rows: &[Point]) -> String {
    let mut out = String::new();
    let cells = |values: &[String]| -> String {
        values
            .iter()
            .map(|value| format!("{value:>20}  "))
            .collect()
    };
    let names: Vec<String> = sweeps
        .iter()
        .map(|sweep| format!("{}, {}", sweep.parameter.name(), sweep.parameter.unit()))
        .collect();
    line!(
        out,
        "{}{:>6}  {:>13}  {:>13}  {:>11}",
        cells(&names),
        "rounds",
        "total",
        "downtime",
        "sent"
    );
    for (values, outcome) in rows {
        let values: Vec<String> = values.iter().map(u64::to_string).collect();
        line!(
            out,
            "{}{:>6}  {:>13}  {:>13}  {:>11}{}",
            cells(&values),
            outcome.rounds.len(),
            Nanos(outcome.total_ns),
            Nanos(outcome.downtime_ns),
            Bytes(outcome.bytes_sent),
            if outcome.stop == StopReason::Rounds {
                "  *"
            } else {
                ""
            }
        );
    }
    if rows
        .iter()
        .any(|(_, outcome)| outcome.stop == StopReason::Rounds)
    {
        line!(out, "* did not converge: stopped after all its rounds");
    }
    out
}

/// A sweep as a JSON document: of one parameter each row has its `value`, of two its `values`.
#[must_use]
pub fn sweep_json(inputs: &Inputs, sweeps: &[Sweep], rows: &[Point]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|(values, outcome)| {
            let mut row = match values.as_slice() {
                [value] => json!({ "value": value }),
                values => json!({ "values": values }),
            };
            merge(&mut row, results(outcome));
            row
        })
        .collect();
    let named = |sweep: &Sweep| {
        let parameter: Parameter = sweep.parameter;
        json!({ "parameter": parameter.name(), "unit": parameter.unit() })
    };
    let swept: Value = match sweeps {
        [sweep] => named(sweep),
        sweeps => sweeps.iter().map(named).collect(),
    };
    json!({
        "command": "cost",
        "inputs": inputs_json(inputs),
        "sweep": swept,
        "results": rows,
    })
}

/// A sweep as CSV: a line of names with their units, then a line each. Names and numbers only, so that nothing needs quotes.
#[must_use]
pub fn sweep_csv(sweeps: &[Sweep], rows: &[Point]) -> String {
    let mut out = String::new();
    for sweep in sweeps {
        let unit = sweep.parameter.unit();
        out.push_str(&format!("{} ({unit}),", sweep.parameter.name()));
    }
    line!(
        out,
        "stop,rounds,total_ns,downtime_ns,bytes_sent,guest_stall_ns"
    );
    for (values, outcome) in rows {
        for value in values {
            out.push_str(&format!("{value},"));
        }
        line!(
            out,
            "{},{},{},{},{},{}",
            outcome.stop.name(),
            outcome.rounds.len(),
            outcome.total_ns,
            outcome.downtime_ns,
            outcome.bytes_sent,
            outcome.guest_stall_ns
        );
    }
    out
}

/// The calibration for people: the table, the summary, then each entry's source and inputs.
#[must_use]
pub fn calibration_text(calibration: &Calibration) -> String {
    let mut out = String::new();
    line!(
        out,
        "{:<20}  {:>14}  {:>9}  {:>6}  fitted to it",
        "figure",
        "published",
        "simulated",
        "error"
    );
    for comparison in &calibration.comparisons {
        let entry = comparison.entry;
        line!(
            out,
            "{:<20}  {:>14}  {:>9}  {:>6}  {}",
            entry.name,
            format!("{} {}", entry.published, entry.unit),
            comparison.simulated,
            PerMille(comparison.error_per_mille)
                .to_string()
                .replace(" %", "%"),
            if entry.used_for_fitting { "yes" } else { "no" }
        );
    }
    let judged = calibration
        .comparisons
        .iter()
        .filter(|c| !c.entry.used_for_fitting)
        .count();
    line!(out, "");
    line!(
        out,
        "median error of the {judged} not used for fitting: {}",
        PerMille(calibration.median_error_per_mille)
    );
    line!(
        out,
        "median of those not wholly of assumed inputs:    {}",
        PerMille(calibration.median_error_published_inputs_per_mille)
    );
    for comparison in &calibration.comparisons {
        let entry = comparison.entry;
        line!(out, "");
        line!(out, "{}: {}", entry.name, entry.figure);
        wrapped(&mut out, "source", entry.source);
        wrapped(
            &mut out,
            &format!("inputs {}", entry.inputs_from.name()),
            entry.note,
        );
    }
    line!(out, "");
    line!(out, "constants");
    for constant in CONSTANTS {
        line!(
            out,
            "  {} = {} {}",
            constant.name,
            constant.value,
            constant.unit
        );
        wrapped(&mut out, constant.origin.name(), constant.source);
    }
    out
}

/// `label: text`, broken at blanks into lines of at most 72 columns.
fn wrapped(out: &mut String, label: &str, text: &str) {
    let mut current = format!("    {label}:");
    for word in text.split_whitespace() {
        if current.chars().count() + 1 + word.chars().count() > 72 {
            line!(out, "{current}");
            "     ".clone_into(&mut current);
        }
        current.push(' ');
        current.push_str(word);
    }
    line!(out, "{current}");
}

/// The calibration as a JSON document.
///
/// `error` is the relative error without its sign as a decimal fraction; `error_per_mille` is the integer that it is
/// made of, and the comparison of `published` with `simulated` gives the sign.
#[must_use]
pub fn calibration_json(calibration: &Calibration) -> Value {
    let entries: Vec<Value> = calibration
        .comparisons
        .iter()
        .map(|comparison| {
            let entry = comparison.entry;
            json!({
                "name": entry.name,
                "figure": entry.figure,
                "published": entry.published,
                "simulated": comparison.simulated,
                "unit": entry.unit,
                "error": fraction(comparison.error_per_mille),
                "error_per_mille": comparison.error_per_mille,
                "used_for_fitting": entry.used_for_fitting,
                "inputs": entry.inputs_from.name(),
                "note": entry.note,
                "source": entry.source,
            })
        })
        .collect();
    let constants: Vec<Value> = CONSTANTS
        .iter()
        .map(|constant| {
            json!({
                "name": constant.name,
                "value": constant.value,
                "unit": constant.unit,
                "origin": constant.origin.name(),
                "source": constant.source,
            })
        })
        .collect();
    json!({
        "command": "cost",
        "calibration": entries,
        "median_error": fraction(calibration.median_error_per_mille),
        "median_error_per_mille": calibration.median_error_per_mille,
        "median_error_published_inputs": fraction(calibration.median_error_published_inputs_per_mille),
        "constants": constants,
    })
}

/// Thousandths as a JSON number. The one place where a float appears: a single correctly rounded division of two small
/// integers, which prints the same everywhere.
fn fraction(per_mille: u64) -> Value {
    let exact = u32::try_from(per_mille).unwrap_or(u32::MAX);
    json!(f64::from(exact) / 1000.0)
}
