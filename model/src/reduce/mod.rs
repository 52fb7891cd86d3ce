//! What lets a search look at less: states as bits, what a step depends on, pages and vCPUs that are alike, steps that need no
//! interleaving. Types and algorithms; what they know of operations comes from the rows, and of fields from the walk.
//!
//! ```
//! use dirtysim_model::reduce::independence::Rules;
//! use dirtysim_model::machine::{Machine, Op};
//! use dirtysim_model::state::{State, layout::Small};
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! let mut machine = Machine::new(Arch::X86, Kernel::V7_2, false);
//! machine.programs = vec![vec![Op::CreateVcpu]];
//! let rules = Rules::of(&machine, |_| true);
//! let state = State::<Small>::new(&machine);
//! // The only step here may create what others see.
//! assert_eq!(rules.local_step(&machine, &state), None);
//! ```

pub mod footprint;
pub mod independence;
pub mod pack;
pub mod symmetry;
mod widths;

pub use widths::harvests_exclude_each_other;
