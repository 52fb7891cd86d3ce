//! The story for a terminal: a lane each for vCPUs, kernel writers, devices and the VMM, one line a block.

use super::story::Story;
use crate::fidelity;
use crate::plain::{paragraph, printable};

/// The width that is written for.
const COLUMNS: usize = 100;

pub(super) fn tell(story: &Story) -> String {
    let mut out = String::new();
    out.push_str(&headline(story));
    out.push('\n');
    for line in head(story) {
        paragraph(&mut out, &line, "  ", "    ", COLUMNS);
    }
    out.push_str("\nWhat happened\n");
    for sentence in &story.conclusion {
        paragraph(&mut out, sentence, "  ", "  ", COLUMNS);
    }
    out.push_str(&format!("\nThe schedule: {}\n", size(story)));
    lanes(story, &mut out);
    if !story.path.is_empty() {
        out.push_str(&format!(
            "\nThe record of {}, from where there was nothing to say about it\n",
            story.pages[0]
        ));
        record(story, &mut out);
    }
    out.push_str(&format!("\nTo see it again: {}\n", story.reproduce));
    printable(&out).into_owned()
}

/// What is broken, in a line.
pub(super) fn headline(story: &Story) -> String {
    match (story.invariant, story.pages.as_slice()) {
        (None, _) => format!("{}: no claim is broken", story.scenario),
        (Some(invariant), []) => format!("{}: {} is broken", story.scenario, invariant.name()),
        (Some(invariant), pages) => format!(
            "{}: {} is broken for {}",
            story.scenario,
            invariant.name(),
            pages.join(", ")
        ),
    }
}

/// What the scenario and its machine are, a line each.
pub(super) fn head(story: &Story) -> Vec<String> {
    let mut lines = Vec::new();
    if !story.sentence.is_empty() {
        lines.push(story.sentence.clone());
    }
    lines.push(story.machine.clone());
    if let Some(claims) = &story.judged_by {
        lines.push(format!("judged by: {}", claims.join(", ")));
    }
    for scaled in &story.scaled {
        lines.push(format!("scaled: {scaled}"));
    }
    if !story.never_seen.is_empty() {
        lines.push(fidelity::sentence(&story.never_seen));
    }
    if !story.mutations.is_empty() {
        lines.push(format!("switched on: {}", story.mutations.join(", ")));
    }
    if let Some(invariant) = story.invariant {
        lines.push(format!("broken: {}", invariant.sentence()));
    }
    lines
}

/// How long the schedule is, and who has no part in it.
pub(super) fn size(story: &Story) -> String {
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    let mut size = format!(
        "{} in {}",
        count(story.notes.len(), "step"),
        count(story.blocks, "block")
    );
    if !story.idle.is_empty() {
        let verb = if story.idle.len() == 1 {
            "takes"
        } else {
            "take"
        };
        size.push_str(&format!("; {} {verb} no step", story.idle.join(", ")));
    }
    size
}

/// The mark of some steps: `W` where the write that is lost is made, `!` where the last record goes.
pub(super) fn mark(story: &Story, first: usize, last: usize) -> &'static str {
    let has = |step: Option<usize>| step.is_some_and(|step| (first..=last).contains(&step));
    match (has(story.written), has(story.dropped)) {
        (true, true) => "W!",
        (true, false) => "W",
        (false, true) => "!",
        (false, false) => "",
    }
}

/// What the marks that occur mean.
pub(super) fn legend(story: &Story) -> Option<String> {
    let mut legend = Vec::new();
    if story.written.is_some() {
        legend.push("W: the write that is lost");
    }
    if story.dropped.is_some() {
        legend.push("!: from here on nobody accounts for the page");
    }
    (!legend.is_empty()).then(|| legend.join("; "))
}

fn lanes(story: &Story, out: &mut String) {
    let widths: Vec<usize> = story
        .lanes
        .iter()
        .map(|lane| lane.name.chars().count().max(2))
        .collect();
    let mut header = format!("  {:>5}  {:>9} ", "block", "steps");
    for (lane, width) in story.lanes.iter().zip(&widths) {
        header.push_str(&format!(" {:^width$} ", lane.name));
    }
    out.push_str(header.trim_end());
    out.push('\n');
    let margin = header.chars().count() + 1;
    let mut block = 0;
    for row in &story.rows {
        let number = if row.block == block {
            String::new()
        } else {
            row.block.to_string()
        };
        block = row.block;
        let steps = if row.first == row.last {
            row.first.to_string()
        } else {
            format!("{}-{}", row.first, row.last)
        };
        let mut line = format!("  {number:>5}  {steps:>9} ");
        for (lane, width) in widths.iter().enumerate() {
            let mark = match (lane == row.lane, mark(story, row.first, row.last)) {
                (false, _) => ".",
                (true, "") => "*",
                (true, mark) => mark,
            };
            line.push_str(&format!(" {mark:^width$} "));
        }
        line.push(' ');
        let rest = " ".repeat(margin);
        // Many lanes leave no room beside them.
        let columns = COLUMNS.max(margin + 40);
        paragraph(out, &row.text(), &line, &rest, columns);
    }
    if let Some(legend) = legend(story) {
        out.push_str(&format!("  {legend}\n"));
    }
}

fn record(story: &Story, out: &mut String) {
    let who = story
        .lanes
        .iter()
        .map(|lane| lane.name.chars().count())
        .max()
        .unwrap_or(0);
    for &step in &story.path {
        let note = &story.notes[step - 1];
        let mark = mark(story, step, step);
        let first = format!("  {step:>5} {mark:<2} {:<who$}  ", story.who(note));
        let rest = " ".repeat(first.chars().count());
        paragraph(out, &note.words, &first, &rest, COLUMNS);
        let deeper = format!("{rest}  ");
        for change in &note.changes {
            paragraph(
                out,
                &format!("-> {change}"),
                &deeper,
                &format!("{deeper}   "),
                COLUMNS,
            );
        }
    }
}
