//! What a search covered, in words: how far it came, and what it left out because something else stands for it.

use dirtysim_model::oracle::Invariant;
use serde_json::{Map, Value};

use crate::scenario::Scenario;
use crate::search::bounds::{Bounds, Many};
use crate::search::{Coverage, Reduced, Unconfirmed};

/// A coverage in the words of documents, and the limit that ended it.
pub(super) fn coverage_words(coverage: Coverage) -> (&'static str, Option<&'static str>) {
    match coverage {
        Coverage::Exhausted => ("exhausted", None),
        Coverage::Proved => ("proved", None),
        Coverage::Truncated(limit) => ("truncated", Some(limit.name())),
    }
}

/// For how many: the sentence of a proof, or what keeps the search from one where something is any.
pub(super) fn for_how_many(
    bounds: &Bounds,
    coverage: Coverage,
    json: &mut Map<String, Value>,
) -> String {
    let value = |many: Many| match many {
        Many::Any => Value::from("any"),
        Many::Number(number) => number.into(),
    };
    let mut map = Map::new();
    for (name, many) in bounds.dimensions() {
        map.insert(name.into(), value(many));
    }
    map.insert("vcpus".into(), bounds.vcpus.into());
    if let Some((entries, reserved)) = bounds.ring {
        map.insert("ring".into(), entries.into());
        map.insert("ring_reserved".into(), reserved.into());
    }
    json.insert("for_how_many".into(), map.into());
    match (coverage, bounds.stands_in_the_way()) {
        (Coverage::Proved, _) => format!("  {}\n", bounds.sentence()),
        (_, Some(why)) => {
            json.insert("not_proved".into(), why.into());
            format!("  not proved for any number: {why}\n")
        }
        (_, None) => String::new(),
    }
}

/// What breaks a claim where the others are anything, and was on no machine of few pages.
pub(super) fn unconfirmed(found: Option<&Unconfirmed>, json: &mut Map<String, Value>) -> String {
    let Some(found) = found else {
        return String::new();
    };
    let names: Vec<&str> = found.broken.iter().map(Invariant::name).collect();
    let mut text = format!(
        "  not proved: the abstraction has a run that no machine of {} pages or fewer has ({}):\n",
        found.searched,
        names.join(", ")
    );
    for step in &found.run {
        text.push_str(&format!("    {step}\n"));
    }
    let mut map = Map::new();
    map.insert("broken".into(), names.into());
    map.insert("searched_pages".into(), found.searched.into());
    map.insert("run".into(), found.run.clone().into());
    json.insert("unconfirmed".into(), map.into());
    text
}

/// The reductions that were made, and what was not interchangeable.
pub(super) fn reductions(
    scenario: &Scenario,
    reduced: &Reduced,
    json: &mut Map<String, Value>,
) -> String {
    let classes: Vec<Vec<String>> = reduced
        .classes
        .iter()
        .map(|class| {
            class
                .iter()
                .map(|frame| scenario.frame_name(*frame))
                .collect()
        })
        .collect();
    let words: Vec<String> = classes
        .iter()
        .map(|class| format!("{{{}}}", class.join(", ")))
        .collect();
    let pages = match (words.is_empty(), reduced.pages_everywhere) {
        (true, _) => "no pages".to_owned(),
        (false, true) if reduced.order_unknown => format!("{} in any order", words.join(" ")),
        (false, true) => words.join(" "),
        (false, false) => format!(
            "{} after the last re-arming of a running guest",
            words.join(" ")
        ),
    };
    let vcpus = if reduced.vcpus {
        "; vCPUs while no loop visits them"
    } else {
        ""
    };
    let rules: Vec<&str> = reduced.rules.iter().map(|rule| rule.name()).collect();
    let mut map = Map::new();
    map.insert("pages".into(), classes.into());
    map.insert("pages_everywhere".into(), reduced.pages_everywhere.into());
    map.insert("order_unknown".into(), reduced.order_unknown.into());
    map.insert("vcpus".into(), reduced.vcpus.into());
    map.insert("rules".into(), rules.clone().into());
    json.insert("reductions".into(), map.into());
    if reduced.classes.is_empty() && !reduced.vcpus && rules.is_empty() {
        return "  no reduction\n".to_owned();
    }
    format!(
        "  interchangeable: {pages}{vcpus}; {} rules for local steps\n",
        rules.len()
    )
}
