//! The table of verdicts, for a terminal and for a README.

use super::{Debate, coverage};

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
    }
    out
}

/// The table for a Markdown file.
#[must_use]
pub fn markdown(debate: &Debate) -> String {
    let mut out = String::from("| claim | verdict | what it comes to |\n|---|---|---|\n");
    for judgement in &debate.judgements {
        let claim = &judgement.claim;
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        out.push_str(&format!(
            "| {}: {} | {} | {} |\n",
            claim.id,
            cell(&claim.title),
            judgement.verdict.name(),
            cell(&claim.answer)
        ));
    }
    out
}
