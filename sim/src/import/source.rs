//! One log, read line by line into events.

use std::io::Read;

use memchr::memmem::Finder;
use serde::Serialize;

use super::body::Body;
use super::detect::{Detected, LogKind, detect};
use super::ftrace;
use super::prefix::{Line, Prefix, Stamp};
use super::raw_lines::{LINE_MAX, RawLine, RawLines};
use super::{qemu, tracepoint};
use crate::trace::observed::{GapReason, Observed, ObservedEvent};
use crate::trace::{Problem, TraceError};

/// Places that are kept of each kind of oddity; all are counted.
const PLACES_MAX: usize = 10;

/// A task's name takes at most this many bytes. Source: include/linux/sched.h, TASK_COMM_LEN, Linux 7.2; QEMU's own
/// thread names are cut to it here.
const COMM_MAX: usize = 16;

/// A place in a log, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// What is odd.
    pub what: String,
}

/// What was in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogStats {
    /// The name under which it was given.
    pub name: String,
    /// Which kind it is.
    pub kind: &'static str,
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Events that import knows.
    pub events: u64,
    /// Events of other kinds, by the same tool.
    pub other_events: u64,
    /// Lines of the tool that are no events.
    pub own_lines: u64,
    /// Lines that the tool did not write.
    pub foreign_lines: u64,
    /// Lines that name an event of interest and cannot be read, with those cut at the log's end.
    pub damaged_lines: u64,
    /// Times that the clock went back.
    pub clock_steps: u64,
    /// Events that the tool says it lost, as far as it counted them.
    pub lost_events: u64,
    /// Places where it lost some.
    pub losses: u64,
    /// Events before the first line that a wrapped buffer overwrote.
    pub overwritten_events: u64,
    /// The first places that are odd, in order.
    pub places: Vec<Place>,
    #[serde(skip)]
    kept: [usize; 4],
}

#[derive(Clone, Copy)]
enum Oddity {
    Foreign,
    Damaged,
    ClockStep,
    Loss,
}

impl LogStats {
    fn odd(&mut self, oddity: Oddity, line: u64, what: impl FnOnce() -> String) {
        match oddity {
            Oddity::Foreign => self.foreign_lines += 1,
            Oddity::Damaged => self.damaged_lines += 1,
            Oddity::ClockStep => self.clock_steps += 1,
            Oddity::Loss => self.losses += 1,
        }
        let kept = &mut self.kept[oddity as usize];
        if *kept < PLACES_MAX {
            *kept += 1;
            self.places.push(Place { line, what: what() });
        }
    }
}

/// A thread's name, kept without allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Comm {
    bytes: [u8; COMM_MAX],
    len: u8,
}

impl Comm {
    fn new(name: &[u8]) -> Self {
        let name = name.trim_ascii();
        let mut comm = Self::default();
        let n = name.len().min(COMM_MAX);
        comm.bytes[..n].copy_from_slice(&name[..n]);
        comm.len = u8::try_from(n).unwrap_or(0);
        comm
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// An event and the name of its thread, where the log has one that is real (ftrace writes `<...>` where it forgot).
pub(crate) type Named = (ObservedEvent, Option<Comm>);

/// A log that is being read.
#[derive(Debug)]
pub(crate) struct Source<R> {
    lines: RawLines<R>,
    kind: LogKind,
    file: u32,
    last_ns: Option<u64>,
    ring_events: Finder<'static>,
    pub(crate) stats: LogStats,
}

impl<R: Read> Source<R> {
    /// Looks at the first bytes of a log; an error if it is none.
    pub(crate) fn open(
        name: &str,
        file: u32,
        input: R,
        from: Option<LogKind>,
    ) -> Result<Self, Box<TraceError>> {
        let mut lines = RawLines::new(input);
        let head = lines.peek().map_err(|error| io_error(name, 0, &error))?;
        let kind = match (detect(head), from) {
            (Detected::Binary { what, help }, _) => {
                let problem = Problem::Log(format!("this is {what}, not a text that import reads"));
                return Err(TraceError::new(
                    name,
                    0,
                    problem,
                    help.replace("FILE", name),
                ));
            }
            (Detected::Trace, _) => {
                let problem = Problem::Log("this is a trace already".to_owned());
                let help = "give it to `dirtysim replay` or `dirtysim explain`";
                return Err(TraceError::new(name, 0, problem, help));
            }
            (Detected::KvmJsonl, _) => {
                let problem = Problem::Log(
                    "this is a raw recording of KVM's calls, not a log of events".to_owned(),
                );
                let help = "import it alone, with --from kvm-jsonl";
                return Err(TraceError::new(name, 0, problem, help));
            }
            (_, Some(kind)) => kind,
            (Detected::Log(kind), None) => kind,
            (Detected::Unknown, None) => return Err(not_a_log(name, head)),
        };
        Ok(Self {
            lines,
            kind,
            file,
            last_ns: None,
            ring_events: Finder::new(b"kvm_dirty_ring_"),
            stats: LogStats {
                name: name.to_owned(),
                kind: kind.name(),
                ..LogStats::default()
            },
        })
    }

    pub(crate) fn kind(&self) -> LogKind {
        self.kind
    }

    /// The next event that import knows, or a gap.
    pub(crate) fn next(&mut self) -> Result<Option<Named>, Box<TraceError>> {
        loop {
            let line = self.lines.line() + 1;
            let raw = match self.lines.next() {
                Ok(Some(raw)) => raw,
                Ok(None) => {
                    (self.stats.lines, self.stats.bytes) = (self.lines.line(), self.lines.bytes());
                    return Ok(None);
                }
                Err(error) => return Err(io_error(&self.stats.name, line, &error)),
            };
            let (text, cut) = match raw {
                RawLine::Whole(text) => (text, false),
                RawLine::Cut(text) => (text, true),
                RawLine::Overlong => {
                    self.stats.odd(Oddity::Damaged, line, || {
                        format!("longer than {LINE_MAX} bytes")
                    });
                    return Ok(Some(gap(self.file, line, GapReason::Overlong, None)));
                }
            };
            match read_line(self.kind, text, &self.ring_events) {
                Reading::Event(prefix, what) if !cut || ends_itself(&what) => {
                    self.stats.events += 1;
                    let (t_ns, tick) = match prefix.stamp {
                        Stamp::Ns(ns) => (Some(ns), None),
                        Stamp::Tick(tick) => (None, Some(tick)),
                        Stamp::None => (None, None),
                    };
                    if let (Some(last), Some(now)) = (self.last_ns, t_ns)
                        && now < last
                    {
                        self.stats.odd(Oddity::ClockStep, line, || {
                            format!("the clock goes back by {} ns", last - now)
                        });
                    }
                    self.last_ns = t_ns.or(self.last_ns);
                    let comm = prefix
                        .comm
                        .filter(|comm| comm.trim_ascii() != b"<...>")
                        .map(Comm::new);
                    let event = ObservedEvent {
                        line,
                        file: self.file,
                        t_ns,
                        tick,
                        pid: prefix.pid,
                        tid: prefix.tid,
                        cpu: prefix.cpu,
                        what,
                    };
                    return Ok(Some((event, comm)));
                }
                // Whatever it was going to be: a line that the log ends in may have lost its end.
                _ if cut => {
                    self.stats.odd(Oddity::Damaged, line, || {
                        format!("the log ends inside this line: {}", brief(text))
                    });
                    return Ok(Some(gap(self.file, line, GapReason::Damaged, None)));
                }
                Reading::Event(..) | Reading::Damaged => {
                    self.stats.odd(Oddity::Damaged, line, || {
                        format!("this line cannot be read: {}", brief(text))
                    });
                    return Ok(Some(gap(self.file, line, GapReason::Damaged, None)));
                }
                Reading::Lost { cpu, count } => {
                    self.stats.lost_events += count.unwrap_or(0);
                    self.stats.odd(Oddity::Loss, line, || match count {
                        Some(count) => format!("{count} events are lost here"),
                        None => "events are lost here".to_owned(),
                    });
                    let mut gap = gap(self.file, line, GapReason::Lost, count);
                    gap.0.cpu = cpu;
                    return Ok(Some(gap));
                }
                Reading::Other => self.stats.other_events += 1,
                Reading::Own => {
                    self.stats.own_lines += 1;
                    if let Some(events) = ftrace::overwritten(text) {
                        self.stats.overwritten_events += events;
                    }
                }
                Reading::Foreign => {
                    self.stats.odd(Oddity::Foreign, line, || {
                        format!("not a line of this tool: {}", brief(text))
                    });
                }
            }
        }
    }
}

enum Reading<'a> {
    Event(Prefix<'a>, Observed),
    Damaged,
    Lost {
        cpu: Option<u32>,
        count: Option<u64>,
    },
    Other,
    Own,
    Foreign,
}

#[inline]
fn read_line<'a>(kind: LogKind, text: &'a [u8], ring_events: &Finder<'_>) -> Reading<'a> {
    match kind.parse(text) {
        Line::Event(prefix) => {
            let body = match kind {
                LogKind::Qemu => qemu::parse_body(prefix.event, prefix.body),
                LogKind::Ftrace | LogKind::Perf => tracepoint::parse(prefix.event, prefix.body),
            };
            match body {
                Body::Event(what) => Reading::Event(prefix, what),
                Body::Damaged => Reading::Damaged,
                // A line of another event with one of interest in it: two lines in one.
                Body::Other if ring_events.find(prefix.body).is_some() => Reading::Damaged,
                Body::Other if prefix.event.is_empty() => Reading::Own,
                Body::Other => Reading::Other,
            }
        }
        Line::Lost { cpu, count } => Reading::Lost { cpu, count },
        Line::Header => Reading::Own,
        Line::Foreign if ring_events.find(text).is_some() => Reading::Damaged,
        Line::Foreign => Reading::Foreign,
    }
}

fn gap(file: u32, line: u64, reason: GapReason, lost: Option<u64>) -> Named {
    let event = ObservedEvent {
        file,
        ..ObservedEvent::at(line, Observed::Gap { reason, lost })
    };
    (event, None)
}

/// Whether an event's text ends with something that cannot be the beginning of more: a last line without its line end
/// may have lost digits otherwise.
fn ends_itself(what: &Observed) -> bool {
    matches!(
        what,
        Observed::RingPush { .. }
            | Observed::RingReset { .. }
            | Observed::UserspaceExit { .. }
            | Observed::QemuReap { .. }
    )
}

/// The beginning of a line, fit to be printed.
pub(crate) fn brief(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(240)]);
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(60)
        .collect();
    if text.chars().count() > 60 {
        out.push('…');
    }
    format!("`{out}`")
}

fn io_error(name: &str, line: u64, error: &std::io::Error) -> Box<TraceError> {
    TraceError::new(
        name,
        line,
        Problem::Io(error.to_string()),
        "check that the log can be read",
    )
}

fn not_a_log(name: &str, head: &[u8]) -> Box<TraceError> {
    if head.is_empty() {
        return TraceError::new(
            name,
            0,
            Problem::Empty,
            "give a log with at least one event",
        );
    }
    let lines = head.iter().filter(|b| **b == b'\n').count().max(1);
    let first = head.split(|b| *b == b'\n').next().unwrap_or_default();
    TraceError::new(
        name,
        0,
        Problem::Log(format!(
            "none of the logs that import reads; it begins {}",
            brief(first)
        )),
        format!(
            "in its first {lines} lines import looked for ftrace or trace-cmd report (`task-pid [cpu] time: event: …`), \
             perf script (`task pid [cpu] time: kvm:event: …`), and QEMU's log (`event …` or `tid@time:event …`); if it \
             is one of these, its events start later: say which with --from ftrace|perf|qemu"
        ),
    )
}
