//! The figures: downtime against the pages left to the bitmap, total time against the dirty rate, states by bound.

use super::claim::{Case, Outcome};
use super::decide::{self, Found};
use super::expand::{Mode, On};
use crate::cost::units::{Bytes, Nanos};
use crate::cost::{Inputs, crossover, downtime_chart, simulate, total_time_chart};
use crate::plot::{Axis, Chart, Marker, Scale, Series, Stroke, grouped};

/// A figure in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// What it comes to, in a sentence or two.
    pub text: String,
    /// Whether the curve crosses stop-and-copy within the guest's memory.
    pub crosses: bool,
    /// The command that gives it.
    pub command: String,
}

/// The figure of that name.
///
/// # Errors
/// A name that there is not, or a cost that cannot be computed.
pub fn figure(name: &str) -> Result<Figure, String> {
    if name != "crossover" {
        return Err(format!("no figure `{name}`"));
    }
    let inputs = Inputs::default();
    let outcome = simulate(&inputs).map_err(|e| e.to_string())?;
    let found = crossover(&inputs, &outcome).map_err(|e| e.to_string())?;
    let page_bytes = inputs.memory_bytes / inputs.memory_pages();
    let pages = |count: Option<u64>| match count {
        Some(count) => format!("{} pages ({})", grouped(count), Bytes(count * page_bytes)),
        None => "no number of pages".into(),
    };
    let limit = inputs
        .stop
        .downtime_limit_ns
        .map_or_else(String::new, |ns| {
            format!(
                "the limit of {} is exceeded from {} on, ",
                Nanos(ns),
                pages(found.beyond_limit)
            )
        });
    Ok(Figure {
        text: format!(
            "Guest of {}, {} vCPUs, {} Gbit/s: {limit}the bitmap alone would have stopped the guest no longer from {} on ({}), and stop-and-copy is as good from {} on ({}).",
            Bytes(inputs.memory_bytes),
            inputs.vcpus,
            inputs.link_bits_per_s / 1_000_000_000,
            pages(found.bitmap_alone),
            Nanos(found.bitmap_alone_ns),
            pages(found.stop_and_copy),
            Nanos(found.stop_and_copy_ns),
        ),
        crosses: found.stop_and_copy.is_some(),
        command: "dirtysim cost".into(),
    })
}

/// A plot of the report.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Its file's name, without the extension.
    pub name: &'static str,
    /// What it shows.
    pub caption: String,
    /// The command that gives its numbers.
    pub command: String,
    /// The drawing.
    pub svg: String,
}

/// Rates of the total-time plot go up to this, in bytes a second.
const RATE_MAX: u64 = 1_000_000_000;

/// The report's plots.
///
/// # Errors
/// What cannot be computed or drawn.
pub fn plots(bounds: &[Bound]) -> Result<Vec<Plot>, String> {
    let inputs = Inputs::default();
    let outcome = simulate(&inputs).map_err(|e| e.to_string())?;
    let found = crossover(&inputs, &outcome).map_err(|e| e.to_string())?;
    let svg = |chart: &Chart| chart.to_svg().map_err(|e| e.to_string());
    let downtime = downtime_chart(&inputs, &outcome, &found).map_err(|e| e.to_string())?;
    let total = total_time_chart(&inputs, RATE_MAX).map_err(|e| e.to_string())?;
    Ok(vec![
        Plot {
            name: "downtime",
            caption: "What the pages left to the final bitmap cost, and where stopping the guest at once is as good.".into(),
            command: "dirtysim cost --plot DIR".into(),
            svg: svg(&downtime)?,
        },
        Plot {
            name: "total-time",
            caption: "How long the whole migration takes, by how fast the guest writes and what tracks it.".into(),
            command: "dirtysim cost --plot DIR".into(),
            svg: svg(&total)?,
        },
        Plot {
            name: "states",
            caption: "How many states the search visits for C1's order, by the bounds: each search was exhausted, and no page is lost.".into(),
            command: "dirtysim check scenarios/bound-*.toml".into(),
            svg: svg(&states_chart(bounds))?,
        },
    ])
}

/// One bound at which C1's order was decided.
#[derive(Debug, Clone)]
pub struct Bound {
    /// vCPUs.
    pub vcpus: u64,
    /// Stores of each.
    pub stores: u64,
    /// Distinct states.
    pub states: u64,
    /// The scenario's name.
    pub name: String,
    /// The scenario.
    pub text: String,
}

/// Bounds of the states plot: vCPUs, and the most stores of each.
const BOUNDS: [(u64, u64); 3] = [(1, 6), (2, 3), (3, 1)];

/// Decides C1's order (one page more is written by the ITS) at growing bounds.
///
/// # Errors
/// A bound at which it does not hold, or is not exhausted.
pub fn bounds(go_on: &(dyn Fn() -> bool + Sync)) -> Result<Vec<Bound>, String> {
    let on = On {
        arch: "arm64",
        mode: Mode::RingWithBitmap,
        protect: "legacy",
    };
    let mut all = Vec::new();
    for (vcpus, most) in BOUNDS {
        for stores in 1..=most {
            let (text, scenario) = super::expand::scenario("bound", &case(vcpus, stores), &on)?;
            let decision = decide::decide(&scenario, &[], go_on)?;
            if decision.found != Found::Holds {
                return Err(format!("{}: not exhausted", scenario.name));
            }
            all.push(Bound {
                vcpus,
                stores,
                states: decision.states,
                name: scenario.name,
                text,
            });
        }
    }
    Ok(all)
}

fn case(vcpus: u64, stores: u64) -> Case {
    let text = format!(
        "name = \"{vcpus}-vcpus-{stores}-stores\"\n\
         sentence = \"C1's order with {vcpus} vCPUs of {stores} stores each.\"\n\
         on = []\nsays = \"holds\"\nvcpus = {vcpus}\nstores = {stores}\npages = 2\n\
         steps = [\"START\", \"STOP\", {{ step = \"its-save-tables\", pages = [1] }}, \"HARVEST\", \"GET\", \"copy\", \"finish\"]\n"
    );
    let case: Case = toml::from_str(&text).expect("the text above is a case");
    debug_assert_eq!(case.expected(), Outcome::Holds);
    case
}

fn states_chart(bounds: &[Bound]) -> Chart {
    let styles = [
        (Stroke::Solid, Marker::Circle),
        (Stroke::Dashed, Marker::Square),
        (Stroke::Dotted, Marker::Triangle),
    ];
    let series = BOUNDS
        .iter()
        .zip(styles)
        .map(|(&(vcpus, _), (stroke, marker))| {
            let points = bounds
                .iter()
                .filter(|bound| bound.vcpus == vcpus)
                .map(|bound| (bound.stores, bound.states))
                .collect();
            let label = if vcpus == 1 {
                "1 vCPU".into()
            } else {
                format!("{vcpus} vCPUs")
            };
            Series::new(label, points).stroke(stroke).marker(marker)
        })
        .collect();
    let most = bounds.iter().map(|bound| bound.states).max().unwrap_or(10);
    Chart {
        title: "States explored by bound".into(),
        subtitle: "C1's order on arm64, ring and bitmap, 2 pages, rings of 4".into(),
        x: Axis::new("stores of each vCPU", Scale::Linear, 0, 7),
        y: Axis::new(
            "distinct states",
            Scale::Log,
            100,
            most.saturating_mul(3).max(1000),
        ),
        series,
        marks: Vec::new(),
    }
}
