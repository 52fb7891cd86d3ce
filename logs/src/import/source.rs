//! One log, read line by line into events.

use std::collections::VecDeque;
use std::io::Read;

use memchr::memmem::Finder;
use serde::Serialize;

use super::body::Body;
use super::detect::{Detected, LogKind, detect};
use super::ftrace;
use super::prefix::{Line, Prefix, Stamp, unquoted};
use super::raw_lines::{LINE_MAX, RawLine, RawLines};
use super::{qemu, tracepoint};
use crate::trace::observed::{GapReason, Observed, ObservedEvent};
use crate::trace::{LogProblem, Problem, TraceError};

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
    /// Lines that a mail program broke, and that were read as one with their neighbours.
    pub joined_lines: u64,
    /// Lines that name an event of interest and cannot be read, with those cut at the log's end.
    pub damaged_lines: u64,
    /// Times that the clock went back.
    pub clock_steps: u64,
    /// The earliest and the latest time of an event of the tool, in nanoseconds of its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<(u64, u64)>,
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
    fn time(&mut self, stamp: Stamp) {
        if let Stamp::Ns(ns) = stamp {
            let (first, last) = self.clock.unwrap_or((ns, ns));
            self.clock = Some((first.min(ns), last.max(ns)));
        }
    }

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

/// Lines that a mail program may have made of one, at most. A log's line has at most some 240 columns (`kvm_set_user_memory` in the
/// kernel's buffer), a mail's 72 and less.
const PIECES_MAX: usize = 6;

/// A line that waits for the next, which may be its end.
#[derive(Debug)]
struct Piece {
    line: u64,
    text: Vec<u8>,
    /// Of how many lines it was made.
    lines: u64,
    alone: Alone,
}

/// What a piece is where nothing is joined to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    /// Not a line of this tool: it names no event.
    Foreign,
    /// A line that names an event and cannot be read.
    Damaged,
    /// What it reads as, which may go on in the next line: the last fields of some events stand in some logs only.
    Whole,
}

/// A log that is being read.
#[derive(Debug)]
pub(crate) struct Source<R> {
    lines: RawLines<R>,
    reader: Reader,
}

/// What is made of a log's lines.
#[derive(Debug)]
struct Reader {
    kind: LogKind,
    file: u32,
    last_ns: Option<u64>,
    ring_events: Finder<'static>,
    stats: LogStats,
    /// Events that were read and not handed out.
    ready: VecDeque<Named>,
    /// The last lines, where what follows may be their end.
    pieces: Vec<Piece>,
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
                let problem = Problem::Log(LogProblem::Binary(what));
                return Err(TraceError::new(
                    name,
                    0,
                    problem,
                    help.replace("FILE", name),
                ));
            }
            (Detected::Trace, _) => {
                let problem = Problem::Log(LogProblem::IsATrace);
                let help = "give it to `dirtysim replay` or `dirtysim explain`";
                return Err(TraceError::new(name, 0, problem, help));
            }
            (Detected::KvmJsonl, _) => {
                let problem = Problem::Log(LogProblem::IsARecording);
                let help = "import it alone, with --from kvm-jsonl";
                return Err(TraceError::new(name, 0, problem, help));
            }
            (_, Some(kind)) => kind,
            (Detected::Log(kind), None) => kind,
            (Detected::Unknown, None) => return Err(not_a_log(name, head)),
        };
        Ok(Self {
            lines,
            reader: Reader {
                kind,
                file,
                last_ns: None,
                ring_events: Finder::new(b"kvm_dirty_ring_"),
                stats: LogStats {
                    name: name.to_owned(),
                    kind: kind.name(),
                    ..LogStats::default()
                },
                ready: VecDeque::new(),
                pieces: Vec::new(),
            },
        })
    }

    pub(crate) fn kind(&self) -> LogKind {
        self.reader.kind
    }

    pub(crate) fn name(&self) -> &str {
        &self.reader.stats.name
    }

    pub(crate) fn into_stats(self) -> LogStats {
        self.reader.stats
    }

    /// The next event that import knows, or a gap.
    pub(crate) fn next(&mut self) -> Result<Option<Named>, Box<TraceError>> {
        loop {
            if let Some(named) = self.reader.ready.pop_front() {
                return Ok(Some(named));
            }
            let line = self.lines.line() + 1;
            match self.lines.next() {
                Ok(Some(raw)) => self.reader.line(line, raw),
                Ok(None) => {
                    self.reader.give_up();
                    let stats = &mut self.reader.stats;
                    (stats.lines, stats.bytes) = (self.lines.line(), self.lines.bytes());
                    if self.reader.ready.is_empty() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(io_error(self.name(), line, &error)),
            }
        }
    }
}

impl Reader {
    fn line(&mut self, line: u64, raw: RawLine<'_>) {
        let (text, cut) = match raw {
            RawLine::Whole(text) => (unquoted(text), false),
            RawLine::Cut(text) => (unquoted(text), true),
            RawLine::Overlong => {
                self.give_up();
                self.stats.odd(Oddity::Damaged, line, || {
                    format!("longer than {LINE_MAX} bytes")
                });
                return self.gap(line, GapReason::Overlong, None, None);
            }
        };
        let reading = read_line(self.kind, text, &self.ring_events);
        match reading {
            // Its front, which names no event, may stand in the lines before.
            Reading::Event(..) | Reading::Lost { .. }
                if !reading.says_where() && self.joins(text, cut, true) => {}
            Reading::Damaged | Reading::Foreign if self.joins(text, cut, false) => {}
            Reading::Event(..) | Reading::Lost { .. } if !cut && reading.goes_on() => {
                self.give_up();
                self.piece(line, text, Alone::Whole);
            }
            Reading::Event(_, ref what) if !cut || ends_itself(what) => {
                self.give_up();
                self.whole(line, reading);
            }
            Reading::Lost { .. } if !cut => {
                self.give_up();
                self.whole(line, reading);
            }
            // Whatever it was going to be: a line that the log ends in may have lost its end.
            _ if cut => {
                self.give_up();
                self.stats.odd(Oddity::Damaged, line, || {
                    format!("the log ends inside this line: {}", brief(text))
                });
                self.gap(line, GapReason::Damaged, None, None);
            }
            Reading::Event(..) | Reading::Lost { .. } | Reading::Damaged => {
                self.piece(line, text, Alone::Damaged);
            }
            Reading::Foreign => self.piece(line, text, Alone::Foreign),
            Reading::Other(stamp) => {
                self.give_up();
                self.stats.other_events += 1;
                self.stats.time(stamp);
            }
            Reading::Own => {
                self.give_up();
                self.stats.own_lines += 1;
                if let Some(events) = ftrace::overwritten(text) {
                    self.stats.overwritten_events += events;
                    self.gap(line, GapReason::Overwritten, Some(events), None);
                }
            }
        }
    }

    fn event(&mut self, line: u64, prefix: Prefix<'_>, what: Observed) {
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
        self.stats.time(prefix.stamp);
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
        self.ready.push_back((event, comm));
    }

    /// What a line says, or several that were one.
    fn whole(&mut self, line: u64, reading: Reading<'_>) {
        match reading {
            Reading::Event(prefix, what) => self.event(line, prefix, what),
            Reading::Lost { cpu, count } => self.lost(line, cpu, count),
            Reading::Damaged | Reading::Other(_) | Reading::Own | Reading::Foreign => {}
        }
    }

    fn lost(&mut self, line: u64, cpu: Option<u32>, count: Option<u64>) {
        self.stats.lost_events += count.unwrap_or(0);
        self.stats.odd(Oddity::Loss, line, || match count {
            Some(count) => format!("{count} events are lost here"),
            None => "events are lost here".to_owned(),
        });
        self.gap(line, GapReason::Lost, count, cpu);
    }

    fn gap(&mut self, line: u64, reason: GapReason, lost: Option<u64>, cpu: Option<u32>) {
        let event = ObservedEvent {
            file: self.file,
            cpu,
            ..ObservedEvent::at(line, Observed::Gap { reason, lost })
        };
        self.ready.push_back((event, None));
    }

    /// Keeps a line until it is known what follows.
    fn piece(&mut self, line: u64, text: &[u8], alone: Alone) {
        if self.pieces.len() == PIECES_MAX - 1 {
            let oldest = self.pieces.remove(0);
            self.give_up_piece(&oldest);
        }
        self.pieces.push(Piece {
            line,
            text: text.to_vec(),
            lines: 1,
            alone,
        });
    }

    /// A line may be the end of the lines before it, which a mail program broke at a space. They are taken for one line only
    /// where that reads as an event, or as the tool's word for losses, from its first character to its last: the fewest of them
    /// that say when or where. Where the line says something by itself (`front`), they must say that, or be a front and no more.
    fn joins(&mut self, text: &[u8], cut: bool, front: bool) -> bool {
        let mut best = None;
        for from in (0..self.pieces.len()).rev() {
            let whole = self.one_line(from, text);
            if whole.len() > LINE_MAX {
                break;
            }
            let reading = read_line(self.kind, &whole, &self.ring_events);
            let is_one = match &reading {
                Reading::Event(_, what) => !cut || ends_itself(what),
                Reading::Lost { .. } => !cut,
                Reading::Damaged | Reading::Other(_) | Reading::Own | Reading::Foreign => false,
            };
            if is_one && (reading.says_where() || front && self.is_front(from)) {
                best = Some(from);
                break;
            }
            if is_one && !front {
                best = best.or(Some(from));
            }
        }
        let Some(from) = best else {
            return false;
        };
        let whole = self.one_line(from, text);
        let pieces: Vec<Piece> = self.pieces.drain(from..).collect();
        self.give_up();
        let line = pieces[0].line;
        let lines = pieces.iter().map(|piece| piece.lines).sum::<u64>() + 1;
        let piece = Piece {
            line,
            text: whole,
            lines,
            alone: Alone::Whole,
        };
        if !cut && read_line(self.kind, &piece.text, &self.ring_events).goes_on() {
            self.pieces.push(piece);
        } else {
            self.give_up_piece(&piece);
        }
        true
    }

    /// Whether the pieces from one on are what the tool writes in front of an event, and no more.
    fn is_front(&self, from: usize) -> bool {
        let front = self.one_line(from, b"");
        matches!(self.kind.parse(&front), Line::Event(prefix) if prefix.event.is_empty())
    }

    /// The pieces from one on, and what follows them.
    fn one_line(&self, from: usize, text: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        for piece in &self.pieces[from..] {
            whole.extend_from_slice(piece.text.trim_ascii_end());
            whole.push(b' ');
        }
        whole.extend_from_slice(text.trim_ascii_start());
        whole
    }

    /// What follows is no end of the last lines: each is what it is.
    fn give_up(&mut self) {
        for piece in std::mem::take(&mut self.pieces) {
            self.give_up_piece(&piece);
        }
    }

    fn give_up_piece(&mut self, piece: &Piece) {
        match piece.alone {
            Alone::Foreign => self.stats.odd(Oddity::Foreign, piece.line, || {
                format!("not a line of this tool: {}", brief(&piece.text))
            }),
            Alone::Damaged => {
                self.stats.odd(Oddity::Damaged, piece.line, || {
                    format!("this line cannot be read: {}", brief(&piece.text))
                });
                self.gap(piece.line, GapReason::Damaged, None, None);
            }
            Alone::Whole => {
                if piece.lines > 1 {
                    self.stats.joined_lines += piece.lines;
                }
                let reading = read_line(self.kind, &piece.text, &self.ring_events);
                self.whole(piece.line, reading);
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
    Other(Stamp),
    Own,
    Foreign,
}

impl Reading<'_> {
    /// Whether an event says when it was, and a loss on which processor.
    fn says_where(&self) -> bool {
        match self {
            Self::Event(prefix, _) => prefix.stamp != Stamp::None,
            Self::Lost { cpu, .. } => cpu.is_some(),
            Self::Damaged | Self::Other(_) | Self::Own | Self::Foreign => false,
        }
    }

    /// Whether it is whole as it is, and more of it may stand in the next line: what only some logs say.
    fn goes_on(&self) -> bool {
        match self {
            Self::Event(_, what) => matches!(
                what,
                Observed::ProbeIoctl { ret: None, .. } | Observed::QemuSetMemory { .. }
            ),
            Self::Lost { count, .. } => count.is_none(),
            Self::Damaged | Self::Other(_) | Self::Own | Self::Foreign => false,
        }
    }
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
                // A front, or a marker, with nothing behind it: the rest may be on the next line.
                Body::Other
                    if prefix.body.trim_ascii().is_empty()
                        && (prefix.event.is_empty() || tracepoint::is_marker(prefix.event)) =>
                {
                    Reading::Foreign
                }
                Body::Other if prefix.event.is_empty() => Reading::Own,
                Body::Other => Reading::Other(prefix.stamp),
            }
        }
        Line::Lost { cpu, count } => Reading::Lost { cpu, count },
        Line::Header => Reading::Own,
        Line::Foreign if ring_events.find(text).is_some() => Reading::Damaged,
        Line::Foreign => Reading::Foreign,
    }
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
        Problem::Log(LogProblem::Unknown(brief(first))),
        format!(
            "in its first {lines} lines import looked for ftrace or trace-cmd report (`task-pid [cpu] time: event: …`), \
             perf script (`task pid [cpu] time: kvm:event: …`), and QEMU's log (`event …` or `tid@time:event …`); if it \
             is one of these, its events start later: say which with --from ftrace|perf|qemu"
        ),
    )
}
