//! `dirtysim list`: what there is to name.

use clap::{Args, ValueEnum};
use dirtysim_model::oracle::Invariant;
use dirtysim_model::words::mutation::{Mutation, Mutations};
use serde_json::{Map, Value, json};

use super::{CliError, CliResult, Report};
use crate::scenario::{Expect, builtins, nearest};

/// Arguments of `dirtysim list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// What to list
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The scenarios that come with the program
    Scenarios,
    /// Wrong behaviours that can be switched on
    Mutations,
    /// The claims that are checked of every state
    Invariants,
    /// The claims of the debate
    Claims,
}

/// The mutation of that name.
pub(super) fn find_mutation(name: &str) -> Result<Mutation, CliError> {
    Mutations::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = Mutation::ALL
            .iter()
            .map(|mutation| mutation.name())
            .collect();
        let near =
            nearest(name, &names).map_or(String::new(), |near| format!("did you mean `{near}`? "));
        CliError(format!(
            "unknown mutation `{name}`\nhelp: {near}`dirtysim list mutations` shows them"
        ))
    })
}

pub(super) fn run(args: &ListArgs) -> CliResult {
    let mut rows: Vec<Value> = Vec::new();
    let mut text = String::new();
    match args.what {
        What::Scenarios => {
            for scenario in builtins() {
                let expect = match scenario.expected() {
                    Expect::Holds => "holds".to_owned(),
                    Expect::Violated(invariant) => format!("violated: {}", invariant.name()),
                };
                text.push_str(&format!(
                    "{}  [{expect}]\n    {}\n",
                    scenario.name, scenario.sentence
                ));
                rows.push(json!({ "name": scenario.name, "sentence": scenario.sentence, "expect": expect, "origin": scenario.origin }));
            }
        }
        What::Mutations => {
            for mutation in Mutation::ALL {
                text.push_str(&format!(
                    "{}\n    {}\n",
                    mutation.name(),
                    mutation.doc().trim()
                ));
                rows.push(json!({ "name": mutation.name(), "sentence": mutation.doc().trim() }));
            }
        }
        What::Claims => {
            for claim in crate::debate::claim::claims() {
                text.push_str(&format!(
                    "{}: {}  [{}]\n    {}\n    said: {}\n",
                    claim.id,
                    claim.title,
                    claim.expect.name(),
                    claim.claim,
                    claim.said
                ));
                rows.push(json!({
                    "name": claim.id,
                    "title": claim.title,
                    "sentence": claim.claim,
                    "expect": claim.expect.name(),
                    "origin": claim.said,
                }));
            }
        }
        What::Invariants => {
            for invariant in Invariant::ALL {
                text.push_str(&format!(
                    "{}\n    {}\n    source: {}\n    not covered: {}\n",
                    invariant.name(),
                    invariant.sentence(),
                    invariant.source(),
                    invariant.not_covered(),
                ));
                rows.push(json!({
                    "name": invariant.name(),
                    "sentence": invariant.sentence(),
                    "source": invariant.source(),
                    "not_covered": invariant.not_covered(),
                }));
            }
        }
    }
    let mut extra = Map::new();
    extra.insert("list".into(), rows.into());
    Ok(Report {
        command: "list",
        extra,
        tail: text,
        ..Report::default()
    })
}
