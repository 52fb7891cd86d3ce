//! A trace as lanes: one line a block (consecutive steps of one actor), and what became of the page.

use dirtysim_model::layout::{Large, Layout, Medium, Small};
use dirtysim_model::oracle::{self, Account};
use dirtysim_model::pages::PageSet;
use dirtysim_model::state::State;
use dirtysim_model::step::{Effect, Step, apply, describe, subject};

use super::decide::store_retires;
use crate::scenario::Scenario;
use crate::trace::step::actor_name;

/// One block of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Who: `vcpu0`, `thread0`.
    pub who: String,
    /// What it does, in a line.
    pub what: String,
    /// What that does to the page that is lost; empty if nothing.
    pub page: String,
}

/// A trace for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes {
    /// The page that the violation is about, by name, if it is about one.
    pub page: Option<String>,
    /// The blocks.
    pub blocks: Vec<Block>,
}

/// The lanes of a schedule.
#[must_use]
pub fn lanes(scenario: &Scenario, steps: &[Step]) -> Lanes {
    if let Ok(start) = scenario.start::<Small>() {
        return lanes_in(scenario, &start, steps);
    }
    if let Ok(start) = scenario.start::<Medium>() {
        return lanes_in(scenario, &start, steps);
    }
    let start = scenario
        .start::<Large>()
        .expect("the large layout has room for every scenario");
    lanes_in(scenario, &start, steps)
}

/// The page that the end of the schedule is about.
fn victim<L: Layout>(scenario: &Scenario, start: &State<L>, steps: &[Step]) -> Option<u32> {
    let machine = &scenario.machine;
    let mut state = start.clone();
    let mut effect = Effect::None;
    for step in steps {
        effect = apply(machine, &mut state, *step);
    }
    let mut sets = vec![oracle::stale_unaccounted(machine, &state)];
    if let Effect::Claim { postcopy } = effect {
        sets.insert(0, oracle::lost(machine, &state, postcopy));
    }
    sets.push(oracle::unarmed(machine, &state));
    sets.iter().find_map(|set| set.iter().next())
}

fn lanes_in<L: Layout>(scenario: &Scenario, start: &State<L>, steps: &[Step]) -> Lanes {
    let machine = &scenario.machine;
    let victim = victim(scenario, start, steps);
    let mut state = start.clone();
    let mut blocks: Vec<Block> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    for (index, &step) in steps.iter().enumerate() {
        let before = state.clone();
        let name = describe(machine, &before, step);
        let page = subject(machine, &before, step);
        apply(machine, &mut state, step);
        let retired = store_retires(&before, &state, step);
        let mut word = plain(name).to_owned();
        if let Some(page) = page.filter(|_| speaks_of_page(name)) {
            word.push_str(&format!(" {}", scenario.page_name(page)));
        }
        if retired {
            word.push_str(" (retires)");
        }
        words.push(word);
        if let Some(victim) = victim {
            notes.extend(note(machine, &before, &state, victim, name, page, retired));
        }
        let ends = steps
            .get(index + 1)
            .is_none_or(|next| next.actor != step.actor);
        if ends {
            notes.dedup();
            blocks.push(Block {
                who: actor_name(step.actor),
                what: phrase(&words),
                page: notes.join("; "),
            });
            words.clear();
            notes.clear();
        }
    }
    Lanes {
        page: victim.map(|page| scenario.page_name(page)),
        blocks,
    }
}

/// A trace's word where it is not plain enough for a reader who does not know the model.
fn plain(word: &'static str) -> &'static str {
    match word {
        "run" => "KVM_RUN",
        "enter-guest" => "into the guest",
        "retry-store" => "store again",
        "return-to-user" => "out of KVM_RUN",
        "set-bitmap-bit" => "set the bit",
        "copy-begin-or-end" => "copy: next",
        "copy-end" => "copy: done",
        "vcpus-stopped" => "every vCPU is out",
        "kick-vcpu" => "kick a vCPU",
        "grace-period" => "grace period",
        other => other,
    }
}

fn speaks_of_page(word: &str) -> bool {
    matches!(
        word,
        "store" | "retry-store" | "load" | "copy" | "send-fails" | "store-after-mark"
    ) || word.ends_with("-write")
        || word.ends_with("-mark")
        || word.starts_with("fault-map")
        || word.starts_with("fault-fast-map")
}

/// What a step did to the page.
fn note<L: Layout>(
    machine: &dirtysim_model::machine::Machine,
    before: &State<L>,
    after: &State<L>,
    page: u32,
    name: &str,
    subject: Option<u32>,
    retired: bool,
) -> Option<String> {
    let (was, is) = (before.stale.contains(page), after.stale.contains(page));
    if is && !was {
        return Some("changed: differs from its copy".into());
    }
    if is && retired && subject == Some(page) {
        return Some("changed again".into());
    }
    if was && !is {
        return Some("copied: equal again".into());
    }
    let records = |state: &State<L>| -> Vec<&'static str> {
        oracle::accounts(machine, state, page)
            .iter()
            .filter(|account| *account != Account::FullCopy)
            .map(Account::words)
            .collect()
    };
    let (had, has) = (records(before), records(after));
    if had == has {
        return None;
    }
    if has.is_empty() {
        return is.then(|| format!("no record of it is left (it was in {})", had.join(", ")));
    }
    let new: Vec<&str> = has
        .iter()
        .filter(|word| !had.contains(word))
        .copied()
        .collect();
    if new.is_empty() || name == "copy-begin-or-end" {
        return None;
    }
    Some(format!("recorded in {}", new.join(", ")))
}

/// Steps in a line: those of one call behind its name, repetitions counted.
fn phrase(words: &[String]) -> String {
    const FAMILIES: [(&str, &str); 12] = [
        ("harvest-", "harvest"),
        ("reset-", "RESET"),
        ("get-", "GET"),
        ("clear-", "CLEAR"),
        ("slot-", "enable the log"),
        ("fault-", "fault"),
        ("push-", "push"),
        ("pml-flush-", "flush PML"),
        ("its-save-", "ITS save"),
        ("pending-save-", "pending-table save"),
        ("its-restore-", "ITS restore"),
        ("kernel-write-", "kernel writer"),
    ];
    let mut parts: Vec<(Option<&str>, Vec<String>)> = Vec::new();
    for word in words {
        let family = FAMILIES.iter().find(|(prefix, _)| word.starts_with(prefix));
        let (name, rest) = match family {
            Some((prefix, name)) => (Some(*name), word[prefix.len()..].to_owned()),
            None => (None, word.clone()),
        };
        match parts.last_mut() {
            Some((last, items)) if *last == name && (name.is_some()) => items.push(rest),
            Some((None, items)) if name.is_none() => items.push(rest),
            _ => parts.push((name, vec![rest])),
        }
    }
    let mut out = Vec::new();
    for (name, items) in parts {
        let mut text: Vec<String> = Vec::new();
        let mut at = 0;
        while at < items.len() {
            let same = items[at..]
                .iter()
                .take_while(|item| **item == items[at])
                .count();
            text.push(if same > 1 {
                format!("{} ({same} times)", items[at])
            } else {
                items[at].clone()
            });
            at += same;
        }
        out.push(match name {
            Some(name) => format!("{name}: {}", text.join(", ")),
            None => text.join(", "),
        });
    }
    out.join("; ")
}
