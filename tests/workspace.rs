//! The workspace builds.
