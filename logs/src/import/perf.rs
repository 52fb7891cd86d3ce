//! Lines of `perf script`.
//!
//! `comm pid [cpu] time: subsystem:event: text`, where the name is padded to 16 (not padded when call chains were
//! recorded), `pid/tid` stands for `tid` when both were asked for (`-F +pid`), the processor can be left out (`-F -cpu`),
//! the time has 6 digits or 9 (`--ns`), and a period may stand before the event. A name may hold spaces, brackets and
//! digits, so that the first place from which everything up to the event reads is taken: a name is too short to hold
//! such a text itself.
//!
//! Call chains follow on lines of their own, which are not events; they are counted as the tool's own lines.
//!
//! Source: tools/perf/builtin-script.c, perf_sample__fprintf_start() and process_event(), Linux 6.1 and 6.12.

use std::fmt::Write as _;

use super::cursor::{Cursor, find};
use super::prefix::{Line, Prefix, Stamp, seconds};

/// The thread's number starts at most here: a name of 15, padded to 16, a space, and the number's own padding.
const TID_BY: usize = 40;

/// Reads one line, without its line end.
#[must_use]
pub fn parse(line: &[u8]) -> Line<'_> {
    // Events first: a task may call itself anything, `#` too.
    let mut at = 0;
    while at < line.len().min(TID_BY) {
        if line[at].is_ascii_digit()
            && (at == 0 || line[at - 1] == b' ')
            && let Some(prefix) = from_tid(line, at)
        {
            return Line::Event(prefix);
        }
        at += 1;
    }
    if let Some(at) = find(line, b"PERF_RECORD_LOST") {
        let count =
            find(&line[at..], b" lost ").and_then(|n| Cursor::new(&line[at + n + 6..]).dec());
        let cpu = find(&line[..at], b" [").and_then(|n| Cursor::new(&line[n + 2..]).dec32());
        return Line::Lost { cpu, count };
    }
    match line.first() {
        None | Some(b'#' | b'\t') => Line::Header,
        _ => Line::Foreign,
    }
}

fn from_tid(line: &[u8], at: usize) -> Option<Prefix<'_>> {
    let mut c = Cursor::new(&line[at..]);
    let first = c.dec32()?;
    let (pid, tid) = if c.word(b"/").is_some() {
        (Some(first), c.dec32()?)
    } else {
        (None, first)
    };
    if c.spaces() == 0 {
        return None;
    }
    let mut cpu = None;
    if c.word(b"[").is_some() {
        cpu = Some(c.dec32()?);
        c.word(b"]")?;
        c.spaces();
    }
    let ns = seconds(&mut c)?;
    c.word(b":")?;
    c.spaces();
    // The period, where it was asked for.
    let mut ahead = c;
    if ahead.dec().is_some() && (ahead.spaces() > 0 || ahead.rest().is_empty()) {
        c = ahead;
    }
    let comm = line[..at].trim_ascii();
    let mut event: &[u8] = b"";
    // The front alone is no event: the rest may be on the next line.
    if !c.rest().is_empty() {
        c.name()?;
        c.word(b":")?;
        event = c.name()?;
        c.word(b":")?;
    }
    Some(Prefix {
        comm: (!comm.is_empty()).then_some(comm),
        tid: Some(tid),
        pid,
        cpu,
        stamp: Stamp::Ns(ns),
        event,
        body: c.rest(),
    })
}

/// Which of the forms to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `perf script`.
    Plain,
    /// `perf script -F +pid`.
    Pid,
    /// `perf script --ns`.
    Ns,
    /// `perf script -F -cpu,+period`.
    Period,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Pid, Self::Ns, Self::Period];
}

/// Appends the part of a line up to the event's text, as perf prints it. Time is in microseconds, except with
/// [`Form::Ns`].
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
    let (secs, ns) = (t_ns / 1_000_000_000, t_ns % 1_000_000_000);
    let us = ns / 1000;
    let subsystem = match event {
        "fast_page_fault" | "kvm_mmu_set_spte" | "kvm_tdp_mmu_spte_changed" => "kvmmmu",
        _ => "kvm",
    };
    let event = format!("{subsystem}:{event}");
    let _ = match form {
        Form::Plain => {
            write!(
                out,
                "{comm:>16} {tid:7} [{cpu:03}] {secs:5}.{us:06}: {event:>28}: "
            )
        }
        Form::Pid => {
            write!(
                out,
                "{comm:>16} {pid:7}/{tid:<7} [{cpu:03}] {secs:5}.{us:06}: {event}: "
            )
        }
        Form::Ns => write!(
            out,
            "{comm:>16} {tid:7} [{cpu:03}] {secs:5}.{ns:09}:   {event}: "
        ),
        Form::Period => write!(
            out,
            "{comm:>16} {tid:7} {secs:5}.{us:06}:          1 {event}: "
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_perf_script_are_read() {
        for (line, comm, pid, cpu, ns) in [
            (
                "       CPU 0/KVM  4242 [003]   101.000001: kvm:kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                None,
                Some(3),
                101_000_001_000,
            ),
            (
                "       CPU 0/KVM    4000/4242    [003]   101.000001: kvm:kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                Some(4000),
                Some(3),
                101_000_001_000,
            ),
            (
                "CPU 0/KVM  4242 [003]   101.000001123:          1   kvm:kvm_dirty_ring_exit: vcpu 0",
                "CPU 0/KVM",
                None,
                Some(3),
                101_000_001_123,
            ),
            (
                "     a 1 [0] 1.0  4242   101.000001: kvm:kvm_dirty_ring_exit: vcpu 0",
                "a 1 [0] 1.0",
                None,
                None,
                101_000_001_000,
            ),
        ] {
            let Line::Event(got) = parse(line.as_bytes()) else {
                panic!("{line}")
            };
            assert_eq!(got.comm, Some(comm.as_bytes()), "{line}");
            assert_eq!(
                (got.tid, got.pid, got.cpu),
                (Some(4242), pid, cpu),
                "{line}"
            );
            assert_eq!(got.stamp, Stamp::Ns(ns), "{line}");
            assert_eq!(got.event, b"kvm_dirty_ring_exit", "{line}");
            assert_eq!(got.body.trim_ascii(), b"vcpu 0", "{line}");
        }
    }

    #[test]
    fn call_chains_and_lost_records_are_told_apart() {
        assert_eq!(
            parse(b"\tffffffffc0a1b2c3 kvm_dirty_ring_push+0x73 ([kvm])"),
            Line::Header
        );
        assert_eq!(
            parse(b"       CPU 0/KVM  4242 [003]   101.000001: PERF_RECORD_LOST lost 12"),
            Line::Lost {
                cpu: Some(3),
                count: Some(12)
            }
        );
        assert_eq!(
            parse(b"  CPU 0/KVM-4242  [003] 101.000001: kvm_dirty_ring_exit: vcpu 0"),
            Line::Foreign
        );
    }
}
