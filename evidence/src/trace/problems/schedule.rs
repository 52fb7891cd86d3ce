//! What can be wrong with a schedule inside a text that people read.

use std::fmt;

/// Why such a schedule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleProblem {
    /// The scenario is not in the text.
    NoScenario,
    /// The scenario is there and is not TOML; the parser's own words.
    NotToml(String),
    /// A line without an actor; how it begins.
    NoActor(String),
    /// The length of a cycle is no number.
    Cycle,
    /// A claim or a page before any step.
    NoStep(String),
}

impl fmt::Display for ScheduleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScenario => f.write_str("a schedule without its scenario: copy the whole mail"),
            Self::NotToml(problem) => write!(f, "the scenario is not TOML: {problem}"),
            Self::NoActor(line) => write!(
                f,
                "`{line}`: a line of a schedule is an actor, a colon and its steps"
            ),
            Self::Cycle => f.write_str("`cycle` is a number of steps"),
            Self::NoStep(word) => write!(f, "`{word}` stands behind no step"),
        }
    }
}
