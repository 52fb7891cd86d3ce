//! Code in work: its schedules, those of seeds, that of a trace, or all; what fails is made short and told.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use dirtysim_check::code::way_through;
use dirtysim_check::run::{Failure as Failed, Outcome as Ran, Schedules, run_code};
use dirtysim_check::scenario::Scenario;
use dirtysim_check::scheduler::Scheduler;
use dirtysim_check::search::{self, Coverage, Limit, Verdict};
use dirtysim_check::shrink::{Budget, shrink_code};
use dirtysim_check::sometimes::Sometimes;
use dirtysim_evidence::explain::Story;
use dirtysim_model::oracle::Invariant;
use dirtysim_model::transition::Step;

use crate::checker::Checker;
use crate::failure::{Failure, FailureKind, Found};
use crate::names::test_path;
use crate::report::{OnTheWay, Report};
use crate::session::{Code, End, Threads};
use crate::tree::{Tree, Trouble};

/// The claims by which code is judged.
const CLAIMS: [Invariant; 8] = [
    Invariant::NoDirtyPageLost,
    Invariant::RingNeverOverflows,
    Invariant::DirtyGfnFollowsLifecycle,
    Invariant::ResetCountEqualsHarvested,
    Invariant::TlbIsFlushedOnReturn,
    Invariant::BitmapEndsAtNpages,
    Invariant::NothingCrashes,
    Invariant::MigrationMakesProgress,
];

/// Those about every state on the way ([`Checker::claims_on_the_way`]).
const CLAIMS_ON_THE_WAY: [Invariant; 2] = [
    Invariant::StalePageIsAccountedFor,
    Invariant::UnrecordedPageIsArmed,
];

/// Seeds by which a search learns what to expect of code of which nothing was seen.
const LEARNING_SEEDS: u64 = 64;
/// Calls that a thread may make in one run before it is taken to go round for ever.
const MOST_CALLS: u32 = 5_000;
/// The same in a search, where every history has a number.
const MOST_CALLS_OF_A_SEARCH: u32 = 500;
/// What making a schedule short may cost.
const SHRINK_BUDGET: Budget = Budget {
    attempts: 20_000,
    states: 200_000,
    bytes: 1 << 28,
};

/// Code in work: what is known of it, and what was covered.
pub(crate) struct Work<'a> {
    checker: &'a Checker,
    code: Code,
    pub(crate) tree: Tree,
    /// The machine with the code as far as it is known.
    scenario: Scenario,
    begin: Instant,
    threads: Threads,
    schedules: u64,
    claims: Vec<&'static str>,
    on_the_way: OnTheWay,
}

impl<'a> Work<'a> {
    /// `stores`: the code is known to store to guest memory by itself.
    pub(crate) fn new(
        checker: &'a Checker,
        code: Code,
        threads: Threads,
        stores: bool,
    ) -> Result<Self, Box<Failure>> {
        let on_the_way = match (checker.on_the_way, stores, threads.count) {
            (false, ..) => OnTheWay::NotAsked,
            (true, false, 1) => OnTheWay::Judged,
            (true, true, _) => OnTheWay::NotJudged(
                "the code stores to guest memory by itself, and what it knows of that is in its variables",
            ),
            (true, false, _) => OnTheWay::NotJudged(
                "the code has several threads, and what one knows of another's pages is in their variables",
            ),
        };
        let is_judged = on_the_way == OnTheWay::Judged;
        let more = if is_judged {
            &CLAIMS_ON_THE_WAY[..]
        } else {
            &[]
        };
        let claims = CLAIMS.iter().chain(more);
        let claims: Vec<&str> = claims.map(|claim| claim.name()).collect();
        let most_calls = checker.max_calls.unwrap_or(MOST_CALLS);
        let machine = &checker.machine;
        let made = Tree::new(
            machine,
            &checker.name,
            &claims,
            code.clone(),
            threads,
            most_calls,
            is_judged,
        );
        let (tree, scenario) = made.map_err(|error| {
            let what = error.to_string();
            Failure::of(FailureKind::Machine { what }, &checker.name)
        })?;
        let mut tree = tree;
        tree.most_histories = checker.most_histories;
        tree.patience = checker.patience;
        Ok(Self {
            checker,
            code,
            tree,
            scenario,
            begin: Instant::now(),
            threads,
            schedules: 0,
            claims,
            on_the_way,
        })
    }

    fn report(&self) -> Report {
        Report {
            name: self.checker.name.clone(),
            exhaustive: false,
            states: 0,
            transitions: 0,
            schedules: self.schedules,
            histories: self.tree.histories() as u64,
            runs: self.tree.runs,
            threads: self.threads.count,
            threads_apart: self.threads.apart,
            note: None,
            on_the_way: self.on_the_way,
        }
    }

    fn fail<T>(&self, kind: FailureKind) -> Result<T, Box<Failure>> {
        Err(Failure::of(kind, &self.checker.name))
    }

    fn trouble<T>(&self, trouble: Trouble) -> Result<T, Box<Failure>> {
        self.fail(match trouble {
            Trouble::NotDeterministic(first, again) => FailureKind::NotDeterministic { first, again },
            Trouble::Mistake(what, place) => FailureKind::Mistake { what, place },
            Trouble::Silent(after) => FailureKind::Silent { after },
            Trouble::Endless(round, calls) => FailureKind::Endless { round, calls },
            Trouble::DependsOnMore { place, first, again } => {
                FailureKind::DependsOnMore { place, first, again }
            }
            // Whoever counts on what is taken begins anew.
            Trouble::TooMany | Trouble::News | Trouble::Unlike => FailureKind::Mistake {
                what: "the code has more histories of answers than there is room for: make the machine smaller".to_owned(),
                place: String::new(),
            },
        })
    }

    fn time_left(&self) -> Duration {
        self.checker.max_time.saturating_sub(self.begin.elapsed())
    }

    fn take(&mut self, schedules: &Schedules) -> Ran {
        let begin = self.begin;
        let most = self.checker.max_time;
        self.tree.counts_on_it = false;
        let mut schedules = schedules.clone();
        let mut done = 0;
        loop {
            let is_fresh = self.tree.histories() == 0;
            let (mut ran, machine) = run_code(
                &self.scenario,
                &schedules,
                &|_| begin.elapsed() < most,
                &mut self.tree,
            );
            self.scenario.machine = machine;
            let is_full = self.tree.trouble == Some(Trouble::TooMany);
            if is_full && (ran.schedules > 0 || !is_fresh) && self.begin_anew().is_ok() {
                // What was known is forgotten, and the seeds go on.
                done += ran.schedules;
                if let Schedules::Seeds(_, seeds) = &mut schedules {
                    seeds.start += ran.schedules;
                }
                continue;
            }
            if !self.heard_news() {
                ran.schedules += done;
                return ran;
            }
        }
    }

    fn begin_anew(&mut self) -> Result<(), Box<Failure>> {
        let stores = self.tree.taken.stores;
        let other = Work::new(self.checker, self.code.clone(), self.threads, stores)?;
        self.tree.begin_anew(other.tree);
        (self.scenario, self.claims) = (other.scenario, other.claims);
        self.on_the_way = other.on_the_way;
        self.tree.tell(&mut self.scenario.machine);
        Ok(())
    }

    /// Whether the code did what it was taken not to do, so that schedules have to be begun anew.
    fn heard_news(&mut self) -> bool {
        self.tree.tell(&mut self.scenario.machine);
        loop {
            match self.tree.trouble {
                Some(Trouble::News) if self.tree.on_the_way && self.tree.taken.stores => {
                    return self.begin_anew().is_ok();
                }
                // What is known stands; so does what was still to be checked when it came.
                Some(Trouble::News) => match self.tree.check_alike() {
                    Ok(()) => {
                        self.tree.trouble = None;
                        return true;
                    }
                    Err(trouble) => self.tree.trouble = Some(trouble),
                },
                // There was such a machine before.
                Some(Trouble::Unlike) => return self.begin_anew().is_ok(),
                _ => return false,
            }
        }
    }

    /// The schedules of seeds.
    pub(crate) fn seeds(&mut self, seeds: Range<u64>) -> Result<Report, Box<Failure>> {
        self.tree.most_calls = self.checker.max_calls.unwrap_or(MOST_CALLS);
        let asked = seeds.end.saturating_sub(seeds.start);
        let schedules = Schedules::Seeds(Scheduler::Mix, seeds);
        let ran = loop {
            let ran = self.take(&schedules);
            let Some(Failed {
                seed,
                invariant,
                steps,
            }) = ran.failure
            else {
                break ran;
            };
            let found_by = format!("{}, seed {seed}", Scheduler::Mix.of(seed));
            self.found(invariant, steps, found_by)?;
        };
        let had = ran.schedules;
        let report = self.finish(ran)?;
        Ok(Report {
            note: (had < asked).then(|| {
                format!("the time was over before the {asked} schedules that were asked for")
            }),
            ..report
        })
    }

    /// The schedule that is like a trace's.
    pub(crate) fn like(&mut self, like: &[Step], trace: &Path) -> Result<Report, Box<Failure>> {
        let ran = self.take(&Schedules::Like(like.to_vec()));
        if let Some(failure) = &ran.failure {
            let found_by = format!("the trace {}", trace.display());
            return Err(self.tell(failure.invariant, &failure.steps, found_by));
        }
        self.finish(ran)
    }

    fn finish(&mut self, ran: Ran) -> Result<Report, Box<Failure>> {
        self.schedules += ran.schedules;
        if let Some(trouble) = self.tree.trouble.take() {
            return self.trouble(trouble);
        }
        if ran.cut > 0 {
            return self.fail(FailureKind::TooLong);
        }
        if ran.schedules > 0 && !ran.seen.has(Sometimes::EndReached) {
            return self.fail(FailureKind::ClaimsNothing);
        }
        Ok(self.report())
    }

    /// Every schedule; where a limit comes first, those of the seeds.
    pub(crate) fn search(&mut self) -> Result<Report, Box<Failure>> {
        if self.schedules < LEARNING_SEEDS {
            // What these find is found again.
            self.take(&Schedules::Seeds(Scheduler::Mix, 0..LEARNING_SEEDS));
            if self.tree.trouble.is_some() {
                self.begin_anew()?;
            }
        }
        self.tree.tell(&mut self.scenario.machine);
        let report = loop {
            self.tree.counts_on_it = true;
            let most_calls = self.checker.max_calls.unwrap_or(MOST_CALLS_OF_A_SEARCH);
            self.tree.most_calls = most_calls;
            let options = search::Options {
                max_states: self.checker.max_states,
                max_memory_bytes: Some(self.checker.max_memory_bytes),
                max_time: Some(self.time_left()),
                ..search::Options::default()
            };
            let searched = search::check_code(&self.scenario, &options, &|_| true, &mut self.tree);
            let (report, machine) = match searched {
                Ok(searched) => searched,
                Err(error) => return self.seeds_instead(&error.to_string()),
            };
            self.scenario.machine = machine;
            if self.heard_news() {
                continue;
            }
            match &report.violation {
                None => break report,
                Some(violation) => match &violation.steps {
                    Some(steps) => {
                        self.found(violation.invariant, steps.clone(), "check".to_owned())?;
                    }
                    None => {
                        return self.seeds_instead(
                            "a claim breaks, and a limit came before it was known how",
                        );
                    }
                },
            }
        };
        let trouble = self.tree.trouble.take();
        match (report.coverage, trouble) {
            (Coverage::Exhausted, _) if report.verdict == Verdict::Inconclusive => {
                self.fail(FailureKind::ClaimsNothing)
            }
            (Coverage::Exhausted | Coverage::Proved, _) => Ok(Report {
                exhaustive: true,
                states: report.states,
                transitions: report.transitions,
                ..self.report()
            }),
            (Coverage::Truncated(_), Some(Trouble::TooMany)) => self.seeds_instead(
                "the search is not whole: the code has more histories of answers than there is room for",
            ),
            (Coverage::Truncated(_), Some(Trouble::Endless(round, calls))) => {
                let round = round.join(", ");
                self.seeds_instead(&format!("the search is not whole: after {calls} calls the code may still go round ({round})"))
            }
            (Coverage::Truncated(_), Some(trouble)) => self.trouble(trouble),
            (Coverage::Truncated(limit), None) => {
                let states = report.states;
                let limit = match limit {
                    Limit::States => "of states",
                    Limit::Memory => "of memory",
                    Limit::Time => "of time",
                    Limit::Interrupt | Limit::Code => "",
                };
                self.seeds_instead(&format!(
                    "the search is not whole: its limit {limit} came at {states} states"
                ))
            }
        }
    }

    fn seeds_instead(&mut self, why: &str) -> Result<Report, Box<Failure>> {
        // They have as much time again.
        self.begin = Instant::now();
        self.tree.guesses = false;
        let report = self.seeds(self.checker.seeds.clone())?;
        let both = report.note.iter().map(String::as_str);
        let note = [why].into_iter().chain(both).collect::<Vec<_>>().join("; ");
        Ok(Report {
            note: Some(note),
            ..report
        })
    }

    /// A schedule that breaks a claim, made short and told. Nothing is told of one that was found where two histories were wrongly taken
    /// for one: all is begun anew.
    fn found(
        &mut self,
        invariant: Invariant,
        found: Vec<Step>,
        found_by: String,
    ) -> Result<(), Box<Failure>> {
        // What is not known of the code on a shorter way is asked; what it is taken not to do, a search alone counts on.
        self.tree.counts_on_it = false;
        let (shrunk, machine) = shrink_code(
            &self.scenario,
            &found,
            invariant,
            SHRINK_BUDGET,
            &mut |_| true,
            &mut self.tree,
        );
        self.scenario.machine = machine;
        // That a shorter one cannot be had is no news of this one.
        if self.tree.trouble.take() == Some(Trouble::Unlike) {
            return self.begin_anew();
        }
        let steps = shrunk.map_or(found, |shrunk| shrunk.steps);
        Err(self.tell(invariant, &steps, found_by))
    }

    /// A schedule that breaks a claim, told.
    fn tell(&self, invariant: Invariant, steps: &[Step], found_by: String) -> Box<Failure> {
        let way = way_through(&self.scenario, steps);
        let kind = match self.tree.bad_end(&way) {
            Some(End::Panicked(message, place)) => FailureKind::Panicked { message, place },
            Some(End::Failed(error)) => FailureKind::ReturnedError { error },
            Some(End::Done) | None => FailureKind::Broken {
                claim: invariant.name(),
            },
        };
        let name = &self.checker.name;
        match self.story(invariant, steps, &way) {
            Ok((scenario, story)) => {
                let mut failure = Failure::of(kind, name);
                failure.found = Some(Box::new(Found {
                    scenario,
                    steps: steps.to_vec(),
                    invariant,
                    found_by,
                    story,
                }));
                failure
            }
            Err(error) => {
                let claim = invariant.name();
                let what = format!("a schedule breaks {claim}, and cannot be told: {error}");
                Failure::of(FailureKind::Trace { what }, name)
            }
        }
    }

    /// The scenario of a way through the program, and the story of steps that go it; why there is none in words.
    fn story(
        &self,
        invariant: Invariant,
        steps: &[Step],
        way: &[Vec<u16>],
    ) -> Result<(Scenario, Story), String> {
        let checker = self.checker;
        let threads = self.tree.steps(way);
        let scenario = checker
            .machine
            .scenario(&checker.name, &self.claims, &threads)
            .map_err(|error| error.to_string())?;
        let reproduce = match checker.kept() {
            Some(kept) => {
                let test = test_path().unwrap_or_default();
                format!("DIRTYSIM_TRACE={} cargo test {test}", kept.display())
            }
            None => checker.again.clone(),
        };
        let story = Story::new(&scenario, steps, Some(invariant), reproduce)
            .map_err(|error| error.to_string())?;
        Ok((scenario, story))
    }
}
