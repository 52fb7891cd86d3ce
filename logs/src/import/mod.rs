//! Other tools' logs, turned into traces.
//!
//! An importer changes the form and nothing else: it adds no event, drops none, and refuses what it does not know.
//!
//! ```
//! use dirtysim_logs::import::ImportError;
//!
//! let error = ImportError::from(std::io::Error::other("the disk is full"));
//! assert!(error.to_string().contains("cannot write the trace: the disk is full"));
//! ```

pub mod detect;
pub mod ftrace;
pub mod perf;
pub mod prefix;
pub mod qemu;
pub mod tracepoint;

mod body;
mod cursor;
mod kvm_jsonl;
mod kvm_jsonl_calls;
mod kvm_jsonl_rows;
mod logs;
mod raw_lines;
mod source;
mod summary;
mod vms;

use std::fmt;
use std::io;

pub use body::Body;
pub use kvm_jsonl::{ImportSummary, import_kvm_jsonl};
pub use logs::{LogOptions, import_log_files, import_logs};
pub use source::{LogStats, Place};
pub use summary::{Hint, LogSummary};
pub use vms::SeenPid;

use crate::trace::TraceError;

/// Why an import came to nothing.
#[derive(Debug)]
pub enum ImportError {
    /// The log cannot be read or understood.
    Log(Box<TraceError>),
    /// The trace cannot be written.
    Write(io::Error),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Log(error) => error.fmt(f),
            ImportError::Write(error) => {
                write!(
                    f,
                    "cannot write the trace: {error}\nhelp: check the place given with -o"
                )
            }
        }
    }
}

impl std::error::Error for ImportError {}

impl From<Box<TraceError>> for ImportError {
    fn from(error: Box<TraceError>) -> Self {
        ImportError::Log(error)
    }
}

impl From<io::Error> for ImportError {
    fn from(error: io::Error) -> Self {
        ImportError::Write(error)
    }
}
