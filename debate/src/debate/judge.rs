//! From what was found to a claim's verdict.

use std::sync::atomic::{AtomicU64, Ordering};

use dirtysim_model::transition::Step;
use rayon::prelude::*;

use super::calls::{self, CallRow};
use super::claim::{Case, Claim, Outcome, Verdict};
use super::decide::{self, Decision, Found};
use super::expand::{self, On};
use super::figures::{self, Figure};
use super::lanes::{Lanes, lanes};
use crate::fidelity::never_seen;
use crate::plot::grouped;
use crate::scenario::Scenario;
use crate::search::bounds::Bounds;
use crate::search::{self, Coverage, Limit, Options};
use crate::shrink::{self, Budget};

/// One case on one machine, decided.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The case's index in its claim.
    pub case: usize,
    /// The machine.
    pub on: On,
    /// The scenario.
    pub scenario: Scenario,
    /// Its text.
    pub text: String,
    /// What was found.
    pub decision: Decision,
    /// A minimal schedule, where a claim of the oracle broke.
    pub steps: Vec<Step>,
    /// Whether no schedule has fewer blocks.
    pub shortest: bool,
    /// The same with any number in place of each number, where that was asked for and the case holds.
    pub proof: Option<Proof>,
}

/// What became of a case that holds, with any number in place of each number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// For how many it is proved; or why it is not.
    pub proved: Result<Bounds, String>,
    /// Whether the rings are smaller than the case's own, with which the search did not end.
    pub smaller_rings: bool,
    /// Why it is not about any number of pages, where it is not.
    pub pages_stay: Option<String>,
    /// Distinct states of the search; 0 where there was none.
    pub states: u64,
}

impl Proof {
    fn not(why: &str) -> Self {
        Self {
            proved: Err(why.to_owned()),
            smaller_rings: false,
            pages_stay: None,
            states: 0,
        }
    }

    /// For any number of what it is proved, if it is, and with which rings where these are not the case's own.
    #[must_use]
    pub fn for_how_many(&self) -> Option<String> {
        let bounds = self.proved.as_ref().ok()?;
        let rings = bounds.ring.filter(|_| self.smaller_rings);
        Some(match rings {
            Some((entries, reserved)) => format!(
                "{}, with rings of {entries} with {reserved} in reserve",
                bounds.any()
            ),
            None => bounds.any(),
        })
    }
}

/// The most states of a search for a proof, more or less: a limit that is the same wherever it is searched, and what one takes of memory.
pub const PROOF_STATES_MAX: u64 = 12_000_000;

impl Evidence {
    /// The outcome; none where a limit came first.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.decision.found {
            Found::Holds => Some(Outcome::Holds),
            Found::Violated { invariant, .. } => Some(Outcome::Breaks(*invariant)),
            Found::Inconclusive { .. } => None,
        }
    }

    /// The trace for people, where a claim of the oracle broke.
    #[must_use]
    pub fn lanes(&self) -> Option<Lanes> {
        let Some(Outcome::Breaks(invariant)) = self.outcome() else {
            return None;
        };
        lanes(&self.scenario, &self.steps, invariant)
    }

    /// The length of the schedule in blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        shrink::blocks(&self.steps)
    }
}

/// A claim, decided.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// The claim.
    pub claim: Claim,
    /// Its verdict.
    pub verdict: Verdict,
    /// The cases on their machines, in the order of the file.
    pub evidence: Vec<Evidence>,
    /// The calls.
    pub calls: Vec<CallRow>,
    /// The figure.
    pub figure: Option<Figure>,
}

impl Judgement {
    /// Whether a limit came before some answer.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        self.evidence.iter().any(|e| e.outcome().is_none())
    }

    /// Whether verdict and every piece of evidence are what the claim's file states.
    #[must_use]
    pub fn as_expected(&self) -> bool {
        let cases = self
            .evidence
            .iter()
            .all(|e| e.outcome() == Some(self.claim.cases[e.case].expected()));
        self.verdict == self.claim.expect && cases
    }

    /// What of the evidence's machines was read in the kernel's source and seen on no kernel.
    #[must_use]
    pub fn never_seen(&self) -> Vec<&'static str> {
        let mut parts = Vec::new();
        for part in self
            .evidence
            .iter()
            .flat_map(|evidence| never_seen(&evidence.scenario.machine))
        {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        parts
    }

    /// States seen by all searches together.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.evidence.iter().map(|e| e.decision.states).sum()
    }
}

/// A case on one machine, to be decided.
struct Job {
    claim: usize,
    case: usize,
    on: On,
}

/// Decides claims, on rayon's threads. `progress` is called with the scenarios done and all of them, and answers
/// whether to go on. The result is the same on any number of threads.
///
/// # Errors
/// A claim that is wrong in itself: a bug in its file.
pub fn judge(
    claims: &[Claim],
    progress: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Vec<Judgement>, String> {
    judge_with(claims, Wanted::Evidence, progress)
}

/// As [`judge`], where the verdicts alone are wanted: no schedule is made short.
///
/// # Errors
/// As for that.
pub fn verdicts(
    claims: &[Claim],
    progress: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Vec<Verdict>, String> {
    let judged = judge_with(claims, Wanted::Verdicts, progress)?;
    Ok(judged.iter().map(|judgement| judgement.verdict).collect())
}

/// As [`judge`]; and each case that holds is searched once more with any number of stores, rounds and, where that is argued, pages.
///
/// # Errors
/// As for that.
pub fn judge_and_prove(
    claims: &[Claim],
    progress: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Vec<Judgement>, String> {
    judge_with(claims, Wanted::Proofs, progress)
}

/// What claims are judged for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Their verdicts.
    Verdicts,
    /// What they rest on as well: minimal schedules.
    Evidence,
    /// And for how many they hold.
    Proofs,
}

fn judge_with(
    claims: &[Claim],
    wanted: Wanted,
    progress: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Vec<Judgement>, String> {
    let mut jobs = Vec::new();
    for (claim, known) in claims.iter().enumerate() {
        for (case, row) in known.cases.iter().enumerate() {
            for on in expand::machines(&row.on)? {
                jobs.push(Job { claim, case, on });
            }
        }
    }
    let all = jobs.len() as u64;
    let done = AtomicU64::new(0);
    let evidence: Vec<Result<(usize, Evidence), String>> = jobs
        .into_par_iter()
        .map(|job| {
            let claim = &claims[job.claim];
            let case = &claim.cases[job.case];
            let go_on = || progress(done.load(Ordering::Relaxed), all);
            let evidence = decide_case(claim, case, job.case, job.on, wanted, &go_on)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
            Ok((job.claim, evidence))
        })
        .collect();
    let mut of: Vec<Vec<Evidence>> = claims.iter().map(|_| Vec::new()).collect();
    for row in evidence {
        let (claim, mut evidence) = row?;
        // One after the other, each on all threads: so there is one search at a time that may be large.
        let case = &claims[claim].cases[evidence.case];
        if wanted == Wanted::Proofs
            && evidence.outcome() == Some(Outcome::Holds)
            && case.along.is_empty()
        {
            let scenario = expand::in_rounds(&claims[claim].id, case, &evidence.on)?;
            evidence.proof = Some(proof(&scenario, &|| progress(all, all))?);
        }
        of[claim].push(evidence);
    }
    claims
        .iter()
        .zip(of)
        .map(|(claim, evidence)| {
            let mut rows = Vec::new();
            for name in &claim.calls {
                rows.extend(calls::enumerate(name)?);
            }
            let figure = claim.figure.as_deref().map(figures::figure).transpose()?;
            let verdict = verdict(claim, &evidence, &rows, figure.as_ref());
            Ok(Judgement {
                claim: claim.clone(),
                verdict,
                evidence,
                calls: rows,
                figure,
            })
        })
        .collect()
}

fn decide_case(
    claim: &Claim,
    case: &Case,
    index: usize,
    on: On,
    wanted: Wanted,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Evidence, String> {
    let (text, scenario) = expand::scenario(&claim.id, case, &on)?;
    let decision = decide::decide(&scenario, &case.along, go_on)?;
    let mut evidence = Evidence {
        case: index,
        on,
        scenario,
        text,
        decision,
        steps: Vec::new(),
        shortest: false,
        proof: None,
    };
    if let Found::Violated { invariant, steps } = &evidence.decision.found {
        evidence.steps.clone_from(steps);
        // A trace along given events stays as it is: the shortest one may lose the page in another way.
        if case.along.is_empty() && wanted != Wanted::Verdicts {
            let budget = Budget {
                attempts: 20_000,
                states: 300_000,
                bytes: u64::MAX,
            };
            let shrunk = shrink::shrink(&evidence.scenario, steps, *invariant, budget, &mut |_| {
                go_on()
            });
            if let Some(shrunk) = shrunk {
                evidence.shortest = shrunk.shortest;
                evidence.steps = shrunk.steps;
            }
        }
    }
    Ok(evidence)
}

/// What becomes of a scenario with any number in place of each number.
fn proof(scenario: &Scenario, go_on: &(dyn Fn() -> bool + Sync)) -> Result<Proof, String> {
    let Some(wide) = scenario.widened() else {
        return Ok(Proof::not("nothing of it may be any number"));
    };
    let options = Options {
        max_states: Some(PROOF_STATES_MAX),
        counterexample: false,
        ..Options::default()
    };
    let check = |scenario: &Scenario| {
        search::check(scenario, &options, &|_| go_on()).map_err(|e| e.to_string())
    };
    let mut report = check(&wide.scenario)?;
    let mut states = report.states;
    // What rings hold makes most of the states, and with fewer entries of them the order of calls is the same.
    let smaller = (report.coverage == Coverage::Truncated(Limit::States))
        .then(|| wide.scenario.with_least_rings())
        .flatten();
    if let Some(smaller) = &smaller {
        report = check(smaller)?;
        states += report.states;
    }
    let why = match (report.verdict, report.coverage) {
        (_, Coverage::Proved) => None,
        (_, Coverage::Truncated(limit)) => Some(match limit {
            Limit::States => format!("not ended after {} states", grouped(PROOF_STATES_MAX)),
            limit => format!("not ended: {}", limit.name()),
        }),
        (search::Verdict::Violated, _) => Some("broken with other numbers".to_owned()),
        (_, Coverage::Exhausted) if report.unconfirmed.is_some() => {
            Some("the abstraction has a run that no machine of few pages has".to_owned())
        }
        (_, Coverage::Exhausted) => {
            let why = report.bounds.stands_in_the_way().map(str::to_owned);
            let pages = wide.pages_stay.as_ref();
            let pages =
                pages.map(|why| format!("nothing but pages could be any number, and {why}"));
            why.or(pages)
                .or_else(|| Some("nothing of it is any number".to_owned()))
        }
    };
    Ok(Proof {
        proved: why.map_or(Ok(report.bounds), Err),
        smaller_rings: smaller.is_some(),
        pages_stay: wide.pages_stay,
        states,
    })
}

/// The verdict that follows from the evidence.
///
/// A case within the claim's condition that came out otherwise than the claim says refutes it. One outside of it that
/// came out otherwise shows that the condition is needed; without any such case the condition is idle, and the claim
/// simply confirmed. Where a limit came first nothing is decided.
#[must_use]
pub fn verdict(
    claim: &Claim,
    evidence: &[Evidence],
    calls: &[CallRow],
    figure: Option<&Figure>,
) -> Verdict {
    if evidence.iter().any(|e| e.outcome().is_none()) {
        return Verdict::Undecidable;
    }
    let cases = evidence.iter().map(|e| {
        let case = &claim.cases[e.case];
        (case.within, e.outcome() == Some(case.says))
    });
    let rows = calls.iter().map(|row| (row.within, row.agrees()));
    let all: Vec<(bool, bool)> = cases.chain(rows).collect();
    if all.iter().any(|(within, agrees)| *within && !agrees) {
        return Verdict::Refuted;
    }
    if all.is_empty() {
        return match figure {
            Some(figure) if figure.crosses => Verdict::Cost,
            Some(_) => Verdict::Refuted,
            None => Verdict::Undecidable,
        };
    }
    if claim.condition.is_some() && all.iter().any(|(within, agrees)| !within && !agrees) {
        return Verdict::Conditional;
    }
    Verdict::Confirmed
}

/// The claim with its flip applied: only the case that it changes is left.
///
/// # Errors
/// A flip that names no case.
pub fn flipped(claim: &Claim) -> Result<Option<(Claim, Verdict)>, String> {
    let Some(flip) = &claim.flip else {
        return Ok(None);
    };
    let Some(case) = claim.cases.iter().find(|case| case.name == flip.case) else {
        return Err(format!("{}: no case `{}`", claim.id, flip.case));
    };
    let mut case = case.clone();
    if let Some(mutation) = &flip.mutate {
        case.mutations.push(mutation.clone());
        // Whichever claim of the oracle breaks first will do: none is looked for.
        case.finds = Some(Outcome::Holds);
    }
    if let Some(steps) = &flip.steps {
        case.steps.clone_from(steps);
        case.along.clear();
    }
    let claim = Claim {
        cases: vec![case],
        calls: Vec::new(),
        ..claim.clone()
    };
    Ok(Some((claim, flip.verdict)))
}
