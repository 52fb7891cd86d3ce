//! One page: every event about it that a log, a recording or a schedule has, in order, and what became of it.
//!
//! [`log`] follows pages through the events of other tools, [`calls`] through recorded calls; a schedule is told by
//! [`explain`](crate::explain). [`names`] is what people write for a page.
//!
//! Not told: what no event names. A log without harvests does not say what was read, and nothing here guesses it.
//!
//! ```
//! use dirtysim_evidence::page::Events;
//!
//! let none = Events::default();
//! assert_eq!((none.total, none.iter().count()), (0, 0));
//! ```

pub mod calls;
pub mod log;
pub mod names;

use std::collections::VecDeque;

use serde::Serialize;

/// Events that are kept of one page, at most: the last ones.
pub const EVENTS_MAX: usize = 10_000;

/// Something that happened to a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Which log, an index into the sources.
    #[serde(skip_serializing_if = "is_first")]
    pub file: u32,
    /// Line in that log, or in the trace.
    pub line: u64,
    /// Who did it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// What happened.
    pub what: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_first(file: &u32) -> bool {
    *file == 0
}

/// The events of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    kept: VecDeque<Event>,
    /// How many there were.
    pub total: u64,
}

impl Events {
    fn push(&mut self, event: Event) {
        self.total += 1;
        if self.kept.len() == EVENTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// Those that are kept, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.kept.iter()
    }
}

/// What became of a page, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Its last entry was reset or overwritten, and nobody read it.
    Lost,
    /// Its last entry was never read, and stands in the ring at the end.
    Unread,
    /// Nothing names it.
    Unseen,
    /// Its last entry was pushed; whether it was read, the log does not tell.
    Unknown,
    /// Its last entry was read, and not reset: what is stored now leaves no record.
    NotArmed,
    /// Its last entry was read.
    Read,
}

impl Fate {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unread => "unread",
            Self::Unseen => "unseen",
            Self::Unknown => "unknown",
            Self::NotArmed => "not armed",
            Self::Read => "read",
        }
    }
}
