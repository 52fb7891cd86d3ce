//! A kept trace shows its bug, and not another way of losing the page: the mutation acts at the step that the bug is about, and without
//! it the same schedule saves the page.

use std::path::PathBuf;

use dirtysim::blame::without_mutations;
use dirtysim::bugs::BUGS;
use dirtysim::mutated::acts_at;
use dirtysim::replay::steps::{replay, scenario_of};
use dirtysim::scenario::{Expect, Scenario};
use dirtysim::trace::TraceReader;
use dirtysim_model::transition::Step;

/// The steps of a scenario's kept trace, with their words.
fn kept(scenario: &Scenario) -> (Vec<Step>, Vec<String>) {
    let name = &scenario.name;
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../traces/bugs/{name}.trace.jsonl"));
    let reader = TraceReader::open(&path).expect("every bug has a trace");
    let read = scenario_of(reader.header(), name).expect("the trace carries its scenario");
    let mut steps = Vec::new();
    replay(reader, name, read, |step| steps.push(step)).expect("every step is possible");
    let text = std::fs::read_to_string(&path).expect("it is there");
    let words = text
        .lines()
        .skip(1)
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("a row");
            row["do"]
                .as_str()
                .expect("every step has a word")
                .to_owned()
        })
        .collect();
    (steps, words)
}

#[test]
fn list() {
    for bug in BUGS {
        for scenario in bug.scenarios() {
            let (steps, words) = kept(&scenario);
            let acts = acts_at(&scenario, &steps);
            let at: Vec<String> = acts
                .iter()
                .map(|&n| {
                    if n == 0 {
                        "set-up".into()
                    } else {
                        format!("{n}:{}", words[n - 1])
                    }
                })
                .collect();
            let Expect::Violated(invariant) = scenario.expected() else {
                panic!()
            };
            let instead = without_mutations(&scenario, &steps);
            let right = scenario.clone().without_mutations();
            let verdict = match &instead {
                Some(instead) => {
                    let mut out = Vec::new();
                    dirtysim::replay::steps::write(&mut out, &right, instead, None, "test")
                        .unwrap();
                    let reader = TraceReader::new(out.as_slice(), "x").unwrap();
                    let read = scenario_of(reader.header(), "x").unwrap();
                    let r = replay(reader, "x", read, |_| {}).unwrap();
                    let text = String::from_utf8(out).unwrap();
                    let last = text.lines().last().unwrap().to_owned();
                    format!(
                        "{:?} {} {last}",
                        r.broken.iter().map(|i| i.name()).collect::<Vec<_>>(),
                        instead.len()
                    )
                }
                None => "no fit".into(),
            };
            println!(
                "{} [{}] {} steps, acts {:?}\n     words {}\n     without: {verdict}",
                scenario.name,
                invariant.name(),
                steps.len(),
                at,
                words.join(" ")
            );
        }
    }
}
