//! What is argued in `docs/proofs.md`, tried: whatever a machine of a few pages comes to, with each of its pages tracked in turn, is a
//! state that was explored for any number. And each part of the argument is needed: without it some state is missing.

use std::collections::{HashSet, VecDeque};

use dirtysim_model::machine::Machine;
use dirtysim_model::op::Op;
use dirtysim_model::oracle;
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::state::pages::{PageSet, SetOf};
use dirtysim_model::state::vcpu::UNLIMITED;
use dirtysim_model::transition::{Actor, Choice, Step, apply, for_each_choice, for_each_step};
use dirtysim_model::words::mutation::Mutation;
use dirtysim_model::words::{Frame, HostPage};
use serde_json::Value;

use super::explore::{Explorer, begin};
use super::known::Known;
use super::others::{Tried, forget, rename};
use super::{PAGES, TRACKED, variants, with_pages};
use crate::random::Choices;
use crate::scenario::Scenario;
use crate::search::limits::Limits;
use crate::search::{self, Coverage, Options, Reductions, Verdict};

/// States of a machine of a few pages that are looked at: those that are nearest, and those of so many schedules.
const NEAR_STATES: usize = 1_500;
const SCHEDULES: u64 = 60;
/// Steps of a schedule: more than most have that come to an end.
const SCHEDULE_STEPS: u32 = 400;
/// Stores that there are.
const STORES: u64 = 3;

fn scenario(machine: &str, writers: &str, steps: &str) -> Scenario {
    let text = format!(
        "name = \"any\"\n[machine]\n{machine}\npages = \"any\"\n[writers]\n{writers}\n[protocol]\nsteps = [{steps}]\n"
    );
    Scenario::from_toml("any", &text).unwrap_or_else(|error| panic!("{error}"))
}

/// One memslot that is written as such: it logs from the beginning.
fn one_slot() -> Scenario {
    let text = "name = \"any\"\n[machine]\narch = \"x86\"\nvcpus = 1\npml = true\n[[slots]]\nname = \"low\"\npages = \"any\"\nlogging = true\n[writers]\nvcpu = { stores = \"any\" }\n[protocol]\nsteps = [\"copy-all\", { any_number = [\"get-dirty-log\", \"copy\"] }, \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"]\n";
    Scenario::from_toml("any", text).unwrap_or_else(|error| panic!("{error}"))
}

/// Orders that hold, on machines that differ in what the argument speaks of.
fn safe() -> Vec<Scenario> {
    let vcpu = "vcpu = { stores = \"any\" }";
    let ring = "ring = { entries = 2, reserved = 1 }";
    // Two entries, or three, may be in use when RESET comes.
    let two = "ring = { entries = 4, reserved = 2 }";
    let three = "ring = { entries = 4, reserved = 1 }";
    vec![
        scenario(
            &format!("arch = \"arm64\"\nvcpus = 1\n{ring}\nring_with_bitmap = true"),
            &format!("{vcpu}\nits_save = {{ tables = \"any\" }}"),
            "\"enable-logging\", \"copy-all\", { any_number = [\"harvest-rings\", \"reset-rings\", \"copy\"] },
             \"pause-vcpus\", \"its-save-tables\", \"harvest-rings\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        scenario(
            &format!("arch = \"riscv\"\nvcpus = 1\n{three}"),
            vcpu,
            "\"enable-logging\", \"copy-all\", { until_clean = [\"harvest-rings\", \"reset-rings\", \"copy\"] },
             \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"",
        ),
        scenario(
            &format!("arch = \"x86\"\nvcpus = 1\n{two}"),
            vcpu,
            "\"enable-logging\", \"copy-all\", { any_number = [\"harvest-rings\", \"reset-rings\", \"copy\"] },
             \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"",
        ),
        scenario(
            "arch = \"arm64\"\nvcpus = 1",
            vcpu,
            "\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", \"copy\"] },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        // What is signalled once tells the first round from the others.
        scenario(
            "arch = \"x86\"\nvcpus = 1",
            vcpu,
            "\"enable-logging\", \"copy-all\", { until_clean = [\"copy\", { signal = \"begun\" }, \"get-dirty-log\"] },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"]
             [[protocol.threads]]\nname = \"other\"\nsteps = [{ wait = \"begun\" }",
        ),
        scenario(
            "arch = \"x86\"\npml = true\nvcpus = 1\nmanual_protect = true",
            vcpu,
            "\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", \"clear-dirty-log\", \"copy\"] },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        scenario(
            "arch = \"loongarch\"\nvcpus = 1\nmanual_protect = \"initially-set\"",
            vcpu,
            "\"enable-logging\", { any_number = [\"get-dirty-log\", \"clear-dirty-log\", \"copy\"] },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        one_slot(),
        // A writer without a vCPU beside GET and CLEAR, which writes what it wrote before.
        scenario(
            "arch = \"x86\"\nvcpus = 1\nmanual_protect = true",
            &format!("{vcpu}\nkernel_write = {{ tables = \"any\" }}"),
            "\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", \"clear-dirty-log\", \"copy\"] },
             { step = \"join-thread\", thread = 1 }, \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"]
             [[protocol.threads]]\nname = \"other\"\nsteps = [{ any_number = [\"kernel-write\"] }",
        ),
    ]
}

fn start(scenario: &Scenario) -> State<Small> {
    scenario.start().expect("it has room")
}

/// What was explored for each variant of a scenario: its machine, and its states.
fn explored(scenario: &Scenario, tried: Tried, reduced: bool) -> Vec<(Machine, Known)> {
    let machines = variants(&scenario.machine).into_iter();
    machines
        .map(|machine| {
            let start = begin(&machine, start(scenario));
            let known = explorer(&machine, &start, tried, reduced).explore().1;
            (machine, known)
        })
        .collect()
}

/// An explorer of a machine that exchanges nothing; `reduced`: where a step may be taken alone, it takes it alone.
fn explorer<'a>(
    machine: &'a Machine,
    start: &'a State<Small>,
    tried: Tried,
    reduced: bool,
) -> Explorer<'a, Small> {
    let wanted = Reductions {
        rules: if reduced { u32::MAX } else { 0 },
        ..Reductions::NONE
    };
    let limits = Limits::new(&Options::default(), &|_| true);
    Explorer::new(machine, start, tried, wanted, limits)
}

/// Some state of a machine of a few pages that stands for none of those that were explored, with the page that is tracked; none, if there
/// is no such state. `sizes`: bits of a word, pages of a batch. `reduced`: where a step may be taken alone, it is, by both.
fn missing(
    scenario: &Scenario,
    explored: &[(Machine, Known)],
    pages: u64,
    sizes: Option<(u64, u64)>,
    reduced: bool,
) -> Option<String> {
    let few = with_pages(scenario, pages).expect("it can be read again");
    let mut source = few.source.clone();
    if let Some((word, batch)) = sizes {
        let machine = source.get_mut("machine").and_then(Value::as_object_mut);
        let machine = machine.expect("there is one");
        machine.insert("word_bits".into(), word.into());
        if few.ring_entries() > 0 {
            machine.insert("reset_batch_pages".into(), batch.into());
        }
    }
    // So many are some of any number, and end; but what is left decides which steps may be taken alone.
    if !reduced {
        source["writers"]["vcpu"]["stores"] = STORES.into();
    }
    let few = Scenario::from_json("few", &source).expect("it can be read again");
    let machine = &few.machine;
    let rules = Rules::of(machine, |_| reduced);
    let steps_of = |state: &State<Small>| {
        let mut steps = Vec::new();
        match rules.local_step(machine, state) {
            Some(step) => steps.push(step),
            None => for_each_step(machine, state, |step| steps.push(step)),
        }
        steps
    };
    let first = start(&few);
    let packing = Packing::new(machine, &first);
    let pack = |state: &State<Small>| {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut state.clone(), &mut words);
        words
    };
    let begins: Vec<_> = explored
        .iter()
        .map(|(machine, _)| begin(machine, start(scenario)))
        .collect();
    let explored: Vec<_> = explored
        .iter()
        .zip(&begins)
        .map(|((machine, known), start)| {
            (machine, known, explorer(machine, start, Tried::ALL, false))
        })
        .collect();
    let stands = |state: &State<Small>, tracked: Frame| {
        let is_table = u64::from(tracked.0) == pages - 1;
        let (abstracted, known, explorer) =
            &explored[if is_table { 0 } else { explored.len() - 1 }];
        candidates(machine, abstracted, state, tracked)
            .into_iter()
            .any(|state| known.contains(&explorer.pack(state)))
    };
    let mut seen = HashSet::new();
    let mut look = |state: &State<Small>| {
        if !seen.insert(pack(state)) {
            return None;
        }
        let tracked = (0..pages as u32)
            .map(Frame)
            .find(|tracked| !stands(state, *tracked))?;
        Some(format!("page {} of {pages}: {state:?}", tracked.0))
    };
    // Those that are near, and those that schedules of a few long blocks come to.
    let mut open = VecDeque::from([first.clone()]);
    let mut near = HashSet::from([pack(&first)]);
    while let Some(state) = open.pop_front() {
        if let Some(missing) = look(&state) {
            return Some(missing);
        }
        for step in steps_of(&state) {
            let mut after = state.clone();
            apply(machine, &mut after, step);
            if near.len() < NEAR_STATES && near.insert(pack(&after)) {
                open.push_back(after);
            }
        }
    }
    for seed in 0..SCHEDULES {
        let mut choices = Choices::new(seed, 0);
        let mut state = first.clone();
        let (mut actor, mut left) = (None, 0);
        for _ in 0..SCHEDULE_STEPS {
            let mut steps = steps_of(&state);
            if left == 0 || !steps.iter().any(|step| Some(step.actor) == actor) {
                let Some(step) = steps.get(choices.below(steps.len().max(1) as u32) as usize)
                else {
                    break;
                };
                (actor, left) = (Some(step.actor), 1 + choices.below(40));
            }
            steps.retain(|step| Some(step.actor) == actor);
            let step = steps[choices.below(steps.len() as u32) as usize];
            apply(machine, &mut state, step);
            left -= 1;
            if let Some(missing) = look(&state) {
                return Some(missing);
            }
        }
    }
    None
}

/// The states that stand for `state` when a page is tracked: one, but where an operation goes through several words, whose others come
/// before the tracked page's or are taken for one that comes behind it.
fn candidates(
    machine: &Machine,
    abstracted: &Machine,
    state: &State<Small>,
    tracked: Frame,
) -> Vec<State<Small>> {
    let words = machine.slots[0]
        .npages
        .div_ceil(machine.constants.word_bits);
    let own = tracked.0 / machine.constants.word_bits;
    let mut state = state.clone();
    rename(abstracted, &mut state, tracked);
    for vcpu in state.vcpus.iter_mut() {
        vcpu.stores = UNLIMITED;
    }
    // Its stages that go through words, and what it begins with.
    let (first, through) = match state.current_op(machine, 0) {
        Some(Op::GetDirtyLog(_)) => (3, [3, 4, 5, 8]),
        Some(Op::ClearDirtyLog(_)) => (4, [4, 5, 4, 5]),
        _ => return vec![state],
    };
    let stage = state.threads[0].stage;
    if stage < 3 {
        return vec![state];
    }
    let index = state.threads[0].index;
    let in_two = if index == words {
        2
    } else {
        u32::from(index > own)
    };
    state.threads[0].index = in_two;
    if !through.contains(&stage) {
        return vec![state];
    }
    let mut all = vec![state.clone()];
    if words > 1 {
        for stage in [first, stage] {
            for any in [false, true] {
                let mut other = state.clone();
                other.threads[0].stage = stage;
                other.threads[0].any = any;
                dirtysim_model::transition::settle(abstracted, &mut other);
                all.push(other);
            }
        }
    }
    all
}

#[test]
fn whatever_few_pages_come_to_was_explored_for_any_number() {
    for (scenario, reduced) in safe().iter().flat_map(|safe| [(safe, false), (safe, true)]) {
        let explored = explored(scenario, Tried::ALL, reduced);
        for (pages, sizes) in [
            (1, None),
            (2, None),
            (3, None),
            (3, Some((1, 2))),
            (4, Some((2, 2))),
        ] {
            let missing = missing(scenario, &explored, pages, sizes, reduced);
            assert_eq!(missing, None, "reduced {reduced}: {}", scenario.source);
        }
    }
}

#[test]
fn without_any_part_of_the_argument_some_state_is_missing() {
    let all = Tried::ALL;
    let weakened = [
        (
            "leaves",
            Tried {
                leaves: false,
                ..all
            },
        ),
        (
            "pending",
            Tried {
                pending: false,
                ..all
            },
        ),
        (
            "words",
            Tried {
                words: false,
                ..all
            },
        ),
        ("near", Tried { near: false, ..all }),
    ];
    for (name, tried) in weakened {
        let found = safe().iter().any(|scenario| {
            let explored = explored(scenario, tried, false);
            let missing = |pages| missing(scenario, &explored, pages, None, false);
            missing(2).or_else(|| missing(3)).is_some()
        });
        assert!(found, "nothing is missing without {name}");
    }
}

/// The tracked page between two that RESET re-arms: its leaf is armed before its entry is harvested.
#[test]
fn without_ranges_around_the_tracked_page_a_state_is_missing() {
    let scenario = safe().remove(1);
    let few = with_pages(&scenario, 3).expect("it can be read again");
    let machine = &few.machine;
    let mut state = start(&few);
    let mut drive = |actor: Actor, store: Frame, until: &dyn Fn(&State<Small>) -> bool| {
        for _ in 0..200 {
            if until(&state) {
                return;
            }
            let mut wanted = None;
            for_each_choice(machine, &state, actor, |choice| match choice {
                Choice::Store(frame) if frame != store => {}
                choice => wanted = wanted.or(Some(choice)),
            });
            let choice = wanted.expect("it has a step");
            apply(machine, &mut state, Step { actor, choice });
        }
        panic!("it never comes there");
    };
    let (guest, vmm) = (Actor::Vcpu(0), Actor::Thread(0));
    let at = |stage: u8, is: fn(&Op) -> bool| {
        move |state: &State<Small>| {
            let op = state.current_op(machine, 0);
            op.is_some_and(is) && state.threads[0].stage == stage
        }
    };
    drive(vmm, Frame(0), &at(0, |op| matches!(op, Op::Harvest(_))));
    for page in [0, 2] {
        drive(guest, Frame(page), &|state| {
            state.stale.contains(HostPage(page))
        });
    }
    let resets: fn(&Op) -> bool = |op| matches!(op, Op::ResetRings(_));
    drive(vmm, Frame(0), &at(5, resets));
    drive(guest, Frame(1), &|state| state.stale.contains(HostPage(1)));
    drive(vmm, Frame(0), &at(6, resets));
    assert!(state.present.contains(Frame(1)) && !state.writable.contains(Frame(1)));
    for (tried, is_there) in [
        (Tried::ALL, true),
        (
            Tried {
                around: false,
                ..Tried::ALL
            },
            false,
        ),
    ] {
        let explored = explored(&scenario, tried, false);
        let (abstracted, known) = &explored[0];
        let start = begin(abstracted, start(&scenario));
        let explorer = explorer(abstracted, &start, Tried::ALL, false);
        let mut stands = candidates(machine, abstracted, &state, Frame(1)).into_iter();
        let found = stands.any(|state| known.contains(&explorer.pack(state)));
        assert_eq!(found, is_there, "{tried:?}");
    }
}

/// What is written by a kernel writer is tracked too, and in each call or not.
#[test]
fn without_the_machine_in_which_the_tracked_page_is_written_a_state_is_missing() {
    let scenario = safe().pop().expect("there are some");
    let mut explored = explored(&scenario, Tried::ALL, false);
    assert_eq!(explored.len(), 2);
    explored.remove(0);
    assert!(missing(&scenario, &explored, 2, None, false).is_some());
    let two = safe().remove(0);
    let mut twice = two.source.clone();
    let steps = twice["protocol"]["steps"].as_array_mut().expect("steps");
    let save = steps.iter().position(|step| step == "its-save-tables");
    let save = save.expect("it saves");
    steps.insert(save, "its-save-tables".into());
    let twice = Scenario::from_json("twice", &twice).expect("it is right");
    assert_eq!(variants(&twice.machine).len(), 4);
}

#[test]
fn safe_orders_are_proved() {
    for scenario in safe() {
        let report = search::check(&scenario, &Options::default(), &|_| true).expect("it has room");
        let found = (report.verdict, report.coverage);
        assert_eq!(
            found,
            (Verdict::Holds, Coverage::Proved),
            "{}",
            scenario.source
        );
        assert_eq!(report.bounds.stands_in_the_way(), None);
    }
}

#[test]
fn mutations_break_what_is_proved_and_a_machine_of_few_pages_shows_it() {
    for (order, name) in [
        (0, "kernel.nonvcpu.with_ring=drop"),
        (2, "kernel.reset.flush=none"),
        (1, "kernel.fault.mark=none"),
        (3, "kernel.get_log.flush=none"),
        (5, "vcpu.pml.flush=none"),
        (6, "kernel.clear.rearm=none"),
        (8, "kernel.writer.order=mark_first"),
    ] {
        let mutation = Mutation::ALL.iter().find(|known| known.name() == name);
        let scenario = safe().remove(order);
        let wrong = scenario.with_mutation(*mutation.expect("there is one of that name"));
        let report = search::check(&wrong, &Options::default(), &|_| true).expect("it has room");
        assert_eq!(report.verdict, Verdict::Violated, "{name}");
        let few = search::instance(&wrong, &report).expect("a machine of few pages shows it");
        assert!(!few.any_pages && report.violation.is_some_and(|found| found.steps.is_some()));
    }
}

#[test]
fn what_is_not_argued_is_refused_with_the_reason() {
    let refused = |machine: &str, writers: &str, steps: &str| {
        let text = format!(
            "name = \"any\"\n[machine]\nvcpus = 1\npages = \"any\"\n{machine}\n[writers]\n{writers}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {steps} \"finish\"]\n"
        );
        let error = Scenario::from_toml("any", &text).expect_err("it is not argued");
        error.to_string()
    };
    let (x86, vcpu) = ("arch = \"x86\"", "vcpu = { stores = \"any\" }");
    let two = "arch = \"x86\"\n[[slots]]\npages = \"any\"\n[[slots]]\npages = 1";
    let text = format!(
        "name = \"any\"\n[machine]\n{two}\n[protocol]\nsteps = [\"copy-all\", \"finish\"]\n"
    );
    let error = Scenario::from_toml("any", &text).expect_err("it is not argued");
    assert!(error.to_string().contains("several memslots"), "{error}");
    let with_block = |block: u64| {
        let mut source = one_slot().source;
        source["slots"][0]["block"] = block.into();
        Scenario::from_json("any", &source)
    };
    assert!(with_block(0).is_ok());
    let error = with_block(1).expect_err("it is not argued");
    assert!(error.to_string().contains("`block` is not 0"), "{error}");
    for (machine, writers, steps, said) in [
        (
            "arch = \"s390\"",
            vcpu,
            "",
            "s390, whose leaves are its log",
        ),
        (
            "arch = \"x86\"\nword_bits = 2",
            vcpu,
            "",
            "`word_bits` with any number of pages",
        ),
        (
            x86,
            "vcpu = { stores = 1, pages = [0] }",
            "",
            "a page that is named, with any number of pages",
        ),
        (
            x86,
            "kernel_record = { updates = 1, page = 0 }",
            "",
            "a page that is named",
        ),
        (
            x86,
            "devices = [{ transfers = \"any\" }]",
            "",
            "devices are not argued yet",
        ),
        (
            x86,
            vcpu,
            "{ step = \"vmm-write\", page = 0 },",
            "a page that is named",
        ),
        (
            x86,
            vcpu,
            "{ step = \"clear-dirty-log\", first = 0, pages = 4 },",
            "a CLEAR of a part",
        ),
        (x86, "vcpu = { stores = \"all\" }", "", "`stores` is `all`"),
    ] {
        let error = refused(machine, writers, steps);
        assert!(error.contains(said), "{said}: {error}");
        assert!(error.contains("any:"), "{error}");
    }
}

/// What the rows say is checked once more: with the others anything at all, in every set, no step of any actor leads where none leads
/// with what its row says that it reads.
#[test]
fn no_step_looks_at_more_of_the_others_than_is_tried() {
    for (scenario, every) in safe().iter().zip([40, 40, 40, 10, 20, 20, 20, 20, 40]) {
        for (machine, known) in explored(scenario, Tried::ALL, false) {
            let start = begin(&machine, start(scenario));
            let explorer = explorer(&machine, &start, Tried::ALL, false);
            let mut choices = Choices::new(7, 0);
            for words in known.states().step_by(every) {
                let state = explorer.unpack(words);
                let threads = (0..machine.programs.len()).map(|thread| Actor::Thread(thread as u8));
                for actor in threads.chain([Actor::Vcpu(0)]) {
                    let after = |state: &State<Small>, choice: Choice| {
                        let mut after = state.clone();
                        let effect = apply(&machine, &mut after, Step { actor, choice });
                        forget(&machine, &mut after);
                        let broken = oracle::check(&machine, &after, effect);
                        (explorer.pack(after), broken.bits())
                    };
                    let mut tried = HashSet::new();
                    super::others::for_each_step(
                        Tried::ALL,
                        &Rules::none(),
                        &machine,
                        [&state; 2],
                        actor,
                        &mut |[state, _], choice| {
                            tried.insert(after(state, choice));
                        },
                    );
                    for _ in 0..3 {
                        let mut any = state.clone();
                        anything(&mut any, &mut choices);
                        for_each_choice(&machine, &any, actor, |choice| {
                            assert!(
                                tried.contains(&after(&any, choice)),
                                "{actor:?} {choice:?} in {any:?}"
                            );
                        });
                    }
                }
            }
        }
    }
}

/// Gives the others any value in every set of a state.
fn anything(state: &mut State<Small>, choices: &mut Choices) {
    let State {
        present,
        writable,
        dirty_bit,
        bitmap,
        scratch,
        seen,
        stale,
        pending,
        sent,
        own_log,
        vcpus,
        threads,
        ..
    } = state;
    let frames = [present, writable, dirty_bit, bitmap, scratch, seen];
    let hosts = [stale, pending, sent, own_log];
    let tlbs = vcpus.iter_mut().map(|vcpu| &mut vcpu.tlb);
    let hands = threads.iter_mut().map(|thread| &mut thread.hand);
    let frames = frames.into_iter().chain(tlbs);
    let hosts = hosts.into_iter().chain(hands);
    let sets = frames.map(SetOf::numbers_mut);
    for set in sets.chain(hosts.map(SetOf::numbers_mut)) {
        for page in (0..PAGES).filter(|page| *page != TRACKED.0) {
            if choices.below(2) == 0 {
                set.insert(page);
            }
        }
    }
}
