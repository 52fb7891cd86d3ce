//! `dirtysim debate`: every claim of the debate, with its verdict and its evidence.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::input::Input;
use super::report::grouped;
use super::{CliError, CliResult, Global, Report, Subject, interrupted, progress_bar};
use crate::debate::claim::{Claim, Verdict, claims};
use crate::debate::judge::{Judgement, flipped, judge, judge_and_prove};
use crate::debate::report::{self, Debate};
use crate::debate::{figures, own, report::directory};
use crate::scenario::nearest;

/// Arguments of `dirtysim debate`.
#[derive(Debug, Args)]
pub(crate) struct DebateArgs {
    /// Claims by id; `P6` means P6a, P6b and P6c too; none: all, or those of --claims
    #[arg(value_name = "CLAIM")]
    ids: Vec<String>,
    /// Decide claims of your own, in the form of the built-in ones (docs/debate.md); can be given more than once
    #[arg(long, value_name = "FILE")]
    claims: Vec<PathBuf>,
    /// Write the report to this directory: a page, a text for a list, a document, traces, scenarios, plots
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Search each case that holds once more, with any number of stores, rounds and, where that can be, pages, and say for how many
    /// it is proved
    #[arg(long)]
    prove: bool,
}

/// A claim's text in bytes, at most.
const MOST_BYTES: u64 = 1 << 20;

/// The claims of files of somebody's own.
fn own(files: &[PathBuf]) -> Result<Vec<Claim>, CliError> {
    let mut claims: Vec<Claim> = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let cannot = |error: std::io::Error| CliError(format!("{name}: cannot read: {error}"));
        let mut text = String::new();
        let mut file = Input::open(path).map_err(cannot)?.take(MOST_BYTES + 1);
        file.read_to_string(&mut text).map_err(cannot)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(CliError(format!(
                "{name}: more than {MOST_BYTES} bytes\nhelp: divide it: --claims can be given more than once"
            )));
        }
        for claim in own::read(&name, &text)? {
            if claims.iter().any(|known| known.id == claim.id) {
                return Err(CliError(format!(
                    "{name}: a second claim `{}`\nhelp: give it another id",
                    claim.id
                )));
            }
            claims.push(claim);
        }
    }
    Ok(claims)
}

/// The claims of those ids, in the order of the list: those of somebody's own first.
fn find(ids: &[String], own: Vec<Claim>) -> Result<Vec<Claim>, CliError> {
    if ids.is_empty() {
        return Ok(if own.is_empty() { claims() } else { own });
    }
    let all: Vec<Claim> = own.into_iter().chain(claims()).collect();
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

/// A claim with its flip applied, decided.
struct Flipped {
    id: String,
    found: Verdict,
    expected: Verdict,
}

/// What becomes of the claims' flips: of somebody's own claims they are tried, a built-in one's is the tests' business.
fn flips(judgements: &[Judgement], own: &[String]) -> Result<Vec<Flipped>, CliError> {
    let mut flips = Vec::new();
    for judgement in judgements {
        let id = &judgement.claim.id;
        if !own.contains(id) || judgement.is_inconclusive() || interrupted() {
            continue;
        }
        let Some((changed, expected)) = flipped(&judgement.claim).map_err(CliError)? else {
            continue;
        };
        let judged = judge(&[changed], &|_, _| !interrupted()).map_err(CliError)?;
        flips.extend(judged.iter().map(|judged| Flipped {
            id: id.clone(),
            found: judged.verdict,
            expected,
        }));
    }
    Ok(flips)
}

pub(super) fn run(args: &DebateArgs, _global: &Global) -> CliResult {
    let begun = Instant::now();
    let own = own(&args.claims)?;
    let own_ids: Vec<String> = own.iter().map(|claim| claim.id.clone()).collect();
    let claims = find(&args.ids, own)?;
    let bar = progress_bar(0, "scenarios");
    bar.set_message("debate");
    let decide = if args.prove { judge_and_prove } else { judge };
    let judgements = decide(&claims, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
        !interrupted()
    })
    .map_err(CliError)?;
    let flips = flips(&judgements, &own_ids)?;
    let mut debate = Debate {
        own: !own_ids.is_empty(),
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
    for flip in &flips {
        let is_so = flip.found == flip.expected;
        let end = if is_so { "as" } else { "NOT as" };
        let found = flip.found.name();
        tail.push_str(&format!("{}, flipped: {found}, {end} expected\n", flip.id));
        let mut subjects = report.subjects.iter_mut();
        if let Some(subject) = subjects.find(|subject| subject.json["claim"] == flip.id) {
            let row =
                json!({ "verdict": found, "expected": flip.expected.name(), "as_expected": is_so });
            subject.json.insert("flip".into(), row);
            subject.as_expected &= is_so;
            let as_expected = subject.as_expected;
            subject
                .json
                .insert("as_expected".into(), as_expected.into());
        }
    }
    let unexpected = report.subjects.iter().filter(|s| !s.as_expected).count();
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
        "{}, {expected}; {} scenarios, {} states\n{tail}",
        debate.count(),
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
    // What a claim of somebody's own is about, the debate's figures do not show.
    if debate.own {
        return directory::write(debate, place).map(Some).map_err(CliError);
    }
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
        super::Verdict::Inconclusive
    } else if judgement.as_expected() {
        super::Verdict::Holds
    } else {
        super::Verdict::Violated
    };
    Subject {
        verdict,
        as_expected: judgement.as_expected(),
        json: report::claim_row(judgement, false),
        // The table has it.
        text: String::new(),
    }
}
