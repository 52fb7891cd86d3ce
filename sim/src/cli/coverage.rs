//! What a search covered, in words: how far it came, and what it left out because something else stands for it.

use serde_json::{Map, Value};

use crate::scenario::Scenario;
use crate::search::{Coverage, Reduced};

/// A coverage in the words of documents, and the limit that ended it.
pub(super) fn coverage_words(coverage: Coverage) -> (&'static str, Option<&'static str>) {
    match coverage {
        Coverage::Exhausted => ("exhausted", None),
        Coverage::Truncated(limit) => ("truncated", Some(limit.name())),
    }
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
