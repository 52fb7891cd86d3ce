//! What code under test returns, and what was seen of code that did not fail.

use std::fmt;

/// What code under test may return: nothing, or a result whose error counts as a failure.
pub trait Outcome {
    /// The error in words, if there is one.
    #[doc(hidden)]
    fn into_words(self) -> Result<(), String>;
}

impl Outcome for () {
    fn into_words(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Debug> Outcome for Result<(), E> {
    fn into_words(self) -> Result<(), String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// Whether the claims about every state on the way were judged, and not the end's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnTheWay {
    /// Nobody asked for it.
    NotAsked,
    /// They were.
    Judged,
    /// They were not, since not enough is known of what the code holds: why.
    NotJudged(&'static str),
}

/// What was seen of code that did not fail.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The name of the test, or of the machine.
    pub name: String,
    /// Whether every schedule was covered; else those that the other numbers say.
    pub exhaustive: bool,
    /// Distinct states of machine and code that were searched; 0: none.
    pub states: u64,
    /// Transitions between them.
    pub transitions: u64,
    /// Schedules of seeds.
    pub schedules: u64,
    /// Histories of calls and answers that the code has had.
    pub histories: u64,
    /// How often the code was run from its begin.
    pub runs: u64,
    /// Threads of the code.
    pub threads: u8,
    /// Whether they share no memory ([`Vm::spawn_apart`](crate::Vm::spawn_apart)): the histories are of each by itself, and else of the order of all.
    pub threads_apart: bool,
    /// Why not every schedule was covered, where that was asked for.
    pub note: Option<String>,
    /// Whether the claims on the way were judged.
    pub on_the_way: OnTheWay,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if self.exhaustive {
            write!(
                f,
                "holds under every schedule: {} states, {} transitions",
                self.states, self.transitions
            )?;
        } else {
            if let Some(note) = &self.note {
                write!(f, "{note}; ")?;
            }
            write!(f, "nothing broke in {} schedules", self.schedules)?;
        }
        write!(
            f,
            "; the code was run {} times for {} histories",
            self.runs, self.histories
        )?;
        match (self.threads, self.threads_apart) {
            (1, _) => {}
            (threads, true) => write!(f, " of its {threads} threads, each by itself")?,
            (threads, false) => write!(f, " of the order of its {threads} threads")?,
        }
        match self.on_the_way {
            OnTheWay::NotAsked => Ok(()),
            OnTheWay::Judged => f.write_str("; the claims on the way hold too"),
            OnTheWay::NotJudged(why) => {
                write!(f, "; the claims on the way were not judged: {why}")
            }
        }
    }
}
