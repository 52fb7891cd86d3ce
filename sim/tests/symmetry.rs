//! Whether a state is its own representative can be told from its sections, each by itself.

use std::collections::HashSet;

use dirtysim::random::Choices;
use dirtysim::scenario::{Scenario, builtins};
use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::reduce::symmetry::{Order, Symmetry, vcpu_rank};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::{Layout, Small};
use dirtysim_model::transition::{Choice, apply, for_each_step};

/// What was met on the way.
#[derive(Debug, Default)]
struct Met {
    own_representative: u32,
    vcpus_exchanged: u32,
    pages_exchanged: u32,
    /// States that would be taken for their own representative, or not, by mistake if a section were left out: the
    /// shared ones, then each vCPU's.
    decided_by: [u32; 4],
    /// Searches whose classes have neighbours that are no adjacent frames.
    apart: u32,
}

/// The orders of a state's sections: the shared ones, then each vCPU's.
fn orders<L: Layout>(symmetry: &Symmetry, scenario: &Scenario, state: &State<L>) -> Vec<Order> {
    let machine = &scenario.machine;
    let vcpus = (0..state.vcpus.len()).map(|vcpu| symmetry.vcpu_order(machine, state, vcpu));
    [symmetry.shared_order(machine, state)]
        .into_iter()
        .chain(vcpus)
        .collect()
}

fn is_sorted<'a>(orders: impl Iterator<Item = &'a Order>) -> bool {
    orders
        .copied()
        .reduce(Order::then)
        .is_none_or(Order::is_sorted)
}

fn ranks<L: Layout>(machine: &Machine, state: &State<L>) -> Vec<u64> {
    (0..state.vcpus.len())
        .map(|vcpu| vcpu_rank(machine, &state.vcpus[vcpu]))
        .collect()
}

/// Follows random schedules and asks of each state.
fn follow<L: Layout>(scenario: &Scenario, start: &State<L>, seeds: u64, met: &mut Met) {
    let machine = &scenario.machine;
    let symmetry = Symmetry::of(machine, start, true, true);
    if symmetry.is_none() {
        return;
    }
    let mut pairs = symmetry.classes().iter().flat_map(|class| class.windows(2));
    met.apart += u32::from(pairs.any(|pair| pair[1] > pair[0] + 1));
    let packing = Packing::new(machine, start);
    let pack = |state: &State<L>| {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut state.clone(), &mut words);
        words
    };
    let unpack = |words: &[u64]| {
        let mut state = start.clone();
        packing.unpack(machine, words, &mut state);
        state
    };
    for seed in 0..seeds {
        let mut choices = Choices::new(seed, 12);
        let mut state = start.clone();
        let mut earlier = pack(&state);
        for at in 0..2_000 {
            let place = format!("{}, seed {seed}, step {at}", scenario.name);
            let words = pack(&state);
            state = unpack(&words);
            let (orders, ranks) = (orders(&symmetry, scenario, &state), ranks(machine, &state));
            let threads = state.threads.iter();
            let (pages, vcpus) = symmetry.applies(threads.map(|t| (usize::from(t.op), t.stage)));
            let vcpus_stay = !vcpus || ranks.is_sorted();
            let pages_stay = !pages || is_sorted(orders.iter());

            let mut representative = state.clone();
            let changed = symmetry.canonical(machine, &mut representative);
            assert_eq!(!changed, vcpus_stay && pages_stay, "{place}: the orders");
            assert_eq!(changed, pack(&representative) != words, "{place}: the bits");
            if pages && vcpus_stay && symmetry.has_ranks() {
                let vcpus = 0..state.vcpus.len();
                let vcpus = vcpus.map(|vcpu| symmetry.vcpu_ranks(machine, &state, vcpu));
                let shared = symmetry.shared_ranks(machine, &state);
                let exchange = symmetry.exchange([shared].into_iter().chain(vcpus));
                let mut moved = state.clone();
                Symmetry::move_pages(machine, &mut moved, exchange);
                let place = format!("{place}: where pages go");
                assert_eq!(pack(&moved), pack(&representative), "{place}");
            }
            let mut again = unpack(&pack(&representative));
            assert!(
                !symmetry.canonical(machine, &mut again),
                "{place}: a representative is its own"
            );
            met.own_representative += u32::from(!changed);
            met.vcpus_exchanged += u32::from(!vcpus_stay);
            met.pages_exchanged += u32::from(!pages_stay);
            if pages && vcpus_stay {
                for section in 0..orders.len() {
                    let others = orders.iter().enumerate();
                    let others = others.filter(|(index, _)| *index != section);
                    let without = is_sorted(others.map(|(_, order)| order));
                    met.decided_by[section] += u32::from(without != pages_stay);
                }
            }

            only_own_sections(
                &symmetry, scenario, &packing, start, &words, &earlier, &place,
            );
            if choices.below(8) == 0 {
                earlier = words;
            }
            let mut steps = Vec::new();
            for_each_step(machine, &state, |step| steps.push(step));
            if steps.is_empty() {
                break;
            }
            apply(
                machine,
                &mut state,
                steps[choices.below(steps.len() as u32) as usize],
            );
        }
    }
}

/// What is told of a section is the same with the other sections of another state around it.
fn only_own_sections<L: Layout>(
    symmetry: &Symmetry,
    scenario: &Scenario,
    packing: &Packing,
    start: &State<L>,
    words: &[u64],
    others: &[u64],
    place: &str,
) {
    let machine = &scenario.machine;
    let mut state = start.clone();
    packing.unpack(machine, words, &mut state);
    let mut mixed = start.clone();
    let mut shared = words.to_vec();
    for vcpu in 0..state.vcpus.len() {
        let section = packing.vcpu(vcpu);
        let mut alone = others.to_vec();
        alone[section.clone()].copy_from_slice(&words[section.clone()]);
        packing.unpack(machine, &alone, &mut mixed);
        assert_eq!(
            (
                symmetry.vcpu_order(machine, &mixed, vcpu),
                vcpu_rank(machine, &mixed.vcpus[vcpu])
            ),
            (
                symmetry.vcpu_order(machine, &state, vcpu),
                vcpu_rank(machine, &state.vcpus[vcpu])
            ),
            "{place}: vCPU {vcpu}"
        );
        shared[section.clone()].copy_from_slice(&others[section]);
    }
    packing.unpack(machine, &shared, &mut mixed);
    assert_eq!(
        symmetry.shared_order(machine, &mixed),
        symmetry.shared_order(machine, &state),
        "{place}: the shared sections"
    );
}

/// More vCPUs and pages than the built-in scenarios have, and pages of one class with another between them.
fn larger() -> Vec<Scenario> {
    let machines = [
        (
            "arch = \"x86\"\nring = { entries = 4, reserved = 2 }\nvcpus = 3\npages = 5",
            "stores = 3, pages = [0, 2, 3, 4]",
        ),
        (
            "arch = \"x86\"\npml = true\nring = { entries = 4, reserved = 2 }\nvcpus = 2\npages = 4",
            "stores = 3",
        ),
        (
            "arch = \"arm64\"\nring = { entries = 4, reserved = 2 }\nring_with_bitmap = true\nvcpus = 3\npages = 12",
            "stores = 3",
        ),
    ];
    let steps = "\"harvest-rings\", \"reset-rings\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\"";
    machines
        .iter()
        .enumerate()
        .map(|(index, (machine, stores))| {
            let toml = format!(
                "name = \"larger-{index}\"\n[machine]\n{machine}\n[writers]\nvcpu = {{ {stores} }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {steps}, \"finish\"]\n"
            );
            Scenario::from_toml("generated", &toml)
                .unwrap_or_else(|error| panic!("{toml}\n{error}"))
        })
        .collect()
}

#[test]
fn a_state_is_its_own_representative_exactly_if_its_sections_say_so() {
    let mut met = Met::default();
    for scenario in builtins().into_iter().chain(larger()) {
        let start = scenario.start::<Small>().expect("it can be searched");
        follow(&scenario, &start, 60, &mut met);
    }
    let enough = [
        met.own_representative,
        met.vcpus_exchanged,
        met.pages_exchanged,
    ];
    assert!(enough.iter().all(|times| *times >= 1_000), "{met:?}");
    assert!(met.decided_by.iter().all(|times| *times >= 100), "{met:?}");
    assert!(met.apart > 0, "{met:?}");
}

/// Every state that a machine comes to by choices that are wanted, as the bits of its representative.
fn reachable(
    machine: &Machine,
    start: &State<Small>,
    represent: &dyn Fn(State<Small>) -> Vec<u64>,
    packing: &Packing,
    wanted: fn(Choice) -> bool,
) -> HashSet<Vec<u64>> {
    let first = represent(start.clone());
    let mut known = HashSet::from([first.clone()]);
    let mut next = vec![first];
    while let Some(words) = next.pop() {
        let mut state = start.clone();
        packing.unpack(machine, &words, &mut state);
        for_each_step(machine, &state, |step| {
            if wanted(step.choice) {
                let mut after = state.clone();
                apply(machine, &mut after, step);
                let words = represent(after);
                if known.insert(words.clone()) {
                    next.push(words);
                }
            }
        });
    }
    known
}

#[test]
fn whatever_lies_between_two_pages_is_among_what_is_tried() {
    let ring = "\"harvest-rings\", \"reset-rings\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\"";
    let get = "\"get-dirty-log\", \"copy\", \"pause-vcpus\", \"get-dirty-log\", \"copy\"";
    let clear = "\"get-dirty-log\", \"clear-dirty-log\", \"copy\", \"pause-vcpus\", \"get-dirty-log\", \"copy\"";
    // RISC-V marks before it maps, with mmu_lock held, so that a leaf which GET meets has its bit there.
    let machines = [
        (
            "arch = \"arm64\"\nring = { entries = 4, reserved = 1 }",
            ring,
            true,
        ),
        ("arch = \"arm64\"", get, true),
        ("arch = \"arm64\"\nmanual_protect = true", clear, true),
        ("arch = \"riscv\"\nkernel = \"7.2\"", get, false),
    ];
    for (machine, steps, matters) in machines {
        let text = format!(
            "name = \"order\"\n[machine]\n{machine}\nvcpus = 1\npages = 3\n[writers]\nvcpu = {{ stores = 3 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {steps}, \"finish\"]\n"
        );
        let scenario =
            Scenario::from_toml("order", &text).unwrap_or_else(|error| panic!("{error}"));
        let start: State<Small> = scenario.start().expect("it is small");
        let ordered = &scenario.machine;
        let unordered = Symmetry::without_order(ordered, &start).expect("ranges order its pages");
        let symmetry = Symmetry::of(&unordered, &start, true, false);
        let packing = Packing::new(ordered, &start);
        let pack = |mut state: State<Small>| {
            let mut words = vec![0; packing.words()];
            packing.pack(ordered, &mut state, &mut words);
            words
        };
        let represent = |state: State<Small>| {
            let mut normal = start.clone();
            packing.unpack(ordered, &pack(state), &mut normal);
            symmetry.canonical(ordered, &mut normal);
            pack(normal)
        };
        let all = |_| true;
        let tried = reachable(&unordered, &start, &represent, &packing, all);
        let of_machine: HashSet<Vec<u64>> = reachable(ordered, &start, &pack, &packing, all)
            .into_iter()
            .map(|words| {
                let mut state = start.clone();
                packing.unpack(ordered, &words, &mut state);
                represent(state)
            })
            .collect();
        assert!(
            of_machine.is_subset(&tried),
            "{machine}: a state is missing"
        );
        let nothing = |choice| !matches!(choice, Choice::Along(1..));
        let without = reachable(&unordered, &start, &represent, &packing, nothing);
        assert_eq!(
            of_machine.is_subset(&without),
            !matters,
            "{machine}: what is taken along is needed"
        );
    }
}
