//! The story for a mailing list: plain ASCII, at most 72 columns, the schedule as the columns of a race diagram.

use super::story::Story;
use super::text::{headline, legend, mark, size};
use crate::plain::{paragraph, wrapping};

/// The width of a mail.
const COLUMNS: usize = 72;
/// Lanes that fit beside each other; of more, each line names its own.
const MOST_LANES: usize = 3;

pub(super) fn tell(story: &Story) -> String {
    let mut out = String::new();
    paragraph(&mut out, &headline(story), "", "", COLUMNS);
    out.push('\n');
    if !story.sentence.is_empty() {
        paragraph(&mut out, &story.sentence, "", "", COLUMNS);
        out.push('\n');
    }
    let mut field = |name: &str, text: &str| {
        let first = format!("  {name:<12}");
        paragraph(&mut out, text, &first, &" ".repeat(14), COLUMNS);
    };
    field("machine:", &story.machine);
    if let Some(claims) = &story.judged_by {
        field("judged by:", &claims.join(", "));
    }
    for scaled in &story.scaled {
        field("scaled:", scaled);
    }
    if !story.never_seen.is_empty() {
        field("never seen:", &story.never_seen.join("; "));
    }
    for mutation in &story.mutations {
        field("switched on:", mutation);
    }
    if let Some(invariant) = story.invariant {
        field("claim:", invariant.sentence());
    }
    out.push_str("\nTo reproduce:\n\n");
    command(&mut out, &story.reproduce);
    out.push_str("\nWhat happened:\n\n");
    happened(story, &mut out);
    if let Some(enclosed) = &story.enclosed {
        out.push_str(
            "\nThe scenario and the schedule (save this mail as mail.txt, quoted or\nnot):\n\n",
        );
        out.push_str(enclosed);
    }
    ascii(&out)
}

/// The story in sentences, the schedule, and the record of the page.
pub(super) fn happened(story: &Story, out: &mut String) {
    for sentence in &story.conclusion {
        paragraph(out, sentence, "  ", "  ", COLUMNS);
    }
    out.push('\n');
    paragraph(
        out,
        &format!("The schedule, {}:", size(story)),
        "",
        "",
        COLUMNS,
    );
    out.push('\n');
    if story.lanes.len() <= MOST_LANES {
        columns(story, out);
    } else {
        lines(story, out);
    }
    if let Some(legend) = legend(story) {
        out.push('\n');
        paragraph(out, &legend, "  ", "  ", COLUMNS);
    }
    if !story.path.is_empty() {
        out.push('\n');
        let head = format!("The record of {}:", story.pages[0]);
        paragraph(out, &head, "", "", COLUMNS);
        out.push('\n');
        for &step in &story.path {
            let note = &story.notes[step - 1];
            let who = format!("{}: {}", story.who(note), note.words);
            paragraph(
                out,
                &who,
                &format!("  {step:>4}  "),
                &" ".repeat(8),
                COLUMNS,
            );
            let changes = note.changes.join("; ");
            paragraph(out, &changes, &" ".repeat(10), &" ".repeat(10), COLUMNS);
        }
    }
}

/// A command on lines of its own, carried over with a backslash where it is long.
fn command(out: &mut String, command: &str) {
    let options = wrapping(COLUMNS - 2, "  ", "      ").break_words(false);
    let carried = textwrap::wrap(command, options).join(" \\\n");
    for line in carried.lines() {
        // A word that is longer than a line goes on at the margin: a blank there would end it.
        let mut line: Vec<char> = line.chars().collect();
        while line.len() > COLUMNS {
            out.extend(line.drain(..COLUMNS - 1));
            out.push_str("\\\n");
        }
        out.extend(line);
        out.push('\n');
    }
}

fn columns(story: &Story, out: &mut String) {
    let lanes = story.lanes.len().max(1);
    let width = (COLUMNS - 2) / lanes;
    let mut header = "  ".to_owned();
    let mut rule = "  ".to_owned();
    for lane in &story.lanes {
        let name: String = lane.name.chars().take(width - 2).collect();
        header.push_str(&format!("{name:<width$}"));
        rule.push_str(&format!("{:<width$}", "-".repeat(name.chars().count())));
    }
    out.push_str(header.trim_end());
    out.push('\n');
    out.push_str(rule.trim_end());
    out.push('\n');
    let mut block = 0;
    for row in &story.rows {
        if block != row.block && block != 0 {
            out.push('\n');
        }
        block = row.block;
        let lead = " ".repeat(2 + row.lane * width);
        for phrase in &row.phrases {
            let text = match mark(story, phrase.first, phrase.last) {
                "" => phrase.text.clone(),
                mark => format!("[{mark}] {}", phrase.text),
            };
            let room = lead.len() + width - 1;
            paragraph(out, &text, &lead, &format!("{lead} "), room);
        }
    }
}

fn lines(story: &Story, out: &mut String) {
    for row in &story.rows {
        let mark = mark(story, row.first, row.last);
        let first = format!(
            "  {:>3} {mark:<2} {:<8} ",
            row.block, story.lanes[row.lane].name
        );
        let rest = " ".repeat(first.chars().count());
        paragraph(out, &row.text(), &first, &rest, COLUMNS);
    }
}

/// Printable ASCII and line feeds only; a mail must not depend on anybody's character set.
pub(crate) fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '\n',
            ' '..='~' => c,
            '\u{2018}' | '\u{2019}' => '\'',
            '\u{201c}' | '\u{201d}' => '"',
            '\u{2010}'..='\u{2015}' => '-',
            _ => '?',
        })
        .collect()
}
