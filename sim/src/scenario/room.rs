//! What a layout has no room for.

use std::fmt;

/// What there is more of than a layout has room for, and how much it has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// What there is too much of.
    pub what: &'static str,
    /// How much there may be.
    pub most: u64,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many {}: at most {}", self.what, self.most)
    }
}

impl std::error::Error for NoRoom {}

impl From<(&'static str, u64)> for NoRoom {
    fn from((what, most): (&'static str, u64)) -> Self {
        Self { what, most }
    }
}
