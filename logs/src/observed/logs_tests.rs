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
use crate::trace::observed::{Observed, ObservedEvent, Phase};
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
fn lose(events: &mut Vec<ObservedEvent>, choices: &mut Choices) -> BTreeMap<u64, u64> {
    let mut told = BTreeMap::new();
    for _ in 0..choices.below(4) {
        let cpu = Some(choices.below(CPUS));
        let of_cpu: Vec<usize> = (0..events.len())
            .filter(|&at| events[at].cpu == cpu && !told.contains_key(&events[at].line))
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
                    let front = line.split("kvm:").next().unwrap_or_default();
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
    // Some logs come by mail. A kernel's line that is broken behind its front is not always put together again.
    if matches!(tool, Tool::Qemu(_)) && choices.below(4) == 0 && told.is_empty() {
        kernel = mailed(&kernel);
    }
    let mut logs = vec![("log".to_owned(), kernel), ("beside".to_owned(), beside)];
    logs.retain(|(_, text)| !text.is_empty());
    logs
}

/// Quoted, and broken at spaces as a mail program does.
fn mailed(text: &str) -> String {
    let mut mail = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(at) = rest.get(..76).and_then(|first| first.rfind(' ')) {
            if rest[..at].trim().is_empty() {
                break;
            }
            mail.push_str(&format!("> {}\n", &rest[..at]));
            rest = &rest[at + 1..];
        }
        mail.push_str(&format!("> {rest}\n"));
    }
    mail
}

/// What import and replay make of logs.
fn judge(logs: &[(String, String)], check: CheckConfig) -> Option<(Answer, CheckReport)> {
    let inputs = logs
        .iter()
        .map(|(name, text)| (name.clone(), text.as_bytes()))
        .collect();
    let options = LogOptions {
        check,
        ..LogOptions::default()
    };
    let mut trace = Vec::new();
    // A log that lost all that import knows is no log.
    let summary = import_logs(inputs, &mut trace, &options).ok()?;
    for log in &summary.logs {
        assert_eq!((log.damaged_lines, log.foreign_lines), (0, 0), "{summary}");
    }
    let reader = || TraceReader::new(trace.as_slice(), "trace").expect("a trace");
    let header: Header = reader().header().clone();
    assert_eq!(header.known, check);
    let mut shape = Shape::new(&header, header.known);
    let rows = || reader().rows::<ObservedEvent>().expect("a trace of logs");
    let checked = check_and_shape(rows(), header.known, &mut shape).expect("it can be read");
    assert_eq!(checked, summary.check, "import and replay say the same");
    let searched = search_rows(rows(), &shape, STEPS_DEFAULT, &|_| true).expect("it can be read");
    Some((answer(&checked, &searched), checked))
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
        place(&mut events, &mut choices);
        // It may end anywhere.
        let ends = choices.below(events.len() as u32 / 4 + 1) as usize;
        events.truncate(events.len() - ends);
        let (mut told, mut overwritten) = (BTreeMap::new(), 0);
        let losses = choices.below(3);
        if !matches!(tool, Tool::Qemu(_)) && losses > 0 {
            told = lose(&mut events, &mut choices);
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
        let Some((answer, checked)) = judge(&logs, config) else {
            continue;
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
                logs.iter()
                    .map(|(_, text)| text.as_str())
                    .collect::<Vec<_>>()
                    .join("---\n")
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
    let pushes_of = |events: &[ObservedEvent], wanted: Option<u32>| -> Vec<usize> {
        (0..events.len())
            .filter(|&at| {
                matches!(events[at].what, Observed::RingPush { ring, .. } if wanted.is_none_or(|r| r == ring))
            })
            .collect()
    };
    let one = |places: Vec<usize>, choices: &mut Choices| {
        (!places.is_empty()).then(|| places[choices.below(places.len() as u32) as usize])
    };
    // A push with a push of its ring before it and one behind it.
    let inner = |events: &[ObservedEvent], choices: &mut Choices| {
        let places: Vec<usize> = (0..2)
            .flat_map(|ring| {
                let all = pushes_of(events, Some(ring));
                all.get(1..all.len().saturating_sub(1))
                    .unwrap_or_default()
                    .to_vec()
            })
            .collect();
        one(places, choices)
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
            // One that is followed by another of its ring.
            let pages: Vec<usize> = (0..events.len())
                .filter(|&at| {
                    let of = |event: &ObservedEvent| match event.what {
                        Observed::QemuPage { cpu_index, .. } => Some(cpu_index),
                        _ => None,
                    };
                    let ring = of(&events[at]);
                    ring.is_some()
                        && events[..at].iter().any(|event| of(event) == ring)
                        && events[at + 1..].iter().any(|event| of(event) == ring)
                })
                .collect();
            events.remove(one(pages, choices)?);
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
        _ => {
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
    }
}

/// How many edits there are.
const EDITS: u32 = 11;

#[test]
fn an_edit_that_breaks_the_contract_is_never_called_consistent() {
    let mut answers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seed in 0..logs().max(u64::from(EDITS) * 12) {
        let mut choices = Choices::new(seed, 12);
        let (scenario, config) = machine(&mut choices, false);
        let log = Log { reaps: true, ..ALL };
        let mut events = log_of(&scenario, seed, 1500, log);
        let Some(what) = edit(&mut events, seed as u32 % EDITS, &mut choices) else {
            continue;
        };
        place(&mut events, &mut choices);
        let tool = loop {
            match tool(&mut choices) {
                // QEMU alone does not tell of what was edited.
                Tool::Qemu(_) => {}
                tool => break tool,
            }
        };
        let logs = write(tool, &events, &BTreeMap::new(), 0, &mut choices);
        let (answer, _) = judge(&logs, config).expect("nothing was lost");
        let of = answers.entry(what).or_default();
        match answer {
            Answer::Broken => of.0 += 1,
            Answer::Open(_) => of.1 += 1,
            Answer::Consistent => panic!(
                "seed {seed} {tool:?} {}: {what}\n{}",
                scenario.machine.arch.name(),
                logs.iter()
                    .map(|(_, text)| text.as_str())
                    .collect::<Vec<_>>()
                    .join("---\n")
            ),
        }
    }
    println!("broken, open: {answers:#?}");
    assert_eq!(answers.len(), EDITS as usize, "{answers:#?}");
}
