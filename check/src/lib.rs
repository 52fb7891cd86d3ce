//! Scenarios, run under seeded schedules and searched whole; what is found made short.
//!
//! [`scenario`] turns a text into a machine of the model; [`run`] drives it under seeded schedules, [`search`] takes every
//! interleaving, and [`shrink`] makes a violation short. The crate `dirtysim` offers all of it under the same names.
#![forbid(unsafe_code)]

pub mod alone;
pub mod bugs;
pub mod code;
pub mod fidelity;
pub mod first;
pub mod ladder;
pub mod mutated;
pub mod orders;
pub mod plain;
pub mod random;
pub mod refused;
pub mod reproduce;
pub mod run;
pub mod scenario;
pub mod scheduler;
pub mod search;
pub mod shrink;
pub mod sometimes;
pub mod stuck;
