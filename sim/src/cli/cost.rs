//! `dirtysim cost`: the arguments, and what is printed for them.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cost::calibration::calibrate;
use crate::cost::units::{
    MIB, parse_bits_per_s, parse_bytes, parse_bytes_per_s, parse_count, parse_duration,
};
use crate::cost::{
    CostError, Inputs, Pattern, Rearm, Sweep, Tracking, Writer, crossover, downtime_chart, report,
    simulate, sweep, sweep_charts, total_time_chart,
};
use crate::plot::{Chart, PlotError};

/// Downtime and total time against the pages left to the bitmap; the crossover with stop-and-copy.
#[derive(Args, Clone, Debug, Default)]
pub struct CostArgs {
    /// Guest memory: 24G (K, M, G, T are powers of 1024)
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Link speed in bits per second: 10G (powers of 1000)
    #[arg(long, value_name = "BITS/S")]
    pub bandwidth: Option<String>,
    /// What one connection's sender gets through, bytes per second [default: as measured, 1617 MiB/s]
    #[arg(long, value_name = "BYTES/S")]
    pub stream: Option<String>,
    /// Parallel connections
    #[arg(long, value_name = "N")]
    pub connections: Option<String>,
    /// vCPUs
    #[arg(long, value_name = "N")]
    pub vcpus: Option<String>,
    /// Rate at which vCPUs write pages, bytes per second: 800M (powers of 1000)
    #[arg(long, value_name = "BYTES/S")]
    pub dirty_rate: Option<String>,
    /// Memory that vCPUs keep writing: 4G
    #[arg(long, value_name = "BYTES")]
    pub working_set: Option<String>,
    /// Order in which the vCPUs' working set is written
    #[arg(long, value_enum)]
    pub pattern: Option<PatternArg>,
    /// Memory that the kernel or devices keep writing outside any vCPU: 4M; 0 for none
    #[arg(long, value_name = "BYTES")]
    pub non_vcpu_set: Option<String>,
    /// Rate at which they write it, bytes per second
    #[arg(long, value_name = "BYTES/S")]
    pub non_vcpu_rate: Option<String>,
    /// Pages that the final device save writes (an ITS's tables); 0 for none
    #[arg(long, value_name = "PAGES")]
    pub device_save_pages: Option<String>,
    /// What records dirty pages
    #[arg(long, value_enum)]
    pub tracking: Option<TrackingArg>,
    /// Entries of each vCPU's ring, a power of two: 4096
    #[arg(long, value_name = "N")]
    pub ring_entries: Option<String>,
    /// Pre-copy ends once what is left can be sent within this time: 300ms
    #[arg(long, value_name = "TIME")]
    pub downtime_limit: Option<String>,
    /// The most rounds of pre-copy
    #[arg(long, value_name = "N")]
    pub rounds: Option<u32>,
    /// Vary a parameter: bandwidth=1G..40G:10; given twice, two parameters, each value of one with each of the other
    #[arg(
        long,
        value_name = "NAME=FROM..TO:POINTS",
        conflicts_with = "calibration"
    )]
    pub sweep: Vec<String>,
    /// Write the sweep as CSV into this file
    #[arg(long, value_name = "FILE", requires = "sweep")]
    pub csv: Option<PathBuf>,
    /// Compare the model with published figures instead
    #[arg(long)]
    pub calibration: bool,
    /// Write downtime.svg and total-time.svg into this directory; of a sweep, sweep-downtime.svg and sweep-total-time.svg
    #[arg(long, value_name = "DIR", conflicts_with = "calibration")]
    pub plot: Option<PathBuf>,
}

/// `--pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatternArg {
    /// Each store to a page drawn at random
    Random,
    /// One page after the other
    Sweep,
}

/// `--tracking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrackingArg {
    /// The bitmap; KVM_GET_DIRTY_LOG re-arms
    Bitmap,
    /// The bitmap; KVM_CLEAR_DIRTY_LOG re-arms before sending
    BitmapManual,
    /// The same, with all bits set at first
    BitmapInitiallySet,
    /// Rings alone
    Ring,
    /// Rings, and the bitmap for writes outside any vCPU
    #[value(name = "ring+bitmap")]
    RingWithBitmap,
}

/// What `cost` prints on standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// For people.
    pub text: String,
    /// The JSON document, for `--json`.
    pub json: serde_json::Value,
    /// Files written, for a message on standard error.
    pub files: Vec<PathBuf>,
}

/// Why `cost` failed: exit code 2 in each case.
#[derive(Debug)]
pub enum CommandError {
    /// The inputs were refused.
    Cost(CostError),
    /// A chart could not be drawn.
    Plot(PlotError),
    /// A chart could not be written.
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cost(error) => error.fmt(f),
            Self::Plot(error) => error.fmt(f),
            Self::Write { path, error } => {
                write!(f, "{}: cannot be written: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for CommandError {}

impl From<CostError> for CommandError {
    fn from(error: CostError) -> Self {
        Self::Cost(error)
    }
}

impl From<PlotError> for CommandError {
    fn from(error: PlotError) -> Self {
        Self::Plot(error)
    }
}

/// Runs `dirtysim cost`. `base` is what the arguments change: [`Inputs::default`], or what a scenario says of its
/// machine.
///
/// # Errors
/// [`CommandError`].
pub fn command(args: &CostArgs, base: Inputs) -> Result<Printed, CommandError> {
    if args.calibration {
        let calibration = calibrate()?;
        return Ok(Printed {
            text: report::calibration_text(&calibration),
            json: report::calibration_json(&calibration),
            files: Vec::new(),
        });
    }
    let inputs = args.apply(base)?;
    inputs.check()?;
    if !args.sweep.is_empty() {
        return swept(args, &inputs);
    }
    let files = match &args.plot {
        Some(dir) => plot(&inputs, dir)?,
        None => Vec::new(),
    };
    let outcome = simulate(&inputs)?;
    let crossings = crossover(&inputs, &outcome)?;
    Ok(Printed {
        text: report::outcome_text(&inputs, &outcome, &crossings),
        json: report::outcome_json(&inputs, &outcome, &crossings),
        files,
    })
}

/// A sweep of one parameter or two.
fn swept(args: &CostArgs, inputs: &Inputs) -> Result<Printed, CommandError> {
    let sweeps = args.sweep.iter().map(|text| Sweep::parse(text));
    let sweeps = sweeps.collect::<Result<Vec<_>, _>>()?;
    let rows = sweep(&sweeps, inputs)?;
    let charts = match &args.plot {
        Some(_) => sweep_charts(inputs, &sweeps, &rows)?,
        None => Vec::new(),
    };
    let mut files = match &args.plot {
        Some(dir) => write_charts(charts, dir)?,
        None => Vec::new(),
    };
    if let Some(path) = &args.csv {
        write_file(path, &report::sweep_csv(&sweeps, &rows))?;
        files.push(path.clone());
    }
    Ok(Printed {
        text: report::sweep_text(&sweeps, &rows),
        json: report::sweep_json(inputs, &sweeps, &rows),
        files,
    })
}

impl CostArgs {
    /// The inputs with every given argument in place.
    ///
    /// # Errors
    /// [`CostError::Number`] for a value that is not written as one.
    pub fn apply(&self, mut inputs: Inputs) -> Result<Inputs, CostError> {
        let set = |to: &mut u64,
                   text: &Option<String>,
                   parse: &dyn Fn(&str) -> Result<u64, CostError>| match text {
            Some(text) => parse(text).map(|value| *to = value),
            None => Ok(()),
        };
        set(&mut inputs.memory_bytes, &self.memory, &|t| {
            parse_bytes("memory", t)
        })?;
        set(&mut inputs.link_bits_per_s, &self.bandwidth, &|t| {
            parse_bits_per_s("bandwidth", t)
        })?;
        set(&mut inputs.stream_bytes_per_s, &self.stream, &|t| {
            parse_bytes_per_s("stream", t)
        })?;
        set(&mut inputs.connections, &self.connections, &|t| {
            parse_count("connections", t)
        })?;
        set(&mut inputs.vcpus, &self.vcpus, &|t| parse_count("vcpus", t))?;
        set(
            &mut inputs.device_save_pages,
            &self.device_save_pages,
            &|t| parse_count("device-save-pages", t),
        )?;
        for working_set in &mut inputs.working_sets {
            let (bytes, rate) = match working_set.writer {
                Writer::Vcpu => (&self.working_set, &self.dirty_rate),
                Writer::NonVcpu => (&self.non_vcpu_set, &self.non_vcpu_rate),
            };
            set(&mut working_set.bytes, bytes, &|t| {
                parse_bytes("working set", t)
            })?;
            set(&mut working_set.bytes_per_s, rate, &|t| {
                parse_bytes_per_s("dirty rate", t)
            })?;
            if working_set.writer == Writer::Vcpu {
                working_set.pattern = match self.pattern {
                    Some(PatternArg::Random) => Pattern::Random,
                    Some(PatternArg::Sweep) => Pattern::Sweep,
                    None => working_set.pattern,
                };
            }
        }
        self.shrink_default_sets(&mut inputs);
        let mut entries = inputs.tracking.ring_entries().unwrap_or(4096);
        set(&mut entries, &self.ring_entries, &|t| {
            parse_bytes("ring-entries", t)
        })?;
        inputs.tracking = match (self.tracking, inputs.tracking) {
            (Some(TrackingArg::Bitmap), _) => Tracking::Bitmap(Rearm::Get),
            (Some(TrackingArg::BitmapManual), _) => Tracking::Bitmap(Rearm::Clear),
            (Some(TrackingArg::BitmapInitiallySet), _) => {
                Tracking::Bitmap(Rearm::ClearInitiallySet)
            }
            (Some(TrackingArg::Ring), _) | (None, Tracking::Ring { .. }) => {
                Tracking::Ring { entries }
            }
            (Some(TrackingArg::RingWithBitmap), _) | (None, Tracking::RingWithBitmap { .. }) => {
                Tracking::RingWithBitmap { entries }
            }
            (None, bitmap @ Tracking::Bitmap(_)) => bitmap,
        };
        if let Some(limit) = &self.downtime_limit {
            inputs.stop.downtime_limit_ns = Some(parse_duration("downtime-limit", limit)?);
        }
        inputs.stop.rounds_max = self.rounds.unwrap_or(inputs.stop.rounds_max);
        Ok(inputs)
    }

    /// `--memory 1G` alone must not fail over the default working set: one that was not asked for shrinks to a
    /// quarter of memory.
    fn shrink_default_sets(&self, inputs: &mut Inputs) {
        let quarter = inputs.memory_bytes / 4 / MIB * MIB;
        for set in &mut inputs.working_sets {
            let asked = match set.writer {
                Writer::Vcpu => self.working_set.is_some(),
                Writer::NonVcpu => self.non_vcpu_set.is_some(),
            };
            if !asked {
                set.bytes = set.bytes.min(quarter);
            }
        }
    }
}

/// Writes both charts, each whole or not at all.
fn plot(inputs: &Inputs, dir: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let outcome = simulate(inputs)?;
    let crossings = crossover(inputs, &outcome)?;
    // Beyond the rate of the link nothing converges unless stores repeat; a quarter more shows that.
    let rate_max = inputs.full_rate().saturating_mul(5) / 4;
    let charts = vec![
        (
            "downtime.svg",
            downtime_chart(inputs, &outcome, &crossings)?,
        ),
        (
            "total-time.svg",
            total_time_chart(inputs, rate_max.min(crate::cost::RATE_MAX))?,
        ),
    ];
    write_charts(charts, dir)
}

fn write_charts(
    charts: Vec<(&'static str, Chart)>,
    dir: &Path,
) -> Result<Vec<PathBuf>, CommandError> {
    let mut files = Vec::new();
    for (name, chart) in charts {
        let path = dir.join(name);
        write_file(&path, &chart.to_svg()?)?;
        files.push(path);
    }
    Ok(files)
}

fn write_file(path: &Path, content: &str) -> Result<(), CommandError> {
    write_whole(path, content).map_err(|error| CommandError::Write {
        path: path.to_owned(),
        error,
    })
}

/// Writes beside the file and renames, so that a reader never finds half of it.
fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cost").suffix(".partial");
    // What File::create would give, instead of a temporary file's private mode.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut beside = builder.tempfile_in(dir)?;
    beside.write_all(content.as_bytes())?;
    beside.persist(path).map(drop).map_err(|error| error.error)
}

/// Runs the command for the binary.
pub(super) fn run(args: &CostArgs) -> super::CliResult {
    let printed = command(args, Inputs::default())?;
    let mut report = super::Report {
        command: "cost",
        tail: printed.text,
        ..super::Report::default()
    };
    if let serde_json::Value::Object(keys) = printed.json {
        report.extra = keys;
    }
    report.extra.shift_remove("command");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        cost: CostArgs,
    }

    fn run(line: &str) -> Result<Printed, CommandError> {
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("clap takes it");
        command(&cli.cost, Inputs::default())
    }

    #[test]
    fn text_fits_a_mail() {
        for line in [
            "cost",
            "cost --calibration",
            "cost --sweep bandwidth=1G..40G:10",
        ] {
            let printed = run(line).unwrap();
            for row in printed.text.lines() {
                assert!(row.chars().count() <= 76, "{line}: {row}");
            }
        }
    }

    #[test]
    fn calibration_has_the_keys_that_the_design_names() {
        let json = run("cost --calibration").unwrap().json;
        let entries = json["calibration"].as_array().unwrap();
        assert!(entries.len() >= 8);
        for entry in entries {
            assert!(entry["published"].is_u64() && entry["simulated"].is_u64());
            assert!(entry["error"].is_number() && entry["source"].is_string());
        }
        assert_eq!(json["command"], "cost");
    }

    #[test]
    fn charts_are_written_whole_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("new");
        let printed = run(&format!("cost --plot {}", place.display())).unwrap();
        let mut names: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["downtime.svg", "total-time.svg"]);
        for file in &printed.files {
            assert!(
                fs::read_to_string(file).unwrap().ends_with("</svg>\n"),
                "{}",
                file.display()
            );
        }
        let taken = dir.path().join("taken");
        fs::write(&taken, "").unwrap();
        let error = run(&format!("cost --plot {}", taken.display())).unwrap_err();
        assert!(matches!(error, CommandError::Write { .. }), "{error}");
    }

    #[test]
    fn the_page_about_cost_shows_the_table_that_is_printed() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cost.md");
        let text = run("cost --calibration").unwrap().text;
        let table = text.split("\n\nnsdi2005-specweb:").next().unwrap();
        dirtysim_expected::section(&page, "calibration", &format!("```\n{table}\n```\n"));
        let text = run("cost").unwrap().text;
        dirtysim_expected::section(&page, "cost", &format!("```\n$ dirtysim cost\n{text}```\n"));
    }

    #[test]
    fn arguments_reach_the_inputs() {
        let json = run(
            "cost --memory 8G --bandwidth 25G --connections 4 --vcpus 2 --tracking bitmap-manual",
        )
        .unwrap()
        .json;
        assert_eq!(json["inputs"]["memory_bytes"], 8u64 << 30);
        assert_eq!(json["inputs"]["link_bits_per_s"], 25_000_000_000u64);
        assert_eq!(json["inputs"]["tracking"], "bitmap-manual");
        let json =
            run("cost --tracking ring --ring-entries 64K --non-vcpu-set 0 --device-save-pages 0")
                .unwrap()
                .json;
        assert_eq!(json["inputs"]["ring_entries"], 65536);
        run("cost --memory 1G").expect("default working sets shrink with memory");
    }

    #[test]
    fn bad_input_is_told_what_to_write() {
        for (line, says) in [
            ("cost --bandwidth 0", "bandwidth is zero"),
            ("cost --memory 1.5G", "1536M rather than 1.5G"),
            ("cost --memory 4097", "4096-byte pages"),
            (
                "cost --memory 18446744073709551615G",
                "does not fit in 64 bits",
            ),
            ("cost --ring-entries 5000", "4096 or 8192"),
            ("cost --tracking ring", "bitmap"),
            ("cost --working-set 25G", "working sets"),
            ("cost --sweep bandwidth=0..1G:4", "bandwidth is zero"),
            ("cost --sweep speed=1..2", "no parameter is called"),
            ("cost --rounds 0", "rounds is zero"),
        ] {
            let error = run(line).expect_err(line).to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
