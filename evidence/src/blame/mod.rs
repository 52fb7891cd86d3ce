//! Blame: which ways of losing a page explain exactly the pages that differ.
//!
//! Somebody has a schedule and a list of pages that differ at the destination. Each way in which the machine or the
//! VMM could be wrong (one mutation switched on; an operation of the VMM left out, or made earlier or later) is applied
//! alone, with the trace's own mutations off, the schedule is replayed as far as it still can be, and the ways are ranked by how far the pages that they
//! lose are from those that differ, and of those alike the VMM's own order comes before a kernel that was released. That is evidence and no proof: another schedule may lose other pages, and a cause
//! that no candidate stands for is not among them.
//!
//! ```
//! use dirtysim_evidence::blame::blame;
//! use dirtysim_check::run::{Options, run};
//! use dirtysim_check::scheduler::Scheduler;
//! use dirtysim_check::scenario::Scenario;
//! use dirtysim_model::words::HostPage;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! let options = Options { seeds: 0..1_000, scheduler: Scheduler::Mix, keep_going: false };
//! let failure = run(&scenario, &options, &|_| true).failure.unwrap();
//! // The order itself loses the page.
//! let given = [HostPage(0)].into();
//! let blamed = blame(&scenario, &failure.steps, &given, &|| true).unwrap();
//! assert!(blamed.unchanged.lost.contains(&HostPage(0)));
//! ```

mod pages;
mod replay;

use std::collections::{BTreeMap, BTreeSet};

use dirtysim_model::op::Op;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply, for_each_step};
use dirtysim_model::words::HostPage;
use dirtysim_model::words::mutation::{Mutation, Mutations};

use crate::explain::op_words;
use crate::ladder::large;
use crate::mutated::lacks;
pub use crate::page::names::PagesError;
use crate::random::Choices;
use crate::run::MOST_STEPS;
use crate::scenario::Scenario;
pub use pages::{page_of, read_pages};
use replay::lost_pages;

/// A way of going wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing but the scenario's own order.
    Nothing,
    /// A mutation is switched on.
    Mutation(Mutation),
    /// An operation of a thread changes places with the one after it.
    Swap {
        /// The thread.
        thread: usize,
        /// The first of the two operations, from 0 on.
        op: usize,
    },
    /// An operation of a thread is left out.
    LeftOut {
        /// The thread.
        thread: usize,
        /// The operation, from 0 on.
        op: usize,
    },
    /// An operation of a thread is made earlier or later than by one place.
    Moved {
        /// The thread.
        thread: usize,
        /// The operation, from 0 on.
        op: usize,
        /// Its place in the changed program, from 0 on.
        to: usize,
    },
}

impl Cause {
    /// Where an operation of a thread stands in the changed program; none where it is not there.
    fn place(self, of: usize, at: usize) -> Option<usize> {
        match self {
            Self::Swap { thread, op } if thread == of && at == op => Some(op + 1),
            Self::Swap { thread, op } if thread == of && at == op + 1 => Some(op),
            Self::LeftOut { thread, op } if thread == of => match at.cmp(&op) {
                std::cmp::Ordering::Less => Some(at),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => Some(at - 1),
            },
            Self::Moved { thread, op, to } if thread == of => Some(if at == op {
                to
            } else if op < at && at <= to {
                at - 1
            } else if to <= at && at < op {
                at + 1
            } else {
                at
            }),
            _ => Some(at),
        }
    }

    /// How far from what somebody would think of first: a VMM's own order, then the VMM's and its devices' code, then a kernel
    /// that was released.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Swap { .. } | Self::LeftOut { .. } | Self::Moved { .. } => 1,
            Self::Mutation(mutation) if mutation.name().starts_with("vmm.") => 2,
            Self::Mutation(mutation) if mutation.name().starts_with("device.") => 3,
            Self::Mutation(_) => 4,
        }
    }
}

/// A candidate, and what it loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What is wrong.
    pub cause: Cause,
    /// Its name: the mutation's, or the two operations.
    pub name: String,
    /// The host pages that it loses.
    pub lost: BTreeSet<HostPage>,
    /// Pages that it loses and that were not given.
    pub extra: u64,
    /// Pages that were given and that it does not lose.
    pub missing: u64,
    /// Whether it loses other pages than the schedule with nothing changed; if not, it explains nothing.
    pub matters: bool,
    /// The seed of the schedule under which it loses them; none where the schedule was given.
    pub seed: Option<u64>,
}

impl Candidate {
    /// The size of the symmetric difference between the pages it loses and the pages given.
    #[must_use]
    pub fn difference(&self) -> u64 {
        self.extra + self.missing
    }

    /// Whether it explains the pages given: it loses exactly them, and not only because the schedule does anyway.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.difference() == 0 && self.matters
    }
}

/// What blame came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// What the schedule loses with every mutation off and the scenario's order as it is.
    pub unchanged: Candidate,
    /// The candidates, the likeliest first: by difference, then by [`Cause::rank`], then by name; `unchanged` is not among them.
    pub candidates: Vec<Candidate>,
    /// The schedules under which each was tried.
    pub schedules: u64,
}

impl Blame {
    /// What explains exactly the pages given, the scenario's own order first; none is an answer.
    pub fn exact(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.unchanged)
            .chain(&self.candidates)
            .filter(|candidate| candidate.is_exact())
    }
}

/// Ranks what could have lost the host pages `given`, under the schedule `steps`. `go_on` is asked now and then; none
/// where it said no, as then not every cause was tried.
#[must_use]
pub fn blame(
    scenario: &Scenario,
    steps: &[Step],
    given: &BTreeSet<HostPage>,
    go_on: &dyn Fn() -> bool,
) -> Option<Blame> {
    let judge = |cause: Cause, name: String, unchanged: &BTreeSet<HostPage>| {
        let lost = lost_by(scenario, steps, cause, given, go_on)?;
        Some(Candidate {
            cause,
            name,
            extra: lost.difference(given).count() as u64,
            missing: given.difference(&lost).count() as u64,
            matters: lost != *unchanged,
            seed: None,
            lost,
        })
    };
    let name = "the scenario as it is, without mutations".to_owned();
    let mut unchanged = judge(Cause::Nothing, name, &BTreeSet::new())?;
    unchanged.matters = true;
    let machine = &scenario.machine;
    // What needs hardware or a step that is not there is no candidate.
    let mutations = Mutation::ALL
        .iter()
        .filter(|mutation| lacks(scenario, **mutation).is_none())
        .map(|&mutation| (Cause::Mutation(mutation), mutation.name().to_owned()));
    let swaps = machine
        .programs
        .iter()
        .enumerate()
        .flat_map(|(thread, program)| {
            program
                .windows(2)
                .enumerate()
                .filter(|(_, pair)| can_swap(&pair[0], &pair[1]))
                .map(move |(op, pair)| {
                    let name = format!(
                        "swap of operations {} and {}: {} | {}",
                        op + 1,
                        op + 2,
                        op_words(scenario, &pair[0]),
                        op_words(scenario, &pair[1])
                    );
                    (Cause::Swap { thread, op }, name)
                })
        });
    let mut candidates: Vec<Candidate> = mutations
        .chain(swaps)
        .chain(edits(scenario))
        .map(|(cause, name)| judge(cause, name, &unchanged.lost))
        .collect::<Option<_>>()?;
    rank(&mut candidates);
    Some(Blame {
        unchanged,
        candidates,
        schedules: 1,
    })
}

/// Operations left out, and moved by more than one place. What is gone to by number stays, so that only programs without a jump
/// have any.
fn edits(scenario: &Scenario) -> Vec<(Cause, String)> {
    let mut found = Vec::new();
    for (thread, program) in scenario.machine.programs.iter().enumerate() {
        if program.iter().any(jumps) {
            continue;
        }
        let word = |op: usize| format!("{}, {}", op + 1, op_words(scenario, &program[op]));
        for op in (0..program.len()).filter(|&op| can_move(&program[op])) {
            let left_out = Cause::LeftOut { thread, op };
            found.push((left_out, format!("left out: operation {}", word(op))));
            let to = (0..program.len()).filter(|&to| op.abs_diff(to) > 1 && can_move(&program[to]));
            for to in to {
                // Past a like operation is the same program.
                let between = if to > op { op + 1..=to } else { to..=op - 1 };
                if program[between].iter().any(|other| *other == program[op]) {
                    continue;
                }
                let place = if to > op { "behind" } else { "in front of" };
                let name = format!(
                    "moved: operation {}, {place} operation {}",
                    word(op),
                    word(to)
                );
                found.push((Cause::Moved { thread, op, to }, name));
            }
        }
    }
    found
}

/// Whether an operation goes elsewhere in the program, by number.
fn jumps(op: &Op) -> bool {
    matches!(
        op,
        Op::OnError(_) | Op::Again(_) | Op::PassUnless(_) | Op::Proceed(_)
    )
}

/// Whether an operation may stand elsewhere or be left out: not what stops the guest and waits for that, nor the end.
fn can_move(op: &Op) -> bool {
    !matches!(
        op,
        Op::Kick(_)
            | Op::WaitKicked
            | Op::WaitStopped
            | Op::WaitRunning
            | Op::Resume
            | Op::Lock(_)
            | Op::Unlock(_)
            | Op::Signal(_)
            | Op::WaitSignal(_)
            | Op::JoinThread(_)
            | Op::Panic
            | Op::Leave
            | Op::Checkpoint
            | Op::Finish(_)
    )
}

fn rank(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| {
        a.difference()
            .cmp(&b.difference())
            .then_with(|| a.cause.rank().cmp(&b.cause.rank()))
            .then_with(|| a.name.cmp(&b.name))
    });
}

/// The same where no schedule is known: of the schedules of `seeds`, each candidate is judged by the one under which it
/// comes nearest. `go_on` is told how many are done, now and then, and answers whether to; a schedule under which not
/// every cause was tried does not count.
#[must_use]
pub fn blame_seeds(
    scenario: &Scenario,
    seeds: std::ops::Range<u64>,
    given: &BTreeSet<HostPage>,
    go_on: &dyn Fn(u64) -> bool,
) -> Option<Blame> {
    let mut best: Option<(Candidate, BTreeMap<String, Candidate>)> = None;
    let mut schedules = 0;
    for seed in seeds {
        let schedule = random_schedule(scenario, seed);
        let Some(mut found) = blame(scenario, &schedule, given, &|| go_on(schedules)) else {
            break;
        };
        schedules += 1;
        for candidate in &mut found.candidates {
            candidate.seed = Some(seed);
        }
        found.unchanged.seed = Some(seed);
        let candidates = found.candidates.into_iter();
        match &mut best {
            None => {
                let named = candidates.map(|candidate| (candidate.name.clone(), candidate));
                best = Some((found.unchanged, named.collect()));
            }
            Some((unchanged, known)) => {
                take_nearer(unchanged, found.unchanged);
                for candidate in candidates {
                    if let Some(before) = known.get_mut(&candidate.name) {
                        take_nearer(before, candidate);
                    }
                }
            }
        }
    }
    let (unchanged, known) = best?;
    let mut candidates: Vec<Candidate> = known.into_values().collect();
    rank(&mut candidates);
    Some(Blame {
        unchanged,
        candidates,
        schedules,
    })
}

/// Nearer is what explains the pages exactly, then what matters, then the smaller difference; of two alike, the first.
fn take_nearer(before: &mut Candidate, other: Candidate) {
    let far = |candidate: &Candidate| {
        (
            !candidate.is_exact(),
            !candidate.matters,
            candidate.difference(),
        )
    };
    if far(&other) < far(before) {
        *before = other;
    }
}

/// A schedule of the scenario without mutations, every possible step as likely as another.
fn random_schedule(scenario: &Scenario, seed: u64) -> Vec<Step> {
    let scenario = scenario.clone().without_mutations();
    random_in(&scenario, large(&scenario), seed)
}

fn random_in<L: Layout>(scenario: &Scenario, mut state: State<L>, seed: u64) -> Vec<Step> {
    let machine = &scenario.machine;
    let mut choices = Choices::new(seed, 0);
    let (mut steps, mut possible) = (Vec::new(), Vec::new());
    while (steps.len() as u64) < MOST_STEPS {
        possible.clear();
        for_each_step(machine, &state, |step| possible.push(step));
        if possible.is_empty() {
            break;
        }
        let step = possible[choices.below(possible.len() as u32) as usize];
        apply(machine, &mut state, step);
        steps.push(step);
    }
    steps
}

/// Whether two operations in the other order are another protocol: a signal and the wait for it are one step of it,
/// and jumps stay where they are.
fn can_swap(first: &Op, second: &Op) -> bool {
    let one = matches!(
        (first, second),
        (Op::Kick(_), Op::WaitStopped | Op::WaitKicked)
    );
    !one && !jumps(first) && !jumps(second) && first != second
}

/// The pages that the schedule loses with `cause` applied. Of the two ways of replaying what no longer fits, the one
/// that comes nearer to the pages given counts. None: `go_on` said that it is enough.
fn lost_by(
    scenario: &Scenario,
    steps: &[Step],
    cause: Cause,
    given: &BTreeSet<HostPage>,
    go_on: &dyn Fn() -> bool,
) -> Option<BTreeSet<HostPage>> {
    let mut changed = scenario.clone();
    dirtysim_model::mutated::set(&mut changed.machine, Mutations::default());
    match cause {
        Cause::Nothing => {}
        Cause::Mutation(mutation) => {
            dirtysim_model::mutated::switch_on(&mut changed.machine, mutation)
        }
        Cause::Swap { thread, op } => changed.machine.programs[thread].swap(op, op + 1),
        Cause::LeftOut { thread, op } => {
            changed.machine.programs[thread].remove(op);
        }
        Cause::Moved { thread, op, to } => {
            let moved = changed.machine.programs[thread].remove(op);
            changed.machine.programs[thread].insert(to, moved);
        }
    }
    dirtysim_model::op::ahead::look_ahead(&mut changed.machine);
    nearest(
        scenario,
        large(scenario),
        &changed,
        steps,
        cause,
        given,
        go_on,
    )
}

/// The schedule that comes of `steps` with every mutation off: each step is found again by what it was, an actor that is behind
/// catches up, and at the end the threads go on. It is one of [`Scenario::without_mutations`]; none where that does not fit the layout.
#[must_use]
pub fn without_mutations(scenario: &Scenario, steps: &[Step]) -> Option<Vec<Step>> {
    let right = scenario.clone().without_mutations();
    instead(scenario, large(scenario), &right, steps)
}

fn instead<L: Layout>(
    scenario: &Scenario,
    start: State<L>,
    right: &Scenario,
    steps: &[Step],
) -> Option<Vec<Step>> {
    let recorded = (&scenario.machine, start);
    let changed = (&right.machine, right.start::<L>().ok()?);
    replay::steps_instead(&recorded, &changed, steps)
}

/// None where the changed machine does not fit the layout; it has the sizes of the recorded one.
fn nearest<L: Layout>(
    scenario: &Scenario,
    start: State<L>,
    changed: &Scenario,
    steps: &[Step],
    cause: Cause,
    given: &BTreeSet<HostPage>,
    go_on: &dyn Fn() -> bool,
) -> Option<BTreeSet<HostPage>> {
    let recorded = (&scenario.machine, start);
    // It has the sizes of the recorded one, so that it fits the layout.
    let Ok(start) = changed.start::<L>() else {
        return Some(BTreeSet::new());
    };
    let changed = (&changed.machine, start);
    let lost = replay::ALL
        .into_iter()
        .map(|matching| lost_pages(&recorded, &changed, steps, cause, matching, go_on))
        .collect::<Option<Vec<_>>>()?;
    lost.into_iter()
        .min_by_key(|lost| lost.symmetric_difference(given).count())
}
