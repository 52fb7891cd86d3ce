//! What can be wrong with a row's fields.

use std::fmt;

use super::FieldProblem;
use crate::trace::{Errno, RunError};

/// The causes, a variant each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowProblem {
    /// A field does not belong, is missing or is malformed.
    Field(FieldProblem),
    /// A field that rows of this event do not have.
    SaysNothing {
        /// The field.
        key: String,
        /// The event.
        event: &'static str,
    },
    /// Neither or both of an exit's reason and an errno.
    ReasonOrErrno,
    /// No VM in a row whose call is one of a VM, by the call's name.
    NoVm(&'static str),
    /// A VM in a row whose call is of none, by the call's name.
    HasVm(&'static str),
    /// What stands in the place of a VM's number.
    Vm(String),
    /// A section's name that is no word.
    SectionName,
    /// Neither a call nor a section.
    NeitherCallNorSection,
    /// Stores of a size that no instruction has, in bytes.
    StoreBytes(u32),
    /// A read of so many bytes.
    ReadBytes(u32),
    /// A READ_PAGE row that does not say what was read.
    Read,
    /// A place within a page that no page has.
    StoreAt(u32),
    /// So many elements of what is no string instruction.
    Elements(u32),
    /// A copy that no guest of the format makes.
    Copy {
        /// Its elements.
        elements: u32,
        /// Bytes of each.
        bytes: u32,
        /// Where in its page it begins.
        at: u32,
    },
    /// A register of a size that none has, in bytes.
    RegisterBytes(u32),
    /// A count that is not that of the entries.
    Count {
        /// What the row says.
        count: u64,
        /// What it has.
        entries: u64,
    },
    /// Words past the caller's buffer, which has so many.
    WordsPastGiven(u64),
    /// A word past those that were written.
    WordPastWritten {
        /// Its index.
        last: u64,
        /// How many were written.
        written: u64,
    },
    /// A result that a call cannot return.
    Ret(i64),
    /// A result of success beside an errno.
    RetAndErrno {
        /// The result.
        ret: i64,
        /// The errno.
        errno: Errno,
    },
    /// A result of failure without an errno.
    RetWithoutErrno(i64),
    /// An errno without a result.
    ErrnoWithoutRet,
    /// The result has not a field that it must have.
    ResultHasNo(&'static str),
    /// The result has a field that it cannot have.
    ResultHas(&'static str),
    /// Runs of pages, words or entries that cannot be.
    Runs(RunError),
    /// A step that is not possible in the state that the steps before it lead to, in words.
    NotPossible(String),
    /// kvm-jsonl: a machine for the second time.
    SecondHost,
    /// kvm-jsonl: no scenario to begin with.
    NoScenario,
    /// kvm-jsonl: no machine behind the first scenario.
    NoHost,
    /// kvm-jsonl: a row of one scenario among those of another.
    OtherScenario {
        /// The row's.
        found: String,
        /// The one that is under way.
        under_way: String,
    },
    /// kvm-jsonl: a row out of order.
    RowNumber {
        /// Its number.
        number: u64,
        /// The one that comes next.
        next: u64,
    },
    /// kvm-jsonl: a field that every row has is not there.
    Missing(&'static str),
    /// kvm-jsonl: a field that every row has is malformed.
    Malformed(&'static str),
    /// kvm-jsonl: two sizes of a slot that are not the same.
    SlotSizes {
        /// In pages.
        npages: u64,
        /// In bytes.
        bytes: u64,
    },
    /// kvm-jsonl: a name and a number that are not of the same thing.
    NameAndNumber {
        /// What they should be of.
        what: &'static str,
        /// The name.
        name: String,
        /// The number.
        number: u32,
    },
    /// kvm-jsonl: a name that is of nothing that is known, with a number that is not either.
    UnknownName {
        /// What it should be of.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// kvm-jsonl: fields that do not belong to what was stored.
    Stored,
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(problem) => problem.fmt(f),
            Self::SaysNothing { key, event } => {
                write!(f, "`{key}` says nothing in a `{event}` row")
            }
            Self::ReasonOrErrno => {
                f.write_str("a kvm_userspace_exit has an exit reason or an errno, one of the two")
            }
            Self::NoVm(call) => write!(f, "`{call}` without a `vm`"),
            Self::HasVm(call) => write!(f, "`{call}` has a `vm`"),
            Self::Vm(found) => write!(f, "`vm` is {found}"),
            Self::SectionName => f.write_str("the section's name is empty or has blanks"),
            Self::NeitherCallNorSection => {
                f.write_str("the line has neither a `call` nor a `section`")
            }
            Self::ReadBytes(bytes) => write!(f, "a read of {bytes} bytes"),
            Self::Read => f.write_str("not one value that was read"),
            Self::StoreAt(at) => write!(f, "accesses at byte {at} of their pages"),
            Self::StoreBytes(bytes) => write!(f, "stores of {bytes} bytes"),
            Self::Elements(elements) => {
                write!(f, "`elements` is {elements} of an access that is no copy")
            }
            Self::Copy {
                elements,
                bytes,
                at,
            } => write!(
                f,
                "a copy of {elements} elements of {bytes} bytes, to byte {at} of its pages"
            ),
            Self::RegisterBytes(bytes) => write!(f, "a register of {bytes} bytes"),
            Self::Count { count, entries } => {
                write!(f, "`count` is {count}, but `entries` has {entries}")
            }
            Self::WordsPastGiven(given) => {
                write!(f, "`words` reaches past `words_given`, which is {given}")
            }
            Self::WordPastWritten { last, written } => {
                write!(
                    f,
                    "`words` has word {last}, but `words_written` is {written}"
                )
            }
            Self::Ret(ret) => write!(f, "`ret` is {ret}"),
            Self::RetAndErrno { ret, errno } => {
                write!(f, "`ret` is {ret}, and `errno` is {errno}")
            }
            Self::RetWithoutErrno(ret) => write!(f, "`ret` is {ret} without an `errno`"),
            Self::ErrnoWithoutRet => f.write_str("an `errno` without a `ret`"),
            Self::ResultHasNo(field) => write!(f, "the result has no `{field}`"),
            Self::ResultHas(field) => write!(f, "the result has a `{field}`"),
            Self::Runs(error) => error.fmt(f),
            Self::NotPossible(step) => write!(f, "not possible here: {step}"),
            Self::SecondHost => f.write_str("a second HOST row"),
            Self::NoScenario => f.write_str("the first row is no SCENARIO"),
            Self::NoHost => f.write_str("there is no HOST row"),
            Self::OtherScenario { found, under_way } => write!(
                f,
                "a row of scenario {found:?} where {under_way:?} is under way"
            ),
            Self::RowNumber { number, next } => {
                write!(f, "row {number} where {next} comes next")
            }
            Self::Missing(key) => write!(f, "missing field `{key}`"),
            Self::Malformed(key) => write!(f, "`{key}` is malformed"),
            Self::SlotSizes { npages, bytes } => {
                write!(f, "`npages` is {npages}, but `bytes` is {bytes}")
            }
            Self::NameAndNumber { what, name, number } => {
                write!(f, "no {what} is called {name} and has number {number}")
            }
            Self::UnknownName { what, name } => write!(f, "unknown {what} {name}"),
            Self::Stored => f.write_str("the fields do not belong to this `what`"),
        }
    }
}
