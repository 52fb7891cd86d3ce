//! Mutations on a scenario: whether one could act at all, and whether it did.
//!
//! A mutation that can do nothing says nothing, and a verdict with it is one without it. What the machine or the program
//! lacks is told before anything runs (`lacks`); what is there and was never met, after (`acts`).
//!
//! ```
//! use dirtysim_check::{mutated::lacks, scenario::builtin};
//! use dirtysim_model::words::mutation::Mutations;
//!
//! let scenario = builtin("kernel-docs").unwrap();
//! let mutation = Mutations::by_name("device.sync_before_start=error").unwrap();
//! println!("it can do nothing here: {}", lacks(&scenario, mutation).unwrap());
//! ```

mod acts;

pub use crate::scenario::lacks::lacks;
pub use acts::{Acted, SCHEDULES, acted, acted_in, acts_at};
