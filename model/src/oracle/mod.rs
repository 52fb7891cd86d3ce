//! The oracle: what must be true of a state, whatever the simulated kernel believes.
//!
//! It reads machine and state alone. It knows no operation and no mutation, so that a mutated kernel cannot excuse itself, and it
//! writes nothing; a test reads these files and sees to that.
//!
//! ```
//! use dirtysim_model::oracle::check;
//! use dirtysim_model::transition::Effect;
//! use dirtysim_model::machine::{Machine, Op};
//! use dirtysim_model::state::{State, layout::Small};
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! let mut machine = Machine::new(Arch::X86, Kernel::V7_2, false);
//! machine.programs = vec![vec![Op::CreateVcpu]];
//! let state = State::<Small>::new(&machine);
//! assert_eq!(check(&machine, &state, Effect::None).iter().next(), None);
//! ```

mod check;
mod judge;
pub mod parts;

pub use crate::state::accounts::{Account, Accounts, accounts};
pub use crate::words::{Invariant, Invariants};
pub use check::{check, check_effect, contracts, lost, stale_unaccounted, unarmed};
pub use judge::Judge;
