//! The story as Chrome trace events (the JSON that Perfetto and chrome://tracing read): a track a lane, a slice a
//! block, a slice a step in it. One step is one microsecond: schedules have no time, and no other unit is finer there.

use serde_json::{Value, json};

use super::story::Story;

pub(super) fn tell(story: &Story) -> String {
    let mut events: Vec<Value> = vec![
        json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": story.scenario } }),
    ];
    for (index, lane) in story.lanes.iter().enumerate() {
        let tid = index + 1;
        events.push(json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": { "name": lane.name } }));
        events.push(json!({ "name": "thread_sort_index", "ph": "M", "pid": 1, "tid": tid, "args": { "sort_index": index } }));
    }
    for row in &story.rows {
        events.push(json!({
            "name": format!("block {}", row.block), "cat": "block", "ph": "X", "pid": 1, "tid": row.lane + 1,
            "ts": row.first - 1, "dur": row.last - row.first + 1, "args": { "what": row.text() },
        }));
    }
    let page = story.pages.first();
    for (index, note) in story.notes.iter().enumerate() {
        let mut args = serde_json::Map::new();
        args.insert("what".into(), note.words.clone().into());
        args.insert("step".into(), (index + 1).into());
        if let Some(page) = &note.page {
            args.insert("page".into(), page.clone().into());
        }
        if let Some(page) = page {
            args.insert(
                format!("{page} is"),
                if note.facts.stale { "stale" } else { "copied" }.into(),
            );
            args.insert(
                format!("{page} is recorded in"),
                note.facts.records().into(),
            );
        }
        events.push(json!({
            "name": note.name, "cat": "step", "ph": "X", "pid": 1, "tid": note.lane + 1, "ts": index, "dur": 1, "args": args,
        }));
    }
    let marks = [
        (story.written, "the write that is lost"),
        (story.dropped, "nobody accounts for the page any more"),
    ];
    for (step, name) in marks {
        if let Some(step) = step {
            let lane = story.notes[step - 1].lane;
            events.push(json!({
                "name": name, "cat": "mark", "ph": "i", "s": "p", "pid": 1, "tid": lane + 1, "ts": step - 1,
            }));
        }
    }
    let document = json!({
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": { "scenario": story.scenario, "claim": story.invariant.map(|invariant| invariant.name()), "reproduce": story.reproduce, "never_seen": story.never_seen },
    });
    let mut text = document.to_string();
    text.push('\n');
    text
}
