//! Replay, in events a second on one core, and its memory over a trace of ten million events.
//!
//! Three kinds: `step` (native traces: every step found, taken, and every claim checked), `call` (a recording of KVM's
//! calls on the model), `observed` (another tool's events against the ring's contract; and the same followed by the search
//! for a run of the model). What is timed is text in memory to outcome. The target for `step` is 1,000,000 events a second.
//!
//! Memory: a process of its own reads a trace of ten million events from a pipe, and says at its end how much it had at
//! most. The target is 64 MiB and twice the guest's page sets, which for these guests are less than 1 MiB.
//!
//! `cargo bench --bench replay` does both; `-- events` leaves the memory out.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Child, Command, Stdio};

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group};
use dirtysim::observed::search::{Outcome, STEPS_DEFAULT, Shape, search_rows};
use dirtysim::observed::{CheckConfig, Weight, check_and_shape, check_rows};
use dirtysim::random::Choices;
use dirtysim::replay::calls::{ReplayOptions, replay_calls};
use dirtysim::replay::steps;
use dirtysim::scenario::Scenario;
use dirtysim::trace::call::CallRow;
use dirtysim::trace::observed::{Observed, ObservedEvent};
use dirtysim::trace::step::{StepRow, row};
use dirtysim::trace::{Expect, Header, Kind, TraceReader, TraceWriter};
use dirtysim_model::state::layout::{Layout, Small};
use dirtysim_model::transition::{Step, apply, for_each_step};

/// Events of a trace that is timed.
const TIMED: u64 = 200_000;

/// Events of the trace whose memory is measured.
const LONG: u64 = 10_000_000;

/// A recording of random calls on Linux 6.12.117, arm64.
const RECORDING: &str = include_str!("../traces/kernel/arm64-linux-6.12.117.random.trace.jsonl");

/// A guest that never stops, and a VMM that collects for ever by the order of KVM's documentation.
const SMALL: &str = r#"
name = "collect-for-ever"
liveness = "violated"
[machine]
arch = "arm64"
vcpus = 2
pages = 4
ring = { entries = 4, reserved = 2 }
ring_with_bitmap = true
[writers]
vcpu = { stores = "unlimited" }
its_save = { tables = [3] }
[protocol]
steps = ["enable-logging", "copy-all", { forever = [
  "harvest-rings", "reset-rings", "copy", "pause-vcpus", "its-save-tables", "get-dirty-log", "copy", "resume-vcpus",
] }]
"#;

/// The same with PML, four vCPUs, larger rings and 48 pages.
const LARGE: &str = r#"
name = "collect-for-ever-large"
liveness = "violated"
[machine]
arch = "x86"
pml = true
vcpus = 4
pages = 48
ring = { entries = 32, reserved = 12 }
pml_entries = 8
[writers]
vcpu = { stores = "unlimited" }
[protocol]
steps = ["enable-logging", "copy-all", { forever = ["harvest-rings", "reset-rings", "copy"] }]
"#;

fn scenario(text: &str) -> Scenario {
    Scenario::from_toml("benches/replay.rs", text).unwrap_or_else(|error| panic!("{error}"))
}

/// Writes a random schedule of the scenario as a trace.
fn write_steps<L: Layout>(scenario: &Scenario, events: u64, out: impl Write) {
    let mut header = Header::new(Kind::Step);
    header.expect = Some(Expect::Holds);
    header.scenario = Some(scenario.source.clone());
    let mut writer = TraceWriter::new(out, &header).expect("a header");
    let machine = &scenario.machine;
    let mut state = scenario
        .start::<L>()
        .unwrap_or_else(|error| panic!("{error}"));
    let mut choices = Choices::new(1, 0);
    let mut possible: Vec<Step> = Vec::new();
    for _ in 0..events {
        possible.clear();
        for_each_step(machine, &state, |step| possible.push(step));
        let step = possible[choices.below(possible.len() as u32) as usize];
        writer
            .row::<StepRow>(&row(scenario, &state, step))
            .expect("a row");
        apply(machine, &mut state, step);
    }
    writer.into_inner().flush().expect("the end");
}

/// Writes what a kernel prints of four vCPUs whose rings of 4096 entries fill, exit, and are all reset.
fn write_observed(events: u64, out: impl Write) {
    const LIMIT: u32 = 4096 - 64;
    let mut header = Header::new(Kind::Observed);
    header.title = Some("four rings".to_owned());
    let mut writer = TraceWriter::new(out, &header).expect("a header");
    let mut page = 0x9e37_79b9_u64;
    let mut written = 0;
    let mut row = |tid: u32, what: Observed| {
        written += 1;
        let event = ObservedEvent {
            t_ns: Some(written * 1000),
            tid: Some(tid),
            cpu: Some(tid % 4),
            ..ObservedEvent::at(written, what)
        };
        if written <= events {
            writer.row(&event).expect("a row");
        }
        written < events
    };
    let (mut dirty, mut reset) = (0, 0);
    let mut more = true;
    while more {
        dirty += 1;
        for ring in 0..4 {
            page = page.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let push = Observed::RingPush {
                ring,
                dirty_index: dirty,
                reset_index: reset,
                slot: 1,
                offset: page >> 44,
                used: dirty - reset,
            };
            more = row(4240 + ring, push);
        }
        if dirty - reset < LIMIT {
            continue;
        }
        for ring in 0..4 {
            row(4240 + ring, Observed::RingExit { vcpu: ring });
            let exit = Observed::UserspaceExit {
                reason: Some(31),
                errno: None,
            };
            row(4240 + ring, exit);
        }
        reset = dirty;
        for ring in 0..4 {
            let done = Observed::RingReset {
                ring,
                dirty_index: dirty,
                reset_index: reset,
                used: 0,
            };
            more = row(4250, done);
        }
    }
    writer.into_inner().flush().expect("the end");
}

/// Writes calls that a kernel was seen to answer, over and over: the rows of a recording.
fn write_calls(events: u64, mut out: impl Write) {
    let mut lines = RECORDING.lines();
    writeln!(out, "{}", lines.next().expect("a header")).expect("the header");
    let rows: Vec<&str> = lines.collect();
    for row in rows.iter().cycle().take(events as usize) {
        writeln!(out, "{row}").expect("a row");
    }
    out.flush().expect("the end");
}

/// The traces of this bench.
#[derive(Clone, Copy)]
enum Trace {
    StepSmall,
    StepLarge,
    Call,
    Observed,
}

impl Trace {
    const ALL: [(&str, Self); 4] = [
        ("step, 2 vCPUs, 4 pages", Self::StepSmall),
        ("step, 4 vCPUs, 48 pages, PML", Self::StepLarge),
        ("call", Self::Call),
        ("observed", Self::Observed),
    ];

    fn write(self, events: u64, out: impl Write) {
        match self {
            Self::StepSmall => write_steps::<Small>(&scenario(SMALL), events, out),
            Self::StepLarge => write_steps::<Small>(&scenario(LARGE), events, out),
            Self::Call => write_calls(events, out),
            Self::Observed => write_observed(events, out),
        }
    }

    /// Replays the trace in `input`; answers how many events it had.
    fn replay(self, input: impl BufRead) -> u64 {
        const NAME: &str = "the trace of this bench";
        let reader = TraceReader::new(input, NAME).expect("a trace");
        let header = reader.header().clone();
        match self {
            Self::StepSmall | Self::StepLarge => {
                let scenario = steps::scenario_of(&header, NAME).expect("its scenario");
                let replay = steps::replay(reader, NAME, scenario, |_| {}).expect("its steps");
                assert_eq!(replay.differences_total, 0);
                replay.steps
            }
            Self::Call => {
                let rows = reader.rows::<CallRow>().expect("its rows");
                let outcome = replay_calls(&header, rows, NAME, &ReplayOptions::default())
                    .expect("its calls");
                outcome.compared + outcome.not_modelled.values().sum::<u64>()
            }
            Self::Observed => {
                let rows = reader.rows::<ObservedEvent>().expect("its rows");
                let report = check_rows(rows, CheckConfig::default()).expect("its events");
                assert!(!report.has(Weight::Defect));
                report.compared + report.not_compared + report.context
            }
        }
    }
}

fn events_a_second(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(4));
    for (name, trace) in Trace::ALL {
        let mut text = Vec::new();
        trace.write(TIMED, &mut text);
        group.throughput(Throughput::Elements(TIMED));
        group.bench_function(name, |bencher| {
            bencher.iter(|| trace.replay(text.as_slice()));
        });
    }
    let mut text = Vec::new();
    Trace::Observed.write(TIMED, &mut text);
    group.bench_function("observed, a run of the model that gives it", |bencher| {
        bencher.iter(|| find_run(&text));
    });
    group.finish();
}

/// Both passes over an observed trace: the contract, then the search.
fn find_run(text: &[u8]) {
    let open = || {
        let reader = TraceReader::new(text, "the trace of this bench").expect("a trace");
        let header = reader.header().clone();
        (header, reader.rows::<ObservedEvent>().expect("its rows"))
    };
    let config = CheckConfig::default();
    let (header, rows) = open();
    let mut shape = Shape::new(&header, config);
    let report = check_and_shape(rows, config, &mut shape).expect("its events");
    assert!(!report.has(Weight::Defect));
    let found = search_rows(open().1, &shape, STEPS_DEFAULT, &|_| true).expect("its events");
    assert_eq!(found.outcome, Outcome::Consistent);
}

/// The environment variable that makes this program a reader of one trace, by its place in [`Trace::ALL`].
const READER: &str = "DIRTYSIM_BENCH_READER";

/// Replays the trace on standard input and prints how many events it had and the memory that it took at most.
fn read(index: &str) {
    let index: usize = index.parse().expect("a number");
    let events = Trace::ALL[index]
        .1
        .replay(BufReader::new(std::io::stdin().lock()));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .unwrap_or("unknown");
    println!("{events} {peak_kib}");
}

/// Has each trace replayed by a process of its own.
fn memory() {
    let program = std::env::current_exe().expect("this program has a path");
    for (index, (name, trace)) in Trace::ALL.into_iter().enumerate() {
        let mut reader: Child = Command::new(&program)
            .env(READER, index.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let pipe = reader.stdin.take().expect("a pipe");
        trace.write(LONG, BufWriter::with_capacity(1 << 16, pipe));
        let output = reader.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{name}: the reader failed");
        let text = String::from_utf8_lossy(&output.stdout);
        let (events, peak_kib) = text.trim().split_once(' ').expect("two numbers");
        println!("memory/{name}: {LONG} lines, {events} events: {peak_kib} KiB at most");
    }
}

criterion_group!(benches, events_a_second);

fn main() {
    if let Ok(index) = std::env::var(READER) {
        return read(&index);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let asked = filter.is_empty() || filter.iter().any(|word| word == "memory");
    if asked && std::env::args().any(|arg| arg == "--bench") {
        memory();
    }
}
