//! What can be wrong with a field by itself, wherever it stands.

use std::fmt;

/// A field that does not belong, is missing or is malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldProblem {
    /// A field without a value, by its key.
    Null(String),
    /// What the parser of fields says, in its own words.
    Parser(String),
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(key) => write!(f, "`{key}` is null"),
            Self::Parser(message) => f.write_str(message),
        }
    }
}
