//! What was drawn, as the reader read it, and what became of it.

use std::collections::BTreeMap;

use dirtysim::scenario::Scenario;
use dirtysim::search::Verdict;
use serde_json::Value;

use crate::compare::{Judged, Outcome};

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
        "each_chunk",
        "try",
        "on_error",
    ]
    .iter()
    .any(|list| place.ends_with(&format!(".{list}")))
}

/// What became of the scenarios.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) drawn: u32,
    pub(crate) holds: u32,
    pub(crate) violated: u32,
    pub(crate) inconclusive: u32,
    pub(crate) mutated: u32,
    pub(crate) too_large: u32,
    pub(crate) refused: BTreeMap<String, u32>,
    pub(crate) states: u64,
    pub(crate) raw_states: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, outcome: &Outcome) {
        self.drawn += 1;
        match outcome {
            Outcome::Refused(why) => *self.refused.entry(reason(why)).or_default() += 1,
            Outcome::TooLarge => self.too_large += 1,
            Outcome::Judged(judged) => self.judged(judged),
        }
    }

    fn judged(&mut self, judged: &Judged) {
        match judged.verdict {
            Verdict::Holds => self.holds += 1,
            Verdict::Violated => self.violated += 1,
            Verdict::Inconclusive => self.inconclusive += 1,
        }
        self.mutated += u32::from(judged.mutated);
        self.states += judged.states;
        self.raw_states += judged.raw_states as u64;
    }

    pub(crate) fn compared(&self) -> u32 {
        self.holds + self.violated + self.inconclusive
    }
}

/// A complaint without its place and the words that it is about.
fn reason(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default();
    let said = line.split_once(": ").map_or(line, |(_, said)| said);
    let mut text: String = said
        .chars()
        .map(|c| if c.is_ascii_digit() { 'N' } else { c })
        .collect();
    text.truncate(90);
    text
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let refused: u32 = self.refused.values().sum();
        let share = |count: u32| f64::from(count) * 100.0 / f64::from(self.drawn.max(1));
        writeln!(f, "{} scenarios drawn:", self.drawn)?;
        for (what, count) in [
            ("hold", self.holds),
            ("are violated", self.violated),
            ("are inconclusive", self.inconclusive),
            ("are too large", self.too_large),
            ("are refused", refused),
        ] {
            writeln!(f, "  {:5.1} % {what}: {count}", share(count))?;
        }
        writeln!(
            f,
            "  {} with mutations; {} states, {} of the naive explorer",
            self.mutated, self.states, self.raw_states
        )?;
        let mut reasons: Vec<_> = self.refused.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons.into_iter().take(12) {
            writeln!(f, "  refused {count}: {reason}")?;
        }
        Ok(())
    }
}
