//! What only the binary needs: arguments in, text and documents out, exit codes.
//!
//! A command is a file: its arguments, and a function from them to a report. Exit codes: 0 as expected, 1 not as
//! expected, 2 usage, bad input, or something that could not be written, 3 inconclusive.

mod axes;
mod blame;
mod bugs;
mod check;
mod check_args;
mod ci;
mod compare;
pub mod cost;
mod coverage;
mod debate;
mod distil;
mod explain;
mod export;
pub mod help;
mod import;
mod input;
mod kind;
mod letter;
mod list;
mod liveness;
mod log;
mod new;
mod orders;
mod page;
mod replay;
mod report;
mod run;
mod schedule;
pub mod schema;
mod shell;
mod shrink;
mod spinner;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand};

pub(crate) use report::{Report, Subject, Verdict};

/// Simulate and check KVM's dirty logging: can this order of calls lose a dirty page?
#[derive(Debug, Parser)]
#[command(
    name = "dirtysim",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    before_help = "Begin with `dirtysim check my.toml`; `dirtysim new my` writes a scenario to change.",
    after_help = "Pages: `dirtysim help scenarios`, `bug-reports`, `traces`, `ci`. A lost page: `dirtysim run bitmap-before-its-save`.",
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Worker threads [default: one per core]; they change nothing in a result
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Where traces go that a command writes of itself
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "target/dirtysim"
    )]
    pub(crate) trace_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios under seeded schedules; without a name, the built-in ones
    Run(run::RunArgs),
    /// Check every interleaving within scenarios' bounds; without a name, the built-in ones
    ///
    /// Visited states are known by 64-bit fingerprints, and the verdict says at most how probable it is that a state was missed
    /// because it had the fingerprint of another.
    Check(check_args::CheckArgs),
    /// Two orders on the same machines: verdicts, cost, and the schedule that one does not survive
    Compare(compare::CompareArgs),
    /// Every order of the final steps: which are safe, and the weakest constraints that make them so
    Orders(orders::OrdersArgs),
    /// Run traces again; say where a real kernel and the model differ
    Replay(replay::ReplayArgs),
    /// Find the shortest schedule with the same violation
    Shrink(shrink::ShrinkArgs),
    /// Tell the story of the lost page
    Explain(explain::ExplainArgs),
    /// Every event of a page, in a log or a trace, and what became of it
    Page(page::PageArgs),
    /// A small scenario from a log: the machine and the order that it shows, ready for `check`
    Distil(distil::DistilArgs),
    /// Rank what could have lost exactly these pages
    Blame(blame::BlameArgs),
    /// One text with question, verdict, story and the scenario itself, that a reader can check
    Report(letter::LetterArgs),
    /// A recording, or a schedule, as one C file that makes the same calls on the reader's kernel
    Export(export::ExportArgs),
    /// Turn other tools' logs into traces
    Import(import::ImportArgs),
    /// Simulate what a migration takes: rounds, total time, downtime
    Cost(Box<cost::CostArgs>),
    /// Decide every claim of the 2022 debate on ring and bitmap, with the evidence
    Debate(debate::DebateArgs),
    /// The historical bugs: found by what, after how many schedules, in how few steps
    Bugs(bugs::BugsArgs),
    /// List scenarios, mutations, invariants or claims
    List(list::ListArgs),
    /// JSON Schemas of scenarios and traces, for editors
    Schema(schema::SchemaArgs),
    /// Write a scenario to begin with
    New(new::NewArgs),
    /// A command's help, or a page of the manual
    Help(help::HelpArgs),
    /// A shell's completions, on standard output
    Completions(shell::CompletionsArgs),
    /// The manual pages, as roff
    Man(shell::ManArgs),
}

/// Why a command did not come to a verdict: usage, or bad input. The message says what to do instead.
#[derive(Debug, Clone)]
pub(crate) struct CliError(pub(crate) String);

impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What a command gives back.
pub(crate) type CliResult = Result<Report, CliError>;

/// Set by Ctrl-C; long work looks at it now and then.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody has pressed Ctrl-C.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs the command line and answers with the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The second Ctrl-C ends the process the usual way.
    let handler = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    if let Err(error) = handler {
        report::say(&format!("warning: Ctrl-C will not be noticed: {error}"));
    }
    if let Some(threads) = cli.global.threads {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global();
        if let Err(error) = pool {
            report::say(&format!("warning: --threads has no effect: {error}"));
        }
    }
    let global = &cli.global;
    let result = match &cli.command {
        Command::Run(args) => run::run(args, global),
        Command::Check(args) => check::run(args, global),
        Command::Compare(args) => compare::run(args, global),
        Command::Orders(args) => orders::run(args, global),
        Command::Replay(args) => replay::run(args, global),
        Command::Shrink(args) => shrink::run(args, global),
        Command::Explain(args) => explain::run(args, global),
        Command::Page(args) => page::run(args, global),
        Command::Distil(args) => distil::run(args, global),
        Command::Blame(args) => blame::run(args, global),
        Command::Report(args) => letter::run(args, global),
        Command::Export(args) => export::run(args, global),
        Command::Import(args) => import::run(args, global),
        Command::Cost(args) => cost::run(args),
        Command::Debate(args) => debate::run(args, global),
        Command::Bugs(args) => bugs::run(args, global),
        Command::List(args) => list::run(args),
        Command::Schema(args) => schema::run(args),
        Command::New(args) => new::run(args, global),
        Command::Help(args) => help::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args, global),
    };
    match result {
        Ok(report) => report.print(global.json),
        Err(CliError(message)) => {
            report::say(&format!("error: {message}"));
            ExitCode::from(2)
        }
    }
}

/// A progress bar on a terminal, nothing elsewhere.
pub(crate) fn progress_bar(total: u64, unit: &str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(total);
    let template = format!(
        "{{msg}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left"
    );
    if let Ok(style) = indicatif::ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// Makes the directory for traces that a command writes of itself.
pub(crate) fn make_dir(dir: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(dir)
        .map_err(|error| CliError(format!("{}: cannot be made: {error}", dir.display())))
}
