//! A broken claim of the abstraction, looked for on machines of a few pages.

use std::cell::Cell;

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
    let (mut searched, mut other) = (0, None);
    for pages in 1..=MOST_PAGES {
        // A scenario that was read is read again with a number of pages.
        let Ok(few) = with_pages(scenario, pages) else {
            break;
        };
        let found = search::check(&few, &options, watch)?;
        let (verdict, breaks) = (found.verdict, !found.broken.is_empty());
        let found = Report {
            instance: Some(pages),
            ..found
        };
        if verdict == Verdict::Violated {
            return Ok(found);
        }
        if breaks {
            // What the scenario is about may hold where another claim breaks, and break with more pages: some are apart then.
            other.get_or_insert(found);
        }
        if verdict == Verdict::Inconclusive {
            break;
        }
        searched = pages;
    }
    if let Some(other) = other {
        return Ok(other);
    }
    report.unconfirmed = Some(Unconfirmed {
        broken,
        run,
        searched,
    });
    Ok(report)
}

/// The scenario with so many pages in each memslot. Pages of a kind are one of them, the first of the first kind and so on, and of any the last; a
/// part of a memslot is a page, and a word of the bitmap too.
pub(crate) fn with_pages(scenario: &Scenario, pages: u64) -> Result<Scenario, Box<ScenarioError>> {
    let mut source = scenario.source.clone();
    let few = Few {
        pages,
        kinds: &scenario.meant.kinds,
        takes_parts: Cell::new(false),
    };
    few.name(&mut source);
    for slot in source
        .get_mut("slots")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        slot["pages"] = pages.into();
    }
    if let Some(machine) = source.get_mut("machine").and_then(Value::as_object_mut) {
        if machine.contains_key("pages") {
            machine.insert("pages".to_owned(), pages.into());
        }
        if few.takes_parts.get() {
            machine.insert("word_bits".to_owned(), 1.into());
        }
    }
    Scenario::from_json(&scenario.file, &source)
}

/// A few pages in place of any number.
struct Few<'a> {
    pages: u64,
    kinds: &'a [String],
    /// Whether a step took parts of a memslot.
    takes_parts: Cell<bool>,
}

impl Few<'_> {
    /// Names pages wherever the text means some.
    fn name(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                if map.get("tables").is_some_and(|tables| tables == "any") {
                    map.insert("tables".to_owned(), json!([self.pages - 1]));
                }
                let clears = map
                    .get("step")
                    .is_some_and(|step| step == "clear-dirty-log");
                let parts = clears || map.contains_key("each_chunk");
                for key in ["chunk", "pages"] {
                    if parts && map.get(key).is_some_and(|pages| pages == "any") {
                        self.takes_parts.set(true);
                        map.insert(key.to_owned(), 1.into());
                    }
                }
                for key in ["pages", "tables", "always_dirty"] {
                    if let Some(list) = map.get_mut(key).and_then(Value::as_array_mut) {
                        list.iter_mut().for_each(|page| self.page(page));
                    }
                }
                if let Some(page) = map.get_mut("page") {
                    self.page(page);
                }
                map.values_mut().for_each(|value| self.name(value));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.name(item)),
            _ => {}
        }
    }

    /// A page for a word that means some.
    fn page(&self, page: &mut Value) {
        let Some(word) = page.as_str() else { return };
        let (slot, kind) = match word.split_once(':') {
            Some((slot, kind)) => (Some(slot), kind),
            None => (None, word),
        };
        let known = self.kinds.iter().position(|known| known == kind);
        let number = known.map_or(self.pages - 1, |kind| kind as u64 % self.pages);
        *page = match slot {
            Some(slot) => format!("{slot}:{number}").into(),
            None => number.into(),
        };
    }
}
