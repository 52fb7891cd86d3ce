//! `dirtysim help`: a command's help, or a page of the manual.

use clap::{Args, CommandFactory};
use serde_json::Map;

use super::{Cli, CliError, CliResult, Report};
use crate::scenario::nearest;

/// The pages that the binary carries: their names, and what is in `docs/` under the same titles. A test keeps them the same.
pub const PAGES: [(&str, &str, &str); 4] = [
    (
        "scenarios",
        "scenarios.md",
        include_str!("../../help/scenarios.md"),
    ),
    (
        "bug-reports",
        "bug-reports.md",
        include_str!("../../help/bug-reports.md"),
    ),
    (
        "traces",
        "trace-format.md",
        include_str!("../../help/trace-format.md"),
    ),
    ("ci", "ci.md", include_str!("../../help/ci.md")),
];

/// Arguments of `dirtysim help`.
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// A command, or a page: scenarios, bug-reports, traces, ci
    #[arg(value_name = "COMMAND|PAGE")]
    topic: Option<String>,
}

pub(super) fn run(args: &HelpArgs) -> CliResult {
    let mut command = Cli::command();
    command.build();
    let tail = match &args.topic {
        None => command.render_long_help().to_string(),
        Some(topic) => {
            if let Some((_, _, text)) = PAGES.iter().find(|(name, _, _)| name == topic) {
                (*text).to_owned()
            } else if let Some(found) = command.find_subcommand_mut(topic) {
                found.render_long_help().to_string()
            } else {
                let known: Vec<&str> = command
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .chain(PAGES.iter().map(|(name, _, _)| *name))
                    .collect();
                let near = nearest(topic, &known)
                    .map_or(String::new(), |near| format!("did you mean `{near}`? "));
                return Err(CliError(format!(
                    "no help on `{topic}`\nhelp: {near}there is help on: {}",
                    known.join(", ")
                )));
            }
        }
    };
    let mut extra = Map::new();
    extra.insert("help".into(), tail.clone().into());
    Ok(Report {
        command: "help",
        extra,
        tail,
        ..Report::default()
    })
}
