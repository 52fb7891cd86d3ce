//! The document.

use serde_json::{Map, Value, json};

use super::{Debate, bounds};
use crate::debate::claim::Outcome;
use crate::debate::decide::Found;
use crate::debate::judge::Judgement;
use crate::fidelity::never_seen;

/// The evidence on a claim, an object for each scenario and each call.
#[must_use]
pub fn evidence_rows(judgement: &Judgement, with_paths: bool) -> Vec<Value> {
    let mut rows = Vec::new();
    for evidence in &judgement.evidence {
        let case = &judgement.claim.cases[evidence.case];
        let mut row = Map::new();
        row.insert("scenario".into(), evidence.scenario.name.clone().into());
        row.insert("sentence".into(), case.sentence.clone().into());
        row.insert("claim_says".into(), case.says.name().into());
        row.insert("meets_condition".into(), case.within.into());
        let outcome = evidence.outcome();
        let word = outcome.map_or("inconclusive", Outcome::name);
        row.insert("verdict".into(), word.into());
        row.insert("expected".into(), case.expected().name().into());
        row.insert(
            "as_expected".into(),
            (outcome == Some(case.expected())).into(),
        );
        let coverage = if outcome.is_some() {
            "exhausted"
        } else {
            "truncated"
        };
        row.insert("coverage".into(), coverage.into());
        if let Found::Inconclusive { limit } = evidence.decision.found {
            row.insert("limit".into(), limit.into());
        }
        row.insert("bounds".into(), bounds(evidence).into());
        if let Some(proof) = &evidence.proof {
            match &proof.proved {
                Ok(bounds) => row.insert("proved".into(), bounds.sentence().into()),
                Err(why) => row.insert("not_proved".into(), why.clone().into()),
            };
            if let Some(why) = &proof.pages_stay {
                row.insert("pages_stay".into(), why.clone().into());
            }
            row.insert("proof_states".into(), proof.states.into());
        }
        if !evidence.scenario.scaled.is_empty() {
            row.insert("scaled".into(), evidence.scenario.scaled.clone().into());
        }
        let never_seen = never_seen(&evidence.scenario.machine);
        if !never_seen.is_empty() {
            row.insert("never_seen".into(), never_seen.into());
        }
        if let Some(Outcome::Breaks(invariant)) = outcome {
            row.insert("invariant".into(), invariant.name().into());
            row.insert("minimal_blocks".into(), evidence.blocks().into());
            row.insert("minimal_steps".into(), evidence.steps.len().into());
            row.insert("shortest".into(), evidence.shortest.into());
        }
        row.insert("states".into(), evidence.decision.states.into());
        row.insert("transitions".into(), evidence.decision.transitions.into());
        row.insert("depth".into(), evidence.decision.depth.into());
        if with_paths {
            let name = &evidence.scenario.name;
            row.insert("file".into(), format!("scenarios/{name}.toml").into());
            if !evidence.steps.is_empty() {
                row.insert("trace".into(), format!("traces/{name}.trace.jsonl").into());
            }
            row.insert(
                "command".into(),
                format!("dirtysim check scenarios/{name}.toml").into(),
            );
        }
        rows.push(row.into());
    }
    for call in &judgement.calls {
        let verdict = if call.agrees() { "holds" } else { "violated" };
        rows.push(json!({
            "call": call.call, "claim_says": call.says, "answer": call.got,
            "meets_condition": call.within, "verdict": verdict,
        }));
    }
    if let Some(figure) = &judgement.figure {
        rows.push(json!({ "figure": figure.text, "command": figure.command }));
    }
    rows
}

/// A claim's object.
#[must_use]
pub fn claim(judgement: &Judgement, with_paths: bool) -> Map<String, Value> {
    let claim = &judgement.claim;
    let mut row = Map::new();
    row.insert("claim".into(), claim.id.clone().into());
    row.insert("title".into(), claim.title.clone().into());
    row.insert("said".into(), claim.said.clone().into());
    row.insert("sentence".into(), claim.claim.clone().into());
    row.insert("refuted_by".into(), claim.refuted_by.clone().into());
    row.insert("verdict".into(), judgement.verdict.name().into());
    row.insert("expected".into(), claim.expect.name().into());
    row.insert("as_expected".into(), judgement.as_expected().into());
    if let Some(condition) = &claim.condition {
        row.insert("condition".into(), condition.clone().into());
    }
    row.insert("answer".into(), claim.answer.clone().into());
    if let Some(open) = &claim.open {
        row.insert("open".into(), open.clone().into());
    }
    let never_seen = judgement.never_seen();
    if !never_seen.is_empty() {
        row.insert("never_seen".into(), never_seen.into());
    }
    row.insert("states".into(), judgement.states().into());
    row.insert(
        "evidence".into(),
        evidence_rows(judgement, with_paths).into(),
    );
    row
}

/// The whole document, as it stands in the directory.
#[must_use]
pub fn document(debate: &Debate) -> Value {
    let results: Vec<Value> = debate
        .judgements
        .iter()
        .map(|judgement| claim(judgement, true).into())
        .collect();
    let figures: Vec<Value> = debate
        .plots
        .iter()
        .map(|plot| {
            json!({
                "figure": plot.caption, "file": format!("plots/{}.svg", plot.name),
                "command": plot.command,
            })
        })
        .collect();
    let as_expected = debate.judgements.iter().all(Judgement::as_expected);
    json!({
        "command": "debate", "as_expected": as_expected, "states": debate.states(),
        "results": results, "figures": figures,
    })
}
