//! Blame: the cause that a schedule was made with is found again; where there is none, none is the answer.

use std::collections::BTreeSet;

use dirtysim::blame::{Blame, Cause, blame, blame_seeds, read_pages};
use dirtysim::random::Choices;
use dirtysim::run::{self, Options, Scheduler};
use dirtysim::scenario::{self, Expect, Scenario};
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{Step, apply, for_each_step};
use dirtysim_model::words::HostPage;
use dirtysim_model::words::mutation::{Mutation, Mutations};

fn builtin(name: &str) -> Scenario {
    scenario::builtin(name).unwrap_or_else(|| panic!("{name} is built in"))
}

/// Every cause, tried to its end.
fn all(scenario: &Scenario, steps: &[Step], given: &BTreeSet<HostPage>) -> Blame {
    blame(scenario, steps, given, &|| true).expect("nobody interrupts it")
}

/// A schedule that loses pages with `mutation` switched on, and those pages.
fn lossy(name: &str, mutation: Mutation) -> (Scenario, Vec<Step>, BTreeSet<HostPage>) {
    let mut scenario = builtin(name).with_mutation(mutation);
    scenario.expect = Some(Expect::Violated(Invariant::NoDirtyPageLost));
    let options = Options {
        seeds: 0..200_000,
        scheduler: Scheduler::Random,
        keep_going: false,
    };
    let failure = run::run(&scenario, &options, &|_| true)
        .failure
        .unwrap_or_else(|| panic!("{name} loses a page with {}", mutation.name()));
    let mut state = scenario.start::<Small>().expect("it fits");
    for &step in &failure.steps {
        apply(&scenario.machine, &mut state, step);
    }
    let lost = oracle::lost(&scenario.machine, &state, false)
        .iter()
        .collect();
    (scenario, failure.steps, lost)
}

#[test]
fn the_mutation_that_a_schedule_was_made_with_is_an_exact_answer() {
    for (scenario, mutation) in [
        ("kernel-docs", "kernel.nonvcpu.with_ring=drop"),
        ("kernel-docs", "kernel.reset.flush=none"),
        ("kernel-docs", "kernel.fault.mark=none"),
        ("x86-bitmap-fast-path", "kernel.get_log.flush=none"),
        ("x86-ring-pml", "vcpu.pml.flush=none"),
        ("bitmap-last-two-words", "kernel.clear.rearm=none"),
    ] {
        let mutation = Mutations::by_name(mutation).expect("it exists");
        let (scenario, steps, lost) = lossy(scenario, mutation);
        let found = all(&scenario, &steps, &lost);
        assert!(found.unchanged.lost.is_empty(), "{}", mutation.name());
        let exact: Vec<&str> = found
            .exact()
            .map(|candidate| candidate.name.as_str())
            .collect();
        assert!(
            exact.contains(&mutation.name()),
            "{}: {exact:?}",
            mutation.name()
        );
        // Exact ones come first; of those alike, a VMM's own order before a kernel, then by name.
        let order: Vec<(u64, u8, &str)> = found
            .candidates
            .iter()
            .map(|candidate| {
                let name = candidate.name.as_str();
                (candidate.difference(), candidate.cause.rank(), name)
            })
            .collect();
        assert!(order.is_sorted());
        assert_eq!(found, all(&scenario, &steps, &lost));
    }
}

/// A whole schedule of `scenario`.
fn schedule(scenario: &Scenario, seed: u64) -> Vec<Step> {
    let mut choices = Choices::new(seed, 3);
    let mut state = scenario.start::<Small>().expect("it fits");
    let mut steps = Vec::new();
    loop {
        let mut possible = Vec::new();
        for_each_step(&scenario.machine, &state, |step| possible.push(step));
        if possible.is_empty() {
            return steps;
        }
        let step = possible[choices.below(possible.len() as u32) as usize];
        apply(&scenario.machine, &mut state, step);
        steps.push(step);
    }
}

#[test]
fn a_vmm_that_swapped_two_steps_is_found_by_the_pages_it_lost() {
    // By its file this VMM resets its rings and then copies; the pages were lost because it did it the other way round.
    let text = r#"
name = "right-order"
[machine]
arch = "arm64"
vcpus = 1
pages = 2
ring = { entries = 4, reserved = 2 }
ring_with_bitmap = true
[writers]
vcpu = { stores = 2, pages = [0] }
[protocol]
steps = [
  "enable-logging", "copy-all", "harvest-rings", "reset-rings", "copy",
  "pause-vcpus", "harvest-rings", "get-dirty-log", "copy", "finish",
]
"#;
    let scenario = Scenario::from_toml("right-order.toml", text).expect("it is a scenario");
    let given = BTreeSet::from([HostPage(0)]);
    let swaps = (0..400).any(|seed| {
        let found = all(&scenario, &schedule(&scenario, seed), &given);
        assert!(found.unchanged.lost.is_empty());
        found.exact().any(|candidate| {
            matches!(candidate.cause, Cause::Swap { .. })
                && candidate.name.ends_with("KVM_RESET_DIRTY_RINGS | copies")
        })
    });
    assert!(swaps);
}

#[test]
fn an_order_that_loses_the_pages_by_itself_is_its_own_cause() {
    let scenario = builtin("ring-only-its-save");
    let steps = schedule(&scenario, 5);
    let found = all(&scenario, &steps, &BTreeSet::from([HostPage(3)]));
    let first = found.exact().next().expect("the order itself");
    assert_eq!(first.cause, Cause::Nothing);
    // What changes nothing explains nothing.
    assert!(
        found
            .candidates
            .iter()
            .all(|candidate| { !candidate.is_exact() || candidate.lost != found.unchanged.lost })
    );
}

#[test]
fn none_is_an_answer() {
    let scenario = builtin("kernel-docs");
    let steps = schedule(&scenario, 5);
    // Nobody ever stores to all of these at once.
    let found = all(&scenario, &steps, &[0, 1, 2, 3].map(HostPage).into());
    assert_eq!(found.exact().count(), 0);
    let nearest = &found.candidates[0];
    assert_eq!(nearest.difference(), nearest.missing + nearest.extra);
}

#[test]
fn pages_are_read_by_slot_or_by_frame_number() {
    let scenario = builtin("two-slots-one-get-missed");
    let gfn = scenario.machine.slots[1].places[0];
    let host = scenario.machine.slots[1].host;
    let text = format!(
        "# differ\n\nlow:1\n gfn 0x{gfn:x} \r\ngfn {}\nhigh:0\n",
        gfn + 1
    );
    let pages = read_pages(text.as_bytes(), "pages.txt", &scenario).expect("they are pages");
    assert_eq!(pages, BTreeSet::from([HostPage(1), host, host + 1]));
}

#[test]
fn what_is_no_page_is_refused_with_its_line() {
    let scenario = builtin("kernel-docs");
    let complaint = |text: &[u8]| {
        read_pages(text, "pages.txt", &scenario)
            .expect_err("no pages")
            .to_string()
    };
    for (text, wanted) in [
        (&b"ram:0\nram:4\n"[..], "pages.txt:2: ram has no page 4"),
        (b"rom:0\n", "pages.txt:1: no memslot is called `rom`"),
        (b"ram\n", "pages.txt:1: `ram` names no page"),
        (b"ram:-1\n", "pages.txt:1: `ram:-1` has no offset"),
        (b"gfn 0xffffffffffff\n", "pages.txt:1: no memslot has gfn"),
        (
            b"gfn zzz\n",
            "pages.txt:1: `gfn zzz` is no guest frame number",
        ),
        (b"ram:\xff\n", "pages.txt:1: invalid UTF-8"),
        (b"# nothing\n", "pages.txt: no page"),
    ] {
        let said = complaint(text);
        assert!(said.starts_with(wanted), "{said}");
        assert!(said.contains("\nhelp: "), "{said}");
    }
    let long = vec![b'x'; 10_000];
    assert!(complaint(&long).contains("a line of more than 4096 bytes"));
}

#[test]
fn a_scenario_is_blamed_by_the_schedule_that_comes_nearest() {
    let scenario = builtin("kernel-docs");
    let given = BTreeSet::from([HostPage(0)]);
    let found = blame_seeds(&scenario, 0..40, &given, &|_| true).expect("schedules");
    assert!(found.unchanged.lost.is_empty());
    let exact: Vec<_> = found.exact().collect();
    assert!(!exact.is_empty());
    for candidate in exact {
        // The schedule of that seed alone says the same.
        let seed = candidate.seed.expect("a seed");
        let alone = blame_seeds(&scenario, seed..seed + 1, &given, &|_| true);
        let alone = alone.expect("a schedule");
        assert!(
            alone.exact().any(|other| other == candidate),
            "{}",
            candidate.name
        );
    }
    // Seeds that were not tried with every cause are not claimed.
    let cut = blame_seeds(&scenario, 0..40, &given, &|done| done < 3).expect("schedules");
    assert_eq!(cut.schedules, 3);
    assert_eq!(Some(cut), blame_seeds(&scenario, 0..3, &given, &|_| true));
    assert!(blame_seeds(&scenario, 0..40, &given, &|_| false).is_none());
    let none = blame_seeds(&scenario, 0..0, &given, &|_| true);
    assert!(none.is_none());
}
