//! `dirtysim new`: a scenario to begin with.

use std::path::PathBuf;

use clap::Args;
use serde_json::Map;

use super::schedule::deliver;
use super::{CliError, CliResult, Global, Report};
use crate::scenario::vocabulary::VOCABULARY;
use crate::scenario::{Scenario, builtin_text, check_name};

/// Arguments of `dirtysim new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The scenario's name: letters, digits, - and _
    #[arg(value_name = "NAME")]
    name: String,
    /// The built-in scenario that it begins as
    #[arg(long, value_name = "SCENARIO", default_value = "kernel-docs")]
    like: String,
    /// The file to write [default: NAME.toml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &NewArgs, global: &Global) -> CliResult {
    check_name(&args.name)
        .map_err(|why| CliError(format!("the name `{}`\nhelp: {why}", args.name)))?;
    let Some(text) = builtin_text(&args.like) else {
        // The complaint of whoever looks a scenario up has the names that are near.
        let found = Scenario::find(&args.like);
        return Err(match found {
            Err(error) => error.into(),
            Ok(_) => CliError(format!(
                "--like {}: a file\nhelp: copy it; --like takes a scenario that `dirtysim list scenarios` shows",
                args.like
            )),
        });
    };
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}.toml", args.name)));
    if path.exists() {
        return Err(CliError(format!(
            "{}: is there already, and stays as it is\nhelp: give another name, or -o FILE",
            path.display()
        )));
    }
    let text = commented(&args.name, &args.like, text);
    // What is given to somebody to begin with is right.
    let scenario = Scenario::from_toml(&path.display().to_string(), &text)?;
    deliver(text.as_bytes(), Some(&path), global, "the scenario")?;
    let mut extra = Map::new();
    extra.insert("scenario".into(), scenario.name.clone().into());
    extra.insert("output".into(), path.display().to_string().into());
    Ok(Report {
        command: "new",
        extra,
        tail: format!(
            "{}: as {}; change it, then `dirtysim check {}`\n",
            path.display(),
            args.like,
            path.display()
        ),
        ..Report::default()
    })
}

/// The text under another name, with what its words mean above it.
fn commented(name: &str, like: &str, text: &str) -> String {
    let mut out = format!(
        "# {name}: begun as the built-in scenario `{like}`.\n\
         #   dirtysim check FILE       every interleaving within these bounds\n\
         #   dirtysim run FILE         seeded schedules\n\
         #   dirtysim help scenarios   the whole language\n\
         #\n\
         # [machine]   what does not change: architecture, kernel, vCPUs, pages, rings, capabilities\n\
         # [writers]   who writes to guest memory, and how much: small numbers, since every order of them is tried\n\
         # [protocol]  what the VMM does, step by step; `expect` is the verdict that you think it has\n\
         #\n\
         # The words of its steps:\n"
    );
    let used = VOCABULARY.iter().filter(|(word, _, _)| {
        text.contains(&format!("\"{word}\"")) || text.contains(&format!("{word} ="))
    });
    for (word, keys, what) in used {
        let keys = match keys {
            [] => String::new(),
            keys => format!(" (and: {})", keys.join(", ")),
        };
        let line = format!("{word}{keys}: {what}");
        let wrapped = textwrap::Options::new(100)
            .initial_indent("#   ")
            .subsequent_indent("#     ");
        out.push_str(&textwrap::fill(&line, wrapped));
        out.push('\n');
    }
    out.push('\n');
    let mut named = false;
    for line in text.lines() {
        if !named && line.trim_start().starts_with("name") {
            out.push_str(&format!("name = \"{name}\"\n"));
            named = true;
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
