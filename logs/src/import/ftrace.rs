//! Lines of ftrace's text output and of `trace-cmd report`.
//!
//! The two share a layout, with differences that this reader takes in its stride:
//!
//! | column | ftrace | trace-cmd report |
//! |---|---|---|
//! | task | `%16s-%-7d`, any bytes in a name of at most 15 | `%16s-%-5d` |
//! | process | `(%7d)` or `(-------)`, with `record-tgid` | – |
//! | processor | `[%03d]` | `[%03d]` |
//! | flags | 4 characters before Linux 5.17, 5 since; none with `noirq-info` | none, or 4 or 5 since 3.1 |
//! | time | seconds and microseconds, or a bare count (`counter`, `x86-tsc`) | the same, or 9 digits with `-t` |
//! | event | `name: text` | `name:` padded with spaces, then the text |
//!
//! In latency format (`latency-format`, `trace-cmd report -l`) the name is cut to 8, the processor has no brackets and
//! its flags follow it at once (`3d..2.`), and ftrace counts microseconds from the start (`1234us+:`).
//!
//! Lost events are a line of their own: `CPU:3 [LOST 12 EVENTS]`, or `CPU:3 [12 EVENTS DROPPED]`.
//!
//! Not read: the `verbose`, `raw`, `hex` and `bin` outputs, and stack traces.
//!
//! Source: kernel/trace/trace_output.c, trace_print_context(), lat_print_generic() and lat_print_timestamp(), and
//! kernel/trace/trace.c, print_trace_line(), Linux 6.12; libtraceevent, tep_print_event(), 1.7.

use std::fmt::Write as _;

use super::cursor::{Cursor, find};
use super::prefix::{Line, Prefix, Stamp, seconds};

/// A task's name is at most this long; in the padded form the dash follows 16 columns.
const COMM_MAX: usize = 15;

/// Reads one line, without its line end.
#[must_use]
pub fn parse(line: &[u8]) -> Line<'_> {
    let indent = line.iter().take_while(|b| **b == b' ').count();
    if indent == line.len() {
        return Line::Header;
    }
    // Events first: a task may call itself anything, `#` and `CPU:3` too.
    //
    // Written by the tool itself: the dash is where the padding puts it. In a mail the padding is often gone; then the
    // name's own dashes, if any, come first, and the last dash that a number follows is the separator.
    if line.get(16) == Some(&b'-')
        && let Some(prefix) = behind_dash(line, indent.min(16), 16)
    {
        return Line::Event(prefix);
    }
    let last = (indent + COMM_MAX).min(line.len() - 1);
    for dash in (indent..=last).rev() {
        if line[dash] == b'-'
            && let Some(prefix) = behind_dash(line, indent, dash)
        {
            return Line::Event(prefix);
        }
    }
    own_line(&line[indent..])
}

fn own_line(text: &[u8]) -> Line<'_> {
    let own = text.starts_with(b"#")
        || text.starts_with(b"cpus=")
        || text.starts_with(b"version = ")
        || (text.starts_with(b"CPU ") && text.ends_with(b" is empty"));
    match lost(text) {
        Some(lost) => lost,
        None if own => Line::Header,
        None => Line::Foreign,
    }
}

fn lost(text: &[u8]) -> Option<Line<'_>> {
    let mut c = Cursor::new(text);
    c.word(b"CPU:")?;
    let cpu = Some(c.dec32()?);
    c.word(b" [")?;
    let count = if c.word(b"LOST ").is_some() {
        let count = c.dec();
        if count.is_some() {
            c.word(b" ")?;
        }
        c.word(b"EVENTS]")?;
        count
    } else {
        let count = c.dec();
        if count.is_some() {
            c.word(b" ")?;
        }
        c.word(b"EVENTS DROPPED]")?;
        count
    };
    Some(Line::Lost { cpu, count })
}

#[inline]
fn behind_dash(line: &[u8], comm_from: usize, dash: usize) -> Option<Prefix<'_>> {
    let mut c = Cursor::new(&line[dash + 1..]);
    let tid = Some(c.dec32()?);
    if c.spaces() == 0 {
        return None;
    }
    let mut pid = None;
    if c.word(b"(").is_some() {
        c.spaces();
        if c.word(b"-------").is_none() {
            pid = Some(c.dec32()?);
        }
        c.word(b")")?;
        c.spaces();
    }
    let bracketed = c.word(b"[").is_some();
    let cpu = Some(c.dec32()?);
    if bracketed {
        c.word(b"]")?;
        c.spaces();
        if !c.rest().first()?.is_ascii_digit() {
            flags(&mut c)?;
            c.spaces();
        }
    } else {
        flags(&mut c)?;
        c.spaces();
    }
    let stamp = stamp(&mut c)?;
    c.spaces();
    // A line of a function tracer has no event: `func <-parent`.
    let mut ahead = c;
    let (event, body) = match ahead.name() {
        Some(name) if ahead.word(b":").is_some() => (name, ahead.rest()),
        _ => (&b""[..], c.rest()),
    };
    Some(Prefix {
        comm: Some(&line[comm_from..dash]),
        tid,
        pid,
        cpu,
        stamp,
        event,
        body,
    })
}

/// The flags column: 4 characters before Linux 5.17, 5 since; a nested count may add one.
fn flags(c: &mut Cursor<'_>) -> Option<()> {
    let flags = c.token()?;
    ((4..=8).contains(&flags.len())
        && flags
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'#')))
    .then_some(())
}

#[inline]
fn stamp(c: &mut Cursor<'_>) -> Option<Stamp> {
    if let Some(ns) = seconds(c) {
        c.word(b":")?;
        return Some(Stamp::Ns(ns));
    }
    let count = c.dec()?;
    if c.word(b"us").is_some() {
        let mark = *c.rest().first()?;
        if matches!(mark, b' ' | b'+' | b'!' | b'#' | b'*' | b'@' | b'$') {
            c.word(&[mark])?;
        }
        c.word(b":")?;
        return Some(Stamp::Ns(count.checked_mul(1000)?));
    }
    c.word(b":")?;
    Some(Stamp::Tick(count))
}

/// Says how many events were written and how many are still there, from ftrace's header line.
///
/// The header of a buffer that wrapped says so: everything before its first line is gone.
#[must_use]
pub fn overwritten(line: &[u8]) -> Option<u64> {
    const WORDS: &[u8] = b"entries-in-buffer/entries-written: ";
    let at = find(line, WORDS)?;
    let mut c = Cursor::new(&line[at + WORDS.len()..]);
    let kept = c.dec()?;
    c.word(b"/")?;
    let written = c.dec()?;
    written.checked_sub(kept).filter(|lost| *lost > 0)
}

/// Which of the forms to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// ftrace's default, with a flags column of 5.
    Ftrace,
    /// ftrace before Linux 5.17: a flags column of 4.
    Ftrace4,
    /// ftrace with `record-tgid`.
    Tgid,
    /// ftrace with `noirq-info`.
    NoFlags,
    /// ftrace's latency format.
    Latency,
    /// `trace-cmd report`.
    TraceCmd,
    /// `trace-cmd report -t -l`.
    TraceCmdLatency,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 7] = [
        Self::Ftrace,
        Self::Ftrace4,
        Self::Tgid,
        Self::NoFlags,
        Self::Latency,
        Self::TraceCmd,
        Self::TraceCmdLatency,
    ];
}

/// Appends the part of a line up to the event's text, as the tool prints it. Time is printed in microseconds, except
/// by [`Form::TraceCmdLatency`].
pub fn print(
    form: Form,
    comm: &str,
    who: (u32, u32),
    cpu: u32,
    t_ns: u64,
    event: &str,
    out: &mut String,
) {
    let (tid, pid) = who;
    let (secs, us) = (t_ns / 1_000_000_000, t_ns % 1_000_000_000 / 1000);
    let _ = match form {
        Form::Ftrace => write!(
            out,
            "{comm:>16}-{tid:<7} [{cpu:03}] ..... {secs:5}.{us:06}: {event}: "
        ),
        Form::Ftrace4 => write!(
            out,
            "{comm:>16}-{tid:<7} [{cpu:03}] d..2 {secs:5}.{us:06}: {event}: "
        ),
        Form::Tgid => {
            write!(
                out,
                "{comm:>16}-{tid:<7} ({pid:7}) [{cpu:03}] d..2. {secs:5}.{us:06}: {event}: "
            )
        }
        Form::NoFlags => write!(
            out,
            "{comm:>16}-{tid:<7} [{cpu:03}] {secs:5}.{us:06}: {event}: "
        ),
        Form::Latency => {
            let short: String = comm.chars().take(8).collect();
            write!(
                out,
                "{short:>8}-{tid:<7} {cpu:3}d..2. {:4}us+: {event}: ",
                t_ns / 1000
            )
        }
        Form::TraceCmd => {
            write!(
                out,
                "{comm:>16}-{tid:<5} [{cpu:03}] {secs:5}.{us:06}: {:<21}",
                format!("{event}:")
            )
        }
        Form::TraceCmdLatency => {
            let short: String = comm.chars().take(8).collect();
            let ns = t_ns % 1_000_000_000;
            write!(
                out,
                "{short:>8}-{tid:<5} {cpu:3}d..2. {secs:5}.{ns:09}: {:<21}",
                format!("{event}:")
            )
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(line: &str) -> Prefix<'_> {
        match parse(line.as_bytes()) {
            Line::Event(prefix) => prefix,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_forms_of_both_tools_are_read() {
        for (line, comm, pid, cpu, stamp) in [
            (
                "       CPU 0/KVM-4242    [003] ..... 101.000001: kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                None,
                3,
                Stamp::Ns(101_000_001_000),
            ),
            (
                "           <...>-4242    [012] d..2 12345.678901: kvm_dirty_ring_exit: vcpu 0",
                "<...>",
                None,
                12,
                Stamp::Ns(12_345_678_901_000),
            ),
            (
                " qemu-system-x86-4242    (   4000) [003] d..2.   101.000001: kvm_dirty_ring_exit: vcpu 0",
                "qemu-system-x86",
                Some(4000),
                3,
                Stamp::Ns(101_000_001_000),
            ),
            (
                "       CPU 0/KVM-4242    (-------) [003] .....   101.000001: kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                None,
                3,
                Stamp::Ns(101_000_001_000),
            ),
            (
                "       CPU 0/KVM-4242    [003]   101.000001: kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                None,
                3,
                Stamp::Ns(101_000_001_000),
            ),
            (
                "       CPU 0/KVM-4242    [003] .....   123456789012: kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                None,
                3,
                Stamp::Tick(123_456_789_012),
            ),
            (
                "CPU 0/KV-4242      3d..2. 1234us+: kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KV",
                None,
                3,
                Stamp::Ns(1_234_000),
            ),
            (
                "CPU 0/KV-4242      3d..2   15us : kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KV",
                None,
                3,
                Stamp::Ns(15_000),
            ),
            (
                "       CPU 0/KVM-4242  [003]   101.000001123: kvm_dirty_ring_exit:  vcpu 0",
                "CPU 0/KVM",
                None,
                3,
                Stamp::Ns(101_000_001_123),
            ),
            (
                "     a-1 [000] b-4242    [003] .....   101.000001: kvm_dirty_ring_exit: vcpu 0",
                "a-1 [000] b",
                None,
                3,
                Stamp::Ns(101_000_001_000),
            ),
            (
                "kworker/u8:-3-4242 [003] ..... 101.000001: kvm_dirty_ring_exit: vcpu 0",
                "kworker/u8:-3",
                None,
                3,
                Stamp::Ns(101_000_001_000),
            ),
        ] {
            let got = prefix(line);
            assert_eq!(
                got.comm.map(<[u8]>::trim_ascii),
                Some(comm.as_bytes()),
                "{line}"
            );
            assert_eq!(
                (got.tid, got.pid, got.cpu),
                (Some(4242), pid, Some(cpu)),
                "{line}"
            );
            assert_eq!(got.stamp, stamp, "{line}");
            assert_eq!(got.event, b"kvm_dirty_ring_exit", "{line}");
            assert_eq!(got.body.trim_ascii(), b"vcpu 0", "{line}");
        }
    }

    #[test]
    fn the_tools_own_lines_are_told_apart() {
        assert_eq!(parse(b"# tracer: nop"), Line::Header);
        assert_eq!(parse(b"cpus=8"), Line::Header);
        assert_eq!(parse(b"CPU 1 is empty"), Line::Header);
        assert_eq!(
            parse(b"CPU:3 [LOST 12 EVENTS]"),
            Line::Lost {
                cpu: Some(3),
                count: Some(12)
            }
        );
        assert_eq!(
            parse(b"CPU:3 [LOST EVENTS]"),
            Line::Lost {
                cpu: Some(3),
                count: None
            }
        );
        assert_eq!(
            parse(b"CPU:3 [12 EVENTS DROPPED]"),
            Line::Lost {
                cpu: Some(3),
                count: Some(12)
            }
        );
        assert_eq!(
            parse(b"CPU:3 [EVENTS DROPPED]"),
            Line::Lost {
                cpu: Some(3),
                count: None
            }
        );
        assert_eq!(
            parse(b"qemu-system-x86_64: warning: host doesn't support it"),
            Line::Foreign
        );
        assert_eq!(parse(b"2026-01-02 something-12 happened"), Line::Foreign);
        assert_eq!(
            overwritten(b"# entries-in-buffer/entries-written: 205/1000   #P:8"),
            Some(795)
        );
        assert_eq!(
            overwritten(b"# entries-in-buffer/entries-written: 205/205   #P:8"),
            None
        );
    }
}
