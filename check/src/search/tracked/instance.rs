//! A broken claim of the abstraction, looked for on machines of a few pages.

use serde_json::{Value, json};

use super::Unconfirmed;
use crate::scenario::{Scenario, ScenarioError};
use crate::search::{self, Options, Report, TooLarge, Verdict, Watch};
use dirtysim_model::oracle::Invariants;

/// The most pages of such a machine.
const MOST_PAGES: u64 = 4;
/// The most states of one of them, where the caller sets no limit.
const MOST_STATES: u64 = 20_000_000;

/// Looks for what is broken with 1, 2, 3 and 4 pages: a machine that breaks a claim is the verdict; none is inconclusive.
pub(super) fn look_for(
    scenario: &Scenario,
    broken: Invariants,
    run: Vec<String>,
    mut report: Report,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, TooLarge> {
    let options = Options {
        max_states: Some(options.max_states.unwrap_or(MOST_STATES)),
        ..options.clone()
    };
    let mut searched = 0;
    for pages in 1..=MOST_PAGES {
        // A scenario that was read is read again with a number of pages.
        let Ok(few) = with_pages(scenario, pages) else {
            break;
        };
        let found = search::check(&few, &options, watch)?;
        // What the scenario is about may hold where another claim breaks.
        if found.verdict == Verdict::Violated || !found.broken.is_empty() {
            return Ok(Report {
                instance: Some(pages),
                ..found
            });
        }
        if found.verdict == Verdict::Inconclusive {
            break;
        }
        searched = pages;
    }
    report.unconfirmed = Some(Unconfirmed {
        broken,
        run,
        searched,
    });
    Ok(report)
}

/// The scenario with so many pages, of which the last is the table of each kernel writer that has any.
pub(crate) fn with_pages(scenario: &Scenario, pages: u64) -> Result<Scenario, Box<ScenarioError>> {
    let mut source = scenario.source.clone();
    // Several memslots are refused.
    let at = match source.get("slots") {
        Some(_) => "/slots/0",
        None => "/machine",
    };
    if let Some(place) = source.pointer_mut(at).and_then(Value::as_object_mut) {
        place.insert("pages".to_owned(), pages.into());
    }
    if let Some(writers) = source.get_mut("writers").and_then(Value::as_object_mut) {
        for writer in writers.values_mut() {
            if let Some(tables) = writer.get_mut("tables") {
                *tables = json!([pages - 1]);
            }
        }
    }
    Scenario::from_json(&scenario.file, &source)
}
