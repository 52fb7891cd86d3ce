//! Other tools' logs: [`import`] makes traces of them, which [`observed`] checks by themselves.
//!
//! The crate `dirtysim` offers all of it under the same names.
#![forbid(unsafe_code)]

pub mod import;
pub mod observed;

// What lies below, by its name there.
use dirtysim_check::alone;
#[cfg(test)]
use dirtysim_check::{random, scenario};
use dirtysim_evidence::trace;
