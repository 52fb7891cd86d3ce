//! What became of the scenarios that were drawn.

use std::collections::BTreeMap;

use dirtysim::search::Verdict;

use crate::alone::Looks;
use crate::compare::{Judged, Outcome};

/// What became of the scenarios.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) drawn: u32,
    pub(crate) holds: u32,
    pub(crate) violated: u32,
    pub(crate) inconclusive: u32,
    pub(crate) mutated: u32,
    /// Proved for any number of pages.
    pub(crate) proved: u32,
    /// Of those, what a search of the scenario as it is was settled by.
    pub(crate) settled: u32,
    pub(crate) too_large: u32,
    pub(crate) refused: BTreeMap<String, u32>,
    pub(crate) states: u64,
    pub(crate) raw_states: u64,
    pub(crate) looks: Looks,
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
        self.proved += u32::from(judged.proved);
        self.settled += u32::from(judged.settled);
        self.states += judged.states;
        self.raw_states += judged.raw_states as u64;
        for (rule, looks) in &judged.looks {
            *self.looks.entry(*rule).or_default() += looks;
        }
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
            "  {} with mutations; {} proved for any number of pages, which settled {} as they are; {} states, {} of the naive explorer",
            self.mutated, self.proved, self.settled, self.states, self.raw_states
        )?;
        let looks = self.looks.iter();
        let looks: Vec<String> = looks
            .map(|(rule, looks)| format!("{} {looks}", rule.name()))
            .collect();
        writeln!(
            f,
            "  states in which a step may be taken alone: {}",
            looks.join(", ")
        )?;
        let mut reasons: Vec<_> = self.refused.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons.into_iter().take(12) {
            writeln!(f, "  refused {count}: {reason}")?;
        }
        Ok(())
    }
}
