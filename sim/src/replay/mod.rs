//! Running a trace again: the simulator's own schedules, step by step, and recordings of real kernels, call by call.
//!
//! [`calls`] compares a recording with the model; [`vm`] is what performs a call on the model, with the interrupt
//! controller's part of it in [`its`] and the rules of mapping a ring in [`mmap`]. [`steps`] is for schedules.

pub mod calls;
pub mod its;
pub mod mmap;
pub mod steps;
pub mod vm;
