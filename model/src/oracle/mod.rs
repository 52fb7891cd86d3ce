//! The oracle: what must be true of a state, whatever the simulated kernel believes.
//!
//! It reads machine and state alone. It knows no operation and no mutation, so that a mutated kernel cannot excuse itself, and it
//! writes nothing; a test reads these files and sees to that.

mod check;
mod judge;
pub mod parts;

pub use crate::state::accounts::{Account, Accounts, accounts};
pub use crate::words::{Invariant, Invariants};
pub use check::{check, check_effect, contracts, lost, stale_unaccounted, unarmed};
pub use judge::Judge;
