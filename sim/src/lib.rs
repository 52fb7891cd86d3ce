//! dirtysim: simulate and check KVM's dirty logging.
//!
//! [`scenario`] turns a text into a machine of the model; [`run`] drives it under seeded schedules; [`trace`] is what is
//! kept of a run, and [`replay`] runs it again; [`import`] makes traces of other tools' logs, which [`observed`] checks
//! by themselves. A violation is made short by [`shrink`], told by [`explain`], and traced to its causes by [`blame`];
//! [`cost`] says what a migration takes.
#![forbid(unsafe_code)]

mod alone;
pub mod blame;
pub mod bugs;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "debate")]
pub mod cost;
#[cfg(feature = "debate")]
pub mod debate;
pub mod explain;
pub mod fidelity;
pub mod first;
#[cfg(feature = "import")]
pub mod import;
pub mod ladder;
pub mod mutated;
#[cfg(feature = "import")]
pub mod observed;
pub mod orders;
mod plain;
#[cfg(feature = "debate")]
pub mod plot;
pub mod random;
pub mod refused;
pub mod replay;
pub mod reproduce;
pub mod run;
pub mod scenario;
pub mod scheduler;
pub mod search;
pub mod shrink;
pub mod sometimes;
pub mod trace;
