//! The story as data, for the page's script.

use serde_json::{Value, json};

use super::facts::Facts;
use super::story::Story;
use super::text;
use crate::trace::step::actor_name;

/// What is broken, in words.
pub(super) fn claim(story: &Story) -> String {
    match (story.invariant, story.pages.as_slice()) {
        (None, _) => "no claim is broken".to_owned(),
        (Some(invariant), []) => format!("{} is broken", invariant.name()),
        (Some(invariant), pages) => {
            format!("{} is broken for {}", invariant.name(), pages.join(", "))
        }
    }
}

fn facts(facts: &Facts) -> Value {
    json!({
        "stale": facts.stale, "records": facts.records(), "open": facts.is_open(), "forgotten": facts.is_forgotten(),
    })
}

/// What the page's script draws.
pub(super) fn data(story: &Story) -> Value {
    let rows: Vec<Value> = story
        .rows
        .iter()
        .map(|row| {
            let phrases: Vec<Value> = row
                .phrases
                .iter()
                .map(|phrase| json!({ "text": phrase.text, "first": phrase.first, "last": phrase.last }))
                .collect();
            json!({ "block": row.block, "lane": row.lane, "first": row.first, "last": row.last, "phrases": phrases })
        })
        .collect();
    let steps: Vec<Value> = story
        .notes
        .iter()
        .map(|note| {
            let mut step = facts(&note.facts);
            if let Value::Object(step) = &mut step {
                step.insert("lane".into(), note.lane.into());
                step.insert("block".into(), note.block.into());
                let who = actor_name(story.lanes[note.lane].actor);
                step.insert("who".into(), who.into());
                step.insert("name".into(), note.name.into());
                step.insert("page".into(), note.page.clone().into());
                step.insert("words".into(), note.words.clone().into());
                step.insert("changes".into(), note.changes.clone().into());
            }
            step
        })
        .collect();
    // Many steps change nothing that is shown: a state stands once for all of them.
    let mut states: Vec<Value> = Vec::new();
    let mut views: Vec<usize> = Vec::new();
    for (index, view) in story.views.iter().enumerate() {
        if index == 0 || story.views[index - 1] != *view {
            states.push(json!(view));
        }
        views.push(states.len() - 1);
    }
    let lanes: Vec<&str> = story.lanes.iter().map(|lane| lane.name.as_str()).collect();
    let overwritten = story.overwritten.as_ref().map(|over| {
        json!({ "step": over.step, "vcpu": over.vcpu, "entry": over.entry, "page": over.page })
    });
    json!({
        "title": text::headline(story), "claim": claim(story), "broken": story.invariant.is_some(),
        "head": text::head(story), "conclusion": story.conclusion, "size": text::size(story),
        "lanes": lanes, "rows": rows, "steps": steps, "states": states, "views": views, "slots": story.slots,
        "pages": story.pages, "written": story.written, "dropped": story.dropped, "path": story.path,
        "start": facts(&story.start), "overwritten": overwritten,
    })
}
