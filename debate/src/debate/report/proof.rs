//! For how many each claim's scenarios are proved, as a table.

use super::Debate;
use crate::debate::claim::Outcome;
use crate::debate::judge::{Evidence, Proof};
use crate::plot::grouped;

/// What some words are said how often, the longest first: of several dimensions before of one.
pub(super) fn counted(words: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut of: Vec<(String, usize)> = Vec::new();
    for word in words {
        match of.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => of.push((word, 1)),
        }
    }
    of.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    of
}

/// The table of proofs, for a page of documentation: of each claim, how many of the scenarios that hold are proved for any number of what,
/// and why the others, or their numbers of pages, are not. Empty where no proof was asked for.
#[must_use]
pub fn proofs(debate: &Debate) -> String {
    let rows: Vec<String> = debate
        .judgements
        .iter()
        .filter_map(|judgement| {
            let holds = judgement.evidence.iter();
            let holds: Vec<&Evidence> = holds
                .filter(|e| e.outcome() == Some(Outcome::Holds))
                .collect();
            let proofs: Vec<&Proof> = holds.iter().filter_map(|e| e.proof.as_ref()).collect();
            if proofs.is_empty() {
                return None;
            }
            let proved = proofs.iter().filter_map(|proof| proof.for_how_many());
            let not = proofs
                .iter()
                .filter_map(|proof| proof.proved.as_ref().err().cloned());
            let stay = proofs.iter().filter(|proof| proof.proved.is_ok());
            let stay = stay.filter_map(|proof| proof.pages_stay.clone());
            let cell = |words: Vec<(String, usize)>| {
                let words = words
                    .into_iter()
                    .map(|(word, count)| format!("{count}: {word}"));
                words.collect::<Vec<String>>().join("; ")
            };
            let states: u64 = proofs.iter().map(|proof| proof.states).sum();
            Some(format!(
                "| **{}** {} | {} | {} | {} | {} | {} |\n",
                judgement.claim.id,
                judgement.claim.title,
                holds.len(),
                cell(counted(proved)),
                cell(counted(stay)),
                cell(counted(not)),
                grouped(states),
            ))
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "| claim | scenarios that hold | proved, for any number of | pages as written, because of | not proved | states |\n|---|---:|---|---|---|---:|\n{}",
        rows.concat()
    )
}
