//! dirtysim: simulate and check KVM's dirty logging.
//!
//! [`scenario`] turns a text into a machine of the model; [`run`] drives it under seeded schedules; [`search`] looks at every
//! one of them. `trace` is what is kept of a run, and `replay` runs it again; `import` makes traces of other tools' logs, which `observed`
//! checks by themselves. A violation is made short by [`shrink`], told by `explain`, and traced to its causes by `blame`;
//! `cost` says what a migration takes.
//!
//! What changes together is a crate: `dirtysim-check`, `dirtysim-evidence` (feature `evidence`, which the others bring), `dirtysim-logs`
//! (feature `import`), `dirtysim-debate` (feature `debate`) and `dirtysim-kvm` (feature `kvm`). Everything of theirs is here, under one name; the command line is here alone.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;

pub use dirtysim_check::{
    bugs, fidelity, first, ladder, mutated, orders, random, refused, reproduce, run, scenario,
    scheduler, search, shrink, sometimes, stuck,
};
#[cfg(feature = "debate")]
pub use dirtysim_debate::{cost, debate, plot};
#[cfg(feature = "evidence")]
pub use dirtysim_evidence::{
    blame, distil, explain, letter, measure, page, replay, reproducer, trace,
};
/// A VMM's own code under every schedule.
#[cfg(feature = "kvm")]
pub use dirtysim_kvm as kvm;
#[cfg(feature = "import")]
pub use dirtysim_logs::{import, observed};
/// The semantics, which all of these go through.
pub use dirtysim_model as model;

#[cfg(feature = "cli")]
use dirtysim_check::plain;
