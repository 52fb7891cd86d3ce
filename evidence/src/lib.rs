//! Evidence: the [`trace`] that is kept of a run, its [`replay`], its story ([`explain`]) and its causes ([`blame`]).
//!
//! The crate `dirtysim` offers all of it under the same names.
#![forbid(unsafe_code)]

pub mod blame;
pub mod distil;
pub mod explain;
pub mod letter;
pub mod measure;
pub mod page;
pub mod replay;
pub mod reproducer;
pub mod trace;

// What lies below, by its name there.
use dirtysim_check::{
    alone, fidelity, first, ladder, mutated, plain, random, refused, run, scenario, search, shrink,
    stuck,
};
