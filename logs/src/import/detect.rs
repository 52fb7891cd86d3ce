//! Which tool wrote a log, from its first lines.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::prefix::{Line, unquoted};
use super::{ftrace, perf, qemu};

/// The kinds of log that become a trace of kind `observed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogKind {
    /// ftrace's text, or `trace-cmd report`'s.
    Ftrace,
    /// `perf script`'s text.
    Perf,
    /// QEMU's log.
    Qemu,
}

impl LogKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Ftrace, Self::Perf, Self::Qemu];

    /// The name that `--from` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ftrace => "ftrace",
            Self::Perf => "perf",
            Self::Qemu => "qemu",
        }
    }

    /// Reads one line of such a log.
    #[must_use]
    pub fn parse(self, line: &[u8]) -> Line<'_> {
        match self {
            Self::Ftrace => ftrace::parse(line),
            Self::Perf => perf::parse(line),
            Self::Qemu => qemu::parse(line),
        }
    }
}

impl fmt::Display for LogKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the first bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// A log that can be read.
    Log(LogKind),
    /// A recording that its own tool has to print first.
    Binary {
        /// What it is.
        what: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// A raw recording of KVM's calls: see [`super::import_kvm_jsonl`].
    KvmJsonl,
    /// A trace already.
    Trace,
    /// None of these.
    Unknown,
}

/// Says what a file is from its first bytes: the kind with the most lines that read as its events. A cut last line is
/// of no matter.
#[must_use]
pub fn detect(head: &[u8]) -> Detected {
    const MAGIC: [(&[u8], &str, &str); 5] = [
        (
            b"\x17\x08\x44tracing",
            "a trace.dat of trace-cmd",
            "run `trace-cmd report FILE > log.txt` and give log.txt",
        ),
        (
            b"PERFILE2",
            "a perf.data",
            "run `perf script -i FILE -F +pid > log.txt` and give log.txt",
        ),
        (
            b"\x1f\x8b",
            "compressed with gzip",
            "unpack it first: `gunzip FILE`",
        ),
        (
            b"\x28\xb5\x2f\xfd",
            "compressed with zstd",
            "unpack it first: `unzstd FILE`",
        ),
        (
            b"\xfd7zXZ",
            "compressed with xz",
            "unpack it first: `unxz FILE`",
        ),
    ];
    for (magic, what, help) in MAGIC {
        if head.starts_with(magic) {
            return Detected::Binary { what, help };
        }
    }
    if head.starts_with(b"{") {
        let first = head.split(|b| *b == b'\n').next().unwrap_or_default();
        return match serde_json::from_slice::<serde_json::Value>(first) {
            Ok(row)
                if row
                    .get("format")
                    .is_some_and(|format| format == crate::trace::FORMAT) =>
            {
                Detected::Trace
            }
            Ok(row) if row.get("op").is_some() => Detected::KvmJsonl,
            _ => Detected::Unknown,
        };
    }
    let mut counts = [0_u32; LogKind::ALL.len()];
    let mut before: &[u8] = b"";
    for line in head.split(|b| *b == b'\n') {
        let line = unquoted(line.strip_suffix(b"\r").unwrap_or(line));
        // A mail program may have broken every line of a log behind its front: two lines that say nothing alone.
        let both = [before.trim_ascii_end(), line.trim_ascii_start()].join(&b' ');
        for (kind, count) in LogKind::ALL.into_iter().zip(&mut counts) {
            let is_event =
                names_event(kind, line) || !names_event(kind, before) && names_event(kind, &both);
            *count += u32::from(is_event);
        }
        before = line;
    }
    match LogKind::ALL
        .into_iter()
        .zip(counts)
        .max_by_key(|(kind, count)| (*count, std::cmp::Reverse(*kind)))
    {
        Some((kind, count)) if count > 0 => Detected::Log(kind),
        _ => Detected::Unknown,
    }
}

/// Whether a line reads as an event of this kind of log.
fn names_event(kind: LogKind, line: &[u8]) -> bool {
    matches!(kind.parse(line), Line::Event(prefix) if !prefix.event.is_empty())
}

/// Says what a file is; only its beginning is read.
///
/// # Errors
///
/// The operating system's, when it cannot be opened or read.
pub fn detect_file(path: &Path) -> io::Result<Detected> {
    let mut head = Vec::new();
    File::open(path)?
        .take(super::raw_lines::BUFFER as u64)
        .read_to_end(&mut head)?;
    Ok(detect(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_told_by_its_lines() {
        for (text, kind) in [
            (
                "# tracer: nop\n#\n CPU 0/KVM-4242 [003] ..... 101.000001: kvm_exit: reason X\n",
                LogKind::Ftrace,
            ),
            (
                "cpus=8\n CPU 0/KVM-4242 [003] 101.000001: kvm_exit:   reason X\n",
                LogKind::Ftrace,
            ),
            (
                " CPU 0/KVM  4242 [003]   101.000001:   kvm:kvm_exit: reason X\n",
                LogKind::Perf,
            ),
            (
                "warning: x\n4242@1.123456:kvm_vm_ioctl type 0xaec7, arg (nil)\n",
                LogKind::Qemu,
            ),
            (
                "kvm_dirty_ring_reap reaped 1 pages (took 1 us)\n",
                LogKind::Qemu,
            ),
            (
                "A reader wrote:\n> >  CPU 0/KVM  4242 [003]   101.000001:   kvm:kvm_exit: reason X\n",
                LogKind::Perf,
            ),
        ] {
            assert_eq!(detect(text.as_bytes()), Detected::Log(kind), "{text}");
        }
        assert_eq!(
            detect(b"Dear list,\nmy guest is slow.\n"),
            Detected::Unknown
        );
        assert_eq!(detect(b""), Detected::Unknown);
        assert!(matches!(detect(b"PERFILE2\0\0"), Detected::Binary { .. }));
    }
}
