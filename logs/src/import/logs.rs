//! From logs to a trace of kind `observed`.
//!
//! Streaming: memory does not grow with a log. Several logs are merged by their time stamps, which only makes sense on
//! one clock; within a log, the tool's order stands, whatever its clock does.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::ImportError;
use super::detect::LogKind;
use super::source::{Comm, LogStats, Named, Source};
use super::summary::LogSummary;
use super::vms::{SeenPid, Vms};
use crate::observed::{CheckConfig, Checker};
use crate::trace::observed::{Observed, ObservedEvent};
use crate::trace::{Apart, Header, Kind, LogProblem, PendingFile, Problem, TraceError};

/// Bytes that are gathered before they are written.
const WRITE_AT: usize = 64 << 10;

/// Threads whose names are kept.
const THREADS_MAX: usize = 65_536;

/// How to read logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Their kind, where it is not to be found out.
    pub from: Option<LogKind>,
    /// The VM that is wanted: its process, or its threads. None: the log holds one VM.
    pub pids: Vec<u32>,
    /// What is known of the machine.
    pub check: CheckConfig,
    /// The trace's title.
    pub title: Option<String>,
}

/// Reads log files into a trace file, which appears only when it is whole.
///
/// # Errors
///
/// A log that cannot be read or is none of the kinds, events of several VMs of which none was chosen, logs that cannot
/// be merged, a trace that cannot be written. Nothing is left on disk then.
pub fn import_log_files(
    logs: &[PathBuf],
    out: &Path,
    options: &LogOptions,
) -> Result<LogSummary, ImportError> {
    let mut inputs = Vec::new();
    for path in logs {
        let name = path.display().to_string();
        let input = File::open(path).map_err(|error| {
            TraceError::new(
                &name,
                0,
                Problem::Io(error.to_string()),
                "check the path of the log",
            )
        })?;
        inputs.push((name, input));
    }
    let mut file = PendingFile::create(out)?;
    let summary = import_logs(inputs, &mut file, options)?;
    file.keep()?;
    Ok(summary)
}

/// Reads logs, each with the name that messages show, into a trace.
///
/// # Errors
///
/// As [`import_log_files`]; what was written to `out` is then of no use.
pub fn import_logs<R: Read, W: Write>(
    logs: Vec<(String, R)>,
    out: W,
    options: &LogOptions,
) -> Result<LogSummary, ImportError> {
    let mut sources = Vec::new();
    for (index, (name, input)) in logs.into_iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        sources.push(Source::open(&name, index, input, options.from)?);
    }
    let mut import = Import::new(&sources, out, options)?;
    let mut merge = Merge::new(sources)?;
    while let Some((event, comm)) = merge.next()? {
        import.event(&event, comm)?;
    }
    import.finish(merge.sources)
}

/// Several logs as one, by time. A log's own order stands: an event after a step back of its clock keeps its place.
struct Merge<R> {
    sources: Vec<Source<R>>,
    /// The next event of each log, with the latest time that the log had reached then. Unused for a single log.
    ahead: Vec<Option<(u64, Named)>>,
}

impl<R: Read> Merge<R> {
    fn new(mut sources: Vec<Source<R>>) -> Result<Self, ImportError> {
        let mut ahead = Vec::new();
        if sources.len() > 1 {
            for source in &mut sources {
                ahead.push(Self::advance(source, 0)?);
            }
        }
        Ok(Self { sources, ahead })
    }

    fn advance(
        source: &mut Source<R>,
        reached: u64,
    ) -> Result<Option<(u64, Named)>, Box<TraceError>> {
        let Some(named) = source.next()? else {
            return Ok(None);
        };
        let reached = match (named.0.t_ns, &named.0.what) {
            (Some(t), _) => reached.max(t),
            (None, Observed::Gap { .. }) => reached,
            (None, _) => {
                return Err(TraceError::new(
                    source.name(),
                    named.0.line,
                    Problem::Log(LogProblem::NoTime),
                    "record with time stamps on one clock (QEMU: -msg timestamp=on), or import the logs one by one",
                ));
            }
        };
        Ok(Some((reached, named)))
    }

    fn next(&mut self) -> Result<Option<Named>, Box<TraceError>> {
        if let [only] = self.sources.as_mut_slice() {
            return only.next();
        }
        let first = self
            .ahead
            .iter()
            .enumerate()
            .filter_map(|(index, ahead)| ahead.as_ref().map(|(t, _)| (*t, index)))
            .min();
        let Some((reached, index)) = first else {
            return Ok(None);
        };
        let following = Self::advance(&mut self.sources[index], reached)?;
        Ok(std::mem::replace(&mut self.ahead[index], following).map(|(_, named)| named))
    }
}

struct Import<W> {
    out: W,
    text: Vec<u8>,
    vms: Vms,
    chosen: bool,
    checker: Checker,
    counts: [u64; Observed::NAMES.len()],
    gaps: u64,
    left_out: u64,
    comms: HashMap<u32, Comm>,
    processes: bool,
    times: bool,
    kinds: Vec<LogKind>,
}

impl<W: Write> Import<W> {
    fn new<R: Read>(
        sources: &[Source<R>],
        mut out: W,
        options: &LogOptions,
    ) -> Result<Self, ImportError> {
        let kinds: Vec<LogKind> = sources.iter().map(Source::kind).collect();
        let mut names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        names.dedup();
        let header = Header {
            title: options.title.clone(),
            imported_from: Some(names.join(", ")),
            sources: sources
                .iter()
                .map(|source| source.name().to_owned())
                .collect(),
            known: options.check,
            ..Header::new(Kind::Observed)
        };
        let name = sources.first().map_or("", Source::name);
        header.check().map_err(|complaint| complaint.at(name, 0))?;
        writeln!(out, "{}", header.to_line())?;
        Ok(Self {
            out,
            text: Vec::with_capacity(WRITE_AT + 1024),
            vms: Vms::new(&options.pids),
            chosen: !options.pids.is_empty(),
            checker: Checker::new(options.check),
            counts: [0; Observed::NAMES.len()],
            gaps: 0,
            left_out: 0,
            comms: HashMap::new(),
            processes: false,
            times: false,
            kinds,
        })
    }

    fn event(&mut self, event: &ObservedEvent, comm: Option<Comm>) -> Result<(), ImportError> {
        let Some(index) = event.what.index() else {
            self.gaps += 1;
            self.checker.event(event);
            return self.write(event);
        };
        let name = comm.as_ref().map(Comm::as_bytes);
        if !self.vms.admit(event, name) {
            self.left_out += 1;
            return Ok(());
        }
        self.counts[index] += 1;
        self.processes |= event.pid.is_some();
        self.times |= event.t_ns.is_some() || event.tick.is_some();
        if let (Some(tid), Some(comm)) = (event.tid, comm) {
            self.thread(event, tid, comm)?;
        }
        self.checker.event(event);
        self.write(event)
    }

    /// Says a thread's name once, and again when it changes.
    fn thread(&mut self, event: &ObservedEvent, tid: u32, comm: Comm) -> Result<(), ImportError> {
        if self.comms.get(&tid) == Some(&comm) {
            return Ok(());
        }
        if self.comms.len() >= THREADS_MAX && !self.comms.contains_key(&tid) {
            return Ok(());
        }
        self.comms.insert(tid, comm);
        let comm = String::from_utf8_lossy(comm.as_bytes()).into_owned();
        self.write(&ObservedEvent {
            what: Observed::Thread { comm },
            cpu: None,
            ..event.clone()
        })
    }

    fn write(&mut self, event: &ObservedEvent) -> Result<(), ImportError> {
        if self.vms.several() {
            return Ok(());
        }
        event.write_line(&mut self.text)?;
        if self.text.len() >= WRITE_AT {
            self.out.write_all(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }

    fn finish<R: Read>(mut self, sources: Vec<Source<R>>) -> Result<LogSummary, ImportError> {
        self.out.write_all(&self.text)?;
        self.out.flush()?;
        let logs: Vec<_> = sources.into_iter().map(Source::into_stats).collect();
        two_clocks(&logs)?;
        let name = logs
            .first()
            .map_or_else(String::new, |log| log.name.clone());
        if self.vms.several() {
            let problem = Problem::Log(LogProblem::SeveralVms);
            return Err(TraceError::new(&name, 0, problem, choose(&self.vms.into_seen())).into());
        }
        if self.vms.admitted() == 0 {
            let known: u64 = logs.iter().map(|log| log.events).sum();
            let error = if self.chosen && known > 0 {
                let problem = Problem::Log(LogProblem::NoneChosen);
                TraceError::new(&name, 0, problem, choose(&self.vms.into_seen()))
            } else {
                nothing_known(&name, self.kinds.first().copied(), &logs)
            };
            return Err(error.into());
        }
        let mut events: BTreeMap<&'static str, u64> = Observed::NAMES
            .into_iter()
            .zip(self.counts)
            .filter(|(_, n)| *n > 0)
            .collect();
        if self.gaps > 0 {
            events.insert("gap", self.gaps);
        }
        Ok(LogSummary {
            unknown: LogSummary::hints(&events, self.processes, self.times),
            logs,
            events,
            other_vms: self.left_out,
            check: self.checker.finish(),
        })
    }
}

/// Logs that were merged by time must have been written at the same time, by the same clock. Where one ends before
/// another begins, their clocks are two, or they are parts of one recording, and no order between them is known.
fn two_clocks(logs: &[LogStats]) -> Result<(), Box<TraceError>> {
    let clocks = || {
        logs.iter()
            .filter_map(|log| log.clock.map(|clock| (log, clock)))
    };
    let (Some((early, (first, last))), Some((late, (begin, end)))) = (
        clocks().min_by_key(|(_, (_, last))| *last),
        clocks().max_by_key(|(_, (first, _))| *first),
    ) else {
        return Ok(());
    };
    if last >= begin {
        return Ok(());
    }
    let problem = LogProblem::Apart(Box::new(Apart {
        own: [seconds(first), seconds(last)],
        other: late.name.clone(),
        others: [seconds(begin), seconds(end)],
    }));
    let help = "record both by one clock (trace-cmd and perf: -C mono or -k mono; QEMU's log has the time of day, and its \
                ftrace backend the kernel's clock: docs/bug-reports.md shows how), or import the logs one by one; parts of one log \
                become one with `cat`";
    Err(TraceError::new(&early.name, 0, Problem::Log(problem), help))
}

/// A time in seconds, with the date where it is one.
fn seconds(ns: u64) -> String {
    let mut text = format!("{}.{:06} s", ns / 1_000_000_000, ns % 1_000_000_000 / 1_000);
    // Nothing has been up for thirty years: from 2001 on it is the time of day.
    if ns >= 1_000_000_000_000_000_000 {
        let mut date = String::new();
        super::qemu::print_front(super::qemu::Form::Iso, 0, ns, &mut date);
        text.push_str(&format!(" ({})", date.trim_end()));
    }
    text
}

/// What to give with `--pid`.
fn choose(seen: &[SeenPid]) -> String {
    const SHOWN: usize = 20;
    let mut help = "choose one with --pid; seen were".to_owned();
    for (n, pid) in seen.iter().take(SHOWN).enumerate() {
        let what = if pid.is_thread { "thread" } else { "process" };
        let comm = super::source::brief(pid.comm.as_bytes());
        let rings: Vec<String> = pid.rings.iter().map(u32::to_string).collect();
        let rings = if rings.is_empty() {
            String::new()
        } else {
            format!(", rings {}", rings.join(" "))
        };
        let comma = if n == 0 { "" } else { ";" };
        help.push_str(&format!(
            "{comma} {what} {} {comm} ({} events from line {}{rings})",
            pid.pid, pid.events, pid.line
        ));
    }
    if seen.len() > SHOWN {
        help.push_str(&format!("; and {} more", seen.len() - SHOWN));
    }
    if seen.iter().any(|pid| pid.is_thread) {
        help.push_str(
            ". The log has threads only: give all threads of the VM (`--pid 4242,4243,4250`; `ls /proc/PID/task` lists \
             them), or record with process numbers (ftrace: options/record-tgid; perf: -F +pid)",
        );
    }
    help
}

fn nothing_known(name: &str, kind: Option<LogKind>, logs: &[LogStats]) -> Box<TraceError> {
    let lines: u64 = logs.iter().map(|log| log.lines).sum();
    let damaged: u64 = logs.iter().map(|log| log.damaged_lines).sum();
    let first = logs
        .iter()
        .flat_map(|log| log.places.iter().map(move |place| (log, place)))
        .next();
    if let (1.., Some((log, place))) = (damaged, first) {
        return TraceError::new(
            &log.name,
            place.line,
            Problem::Log(LogProblem::NoneReadable {
                lines: damaged,
                first: place.what.clone(),
            }),
            "the log was cut or edited, or written by a version whose text differs: copy it again, or report the line",
        );
    }
    let help = match kind {
        Some(LogKind::Qemu) => {
            "run QEMU with -trace 'kvm_dirty_ring_*' -trace 'migration_bitmap_sync_*'"
        }
        _ => {
            "record kvm:kvm_dirty_ring_push, kvm:kvm_dirty_ring_reset, kvm:kvm_dirty_ring_exit and kvm:kvm_userspace_exit"
        }
    };
    let problem = Problem::Log(LogProblem::NoEvent { lines });
    TraceError::new(
        name,
        0,
        problem,
        format!("{help}; docs/bug-reports.md shows how"),
    )
}
