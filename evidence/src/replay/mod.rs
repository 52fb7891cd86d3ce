//! Running a trace again: the simulator's own schedules, step by step, and recordings of real kernels, call by call.

pub mod calls;
mod frames;
mod gic;
mod guest;
mod its;
mod memory;
mod model_host;
mod program;
pub mod steps;
mod vm;

pub use model_host::{ModelHost, Modelled};
pub use vm::{GUEST_PAGES_MAX, VCPUS_MAX};
