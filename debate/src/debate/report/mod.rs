//! What the debate came to, written down: a page, a text for a list, a document, traces and scenarios.

pub mod directory;
mod html;
mod json;
mod proof;
mod table;
mod text;

pub use html::page;
pub use json::{claim as claim_row, document, evidence_rows};
pub use proof::proofs;
pub use table::{markdown, terminal};
pub use text::mail;

use super::figures::{Bound, Plot};
use super::judge::{Evidence, Judgement, Proof};
use crate::fidelity;

/// Everything that the report shows.
#[derive(Debug, Clone)]
pub struct Debate {
    /// The claims, decided.
    pub judgements: Vec<Judgement>,
    /// Whether there are claims of somebody's own among them: the report is not the debate's then.
    pub own: bool,
    /// The plots; empty where none were asked for.
    pub plots: Vec<Plot>,
    /// The bounds of the states plot.
    pub bounds: Vec<Bound>,
}

/// What the reader has to know before the table.
const INTRODUCTION: &str = "A virtual machine is moved to another host while it runs: its memory is copied page by page, and pages that are written in the meantime have to be copied again. KVM tells which ones, by a ring per vCPU or by a bitmap per memory slot.";

/// What was argued about, and how it is decided.
const THREAD: &str = "In 2022 arm64 got the ring, and with it a question: its interrupt controller (the ITS) writes guest memory when no vCPU runs, so there is no ring to record it in. The answer was a bitmap beside the rings, collected at the end. How it may be collected, whether KVM_CLEAR_DIRTY_LOG has to follow, how often it may be done and how large it may get was argued over on KVM's list from August to November 2022. Here each claim of that thread is decided:";

const HOW: &str = "by a search through every interleaving of vCPUs, kernel and VMM within the bounds stated, or by a trace that shows a page being lost.";

impl Debate {
    /// The report's title.
    fn title(&self) -> &'static str {
        match self.own {
            true => "Claims about KVM's dirty logging, decided",
            false => "KVM's dirty ring with a backup bitmap: the debate, decided",
        }
    }

    /// What the reader has to know before the table.
    fn introduction(&self) -> String {
        let what = match self.own {
            true => "Here claims about how that is collected are decided:",
            false => THREAD,
        };
        format!("{INTRODUCTION} {what} {HOW}")
    }

    /// How many claims, in words.
    #[must_use]
    pub fn count(&self) -> String {
        match self.judgements.len() {
            1 => "1 claim".to_owned(),
            several => format!("{several} claims"),
        }
    }

    /// Distinct states of all searches together.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.judgements.iter().map(Judgement::states).sum()
    }

    /// Scenarios that were decided.
    #[must_use]
    pub fn scenarios(&self) -> usize {
        self.judgements.iter().map(|j| j.evidence.len()).sum()
    }
}

/// A case's evidence, machine by machine.
fn by_case(judgement: &Judgement) -> Vec<Vec<&Evidence>> {
    let mut rows: Vec<Vec<&Evidence>> = Vec::new();
    for evidence in &judgement.evidence {
        match rows.last_mut() {
            Some(row) if row[0].case == evidence.case => row.push(evidence),
            _ => rows.push(vec![evidence]),
        }
    }
    rows
}

/// What the evidence comes to, in a few words: exhausted scenarios and states, traces, calls.
fn coverage(judgement: &Judgement) -> String {
    use super::claim::Outcome;
    use crate::plot::grouped;
    let mut parts = Vec::new();
    let holds: Vec<&Evidence> = judgement
        .evidence
        .iter()
        .filter(|e| e.outcome() == Some(Outcome::Holds))
        .collect();
    if !holds.is_empty() {
        let states: u64 = holds.iter().map(|e| e.decision.states).sum();
        let what = if holds.len() == 1 {
            "scenario"
        } else {
            "scenarios"
        };
        parts.push(format!(
            "{} {what} exhausted ({} states)",
            holds.len(),
            grouped(states)
        ));
    }
    parts.extend(proved(&holds));
    let broken: Vec<&Evidence> = judgement
        .evidence
        .iter()
        .filter(|e| !e.steps.is_empty())
        .collect();
    if let Some(least) = broken.iter().map(|e| e.blocks()).min() {
        let what = if broken.len() == 1 { "trace" } else { "traces" };
        let blocks = if least == 1 { "block" } else { "blocks" };
        parts.push(format!(
            "{} {what}, the shortest of {least} {blocks}",
            broken.len()
        ));
    }
    if !judgement.calls.is_empty() {
        parts.push(format!("{} calls", judgement.calls.len()));
    }
    if judgement.figure.is_some() {
        parts.push("a figure".into());
    }
    if parts.is_empty() {
        parts.push("none".into());
    }
    parts.extend(premises(judgement).into_iter().map(String::from));
    parts.join("; ")
}

/// For how many the scenarios that hold are proved, where that was asked for: the widest first.
fn proved(holds: &[&Evidence]) -> Vec<String> {
    let proofs = holds.iter().filter_map(|evidence| evidence.proof.as_ref());
    let of = proof::counted(proofs.filter_map(Proof::for_how_many));
    of.into_iter()
        .map(|(any, count)| format!("{count} proved for any number of {any}"))
        .collect()
}

/// What "nothing is lost" takes for granted: other claims that were refuted, or hold within limits, in recordings of kernels.
/// `docs/findings.md` has them.
fn premises(judgement: &Judgement) -> Vec<&'static str> {
    use super::claim::Outcome;
    use super::expand::Mode;
    use dirtysim_model::oracle::Invariant;
    let claim = &judgement.claim;
    let overflow = Outcome::Breaks(Invariant::RingNeverOverflows);
    let holds = |wanted: &dyn Fn(&Evidence) -> bool| {
        let mut evidence = judgement.evidence.iter();
        evidence.any(|e| e.outcome() == Some(Outcome::Holds) && wanted(e))
    };
    let mut premises = Vec::new();
    if holds(&|e| e.on.mode != Mode::Bitmap)
        && !claim.cases.iter().any(|case| case.expected() == overflow)
    {
        premises.push("as long as no ring overflows (P17b)");
    }
    if holds(&|e| e.on.mode == Mode::Ring && e.on.arch == "arm64") {
        premises.push("on arm64 with a ring alone, without huge pages (P15)");
    }
    premises
}

/// What the verdict must not be read without: what of its machines no kernel was seen doing.
fn caveat(judgement: &Judgement) -> Option<String> {
    let parts = judgement.never_seen();
    (!parts.is_empty()).then(|| fidelity::sentence(&parts))
}

/// The bounds of a scenario, in a line.
fn bounds(evidence: &Evidence) -> String {
    let machine = &evidence.scenario.machine;
    let count = |number: usize, what: &str| {
        if number == 1 {
            format!("1 {what}")
        } else {
            format!("{number} {what}s")
        }
    };
    let pages: u32 = machine.slots.iter().map(|slot| slot.npages).sum();
    let stores = machine
        .vcpus
        .iter()
        .map(|vcpu| usize::from(vcpu.stores))
        .max()
        .unwrap_or(0);
    format!(
        "{}, {} each, {}",
        count(machine.vcpus.len(), "vCPU"),
        count(stores, "store"),
        count(pages as usize, "page")
    )
}
