//! Mutations on a scenario: whether one could act at all, and whether it did.
//!
//! A mutation that can do nothing says nothing, and a verdict with it is one without it. What the machine or the program
//! lacks is told before anything runs (`lacks`); what is there and was never met, after (`acts`).

mod acts;
mod lacks;

pub use acts::{Acted, SCHEDULES, acted, acted_in, acts_at};
pub use lacks::lacks;
