//! `dirtysim completions` and `dirtysim man`: what a shell and a manual want to know, made of the command line itself.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use serde_json::Map;

use super::{Cli, CliError, CliResult, Global, Report, schedule::deliver};

/// Arguments of `dirtysim completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Arguments of `dirtysim man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// A directory for a page for each command; without it, the page of `dirtysim` itself on standard output
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dirtysim", &mut script);
    Ok(said(
        "completions",
        String::from_utf8_lossy(&script).into_owned(),
    ))
}

pub(super) fn man(args: &ManArgs, global: &Global) -> CliResult {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.output else {
        return Ok(said("man", page(&command)?));
    };
    super::make_dir(dir)?;
    let mut written = String::new();
    let pages = std::iter::once(&command).chain(command.get_subcommands());
    for of in pages {
        let name = of.get_display_name().unwrap_or(of.get_name());
        let path = dir.join(format!("{name}.1"));
        deliver(page(of)?.as_bytes(), Some(&path), global, "the page")?;
        written.push_str(&format!("{}\n", path.display()));
    }
    Ok(said("man", written))
}

fn page(command: &clap::Command) -> Result<String, CliError> {
    let mut roff = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut roff)
        .map_err(|error| CliError(format!("the manual page cannot be made: {error}")))?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

fn said(command: &'static str, text: String) -> Report {
    let mut extra = Map::new();
    extra.insert("text".into(), text.clone().into());
    Report {
        command,
        extra,
        tail: text,
        ..Report::default()
    }
}
