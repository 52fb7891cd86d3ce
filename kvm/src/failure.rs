//! What is told of code that failed: the claim or the panic, the schedule as a story, the trace, and how to run it again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use dirtysim_check::scenario::Scenario;
use dirtysim_check::shrink::blocks;
use dirtysim_evidence::explain::{Format, Story};
use dirtysim_evidence::replay::steps;
use dirtysim_evidence::trace::PendingFile;
use dirtysim_model::oracle::Invariant;
use dirtysim_model::transition::Step;

/// How code failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// A claim is broken: `no_dirty_page_lost` where a page was lost.
    Broken {
        /// The claim, by its name in traces and documents.
        claim: &'static str,
    },
    /// The code panicked under some schedule.
    Panicked {
        /// What it said.
        message: String,
        /// Where, as `file:line`.
        place: String,
    },
    /// The code returned an error under some schedule.
    ReturnedError {
        /// The error, as its `Debug` has it.
        error: String,
    },
    /// The same answers led to another call: time, the order of a hash map, a random number, a thread of its own.
    NotDeterministic {
        /// The call that followed these answers first, and where it was made.
        first: String,
        /// The call that followed them when the code was run again.
        again: String,
    },
    /// The code said by [`Vm::depends_only_on`](crate::Vm::depends_only_on) that it depends on the same alone as on another way, and then did something else.
    DependsOnMore {
        /// Where it said so.
        place: String,
        /// The call that followed on the other way.
        first: String,
        /// The call that followed on this one, after the same answers.
        again: String,
    },
    /// A thread made more calls than it may, and goes round.
    Endless {
        /// The calls of a round, and where they were made.
        round: Vec<String>,
        /// How many calls it had made.
        calls: u32,
    },
    /// A schedule did not end, by whatever goes on beside the code.
    TooLong,
    /// The code made no call for long ([`Checker::patience`](crate::Checker::patience)).
    Silent {
        /// The call after which that was.
        after: String,
    },
    /// The code used the simulated KVM as it cannot be used.
    Mistake {
        /// What is wrong.
        what: String,
        /// Where, as `file:line`.
        place: String,
    },
    /// The code came to its end without [`Vm::assert_copy_is_whole`](crate::Vm::assert_copy_is_whole), so that nothing can be said of it.
    ClaimsNothing,
    /// There is no such machine.
    Machine {
        /// What is wrong with it, and what to write instead.
        what: String,
    },
    /// A trace that cannot be replayed.
    Trace {
        /// What is wrong with it.
        what: String,
    },
}

/// Code that failed.
///
/// Its text is all that one needs: what happened, told step by step, and how to run it again.
#[derive(Debug, Clone)]
pub struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) name: String,
    pub(crate) found: Option<Box<Found>>,
    /// Where the trace is kept, or why it is not.
    pub(crate) trace: Option<Result<PathBuf, String>>,
}

/// The schedule under which code failed, in the language of scenarios.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) scenario: Scenario,
    pub(crate) steps: Vec<Step>,
    pub(crate) invariant: Invariant,
    pub(crate) found_by: String,
    /// Whether no schedule has fewer steps, or as many and fewer changes of who acts.
    pub(crate) story: Story,
}

impl Failure {
    pub(crate) fn of(kind: FailureKind, name: &str) -> Box<Self> {
        Box::new(Self {
            kind,
            name: name.to_owned(),
            found: None,
            trace: None,
        })
    }

    /// How it failed.
    #[must_use]
    pub fn kind(&self) -> &FailureKind {
        &self.kind
    }

    /// How it was found: `mix, seed 0`, `check`, or the trace; empty where no schedule led to it.
    #[must_use]
    pub fn found_by(&self) -> &str {
        self.found.as_ref().map_or("", |found| &found.found_by)
    }

    /// Steps of the schedule; 0 where no schedule led to it.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.steps.len())
    }

    /// Blocks of the schedule, in each of which one actor alone acts; 0 where no schedule led to it.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.found.as_ref().map_or(0, |found| blocks(&found.steps))
    }

    /// The pages that the broken claim is about, as `slot0:1`.
    #[must_use]
    pub fn pages(&self) -> &[String] {
        self.found.as_ref().map_or(&[], |found| &found.story.pages)
    }

    /// The schedule as a story for a terminal; empty where no schedule led to it.
    #[must_use]
    pub fn story(&self) -> String {
        self.told(Format::Text)
    }

    /// The schedule as one HTML page that needs no network.
    #[must_use]
    pub fn html(&self) -> String {
        self.told(Format::Html)
    }

    fn told(&self, format: Format) -> String {
        let found = self.found.as_ref();
        found.map_or_else(String::new, |found| format.tell(&found.story))
    }

    /// Where the trace is kept, if it is.
    #[must_use]
    pub fn trace(&self) -> Option<&Path> {
        match &self.trace {
            Some(Ok(path)) => Some(path),
            Some(Err(_)) | None => None,
        }
    }

    /// Writes the trace: a schedule of dirtysim, for [`replay`](crate::replay) and for the command line's `explain`, `shrink` and `blame`.
    ///
    /// # Errors
    /// What the operating system says; and where no schedule led to the failure, that there is none.
    pub fn write_trace(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let Some(found) = &self.found else {
            return Err(io::Error::other("no schedule led to this failure"));
        };
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut file = PendingFile::create(path)?;
        let invariant = Some(found.invariant);
        steps::write(
            &mut file,
            &found.scenario,
            &found.steps,
            invariant,
            &found.found_by,
        )
        .map_err(io::Error::other)?;
        file.keep()
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { claim } => write!(f, "{claim} is broken"),
            Self::Panicked { message, place } => write!(f, "panics at {place}: {message}"),
            Self::ReturnedError { error } => write!(f, "returns an error: {error}"),
            Self::NotDeterministic { first, again } => write!(
                f,
                "is not deterministic: after the same answers it went on otherwise when it was run again\n  first: {first}\n  again: {again}\nhelp: what differs from run to run is most often time, the order of a hash map, a random number, a static variable, or a thread that `vm.spawn` did not start"
            ),
            Self::DependsOnMore { place, first, again } => write!(
                f,
                "depends on more than it says at {place}: on two ways it says the same there, and after the same answers it went on otherwise\n  on the one: {first}\n  on the other: {again}\nhelp: name every variable that lives on in `depends_only_on`, or leave it out"
            ),
            Self::Endless { round, calls } => {
                write!(f, "does not end: after {calls} calls it still goes round\n  {}", round.join("\n  "))?;
                f.write_str("\nhelp: wait for what others do (`wait_ring_full`, a channel) in place of asking again, or bound the rounds; `Checker::max_calls` allows more")
            }
            Self::TooLong => f.write_str("a schedule went on for 50,000 steps\nhelp: give the guest fewer stores, or the code fewer rounds"),
            Self::Silent { after } => write!(
                f,
                "made no call for too long after {after}\nhelp: a loop that asks nothing of the simulated KVM never sees anything change: make a call in it; what waits for another thread has to wait by `vm.mutex` or `vm.channel`"
            ),
            Self::Mistake { what, place } => write!(f, "{what}, at {place}"),
            Self::ClaimsNothing => f.write_str("claims nothing: no schedule came to `vm.assert_copy_is_whole()`\nhelp: call it where your migration is done"),
            Self::Machine { what } | Self::Trace { what } => f.write_str(what),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.kind)?;
        let Some(found) = &self.found else {
            return Ok(());
        };
        writeln!(f, "\n{}", Format::Text.tell(&found.story))?;
        writeln!(f, "found by: {}", found.found_by)?;
        match &self.trace {
            Some(Ok(path)) => {
                let trace = path.display();
                writeln!(f, "kept, and tried first next time: {trace}")?;
                writeln!(f, "told by itself: dirtysim explain {trace}")
            }
            Some(Err(why)) => writeln!(f, "the trace is not kept: {why}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
