//! What if: the questions of a page, asked of the model here, and answered as the program itself would.

use dirtysim::explain::Story;
use dirtysim::explain::what_if::{Question, answer};
use dirtysim::replay::steps;
use dirtysim::scenario::{self, Expect};
use dirtysim::trace::{TraceReader, enclosed};
use serde_json::{Value, json};

use super::{builtin, failure};

/// The question of a page, with more in it.
pub(crate) fn ask(question: &Question, more: Value) -> Value {
    let mut question = serde_json::to_value(question).expect("it can be written");
    for (key, value) in more.as_object().expect("an object") {
        question[key] = value.clone();
    }
    serde_json::from_str(&answer(&question.to_string())).expect("an answer is JSON")
}

/// The question of the page of a scenario's first failure, as long as it is, and its story.
fn page(name: &str) -> (Question, Story) {
    let scenario = builtin(name);
    let failure = failure(&scenario);
    let target = Some(failure.invariant);
    let question = Question::new(&scenario, &failure.steps, target);
    let story = Story::new(&scenario, &failure.steps, target, String::new());
    (question, story.expect("the schedule is possible"))
}

/// What `dirtysim replay` says of the schedule that an answer carries: the claims that it breaks.
fn replayed(answer: &Value) -> Vec<&'static str> {
    let mail = answer["mail"].as_str().expect("there is one");
    let trace = enclosed::trace(mail).expect("it carries a schedule");
    let trace = trace.expect("which is right");
    let reader = TraceReader::new(trace.as_bytes(), "mail").expect("a trace");
    let scenario = steps::scenario_of(reader.header(), "mail").expect("a scenario");
    let replay = steps::replay(reader, "mail", scenario, |_| {}).expect("it can be replayed");
    assert_eq!(replay.differences_total, 0, "{mail}");
    replay.broken.iter().map(|claim| claim.name()).collect()
}

#[test]
fn the_page_s_own_schedule_is_told_as_the_program_tells_it() {
    for scenario in scenario::builtins() {
        if scenario.expected() == Expect::Holds {
            continue;
        }
        let (question, story) = page(&scenario.name);
        let told = ask(&question, json!({}));
        assert_eq!(told["story"]["conclusion"], json!(story.conclusion));
        assert_eq!(
            told["story"]["steps"].as_array().map(Vec::len),
            Some(story.notes.len())
        );
        let claim = story.invariant.expect("it is broken").name();
        assert!(replayed(&told).contains(&claim), "{}", scenario.name);
    }
}

#[test]
fn every_possible_step_can_be_taken_at_every_place_and_replay_agrees_with_what_is_told() {
    let mut whole = 0;
    for name in ["copy-before-reset", "reset-signal"] {
        let scenario = builtin(name);
        let failure = failure(&scenario);
        let question = Question::new(&scenario, &failure.steps, Some(failure.invariant));
        let steps = failure.steps.len();
        // Some places, the first and the last among them: each costs a replay for each of its steps.
        for at in (0..steps).step_by(17).chain([steps - 1]) {
            let possible = ask(&question, json!({ "at": at }));
            let possible = possible["possible"].as_array().expect("a list").clone();
            assert!(!possible.is_empty(), "{name} {at}");
            for step in possible {
                let take = json!({ "at": at, "step": step["step"] });
                let told = ask(&question, json!({ "takes": [take] }));
                assert_eq!(told["error"], Value::Null, "{name} {at} {step}");
                let broken = replayed(&told);
                let claim = told["story"]["claim"].as_str().expect("words");
                match told["story"]["broken"].as_bool() {
                    Some(true) => {
                        assert!(broken.iter().any(|name| claim.starts_with(name)), "{claim}")
                    }
                    _ => assert!(broken.is_empty(), "{name} {at} {step}: {broken:?}"),
                }
                // What would break at once is said before it is taken.
                for breaks in step["breaks"].as_array().expect("a list") {
                    assert!(
                        broken.iter().any(|name| breaks == name),
                        "{name} {at} {step}"
                    );
                }
                // And on from there, to the end.
                let takes = json!([take, { "at": at + 1, "step": null }]);
                let told = ask(&question, json!({ "takes": takes }));
                let words = told["story"]["conclusion"][0].as_str().expect("a sentence");
                assert!(!words.contains("not over"), "{name} {at} {step}: {words}");
                whole += u32::from(words.contains("the schedule comes to its end"));
            }
        }
    }
    // The reader who argues is sometimes right: taken another way, nothing is lost.
    assert!(whole > 0);
}

#[test]
fn what_cannot_be_answered_is_said() {
    let (question, story) = page("copy-before-reset");
    let past = story.notes.len() + 1;
    let nobody = json!({ "who": "vcpu7", "do": "store", "page": "ram:0" });
    for (more, says) in [
        (json!({ "at": past }), "there is no step"),
        (
            json!({ "takes": [{ "at": past, "step": null }] }),
            "there is no step",
        ),
        (
            json!({ "takes": [{ "at": 3, "step": nobody }] }),
            "step 4: ",
        ),
        (json!({ "target": "no_such_claim" }), "no claim"),
        (json!({ "scenario": {} }), "this page"),
        (json!({ "surprise": 1 }), "surprise"),
    ] {
        let told = ask(&question, more);
        let error = told["error"].as_str().expect("an error");
        assert!(error.contains(says), "{error}");
    }
    assert!(answer("no JSON").contains("error"));
}
