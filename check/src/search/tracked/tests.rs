//! What is argued in `docs/proofs.md`, tried: whatever a machine of a few pages comes to, with each of its pages tracked in turn, is a
//! state that was explored for any number. And each part of the argument is needed: without it some state is missing.

use std::collections::{HashSet, VecDeque};
use std::sync::OnceLock;

use dirtysim_model::machine::Machine;
use dirtysim_model::op::{self, Op};
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
use super::{ANY_PART, OTHER_PART, TRACKED, Variant, frame_in, variants, with_pages};
use crate::random::Choices;
use crate::scenario::Scenario;
use crate::search::limits::Limits;
use crate::search::{self, Coverage, Options, Reductions, Verdict};

/// States of a machine of a few pages that are looked at: those that are nearest, and those of so many schedules.
const NEAR_STATES: usize = 1_500;
const SCHEDULES: u64 = 60;
/// Steps of a schedule: more than most have that come to an end.
const SCHEDULE_STEPS: u32 = 400;
/// States of a machine of any number whose steps are looked at.
const LOOKED_AT: usize = 800;
/// Stores that there are.
const STORES: u64 = 3;
/// Updates of a record that there are: more than a schedule has time for.
const UPDATES: u64 = 31;

fn scenario(machine: &str, writers: &str, steps: &str) -> Scenario {
    let text = format!(
        "name = \"any\"\n[machine]\n{machine}\npages = \"any\"\n[writers]\n{writers}\n[protocol]\nsteps = [{steps}]\n"
    );
    Scenario::from_toml("any", &text).unwrap_or_else(|error| panic!("{error}"))
}

/// Two memslots.
fn two_slots(machine: &str, high: &str, steps: &str) -> Scenario {
    let text = format!(
        "name = \"any\"\n[machine]\nvcpus = 1\n{machine}\n[[slots]]\nname = \"low\"\npages = \"any\"\n[[slots]]\nname = \"high\"\npages = \"any\"\n{high}\n[writers]\nvcpu = {{ stores = \"any\" }}\n[protocol]\nsteps = [{steps}]\n"
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
    let rings = format!("arch = \"arm64\"\n{ring}\nring_with_bitmap = true");
    vec![
        scenario(
            &format!("{rings}\nvcpus = 1"),
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
        // CLEAR part by part.
        scenario(
            "arch = \"arm64\"\nvcpus = 1\nmanual_protect = true",
            vcpu,
            "\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", { step = \"clear-dirty-log\", chunk = \"any\" }, \"copy\"] },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        scenario(
            "arch = \"x86\"\nvcpus = 1\nmanual_protect = \"initially-set\"",
            vcpu,
            "\"take-all\", \"enable-logging\", \"get-dirty-log\", { each_chunk = [\"clear-dirty-log\", \"copy\"], pages = \"any\" },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        // CLEAR of some part.
        scenario(
            "arch = \"x86\"\nvcpus = 1\nmanual_protect = true",
            vcpu,
            "\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", { step = \"clear-dirty-log\", pages = \"any\" }, \"copy\"] },
             \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
        two_slots(
            &rings,
            "",
            "\"enable-logging\", \"copy-all\", { any_number = [\"harvest-rings\", \"reset-rings\", \"copy\"] },
             \"pause-vcpus\", { step = \"get-dirty-log\", slot = \"low\" }, { step = \"its-save-tables\", pages = [\"high:any\"] },
             { step = \"get-dirty-log\", slot = \"high\" }, \"harvest-rings\", \"copy\", \"finish\"",
        ),
        // The log of one memslot is turned on after that of the other.
        two_slots(
            &rings,
            "",
            "{ step = \"enable-logging\", slot = \"high\" }, \"copy-all\", { step = \"enable-logging\", slot = \"low\" }, \"copy-all\",
             \"harvest-rings\", \"reset-rings\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"",
        ),
        // A device with a log of its own, and one that the VMM marks the pages of, each with its kind of pages.
        scenario(
            "arch = \"x86\"\nvcpus = 1",
            &format!("{vcpu}\ndevices = [{{ transfers = \"any\" }}, {{ transfers = \"any\", pages = [\"disk\"], log_in = \"vmm\" }}]"),
            "\"enable-logging\", \"vmm-log-reset\", \"copy-all\", { any_number = [\"get-dirty-log\", \"device-log-sync\", \"vmm-log-sync\", \"copy\"] },
             \"pause-vcpus\", \"drain-devices\", \"get-dirty-log\", \"device-log-sync\", \"vmm-log-sync\", \"copy\", \"finish\"",
        ),
        scenario(
            "arch = \"arm64\"\nvcpus = 1",
            &format!("{vcpu}\ndevices = [{{ transfers = \"any\", pages = [\"queue\"], log = \"none\" }}]"),
            "\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", \"copy\"] },
             \"pause-vcpus\", \"drain-devices\", { step = \"mark-queues\", pages = [\"queue\"] }, \"get-dirty-log\", \"vmm-log-sync\", \"copy\", \"finish\"",
        ),
        // Two threads that harvest, one at a time; the VMM writes a page itself.
        scenario(
            &format!("arch = \"x86\"\nvcpus = 1\n{ring}"),
            vcpu,
            "\"enable-logging\", \"copy-all\", { step = \"vmm-write\", page = \"console\" }, { any_number = [{ lock = \"bql\", steps = [{ step = \"harvest-rings\", into = \"vmm-log\" }, \"reset-rings\", \"vmm-log-sync\"] }, \"copy\"] },
             \"pause-vcpus\", { lock = \"bql\", steps = [{ step = \"harvest-rings\", into = \"vmm-log\" }, \"reset-rings\", \"vmm-log-sync\"] }, \"copy\", \"finish\"]
             [[protocol.threads]]\nname = \"reaper\"\nsteps = [{ lock = \"bql\", steps = [{ step = \"harvest-rings\", into = \"vmm-log\" }, \"reset-rings\"] }",
        ),
        // A record of the kernel, and a page that the host ages.
        scenario(
            &format!("arch = \"x86\"\nvcpus = 1\naccessed_bits = false\n{two}"),
            &format!("{vcpu}\nkernel_record = {{ updates = \"any\", page = \"record\" }}"),
            "\"enable-logging\", \"copy-all\", { step = \"host-age\", page = \"old\" }, \"harvest-rings\", \"reset-rings\", { step = \"host-unmap\", page = \"old\" }, \"copy\",
             \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"",
        ),
        // Pages that are called free, and some that are always dirty.
        scenario(
            "arch = \"x86\"\nvcpus = 1",
            &format!("{vcpu}\nkernel_write = {{ tables = [\"clock\"] }}\nalways_dirty = [\"clock\"]"),
            "\"enable-logging\", \"copy-all\", \"get-dirty-log\", { step = \"drop-free\", pages = [\"balloon\"] }, \"copy\",
             \"kernel-write\", \"pause-vcpus\", \"get-dirty-log\", \"take-always-dirty\", { step = \"end-free\", pages = [\"balloon\"] }, \"copy\", \"finish\"",
        ),
        // A memslot that comes, and one that goes.
        two_slots(
            &rings,
            "present = false",
            "{ step = \"enable-logging\", slot = \"low\" }, \"copy-all\", { step = \"add-slot\", slot = \"high\", logging = true }, \"copy-all\",
             { step = \"remove-slot\", slot = \"low\" }, \"harvest-rings\", \"reset-rings\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"",
        ),
        two_slots(
            "arch = \"x86\"\nmanual_protect = true",
            "",
            "\"enable-logging\", \"copy-all\", { step = \"remove-slot\", slot = \"high\" }, { step = \"add-slot\", slot = \"high\", logging = true },
             \"copy-all\", \"get-dirty-log\", \"clear-dirty-log\", \"copy\", \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
        ),
    ]
}

/// Where in [`safe`] some are.
const IN_PARTS: usize = 9;
const TWO_SLOTS: usize = 12;
const QUEUES: usize = 15;
const COMES: usize = 19;

fn start(scenario: &Scenario) -> State<Small> {
    scenario.start().expect("it has room")
}

/// A variant of a scenario, and its states.
type Explored = (Variant, Known);

/// What was explored for the variants of a safe order with nothing left out, which several tests look at.
fn whole(order: usize) -> Vec<&'static Explored> {
    static WHOLE: [OnceLock<Vec<Explored>>; 32] = [const { OnceLock::new() }; 32];
    let explored = WHOLE[order].get_or_init(|| explored(&safe()[order], Tried::ALL, false));
    explored.iter().collect()
}

/// What was explored for each variant of a scenario, and its states.
fn explored(scenario: &Scenario, tried: Tried, reduced: bool) -> Vec<Explored> {
    let variants = variants(&scenario.machine, &scenario.meant).into_iter();
    variants
        .map(|variant| {
            let Variant { machine, slot } = &variant;
            let tried = Tried {
                slot: *slot,
                ..tried
            };
            let start = begin(machine, *slot, start(scenario));
            let known = explorer(machine, &start, tried, reduced).explore().1;
            (variant, known)
        })
        .collect()
}

/// What a page is to a machine: whether it is among those that each writer writes, each step names and each CLEAR is given, in order.
fn is(machine: &Machine, page: Frame, parts: bool) -> Vec<bool> {
    let lists = &machine.frame_lists;
    let of_op = |op: &Op| match op {
        Op::KernelWrite(op) => Some(lists[usize::from(op.frames)].contains(&page)),
        Op::MarkOwn(op) => Some(lists[usize::from(op.frames)].contains(&page)),
        Op::DropFree(op) => Some(lists[usize::from(op.frames)].contains(&page)),
        Op::UserWrite(op) => Some(op.frame == page),
        Op::HostAge(op) => Some(op.frame == page),
        Op::TakeAlways => Some(machine.always_dirty.contains(&machine.host_page(page))),
        Op::ClearDirtyLog(op) if parts => Some(machine.slots.iter().any(|slot| {
            let (first, end) = (op.first_page as u32, op.first_page as u32 + op.num_pages);
            slot.number() == op.slot
                && slot.has_frame(page)
                && (first..end).contains(&(page - slot.frame))
        })),
        _ => None,
    };
    let ops = machine.programs.iter().flatten().filter_map(of_op);
    let devices = machine.devices.iter();
    let records = machine.vcpus.iter().filter(|vcpu| vcpu.steal > 0);
    ops.chain(devices.map(|device| device.frames.contains(&page)))
        .chain(records.map(|vcpu| vcpu.steal_frame == page))
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
    explored: &[&Explored],
    pages: u64,
    sizes: Option<(u64, u64)>,
    reduced: bool,
) -> Option<String> {
    let few = with_pages(scenario, pages).expect("it can be read again");
    let mut source = few.source.clone();
    if let Some((word, batch)) = sizes {
        in_parts(&mut source["protocol"], word);
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
        let devices = source["writers"].get_mut("devices");
        for device in devices.and_then(Value::as_array_mut).into_iter().flatten() {
            device["transfers"] = STORES.into();
        }
        if let Some(record) = source["writers"].get_mut("kernel_record") {
            // Who has had all of them goes into the guest by fewer steps.
            record["updates"] = UPDATES.into();
        }
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
        .map(|(variant, _)| begin(&variant.machine, variant.slot, start(scenario)))
        .collect();
    let explored: Vec<_> = explored
        .iter()
        .zip(&begins)
        .map(|((variant, known), start)| {
            let explorer = explorer(&variant.machine, start, Tried::ALL, false);
            (variant, known, explorer)
        })
        .collect();
    // Where CLEAR goes through parts there is one for each word.
    let some_part = scenario
        .machine
        .ops()
        .any(|op| part_of(op) == Some(ANY_PART));
    let stands = |state: &State<Small>, tracked: Frame| {
        let wanted = is(machine, tracked, some_part);
        let is_it = |variant: &Variant| {
            let page = frame_in(&variant.machine, variant.slot, TRACKED);
            machine.slot_of_frame(tracked) == Some(variant.slot)
                && is(&variant.machine, page, some_part) == wanted
        };
        let found = explored.iter().find(|(variant, ..)| is_it(variant));
        found.is_some_and(|(variant, known, explorer)| {
            candidates(machine, variant, state, tracked)
                .into_iter()
                .any(|state| known.contains(&explorer.pack(state)))
        })
    };
    let mut seen = HashSet::new();
    let mut look = |state: &State<Small>| {
        if !seen.insert(pack(state)) {
            return None;
        }
        let mut frames = machine.slots.iter().flat_map(|slot| slot.frames());
        let tracked = frames.find(|tracked| !stands(state, *tracked))?;
        Some(format!(
            "page {} of {pages}: {:?} {state:?}",
            tracked.0, state.threads
        ))
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

/// Parts of a memslot are so many pages.
fn in_parts(value: &mut Value, pages: u64) {
    match value {
        Value::Object(map) => {
            let takes_part = map.contains_key("each_chunk")
                || map
                    .get("step")
                    .is_some_and(|step| step == "clear-dirty-log");
            for key in ["chunk", "pages"] {
                if takes_part && map.contains_key(key) {
                    map.insert(key.into(), pages.into());
                }
            }
            map.values_mut().for_each(|value| in_parts(value, pages));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| in_parts(item, pages)),
        _ => {}
    }
}

/// The part of a memslot that an operation is given.
fn part_of(op: &Op) -> Option<super::Part> {
    match op {
        Op::ClearDirtyLog(op) => Some(super::Part {
            first: op.first_page as u32,
            pages: op.num_pages,
        }),
        _ => None,
    }
}

/// For each operation of a thread, and behind the last, the one that stands for it where parts of a memslot are gone through: those before
/// the tracked page's and behind it are each a loop's.
fn places(few: &[Op], any: &[Op], parts: usize, own: usize) -> Vec<u16> {
    let mut places = Vec::new();
    let mut at = 0;
    while at < any.len() {
        match any[at] {
            Op::Again(op::Again { to, .. })
                if usize::from(to) > at && usize::from(to) < any.len() =>
            {
                let ops = usize::from(to) - at - 2;
                for part in 0..parts {
                    let first = match part.cmp(&own) {
                        std::cmp::Ordering::Less => at + 1,
                        std::cmp::Ordering::Equal => at + ops + 2,
                        std::cmp::Ordering::Greater => at + 2 * ops + 3,
                    };
                    places.extend((first..first + ops).map(|place| place as u16));
                }
                at += 3 * ops + 4;
            }
            _ => {
                places.push(at as u16);
                at += 1;
            }
        }
    }
    places.push(at as u16);
    assert_eq!(places.len(), few.len() + 1);
    places
}

/// The states that stand for `state` when a page is tracked: one, but where an operation goes through several words, whose others come
/// before the tracked page's or are taken for one that comes behind it.
fn candidates(
    machine: &Machine,
    variant: &Variant,
    state: &State<Small>,
    tracked: Frame,
) -> Vec<State<Small>> {
    let (abstracted, slot) = (&variant.machine, variant.slot);
    let own_slot = &machine.slots[slot];
    let place = tracked - own_slot.frame;
    let bits = machine.constants.word_bits;
    let op = state.current_op(machine, 0).copied();
    let mut state = state.clone();
    for (thread, t) in state.threads.iter_mut().enumerate() {
        let few = &machine.programs[thread];
        let parts = own_slot.npages.div_ceil(bits) as usize;
        let own = (place / bits) as usize;
        let places = places(few, &abstracted.programs[thread], parts, own);
        t.op = places[usize::from(t.op)];
    }
    rename([machine, abstracted], slot, &mut state, tracked);
    for (vcpu, config) in state.vcpus.iter_mut().zip(&abstracted.vcpus) {
        (vcpu.stores, vcpu.steal) = (config.stores, config.steal);
    }
    for device in state.devices.iter_mut() {
        device.budget = UNLIMITED;
    }
    let stage = state.threads[0].stage;
    // Its stages that go through words, what it begins with; the words, where the tracked page's is, and the words of what stands for it.
    let ((first, through), number, range, there) = match op {
        Some(Op::GetDirtyLog(op)) => {
            let whole = 0..machine
                .slots
                .iter()
                .map(|slot| slot.npages)
                .max()
                .unwrap_or(0);
            ((3, [3, 4, 5, 8]), op.slot, whole, 2)
        }
        Some(Op::ClearDirtyLog(op)) => {
            let first = op.first_page as u32;
            let range = first..first + op.num_pages;
            let stands_for = state.current_op(abstracted, 0).and_then(part_of);
            let there = if stands_for == Some(OTHER_PART) { 1 } else { 2 };
            ((4, [4, 5, 4, 5]), op.slot, range, there)
        }
        Some(Op::Harvest(_)) => {
            if stage == 3 {
                // Every entry is one of the tracked page's memslot.
                state.threads[0].entry_slot = abstracted.slots[slot].number();
            }
            return vec![state];
        }
        _ => return vec![state],
    };
    if stage < 3 {
        return vec![state];
    }
    let slot_in_work = machine.slots.iter().find(|slot| slot.number() == number);
    let npages = slot_in_work.map_or(0, |slot| slot.npages);
    let range = range.start..range.end.min(npages);
    let words = (range.end - range.start).div_ceil(bits);
    let is_in = number == own_slot.number() && range.contains(&place);
    let index = state.threads[0].index;
    let indices: Vec<u32> = if index == words {
        vec![there]
    } else if is_in {
        vec![u32::from(index > (place - range.start) / bits)]
    } else {
        (0..there).collect()
    };
    let mut all = Vec::new();
    for index in indices {
        state.threads[0].index = index;
        all.push(state.clone());
        if !through.contains(&stage) || words == 1 && is_in {
            continue;
        }
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
    let orders = safe();
    let orders = orders.iter().enumerate();
    for (order, scenario, reduced) in
        orders.flat_map(|(order, safe)| [(order, safe, false), (order, safe, true)])
    {
        let alone = reduced.then(|| explored(scenario, Tried::ALL, true));
        let explored = alone
            .as_ref()
            .map_or_else(|| whole(order), |alone| alone.iter().collect());
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
            let explored: Vec<_> = explored.iter().collect();
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
        let (variant, known) = &explored[0];
        let start = begin(&variant.machine, 0, start(&scenario));
        let explorer = explorer(&variant.machine, &start, Tried::ALL, false);
        let mut stands = candidates(machine, variant, &state, Frame(1)).into_iter();
        let found = stands.any(|state| known.contains(&explorer.pack(state)));
        assert_eq!(found, is_there, "{tried:?}");
    }
}

/// What is written by a kernel writer is tracked too, and in each call or not.
#[test]
fn without_the_machine_in_which_the_tracked_page_is_written_a_state_is_missing() {
    let scenario = safe().remove(8);
    let mut explored = whole(8);
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
    assert_eq!(variants(&twice.machine, &twice.meant).len(), 4);
}

/// Of each memslot, and of each part of one, the tracked page is tried in it.
#[test]
fn without_the_machine_in_which_the_tracked_page_lies_elsewhere_a_state_is_missing() {
    for (order, slot) in [TWO_SLOTS, COMES, COMES + 1]
        .into_iter()
        .flat_map(|order| [(order, 0), (order, 1)])
    {
        let mut explored = whole(order);
        explored.retain(|(variant, _)| variant.slot != slot);
        assert!(missing(&safe()[order], &explored, 1, None, false).is_some());
    }
    // Names of two pages may be of one.
    for (order, machines) in (QUEUES..).zip([2, 2, 4, 4]) {
        assert_eq!(whole(order).len(), machines);
        for left_out in 0..machines {
            let mut explored = whole(order);
            explored.remove(left_out);
            let missing = |pages| missing(&safe()[order], &explored, pages, None, false);
            assert!(missing(3).or_else(|| missing(1)).is_some(), "{left_out}");
        }
    }
}

/// A scenario whose programs go through no part but the one with the tracked page, before it or behind it.
#[test]
fn without_parts_of_others_a_state_is_missing() {
    for order in [IN_PARTS, IN_PARTS + 1] {
        let scenario = &safe()[order];
        let loops = |op: &Op| matches!(op, Op::Again(op::Again { to, .. }) if usize::from(*to) < scenario.machine.programs[0].len());
        let passes: Vec<usize> = (0..scenario.machine.programs[0].len())
            .filter(|&at| match scenario.machine.programs[0][at] {
                Op::Again(op::Again { to, .. }) => {
                    loops(&scenario.machine.programs[0][at]) && usize::from(to) > at
                }
                _ => false,
            })
            .collect();
        assert_eq!(passes.len(), 2);
        for pass in passes {
            let mut weakened = scenario.clone();
            let Op::Again(op) = &mut weakened.machine.programs[0][pass] else {
                panic!("it is a jump")
            };
            // The parts of others are always passed by.
            op.until = op::Until::Never;
            let explored = explored(&weakened, Tried::ALL, false);
            let explored: Vec<_> = explored.iter().collect();
            let missing = |pages| missing(scenario, &explored, pages, None, false);
            assert!(missing(2).or_else(|| missing(3)).is_some(), "{pass}");
        }
    }
}

/// What is meant by a kind is the same wherever it is named, and by `any` another thing each time.
#[test]
fn a_kind_is_one_and_any_is_not() {
    let variants_of = |first: &str, second: &str| {
        let scenario = scenario(
            "arch = \"x86\"\nvcpus = 1",
            "vcpu = { stores = \"any\" }",
            &format!(
                "\"enable-logging\", \"copy-all\", {{ step = \"mark-queues\", pages = [\"{first}\"] }}, {{ step = \"mark-queues\", pages = [\"{second}\"] }}, \"vmm-log-sync\", \"copy\", \"finish\""
            ),
        );
        variants(&scenario.machine, &scenario.meant).len()
    };
    assert_eq!(variants_of("queue", "queue"), 2);
    assert_eq!(variants_of("queue", "disk"), 4);
    assert_eq!(variants_of("any", "any"), 4);
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
        (IN_PARTS, "kernel.clear.rearm=none"),
        (IN_PARTS + 1, "kernel.clear.rearm=none"),
        (IN_PARTS + 1, "kernel.fault.mark=none"),
        (TWO_SLOTS, "kernel.nonvcpu.with_ring=drop"),
        (TWO_SLOTS, "kernel.reset.flush=none"),
        (QUEUES - 1, "device.async.mark=never"),
        (QUEUES, "vmm.queues.remark=false"),
        (QUEUES + 1, "writer.vmm.log=none"),
        (QUEUES + 2, "kernel.reset.flush=none"),
        (QUEUES + 3, "vmm.hint.clear_after_last_sync"),
        (QUEUES + 3, "vmm.always_dirty_pages=ignored"),
        (COMES, "kernel.reset.flush=none"),
        (COMES + 1, "kernel.clear.rearm=none"),
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
    let slots = |first: &str, second: &str, steps: &str| {
        let text = format!(
            "name = \"any\"\n[machine]\narch = \"x86\"\n[[slots]]\nname = \"low\"\n{first}\n[[slots]]\n{second}\n[protocol]\nsteps = [\"copy-all\", {steps} \"finish\"]\n"
        );
        let error = Scenario::from_toml("any", &text).expect_err("it is not argued");
        error.to_string()
    };
    let any = "pages = \"any\"";
    for (second, steps, said) in [
        ("pages = 1", "", "a memslot with a number of pages beside"),
        (
            "pages = \"any\"\npresent = false\ngfn = 64",
            "",
            "a memslot that comes or goes beside others, where one has an address in numbers",
        ),
        (
            "pages = \"any\"\npresent = false\nid = 0",
            "",
            "memslots of one number, one after the other",
        ),
        (
            "pages = \"any\"\nmoves_to = [64]",
            "",
            "that move beside others",
        ),
        (
            "pages = \"any\"\nshares = \"low:0\"",
            "",
            "whose memory another shares",
        ),
        (
            "pages = \"any\"\ngfn = 64",
            "{ step = \"remove-slot\", slot = \"low\" },",
            "a memslot that comes or goes beside others, where one has an address in numbers",
        ),
        (
            any,
            "{ step = \"kernel-write\", pages = [\"hi:any\"] },",
            "unknown slot `hi`",
        ),
        (
            any,
            "{ step = \"vmm-write\", page = \"console\" },",
            "`console`, and there are several memslots",
        ),
        (
            "pages = \"any\"\n[writers]\nkernel_record = { updates = 1, page = \"low:record\", preempted = true }",
            "",
            "a push that is preempted, beside several memslots",
        ),
    ] {
        let error = slots(any, second, steps);
        assert!(error.contains(said), "{said}: {error}");
    }
    let with_block = |block: u64| {
        let mut source = one_slot().source;
        source["slots"][0]["block"] = block.into();
        Scenario::from_json("any", &source)
    };
    assert!(with_block(0).is_ok());
    let error = with_block(1).expect_err("it is not argued");
    assert!(
        error.to_string().contains("a `block` of its own"),
        "{error}"
    );
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
            "a page's number, with any number of pages",
        ),
        (
            x86,
            "kernel_record = { updates = 1, page = 0 }",
            "",
            "a page's number",
        ),
        (
            x86,
            "devices = [{ transfers = \"any\", granule = 2 }]",
            "",
            "a device that writes or logs other pages",
        ),
        (
            x86,
            "devices = [{ transfers = \"any\", pages = [0] }]",
            "",
            "a page's number",
        ),
        (
            x86,
            vcpu,
            "{ step = \"vmm-write\", page = 0 },",
            "a page's number",
        ),
        (
            x86,
            vcpu,
            "{ step = \"clear-dirty-log\", first = 0, pages = 4 },",
            "a part of a memslot in numbers",
        ),
        (x86, "vcpu = { stores = \"all\" }", "", "`stores` is `all`"),
        (
            x86,
            vcpu,
            "{ step = \"vmm-write\", page = \"any\" },",
            "`any` where one page is named",
        ),
        (
            "arch = \"x86\"\nring = { entries = 2, reserved = 1 }",
            vcpu,
            "\"harvest-rings\", \"finish\"]\n[[protocol.threads]]\nname = \"other\"\nsteps = [\"harvest-rings\",",
            "two threads that harvest at once",
        ),
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
    for (order, scenario) in safe().iter().enumerate() {
        for (variant, known) in whole(order) {
            let every = known.len().div_ceil(LOOKED_AT);
            let (machine, slot) = (&variant.machine, variant.slot);
            let tracked = frame_in(machine, slot, TRACKED);
            let tried_all = Tried { slot, ..Tried::ALL };
            let start = begin(machine, slot, start(scenario));
            let explorer = explorer(machine, &start, tried_all, false);
            let mut choices = Choices::new(7, 0);
            for words in known.states().step_by(every) {
                let state = explorer.unpack(words);
                let threads = (0..machine.programs.len()).map(|thread| Actor::Thread(thread as u8));
                let devices = (0..machine.devices.len()).map(|device| Actor::Device(device as u8));
                for actor in threads.chain([Actor::Vcpu(0)]).chain(devices) {
                    let after = |state: &State<Small>, choice: Choice| {
                        let mut after = state.clone();
                        let effect = apply(machine, &mut after, Step { actor, choice });
                        forget(machine, slot, &mut after);
                        let broken = oracle::check(machine, &after, effect);
                        (explorer.pack(after), broken.bits())
                    };
                    let mut tried = HashSet::new();
                    super::others::for_each_step(
                        tried_all,
                        &Rules::none(),
                        machine,
                        [&state; 2],
                        actor,
                        &mut |[state, _], choice| {
                            tried.insert(after(state, choice));
                        },
                    );
                    for _ in 0..3 {
                        let mut any = state.clone();
                        anything(machine, tracked, &mut any, &mut choices);
                        for_each_choice(machine, &any, actor, |choice| {
                            // What a device does to others changes nothing that is kept.
                            let of_others = matches!(choice, Choice::Land(page) | Choice::Load(page) if page != tracked)
                                && matches!(actor, Actor::Device(_));
                            let stays = || (explorer.pack(state.clone()), 0);
                            let after = after(&any, choice);
                            assert!(
                                tried.contains(&after) || of_others && after == stays(),
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
fn anything(machine: &Machine, tracked: Frame, state: &mut State<Small>, choices: &mut Choices) {
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
        devices,
        ..
    } = state;
    let frames = [present, writable, dirty_bit, bitmap, scratch, seen];
    let hosts = [stale, pending, sent, own_log];
    let tlbs = vcpus.iter_mut().map(|vcpu| &mut vcpu.tlb);
    let hands = threads.iter_mut().map(|thread| &mut thread.hand);
    let of_devices = devices
        .iter_mut()
        .flat_map(|device| [&mut device.in_flight, &mut device.unlogged, &mut device.log]);
    let frames = frames.into_iter().chain(tlbs).chain(of_devices);
    let hosts = hosts.into_iter().chain(hands);
    let sets = frames.map(SetOf::numbers_mut);
    for set in sets.chain(hosts.map(SetOf::numbers_mut)) {
        let pages = machine.slots.iter().flat_map(|slot| slot.frames());
        for page in pages.filter(|page| *page != tracked) {
            if choices.below(2) == 0 {
                set.insert(page.0);
            }
        }
    }
}
