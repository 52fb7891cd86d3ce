//! What a row of a trace can do, whatever its kind.

use serde_json::{Map, Value};

use super::error::Complaint;
use super::header::Kind;

/// A row of one kind of trace.
pub trait TraceRow: Sized {
    /// The kind of trace that has such rows.
    const KIND: Kind;

    /// The row in an object. Every key must be known; fields must agree.
    fn from_object(object: Map<String, Value>) -> Result<Self, Complaint>;

    /// The row in a line's text, if that is quickly told and beyond doubt what [`from_object`](Self::from_object) would
    /// give; none leaves the line to that.
    fn from_text(_text: &str) -> Option<Self> {
        None
    }

    /// What [`from_object`](Self::from_object) would complain about in this row.
    fn check(&self) -> Result<(), Complaint>;

    /// The row as one line, without its line feed.
    fn to_line(&self) -> Result<String, Complaint>;
}
