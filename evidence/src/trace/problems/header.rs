//! What can be wrong with a header.

use std::fmt;

use super::FieldProblem;

/// The causes, a variant each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderProblem {
    /// A field does not belong, is missing or is malformed.
    Field(FieldProblem),
    /// What a header of its kind has is not there, by its key.
    Missing(&'static str),
    /// A page size that no host has, in bytes.
    PageSize(u64),
    /// A ring of so many entries.
    RingEntries(u32),
    /// A reserve that leaves nothing of the ring.
    RingReserved {
        /// Entries in reserve.
        reserved: u32,
        /// The ring's, or those of the largest ring.
        entries: u32,
    },
    /// What was said of a machine, in a trace that is no log.
    Known,
    /// A number of address spaces that no VM has.
    AddressSpaces(u32),
    /// A cycle of no steps.
    EmptyCycle,
    /// A cycle in a trace that is no schedule.
    Cycle,
    /// A mutation of that name is not known.
    UnknownMutation(String),
    /// A kernel that the model does not know, by its release.
    UnknownKernel(String),
}

impl fmt::Display for HeaderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(problem) => problem.fmt(f),
            Self::Missing(key) => write!(f, "no `{key}`"),
            Self::PageSize(bytes) => write!(f, "`page_size` is {bytes} bytes"),
            Self::RingEntries(entries) => write!(f, "`ring_entries` is {entries}"),
            Self::RingReserved { reserved, entries } => write!(
                f,
                "`ring_reserved` is {reserved}, of a ring of {entries} entries"
            ),
            Self::Known => f.write_str("a `known`"),
            Self::AddressSpaces(spaces) => write!(f, "`address_spaces` is {spaces}"),
            Self::EmptyCycle => f.write_str("`cycle` is 0"),
            Self::Cycle => f.write_str("a `cycle`"),
            Self::UnknownMutation(name) => write!(f, "unknown mutation `{name}`"),
            Self::UnknownKernel(release) => write!(f, "kernel release `{release}`"),
        }
    }
}
