//! Cycles without progress: what is found is one, and an algorithm of another kind finds the same.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use dirtysim::scenario::{Expect, Scenario, about_liveness, builtin, builtins};
use dirtysim::search::liveness::{
    Endless, NotALasso, Report, confirm, is_at_leisure, is_awaited, is_progress, is_unquiet,
    liveness,
};
use dirtysim::search::{self, Coverage, Limit, Options, Reductions, Verdict};
use dirtysim::stuck::is_stuck;
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{Actor, Step, apply, blocked, for_each_step};
use dirtysim_model::words::mutation::Mutation;
use serde_json::Value;

fn search(scenario: &Scenario, reductions: Reductions, threads: usize) -> Report {
    let options = Options {
        reductions,
        ..Options::default()
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads can be made");
    let report = pool.install(|| liveness(scenario, &options, &|_| true));
    let mut report = report.expect("it can be searched");
    report.peak_bytes = 0;
    report
}

fn expected(scenario: &Scenario) -> Verdict {
    match scenario.expected_liveness() {
        Expect::Holds => Verdict::Holds,
        Expect::Violated(_) => Verdict::Violated,
    }
}

/// The steps are possible, and end in a deadlock, or in a cycle that can go on for ever.
fn shows_it(scenario: &Scenario, report: &Report) {
    let name = &scenario.name;
    let lasso = report.lasso.as_ref().expect("a violation has a schedule");
    if lasso.cycle > 0 {
        assert_eq!(
            confirm(scenario, lasso.kind, &lasso.steps, lasso.cycle),
            Ok(()),
            "{name}"
        );
        return;
    }
    let mut state = scenario.start::<Small>().expect("it fits");
    for &step in &lasso.steps {
        apply(&scenario.machine, &mut state, step);
    }
    let mut possible = 0;
    for_each_step(&scenario.machine, &state, |_| possible += 1);
    assert!(
        possible == 0 && is_stuck(&scenario.machine, &state),
        "{name}"
    );
}

/// One state of a graph that is small enough to be looked at as a whole.
struct Node {
    edges: Vec<Edge>,
    /// Who waits for what is had in turn.
    queued: Vec<Actor>,
    stuck: bool,
    idle: bool,
    awaited: bool,
}

struct Edge {
    who: Actor,
    to: usize,
    progress: bool,
    unquiet: bool,
    at_leisure: bool,
}

impl Node {
    /// Who can act, and for an end must be expected to.
    fn enabled(&self, kind: Endless) -> BTreeSet<Actor> {
        let counts = |edge: &&Edge| kind == Endless::WithoutProgress || !edge.at_leisure;
        self.edges
            .iter()
            .filter(counts)
            .map(|edge| edge.who)
            .collect()
    }

    /// The edges that a cycle may have.
    fn edges(&self, kind: Endless) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| match kind {
            Endless::WithoutProgress => !edge.progress,
            Endless::WithoutEnd => !edge.unquiet,
        })
    }

    fn may_go_on(&self, kind: Endless) -> bool {
        match kind {
            Endless::WithoutProgress => !self.idle,
            Endless::WithoutEnd => self.awaited,
        }
    }
}

fn whole_graph(scenario: &Scenario) -> Vec<Node> {
    let machine = &scenario.machine;
    let start = scenario.start::<Small>().expect("it fits");
    let packing = Packing::new(machine, &start);
    let pack = |state: &State<Small>| {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut state.clone(), &mut words);
        words
    };
    let mut numbers = BTreeMap::from([(pack(&start), 0)]);
    let mut states = vec![start];
    let mut nodes = Vec::new();
    while let Some(state) = states.get(nodes.len()).cloned() {
        let mut steps: Vec<Step> = Vec::new();
        for_each_step(machine, &state, |step| steps.push(step));
        let mut edges = Vec::new();
        for &step in &steps {
            let mut after = state.clone();
            apply(machine, &mut after, step);
            let next = numbers.len();
            let number = *numbers.entry(pack(&after)).or_insert(next);
            if number == next {
                states.push(after.clone());
            }
            edges.push(Edge {
                who: step.actor,
                to: number,
                progress: is_progress(&state, step, &after),
                unquiet: is_unquiet(&state, step, &after),
                at_leisure: is_at_leisure(&state, step),
            });
        }
        let everybody = (0..4).flat_map(|index| [Actor::Vcpu(index), Actor::Thread(index)]);
        let there = everybody.filter(|actor| match actor {
            Actor::Vcpu(index) => usize::from(*index) < state.vcpus.len(),
            Actor::Thread(index) => usize::from(*index) < state.threads.len(),
            Actor::Device(_) => false,
        });
        let in_turn = |actor: &Actor| {
            blocked(machine, &state, *actor).is_some_and(|waits| waits.is_in_turn())
        };
        nodes.push(Node {
            edges,
            queued: there.filter(in_turn).collect(),
            stuck: steps.is_empty() && is_stuck(machine, &state),
            idle: state
                .threads
                .iter()
                .zip(&machine.programs)
                .all(|(thread, program)| usize::from(thread.op) >= program.len()),
            awaited: is_awaited(machine, &state),
        });
    }
    nodes
}

/// The claims that are broken: some state begins a fair path of that kind, or is a deadlock.
fn broken(nodes: &[Node]) -> Invariants {
    let mut broken = Invariants::NONE;
    for kind in [Endless::WithoutProgress, Endless::WithoutEnd] {
        if goes_on_for_ever(nodes, kind) {
            broken.insert(kind.invariant());
        }
    }
    if nodes.iter().any(|node| node.stuck) {
        broken.insert(Invariant::MigrationMakesProgress);
    }
    broken
}

/// How a path is fair to an actor from some state on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fair {
    /// It acts again and again.
    Acts,
    /// It is unable to act again and again, or acts; and it is in no queue.
    Weakly,
    /// It is never able to act.
    Never,
}

/// Whether there is a path that is fair to everybody: each in one of the ways that there are, and every combination of them
/// is looked at.
fn goes_on_for_ever(nodes: &[Node], kind: Endless) -> bool {
    let enabled: Vec<BTreeSet<Actor>> = nodes.iter().map(|node| node.enabled(kind)).collect();
    let actors: BTreeSet<Actor> = enabled.iter().flatten().copied().collect();
    let mut ways: Vec<Vec<(Actor, Fair)>> = vec![Vec::new()];
    for actor in actors {
        let queues = nodes.iter().any(|node| node.queued.contains(&actor));
        let fair: &[Fair] = if queues {
            &[Fair::Acts, Fair::Weakly, Fair::Never]
        } else {
            &[Fair::Weakly]
        };
        ways = ways
            .iter()
            .flat_map(|way| {
                fair.iter()
                    .map(|fair| [&way[..], &[(actor, *fair)]].concat())
            })
            .collect();
    }
    ways.iter().any(|way| goes_on(nodes, kind, &enabled, way))
}

/// Whether some state begins such a path: the greatest set from each state of which, for each actor, a path of at least a
/// step inside the set serves it (Emerson and Lei, LICS 1986).
fn goes_on(
    nodes: &[Node],
    kind: Endless,
    enabled: &[BTreeSet<Actor>],
    way: &[(Actor, Fair)],
) -> bool {
    let mut fair: Vec<bool> = nodes
        .iter()
        .zip(enabled)
        .map(|(node, enabled)| {
            node.may_go_on(kind)
                && way.iter().all(|(actor, fair)| match fair {
                    Fair::Acts => true,
                    Fair::Weakly => !node.queued.contains(actor),
                    Fair::Never => !enabled.contains(actor),
                })
        })
        .collect();
    // Somebody acts, also where nobody need.
    let goals: Vec<Option<(Actor, Fair)>> = way.iter().copied().map(Some).chain([None]).collect();
    loop {
        let before = fair.clone();
        for goal in &goals {
            // States from which a step inside the set serves the actor, or leads on to one that does.
            let mut serves = vec![false; nodes.len()];
            loop {
                let mut changed = false;
                for (at, node) in nodes.iter().enumerate().filter(|(at, _)| fair[*at]) {
                    let now = node.edges(kind).any(|edge| {
                        let served = goal.is_none_or(|(actor, fair)| {
                            edge.who == actor
                                || (fair != Fair::Acts && !enabled[at].contains(&actor))
                        });
                        fair[edge.to] && (served || serves[edge.to])
                    });
                    changed |= now && !serves[at];
                    serves[at] |= now;
                }
                if !changed {
                    break;
                }
            }
            fair = serves;
        }
        if fair == before {
            return fair.contains(&true);
        }
    }
}

/// Scenarios small enough for the plain algorithm, some that hold and some that do not, and wrong kernels and VMMs.
fn small() -> Vec<Scenario> {
    let mut all = about_liveness();
    all.extend(about_ends());
    for name in [
        "reset-signal",
        "x86-pml-enabled-late",
        "pml-not-waited",
        "s390-mark-during-get",
        "c03",
        "k08",
        "qemu-ring-full",
    ] {
        all.push(builtin(name).expect("a built-in scenario"));
    }
    let waits = builtin("ring-full-waits").expect("a built-in scenario");
    for mutation in [
        Mutation::RingNoRequest,
        Mutation::ResetNoFlush,
        Mutation::RingSoftFullLate,
    ] {
        all.push(waits.clone().with_mutation(mutation));
    }
    for steps in [
        "\"copy-all\", \"wait-guest-runs\", \"wait-ring-full\", \"pause-vcpus\", \"finish\"",
        "\"copy-all\", { step = \"harvest-rings\", way = \"skip-first\" }, \"reset-rings\", \"wait-ring-full\", \"pause-vcpus\", \"finish\"",
        "\"copy-all\", \"pause-vcpus\", \"wait-guest-runs\", \"finish\"",
        "\"copy-all\", \"finish\"",
    ] {
        let text = format!(
            "name = \"generated\"\n[machine]\narch = \"x86\"\nring = {{ entries = 2, reserved = 1 }}\nvcpus = 1\n[[slots]]\nname = \"ram\"\npages = 2\nlogging = true\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [{steps}]\n"
        );
        match Scenario::from_toml("generated", &text) {
            Ok(scenario) => all.push(scenario),
            Err(error) => panic!("{text}\n{error}"),
        }
    }
    all
}

/// Protocols of two threads, of which some never end: what the first does, what the second does, and whether an end that is
/// waited for stays away.
const ENDS: [(&str, &str, &str, bool); 14] = [
    (
        "1",
        "\"finish\"",
        "{ forever = [\"get-dirty-log\", \"copy\"] }",
        false,
    ),
    (
        "1",
        "{ step = \"join-thread\", thread = 1 }, \"finish\"",
        "{ forever = [\"get-dirty-log\"] }",
        true,
    ),
    (
        "1",
        "{ forever = [\"get-dirty-log\"] }",
        "\"finish\"",
        false,
    ),
    ("1", "{ forever = [\"get-dirty-log\"] }", "\"copy\"", true),
    (
        "1",
        "\"copy\"",
        "{ forever = [\"get-dirty-log\", \"copy\"] }, \"finish\"",
        true,
    ),
    (
        "1",
        "\"copy\"",
        "{ forever = [\"get-dirty-log\", \"copy\"] }",
        false,
    ),
    (
        "1",
        "{ until_clean = [\"copy\", \"get-dirty-log\"] }, \"finish\"",
        "\"copy\"",
        false,
    ),
    (
        "1",
        "{ until_clean = [\"copy\", \"take-all\"] }, \"finish\"",
        "\"copy\"",
        true,
    ),
    (
        "\"unlimited\"",
        "{ until_clean = [\"copy\", \"get-dirty-log\"] }, \"finish\"",
        "\"copy\"",
        false,
    ),
    (
        "\"unlimited\"",
        "{ forever = [\"copy\", \"get-dirty-log\"] }, \"finish\"",
        "\"copy\"",
        true,
    ),
    (
        "1",
        "{ lock = \"a\", steps = [\"copy\"] }, \"finish\"",
        "{ forever = [{ lock = \"a\", steps = [\"get-dirty-log\"] }] }",
        false,
    ),
    (
        "1",
        "{ lock = \"a\", steps = [\"copy\"] }, \"finish\"",
        "{ lock = \"a\", steps = [{ forever = [\"get-dirty-log\"] }] }",
        true,
    ),
    (
        "1",
        "{ lock = \"a\", steps = [\"copy\"] }, { wait = \"b\" }, \"finish\"",
        "{ forever = [{ lock = \"a\", steps = [\"get-dirty-log\"] }] }, { signal = \"b\" }",
        true,
    ),
    // Who holds the lock may hold it for ever, and may as well give it back each time.
    (
        "1",
        "{ lock = \"a\", steps = [\"copy\"] }, \"finish\"",
        "{ forever = [{ lock = \"a\", steps = [{ until_clean = [\"copy\"] }] }] }]\n[[protocol.threads]]\nname = \"third\"\nsteps = [{ forever = [\"take-all\"] }",
        true,
    ),
];

fn about_ends() -> Vec<Scenario> {
    ENDS.iter()
        .map(|(stores, first, second, never_ends)| {
            let liveness = if *never_ends { "violated" } else { "holds" };
            let text = format!(
                "name = \"ends\"\nsentence = '''{first} / {second}'''\nexpect = {{ violated = \"unrecorded_page_is_armed\" }}\nliveness = \"{liveness}\"\n[machine]\narch = \"x86\"\nvcpus = 1\n[[slots]]\nname = \"ram\"\npages = 1\nlogging = true\n[writers]\nvcpu = {{ stores = {stores} }}\n[protocol]\nsteps = [\"copy-all\", {first}]\n[[protocol.threads]]\nname = \"second\"\nsteps = [{second}]\n"
            );
            Scenario::from_toml("ends", &text).unwrap_or_else(|error| panic!("{text}\n{error}"))
        })
        .collect()
}

#[test]
fn an_end_that_is_waited_for_comes_or_a_cycle_shows_that_it_need_not() {
    for scenario in about_ends() {
        let report = search(&scenario, Reductions::ALL, 1);
        assert_eq!(report.verdict, expected(&scenario), "{}", scenario.sentence);
        let only = report
            .broken
            .iter()
            .all(|claim| claim == Invariant::ProtocolEnds);
        assert!(only, "{}", scenario.sentence);
        if report.verdict == Verdict::Violated {
            shows_it(&scenario, &report);
        }
    }
}

/// Two threads that signal each other, and whether they may hang.
const SIGNALS: [(&str, &str, bool); 5] = [
    // Asked and answered, whoever comes first.
    (
        "{ signal = \"a\" }, { wait = \"b\" }",
        "{ wait = \"a\" }, { signal = \"b\" }",
        false,
    ),
    // Both wait first.
    (
        "{ wait = \"b\" }, { signal = \"a\" }",
        "{ wait = \"a\" }, { signal = \"b\" }",
        true,
    ),
    // Two signals may be one.
    (
        "{ signal = \"a\" }, { signal = \"a\" }",
        "{ wait = \"a\" }, { wait = \"a\" }, \"finish\"",
        true,
    ),
    // A wait takes the signal away.
    (
        "{ signal = \"a\" }, { wait = \"a\" }",
        "{ wait = \"a\" }",
        true,
    ),
    // Signals are apart.
    (
        "{ signal = \"a\" }, { signal = \"b\" }",
        "{ wait = \"b\" }, { wait = \"a\" }",
        false,
    ),
];

#[test]
fn a_signal_is_there_until_a_wait_takes_it_and_an_answer_that_never_comes_is_a_deadlock() {
    for (first, second, hangs) in SIGNALS {
        let text = format!(
            "name = \"signals\"\nexpect = {{ violated = \"migration_makes_progress\" }}\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 1\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {first}]\n[[protocol.threads]]\nname = \"other\"\nsteps = [{second}]\n"
        );
        let scenario = Scenario::from_toml("signals", &text).expect("it is a scenario");
        let options = Options {
            keep_going: true,
            ..Options::default()
        };
        let checked = search::check(&scenario, &options, &|_| true).expect("it is small");
        let stuck = Invariant::MigrationMakesProgress;
        assert_eq!(checked.broken.has(stuck), hangs, "{first} / {second}");
        let report = search(&scenario, Reductions::ALL, 1);
        assert_eq!(report.broken.has(stuck), hangs, "{first} / {second}");
        assert!(report.lasso.is_none_or(|lasso| lasso.cycle == 0));
    }
}

#[test]
fn rounds_that_never_find_nothing_are_the_kernel_s_fault_and_not_a_quiet_guest_s() {
    let wrong = about_liveness()
        .into_iter()
        .find(|scenario| scenario.name == "until-clean-clear-floor")
        .expect("a built-in scenario");
    let report = search(&wrong, Reductions::ALL, 1);
    assert!(report.broken.has(Invariant::ProtocolEnds));
    let right = search(&wrong.without_mutations(), Reductions::ALL, 1);
    assert_eq!(right.verdict, Verdict::Holds);
}

#[test]
fn scenarios_about_it_have_their_verdict_on_one_thread_and_on_two_and_a_schedule_that_shows_it() {
    for scenario in about_liveness() {
        let one = search(&scenario, Reductions::ALL, 1);
        assert_eq!(one.verdict, expected(&scenario), "{}", scenario.name);
        assert_eq!(one.coverage, Coverage::Exhausted);
        assert_eq!(
            search(&scenario, Reductions::ALL, 2),
            one,
            "{}, two threads",
            scenario.name
        );
        if one.verdict == Verdict::Violated {
            shows_it(&scenario, &one);
        }
    }
}

#[test]
fn an_algorithm_of_another_kind_is_of_the_same_opinion() {
    let (mut holds, mut violated) = (0, BTreeMap::new());
    for scenario in small() {
        let nodes = whole_graph(&scenario);
        let broken = broken(&nodes);
        for reductions in [Reductions::NONE, Reductions::ALL] {
            let report = search(&scenario, reductions, 1);
            assert_eq!(
                report.broken, broken,
                "{}: {}",
                scenario.name, scenario.sentence
            );
            assert_eq!(report.verdict == Verdict::Violated, !broken.is_empty());
            if !broken.is_empty() {
                shows_it(&scenario, &report);
            }
            if reductions == Reductions::NONE {
                assert_eq!(report.states, nodes.len() as u64, "{}", scenario.name);
            }
        }
        match broken.iter().next() {
            Some(first) => *violated.entry(first).or_insert(0) += 1,
            None => holds += 1,
        }
    }
    let least = |claim| violated.get(&claim).is_some_and(|count| *count >= 5);
    assert!(
        holds >= 6 && least(Invariant::MigrationMakesProgress) && least(Invariant::ProtocolEnds),
        "{holds} hold, {violated:?} do not"
    );
}

#[test]
fn what_the_program_comes_with_makes_progress() {
    // The others have more states, and are for `check --liveness` itself.
    for scenario in builtins() {
        let options = Options {
            max_states: Some(150_000),
            ..Options::default()
        };
        let report = liveness(&scenario, &options, &|_| true).expect("it can be searched");
        assert_ne!(report.verdict, Verdict::Violated, "{}", scenario.name);
    }
}

#[test]
fn a_kernel_that_never_asks_a_vcpu_to_leave_stops_whoever_waits_for_a_full_ring() {
    let right = builtin("ring-full-waits").expect("a built-in scenario");
    assert_eq!(search(&right, Reductions::ALL, 1).verdict, Verdict::Holds);
    let wrong = right.with_mutation(Mutation::RingNoRequest);
    let report = search(&wrong, Reductions::ALL, 1);
    assert_eq!(report.verdict, Verdict::Violated);
    shows_it(&wrong, &report);
}

#[test]
fn a_round_is_confirmed_by_its_steps_alone_and_each_thing_that_is_missing_is_named() {
    let scenario = builtin("ring-full-polled-two").expect("a built-in scenario");
    let lasso = search(&scenario, Reductions::ALL, 1)
        .lasso
        .expect("a cycle");
    let steps = &lasso.steps;
    let (stem, cycle) = (lasso.stem(), lasso.cycle);
    assert_eq!((stem, cycle), (28, 6), "three steps of each vCPU");
    let confirm = |steps: &[Step], cycle| {
        // The cycle keeps the end away, too.
        let ends = confirm(&scenario, Endless::WithoutEnd, steps, cycle);
        let progress = confirm(&scenario, Endless::WithoutProgress, steps, cycle);
        assert!(ends == progress || progress == Err(NotALasso::Progress));
        progress
    };
    assert_eq!(confirm(steps, cycle), Ok(()));
    assert_eq!(confirm(steps, cycle - 1), Err(NotALasso::Open));
    assert_eq!(confirm(steps, 0), Err(NotALasso::Open));
    assert_eq!(confirm(steps, steps.len() + 1), Err(NotALasso::Open));
    assert_eq!(confirm(steps, steps.len()), Err(NotALasso::Progress));
    let only_one: Vec<Step> = steps
        .iter()
        .enumerate()
        .filter(|(at, step)| *at < stem || step.actor == Actor::Vcpu(0))
        .map(|(_, step)| *step)
        .collect();
    assert_eq!(confirm(&only_one, 3), Err(NotALasso::Unfair));
    assert_eq!(confirm(&steps[1..], cycle), Err(NotALasso::Impossible));
}

#[test]
fn limits_end_it_without_a_verdict() {
    let scenario = builtin("kernel-docs").expect("a built-in scenario");
    let limited = |options: Options, go_on: bool| {
        let report = liveness(&scenario, &options, &|_| go_on).expect("it can be searched");
        (report.verdict, report.coverage)
    };
    let with = |limit| (Verdict::Inconclusive, Coverage::Truncated(limit));
    let states = Options {
        max_states: Some(5_000),
        ..Options::default()
    };
    assert_eq!(limited(states, true), with(Limit::States));
    let memory = Options {
        max_memory_bytes: Some(4 << 20),
        ..Options::default()
    };
    assert_eq!(limited(memory, true), with(Limit::Memory));
    let time = Options {
        max_time: Some(std::time::Duration::ZERO),
        ..Options::default()
    };
    assert_eq!(limited(time, true), with(Limit::Time));
    assert_eq!(limited(Options::default(), false), with(Limit::Interrupt));
}

fn dirtysim(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(args)
        .output()
        .expect("the binary runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn the_command_writes_a_trace_that_replays_to_the_same_violation() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().to_str().expect("a path in UTF-8");
    let (code, out, _) = dirtysim(&[
        "check",
        "--liveness",
        "ring-full-polled",
        "--json",
        "--trace-dir",
        place,
    ]);
    assert_eq!(code, Some(0));
    let document: Value = serde_json::from_str(&out).expect("one document");
    for (key, value) in [
        ("verdict", Value::from("violated")),
        ("invariant", "migration_makes_progress".into()),
        ("coverage", "exhausted".into()),
        ("stem", 16.into()),
        ("cycle", 3.into()),
    ] {
        assert_eq!(document[key], value, "{key}");
    }
    let trace = document["trace"].as_str().expect("a path");
    let (code, out, _) = dirtysim(&["replay", trace, "--json"]);
    assert_eq!(code, Some(0), "{out}");
    let replayed: Value = serde_json::from_str(&out).expect("one document");
    assert_eq!(replayed["invariant"], "migration_makes_progress");
    assert_eq!(replayed["divergences"], 0);
    // A cycle that is said to be one step shorter is none.
    let text = std::fs::read_to_string(trace).expect("the trace");
    std::fs::write(trace, text.replacen("\"cycle\":3", "\"cycle\":2", 1)).expect("the trace");
    let (code, out, _) = dirtysim(&["replay", trace]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("do not lead back"), "{out}");
    let (code, _, err) = dirtysim(&["shrink", trace]);
    assert_eq!(code, Some(2));
    assert!(err.contains("nothing to shrink"), "{err}");
}

#[test]
fn what_has_no_effect_on_it_is_refused() {
    for other in ["--keep-going", "--no-partial-order", "--no-vcpu-symmetry"] {
        let (code, _, err) = dirtysim(&["check", "--liveness", other, "ring-full-polled"]);
        assert_eq!(code, Some(2), "{other}");
        assert!(err.contains("--liveness"), "{err}");
    }
}
