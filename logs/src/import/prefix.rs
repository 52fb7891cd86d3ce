//! What stands in front of an event: task, processor, time. Each tool's own form is in its own file.

/// A time stamp as the tool wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Nanoseconds.
    Ns(u64),
    /// A clock that does not count nanoseconds.
    Tick(u64),
    /// The tool wrote no time.
    None,
}

/// A line taken apart: who, where, when, and the event's name and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix<'a> {
    /// The thread's name, as bytes: a task may name itself anything.
    pub comm: Option<&'a [u8]>,
    /// Thread.
    pub tid: Option<u32>,
    /// Process (thread group).
    pub pid: Option<u32>,
    /// Host processor.
    pub cpu: Option<u32>,
    /// Time.
    pub stamp: Stamp,
    /// Name of the event, without its subsystem; empty for a line of the same tool that is no event.
    pub event: &'a [u8],
    /// Text behind the name.
    pub body: &'a [u8],
}

/// What one line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// An event, not yet looked at.
    Event(Prefix<'a>),
    /// The tool lost events on a processor; how many, where it says so.
    Lost {
        /// Host processor.
        cpu: Option<u32>,
        /// How many.
        count: Option<u64>,
    },
    /// The tool's own words: headers, empty lines, comments.
    Header,
    /// Not a line of this tool.
    Foreign,
}

/// A line without the marks that mail programs put in front of what they quote: `> `, once a level.
pub(crate) fn unquoted(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix(b">") {
        line = rest.strip_prefix(b" ").unwrap_or(rest);
    }
    line
}

/// Seconds with 6 digits of microseconds or 9 of nanoseconds, as the kernel's and perf's clocks are printed.
pub(crate) fn seconds(c: &mut super::cursor::Cursor<'_>) -> Option<u64> {
    let mut ahead = *c;
    let secs = ahead.dec()?;
    ahead.word(b".")?;
    let before = ahead.rest().len();
    let fraction = ahead.dec()?;
    let scale = match before - ahead.rest().len() {
        6 => 1_000,
        9 => 1,
        _ => return None,
    };
    let ns = secs
        .checked_mul(1_000_000_000)?
        .checked_add(fraction * scale)?;
    *c = ahead;
    Some(ns)
}
