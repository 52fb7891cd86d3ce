//! Lines of QEMU's `log` trace backend (`-trace 'kvm_dirty_ring_*'`, on standard error or in the file of `-D`).
//!
//! An event is its name, a space and its text. What stands in front depends on the version and on `-msg`:
//!
//! | QEMU | front |
//! |---|---|
//! | before 6.0, and to 10.1 with `-msg timestamp=on` | `TID@SECONDS.MICROSECONDS:` |
//! | seen in bug reports | `TID@NANOSECONDS` and a space |
//! | 6.0 to 10.1 | nothing |
//! | 10.2 on (the change was made in 2025) | nothing, or with `-msg timestamp=on` an ISO 8601 time and a space |
//! | as proposed in 2025 and 2026 | then the guest's name or `[name]`, then `program(TID:thread): ` or `program: (TID:thread): `, each where it is asked for |
//!
//! The number in front is the thread's, not the process's. The texts changed once: `kvm_set_user_memory` has one slot
//! number up to 9.0, and address space, slot and guest_memfd from 9.1 on; trees that people build put fields of their own behind
//! it, which are passed over. `kvm_dirty_ring_page` prints userspace's fetch index and the offset; its slot is not printed by any
//! version. A line may be indented.
//!
//! Source: accel/kvm/trace-events and migration/trace-events, scripts/tracetool/backend/log.py, util/log.c; QEMU 7.2,
//! 8.2, 9.1, 10.1 and the development tree of 2026.

use std::fmt::Write as _;

use super::body::Body;
use super::cursor::{Cursor, find};
use super::prefix::{Line, Prefix, Stamp, seconds};
use crate::trace::observed::{KvmIoctl, Observed};

/// Reads one line, without its line end. The event's name need not be one that is known.
#[must_use]
pub fn parse(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii_start();
    if line.is_empty() {
        return Line::Header;
    }
    let mut prefix = Prefix {
        comm: None,
        tid: None,
        pid: None,
        cpu: None,
        stamp: Stamp::None,
        event: b"",
        body: b"",
    };
    let mut c = Cursor::new(line);
    if let Some((tid, ns)) = tid_and_time(&mut c) {
        prefix.tid = Some(tid);
        prefix.stamp = Stamp::Ns(ns);
    } else {
        if let Some(ns) = iso_8601(&mut c) {
            prefix.stamp = Stamp::Ns(ns);
        }
        if let Some(at) = event_after(c.rest()) {
            let front = &c.rest()[..at];
            if let Some((tid, comm)) = program(front) {
                prefix.tid = tid;
                prefix.comm = comm;
            } else if !front.is_empty() && !plain_name(front) {
                return Line::Foreign;
            }
            c = Cursor::new(&c.rest()[at..]);
        }
    }
    let mut ahead = c;
    match ahead.name() {
        Some(name) if matches!(ahead.rest().first(), None | Some(b' ')) && is_event(name) => {
            prefix.event = name;
            prefix.body = ahead.rest();
            Line::Event(prefix)
        }
        _ if prefix.tid.is_some() => Line::Event(prefix),
        _ => Line::Foreign,
    }
}

/// `4242@1700000000.123456:`, or `4242@1700000000123456789 `.
fn tid_and_time(c: &mut Cursor<'_>) -> Option<(u32, u64)> {
    let mut ahead = *c;
    let tid = ahead.dec32()?;
    ahead.word(b"@")?;
    let ns = if let Some(ns) = seconds(&mut ahead) {
        ahead.word(b":")?;
        ns
    } else {
        let ns = ahead.dec()?;
        ahead.word(b" ")?;
        // Without a point it may be any unit; as nanoseconds it is the time of day only where it has as many digits.
        (ns >= 1_000_000_000_000_000_000).then_some(ns)?
    };
    *c = ahead;
    Some((tid, ns))
}

/// `2026-01-31T12:34:56.123456Z `, in nanoseconds since 1970. The fraction is left out when it is zero.
fn iso_8601(c: &mut Cursor<'_>) -> Option<u64> {
    let mut ahead = *c;
    let text = ahead.token()?;
    ahead.word(b" ")?;
    let mut t = Cursor::new(text.strip_suffix(b"Z")?);
    let year = t.dec()?;
    t.word(b"-")?;
    let month = t.dec()?;
    t.word(b"-")?;
    let day = t.dec()?;
    t.word(b"T")?;
    let hour = t.dec()?;
    t.word(b":")?;
    let minute = t.dec()?;
    t.word(b":")?;
    let second = t.dec()?;
    let mut us = 0;
    if t.word(b".").is_some() {
        if t.rest().len() != 6 {
            return None;
        }
        us = t.dec()?;
    }
    t.end()?;
    let in_range = (1970..2500).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    *c = ahead;
    Some(seconds * 1_000_000_000 + us * 1_000)
}

/// Days from 1 January 1970 in the Gregorian calendar; years from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // March is the first month, so that the leap day is the last of its year.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + (day - 1);
    days - 719_468
}

/// Where a known event starts, when something stands in front of it.
fn event_after(text: &[u8]) -> Option<usize> {
    let at = ["kvm_", "migration_bitmap_sync_", "migration_"]
        .iter()
        .filter_map(|start| find(text, start.as_bytes()))
        .min()?;
    (at == 0 || text[at - 1] == b' ').then_some(at)
}

/// `program(TID:thread): `, with a guest's name before it or not.
fn program(front: &[u8]) -> Option<(Option<u32>, Option<&[u8]>)> {
    let front = front.strip_suffix(b": ")?;
    let Some(front) = front.strip_suffix(b")") else {
        return Some((None, None));
    };
    let open = front.iter().rposition(|b| *b == b'(')?;
    let mut c = Cursor::new(&front[open + 1..]);
    let tid = c.dec32()?;
    c.word(b":")?;
    Some((Some(tid), Some(c.rest())))
}

/// A guest's name alone, in brackets where it may have spaces: no sign of another line that was overwritten by this one.
fn plain_name(front: &[u8]) -> bool {
    if let Some(name) = front.strip_prefix(b"[").and_then(|f| f.strip_suffix(b"] ")) {
        return !name.iter().any(|b| matches!(b, b'[' | b']'));
    }
    front.ends_with(b" ")
        && !front[..front.len() - 1]
            .iter()
            .any(|b| matches!(b, b' ' | b'@' | b':'))
}

/// Whether a word is the name of an event that may matter here, known or not.
fn is_event(name: &[u8]) -> bool {
    name.starts_with(b"kvm_") || name.starts_with(b"migration_") || name.starts_with(b"migrate_")
}

/// Reads `name text`, the part of a line from the event's name on.
#[must_use]
pub fn parse_event(text: &[u8]) -> Body {
    let mut c = Cursor::new(text);
    match c.name() {
        Some(name) => parse_body(name, c.rest()),
        None => Body::Other,
    }
}

/// Reads the text behind the name of one of QEMU's events.
#[must_use]
pub fn parse_body(name: &[u8], body: &[u8]) -> Body {
    let parser: fn(&mut Cursor<'_>) -> Option<Option<Observed>> = match name {
        b"kvm_dirty_ring_page" => |c| {
            c.word(b"vcpu ")?;
            let cpu_index = c.dec32()?;
            c.word(b" fetch ")?;
            let fetch = c.dec32()?;
            c.word(b" offset 0x")?;
            Some(Some(Observed::QemuPage {
                cpu_index,
                fetch,
                offset: c.hex()?,
            }))
        },
        b"kvm_dirty_ring_reap" => |c| {
            c.word(b"reaped ")?;
            let count = c.dec()?;
            c.word(b" pages (took ")?;
            c.signed()?;
            c.word(b" us)")?;
            Some(Some(Observed::QemuReap { count }))
        },
        b"kvm_dirty_ring_reap_vcpu" => |c| {
            c.word(b"vcpu ")?;
            Some(Some(Observed::QemuReapVcpu {
                cpu_index: c.dec32()?,
            }))
        },
        b"kvm_dirty_ring_full" => |c| {
            c.word(b"vcpu ")?;
            Some(Some(Observed::QemuRingFull {
                cpu_index: c.dec32()?,
            }))
        },
        b"kvm_dirty_ring_flush" => |c| match c.dec()? {
            0 => Some(Some(Observed::QemuFlush { finished: false })),
            1 => Some(Some(Observed::QemuFlush { finished: true })),
            _ => None,
        },
        b"kvm_clear_dirty_log" => |c| {
            c.word(b"slot#")?;
            let slot = c.dec32()?;
            c.word(b" start 0x")?;
            let start = c.hex()?;
            c.word(b" size 0x")?;
            Some(Some(Observed::QemuClear {
                slot,
                start,
                size: c.hex32()?,
            }))
        },
        b"kvm_set_user_memory" => set_user_memory,
        b"kvm_vm_ioctl" => |c| {
            let number = ioctl_number(c)?;
            Some(KvmIoctl::from_number(number).map(|ioctl| Observed::QemuVmIoctl { ioctl }))
        },
        b"kvm_device_ioctl" => |c| {
            c.word(b"dev fd ")?;
            c.signed()?;
            c.word(b", ")?;
            let number = ioctl_number(c)?;
            let known =
                KvmIoctl::from_number(number).filter(|ioctl| *ioctl == KvmIoctl::SetDeviceAttr);
            Some(known.map(|ioctl| Observed::QemuDeviceIoctl { ioctl }))
        },
        b"kvm_run_exit" => |c| {
            c.word(b"cpu_index ")?;
            let cpu_index = c.dec32()?;
            c.word(b", reason ")?;
            Some(Some(Observed::QemuRunExit {
                cpu_index,
                reason: c.dec32()?,
            }))
        },
        b"kvm_create_vcpu" => |c| {
            let (cpu_index, vcpu) = index_and_id(c)?;
            c.word(b", kvm fd: ")?;
            c.signed()?;
            Some(Some(Observed::QemuCreateVcpu { cpu_index, vcpu }))
        },
        b"kvm_init_vcpu" => |c| {
            let (cpu_index, vcpu) = index_and_id(c)?;
            Some(Some(Observed::QemuCreateVcpu { cpu_index, vcpu }))
        },
        b"migration_bitmap_sync_start" => |_| Some(Some(Observed::QemuSyncStart)),
        b"migration_bitmap_sync_end" => |c| {
            c.word(b"dirty_pages ")?;
            Some(Some(Observed::QemuSyncEnd {
                dirty_pages: c.dec()?,
            }))
        },
        _ => return Body::Other,
    };
    let mut c = Cursor::new(body);
    c.spaces();
    match parser(&mut c) {
        Some(event) if c.end().is_some() => event.map_or(Body::Other, Body::Event),
        _ => Body::Damaged,
    }
}

fn ioctl_number(c: &mut Cursor<'_>) -> Option<u32> {
    c.word(b"type 0x")?;
    let number = c.hex32()?;
    c.word(b", arg ")?;
    // A null pointer is printed as a word.
    c.token()?;
    Some(number)
}

fn index_and_id(c: &mut Cursor<'_>) -> Option<(u32, u32)> {
    c.word(b"index: ")?;
    let cpu_index = c.dec32()?;
    let _ = c.word(b",");
    c.word(b" id: ")?;
    Some((cpu_index, c.dec32()?))
}

fn set_user_memory(c: &mut Cursor<'_>) -> Option<Option<Observed>> {
    let as_id = if c.word(b"AddrSpace#").is_some() {
        let as_id = c.dec32()?;
        c.word(b" ")?;
        as_id
    } else {
        0
    };
    c.word(b"Slot#")?;
    let id = c.dec32()?;
    let slot = as_id.checked_mul(1 << 16)?.checked_add(id)?;
    c.word(b" flags=0x")?;
    let flags = c.hex()?;
    c.word(b" gpa=0x")?;
    let gpa = c.hex()?;
    c.word(b" size=0x")?;
    let size = c.hex()?;
    c.word(b" ua=0x")?;
    c.hex()?;
    // Which fields stand before `ret` and behind it, depends on the version and on the tree.
    while c.rest().first() == Some(&b' ') && !c.rest().starts_with(b" ret=") {
        field(c)?;
    }
    c.word(b" ret=")?;
    let ret = c.signed()?;
    while !c.rest().trim_ascii().is_empty() {
        field(c)?;
    }
    Some(Some(Observed::QemuSetMemory {
        slot,
        flags,
        gpa,
        size,
        ret,
    }))
}

/// ` name=number`, of which nothing is wanted.
fn field(c: &mut Cursor<'_>) -> Option<()> {
    c.word(b" ")?;
    c.name()?;
    c.word(b"=")?;
    if c.rest().starts_with(b"0x") {
        c.hex()?;
    } else {
        c.signed()?;
    }
    Some(())
}

/// Which of the fronts to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// No front.
    Bare,
    /// Thread and time, as to 10.1.
    TidTime,
    /// ISO 8601, as from 10.2.
    Iso,
    /// ISO 8601, guest's name, program and thread, as proposed in 2026.
    IsoProgram,
}

impl Form {
    /// Every front.
    pub const ALL: [Self; 4] = [Self::Bare, Self::TidTime, Self::Iso, Self::IsoProgram];
}

/// Appends the front of a line, as QEMU prints it; time is in microseconds.
pub fn print_front(form: Form, tid: u32, t_ns: u64, out: &mut String) {
    let (secs, us) = (t_ns / 1_000_000_000, t_ns % 1_000_000_000 / 1000);
    let _ = match form {
        Form::Bare => Ok(()),
        Form::TidTime => write!(out, "{tid}@{secs}.{us:06}:"),
        Form::Iso | Form::IsoProgram => {
            let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
            // Days are counted up from a year that is near enough.
            let days = secs / 86_400;
            let mut year = 1970 + days / 366;
            while days_since_1970(year + 1, 1, 1) <= days {
                year += 1;
            }
            let mut month = 12;
            while days_since_1970(year, month, 1) > days {
                month -= 1;
            }
            let day = days - days_since_1970(year, month, 1) + 1;
            let _ = write!(
                out,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
            );
            if us != 0 {
                let _ = write!(out, ".{us:06}");
            }
            let tail = if form == Form::IsoProgram {
                "guest1 qemu-system-x86_64"
            } else {
                ""
            };
            if tail.is_empty() {
                write!(out, "Z ")
            } else {
                write!(out, "Z {tail}({tid}:CPU 0/KVM): ")
            }
        }
    };
}

/// Appends an event as QEMU prints it, name and text. Answers false, and appends nothing, for events that are not
/// QEMU's.
pub fn print(event: &Observed, out: &mut String) -> bool {
    let name = event.name();
    let written = match event {
        Observed::QemuPage {
            cpu_index,
            fetch,
            offset,
        } => {
            write!(
                out,
                "{name} vcpu {cpu_index} fetch {fetch} offset {offset:#x}"
            )
        }
        Observed::QemuReap { count } => write!(out, "{name} reaped {count} pages (took 12 us)"),
        Observed::QemuReapVcpu { cpu_index } | Observed::QemuRingFull { cpu_index } => {
            write!(out, "{name} vcpu {cpu_index}")
        }
        Observed::QemuFlush { finished } => write!(out, "{name} {}", u8::from(*finished)),
        Observed::QemuClear { slot, start, size } => {
            write!(out, "{name} slot#{slot} start {start:#x} size {size:#x}")
        }
        Observed::QemuSetMemory {
            slot,
            flags,
            gpa,
            size,
            ret,
        } => write!(
            out,
            "{name} AddrSpace#{} Slot#{} flags={flags:#x} gpa={gpa:#x} size={size:#x} ua=0x7f0000000000 \
             guest_memfd=-1 guest_memfd_offset=0x0 ret={ret}",
            slot >> 16,
            slot & 0xffff
        ),
        Observed::QemuVmIoctl { ioctl } => {
            write!(out, "{name} type {:#x}, arg 0x7ffd00000000", ioctl.number())
        }
        Observed::QemuDeviceIoctl { ioctl } => {
            write!(
                out,
                "{name} dev fd 20, type {:#x}, arg 0x7ffd00000000",
                ioctl.number()
            )
        }
        Observed::QemuRunExit { cpu_index, reason } => {
            write!(out, "{name} cpu_index {cpu_index}, reason {reason}")
        }
        Observed::QemuCreateVcpu { cpu_index, vcpu } => {
            write!(out, "{name} index: {cpu_index}, id: {vcpu}, kvm fd: 15")
        }
        // The log backend puts a space behind every name, also of an event without arguments.
        Observed::QemuSyncStart => write!(out, "{name} "),
        Observed::QemuSyncEnd { dirty_pages } => write!(out, "{name} dirty_pages {dirty_pages}"),
        _ => return false,
    };
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Prefix<'_>, Body) {
        match parse(line.as_bytes()) {
            Line::Event(prefix) => (prefix, parse_body(prefix.event, prefix.body)),
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn every_front_is_read() {
        for (front, tid, stamp) in [
            ("", None, Stamp::None),
            (
                "4242@1700000000.123456:",
                Some(4242),
                Stamp::Ns(1_700_000_000_123_456_000),
            ),
            (
                "  4242@1700000000123456789 ",
                Some(4242),
                Stamp::Ns(1_700_000_000_123_456_789),
            ),
            (
                "2023-11-14T22:13:20.123456Z ",
                None,
                Stamp::Ns(1_700_000_000_123_456_000),
            ),
            (
                "2023-11-14T22:13:20Z ",
                None,
                Stamp::Ns(1_700_000_000_000_000_000),
            ),
            ("guest1 ", None, Stamp::None),
            ("[fish food] ", None, Stamp::None),
            ("qemu-system-x86_64: ", None, Stamp::None),
            (
                "2023-11-14T22:13:20.123456Z guest1 qemu-system-x86_64(4242:CPU 0/KVM): ",
                Some(4242),
                Stamp::Ns(1_700_000_000_123_456_000),
            ),
        ] {
            let line = format!("{front}kvm_dirty_ring_page vcpu 1 fetch 7 offset 0x2a");
            let (prefix, body) = read(&line);
            assert_eq!((prefix.tid, prefix.stamp), (tid, stamp), "{line}");
            assert_eq!(
                body,
                Body::Event(Observed::QemuPage {
                    cpu_index: 1,
                    fetch: 7,
                    offset: 42
                }),
                "{line}"
            );
        }
    }

    #[test]
    fn every_form_of_a_memslot_is_read() {
        let event = Body::Event(Observed::QemuSetMemory {
            slot: 65_539,
            flags: 1,
            gpa: 0x10_0000,
            size: 0x4000,
            ret: 0,
        });
        for text in [
            "kvm_set_user_memory Slot#65539 flags=0x1 gpa=0x100000 size=0x4000 ua=0x7f1200000000 ret=0",
            "kvm_set_user_memory AddrSpace#1 Slot#3 flags=0x1 gpa=0x100000 size=0x4000 ua=0x7f1200000000 ret=0",
            "kvm_set_user_memory AddrSpace#1 Slot#3 flags=0x1 gpa=0x100000 size=0x4000 ua=0x7f1200000000 \
             guest_memfd=-1 guest_memfd_offset=0x0 ret=0",
            "kvm_set_user_memory AddrSpace#1 Slot#3 flags=0x1 gpa=0x100000 size=0x4000 ua=0x7f1200000000 ret=0 \
             restricted_fd=19 restricted_offset=0x0",
        ] {
            assert_eq!(parse_event(text.as_bytes()), event, "{text}");
        }
    }

    #[test]
    fn a_line_written_over_another_is_no_event() {
        assert_eq!(
            parse(b"4242@1700000000.1234564243@1700000000.123460:kvm_dirty_ring_page vcpu 1 fetch 7 offset 0x2a"),
            Line::Foreign
        );
        let (_, body) = read(
            "kvm_dirty_ring_page vcpu 1 fetch 7 off4242@1700000000.123456:kvm_dirty_ring_reap r",
        );
        assert_eq!(body, Body::Damaged);
        assert_eq!(
            parse(b"(process:12): GLib-WARNING **: something"),
            Line::Foreign
        );
    }

    #[test]
    fn ioctls_that_do_not_matter_are_other_events() {
        assert_eq!(
            parse_event(b"kvm_vm_ioctl type 0xaec7, arg (nil)"),
            Body::Event(Observed::QemuVmIoctl {
                ioctl: KvmIoctl::ResetDirtyRings
            })
        );
        assert_eq!(
            parse_event(b"kvm_vm_ioctl type 0x4010ae67, arg 0x7ffd0"),
            Body::Other
        );
    }
}
