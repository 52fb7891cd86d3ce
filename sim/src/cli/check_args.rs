//! What `dirtysim check` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::axes::{Axis, parse_axis};
use crate::search::{Reductions, Rule};

/// Arguments of `dirtysim check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Built-in scenarios by name, or scenario files
    #[arg(value_name = "SCENARIO")]
    pub(super) scenarios: Vec<String>,
    /// Stop at the end of the level at which so many states are known
    #[arg(long, value_name = "N")]
    pub(super) max_states: Option<u64>,
    /// Bytes for the search, with K, M or G for KiB, MiB or GiB [default: three quarters of what is available]
    #[arg(long, value_name = "B", value_parser = parse_bytes)]
    pub(super) max_memory: Option<u64>,
    /// Stop a scenario after so many seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(super) max_time: Option<Duration>,
    /// Visit every state: no symmetry and no partial-order reduction
    #[arg(long)]
    pub(super) no_reduction: bool,
    /// Do not exchange pages
    #[arg(long)]
    pub(super) no_page_symmetry: bool,
    /// Do not exchange vCPUs
    #[arg(long)]
    pub(super) no_vcpu_symmetry: bool,
    /// Do not take local steps alone
    #[arg(long)]
    pub(super) no_partial_order: bool,
    /// Do not ask for any number of stores, rounds and pages where the scenario's own make many states
    #[arg(long, conflicts_with = "any_number")]
    pub(super) own_numbers: bool,
    /// Leave one rule for local steps out; may be given several times
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    pub(super) without_rule: Vec<Rule>,
    /// Go on after the first violation, and name every claim that breaks
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Look for what goes on for ever in place of what breaks: deadlocks, fair cycles without progress, and such that keep
    /// the protocol from its end
    #[arg(long, conflicts_with_all = ["keep_going", "no_vcpu_symmetry", "no_partial_order", "without_rule"])]
    pub(super) liveness: bool,
    /// Take any number in place of each number of stores, transfers, rounds and, where that can be, pages: what is said of a search
    /// that ends is proved for all of them
    #[arg(long)]
    pub(super) any_number: bool,
    /// Switch a wrong behaviour on; may be given several times
    #[arg(long, value_name = "MUTATION")]
    pub(super) mutate: Vec<String>,
    /// Check one scenario on many machines, each value with each of the others: `vcpus=1..2,stores=1..3`, also arch, kernel, protect, pages
    #[arg(
        long,
        value_name = "KEY=VALUES,…",
        value_delimiter = ',',
        value_parser = parse_axis,
        conflicts_with_all = ["keep_going", "liveness", "watch"]
    )]
    pub(super) over: Vec<Axis>,
    /// --over: write a table as CSV into this file
    #[arg(long, value_name = "FILE", requires = "over")]
    pub(super) csv: Option<PathBuf>,
    /// --over: draw the states against the first axis, a line for each value of the second, into this file (SVG)
    #[arg(long, value_name = "FILE", requires = "over")]
    pub(super) plot: Option<PathBuf>,
    /// Check again whenever one of the files changes, until Ctrl-C
    #[arg(long, conflicts_with = "liveness")]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) ci: super::ci::CiArgs,
}

pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let help = "write a number of bytes, or one with K, M or G: 512M";
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| help)?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("more than there can be: {help}"))
}

pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "write a number of seconds: 60".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}: write seconds: 60"))
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let known = || Rule::ALL.iter().copied();
    known().find(|rule| rule.name() == text).ok_or_else(|| {
        let names: Vec<&str> = known().map(Rule::name).collect();
        format!("no such rule; the rules: {}", names.join(", "))
    })
}

impl CheckArgs {
    pub(super) fn reductions(&self) -> Reductions {
        if self.no_reduction {
            return Reductions::NONE;
        }
        let mut reductions = Reductions::ALL;
        for rule in &self.without_rule {
            reductions = reductions.without(*rule);
        }
        reductions.pages &= !self.no_page_symmetry;
        reductions.vcpus &= !self.no_vcpu_symmetry;
        if self.no_partial_order {
            reductions.rules = 0;
        }
        if self.own_numbers {
            reductions.any_number_after = None;
        }
        reductions
    }
}
