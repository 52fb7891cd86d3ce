//! Packed states behave as the states that they stand for.

use dirtysim::bugs::BUGS;
use dirtysim::random::Choices;
use dirtysim::scenario::{Scenario, about_liveness, builtin, builtins, mutation_scenarios};
use dirtysim_model::oracle;
use dirtysim_model::reduce::pack::{Packing, Touched};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::{Layout, Small};
use dirtysim_model::transition::{Effect, apply, for_each_step};
use dirtysim_model::words::{Frame, HostPage};

/// Follows random schedules, and beside each state the one that its bits stand for: at each step both can do the same,
/// break the same claims, and come to the same bits; and only the sections that a step says it touches have changed.
fn follow<L: Layout>(scenario: &Scenario, start: &State<L>, seeds: u64) {
    let machine = &scenario.machine;
    let packing = Packing::new(machine, start);
    let pack = |state: &State<L>| {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut state.clone(), &mut words);
        words
    };
    let steps_of = |state: &State<L>| {
        let mut steps = Vec::new();
        for_each_step(machine, state, |step| steps.push(step));
        steps
    };
    for seed in 0..seeds {
        let mut choices = Choices::new(seed, 11);
        let mut state = start.clone();
        for at in 0..2_000 {
            let words = pack(&state);
            let mut other = start.clone();
            packing.unpack(machine, &words, &mut other);
            let place = format!("{}, seed {seed}, step {at}", scenario.name);
            assert_eq!(pack(&other), words, "{place}: packed, unpacked, packed");
            let steps = steps_of(&state);
            assert_eq!(steps, steps_of(&other), "{place}: what is possible");
            assert_eq!(
                oracle::check(machine, &state, Effect::None),
                oracle::check(machine, &other, Effect::None),
                "{place}: what is broken"
            );
            if steps.is_empty() {
                break;
            }
            let step = steps[choices.below(steps.len() as u32) as usize];
            // A wrong kernel may touch anything.
            let touched = if machine.mutations().is_empty() {
                Touched::by(machine, &other, step)
            } else {
                Touched::ALL
            };
            let (mut after, mut other_after) = (state.clone(), other);
            let effect = apply(machine, &mut after, step);
            let other_effect = apply(machine, &mut other_after, step);
            assert_eq!(
                oracle::check(machine, &after, effect),
                oracle::check(machine, &other_after, other_effect),
                "{place}: what {step:?} breaks"
            );
            let mut partly = words;
            packing.pack_touched(machine, &mut other_after.clone(), touched, &mut partly);
            assert_eq!(partly, pack(&after), "{place}: what {step:?} changes");
            state = after;
        }
    }
}

fn start(scenario: &Scenario) -> State<Small> {
    scenario.start().expect("it can be searched")
}

#[test]
fn a_packed_state_behaves_as_the_state_that_it_stands_for() {
    for scenario in builtins() {
        follow(&scenario, &start(&scenario), 300);
    }
}

/// What is not read, normal forms make alike, so that whoever comes to read it must be met: operations, abuse, mutations.
#[test]
fn so_it_does_in_bugs_with_mutations_and_in_reports() {
    let bugs = BUGS.iter().flat_map(|bug| bug.scenarios());
    let all = bugs.chain(about_liveness()).chain(mutation_scenarios());
    let reports = [
        include_str!("reports/false-holds/one-too-many.toml"),
        include_str!("reports/false-holds/block-beyond-the-frames.toml"),
        include_str!("reports/false-holds/second-thread-log-off.toml"),
        include_str!("reports/contradict/record-beside-log-off.toml"),
    ];
    let reports = reports.map(|text| Scenario::from_toml("report", text).expect("a scenario"));
    for scenario in all.chain(reports) {
        follow(&scenario, &start(&scenario), 3);
    }
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "{\"BITMAP\"} outgrew its 4 bits"]
fn a_state_that_would_not_come_back_is_told() {
    let scenario = builtin("kernel-docs").expect("it is built in");
    let mut state: State<Small> = scenario.start().expect("there is room");
    let packing = Packing::new(&scenario.machine, &state);
    state.bitmap.insert(Frame(15));
    packing.pack(&scenario.machine, &mut state, &mut vec![0; packing.words()]);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "what has no bits never changes"]
fn a_field_that_is_left_out_and_changes_is_told() {
    let scenario = builtin("kernel-docs").expect("it is built in");
    let mut state: State<Small> = scenario.start().expect("there is room");
    let packing = Packing::new(&scenario.machine, &state);
    state.own_log.insert(HostPage(0));
    packing.pack(&scenario.machine, &mut state, &mut vec![0; packing.words()]);
}
