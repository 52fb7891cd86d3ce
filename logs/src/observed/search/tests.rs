//! Whatever the model does, the search finds a run for it; and it does not find one for what the model cannot do.

use dirtysim_model::machine::{self, Arch as ModelArch};
use dirtysim_model::op::Op;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::ring::{Ring, RingEntry};
use dirtysim_model::state::slot::Life;
use dirtysim_model::state::vcpu::{Exit, Pc, Vcpu};
use dirtysim_model::transition::{
    Actor, Choice, Step, apply, describe, for_each_choice, for_each_step,
};
use dirtysim_model::words::{Frame, HostPage};

use super::*;
use crate::observed::CheckConfig;
use crate::random::Choices;
use crate::scenario::Scenario;
use crate::trace::observed::{KvmIoctl, Phase};
use crate::trace::{Arch, Header, Kind, Machine};

/// Which of the events a log has.
#[derive(Debug, Clone, Copy)]
pub(in crate::observed) struct Log {
    pub(in crate::observed) pushes: bool,
    pub(in crate::observed) resets: bool,
    pub(in crate::observed) exits: bool,
    pub(in crate::observed) harvests: bool,
    /// QEMU's ioctls, and what it reaped.
    pub(in crate::observed) reaps: bool,
    pub(in crate::observed) probes: bool,
    /// Events are written some time after what they tell.
    pub(in crate::observed) late: bool,
}

pub(in crate::observed) const ALL: Log = Log {
    pushes: true,
    resets: true,
    exits: true,
    harvests: true,
    reaps: false,
    probes: true,
    late: false,
};

pub(in crate::observed) fn scenario(arch: &str, ring: &str, reset: &str) -> Scenario {
    let text = format!(
        r#"
name = "log"
liveness = "violated"
[machine]
arch = "{arch}"
vcpus = 2
pages = 6
{ring}
[writers]
vcpu = {{ stores = "unlimited" }}
kernel_record = {{ updates = 5, page = 2 }}
[protocol]
steps = ["enable-logging", {{ forever = ["harvest-rings", {reset}, "kick-vcpus"] }}]
"#
    );
    let mut scenario =
        Scenario::from_toml("log.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    // Whatever KVM stores of its own, not the record alone.
    for vcpu in &mut scenario.machine.vcpus {
        vcpu.own_stores = true;
    }
    scenario
}

/// An event that a step caused: its indices are read when it is written.
#[derive(Clone)]
enum Written {
    Push(usize),
    Reset(usize),
    At(Observed),
}

impl Written {
    fn read(self, state: &State<Large>) -> Observed {
        match self {
            Self::Push(vcpu) => {
                let ring = &state.vcpus[vcpu].ring;
                let entry = ring.entry(ring.dirty_index.wrapping_sub(1));
                Observed::RingPush {
                    ring: vcpu as u32,
                    dirty_index: ring.dirty_index,
                    reset_index: ring.reset_index,
                    slot: entry.slot(),
                    offset: entry.offset().0,
                    used: ring.used(),
                }
            }
            Self::Reset(vcpu) => {
                let ring = &state.vcpus[vcpu].ring;
                Observed::RingReset {
                    ring: vcpu as u32,
                    dirty_index: ring.dirty_index,
                    reset_index: ring.reset_index,
                    used: ring.used(),
                }
            }
            Self::At(event) => event,
        }
    }
}

/// What a step makes tracers write, in order; `before` is the state in which it was taken.
fn written(
    scenario: &Scenario,
    before: &State<Large>,
    after: &State<Large>,
    step: Step,
    log: Log,
) -> Vec<Written> {
    let what = describe(&scenario.machine, before, step).name();
    let one = match step.actor {
        Actor::Vcpu(vcpu) => {
            let vcpu = usize::from(vcpu);
            let v = &after.vcpus[vcpu];
            match what {
                "push-index" | "pml-flush-index" if log.pushes => Some(Written::Push(vcpu)),
                "check-soft-full" if v.pc == Pc::Exit && log.exits => {
                    Some(Written::At(Observed::RingExit { vcpu: vcpu as u32 }))
                }
                "return-to-user" if log.exits => Some(Written::At(match v.exit {
                    Exit::DirtyRingFull => Observed::UserspaceExit {
                        reason: Some(31),
                        errno: None,
                    },
                    _ => Observed::UserspaceExit {
                        reason: None,
                        errno: Some(4),
                    },
                })),
                _ => None,
            }
        }
        Actor::Thread(_) => {
            let thread = &before.threads[0];
            let op = scenario.machine.programs[0].get(usize::from(thread.op));
            let now = &after.threads[0];
            match op {
                Some(Op::ResetRings(_)) if what == "reset-return" => {
                    let ret = after.threads[0].answer.map_or(-1, i64::from);
                    let mut all = Vec::new();
                    if log.probes {
                        all.push(probe(Phase::Return, Some(ret)));
                    }
                    if log.reaps {
                        let count = u64::try_from(ret).expect("RESET is not refused");
                        all.push(Written::At(Observed::QemuReap { count }));
                    }
                    return all;
                }
                Some(Op::ResetRings(_))
                    if now.op == thread.op && now.index != thread.index && log.resets =>
                {
                    Some(Written::Reset(thread.index as usize))
                }
                Some(Op::Harvest(_)) if what == "harvest-store-flags" && log.harvests => {
                    let ring = &before.vcpus[thread.index as usize].ring;
                    Some(Written::At(Observed::QemuPage {
                        cpu_index: thread.index,
                        fetch: ring.fetch_index,
                        offset: ring.entry(ring.fetch_index).offset().0,
                    }))
                }
                _ => None,
            }
        }
        Actor::Device(_) => None,
    };
    let mut all: Vec<Written> = one.into_iter().collect();
    // RESET is next.
    let program = &scenario.machine.programs[0];
    let is_reset = |op: u16| matches!(program.get(usize::from(op)), Some(Op::ResetRings(_)));
    let (was, is) = (before.threads[0].op, after.threads[0].op);
    if matches!(step.actor, Actor::Thread(_)) && was != is && is_reset(is) {
        if log.reaps {
            let ioctl = KvmIoctl::ResetDirtyRings;
            all.push(Written::At(Observed::QemuVmIoctl { ioctl }));
        }
        if log.probes {
            all.push(probe(Phase::Enter, None));
        }
    }
    all
}

/// What a probe of RESET tells.
fn probe(phase: Phase, ret: Option<i64>) -> Written {
    Written::At(Observed::ProbeIoctl {
        phase,
        ioctl: KvmIoctl::ResetDirtyRings,
        slot: None,
        first_page: None,
        num_pages: None,
        ret,
    })
}

/// The log of a random schedule.
pub(in crate::observed) fn log_of(
    scenario: &Scenario,
    seed: u64,
    steps: u32,
    log: Log,
) -> Vec<ObservedEvent> {
    let machine = &scenario.machine;
    let mut state = scenario.start::<Large>().expect("any size");
    let mut choices = Choices::new(seed, 0);
    let mut events = Vec::new();
    let mut owed: Vec<(Actor, Written)> = Vec::new();
    for cpu_index in 0..2 {
        events.push(Observed::QemuCreateVcpu {
            cpu_index,
            vcpu: cpu_index,
        });
    }
    let mut tids = vec![None; events.len()];
    let tid = |actor| match actor {
        Actor::Vcpu(vcpu) => Some(100 + u32::from(vcpu)),
        _ => Some(99),
    };
    for _ in 0..steps {
        let mut possible = Vec::new();
        for_each_step(machine, &state, |step| possible.push(step));
        let step = possible[choices.below(possible.len() as u32) as usize];
        // Who has an event to write does so before it goes on; others may come first.
        let mut kept = Vec::new();
        for (actor, event) in owed.drain(..) {
            if actor == step.actor || choices.below(4) == 0 {
                events.push(event.read(&state));
                tids.push(tid(actor));
            } else {
                kept.push((actor, event));
            }
        }
        owed = kept;
        let before = state.clone();
        apply(machine, &mut state, step);
        for event in written(scenario, &before, &state, step, log) {
            if log.late {
                owed.push((step.actor, event));
            } else {
                events.push(event.read(&state));
                tids.push(tid(step.actor));
            }
        }
    }
    (1..)
        .zip(events)
        .zip(tids)
        .map(|((line, what), tid)| ObservedEvent {
            tid,
            ..ObservedEvent::at(line, what)
        })
        .collect()
}

fn search(events: &[ObservedEvent], header: &Header, config: CheckConfig) -> SearchReport {
    let rows = || {
        events.iter().map(|event| {
            Ok(Located {
                line: event.line,
                row: event.clone(),
            })
        })
    };
    let mut shape = Shape::new(header, config);
    for event in events {
        shape.event(event);
    }
    search_rows(rows(), &shape, STEPS_DEFAULT, &|_| true).expect("no row is bad")
}

fn machines() -> Vec<(Scenario, Header, CheckConfig)> {
    machines_with("\"reset-rings\"")
}

/// The machines of the tests, with a word for RESET: scenario, header, entries, reserve.
pub(in crate::observed) fn machines_with(reset: &str) -> Vec<(Scenario, Header, CheckConfig)> {
    [
        (
            "x86",
            "ring = { entries = 16, reserved = 11 }",
            Arch::X86_64,
            false,
            (16, 11),
        ),
        (
            "arm64",
            "ring = { entries = 16, reserved = 11 }",
            Arch::Arm64,
            false,
            (16, 11),
        ),
        (
            "x86",
            "pml = true\npml_entries = 4\nring = { entries = 32, reserved = 24 }",
            Arch::X86_64,
            true,
            (32, 24),
        ),
    ]
    .into_iter()
    .map(|(arch, ring, kind, pml, (entries, reserved))| {
        let scenario = scenario(arch, ring, reset);
        let mut header = Header::new(Kind::Observed);
        header.machine = Some(Machine {
            arch: kind,
            kernel: None,
            page_size: None,
            ring_page_offset: None,
            address_spaces: None,
            pml: Some(pml),
            two_dimensional: None,
        });
        let config = CheckConfig {
            ring_entries: Some(entries),
            ring_reserved: Some(reserved),
            page_size: None,
        };
        (scenario, header, config)
    })
    .collect()
}

fn consistent(
    scenario: &Scenario,
    events: &[ObservedEvent],
    header: &Header,
    config: CheckConfig,
    name: &str,
) {
    let report = search(events, header, config);
    if report.outcome == Outcome::Consistent {
        return;
    }
    let line = report.tried[0].ended.as_ref().and_then(|ended| ended.line);
    let around: Vec<String> = events
        .iter()
        .skip(line.unwrap_or(0).saturating_sub(40) as usize)
        .take(44)
        .map(|event| serde_json::to_string(event).unwrap_or_default())
        .collect();
    panic!(
        "{} {name}: {:#?}\n{}",
        scenario.machine.arch.name(),
        report.tried,
        around.join("\n")
    );
}

#[test]
fn every_run_of_the_model_is_consistent() {
    let logs: Vec<Log> = (0..32_u32)
        .map(|bits| {
            let has = |bit: u32| bits >> bit & 1 == 1;
            Log {
                pushes: true,
                resets: has(0),
                exits: has(1),
                harvests: has(2),
                reaps: has(0) && has(2),
                probes: has(3),
                late: has(4),
            }
        })
        // Harvests without resets leave open when a RESET began, and the latest is not always right then.
        .filter(|log| log.resets || !log.harvests)
        .collect();
    for (scenario, header, config) in machines() {
        for (index, log) in logs.iter().enumerate() {
            for seed in 0..20 {
                let events = log_of(&scenario, seed, 2000, *log);
                let name = format!("seed {seed} log {index}");
                consistent(&scenario, &events, &header, config, &name);
            }
        }
    }
}

#[test]
fn a_machine_that_is_not_named_is_found_among_those_that_there_are() {
    for (scenario, _, config) in machines() {
        let events = log_of(&scenario, 7, 3000, ALL);
        let report = search(&events, &Header::new(Kind::Observed), config);
        assert_eq!(report.outcome, Outcome::Consistent, "{:#?}", report.tried);
        assert!(report.tried.len() > 1);
    }
}

/// The log of `machines()[index]`, with a change.
fn changed(index: usize, change: impl Fn(&mut Vec<ObservedEvent>)) -> SearchReport {
    let (scenario, header, config) = machines().swap_remove(index);
    let mut events = log_of(&scenario, 3, 3000, ALL);
    change(&mut events);
    search(&events, &header, config)
}

fn refused(report: &SearchReport, why: &str) {
    assert_eq!(report.outcome, Outcome::NoRunFound, "{:#?}", report.tried);
    let ended = report.tried[0].ended.as_ref().expect("it ended");
    assert!(ended.why.contains(why), "{}", ended.why);
}

#[test]
fn a_push_that_is_missing_is_missed() {
    let report = changed(0, |events| {
        let at = events
            .iter()
            .rposition(|event| matches!(event.what, Observed::RingPush { .. }))
            .expect("a push");
        let before = events[..at]
            .iter()
            .rposition(|event| match (&event.what, &events[at].what) {
                (Observed::RingPush { ring: a, .. }, Observed::RingPush { ring: b, .. }) => a == b,
                _ => false,
            })
            .expect("another of its ring");
        events.remove(before);
    });
    assert_eq!(report.outcome, Outcome::NoRunFound, "{:#?}", report.tried);
}

#[test]
fn reset_goes_through_the_rings_in_order() {
    let report = changed(1, |events| {
        let ring_of = |event: &ObservedEvent| match event.what {
            Observed::RingReset { ring, .. } => Some(ring),
            _ => None,
        };
        let resets: Vec<usize> = (0..events.len())
            .filter(|&at| ring_of(&events[at]).is_some())
            .collect();
        // Ring 1's part of a RESET is told before ring 0's.
        let (first, second) = (resets[4], resets[5]);
        assert_eq!(ring_of(&events[first]), Some(0));
        let moved = events.remove(second);
        events.insert(first, moved);
    });
    refused(&report, "RESET");
}

#[test]
fn what_was_not_harvested_is_not_reset() {
    let report = changed(0, |events| {
        // The last entry of a ring that was harvested before a reset that took it.
        let at = (0..events.len()).rev().find(|&at| {
            let Observed::QemuPage {
                cpu_index, fetch, ..
            } = events[at].what
            else {
                return false;
            };
            let shown = events[at..].iter().find_map(|event| match event.what {
                Observed::RingReset {
                    ring, reset_index, ..
                } if ring == cpu_index => Some(reset_index),
                _ => None,
            });
            shown == Some(fetch + 1)
        });
        events.remove(at.expect("one that was reset"));
    });
    refused(&report, "no kvm_dirty_ring_page names");
}

#[test]
fn a_vcpu_does_not_run_on_with_a_full_ring() {
    for index in 0..2 {
        let (scenario, header, config) = machines().swap_remove(index);
        let source = scenario.source.to_string().replace(",\"kick-vcpus\"", "");
        assert!(!source.contains("kick"), "{source}");
        let source = serde_json::from_str(&source).expect("a scenario");
        let scenario = Scenario::from_json("log.json", &source).expect("a scenario");
        let events = log_of(&scenario, 5, 3000, ALL);
        let report = search(&events, &header, config);
        assert_eq!(report.outcome, Outcome::Consistent, "{:#?}", report.tried);
        // The same log of rings that should have been soft-full two entries earlier.
        let config = CheckConfig {
            ring_reserved: config.ring_reserved.map(|entries| entries + 2),
            ..config
        };
        refused(&search(&events, &header, config), "the ring is soft-full");
    }
}

#[test]
fn a_search_ends_at_its_budget() {
    let (scenario, header, config) = machines().swap_remove(0);
    let events = log_of(&scenario, 1, 400_000, ALL);
    let mut shape = Shape::new(&header, config);
    for event in &events {
        shape.event(event);
    }
    let rows = || {
        events.iter().map(|event| {
            Ok(Located {
                line: event.line,
                row: event.clone(),
            })
        })
    };
    let report = search_rows(rows(), &shape, 1000, &|_| true).expect("no row is bad");
    assert!(
        matches!(report.outcome, Outcome::Limit { .. }),
        "{report:#?}"
    );
    let report = search_rows(rows(), &shape, STEPS_DEFAULT, &|_| false).expect("no row is bad");
    assert!(
        matches!(report.outcome, Outcome::Limit { .. }),
        "{report:#?}"
    );
}

#[test]
fn a_log_may_begin_anywhere_and_have_gaps() {
    for (scenario, header, config) in machines() {
        for log in [
            ALL,
            Log { late: true, ..ALL },
            Log {
                harvests: false,
                ..ALL
            },
        ] {
            for seed in 0..60 {
                let mut events = log_of(&scenario, seed, 6000, log);
                let mut choices = Choices::new(seed, 2);
                let begins = choices.below(events.len() as u32 / 3) as usize;
                events.drain(..begins);
                for _ in 0..choices.below(3) {
                    let at = choices.below(events.len() as u32) as usize;
                    let gap = Observed::Gap {
                        reason: crate::trace::observed::GapReason::Lost,
                        lost: None,
                    };
                    let lost = at..events.len().min(at + choices.below(30) as usize);
                    events.splice(lost, [ObservedEvent::at(0, gap)]);
                }
                for (line, event) in (1..).zip(&mut events) {
                    event.line = line;
                }
                consistent(&scenario, &events, &header, config, &format!("seed {seed}"));
            }
        }
    }
}

/// A number that may be near another, or anything.
fn number(choices: &mut Choices, near: u32) -> u32 {
    match choices.below(8) {
        0 => choices.below(u32::MAX),
        1 => u32::MAX - choices.below(4),
        _ => near.wrapping_add(choices.below(3)).wrapping_sub(1),
    }
}

#[test]
fn whatever_a_log_says_the_search_ends() {
    for seed in 0..3000 {
        let mut choices = Choices::new(seed, 1);
        let (mut dirty, mut reset) = (choices.below(20), 0);
        let mut events = Vec::new();
        for line in 1..80 {
            let ring = choices.below(3);
            let what = match choices.below(12) {
                0..5 => {
                    dirty = number(&mut choices, dirty.wrapping_add(1));
                    Observed::RingPush {
                        ring,
                        dirty_index: dirty,
                        reset_index: number(&mut choices, reset),
                        slot: choices.below(3) << (16 * choices.below(2)),
                        offset: u64::from(number(&mut choices, 3)),
                        used: dirty.wrapping_sub(reset),
                    }
                }
                5 => {
                    reset = number(&mut choices, dirty);
                    Observed::RingReset {
                        ring,
                        dirty_index: dirty,
                        reset_index: reset,
                        used: 0,
                    }
                }
                6 => Observed::RingExit { vcpu: ring },
                7 => Observed::UserspaceExit {
                    reason: (choices.below(2) == 0).then_some(31),
                    errno: None,
                },
                8 => Observed::QemuCreateVcpu {
                    cpu_index: ring,
                    vcpu: ring,
                },
                9 => Observed::QemuPage {
                    cpu_index: ring,
                    fetch: number(&mut choices, reset),
                    offset: 3,
                },
                10 => Observed::QemuReap {
                    count: u64::from(choices.below(3)),
                },
                _ => Observed::ProbeIoctl {
                    phase: Phase::Return,
                    ioctl: [
                        KvmIoctl::ResetDirtyRings,
                        KvmIoctl::GetDirtyLog,
                        KvmIoctl::ClearDirtyLog,
                    ][choices.below(3) as usize],
                    slot: Some(choices.below(3)),
                    first_page: Some(u64::from(number(&mut choices, 0))),
                    num_pages: Some(64),
                    ret: Some(i64::from(choices.below(3)) - 1),
                },
            };
            events.push(ObservedEvent {
                tid: Some(100 + ring),
                ..ObservedEvent::at(line, what)
            });
            if choices.below(60) == 0 {
                let gap = Observed::Gap {
                    reason: crate::trace::observed::GapReason::Lost,
                    lost: None,
                };
                events.push(ObservedEvent::at(line, gap));
            }
        }
        let config = CheckConfig {
            ring_entries: (choices.below(2) == 0).then_some(256),
            ring_reserved: None,
            page_size: None,
        };
        let report = search(&events, &Header::new(Kind::Observed), config);
        let over = report.tried.iter().all(|tried| tried.ended.is_some());
        assert_eq!(
            report.outcome == Outcome::NoRunFound,
            over && !report.tried.is_empty()
        );
    }
}

/// How the model's first vCPU comes to leave for a full ring: how many entries are in use when the request is raised, and
/// whether the check of it is what the vCPU does first on its next way in.
fn in_the_model(arch: ModelArch, pml: bool) -> (machine::Machine, u32, bool) {
    let mut machine = machine::Machine::new(arch, machine::Kernel::V7_2, pml);
    machine.slots.push(machine::SlotTemplate {
        as_id: 0,
        id: 0,
        npages: 8,
        frame: Frame(0),
        host: HostPage(0),
        hva: 0,
        places: vec![0],
        huge: false,
        name: String::new(),
    });
    machine.vcpus = vec![machine::VcpuConfig {
        own_stores: true,
        ..machine::VcpuConfig::default()
    }];
    let mut state = State::<Large>::new(&machine);
    state.caps.ring_entries = machine.constants.ring_min_entries;
    state.slots[0].life = Life::Live;
    state.slots[0].logging = true;
    state.vcpus.push(Vcpu {
        ring: Ring::new(state.caps.ring_entries),
        ..Vcpu::default()
    });
    let actor = Actor::Vcpu(0);
    let (mut limit, mut enters) = (None, false);
    for _ in 0..100_000 {
        let v = &mut state.vcpus[0];
        // There is always one more store of KVM's own to come.
        v.steal = 1;
        v.resched = v.pc == Pc::Guest;
        let (used, pc) = (v.ring.used(), v.pc);
        let mut choices = Vec::new();
        for_each_choice(&machine, &state, actor, |choice| choices.push(choice));
        let choice = match choices.as_slice() {
            // At the exit it may return: it would store there for ever.
            all if pc != Pc::Exit && all.contains(&Choice::Steal) => Choice::Steal,
            all => all[0],
        };
        let step = Step { actor, choice };
        let word = describe(&machine, &state, step);
        if let (true, Some(limit)) = (enters, limit) {
            return (machine, limit, word == "check-soft-full");
        }
        if word == "push-request" {
            limit = limit.or(Some(used));
        }
        enters = matches!(pc, Pc::User | Pc::Guest);
        apply(&machine, &mut state, step);
    }
    panic!("{arch:?}: no request is raised");
}

#[test]
fn the_soft_limit_and_the_place_of_its_check_are_the_models() {
    for (arch, pml) in [
        (ModelArch::X86, false),
        (ModelArch::X86, true),
        (ModelArch::Arm64, false),
        (ModelArch::Riscv, false),
        (ModelArch::Loongarch, false),
    ] {
        let (machine, limit, first) = in_the_model(arch, pml);
        let size = machine.constants.ring_min_entries;
        assert_eq!(
            dirtysim_model::kernel::soft_limit(&machine, size),
            limit,
            "{arch:?}"
        );
        assert_eq!(entry_order::checks_first(&machine), first, "{arch:?}");
        let reserves = crate::observed::check::reserves();
        assert!(reserves.contains(&(size - limit)), "{arch:?}");
    }
}
