//! Traces: what happened, one event a line, to be read by people and replayed by machines.
//!
//! JSON Lines. The first line is a [`Header`]; what the other lines are, it says in `kind`. Everything is strict: an
//! unknown key, call, version or kind is an error that names the file and the line and says what to write instead.
//! Reading is streaming and bounded, whatever the file claims. `docs/trace-format.md` describes the format.
//!
//! Rows of kind `call` are in [`call`], those of kind `observed` in [`observed`]. What replays them is not here: this module knows no model.
//!
//! ```
//! use dirtysim_evidence::trace::{Header, Kind};
//!
//! let header = Header::new(Kind::Step);
//! assert!(header.to_line().contains("\"kind\":\"step\""));
//! ```

pub mod call;
mod call_args;
pub mod call_result;
mod call_row;
mod calls;
pub mod enclosed;
mod error;
mod header;
pub mod hex;
mod kvm_ioctl;
mod lines;
mod names;
pub mod observed;
mod problems;
mod reader;
mod row;
mod runs;
pub mod step;
mod words;
mod writer;

pub use error::{Complaint, Problem, TraceError};
pub use header::{Arch, CheckConfig, Expect, FORMAT, Header, Kind, Machine, VERSION};
pub use lines::{DEFAULT_LINE_LIMIT_BYTES, JsonLines, object_into};
pub use names::{Cap, Errno, Exit};
pub use problems::{
    Apart, CallProblem, FieldProblem, HeaderProblem, LogProblem, RowProblem, ScheduleProblem,
};
pub use reader::{Located, Rows, TraceReader};
pub use row::TraceRow;
pub use runs::{
    PageRuns, RING_ENTRIES_MAX, RingEntries, RingEntry, RunError, SLOT_PAGES_MAX, StoreRuns,
};
pub use words::{SLOT_WORDS_MAX, WordRun, Words};
pub use writer::{PendingFile, TraceWriter, WriteError, check_apart};
