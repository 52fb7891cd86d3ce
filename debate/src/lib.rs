//! The [`debate`]'s claims and their verdicts, what a migration costs ([`cost`]), and charts ([`plot`]).
//!
//! The crate `dirtysim` offers all of it under the same names.
#![forbid(unsafe_code)]

pub mod cost;
pub mod debate;
pub mod plot;

// What lies below, by its name there.
use dirtysim_check::{fidelity, plain, run, scenario, search, shrink};
use dirtysim_evidence::{explain, replay};
