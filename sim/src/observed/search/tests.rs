//! Whatever the model does, the search finds a run for it; and it does not find one for what the model cannot do.

use dirtysim_model::layout::Large;
use dirtysim_model::op::Op;
use dirtysim_model::ring::RingEntry;
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Step, apply, describe, for_each_step};
use dirtysim_model::vcpu::{Exit, Pc};

use super::*;
use crate::observed::CheckConfig;
use crate::random::Choices;
use crate::scenario::Scenario;
use crate::trace::observed::{KvmIoctl, Phase};
use crate::trace::{Arch, Header, Kind, Machine};

/// Which of the events a log has.
#[derive(Clone, Copy)]
struct Log {
    resets: bool,
    exits: bool,
    harvests: bool,
    probes: bool,
    /// Events are written some time after what they tell.
    late: bool,
}

const ALL: Log = Log {
    resets: true,
    exits: true,
    harvests: true,
    probes: true,
    late: false,
};

fn scenario(arch: &str, ring: &str) -> Scenario {
    let text = format!(
        r#"
name = "log"
[machine]
arch = "{arch}"
vcpus = 2
pages = 6
{ring}
[writers]
vcpu = {{ stores = "unlimited" }}
kernel_record = {{ updates = 5, page = 2 }}
[protocol]
steps = ["enable-logging", {{ forever = ["harvest-rings", "reset-rings", "kick-vcpus"] }}]
"#
    );
    Scenario::from_toml("log.toml", &text).unwrap_or_else(|error| panic!("{error}"))
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
                    offset: entry.offset(),
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

/// What a step makes a tracer write; `before` is the state in which it was taken.
fn written(
    scenario: &Scenario,
    before: &State<Large>,
    after: &State<Large>,
    step: Step,
    log: Log,
) -> Option<Written> {
    let what = describe(&scenario.machine, before, step);
    match step.actor {
        Actor::Vcpu(vcpu) => {
            let vcpu = usize::from(vcpu);
            let v = &after.vcpus[vcpu];
            match what {
                "push-index" | "pml-flush-index" => Some(Written::Push(vcpu)),
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
                Some(Op::ResetRings { .. }) if what == "reset-return" && log.probes => {
                    let ret = after.threads[0].answer.map_or(-1, i64::from);
                    Some(Written::At(Observed::ProbeIoctl {
                        phase: Phase::Return,
                        ioctl: KvmIoctl::ResetDirtyRings,
                        slot: None,
                        first_page: None,
                        num_pages: None,
                        ret: Some(ret),
                    }))
                }
                Some(Op::ResetRings { .. })
                    if now.op == thread.op && now.index != thread.index && log.resets =>
                {
                    Some(Written::Reset(thread.index as usize))
                }
                Some(Op::Harvest { .. }) if what == "harvest-store-flags" && log.harvests => {
                    let ring = &before.vcpus[thread.index as usize].ring;
                    Some(Written::At(Observed::QemuPage {
                        cpu_index: thread.index,
                        fetch: ring.fetch_index,
                        offset: ring.entry(ring.fetch_index).offset(),
                    }))
                }
                _ => None,
            }
        }
        Actor::Device(_) => None,
    }
}

/// The log of a random schedule.
fn log_of(scenario: &Scenario, seed: u64, steps: u32, log: Log) -> Vec<ObservedEvent> {
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
        if let Some(event) = written(scenario, &before, &state, step, log) {
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
    search_rows(rows(), &shape, STEPS_DEFAULT, &|| true).expect("no row is bad")
}

/// The machines of the tests: scenario, header, entries, reserve.
fn machines() -> Vec<(Scenario, Header, CheckConfig)> {
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
        let mut header = Header::new(Kind::Observed);
        header.machine = Some(Machine {
            arch: kind,
            kernel: None,
            page_size: None,
            ring_page_offset: None,
            address_spaces: None,
            pml: Some(pml),
        });
        let config = CheckConfig {
            ring_entries: Some(entries),
            ring_reserved: Some(reserved),
            page_size: None,
        };
        (scenario(arch, ring), header, config)
    })
    .collect()
}

#[test]
fn every_run_of_the_model_is_consistent() {
    let mut logs = vec![ALL, Log { late: true, ..ALL }];
    for bits in 0..16 {
        let has = |bit: u32| bits >> bit & 1 == 1;
        logs.push(Log {
            resets: has(0),
            exits: has(1),
            harvests: has(2),
            probes: has(3),
            late: false,
        });
    }
    for (scenario, header, config) in machines() {
        for (index, log) in logs.iter().enumerate() {
            for seed in 0..12 {
                let events = log_of(&scenario, seed, 3000, *log);
                let report = search(&events, &header, config);
                if report.outcome == Outcome::Consistent {
                    continue;
                }
                let line = report.tried[0].ended.as_ref().and_then(|ended| ended.line);
                let around: Vec<String> = events
                    .iter()
                    .skip(line.unwrap_or(0).saturating_sub(40) as usize)
                    .take(44)
                    .map(|event| serde_json::to_string(event).unwrap_or_default())
                    .collect();
                panic!(
                    "{} seed {seed} log {index}: {:#?}\n{}",
                    scenario.machine.arch.name(),
                    report.tried,
                    around.join("\n")
                );
            }
        }
    }
}
