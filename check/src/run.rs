//! Seeded schedules: the model driven by a random scheduler, every claim checked after every step.
//!
//! ```
//! use dirtysim_check::run::{Options, run};
//! use dirtysim_check::scheduler::Scheduler;
//! use dirtysim_check::scenario::Scenario;
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
//! let outcome = run(&scenario, &options, &|_| true);
//! assert_eq!(outcome.failure.unwrap().invariant.name(), "no_dirty_page_lost");
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{Invariant, Invariants, Judge};
use dirtysim_model::reduce::footprint;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Step, apply, for_each_step, is_at_leisure};
use rayon::prelude::*;

use crate::code::{self, Grow, Nobody, Unknown};
use crate::first;
use crate::ladder::{Any, on_any};
use crate::random::Choices;
use crate::refused::{Call, Refused};
use crate::scenario::{Expect, Scenario};
use crate::scheduler::Pick;
pub use crate::scheduler::Scheduler;
use crate::sometimes::Seen;
use crate::stuck::{breaks_progress, has_leisure};

/// The most steps of one schedule. Longer ones go round in a circle; they make a verdict inconclusive.
pub const MOST_STEPS: u64 = 50_000;

/// Seeds that one task takes at a time.
const BLOCK: u64 = 64;
/// Steps after which a thread asks whether to go on.
const PATIENCE: u64 = 1 << 17;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seeds, the end excluded.
    pub seeds: Range<u64>,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Whether to go on after the first failing seed.
    pub keep_going: bool,
}

/// A claim that broke, and the schedule that broke it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The claim.
    pub invariant: Invariant,
    /// The steps, up to and including the one that broke it.
    pub steps: Vec<Step>,
}

/// What the schedules came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Schedules, up to and including the first that failed.
    pub schedules: u64,
    /// Steps in them.
    pub steps: u64,
    /// The longest schedule, in steps.
    pub longest: u64,
    /// Those of them that failed; more than one only where the run goes on after the first.
    pub failures: u64,
    /// The failure with the lowest seed.
    pub failure: Option<Failure>,
    /// Every claim that broke, those included that were not looked for.
    pub broken: Invariants,
    /// What happened in some schedule.
    pub seen: Seen,
    /// Ioctls that were refused in some schedule.
    pub refused: BTreeSet<Refused>,
    /// Schedules that were cut at [`MOST_STEPS`].
    pub cut: u64,
}

impl Outcome {
    /// Of no schedule.
    fn none() -> Self {
        Self {
            schedules: 0,
            steps: 0,
            longest: 0,
            failures: 0,
            failure: None,
            broken: Invariants::NONE,
            seen: Seen::default(),
            refused: BTreeSet::new(),
            cut: 0,
        }
    }

    fn add(&mut self, schedule: Schedule) {
        self.schedules += 1;
        self.steps += schedule.steps;
        self.longest = self.longest.max(schedule.steps);
        self.broken.union(schedule.broken);
        self.seen.union(schedule.seen);
        self.refused.extend(schedule.refused);
        self.cut += u64::from(schedule.cut);
    }
}

/// The claim that ends a schedule: the one that the scenario expects to break, or any.
#[must_use]
pub fn target(scenario: &Scenario) -> Option<Invariant> {
    match scenario.expected() {
        Expect::Violated(invariant) => Some(invariant),
        Expect::Holds => None,
    }
}

/// Which claim of `broken` ends a schedule that looks for `target`.
#[must_use]
pub fn hit(broken: Invariants, target: Option<Invariant>) -> Option<Invariant> {
    match target {
        Some(invariant) => broken.has(invariant).then_some(invariant),
        None => broken.iter().next(),
    }
}

/// Runs a scenario. `progress` is called now and then with the schedules done, and answers whether to go on.
///
/// The outcome is the same on any number of threads. An interrupted run covers the seeds before the interruption.
pub fn run(
    scenario: &Scenario,
    options: &Options,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Outcome {
    let mut known = Cow::Borrowed(&scenario.machine);
    on_any!(Any::start(scenario), |start| run_seeds(
        &mut known,
        &start,
        options,
        target(scenario),
        progress,
        &mut Nobody
    ))
}

/// The steps of the schedule that a seed has under a scheduler, to its end, whatever it breaks on the way.
#[must_use]
pub fn whole_schedule(scenario: &Scenario, scheduler: Scheduler, seed: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    on_any!(Any::start(scenario), |start| {
        let mut known = Cow::Borrowed(&scenario.machine);
        let length = typical_length(&mut known, &start, scheduler, &mut Nobody).unwrap_or(1);
        // What breaks progress is an end anyway.
        let target = Some(Invariant::MigrationMakesProgress);
        let mut runner = Runner::new(&known, &start, scheduler, target, length);
        runner.run(&known, seed, Some(&mut steps));
    });
    steps
}

/// One schedule's share of an [`Outcome`].
struct Schedule {
    steps: u64,
    failure: Option<Invariant>,
    broken: Invariants,
    seen: Seen,
    refused: BTreeSet<Refused>,
    cut: bool,
}

/// Runs the schedules of seeds, several tasks of them beside each other.
///
/// What is not known of a program is asked for between tasks, in the order of the seeds: so what is asked, and what comes of it, does not
/// depend on threads. While much is not known, there are few seeds at a time.
fn run_seeds<L: Layout>(
    known: &mut Cow<'_, Machine>,
    start: &State<L>,
    options: &Options,
    target: Option<Invariant>,
    progress: &(dyn Fn(u64) -> bool + Sync),
    grow: &mut dyn Grow,
) -> Outcome {
    let mut outcome = Outcome::none();
    let Some(length) = typical_length(known, start, options.scheduler, grow) else {
        return outcome;
    };
    let is_code = known.code.is_some();
    let most = BLOCK * 16 * rayon::current_num_threads() as u64;
    let mut at_once = if is_code { 1 } else { most };
    let mut failing = None;
    let mut at = options.seeds.start;
    'seeds: while at < options.seeds.end {
        let end = at.saturating_add(at_once).min(options.seeds.end);
        let blocks: Vec<u64> = (at..end).step_by(BLOCK as usize).collect();
        let before = outcome.schedules;
        let machine: &Machine = known;
        let done: Vec<Vec<Option<Schedule>>> = blocks
            .into_par_iter()
            .map(|first| {
                let last = first.saturating_add(BLOCK).min(end);
                let mut runner = Runner::new(machine, start, options.scheduler, target, length);
                let mut schedules = Vec::with_capacity((last - first) as usize);
                let mut steps = 0;
                for seed in first..last {
                    // Schedules without an end of their own are long.
                    if steps > PATIENCE {
                        steps = 0;
                        if !progress(before) {
                            break;
                        }
                    }
                    let schedule = runner.run(machine, seed, None);
                    steps += schedule.as_ref().map_or(0, |schedule| schedule.steps);
                    let failed = (schedule.as_ref()).is_some_and(|run| run.failure.is_some());
                    schedules.push(schedule);
                    if failed && !options.keep_going {
                        break;
                    }
                }
                schedules
            })
            .collect();
        let mut seed = at;
        let mut unknown = 0;
        for block in done {
            let first = seed;
            for schedule in block {
                let schedule = match schedule {
                    Some(schedule) => schedule,
                    None => {
                        unknown += 1;
                        let runner = Runner::new(known, start, options.scheduler, target, length);
                        match runner.run_growing(known, seed, grow) {
                            Some(schedule) => schedule,
                            None => break 'seeds,
                        }
                    }
                };
                let failure = schedule.failure;
                outcome.add(schedule);
                if let Some(invariant) = failure {
                    outcome.failures += 1;
                    failing.get_or_insert((seed, invariant));
                    if !options.keep_going {
                        break 'seeds;
                    }
                }
                // Code whose schedules have no end is told so at once.
                if is_code && outcome.cut > 0 {
                    break 'seeds;
                }
                seed += 1;
            }
            seed = first.saturating_add(BLOCK).min(end);
        }
        at = end;
        if !progress(outcome.schedules) {
            break;
        }
        at_once = if 4 * unknown > at_once {
            (at_once / 2).max(1)
        } else {
            (2 * at_once).min(most)
        };
    }
    outcome.failure = failing.map(|(seed, invariant)| {
        let mut steps = Vec::new();
        let mut runner = Runner::new(known, start, options.scheduler, target, length);
        runner.run(known, seed, Some(&mut steps));
        Failure {
            seed,
            invariant,
            steps,
        }
    });
    outcome
}

/// The steps that a schedule takes, more or less: PCT spreads its change points over them, and nobody else asks. None where a program is not
/// known.
fn typical_length<L: Layout>(
    known: &mut Cow<'_, Machine>,
    start: &State<L>,
    scheduler: Scheduler,
    grow: &mut dyn Grow,
) -> Option<u64> {
    if !matches!(scheduler, Scheduler::Pct { .. } | Scheduler::Mix) {
        return Some(1);
    }
    let target = Some(Invariant::MigrationMakesProgress);
    let runner = Runner::new(known, start, Scheduler::Random, target, 1);
    let schedule = runner.run_growing(known, 0, grow)?;
    Some(schedule.steps.max(1))
}

/// Runs schedule after schedule with the memory of the first.
struct Runner<'a, L: Layout> {
    start: &'a State<L>,
    scheduler: Scheduler,
    target: Option<Invariant>,
    length: u64,
    possible: Vec<Step>,
    has_leisure: bool,
    /// What is broken before anybody acts.
    at_first: Invariants,
    judge: Judge<L>,
}

impl<'a, L: Layout> Runner<'a, L> {
    fn new(
        machine: &Machine,
        start: &'a State<L>,
        scheduler: Scheduler,
        target: Option<Invariant>,
        length: u64,
    ) -> Self {
        Self {
            start,
            scheduler,
            target,
            length,
            possible: Vec::with_capacity(64),
            has_leisure: has_leisure(machine),
            at_first: first::broken(machine, start),
            judge: Judge::new(machine),
        }
    }

    /// The schedule of a seed; none where it comes to where nobody knows the program.
    fn run(
        &mut self,
        machine: &Machine,
        seed: u64,
        record: Option<&mut Vec<Step>>,
    ) -> Option<Schedule> {
        let mut begun = self.begin(seed, record);
        self.go_on(machine, &mut begun).ok()?;
        Some(begun.schedule)
    }

    /// As [`Runner::run`], where what is not known is asked for; none where nobody knows it.
    fn run_growing(
        mut self,
        known: &mut Cow<'_, Machine>,
        seed: u64,
        grow: &mut dyn Grow,
    ) -> Option<Schedule> {
        let mut begun = self.begin(seed, None);
        self.grow(known, &mut begun, grow).then_some(begun.schedule)
    }

    /// Takes a schedule to its end, asking for what is not known; whether all was.
    fn grow(
        &mut self,
        known: &mut Cow<'_, Machine>,
        begun: &mut Begun<'_, L>,
        grow: &mut dyn Grow,
    ) -> bool {
        while let Err(unknown) = self.go_on(known, begun) {
            if !grow.grow(known.to_mut(), &[unknown]) {
                return false;
            }
        }
        true
    }

    /// A schedule of which no step is taken.
    fn begin<'r>(&self, seed: u64, record: Option<&'r mut Vec<Step>>) -> Begun<'r, L> {
        let mut choices = Choices::new(seed, 0);
        let state = self.start.clone();
        let pick = self
            .scheduler
            .begin(seed, &state, self.length, &mut choices);
        Begun {
            state,
            pick,
            choices,
            record,
            schedule: Schedule {
                steps: 0,
                failure: hit(self.at_first, self.target),
                broken: self.at_first,
                seen: Seen::default(),
                refused: BTreeSet::new(),
                cut: false,
            },
        }
    }

    /// Takes a schedule to its end.
    ///
    /// # Errors
    /// It has come to where nobody knows the program; it can go on once somebody does.
    fn go_on(&mut self, machine: &Machine, begun: &mut Begun<'_, L>) -> Result<(), Unknown> {
        let Begun {
            state,
            pick,
            choices,
            record,
            schedule,
        } = begun;
        if schedule.failure.is_some() {
            return Ok(());
        }
        if machine.code.is_some() {
            code::go_on(machine, state)?;
        }
        self.judge.begin(machine, state);
        loop {
            self.possible.clear();
            for_each_step(machine, state, |step| self.possible.push(step));
            let rests = self.possible.is_empty()
                || self.has_leisure && self.possible.iter().all(|step| is_at_leisure(state, *step));
            if rests && breaks_progress(machine, state) {
                let mut broken = Invariants::NONE;
                broken.insert(Invariant::MigrationMakesProgress);
                schedule.broken.union(broken);
                schedule.failure = hit(broken, self.target);
                return Ok(());
            }
            if self.possible.is_empty() {
                return Ok(());
            }
            if schedule.steps == MOST_STEPS {
                schedule.cut = true;
                return Ok(());
            }
            let step = pick.pick(state, &mut self.possible, schedule.steps, choices);
            schedule.seen.note(machine, state, step);
            let call = Call::of(machine, state, step);
            let written = footprint::writes(machine, state, step);
            let effect = apply(machine, state, step);
            schedule.steps += 1;
            schedule
                .refused
                .extend(call.and_then(|call| call.refused(state)));
            if let Some(steps) = record.as_deref_mut() {
                steps.push(step);
            }
            let broken = self.judge.check(machine, state, written, effect);
            if !broken.is_empty() {
                schedule.broken.union(broken);
                schedule.failure = hit(broken, self.target);
                if schedule.failure.is_some() {
                    return Ok(());
                }
            }
            pick.took(state, step.actor);
            if machine.code.is_some() && code::go_on(machine, state)? {
                self.judge.begin(machine, state);
            }
        }
    }
}

/// A schedule that is under way.
struct Begun<'r, L: Layout> {
    state: State<L>,
    pick: Pick,
    choices: Choices,
    record: Option<&'r mut Vec<Step>>,
    schedule: Schedule,
}

/// Which schedules of a VMM's own code to take.
#[derive(Debug, Clone)]
pub enum Schedules {
    /// Those of seeds, the end excluded.
    Seeds(Scheduler, Range<u64>),
    /// One that takes these steps where they are possible, and passes over the others; after the last, those of seed 0.
    Like(Vec<Step>),
}

/// Runs a VMM's own code, of which `grow` tells what was not known, under one schedule after another until one fails; the machine
/// as it is then too. `progress` is called now and then with the schedules done, and answers whether to go on.
///
/// The code is one, and what it does is asked in the order of the seeds; schedules of which all is known are run beside each other.
pub fn run_code(
    scenario: &Scenario,
    schedules: &Schedules,
    progress: &(dyn Fn(u64) -> bool + Sync),
    grow: &mut dyn Grow,
) -> (Outcome, Machine) {
    on_any!(Any::start(scenario), |start| run_code_in(
        &scenario.machine,
        &start,
        schedules,
        target(scenario),
        progress,
        grow
    ))
}

fn run_code_in<L: Layout>(
    machine: &Machine,
    start: &State<L>,
    schedules: &Schedules,
    target: Option<Invariant>,
    progress: &(dyn Fn(u64) -> bool + Sync),
    grow: &mut dyn Grow,
) -> (Outcome, Machine) {
    let mut known = Cow::Borrowed(machine);
    let mut start = start.clone();
    while let Err(unknown) = code::go_on(&known, &mut start) {
        if !grow.grow(known.to_mut(), &[unknown]) {
            return (Outcome::none(), known.into_owned());
        }
    }
    let outcome = match schedules {
        Schedules::Seeds(scheduler, seeds) => {
            let options = Options {
                seeds: seeds.clone(),
                scheduler: *scheduler,
                keep_going: false,
            };
            run_seeds(&mut known, &start, &options, target, progress, grow)
        }
        Schedules::Like(like) => {
            let mut outcome = Outcome::none();
            let mut steps = Vec::new();
            let mut runner = Runner::new(&known, &start, Scheduler::Random, target, 1);
            let mut begun = runner.begin(0, Some(&mut steps));
            begun.pick = Pick::like(like.clone());
            if runner.grow(&mut known, &mut begun, grow) {
                let failure = begun.schedule.failure;
                outcome.add(begun.schedule);
                outcome.failures = u64::from(failure.is_some());
                outcome.failure = failure.map(|invariant| Failure {
                    seed: 0,
                    invariant,
                    steps,
                });
            }
            outcome
        }
    };
    (outcome, known.into_owned())
}
