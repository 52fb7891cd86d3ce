//! What a migration costs in time: pre-copy simulated round by round, and what it is calibrated against.
//!
//! The rest of this project decides whether an order of collecting dirty pages is *safe*; this module says what it
//! *costs*, because half of the 2022 debate was about that: how many pages may the backup bitmap hold before the
//! scheme is pointless? It is a model of flow, not of steps: it counts pages, and does not know which.
//!
//! ```
//! use dirtysim_debate::cost::{Inputs, crossover, simulate};
//!
//! let inputs = Inputs::default();
//! let outcome = simulate(&inputs)?;
//! assert_eq!(outcome.downtime.parts().iter().map(|part| part.1).sum::<u64>(), outcome.downtime_ns);
//! assert!(outcome.bytes_sent >= inputs.memory_bytes);
//! let crossings = crossover(&inputs, &outcome)?;
//! assert!(crossings.beyond_limit < crossings.stop_and_copy);
//! # Ok::<(), dirtysim_debate::cost::CostError>(())
//! ```
//!
//! Integers throughout: nanoseconds, bytes, pages; ratios in thousandths. Every constant has its source in
//! [`constants`]; [`calibration`] says how far off the model is.

pub mod calibration;
pub mod constants;
mod crossover;
mod error;
mod fixed;
mod inputs;
mod plots;
mod precopy;
pub mod report;
mod steps;
mod sweep;
pub mod units;
mod workload;

pub use crossover::{Crossover, crossover, downtime_with};
pub use error::CostError;
pub use inputs::{
    CONNECTIONS_MAX, Inputs, MEMORY_MAX_BYTES, RATE_MAX, ROUNDS_MAX, RatePolicy, Rearm, StopRule,
    Tracking, VCPUS_MAX,
};
pub use plots::{downtime_chart, sweep_charts, total_time_chart};
pub use precopy::{Outcome, Round, StopReason, simulate};
pub use steps::{
    Downtime, WIRE_PAGE_BYTES, clear_ns, enable_ns, final_step, get_ns, stop_and_copy,
};
pub use sweep::{POINTS_MAX, Parameter, SWEEPS_MAX, Sweep, sweep};
pub use workload::{Pattern, WorkingSet, Writer};
