//! A checker for the checker: random scenarios, and a plain explorer that shares nothing with the search.
//!
//! `cargo bench -p dirtysim --bench checker` judges many more of them.

mod alone;
mod compare;
mod generate;
mod known;
mod naive;
mod tally;
mod words;

use dirtysim::bugs::BUGS;
use dirtysim::scenario::vocabulary::VOCABULARY;
use dirtysim::scenario::{Scenario, builtins, mutation_scenarios};
use dirtysim::search::{Rule, Verdict};
use dirtysim_model::state::layout::Small;
use dirtysim_model::words::mutation::Mutation;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use alone::{Looks, look_at_all};
use compare::{Effort, Outcome, compare};
use generate::{NUMBERS, scenario};
use known::{TABLES, instead_of};
use naive::explore;
use tally::Tally;
use words::Words;

/// Lists of numbers, the same in every run.
fn numbers() -> (TestRunner, impl Strategy<Value = Vec<u32>>) {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let runner = TestRunner::new_with_rng(config, rng);
    (runner, prop::collection::vec(any::<u32>(), NUMBERS))
}

/// Scenarios that are compared here; those that are refused or too large come on top.
const COMPARED: u32 = 300;

#[test]
fn the_search_says_what_a_plain_explorer_says() {
    let effort = Effort {
        most_states: 1_000,
        seeds: 5,
    };
    let (mut runner, strategy) = numbers();
    let mut tally = Tally::default();
    while tally.compared() < COMPARED {
        let tree = strategy
            .new_tree(&mut runner)
            .expect("numbers can be drawn");
        let text = scenario(&tree.current());
        match compare(&text, effort) {
            Ok(outcome) => tally.note(&outcome),
            Err(why) => panic!("{why}\n{text}"),
        }
    }
    println!("{tally}");
    let least = COMPARED / 5;
    assert!(tally.holds > least && tally.violated > least, "{tally}");
    assert!(tally.proved > 0 && tally.settled > 0, "{tally}");
}

#[test]
fn every_word_of_the_language_is_drawn_with_every_argument() {
    let (mut runner, strategy) = numbers();
    let mut words = Words::default();
    let mut read = 0;
    for _ in 0..10_000 {
        let tree = strategy
            .new_tree(&mut runner)
            .expect("numbers can be drawn");
        if let Ok(scenario) = Scenario::from_toml("drawn", &scenario(&tree.current())) {
            words.note(&scenario);
            read += 1;
        }
    }
    let mut rare = Vec::new();
    let mut ask = |word: String, least: u32| {
        let count = words.of(&word);
        if count < least {
            rare.push(format!("{word}: {count}"));
        }
    };
    for (word, keys, _) in VOCABULARY {
        ask((*word).to_owned(), 100);
        keys.iter()
            .for_each(|key| ask(format!("{word}.{key}"), 100));
    }
    for (table, _) in TABLES.iter().filter(|(table, _)| *table != "step") {
        for key in instead_of(table, "nonsense = 1") {
            ask(
                format!("{table}.{key}"),
                if table.is_empty() { 1 } else { 100 },
            );
        }
    }
    for key in around() {
        ask(format!("around.{key}"), 100);
    }
    for (word, key) in [
        ("harvest-rings", "way"),
        ("harvest-rings", "into"),
        ("get-dirty-log", "into"),
        ("vmm-write", "log"),
    ] {
        let unknown = format!("step = \"{word}\"\npage = 0\n{key} = \"?\"");
        for choice in instead_of("step", &unknown) {
            ask(format!("{word}.{key}={choice}"), 25);
        }
    }
    for (table, key) in [
        (".machine", "arch"),
        (".machine", "kernel"),
        (".machine", "mmu"),
        (".writers.kernel_record", "log"),
        (".writers.devices", "log"),
        (".writers.devices", "log_in"),
        (".protocol", "on_ring_full"),
    ] {
        for choice in instead_of(table, &format!("{key} = \"?\"")) {
            ask(format!("{table}.{key}={choice}"), 25);
        }
    }
    for mutation in Mutation::ALL {
        ask(format!(".mutations={}", mutation.name()), 1);
    }
    assert!(
        rare.is_empty(),
        "of {read} that were read, too few have {rare:#?}"
    );
}

/// Scenarios that have more states are not looked at.
const FEW_STATES: usize = 3_000;

/// A GET with rings beside a bitmap, and a RESET behind the last store: few scenarios have them.
const SELDOM: [&str; 2] = [
    r#"
name = "a-get-with-rings"
[machine]
arch = "arm64"
ring = { entries = 2, reserved = 1 }
ring_with_bitmap = true
pages = 1
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", "get-dirty-log", "copy", "pause-vcpus", "harvest-rings", "copy", "finish"]
"#,
    r#"
name = "a-reset-behind-the-last-store"
[machine]
arch = "x86"
ring = { entries = 4, reserved = 1 }
pages = 1
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", "harvest-rings", "reset-rings", "copy", "pause-vcpus", "harvest-rings", "copy", "finish"]
"#,
];

/// Everything that the program comes with.
fn all_scenarios() -> impl Iterator<Item = Scenario> {
    let bugs = BUGS.iter().flat_map(|bug| bug.scenarios());
    builtins()
        .into_iter()
        .chain(mutation_scenarios())
        .chain(bugs)
}

#[test]
fn a_step_that_is_taken_alone_needs_no_interleaving() {
    let seldom = SELDOM.map(|text| {
        let scenario = Scenario::from_toml("seldom", text).expect("it is a scenario");
        (scenario, 10 * FEW_STATES)
    });
    let few = all_scenarios().map(|scenario| (scenario, FEW_STATES));
    let mut looks = Looks::new();
    let mut scenarios = 0;
    for (scenario, most) in few.chain(seldom) {
        if let Some(explored) = explore::<Small>(&scenario, most) {
            let found = look_at_all(&scenario, &explored)
                .unwrap_or_else(|why| panic!("{}: {why}", scenario.name));
            for (rule, number) in found {
                *looks.entry(rule).or_default() += number;
            }
            scenarios += 1;
        }
    }
    println!("{scenarios} scenarios, {looks:?}");
    let idle: Vec<&Rule> = Rule::ALL
        .iter()
        .filter(|rule| !looks.contains_key(rule))
        .collect();
    assert!(idle.is_empty(), "rules of which nothing was seen: {idle:?}");
}

/// What was wrong once, as it was found or made smaller by hand; each file says what it was.
const FOUND: &[(&str, &str)] = &[
    (
        "why-a-vcpu-leaves",
        include_str!("found/why-a-vcpu-leaves.toml"),
    ),
    (
        "answer-of-the-step-before",
        include_str!("found/answer-of-the-step-before.toml"),
    ),
    (
        "pre-fault-after-a-fault",
        include_str!("found/pre-fault-after-a-fault.toml"),
    ),
    (
        "all-of-a-short-word",
        include_str!("found/all-of-a-short-word.toml"),
    ),
    (
        "a-wait-without-a-stop",
        include_str!("found/a-wait-without-a-stop.toml"),
    ),
    (
        "like-vcpus-after-such-a-wait",
        include_str!("found/like-vcpus-after-such-a-wait.toml"),
    ),
    (
        "an-entry-that-nobody-filled",
        include_str!("found/an-entry-that-nobody-filled.toml"),
    ),
    (
        "two-harvests-at-once",
        include_str!("found/two-harvests-at-once.toml"),
    ),
    (
        "clear-by-the-bits-before",
        include_str!("found/clear-by-the-bits-before.toml"),
    ),
    (
        "clear-by-the-bits-before-too",
        include_str!("found/clear-by-the-bits-before-too.toml"),
    ),
    (
        "clear-by-the-slots-first-bits",
        include_str!("found/clear-by-the-slots-first-bits.toml"),
    ),
    (
        "clear-by-the-slots-first-bits-too",
        include_str!("found/clear-by-the-slots-first-bits-too.toml"),
    ),
    (
        "the-bit-of-another-page",
        include_str!("found/the-bit-of-another-page.toml"),
    ),
    (
        "a-record-behind-the-check",
        include_str!("found/a-record-behind-the-check.toml"),
    ),
];

#[test]
fn what_was_found_stays_right() {
    let effort = Effort {
        most_states: 20_000,
        seeds: 50,
    };
    let mut wrong = Vec::new();
    for (name, text) in FOUND {
        let is_violated = text.contains("\nexpect = { violated");
        match std::panic::catch_unwind(|| compare(text, effort)) {
            Ok(Ok(Outcome::Judged(judged))) => {
                if (judged.verdict == Verdict::Violated) != is_violated {
                    wrong.push(format!("{name}: {:?}", judged.verdict));
                }
            }
            Ok(Ok(_)) => wrong.push(format!("{name} is refused or too large")),
            Ok(Err(why)) => wrong.push(format!("{name}: {why}")),
            Err(_) => wrong.push(format!("{name}: a panic")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What can stand around steps.
fn around() -> Vec<String> {
    let mut keys = instead_of("step", "step = \"finish\"\nnonsense = 1");
    keys.retain(|key| key != "step");
    keys
}

#[test]
fn the_rows_of_the_language_have_every_argument() {
    let around = around();
    for (word, keys, _) in VOCABULARY {
        // What some words cannot do without, and others do not know.
        let pages = if *word == "clear-dirty-log" {
            "1"
        } else {
            "[0]"
        };
        let mut known = instead_of(
            "step",
            &format!(
                "step = \"{word}\"\npage = 0\npages = {pages}\nthread = 1\nslot = \"ram\"\nname = \"asked\"\nnonsense = 1"
            ),
        );
        known.retain(|key| key != "step" && !around.contains(key));
        known.sort();
        let mut keys = keys.to_vec();
        keys.sort();
        assert_eq!(known, keys, "{word}");
    }
}
