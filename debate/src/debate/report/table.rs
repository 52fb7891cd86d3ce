//! The table of verdicts, for a terminal and for a page of documentation.

use super::{Debate, caveat, coverage};

/// The table for a terminal.
#[must_use]
pub fn terminal(debate: &Debate) -> String {
    let mut out = String::new();
    for judgement in &debate.judgements {
        let claim = &judgement.claim;
        let flag = if judgement.as_expected() {
            ""
        } else {
            "  NOT as expected"
        };
        out.push_str(&format!(
            "{:<5} {:<12} {}{flag}\n",
            claim.id,
            judgement.verdict.name(),
            claim.title
        ));
        if let Some(condition) = &claim.condition {
            out.push_str(&format!("                   iff {condition}\n"));
        }
        if let Some(figure) = &judgement.figure {
            out.push_str(&format!("                   {}\n", figure.text));
        }
        out.push_str(&format!("                   {}\n", coverage(judgement)));
        if let Some(caveat) = caveat(judgement) {
            out.push_str(&format!("                   {caveat}\n"));
        }
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The table for a page of documentation: claims, verdicts, conditions, and what was seen.
#[must_use]
pub fn markdown(debate: &Debate) -> String {
    let mut out =
        String::from("| claim | verdict | what it comes to | seen |\n|---|---|---|---|\n");
    for judgement in &debate.judgements {
        let claim = &judgement.claim;
        let mut answer = cell(&claim.answer);
        if let Some(condition) = &claim.condition {
            answer = format!("Exactly if {}. {answer}", cell(condition));
        }
        if let Some(open) = &claim.open {
            answer.push_str(&format!(" Open: {}", cell(open)));
        }
        out.push_str(&format!(
            "| **{}** {} | {} | {answer} | {}{} |\n",
            claim.id,
            cell(&claim.title),
            judgement.verdict.name(),
            coverage(judgement),
            caveat(judgement).map_or_else(String::new, |caveat| format!("; {caveat}"))
        ));
    }
    out
}
