//! What an order costs, counted in seeded schedules of the model: steps, not time.
//!
//! ```
//! use dirtysim_check::scenario::builtin;
//! use dirtysim_evidence::measure::measure;
//!
//! let sum = measure(&builtin("kernel-docs").unwrap(), 10);
//! assert!(sum.ioctls > 10, "each schedule makes several");
//! ```

use std::collections::BTreeSet;

use dirtysim_model::state::vcpu::Vcpu;
use dirtysim_model::transition::{apply, describe, subject};

use crate::ladder::large;
use crate::refused::is_ioctl;
use crate::run::{Scheduler, whole_schedule};
use crate::scenario::Scenario;

/// Sums over schedules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// The schedules.
    pub schedules: u64,
    /// Ioctls that were made.
    pub ioctls: u64,
    /// Copies of a page that had been copied before.
    pub again: u64,
    /// Steps that were taken while every vCPU was outside KVM_RUN, from the first stop on.
    pub stopped: u64,
}

impl Measure {
    /// A sum by schedule, in tenths.
    #[must_use]
    pub fn tenths(self, sum: u64) -> u64 {
        (sum * 10 + self.schedules / 2) / self.schedules.max(1)
    }
}

/// Measures a scenario in the schedules of seeds `0..schedules`, every possible step as likely as another.
#[must_use]
pub fn measure(scenario: &Scenario, schedules: u64) -> Measure {
    let mut sum = Measure::default();
    for seed in 0..schedules {
        one(scenario, seed, &mut sum);
    }
    sum
}

fn one(scenario: &Scenario, seed: u64, sum: &mut Measure) {
    let machine = &scenario.machine;
    let mut state = large(scenario);
    let mut copied = BTreeSet::new();
    let mut ran = false;
    let mut ops: Vec<Option<u16>> = vec![None; machine.programs.len()];
    for step in whole_schedule(scenario, Scheduler::Random, seed) {
        if describe(machine, &state, step) == "copy" {
            let page = subject(machine, &state, step);
            sum.again += u64::from(page.is_some_and(|page| !copied.insert(page)));
        }
        apply(machine, &mut state, step);
        for (index, thread) in state.threads.iter().enumerate() {
            if ops[index] != Some(thread.op) {
                ops[index] = Some(thread.op);
                let op = machine.programs[index].get(usize::from(thread.op));
                sum.ioctls += u64::from(op.is_some_and(is_ioctl));
            }
        }
        let stopped = state.vcpus.iter().all(Vcpu::is_stopped);
        ran |= !stopped;
        sum.stopped += u64::from(stopped && ran);
    }
    sum.schedules += 1;
}
