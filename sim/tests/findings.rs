//! Findings, recordings and the debate do not contradict each other: what a finding says of a claim is so in that claim's verdict and
//! words, and no recording shows a loss or an overflow that no finding names.

use std::path::{Path, PathBuf};

use dirtysim::debate::claim::{Claim, Verdict, claims};
use dirtysim::replay::calls::{ReplayOptions, replay_calls};
use dirtysim::trace::{Kind, TraceReader};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a finding does to a claim.
#[derive(Debug, PartialEq)]
enum Relation {
    /// The claim is refuted.
    Refutes,
    /// The claim's answer says these words.
    Limits(String),
    /// The claim is not refuted.
    BearsOut,
}

/// A finding: its heading or first words, all of it, and the claims that it speaks to.
struct Finding {
    name: String,
    text: String,
    speaks_to: Vec<(Relation, String)>,
}

const MARK: &str = "In the debate: ";

/// What stands behind [`MARK`]: "refutes P17b; limits P1 ("words"); bears out C1, C2." or "nothing".
fn relations(text: &str) -> Vec<(Relation, String)> {
    let (_, said) = text
        .split_once(MARK)
        .unwrap_or_else(|| panic!("it says what it is in the debate: {text}"));
    let mut said = said
        .split("\n\n")
        .next()
        .expect("a paragraph")
        .replace('\n', " ");
    let mut found = Vec::new();
    // Quoted words may have any mark in them.
    let mut quoted = Vec::new();
    while let Some((before, rest)) = said.split_once(" (\"") {
        let (words, after) = rest.split_once("\")").expect("the quotation ends");
        quoted.push(words.to_owned());
        said = format!("{before}#{}{after}", quoted.len() - 1);
    }
    let said = said.split('.').next().expect("a sentence");
    if said.starts_with("nothing") {
        return found;
    }
    for part in said.split("; ") {
        let part = part.trim();
        if let Some(ids) = part.strip_prefix("refutes ") {
            found.extend(ids.split(", ").map(|id| (Relation::Refutes, id.to_owned())));
        } else if let Some(ids) = part.strip_prefix("bears out ") {
            found.extend(
                ids.split(", ")
                    .map(|id| (Relation::BearsOut, id.to_owned())),
            );
        } else if let Some(id) = part.strip_prefix("limits ") {
            let (id, quote) = id
                .split_once('#')
                .expect("a limit quotes the claim's words");
            let words = quoted[quote.parse::<usize>().expect("a number")].clone();
            found.push((Relation::Limits(words), id.to_owned()));
        } else {
            panic!("unknown relation: {part}");
        }
    }
    found
}

/// The findings: a section each; in the last part, a paragraph each.
fn findings() -> Vec<Finding> {
    let path = repository().join("docs/findings.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    let (sections, last) = text
        .split_once("\n# The model's other orders that lose a page\n")
        .expect("the last part");
    let sections = sections.split("\n## ").skip(1).map(|section| {
        // The next part's introduction belongs to no finding.
        section.split("\n# ").next().expect("something")
    });
    let paragraphs = last.trim().split("\n\n");
    sections
        .chain(paragraphs)
        .map(|text| Finding {
            name: text.lines().next().expect("a line").to_owned(),
            text: text.to_owned(),
            speaks_to: relations(text),
        })
        .collect()
}

/// Everything that a claim says about its verdict.
fn words(claim: &Claim) -> String {
    let parts = [
        Some(&claim.answer),
        claim.condition.as_ref(),
        claim.open.as_ref(),
    ];
    parts
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_claims_verdict_and_words_are_what_a_finding_says_of_it() {
    let claims = claims();
    let mut spoken_to = 0;
    for finding in findings() {
        for (relation, id) in &finding.speaks_to {
            let claim = claims.iter().find(|claim| claim.id == *id);
            let claim = claim.unwrap_or_else(|| panic!("{}: no claim {id}", finding.name));
            spoken_to += 1;
            // A claim's file states its verdict, and a test of the debate holds the verdict to it.
            let agrees = match relation {
                Relation::Refutes => claim.expect == Verdict::Refuted,
                Relation::Limits(words_of_it) => words(claim).contains(words_of_it.as_str()),
                Relation::BearsOut => {
                    matches!(claim.expect, Verdict::Confirmed | Verdict::Conditional)
                }
            };
            assert!(
                agrees,
                "{}: {relation:?} {id}: {:?}, {}",
                finding.name,
                claim.expect,
                words(claim)
            );
        }
    }
    assert!(spoken_to > 5, "{spoken_to}");
}

/// The recordings of scripts: what is drawn at random leaves pages uncopied and breaks the ring's contract on purpose.
fn scripted() -> Vec<PathBuf> {
    let dir = repository().join("traces/kernel");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("it can be listed")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            name.ends_with(".trace.jsonl") && !name.contains(".random")
        })
        .collect();
    paths.sort();
    paths
}

/// The section that a line of a trace is in, counted from 1.
fn section_of(text: &str, line: u64) -> String {
    let rows = text.lines().take(line as usize);
    let sections = rows.filter_map(|row| {
        let row: Value = serde_json::from_str(row).expect("a row");
        row["section"].as_str().map(str::to_owned)
    });
    sections.last().expect("every call is in a section")
}

/// The finding that names a recording's section.
fn naming<'f>(findings: &'f [Finding], path: &Path, section: &str) -> &'f Finding {
    let file = path.file_name().expect("a name").to_string_lossy();
    findings
        .iter()
        .find(|finding| {
            finding.text.contains(&*file) && finding.text.contains(&format!("`{section}`"))
        })
        .unwrap_or_else(|| panic!("{file}: no finding names section `{section}`"))
}

#[test]
fn every_recorded_loss_is_a_finding_that_speaks_to_a_claim() {
    let findings = findings();
    let mut losses = 0;
    for path in scripted() {
        let text = std::fs::read_to_string(&path).expect("it is there");
        for (number, row) in (1..).zip(text.lines()) {
            let row: Value = serde_json::from_str(row).expect("a row");
            let differs = row["result"]["differs"].as_array();
            if row["call"] == "compare" && differs.is_some_and(|pages| !pages.is_empty()) {
                let finding = naming(&findings, &path, &section_of(&text, number));
                assert!(!finding.speaks_to.is_empty(), "{}", finding.name);
                losses += 1;
            }
        }
    }
    assert!(losses >= 4, "{losses}");
}

#[test]
fn every_recorded_overflow_is_a_finding_that_refutes_that_no_ring_overflows() {
    let findings = findings();
    let mut overflows = 0;
    for path in scripted() {
        let text = std::fs::read_to_string(&path).expect("it is there");
        let name = path.display().to_string();
        let reader = TraceReader::new(text.as_bytes(), &name).expect("a trace");
        let header = reader.header().clone();
        if header.kind != Kind::Call {
            continue;
        }
        let rows = reader.rows().expect("rows of calls");
        let outcome = replay_calls(&header, rows, &name, &ReplayOptions::default());
        let outcome = outcome.expect("it can be replayed");
        assert_eq!(
            outcome.divergences_total, 0,
            "the model does what the kernel did"
        );
        if let Some((_, line)) = outcome.violations.get("ring_never_overflows") {
            let finding = naming(&findings, &path, &section_of(&text, *line));
            let refutes = (Relation::Refutes, "P17b".to_owned());
            assert!(finding.speaks_to.contains(&refutes), "{}", finding.name);
            overflows += 1;
        }
    }
    assert!(overflows >= 1, "a recording shows one");
}
