//! What can be wrong with a log of another tool as a whole.

use std::fmt;

/// Why a log cannot become a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogProblem {
    /// It is something else, which its own tool has to print first.
    Binary(&'static str),
    /// It is a trace of this project.
    IsATrace,
    /// It is a raw recording of calls.
    IsARecording,
    /// It is no log that is known; how it begins.
    Unknown(String),
    /// An event without a time, where several logs are merged by time.
    NoTime,
    /// Its events are of more than one virtual machine.
    SeveralVms,
    /// None of its events is of those that were chosen.
    NoneChosen,
    /// Not one of its lines that name an event can be read.
    NoneReadable {
        /// How many such lines there are.
        lines: u64,
        /// What is odd about the first.
        first: String,
    },
    /// Not one of its lines is an event.
    NoEvent {
        /// How many lines there are.
        lines: u64,
    },
    /// It ends before another begins, and the two were to be merged by time.
    Apart(Box<Apart>),
}

/// Two logs that have no moment in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// From when to when this one's events are.
    pub own: [String; 2],
    /// The other log.
    pub other: String,
    /// From when to when its events are.
    pub others: [String; 2],
}

impl fmt::Display for LogProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(what) => write!(f, "this is {what}, not a text that import reads"),
            Self::IsATrace => f.write_str("this is a trace already"),
            Self::IsARecording => {
                f.write_str("this is a raw recording of KVM's calls, not a log of events")
            }
            Self::Unknown(begins) => {
                write!(f, "none of the logs that import reads; it begins {begins}")
            }
            Self::NoTime => {
                f.write_str("this event has no time, and several logs are merged by time")
            }
            Self::SeveralVms => f.write_str("it holds events of more than one virtual machine"),
            Self::NoneChosen => {
                f.write_str("no event is of the processes or threads given with --pid")
            }
            Self::NoneReadable { lines, first } => write!(
                f,
                "none of the {lines} lines that name an event of dirty logging can be read; the first odd line: {first}"
            ),
            Self::NoEvent { lines } => {
                write!(f, "none of its {lines} lines is an event of dirty logging")
            }
            Self::Apart(apart) => {
                let Apart {
                    own: [first, last],
                    other,
                    others: [begin, end],
                } = &**apart;
                write!(
                    f,
                    "its events are from {first} to {last}, and those of {other} from {begin} to {end}: the two have no \
                     moment in common, so that nothing says which came first"
                )
            }
        }
    }
}
