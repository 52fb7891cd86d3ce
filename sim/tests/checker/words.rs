//! Which words were drawn, as the reader read them.

use std::collections::BTreeMap;

use dirtysim::scenario::Scenario;
use serde_json::Value;

/// How many scenarios have a word: a step, `step.key`, `step.key=value`, `table.key`.
#[derive(Default)]
pub(crate) struct Words(pub BTreeMap<String, u32>);

impl Words {
    pub(crate) fn note(&mut self, scenario: &Scenario) {
        let mut words = Vec::new();
        walk("", &scenario.source, &mut words);
        words.sort();
        words.dedup();
        for word in words {
            *self.0.entry(word).or_default() += 1;
        }
    }

    pub(crate) fn of(&self, word: &str) -> u32 {
        self.0.get(word).copied().unwrap_or(0)
    }
}

/// Notes keys by the table that they are in, and what they are set to where that is a word.
fn walk(place: &str, value: &Value, words: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let own = match map.get("step") {
                Some(Value::String(step)) => step.as_str(),
                // What stands around steps, wherever it stands.
                _ if is_about_steps(place) => "around",
                _ => place,
            };
            for (key, value) in map {
                let key = if key == "step" {
                    own.to_owned()
                } else if key == "at" && map.contains_key("step") {
                    // Every step has it.
                    "around.at".to_owned()
                } else {
                    format!("{own}.{key}")
                };
                words.push(key.clone());
                walk(&key, value, words);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(place, item, words)),
        Value::String(word) if is_about_steps(place) => words.push(word.clone()),
        Value::String(word) => words.push(format!("{place}={word}")),
        _ => words.push(place.to_owned()),
    }
}

/// Whether what stands in that list is steps.
fn is_about_steps(place: &str) -> bool {
    [
        "steps",
        "forever",
        "until_clean",
        "any_number",
        "each_chunk",
        "try",
        "on_error",
    ]
    .iter()
    .any(|list| place.ends_with(&format!(".{list}")))
}
