//! Cycles without progress: what is found is one, and an algorithm of another kind finds the same.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use dirtysim::run::is_stuck;
use dirtysim::scenario::{Expect, Scenario, about_liveness, builtin, builtins};
use dirtysim::search::liveness::{NotALasso, Report, confirm, is_progress, liveness};
use dirtysim::search::{Coverage, Limit, Options, Reductions, Verdict};
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{Actor, Step, apply, for_each_step};
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
            confirm(scenario, &lasso.steps, lasso.cycle),
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
    enabled: BTreeSet<Actor>,
    /// Steps that are no progress: who, and to where.
    edges: Vec<(Actor, usize)>,
    stuck: bool,
    idle: bool,
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
            if !is_progress(&state, step, &after) {
                edges.push((step.actor, number));
            }
        }
        nodes.push(Node {
            enabled: steps.iter().map(|step| step.actor).collect(),
            edges,
            stuck: steps.is_empty() && is_stuck(machine, &state),
            idle: state
                .threads
                .iter()
                .zip(&machine.programs)
                .all(|(thread, program)| usize::from(thread.op) >= program.len()),
        });
    }
    nodes
}

/// Whether some state begins a fair path without progress, or is a deadlock: the greatest set from each state of which,
/// for each actor, a path of at least a step inside the set serves it (Emerson and Lei, LICS 1986).
fn stops_somewhere(nodes: &[Node]) -> bool {
    let actors: BTreeSet<Actor> = nodes
        .iter()
        .flat_map(|node| node.enabled.iter().copied())
        .collect();
    let mut fair: Vec<bool> = nodes.iter().map(|node| !node.idle).collect();
    loop {
        let before = fair.clone();
        for &actor in &actors {
            // States from which a step inside the set serves the actor, or leads on to one that does.
            let mut serves = vec![false; nodes.len()];
            loop {
                let mut changed = false;
                for (at, node) in nodes.iter().enumerate().filter(|(at, _)| fair[*at]) {
                    let now = node.edges.iter().any(|&(who, to)| {
                        let served = who == actor || !node.enabled.contains(&actor);
                        fair[to] && (served || serves[to])
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
            break;
        }
    }
    fair.contains(&true) || nodes.iter().any(|node| node.stuck)
}

/// Scenarios small enough for the plain algorithm, some that hold and some that do not, and wrong kernels and VMMs.
fn small() -> Vec<Scenario> {
    let mut all = about_liveness();
    for name in [
        "reset-signal",
        "x86-pml-enabled-late",
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
    let (mut holds, mut violated) = (0, 0);
    for scenario in small() {
        let nodes = whole_graph(&scenario);
        let stops = stops_somewhere(&nodes);
        for reductions in [Reductions::NONE, Reductions::ALL] {
            let report = search(&scenario, reductions, 1);
            let verdict = if stops {
                Verdict::Violated
            } else {
                Verdict::Holds
            };
            assert_eq!(
                report.verdict, verdict,
                "{}: {}",
                scenario.name, scenario.sentence
            );
            if stops {
                shows_it(&scenario, &report);
            }
            if reductions == Reductions::NONE {
                assert_eq!(report.states, nodes.len() as u64, "{}", scenario.name);
            }
        }
        holds += u32::from(!stops);
        violated += u32::from(stops);
    }
    assert!(
        holds >= 6 && violated >= 6,
        "{holds} hold, {violated} do not"
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
    assert_eq!(confirm(&scenario, steps, cycle), Ok(()));
    assert_eq!(confirm(&scenario, steps, cycle - 1), Err(NotALasso::Open));
    assert_eq!(confirm(&scenario, steps, 0), Err(NotALasso::Open));
    assert_eq!(
        confirm(&scenario, steps, steps.len() + 1),
        Err(NotALasso::Open)
    );
    assert_eq!(
        confirm(&scenario, steps, steps.len()),
        Err(NotALasso::Progress)
    );
    let only_one: Vec<Step> = steps
        .iter()
        .enumerate()
        .filter(|(at, step)| *at < stem || step.actor == Actor::Vcpu(0))
        .map(|(_, step)| *step)
        .collect();
    assert_eq!(confirm(&scenario, &only_one, 3), Err(NotALasso::Unfair));
    assert_eq!(
        confirm(&scenario, &steps[1..], cycle),
        Err(NotALasso::Impossible)
    );
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
