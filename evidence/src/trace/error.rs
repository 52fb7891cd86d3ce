//! What can be wrong with a trace, as data.
//!
//! Every error names the file and the line, says what is wrong there, and says what to write instead. Nothing
//! here is about the kernel: an errno that a kernel returned is a result like any other and lives in
//! [`super::call_result`].

use std::fmt;

use serde_json::{Map, Value};

use super::Kind;
use super::problems::{
    CallProblem, FieldProblem, HeaderProblem, LogProblem, RowProblem, ScheduleProblem,
};

/// A trace that cannot be read, or a recording that cannot be imported.
///
/// Displays as `file:line: problem`, then `help: …` on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceError {
    /// The name under which the input was opened.
    pub file: String,
    /// The line, counted from 1; 0 where the file as a whole is meant.
    pub line: u64,
    /// What is wrong.
    pub problem: Problem,
    /// What to write or to do instead, as one sentence without a full stop.
    pub help: String,
}

impl TraceError {
    /// An error at `file:line`; boxed, because results carry it through every row.
    pub fn new(file: &str, line: u64, problem: Problem, help: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            file: file.to_owned(),
            line,
            problem,
            help: help.into(),
        })
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}\nhelp: {}", self.file, self.problem, self.help)
        } else {
            write!(
                f,
                "{}:{}: {}\nhelp: {}",
                self.file, self.line, self.problem, self.help
            )
        }
    }
}

impl std::error::Error for TraceError {}

/// The kinds of problem, one variant a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The operating system refused to open or to read the file; its own words.
    Io(String),
    /// The file has no line at all.
    Empty,
    /// A line is longer than the reader's limit, in bytes; nothing past the limit was kept.
    LineTooLong {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// A line is not UTF-8.
    InvalidUtf8 {
        /// The first offending byte of the line, counted from 1.
        column: usize,
    },
    /// A line between two others is empty.
    BlankLine,
    /// The file ends inside its last line.
    TruncatedLine,
    /// A line is not JSON; the parser's own words.
    NotJson {
        /// Where in the line the parser stopped, counted from 1.
        column: usize,
        /// Why it stopped.
        message: String,
    },
    /// A line is JSON, but no object.
    NotAnObject,
    /// An object has the same key twice.
    DuplicateKey(String),
    /// The first line is no header of a trace of this project.
    NotATrace,
    /// The header names a version that this reader does not know.
    WrongVersion(String),
    /// The header names a kind that does not exist.
    UnknownKind(String),
    /// The trace is of another kind than the command wants.
    WrongKind {
        /// The kind that was wanted.
        wanted: Kind,
        /// The kind that the header names.
        found: Kind,
    },
    /// A log of another tool cannot become a trace, as a whole.
    Log(LogProblem),
    /// A schedule inside a text cannot be read.
    Schedule(ScheduleProblem),
    /// The header has an unknown, missing or malformed field.
    Header(HeaderProblem),
    /// A row has an unknown, missing, malformed or contradictory field.
    Row(RowProblem),
    /// A recorded call cannot be performed again.
    Call(CallProblem),
    /// A row names a call or an act that does not exist.
    UnknownCall(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Io(message) => write!(f, "cannot read: {message}"),
            Problem::Empty => f.write_str("the file is empty"),
            Problem::LineTooLong { limit_bytes } => {
                write!(f, "the line is longer than {limit_bytes} bytes")
            }
            Problem::InvalidUtf8 { column } => {
                write!(f, "invalid UTF-8 at byte {column} of the line")
            }
            Problem::BlankLine => f.write_str("the line is blank"),
            Problem::TruncatedLine => f.write_str("the file ends inside this line"),
            Problem::NotJson { column, message } => {
                write!(f, "not JSON at byte {column} of the line: {message}")
            }
            Problem::NotAnObject => f.write_str("the line is JSON, but not an object"),
            Problem::DuplicateKey(key) => write!(f, "the key `{key}` appears twice"),
            Problem::NotATrace => f.write_str("this is not the header of a dirtysim trace"),
            Problem::WrongVersion(found) => write!(f, "unknown trace version {found}"),
            Problem::UnknownKind(found) => write!(f, "unknown kind of trace {found}"),
            Problem::WrongKind { wanted, found } => {
                write!(f, "the trace is of kind `{found}`, not `{wanted}`")
            }
            Problem::Log(problem) => problem.fmt(f),
            Problem::Schedule(problem) => problem.fmt(f),
            Problem::Header(problem) => write!(f, "header: {problem}"),
            Problem::Row(problem) => problem.fmt(f),
            Problem::Call(problem) => problem.fmt(f),
            Problem::UnknownCall(found) => write!(f, "unknown call {found}"),
        }
    }
}

impl Problem {
    /// A field of the header.
    pub(crate) fn header_field(problem: FieldProblem) -> Self {
        Self::Header(HeaderProblem::Field(problem))
    }

    /// A field of a row.
    #[must_use]
    pub fn row_field(problem: FieldProblem) -> Self {
        Self::Row(RowProblem::Field(problem))
    }
}

/// Stands between problem and help in a message of ours that goes through serde, which knows messages only.
const HELP_FOLLOWS: &str = "; help: ";

/// A problem with one line's content, before the line is known: what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub problem: Problem,
    /// What to write instead.
    pub help: String,
}

impl Complaint {
    /// A complaint about a row's fields.
    pub fn row(problem: RowProblem, help: impl Into<String>) -> Self {
        Self {
            problem: Problem::Row(problem),
            help: help.into(),
        }
    }

    /// A complaint about the header.
    pub fn header(problem: HeaderProblem, help: impl Into<String>) -> Self {
        Self {
            problem: Problem::Header(problem),
            help: help.into(),
        }
    }

    /// A complaint about a call that is to be performed again.
    pub fn call(problem: CallProblem, help: impl Into<String>) -> Self {
        Self {
            problem: Problem::Call(problem),
            help: help.into(),
        }
    }

    /// A complaint if there is a null anywhere in `object`: a field without a value is left out.
    pub(crate) fn about_nulls(
        object: &Map<String, Value>,
        wrap: fn(FieldProblem) -> Problem,
    ) -> Result<(), Self> {
        for (key, value) in object {
            match value {
                Value::Null => {
                    let problem = wrap(FieldProblem::Null(key.clone()));
                    return Err(Self {
                        problem,
                        help: "leave the field out".to_owned(),
                    });
                }
                Value::Object(inner) => Self::about_nulls(inner, wrap)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Says where it is.
    pub fn at(self, file: &str, line: u64) -> Box<TraceError> {
        TraceError::new(file, line, self.problem, self.help)
    }

    /// The complaint as a message for serde, from which [`from_serde`](Self::from_serde) gets it back.
    pub(crate) fn for_serde<E: serde::de::Error>(self) -> E {
        E::custom(format_args!("{}{HELP_FOLLOWS}{}", self.problem, self.help))
    }

    /// What serde says about an object's fields, cut into a problem and what was expected.
    #[must_use]
    pub fn from_serde(error: &serde_json::Error, wrap: fn(FieldProblem) -> Problem) -> Self {
        let text = error.to_string();
        if let Some((problem, help)) = text.split_once(HELP_FOLLOWS) {
            return Self {
                problem: wrap(FieldProblem::Parser(problem.to_owned())),
                help: help.to_owned(),
            };
        }
        match text
            .split_once(", expected ")
            .or_else(|| text.split_once(", there are "))
        {
            Some((problem, expected)) => Self {
                problem: wrap(FieldProblem::Parser(problem.to_owned())),
                help: format!("expected {expected}"),
            },
            None => Self {
                problem: wrap(FieldProblem::Parser(text)),
                help: "docs/trace-format.md lists the fields of every row".to_owned(),
            },
        }
    }
}
