//! The log's checker, checked: a random run of the model is written out as each tool writes it, with losses as each tool has them,
//! imported, and judged. Such a log is never called inconsistent. With one edit that breaks the contract it is never called
//! consistent.
//!
//! `DIRTYSIM_LOGS=10000` tries so many of each instead of a few.

use std::collections::BTreeMap;

use super::search::tests::{ALL, Log, log_of, machines_with};
use super::search::{STEPS_DEFAULT, Shape, search_rows};
use super::{Answer, CheckConfig, CheckReport, Weight, answer, check_and_shape};
use crate::import::{LogOptions, ftrace, import_logs, perf, qemu, tracepoint};
use crate::random::Choices;
use crate::scenario::Scenario;
use crate::trace::observed::{KvmIoctl, Observed, ObservedEvent, Phase};
use crate::trace::{Header, TraceReader};

/// Host processors.
const CPUS: u32 = 4;

/// How many logs of each kind are tried.
fn logs() -> u64 {
    std::env::var("DIRTYSIM_LOGS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60)
}

/// The tools, and how they wrote.
#[derive(Debug, Clone, Copy)]
enum Tool {
    /// Everything in the kernel's buffer: QEMU has its `ftrace` back end.
    Ftrace(ftrace::Form),
    /// The kernel's events, and QEMU's in a log of its own.
    Perf(perf::Form),
    /// QEMU's events alone.
    Qemu(qemu::Form),
}

fn tool(choices: &mut Choices) -> Tool {
    let ftrace = ftrace::Form::ALL;
    let perf = perf::Form::ALL;
    let qemu = qemu::Form::ALL;
    let n = choices.below((ftrace.len() + perf.len() + qemu.len()) as u32) as usize;
    if let Some(form) = ftrace.get(n) {
        return Tool::Ftrace(*form);
    }
    match perf.get(n - ftrace.len()) {
        Some(form) => Tool::Perf(*form),
        None => Tool::Qemu(qemu[n - ftrace.len() - perf.len()]),
    }
}

/// Puts the events on processors, between which threads move, and in time.
fn place(events: &mut [ObservedEvent], choices: &mut Choices) {
    let mut cpus = BTreeMap::new();
    let mut t_ns = 101_000_000_000;
    for event in events {
        t_ns += 1_000 * u64::from(1 + choices.below(40));
        event.t_ns = Some(t_ns);
        let tid = event.tid.get_or_insert(99);
        let moves = choices.below(30) == 0;
        let cpu = cpus.entry(*tid).or_insert(*tid % CPUS);
        if moves {
            *cpu = choices.below(CPUS);
        }
        event.cpu = Some(*cpu);
    }
}

/// Takes events away as a tracer's buffers lose them: each processor's by itself, told before its next event. Answers what is
/// told before which event.
fn lose(tool: Tool, events: &mut Vec<ObservedEvent>, choices: &mut Choices) -> BTreeMap<u64, u64> {
    // QEMU's own log loses nothing.
    let is_buffered = |event: &ObservedEvent| {
        matches!(tool, Tool::Ftrace(_)) || tracepoint::print(&event.what, &mut String::new())
    };
    let mut told = BTreeMap::new();
    for _ in 0..choices.below(4) {
        let cpu = Some(choices.below(CPUS));
        let of_cpu: Vec<usize> = (0..events.len())
            .filter(|&at| {
                events[at].cpu == cpu
                    && is_buffered(&events[at])
                    && !told.contains_key(&events[at].line)
            })
            .collect();
        if of_cpu.len() < 3 {
            continue;
        }
        let first = choices.below(of_cpu.len() as u32 - 1) as usize;
        let most = (of_cpu.len() - 1 - first).min(25) as u32;
        let lost = 1 + choices.below(most) as usize;
        told.insert(events[of_cpu[first + lost]].line, lost as u64);
        for at in of_cpu[first..first + lost].iter().rev() {
            events.remove(*at);
        }
    }
    told
}

/// A log as text, for each file.
fn write(
    tool: Tool,
    events: &[ObservedEvent],
    told: &BTreeMap<u64, u64>,
    overwritten: u64,
    choices: &mut Choices,
) -> Vec<(String, String)> {
    let (mut kernel, mut beside) = (String::new(), String::new());
    if let Tool::Ftrace(_) = tool {
        let written = events.len() as u64 + overwritten;
        kernel.push_str("# tracer: nop\n#\n");
        kernel.push_str(&format!(
            "# entries-in-buffer/entries-written: {}/{written}   #P:{CPUS}\n",
            events.len()
        ));
    }
    for event in events {
        let (tid, cpu) = (event.tid.unwrap_or(99), event.cpu.unwrap_or(0));
        let comm = match tid {
            99 => "live_migration".to_owned(),
            _ => format!("CPU {}/KVM", tid - 100),
        };
        let (name, t_ns) = (event.what.name(), event.t_ns.unwrap_or(0));
        let mut text = String::new();
        let of_kernel = tracepoint::print(&event.what, &mut text);
        if !of_kernel {
            assert!(qemu::print(&event.what, &mut text), "{event:?}");
        }
        match tool {
            Tool::Ftrace(form) => {
                if let Some(lost) = told.get(&event.line) {
                    kernel.push_str(&format!("CPU:{cpu} [LOST {lost} EVENTS]\n"));
                }
                let name = if of_kernel {
                    name
                } else {
                    "tracing_mark_write"
                };
                ftrace::print(form, &comm, (tid, 4000), cpu, t_ns, name, &mut kernel);
                kernel.push_str(&text);
                kernel.push('\n');
            }
            Tool::Perf(form) => {
                if let Some(lost) = told.get(&event.line) {
                    let mut line = String::new();
                    perf::print(form, &comm, (tid, 4000), cpu, t_ns, name, &mut line);
                    let front = line.split("kvm").next().unwrap_or_default();
                    kernel.push_str(&format!("{front}PERF_RECORD_LOST lost {lost}\n"));
                }
                if of_kernel {
                    perf::print(form, &comm, (tid, 4000), cpu, t_ns, name, &mut kernel);
                    kernel.push_str(&text);
                    kernel.push('\n');
                } else {
                    qemu::print_front(qemu::Form::TidTime, tid, t_ns, &mut beside);
                    beside.push_str(&text);
                    beside.push('\n');
                }
            }
            Tool::Qemu(form) => {
                if !of_kernel {
                    qemu::print_front(form, tid, t_ns, &mut kernel);
                    kernel.push_str(&text);
                    kernel.push('\n');
                }
            }
        }
    }
    // Some logs come by mail.
    if choices.below(4) == 0 {
        (kernel, beside) = (mailed(&kernel, choices), mailed(&beside, choices));
    }
    let mut logs = vec![("log".to_owned(), kernel), ("beside".to_owned(), beside)];
    logs.retain(|(_, text)| !text.is_empty());
    logs
}

/// Quoted or not, and broken at spaces as a mail program does.
fn mailed(text: &str, choices: &mut Choices) -> String {
    let mark = ["", "> ", "> > "][choices.below(3) as usize];
    let width = 60 + choices.below(20) as usize;
    let mut mail = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(at) = rest.get(..width).and_then(|first| first.rfind(' ')) {
            if rest[..at].trim().is_empty() {
                break;
            }
            mail.push_str(&format!("{mark}{}\n", &rest[..at]));
            rest = &rest[at + 1..];
        }
        mail.push_str(&format!("{mark}{rest}\n"));
    }
    mail
}

/// Adds what a log tells beside: the memslots when they are made, and here and there an event that no claim is about. Each is one
/// that the machine and its VMM may write.
fn beside(scenario: &Scenario, events: &mut Vec<ObservedEvent>, choices: &mut Choices) {
    let at = |tid, what| ObservedEvent {
        tid: Some(tid),
        ..ObservedEvent::at(0, what)
    };
    let is_x86 = scenario.machine.arch.name() == "x86";
    let mut all = Vec::new();
    for flags in [0, 1] {
        for slot in &scenario.machine.slots {
            let set = Observed::QemuSetMemory {
                slot: slot.number(),
                flags,
                gpa: u64::from(slot.frame.0) << 12,
                size: u64::from(slot.npages) << 12,
                ret: 0,
            };
            all.push(at(99, set));
        }
    }
    let mut syncing = false;
    for event in events.drain(..) {
        let of_vcpu = match event.what {
            Observed::RingPush {
                ring, slot, offset, ..
            } => Some((ring, slot, offset)),
            _ => None,
        };
        if let Some((vcpu, slot, offset)) = of_vcpu
            && choices.below(3) == 0
        {
            let (address, old_spte, new_spte) = (offset << 12, 0x1000_0000_0000, 0x1000_0000_0002);
            let faults = if is_x86 {
                vec![
                    Observed::PageFault {
                        vcpu: (choices.below(2) == 0).then_some(vcpu),
                        address,
                        error_code: 2,
                    },
                    Observed::FastPageFault {
                        vcpu,
                        address,
                        old_spte,
                        new_spte,
                        fixed: true,
                    },
                    Observed::SetSpte {
                        gfn: offset,
                        spte: new_spte,
                        level: 1,
                    },
                    Observed::TdpSpteChanged {
                        as_id: 0,
                        gfn: offset,
                        level: 1,
                        old_spte,
                        new_spte,
                    },
                ]
            } else {
                vec![
                    Observed::GuestFault {
                        ipa: address,
                        hsr: 0x9200_004f,
                    },
                    Observed::AccessFault { ipa: address },
                ]
            };
            let one = choices.below(faults.len() as u32) as usize;
            all.extend(faults.get(one).map(|fault| at(100 + vcpu, fault.clone())));
            all.push(at(100 + vcpu, Observed::ProbeMark { slot, offset }));
        }
        let ring = choices.below(2);
        let said = match choices.below(24) {
            0 => {
                syncing = !syncing;
                match syncing {
                    true => Some(Observed::QemuSyncStart),
                    false => Some(Observed::QemuSyncEnd { dirty_pages: 7 }),
                }
            }
            1 => Some(Observed::QemuRunExit {
                cpu_index: ring,
                reason: 2,
            }),
            2 => Some(Observed::QemuRingFull { cpu_index: ring }),
            3 => Some(Observed::QemuReapVcpu { cpu_index: ring }),
            4 => Some(Observed::QemuDeviceIoctl {
                ioctl: KvmIoctl::SetDeviceAttr,
            }),
            5 => Some(Observed::ProbeRearm {
                slot: 0,
                offset: 0,
                mask: 1,
            }),
            _ => None,
        };
        all.extend(said.map(|what| at(99, what)));
        all.push(event);
    }
    for (line, event) in (1..).zip(&mut all) {
        event.line = line;
    }
    *events = all;
}

/// What import and replay make of logs.
fn judge(logs: &[(String, String)], check: CheckConfig) -> Result<(Answer, CheckReport), String> {
    let inputs = logs
        .iter()
        .map(|(name, text)| (name.clone(), text.as_bytes()))
        .collect();
    let options = LogOptions {
        check,
        ..LogOptions::default()
    };
    let mut trace = Vec::new();
    let summary = import_logs(inputs, &mut trace, &options).map_err(|error| error.to_string())?;
    for log in &summary.logs {
        let odd = (log.damaged_lines, log.foreign_lines);
        assert_eq!(odd, (0, 0), "{summary}\n{}", texts(logs));
    }
    let reader = || TraceReader::new(trace.as_slice(), "trace").expect("a trace");
    let header: Header = reader().header().clone();
    assert_eq!(header.known, check);
    let mut shape = Shape::new(&header, header.known);
    let rows = || reader().rows::<ObservedEvent>().expect("a trace of logs");
    let checked = check_and_shape(rows(), header.known, &mut shape).expect("it can be read");
    assert_eq!(checked, summary.check, "import and replay say the same");
    let searched = search_rows(rows(), &shape, STEPS_DEFAULT, &|_| true).expect("it can be read");
    Ok((answer(&checked, &searched), checked))
}

fn texts(logs: &[(String, String)]) -> String {
    let texts: Vec<&str> = logs.iter().map(|(_, text)| text.as_str()).collect();
    texts.join("---\n")
}

/// One of the machines, and what is told of it.
fn machine(choices: &mut Choices, signal: bool) -> (Scenario, CheckConfig) {
    let reset = if signal {
        "{ step = \"reset-rings\", signal = true }"
    } else {
        "\"reset-rings\""
    };
    let mut machines = machines_with(reset);
    let n = choices.below(machines.len() as u32) as usize;
    let (scenario, _, config) = machines.swap_remove(n);
    (scenario, config)
}

#[test]
fn a_log_of_the_model_is_never_called_inconsistent() {
    let mut answers: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..logs() {
        let mut choices = Choices::new(seed, 11);
        let signal = choices.below(8) == 0;
        let (scenario, config) = machine(&mut choices, signal);
        let tool = tool(&mut choices);
        let mut some = || choices.below(4) > 0;
        let log = Log {
            pushes: some(),
            resets: some(),
            exits: some(),
            harvests: some(),
            reaps: some() && !signal,
            probes: some(),
            late: !some(),
        };
        let mut events = log_of(&scenario, seed, 1500, log);
        beside(&scenario, &mut events, &mut choices);
        place(&mut events, &mut choices);
        // It may end anywhere.
        let ends = choices.below(events.len() as u32 / 4 + 1) as usize;
        events.truncate(events.len() - ends);
        let (mut told, mut overwritten) = (BTreeMap::new(), 0);
        let losses = choices.below(3);
        if !matches!(tool, Tool::Qemu(_)) && losses > 0 {
            told = lose(tool, &mut events, &mut choices);
        }
        if matches!(tool, Tool::Ftrace(_)) && losses == 2 {
            // Each processor's buffer begins somewhere else.
            let begins: Vec<u64> = (0..CPUS)
                .map(|_| u64::from(choices.below(events.len() as u32 / 2 + 1)))
                .collect();
            let before = events.len();
            events.retain(|event| event.line >= begins[event.cpu.unwrap_or(0) as usize]);
            overwritten = (before - events.len()) as u64;
        }
        // It may begin anywhere.
        events.drain(..choices.below(events.len() as u32 / 4 + 1) as usize);
        let config = match choices.below(3) {
            0 => CheckConfig::default(),
            _ => config,
        };
        let logs = write(tool, &events, &told, overwritten, &mut choices);
        let (answer, checked) = match judge(&logs, config) {
            Ok(judged) => judged,
            // Of two logs what is left has no moment in common.
            Err(error) if error.contains("no moment in common") => continue,
            // A log that lost all that import knows is no log.
            Err(error) => {
                let known = |(_, text): &(String, String)| {
                    text.contains("kvm_") || text.contains("dirtysim_")
                };
                assert!(!logs.iter().any(known), "{error}\n{}", texts(&logs));
                continue;
            }
        };
        let word = match &answer {
            Answer::Consistent => "consistent",
            Answer::Open(_) if told.is_empty() && overwritten == 0 => "open, nothing lost",
            Answer::Open(_) => "open, with losses",
            Answer::Broken => panic!(
                "seed {seed} {tool:?} {log:?} signal {signal} {config:?}: {:#?}\n{}",
                checked
                    .findings
                    .iter()
                    .filter(|finding| finding.weight == Weight::Defect)
                    .collect::<Vec<_>>(),
                texts(&logs)
            ),
        };
        *answers.entry(word).or_default() += 1;
    }
    println!("{answers:?}");
    // Most of them are told to be what they are.
    let all: u64 = answers.values().sum();
    assert!(
        answers.get("consistent").copied().unwrap_or(0) * 3 > all,
        "{answers:?}"
    );
}

/// An edit that no run can give, of an event that has all that it takes before and behind it; none where the log has no such event.
fn edit(
    events: &mut Vec<ObservedEvent>,
    which: u32,
    choices: &mut Choices,
) -> Option<&'static str> {
    let one = |places: Vec<usize>, choices: &mut Choices| {
        (!places.is_empty()).then(|| places[choices.below(places.len() as u32) as usize])
    };
    // A push with a push of its ring before it and one behind it.
    let inner = |events: &[ObservedEvent], choices: &mut Choices| {
        one(followed(events, ring_of_push), choices)
    };
    match which {
        0 => {
            let at = inner(events, choices)?;
            if let Observed::RingPush {
                dirty_index, used, ..
            } = &mut events[at].what
            {
                *dirty_index += 1;
                *used += 1;
            }
            Some("an index that jumps")
        }
        1 => {
            let at = inner(events, choices)?;
            events.remove(at);
            Some("a push that is not told")
        }
        2 => {
            let at = inner(events, choices)?;
            if let Observed::RingPush { used, .. } = &mut events[at].what {
                *used += 1;
            }
            Some("a wrong number of used entries")
        }
        3 => {
            let at = inner(events, choices)?;
            if let Observed::RingPush {
                dirty_index,
                reset_index,
                used,
                ..
            } = &mut events[at].what
            {
                *reset_index = *dirty_index + 1;
                *used = u32::MAX;
            }
            Some("a reset past what was pushed")
        }
        4 => {
            let resets: Vec<usize> = (0..events.len())
                .filter(|&at| {
                    matches!(events[at].what, Observed::RingReset { reset_index, .. } if reset_index > 2)
                })
                .collect();
            let at = one(resets, choices)?;
            if let Observed::RingReset {
                reset_index, used, ..
            } = &mut events[at].what
            {
                *reset_index -= 1;
                *used += 1;
            }
            Some("a reset that leaves one more")
        }
        5 => {
            let pages: Vec<usize> = (0..events.len())
                .filter(|&at| {
                    let Observed::QemuPage {
                        cpu_index, fetch, ..
                    } = events[at].what
                    else {
                        return false;
                    };
                    // Its push stands before it.
                    events[..at].iter().any(|event| {
                        matches!(event.what, Observed::RingPush { ring, dirty_index, .. }
                            if ring == cpu_index && dirty_index == fetch + 1)
                    })
                })
                .collect();
            let at = one(pages, choices)?;
            if let Observed::QemuPage { offset, .. } = &mut events[at].what {
                *offset += 1;
            }
            Some("another page is harvested")
        }
        6 => {
            events.remove(one(followed(events, cpu_of_page), choices)?);
            Some("an entry is not harvested")
        }
        7 => {
            let exits: Vec<usize> = (0..events.len())
                .filter(|&at| {
                    let Observed::UserspaceExit {
                        reason: Some(31), ..
                    } = events[at].what
                    else {
                        return false;
                    };
                    let tid = events[at].tid;
                    events[..at].iter().rfind(|event| event.tid == tid)
                        .is_some_and(|event| matches!(event.what, Observed::RingExit { .. }))
                        // Whose thread it is, a push tells.
                        && events[..at].iter().any(|event| {
                            event.tid == tid && matches!(event.what, Observed::RingPush { .. })
                        })
                })
                .collect();
            let at = one(exits, choices)?;
            events[at].what = Observed::UserspaceExit {
                reason: Some(2),
                errno: None,
            };
            Some("a soft-full exit that does not arrive")
        }
        8 => {
            let returns: Vec<usize> = (0..events.len())
                .filter(|&at| {
                    matches!(
                        events[at].what,
                        Observed::ProbeIoctl {
                            phase: Phase::Return,
                            ..
                        }
                    )
                })
                .skip(2)
                .collect();
            let at = one(returns, choices)?;
            if let Observed::ProbeIoctl { ret: Some(ret), .. } = &mut events[at].what {
                *ret += 1;
            }
            Some("a RESET that returns one more")
        }
        9 => {
            let reaps: Vec<usize> = (0..events.len())
                .filter(|&at| matches!(events[at].what, Observed::QemuReap { .. }))
                .skip(2)
                .collect();
            let at = one(reaps, choices)?;
            if let Observed::QemuReap { count } = &mut events[at].what {
                *count += 1;
            }
            Some("a reap of one more")
        }
        10 => {
            let at = inner(events, choices)?;
            let Observed::RingPush {
                ring,
                dirty_index,
                reset_index,
                ..
            } = events[at].what
            else {
                return None;
            };
            // Far below every limit, and the vCPU was not on its way out.
            if dirty_index.wrapping_sub(reset_index) > 1 {
                return None;
            }
            let exit = ObservedEvent {
                what: Observed::RingExit { vcpu: ring },
                ..events[at].clone()
            };
            events.insert(at + 1, exit);
            Some("an exit that is not due")
        }
        11 => {
            let at = inner(events, choices)?;
            events.insert(at + 1, events[at].clone());
            Some("a push that is told twice")
        }
        12 => {
            let at = inner(events, choices)?;
            swap_with_next(events, at, ring_of_push)?;
            Some("two pushes that change places")
        }
        13 => {
            let at = inner(events, choices)?;
            if let Observed::RingPush { ring, .. } = &mut events[at].what {
                *ring = 1 - *ring;
                // By its vCPU: two threads that push to one ring are taken for two machines.
                events[at].tid = Some(100 + *ring);
            }
            Some("a push to another ring")
        }
        14 => {
            let at = inner(events, choices)?;
            if let Observed::RingPush { offset, .. } = &mut events[at].what {
                *offset += 64;
            }
            Some("an entry outside of its slot")
        }
        15 => {
            let places = (0..events.len())
                .filter(|&at| {
                    matches!(events[at].what, Observed::RingPush { ring, reset_index, .. }
                        if events[..at].iter().any(|event| matches!(event.what,
                            Observed::RingPush { ring: of, reset_index: shown, .. } if of == ring && shown == reset_index)))
                })
                .collect();
            let at = one(places, choices)?;
            if let Observed::RingPush {
                reset_index, used, ..
            } = &mut events[at].what
            {
                *reset_index = reset_index.checked_sub(1)?;
                *used += 1;
            }
            Some("a reset index that goes back")
        }
        16 => {
            // Two of a ring, of which the second consumed something.
            let places = (0..events.len())
                .filter(|&at| {
                    let next = next_of(events, at, ring_of_reset);
                    next.is_some_and(|next| match (&events[at].what, &events[next].what) {
                        (
                            Observed::RingReset { reset_index: a, .. },
                            Observed::RingReset { reset_index: b, .. },
                        ) => a != b,
                        _ => false,
                    })
                })
                .collect();
            let at = one(places, choices)?;
            swap_with_next(events, at, ring_of_reset)?;
            Some("two resets that change places")
        }
        17 => {
            let at = one(followed(events, cpu_of_page), choices)?;
            events.insert(at + 1, events[at].clone());
            Some("an entry that is harvested twice")
        }
        18 => {
            let at = one(followed(events, cpu_of_page), choices)?;
            swap_with_next(events, at, cpu_of_page)?;
            Some("two harvested entries that change places")
        }
        19 => {
            // Two pushes later than it was harvested: the event of one may be late, that of two may not.
            let mut places = Vec::new();
            for at in 0..events.len() {
                let Observed::QemuPage {
                    cpu_index, fetch, ..
                } = events[at].what
                else {
                    continue;
                };
                let push = |index: u32| {
                    events[..at].iter().position(|event| {
                        matches!(event.what, Observed::RingPush { ring, dirty_index, .. }
                            if ring == cpu_index && dirty_index == index)
                    })
                };
                if let (Some(before), Some(_), 1..) = (push(fetch), push(fetch + 1), fetch) {
                    places.push((at, before));
                }
            }
            let (at, before) = *places.get(choices.below(places.len().max(1) as u32) as usize)?;
            let moved = events.remove(at);
            events.insert(before, moved);
            Some("an entry that is harvested before it was pushed")
        }
        20 => {
            let places = (0..events.len())
                .filter(|&at| {
                    matches!(events[at].what, Observed::RingExit { .. })
                        && events[at + 1..].iter().any(|event| {
                            event.tid == events[at].tid
                                && matches!(
                                    event.what,
                                    Observed::UserspaceExit {
                                        reason: Some(31),
                                        ..
                                    }
                                )
                        })
                        && events[..at].iter().any(|event| {
                            event.tid == events[at].tid
                                && matches!(event.what, Observed::RingPush { .. })
                        })
                })
                .skip(1)
                .collect();
            events.remove(one(places, choices)?);
            Some("an exit that is not told")
        }
        21 => {
            let places = (0..events.len())
                .filter(|&at| {
                    let before = events[..at]
                        .iter()
                        .rfind(|event| ring_of_reset(event) == ring_of_reset(&events[at]));
                    match (&events[at].what, before.map(|event| &event.what)) {
                        (
                            Observed::RingReset { reset_index: a, .. },
                            Some(Observed::RingReset { reset_index: b, .. }),
                        ) => a != b && next_of(events, at, ring_of_reset).is_some(),
                        _ => false,
                    }
                })
                .collect();
            events.remove(one(places, choices)?);
            Some("a reset that is not told")
        }
        22 => {
            // Of a reap of something that was harvested since the reap before, and told.
            let mut places = Vec::new();
            let (mut ioctl, mut reaps, mut pages) = (None, 0, 0);
            for (at, event) in events.iter().enumerate() {
                match event.what {
                    Observed::QemuVmIoctl {
                        ioctl: KvmIoctl::ResetDirtyRings,
                    } => ioctl = Some(at),
                    Observed::QemuPage { .. } => pages += 1,
                    Observed::QemuReap { .. } => {
                        places.extend(ioctl.filter(|_| reaps > 1 && pages > 0));
                        (ioctl, reaps, pages) = (None, reaps + 1, 0);
                    }
                    _ => {}
                }
            }
            events.remove(one(places, choices)?);
            Some("a reap without its RESET")
        }
        23 | 24 => {
            let (start, size, what) = match which {
                23 => (1, 5, "a CLEAR that starts within a word"),
                _ => (0, 64, "a CLEAR that goes past its slot"),
            };
            let at = inner(events, choices)?;
            let Observed::RingPush { slot, .. } = events[at].what else {
                return None;
            };
            let clear = ObservedEvent {
                what: Observed::QemuClear { slot, start, size },
                tid: Some(99),
                ..events[at].clone()
            };
            events.insert(at, clear);
            Some(what)
        }
        _ => unreachable!("there are {EDITS} edits"),
    }
}

fn ring_of_push(event: &ObservedEvent) -> Option<u32> {
    match event.what {
        Observed::RingPush { ring, .. } => Some(ring),
        _ => None,
    }
}

fn ring_of_reset(event: &ObservedEvent) -> Option<u32> {
    match event.what {
        Observed::RingReset { ring, .. } => Some(ring),
        _ => None,
    }
}

fn cpu_of_page(event: &ObservedEvent) -> Option<u32> {
    match event.what {
        Observed::QemuPage { cpu_index, .. } => Some(cpu_index),
        _ => None,
    }
}

/// What an event is of, if it is of a kind.
type Of = fn(&ObservedEvent) -> Option<u32>;

/// The next event of the same kind and ring.
fn next_of(events: &[ObservedEvent], at: usize, of: Of) -> Option<usize> {
    let ring = of(&events[at])?;
    (at + 1..events.len()).find(|&next| of(&events[next]) == Some(ring))
}

/// The events of a kind with another of their ring before them and one behind them.
fn followed(events: &[ObservedEvent], of: Of) -> Vec<usize> {
    (0..events.len())
        .filter(|&at| {
            next_of(events, at, of).is_some()
                && events[..at]
                    .iter()
                    .any(|event| of(event) == of(&events[at]))
        })
        .collect()
}

/// Lets what an event tells and what the next of its kind and ring tells change places.
fn swap_with_next(events: &mut [ObservedEvent], at: usize, of: Of) -> Option<()> {
    let next = next_of(events, at, of)?;
    let what = events[at].what.clone();
    events[at].what = std::mem::replace(&mut events[next].what, what);
    Some(())
}

/// How many edits there are.
const EDITS: u32 = 25;

/// Those of which QEMU's log tells by itself.
const QEMU_TELLS: [u32; 5] = [6, 9, 17, 18, 22];

#[test]
fn an_edit_that_breaks_the_contract_is_never_called_consistent() {
    let mut answers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seed in 0..logs().max(u64::from(EDITS) * 12) {
        let mut choices = Choices::new(seed, 12);
        let (scenario, config) = machine(&mut choices, false);
        let log = Log { reaps: true, ..ALL };
        let mut events = log_of(&scenario, seed, 1500, log);
        beside(&scenario, &mut events, &mut choices);
        let which = seed as u32 % EDITS;
        let Some(what) = edit(&mut events, which, &mut choices) else {
            continue;
        };
        place(&mut events, &mut choices);
        let tool = loop {
            match tool(&mut choices) {
                Tool::Qemu(_) if !QEMU_TELLS.contains(&which) => {}
                tool => break tool,
            }
        };
        let logs = write(tool, &events, &BTreeMap::new(), 0, &mut choices);
        let judged = judge(&logs, config);
        let (answer, _) = judged.unwrap_or_else(|error| panic!("{error}\n{}", texts(&logs)));
        let of = answers.entry(what).or_default();
        match answer {
            Answer::Broken => of.0 += 1,
            Answer::Open(_) => of.1 += 1,
            Answer::Consistent => panic!(
                "seed {seed} {tool:?} {}: {what}\n{}",
                scenario.machine.arch.name(),
                texts(&logs)
            ),
        }
    }
    println!("broken, open: {answers:#?}");
    assert_eq!(answers.len(), EDITS as usize, "{answers:#?}");
}
