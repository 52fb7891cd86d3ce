//! Plain text of at most 72 columns, for a mailing list.

use super::{Debate, bounds, by_case, caveat, coverage};
use crate::debate::claim::{Outcome, Verdict};
use crate::debate::judge::{Evidence, Judgement};
use crate::plain::paragraph;
use crate::plot::grouped;

/// Columns of a line.
const COLUMNS: usize = 72;

/// Adds `text`, wrapped; the first line begins with `first`, the others with `rest`.
fn wrap(out: &mut String, first: &str, rest: &str, text: &str) {
    paragraph(out, text, first, rest, COLUMNS);
}

/// The report for a mailing list.
#[must_use]
pub fn mail(debate: &Debate) -> String {
    let mut out = String::new();
    let plain = |out: &mut String, text: &str| wrap(out, "", "", text);
    plain(&mut out, &debate.introduction());
    out.push('\n');
    plain(
        &mut out,
        &format!(
            "{}; {} scenarios, each decided over every interleaving within its bounds; {} states.",
            debate.count(),
            debate.scenarios(),
            grouped(debate.states())
        ),
    );
    out.push('\n');
    for verdict in Verdict::ALL {
        wrap(
            &mut out,
            &format!("{:<12} ", verdict.name()),
            "             ",
            verdict.meaning(),
        );
    }
    out.push('\n');
    for judgement in &debate.judgements {
        let claim = &judgement.claim;
        wrap(
            &mut out,
            &format!("{:<5} {:<12} ", claim.id, judgement.verdict.name()),
            "                   ",
            &claim.title,
        );
    }
    for judgement in &debate.judgements {
        out.push('\n');
        one(&mut out, judgement);
    }
    out.push('\n');
    if !debate.plots.is_empty() {
        plain(&mut out, "Figures, and the command for each:");
    }
    for plot in &debate.plots {
        wrap(
            &mut out,
            "  ",
            "  ",
            &format!("{} $ {}", plot.caption, plot.command),
        );
    }
    ascii(&out)
}

/// Without what a mail should not carry: typographic marks.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{2018}' | '\u{2019}' => '\'',
            '\u{201c}' | '\u{201d}' => '"',
            '\u{2013}' | '\u{2014}' => '-',
            c if c.is_ascii() => c,
            _ => '?',
        })
        .collect()
}

fn one(out: &mut String, judgement: &Judgement) {
    let claim = &judgement.claim;
    let title = format!("{}: {}", claim.id, claim.title);
    wrap(out, "", "    ", &title);
    out.push_str(&"-".repeat(title.chars().count().min(COLUMNS)));
    out.push('\n');
    wrap(out, "said:    ", "         ", &claim.said);
    wrap(out, "claim:   ", "         ", &claim.claim);
    wrap(out, "verdict: ", "         ", judgement.verdict.name());
    if let Some(condition) = &claim.condition {
        wrap(out, "iff:     ", "         ", condition);
    }
    wrap(out, "answer:  ", "         ", &claim.answer);
    if let Some(figure) = &judgement.figure {
        wrap(out, "figure:  ", "         ", &figure.text);
    }
    if let Some(open) = &claim.open {
        wrap(out, "open:    ", "         ", open);
    }
    wrap(out, "seen:    ", "         ", &coverage(judgement));
    if let Some(caveat) = caveat(judgement) {
        wrap(out, "but:     ", "         ", &caveat);
    }
    for row in by_case(judgement) {
        let case = &claim.cases[row[0].case];
        let machines: Vec<String> = row.iter().map(|e| e.on.slug()).collect();
        let states: u64 = row.iter().map(|e| e.decision.states).sum();
        let word = match row[0].outcome() {
            Some(Outcome::Holds) => "nothing is lost",
            Some(Outcome::Breaks(_)) => "violated",
            None => "inconclusive",
        };
        let outside = if case.within {
            ""
        } else {
            " (outside the condition)"
        };
        wrap(
            out,
            "  * ",
            "    ",
            &format!(
                "{}{outside} {word}: {}; {} states; on {}",
                case.sentence,
                bounds(row[0]),
                grouped(states),
                machines.join(", ")
            ),
        );
    }
    if let Some(evidence) = shown(judgement) {
        out.push('\n');
        trace(out, evidence);
    }
}

/// The trace that a claim's text shows: the shortest one.
fn shown(judgement: &Judgement) -> Option<&Evidence> {
    judgement
        .evidence
        .iter()
        .filter(|e| !e.steps.is_empty())
        .min_by_key(|e| (e.blocks(), e.steps.len(), e.scenario.name.clone()))
}

fn trace(out: &mut String, evidence: &Evidence) {
    let Some(lanes) = evidence.lanes() else {
        return;
    };
    let about = lanes
        .page
        .map_or(String::new(), |page| format!(", about {page}"));
    wrap(
        out,
        "  ",
        "  ",
        &format!("traces/{}.trace.jsonl{about}:", evidence.scenario.name),
    );
    for block in &lanes.blocks {
        let first = format!("  {:<8} ", block.who);
        wrap(out, &first, "           ", &block.what);
        if !block.page.is_empty() {
            wrap(out, "           -> ", "              ", &block.page);
        }
    }
    for sentence in &lanes.conclusion {
        wrap(out, "  ", "  ", sentence);
    }
}
