//! Running a trace again: the simulator's own schedules, step by step, and recordings of real kernels, call by call.
//!
//! ```
//! use dirtysim_evidence::replay::steps::{rows, write};
//! use dirtysim_evidence::trace::TraceReader;
//! use dirtysim_check::run::{Options, run};
//! use dirtysim_check::scheduler::Scheduler;
//! use dirtysim_check::scenario::Scenario;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! let options = Options { seeds: 0..1_000, scheduler: Scheduler::Mix, keep_going: false };
//! let failure = run(&scenario, &options, &|_| true).failure.unwrap();
//! let mut trace = Vec::new();
//! write(&mut trace, &scenario, &failure.steps, Some(failure.invariant), "an example").unwrap();
//! assert_eq!(rows(&scenario, &failure.steps).unwrap().len(), failure.steps.len());
//! assert!(TraceReader::new(&trace[..], "early.jsonl").is_ok());
//! ```

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
