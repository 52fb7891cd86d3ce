//! Running a trace again: the simulator's own schedules, step by step, and recordings of real kernels, call by call.

pub mod steps;
