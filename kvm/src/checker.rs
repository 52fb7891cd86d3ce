//! Running code under schedules: all of them, those of seeds, or the one of a trace.

use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dirtysim_check::code::way_through;
use dirtysim_check::run::{Failure as Failed, Outcome as Ran, Schedules, run_code};
use dirtysim_check::scenario::Scenario;
use dirtysim_check::scheduler::Scheduler;
use dirtysim_check::search::{self, Coverage, Limit, Verdict};
use dirtysim_check::shrink::{Budget, shrink_code};
use dirtysim_check::sometimes::Sometimes;
use dirtysim_evidence::explain::Story;
use dirtysim_evidence::replay::steps;
use dirtysim_evidence::trace::TraceReader;
use dirtysim_model::oracle::Invariant;
use dirtysim_model::transition::Step;

use crate::failure::{Failure, FailureKind, Found};
use crate::machine::Machine;
use crate::session::{Code, End, NOT_APART, TOO_MANY_APART, TOO_MANY_THREADS, Threads};
use crate::tree::{MOST_OPS, PATIENCE, Tree, Trouble};
use crate::vm::Vm;

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

/// Seeds that `check` tries before it searches: most bugs are found by these, at once.
const FIRST_SEEDS: u64 = 512;
/// Seeds by which a search learns what to expect of code of which nothing was seen.
const LEARNING_SEEDS: u64 = 64;
/// Calls that a thread may make in one run before it is taken to go round for ever.
const MOST_CALLS: u32 = 5_000;
/// The same in a search, where every history has a number.
const MOST_CALLS_OF_A_SEARCH: u32 = 500;
/// Threads of the code, at most.
const MOST_THREADS: u8 = 3;
/// What making a schedule short may cost.
const SHRINK_BUDGET: Budget = Budget {
    attempts: 20_000,
    states: 200_000,
    bytes: 1 << 28,
};

/// What code under test may return: nothing, or a result whose error counts as a failure.
pub trait Outcome {
    /// The error in words, if there is one.
    #[doc(hidden)]
    fn into_words(self) -> Result<(), String>;
}

impl Outcome for () {
    fn into_words(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Debug> Outcome for Result<(), E> {
    fn into_words(self) -> Result<(), String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// A variable of the environment that cannot be read: what is wrong, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentError(String);

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EnvironmentError {}

/// Whether the claims about every state on the way were judged, and not the end's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnTheWay {
    /// Nobody asked for it.
    NotAsked,
    /// They were.
    Judged,
    /// They were not, since not enough is known of what the code holds: why.
    NotJudged(&'static str),
}

/// What was seen of code that did not fail.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The name of the test, or of the machine.
    pub name: String,
    /// Whether every schedule was covered; else those that the other numbers say.
    pub exhaustive: bool,
    /// Distinct states of machine and code that were searched; 0: none.
    pub states: u64,
    /// Transitions between them.
    pub transitions: u64,
    /// Schedules of seeds.
    pub schedules: u64,
    /// Histories of calls and answers that the code has had.
    pub histories: u64,
    /// How often the code was run from its begin.
    pub runs: u64,
    /// Threads of the code.
    pub threads: u8,
    /// Whether they share no memory ([`Vm::spawn_apart`]): the histories are of each by itself, and else of the order of all.
    pub threads_apart: bool,
    /// Why not every schedule was covered, where that was asked for.
    pub note: Option<String>,
    /// Whether the claims on the way were judged.
    pub on_the_way: OnTheWay,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if self.exhaustive {
            write!(
                f,
                "holds under every schedule: {} states, {} transitions",
                self.states, self.transitions
            )?;
        } else {
            if let Some(note) = &self.note {
                write!(f, "{note}; ")?;
            }
            write!(f, "nothing broke in {} schedules", self.schedules)?;
        }
        write!(
            f,
            "; the code was run {} times for {} histories",
            self.runs, self.histories
        )?;
        match (self.threads, self.threads_apart) {
            (1, _) => {}
            (threads, true) => write!(f, " of its {threads} threads, each by itself")?,
            (threads, false) => write!(f, " of the order of its {threads} threads")?,
        }
        match self.on_the_way {
            OnTheWay::NotAsked => Ok(()),
            OnTheWay::Judged => f.write_str("; the claims on the way hold too"),
            OnTheWay::NotJudged(why) => {
                write!(f, "; the claims on the way were not judged: {why}")
            }
        }
    }
}

/// Runs code against a machine, with limits of one's own; [`check`] and [`run`] are this with the usual ones.
///
/// ```
/// use dirtysim_kvm::{Arch, Checker, FailureKind, Machine, Vm};
///
/// let machine = Machine::new(Arch::X86).slot(0, 1);
/// let failure = Checker::new(machine)
///     .run(|vm: Vm| {
///         let region = vm.memory_region(0);
///         vm.set_user_memory_region(region.log_dirty_pages()).unwrap();
///         vm.send_all_pages();
///         // Nobody asked for what was stored meanwhile.
///         vm.pause_vcpus();
///         vm.assert_copy_is_whole();
///     })
///     .unwrap_err();
/// assert_eq!(*failure.kind(), FailureKind::Broken { claim: "no_dirty_page_lost" });
/// assert_eq!(failure.pages(), ["slot0:0"]);
/// println!("{failure}");
/// ```
#[derive(Debug, Clone)]
pub struct Checker {
    machine: Machine,
    name: String,
    seeds: Range<u64>,
    max_time: Duration,
    max_states: Option<u64>,
    max_memory_bytes: u64,
    max_calls: Option<u32>,
    patience: Duration,
    /// Histories that are remembered.
    most_histories: u16,
    traces: Option<PathBuf>,
    on_the_way: bool,
    /// How its schedule is run again, where no trace is kept.
    again: String,
}

impl Checker {
    /// For a machine: seeds 0 to 10,000, and for a search 60 seconds and 1 GiB. No trace is kept.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        let name = test_name().or_else(|| machine.name().map(plain_name));
        Self {
            name: name.unwrap_or_else(|| "code-under-test".to_owned()),
            machine,
            seeds: 0..10_000,
            max_time: Duration::from_secs(60),
            max_states: None,
            max_memory_bytes: 1 << 30,
            max_calls: None,
            patience: PATIENCE,
            most_histories: MOST_OPS,
            traces: None,
            on_the_way: false,
            again: "Failure::write_trace keeps it, Checker::replay runs it".to_owned(),
        }
    }

    /// The same, with the seeds of `DIRTYSIM_SEEDS` and the time of `DIRTYSIM_MAX_TIME`.
    ///
    /// # Errors
    /// What is wrong with one of these, and what to write.
    pub fn from_environment(machine: Machine) -> Result<Self, EnvironmentError> {
        let mut checker = Self::new(machine);
        if let Ok(seeds) = std::env::var("DIRTYSIM_SEEDS") {
            checker.seeds = read_seeds(&seeds).ok_or_else(|| {
                let help = "write a number, or a range as 0..50000";
                EnvironmentError(format!("DIRTYSIM_SEEDS={seeds}: {help}"))
            })?;
        }
        if let Ok(time) = std::env::var("DIRTYSIM_MAX_TIME") {
            checker.max_time = read_time(&time).ok_or_else(|| {
                let help = "write seconds, as 300";
                EnvironmentError(format!("DIRTYSIM_MAX_TIME={time}: {help}"))
            })?;
        }
        Ok(checker)
    }

    /// What a story says of how to run its schedule again, where no trace is kept.
    #[must_use]
    pub fn run_again_by(mut self, words: &str) -> Self {
        self.again = words.to_owned();
        self
    }

    /// The name in what is told, in place of the test's.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = plain_name(name);
        self
    }

    /// The seeds that are tried, the end excluded.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// The time after which a search is given up, or seeds are.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// The states after which a search is given up.
    #[must_use]
    pub fn max_states(mut self, states: u64) -> Self {
        self.max_states = Some(states);
        self
    }

    /// The bytes after which a search is given up.
    #[must_use]
    pub fn max_memory_bytes(mut self, bytes: u64) -> Self {
        self.max_memory_bytes = bytes;
        self
    }

    /// The calls of one run after which the code is taken to go round for ever: 5,000, and in a search 500.
    #[must_use]
    pub fn max_calls(mut self, calls: u32) -> Self {
        self.max_calls = Some(calls);
        self
    }

    /// How long the code may go on without a call: 10 seconds.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Judges every state on the way too, and not the end alone: each page that differs at the destination is in a record of the kernel, or
    /// is owed one, or the code was given it and has not sent it; and what no record has is armed. Before a page is sent first, it counts
    /// as still to be sent. So a page that is lost is seen where it is lost, also by code that would send all of memory again.
    ///
    /// What the code knows by itself, as a page that it sends at the end whatever the kernel says, is not known here: such code breaks these
    /// claims and is right. They are not judged where the code stores to guest memory by itself ([`Vm::store_page`]) or has several
    /// threads, since it holds then what it was never given; the [`Report`] says so.
    ///
    /// ```
    /// use dirtysim_kvm::{Arch, Checker, FailureKind, Machine, Vm};
    ///
    /// let failure = Checker::new(Machine::new(Arch::X86).slot(0, 1))
    ///     .claims_on_the_way()
    ///     .check(|vm: Vm| {
    ///         vm.send_all_pages();
    ///         // What was stored before this is in no record.
    ///         let region = vm.memory_region(0).log_dirty_pages();
    ///         vm.set_user_memory_region(region).unwrap();
    ///         vm.pause_vcpus();
    ///         // That mends it, at the price of a second copy.
    ///         vm.send_all_pages();
    ///         vm.assert_copy_is_whole();
    ///     })
    ///     .unwrap_err();
    /// let claim = "stale_page_is_accounted_for";
    /// assert_eq!(*failure.kind(), FailureKind::Broken { claim });
    /// ```
    #[must_use]
    pub fn claims_on_the_way(mut self) -> Self {
        self.on_the_way = true;
        self
    }

    /// Keeps the trace of a failure in this folder, by the name of the test, and tries what is kept there first.
    #[must_use]
    pub fn keep_traces_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.traces = Some(folder.into());
        self
    }

    /// Runs code under every schedule. Where a limit comes first, under those of the seeds, and the report says so.
    ///
    /// # Errors
    /// What went wrong under some schedule, or with the code or machine as such.
    pub fn check<R: Outcome + 'static>(
        &self,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
    ) -> Result<Report, Box<Failure>> {
        self.drive(code, |work| {
            work.tree.guesses = true;
            let first = self.seeds.start..self.seeds.end.min(self.seeds.start + FIRST_SEEDS);
            work.seeds(first)?;
            work.search()
        })
    }

    /// Runs code under the schedules of the seeds, by a mix of schedulers.
    ///
    /// # Errors
    /// As [`Checker::check`].
    pub fn run<R: Outcome + 'static>(
        &self,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
    ) -> Result<Report, Box<Failure>> {
        self.drive(code, |work| work.seeds(self.seeds.clone()))
    }

    /// Runs code under the schedule of a trace: its steps where they are possible, in their order; then any. So a trace is good for
    /// code that has changed since.
    ///
    /// # Errors
    /// As [`Checker::check`]; and a trace that is none.
    pub fn replay<R: Outcome + 'static>(
        &self,
        trace: impl AsRef<Path>,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
    ) -> Result<Report, Box<Failure>> {
        let like = self.read(trace.as_ref())?;
        self.drive(code, |work| work.like(&like, trace.as_ref()))
    }

    /// The steps of a trace.
    fn read(&self, trace: &Path) -> Result<Vec<Step>, Box<Failure>> {
        let file = trace.display().to_string();
        let wrong = |what: String| Failure::of(FailureKind::Trace { what }, &self.name);
        let reader = TraceReader::open(trace).map_err(|error| wrong(error.to_string()))?;
        let scenario = steps::scenario_of(reader.header(), &file);
        let scenario = scenario.map_err(|error| wrong(error.to_string()))?;
        let mut taken = Vec::new();
        steps::replay(reader, &file, scenario, |step| taken.push(step))
            .map_err(|error| wrong(error.to_string()))?;
        Ok(taken)
    }

    fn kept(&self) -> Option<PathBuf> {
        let folder = self.traces.as_ref()?;
        Some(folder.join(format!("{}.jsonl", self.name)))
    }

    fn drive<R: Outcome + 'static>(
        &self,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
        how: impl Fn(&mut Work<'_>) -> Result<Report, Box<Failure>>,
    ) -> Result<Report, Box<Failure>> {
        let code: Code = Arc::new(move |vm| code(vm).into_words());
        let mut threads = Threads {
            count: 1,
            apart: false,
        };
        loop {
            let mut work = Work::new(self, code.clone(), threads, false)?;
            let kept = self.kept().filter(|kept| kept.exists());
            let first = match kept {
                // What cannot be read any more is no reason not to test.
                Some(kept) => match self.read(&kept) {
                    Ok(like) => work.like(&like, &kept).map(|_| ()),
                    Err(failure) => {
                        println!("{}: {}", self.name, failure.kind());
                        Ok(())
                    }
                },
                None => Ok(()),
            };
            let done = first.and_then(|()| how(&mut work));
            match done {
                Err(failure) if other_threads(&failure, threads).is_some() => {
                    threads = other_threads(&failure, threads).unwrap_or(threads);
                }
                Err(failure) if wants_more_threads(&failure) => {
                    let what = format!("more than {MOST_THREADS} threads");
                    let place = match failure.kind {
                        FailureKind::Mistake { place, .. } => place,
                        _ => String::new(),
                    };
                    return Err(Failure::of(
                        FailureKind::Mistake { what, place },
                        &self.name,
                    ));
                }
                Err(mut failure) => {
                    if let Some(kept) = self.kept().filter(|_| failure.found.is_some()) {
                        let written = failure.write_trace(&kept);
                        failure.trace = Some(match written {
                            Ok(()) => Ok(kept),
                            Err(error) => Err(format!("{}: {error}", kept.display())),
                        });
                    }
                    return Err(failure);
                }
                Ok(report) => return Ok(report),
            }
        }
    }
}

fn wants_more_threads(failure: &Failure) -> bool {
    let more = [TOO_MANY_THREADS, TOO_MANY_APART];
    matches!(&failure.kind, FailureKind::Mistake { what, .. } if more.contains(&what.as_str()))
}

/// The threads with which code is to be begun anew, where those that it was given are not what it wants.
fn other_threads(failure: &Failure, now: Threads) -> Option<Threads> {
    let FailureKind::Mistake { what, .. } = &failure.kind else {
        return None;
    };
    match what.as_str() {
        NOT_APART => Some(Threads {
            apart: false,
            ..now
        }),
        TOO_MANY_THREADS | TOO_MANY_APART if now.count < MOST_THREADS => Some(Threads {
            count: now.count + 1,
            apart: what == TOO_MANY_APART,
        }),
        _ => None,
    }
}

/// Code in work: what is known of it, and what was covered.
struct Work<'a> {
    checker: &'a Checker,
    code: Code,
    tree: Tree,
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
    fn new(
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
    fn seeds(&mut self, seeds: Range<u64>) -> Result<Report, Box<Failure>> {
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
    fn like(&mut self, like: &[Step], trace: &Path) -> Result<Report, Box<Failure>> {
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
    fn search(&mut self) -> Result<Report, Box<Failure>> {
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

/// Runs code under every schedule of the machine, within the bounds of its guest. Where a limit comes first, under 10,000
/// schedules of seeds, and a line says so.
///
/// `DIRTYSIM_SEEDS=50000` or `DIRTYSIM_SEEDS=0..50000` sets the seeds, `DIRTYSIM_MAX_TIME=300` the seconds that a search, or the seeds, may
/// take, `DIRTYSIM_TRACE=…` replays that trace alone, in the test whose it is.
///
/// # Panics
/// With the story of the schedule under which the code fails. Its trace is kept in `dirtysim-traces/` beside the package's
/// `Cargo.toml`, by the name of the test, and tried first next time.
///
/// ```
/// use dirtysim_kvm::{Arch, Machine, Vm, check};
///
/// let machine = Machine::new(Arch::X86).slot(0, 1).stores(1);
/// check(machine, |vm: Vm| {
///     let region = vm.memory_region(0);
///     vm.set_user_memory_region(region.log_dirty_pages())?;
///     vm.send_all_pages();
///     vm.pause_vcpus();
///     let bitmap = vm.get_dirty_log(0, region.memory_size as usize)?;
///     if bitmap[0] & 1 != 0 {
///         vm.send_page(0, 0);
///     }
///     vm.assert_copy_is_whole();
///     Ok::<(), dirtysim_kvm::Errno>(())
/// });
/// ```
#[track_caller]
pub fn check<R: Outcome + 'static>(
    machine: Machine,
    code: impl Fn(Vm) -> R + Send + Sync + 'static,
) {
    let checker = in_a_test(machine, Location::caller());
    conclude(match trace_of(&checker) {
        Some(trace) => checker.replay(trace, code),
        None => checker.check(code),
    });
}

/// Runs code under the schedules of seeds, by a mix of schedulers. The environment is as for [`check`].
///
/// # Panics
/// As [`check`].
///
/// ```
/// use dirtysim_kvm::{Arch, Machine, Vm, run};
///
/// let machine = Machine::new(Arch::Arm64).slot(0, 2).ring(4).stores(2);
/// run(machine, 0..100, |vm: Vm| {
///     let region = vm.memory_region(0).log_dirty_pages();
///     vm.set_user_memory_region(region).unwrap();
///     vm.send_all_pages();
///     vm.pause_vcpus();
///     for (slot, offset) in vm.vcpu(0).dirty_log_ring_iter().unwrap() {
///         vm.send_page(slot, offset);
///     }
///     vm.assert_copy_is_whole();
/// });
/// ```
#[track_caller]
pub fn run<R: Outcome + 'static>(
    machine: Machine,
    seeds: Range<u64>,
    code: impl Fn(Vm) -> R + Send + Sync + 'static,
) {
    let mut checker = in_a_test(machine, Location::caller());
    if std::env::var_os("DIRTYSIM_SEEDS").is_none() {
        checker.seeds = seeds;
    }
    conclude(match trace_of(&checker) {
        Some(trace) => checker.replay(trace, code),
        None => checker.run(code),
    });
}

/// Runs code under the schedule of a trace that a failure left.
///
/// # Panics
/// As [`check`]; and where the trace cannot be read.
#[track_caller]
pub fn replay<R: Outcome + 'static>(
    machine: Machine,
    trace: impl AsRef<Path>,
    code: impl Fn(Vm) -> R + Send + Sync + 'static,
) {
    let mut checker = in_a_test(machine, Location::caller());
    checker.traces = None;
    conclude(checker.replay(trace, code));
}

#[track_caller]
fn conclude(done: Result<Report, Box<Failure>>) {
    match done {
        Ok(report) => println!("{report}"),
        Err(failure) => panic!("{failure}"),
    }
}

/// As the environment has it, with traces kept beside the package's `Cargo.toml`.
fn in_a_test(machine: Machine, place: &Location<'_>) -> Checker {
    let checker = Checker::from_environment(machine);
    let mut checker = checker.unwrap_or_else(|wrong| panic!("{wrong}"));
    if test_name().is_none() {
        let file = Path::new(place.file()).file_stem().unwrap_or_default();
        checker = checker.name(&file.to_string_lossy());
    }
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    checker.keep_traces_in(package.unwrap_or_default().join("dirtysim-traces"))
}

/// The trace that the environment names, if it is this test's.
fn trace_of(checker: &Checker) -> Option<PathBuf> {
    let trace = PathBuf::from(std::env::var_os("DIRTYSIM_TRACE")?);
    match TraceReader::open(&trace) {
        Ok(reader) if reader.header().title.as_deref() != Some(&checker.name) => None,
        // Replaying says what is wrong with it.
        Ok(_) | Err(_) => Some(trace),
    }
}

fn read_seeds(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.trim().parse().ok()?..to.trim().parse().ok()?),
        None => Some(0..text.trim().parse().ok()?),
    }
}

fn read_time(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().trim_end_matches('s').parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The path of the test that runs, as `cargo test` takes it.
fn test_path() -> Option<String> {
    let name = std::thread::current().name()?.to_owned();
    (name != "main").then_some(name)
}

/// The same as a name of files.
fn test_name() -> Option<String> {
    Some(plain_name(&test_path()?))
}

/// Letters, digits, - and _ alone, 100 at most.
fn plain_name(name: &str) -> String {
    let plain = name.replace("::", "-");
    let right = |c: char| {
        if c.is_ascii_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '-'
        }
    };
    let plain: String = plain.chars().map(right).take(100).collect();
    if plain.is_empty() {
        "code-under-test".to_owned()
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_times_are_read_as_they_are_written() {
        assert_eq!(read_seeds("500"), Some(0..500));
        assert_eq!(read_seeds("7..9"), Some(7..9));
        assert_eq!(read_seeds("many"), None);
        assert_eq!(read_time("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(read_time("30s"), Some(Duration::from_secs(30)));
        assert_eq!(read_time("-1"), None);
    }

    #[test]
    fn seeds_go_on_where_there_is_no_room_for_more_histories_and_a_search_falls_back_to_them() {
        use crate::Arch;
        let machine = Machine::new(Arch::X86).slot(0, 3).stores(2);
        let code = |vm: Vm| {
            let ram = vm.memory_region(0);
            vm.set_user_memory_region(ram.log_dirty_pages())?;
            vm.send_all_pages();
            for last in [false, false, true] {
                if last {
                    vm.pause_vcpus();
                }
                let bits = vm.get_dirty_log(0, ram.memory_size as usize)?[0];
                let pages = (0..3).filter(|page| bits >> page & 1 != 0);
                pages.for_each(|page| vm.send_page(0, page));
            }
            vm.assert_copy_is_whole();
            Ok::<(), crate::Errno>(())
        };
        let mut checker = Checker::new(machine).seeds(0..200);
        let whole = checker.check(code).expect("it is right");
        assert!(whole.exhaustive && whole.histories > 13, "{whole}");
        checker.most_histories = 40;
        let report = checker.run(code).expect("it is right");
        assert_eq!(report.schedules, 200);
        assert!(report.histories <= 40, "{report}");
        checker.most_histories = whole.histories as u16 - 1;
        let report = checker.check(code).expect("it is right");
        assert!(!report.exhaustive, "{report}");
        let note = report.note.expect("it says why");
        assert!(note.contains("histories"), "{note}");
        // A run that has no room at all is told.
        checker.most_histories = 3;
        assert!(checker.run(code).is_err());
    }

    #[test]
    fn a_name_is_one_of_a_scenario() {
        assert_eq!(plain_name("module::my test"), "module-my-test");
        assert_eq!(plain_name(""), "code-under-test");
        assert_eq!(plain_name(&"x".repeat(200)).len(), 100);
    }
}
