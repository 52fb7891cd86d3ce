//! What can be said about a trace of kind `observed`: from the interface's contract alone, here; and by a run of the model
//! that gives its events, in [`search`].
//!
//! A tracepoint's indices count every push and every reset, so that a log checks itself: an index that jumps, a ring
//! that is reset past what was pushed, an exit that was not due, a harvest that does not add up. [`Checker`] takes the
//! events one by one, in bounded memory, and answers with a [`CheckReport`].
//!
//! Areas verified: each ring's indices, the soft-full exit, what QEMU harvested against what was reset, the range of a
//! CLEAR, entries against the memslots that were recorded.
//!
//! Areas not verified: whether a page was lost (no log names the guest's stores), the bitmap (it has no tracepoint),
//! and anything across a gap in the log.
//!
//! ```
//! use dirtysim_evidence::trace::CheckConfig;
//! use dirtysim_logs::observed::{Weight, check_rows};
//!
//! // A log without events breaks nothing.
//! let report = check_rows(std::iter::empty(), CheckConfig::default()).unwrap();
//! assert!(!report.has(Weight::Defect));
//! ```

mod check;
mod check_userspace;
mod harvest;
mod losses;
mod report;
mod ring;
pub mod search;

pub use check::Checker;
#[cfg(test)]
mod logs_tests;

pub use report::{CheckReport, Claim, Finding, SoftLimit, Unknown, Weight};

pub use crate::trace::CheckConfig;
use crate::trace::observed::ObservedEvent;
use crate::trace::{Located, TraceError};

/// Checks the rows of a trace, as [`TraceReader::rows`](crate::trace::TraceReader::rows) gives them.
///
/// # Errors
///
/// The first row that cannot be read.
pub fn check_rows(
    rows: impl Iterator<Item = Result<Located<ObservedEvent>, Box<TraceError>>>,
    config: CheckConfig,
) -> Result<CheckReport, Box<TraceError>> {
    check_and(rows, config, |_| {})
}

/// The same, and takes note of what a search has to know first.
///
/// # Errors
///
/// The first row that cannot be read.
pub fn check_and_shape(
    rows: impl Iterator<Item = Result<Located<ObservedEvent>, Box<TraceError>>>,
    config: CheckConfig,
    shape: &mut search::Shape,
) -> Result<CheckReport, Box<TraceError>> {
    check_and(rows, config, |event| shape.event(event))
}

/// What a log shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The contract was kept as far as the log tells, and a run of the model gives it.
    Consistent,
    /// The contract was broken.
    Broken,
    /// Open, and why.
    Open(String),
}

/// What the two passes over a log come to: a defect breaks the contract; where no run was found, nothing could be compared, or
/// what was seen may be the log's own fault, the answer is open.
#[must_use]
pub fn answer(checked: &CheckReport, searched: &search::SearchReport) -> Answer {
    if checked.has(Weight::Defect) {
        return Answer::Broken;
    }
    if checked.has(Weight::Doubt) || checked.compared == 0 {
        return Answer::Open("what the log tells".to_owned());
    }
    match &searched.outcome {
        search::Outcome::Consistent => Answer::Consistent,
        search::Outcome::NoRunFound => Answer::Open("no run of the model was found".to_owned()),
        search::Outcome::Limit { limit } => Answer::Open(limit.clone()),
        search::Outcome::NotSearched { why } => Answer::Open(format!("not searched: {why}")),
    }
}

fn check_and(
    rows: impl Iterator<Item = Result<Located<ObservedEvent>, Box<TraceError>>>,
    config: CheckConfig,
    mut also: impl FnMut(&ObservedEvent),
) -> Result<CheckReport, Box<TraceError>> {
    let mut checker = Checker::new(config);
    for row in rows {
        let event = row?.row;
        checker.event(&event);
        also(&event);
    }
    Ok(checker.finish())
}
