//! Traces.
pub mod observed;
