//! `dirtysim debate`: every claim of the debate, with its verdict and its evidence.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::report::grouped;
use super::{CliError, CliResult, Global, Report, Subject, Verdict, interrupted, progress_bar};
use crate::debate::claim::{Claim, claims};
use crate::debate::judge::{Judgement, judge, judge_and_prove};
use crate::debate::report::{self, Debate};
use crate::debate::{figures, report::directory};
use crate::scenario::nearest;

/// Arguments of `dirtysim debate`.
#[derive(Debug, Args)]
pub(crate) struct DebateArgs {
    /// Claims by id; `P6` means P6a, P6b and P6c too; none: all
    #[arg(value_name = "CLAIM")]
    claims: Vec<String>,
    /// Write the report to this directory: a page, a text for a list, a document, traces, scenarios, plots
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Search each case that holds once more, with any number of stores, rounds and, where that can be, pages, and say for how many
    /// it is proved
    #[arg(long)]
    prove: bool,
}

/// The claims of those ids, in the order of the list.
fn find(ids: &[String]) -> Result<Vec<Claim>, CliError> {
    let all = claims();
    if ids.is_empty() {
        return Ok(all);
    }
    let matches = |claim: &Claim, id: &str| {
        let part = |rest: &str| rest.len() == 1 && rest.chars().all(|c| c.is_ascii_lowercase());
        claim.id.eq_ignore_ascii_case(id) || claim.id.strip_prefix(id).is_some_and(part)
    };
    for id in ids {
        if !all.iter().any(|claim| matches(claim, id)) {
            let names: Vec<&str> = all.iter().map(|claim| claim.id.as_str()).collect();
            let near = nearest(id, &names)
                .map_or(String::new(), |near| format!("did you mean `{near}`? "));
            return Err(CliError(format!(
                "unknown claim `{id}`\nhelp: {near}`dirtysim list claims` shows them"
            )));
        }
    }
    Ok(all
        .into_iter()
        .filter(|claim| ids.iter().any(|id| matches(claim, id)))
        .collect())
}

pub(super) fn run(args: &DebateArgs, _global: &Global) -> CliResult {
    let begun = Instant::now();
    let claims = find(&args.claims)?;
    let bar = progress_bar(0, "scenarios");
    bar.set_message("debate");
    let judge = if args.prove { judge_and_prove } else { judge };
    let judgements = judge(&claims, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
        !interrupted()
    })
    .map_err(CliError)?;
    let mut debate = Debate {
        judgements,
        plots: Vec::new(),
        bounds: Vec::new(),
    };
    let mut report = Report {
        command: "debate",
        many: true,
        ..Report::default()
    };
    let mut tail = String::new();
    if let Some(place) = &args.output {
        bar.set_message("plots");
        match page(&mut debate, place) {
            Ok(Some(files)) => {
                let place = place.display();
                tail = format!("{place}: {files} files; begin with index.html\n");
            }
            // A page of claims that nobody decided, or without its plots, would be read as the whole.
            Ok(None) => {
                report.cut = true;
                tail = format!("{}: not written: interrupted\n", place.display());
            }
            Err(error) => report.errors.push(error),
        }
    }
    bar.finish_and_clear();
    report.subjects = debate.judgements.iter().map(subject).collect();
    let unexpected = debate
        .judgements
        .iter()
        .filter(|j| !j.as_expected())
        .count();
    let expected = match unexpected {
        0 => "each as expected".to_owned(),
        _ => format!("{unexpected} NOT as expected"),
    };
    if interrupted() {
        let open = debate.judgements.iter().filter(|j| j.is_inconclusive());
        tail.push_str(&format!(
            "interrupted: {} claims were not decided\n",
            open.count()
        ));
    }
    report.head = report::terminal(&debate);
    report.tail = format!(
        "{} claims, {expected}; {} scenarios, {} states\n{tail}",
        debate.judgements.len(),
        debate.scenarios(),
        grouped(debate.states())
    );
    report
        .extra
        .insert("elapsed_s".into(), begun.elapsed().as_secs_f64().into());
    Ok(report)
}

/// Writes the page with its plots, and answers with the number of files; none where an interrupt came first.
fn page(debate: &mut Debate, place: &Path) -> Result<Option<usize>, CliError> {
    let bounds = figures::bounds(&|| !interrupted());
    if interrupted() {
        return Ok(None);
    }
    debate.bounds = bounds.map_err(CliError)?;
    debate.plots = figures::plots(&debate.bounds).map_err(CliError)?;
    directory::write(debate, place).map(Some).map_err(CliError)
}

fn subject(judgement: &Judgement) -> Subject {
    let verdict = if judgement.is_inconclusive() {
        Verdict::Inconclusive
    } else if judgement.as_expected() {
        Verdict::Holds
    } else {
        Verdict::Violated
    };
    Subject {
        verdict,
        as_expected: judgement.as_expected(),
        json: report::claim_row(judgement, false),
        // The table has it.
        text: String::new(),
    }
}
