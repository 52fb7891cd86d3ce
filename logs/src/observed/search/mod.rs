//! A run of the model that gives what a log observed.
//!
//! A trace of kind `observed` is consistent if some run of the model gives its events in its order. This looks for such
//! a run: every step goes through the model's own choices and its one transition function, and what no log tells is left
//! open. Open are
//!
//! - the machine: each of `Shape::candidates` that the log allows is tried beside the others;
//! - the guest: which pages it stores to, when, and whether it comes back to a store that has faulted;
//! - KVM's own stores in a vCPU's context (steal time, emulation), to any page;
//! - what hardware does by itself: a TLB may drop an entry, a vCPU may be interrupted;
//! - the VMM, where the log has not recorded it: it harvests and calls KVM_RESET_DIRTY_RINGS when it likes;
//! - what came before the log, and what happened in its gaps.
//!
//! Of all orders in which the open steps may be taken, the latest is: nothing is harvested, reset or entered before an
//! event needs it, and where an event can be explained in two ways, what follows decides. Logs of random runs of the model
//! are found consistent that way (the tests of this module); that all are has not been proved, and a log that has QEMU's
//! harvests and the kernel's pushes but not its resets may not be. So a log for which no run was found is called
//! inconclusive, with the event at which each machine came to its end. A run that was found is a fact.
//!
//! What an event is, in the model: `kvm_dirty_ring_push` follows the step that moves a ring's dirty index, and its
//! indices are read when it is written, which may be later; `kvm_dirty_ring_reset` follows the last entry of a ring's
//! part of RESET; `kvm_dirty_ring_exit` is the soft-full check that leaves, `kvm_userspace_exit` the return to user space
//! (reason 31, or any other: the model has no other exits, so that which one is not compared). QEMU's page event is a
//! harvested entry, its reap event a RESET that has answered. A probe's return from RESET, GET or CLEAR is the ioctl's,
//! with its answer.
//!
//! Not looked for: faults, table entries, marks and re-armings that a log may name too; they give context. Memslots are
//! taken as large as their largest offset, and as logging all the time; a change of one drops its mappings.

mod build;
mod entry_order;
mod ioctls;
mod pml;
mod run;
mod shape;
mod stuck;
mod vcpus;

use std::collections::VecDeque;

use serde::Serialize;

use crate::trace::observed::{Observed, ObservedEvent};
use crate::trace::{Located, TraceError};
use run::Run;
pub use shape::Shape;

/// Model steps that a search may take unless the caller says otherwise.
pub const STEPS_DEFAULT: u64 = 1_000_000_000;

/// Events that are read ahead, where what is open depends on what follows.
const AHEAD: usize = 1024;

/// Events between two looks at the budget and at the caller's wish to go on.
const EVENTS_A_LOOK: u64 = 4096;

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// A run of the model gives every event, in order.
    Consistent,
    /// No run was found on any of the machines.
    NoRunFound,
    /// The search ended before the log did.
    Limit {
        /// Which limit.
        limit: String,
    },
    /// There was nothing to search, or it could not be.
    NotSearched {
        /// Why.
        why: String,
    },
}

/// A machine that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The machine in words.
    pub machine: String,
    /// Events that its run gave.
    pub given: u64,
    /// Steps of the model that its run took.
    pub steps: u64,
    /// Entries that are explained by a store of KVM's own, because the guest could have stored without one.
    pub own_stores: u64,
    /// TLB entries that the hardware dropped.
    pub evictions: u64,
    /// Stores that had faulted and to which the guest did not come back at once.
    pub diverted: u64,
    /// Where the run ended before the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

impl Tried {
    fn new(machine: String) -> Self {
        Self {
            machine,
            given: 0,
            steps: 0,
            own_stores: 0,
            evictions: 0,
            diverted: 0,
            ended: None,
        }
    }
}

/// Why a machine's run did not come to the end of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// The line of the log that it could not give; none where the machine itself contradicts the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Why.
    pub why: String,
}

/// The outcome of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SearchReport {
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Events that say nothing of a run.
    pub context: u64,
    /// The machines, in the order in which they were tried.
    pub tried: Vec<Tried>,
}

impl SearchReport {
    /// The report of a search that was not made.
    #[must_use]
    pub fn not_searched(why: &str) -> Self {
        Self {
            outcome: Outcome::NotSearched {
                why: why.to_owned(),
            },
            context: 0,
            tried: Vec::new(),
        }
    }
}

/// Looks for a run of the model that gives the rows of a trace; `shape` is what a first pass over them told. At most
/// `steps` steps are taken on all machines together; `go_on` is told the number of events now and then, and answers
/// whether to.
///
/// # Errors
/// The first row that cannot be read.
pub fn search_rows(
    rows: impl Iterator<Item = Result<Located<ObservedEvent>, Box<TraceError>>>,
    shape: &Shape,
    steps: u64,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<SearchReport, Box<TraceError>> {
    let (mut runs, excluded) = match shape.candidates() {
        Ok(candidates) => candidates,
        Err(why) => return Ok(SearchReport::not_searched(&why)),
    };
    let mut rows = rows.fuse();
    let mut ahead = VecDeque::with_capacity(AHEAD);
    let (mut events, mut context) = (0_u64, 0);
    let mut outcome = runs.is_empty().then_some(Outcome::NoRunFound);
    while outcome.is_none() {
        while ahead.len() < AHEAD {
            match rows.next() {
                Some(row) => ahead.push_back(row?.row),
                None => break,
            }
        }
        let Some(event) = ahead.pop_front() else {
            break;
        };
        events += 1;
        let mut said = false;
        for run in runs.iter_mut().filter(|run| !run.is_over()) {
            said |= run.event(&event, &ahead);
        }
        context += u64::from(!said);
        if runs.iter().all(Run::is_over) {
            outcome = Some(Outcome::NoRunFound);
        }
        if events.is_multiple_of(EVENTS_A_LOOK) {
            let taken: u64 = runs.iter().map(Run::steps).sum();
            let limit = match (taken > steps, go_on(events)) {
                (true, _) => format!("{steps} steps of the model"),
                (false, false) => "interrupted".to_owned(),
                (false, true) => continue,
            };
            outcome = outcome.or(Some(Outcome::Limit { limit }));
        }
    }
    Ok(SearchReport {
        outcome: outcome.unwrap_or(Outcome::Consistent),
        context,
        tried: runs
            .into_iter()
            .map(Run::into_tried)
            .chain(excluded)
            .collect(),
    })
}

/// The next push to a ring that was read ahead, if there is one before whatever ends knowledge of it.
fn next_push(ahead: &VecDeque<ObservedEvent>, wanted: u32) -> Option<(u32, u64)> {
    for event in ahead {
        match event.what {
            Observed::Gap { .. } => return None,
            Observed::RingPush {
                ring, slot, offset, ..
            } if ring == wanted => return Some((slot, offset)),
            _ => {}
        }
    }
    None
}

/// Whether the log, or what is known without a gap, ends among the events that were read ahead.
fn ends_in_sight(ahead: &VecDeque<ObservedEvent>) -> bool {
    ahead.len() + 1 < AHEAD
        || ahead
            .iter()
            .any(|event| matches!(event.what, Observed::Gap { .. }))
}

/// The dirty index that the next push to a ring gives.
fn next_dirty_index(ahead: &VecDeque<ObservedEvent>, wanted: u32) -> Option<u32> {
    ahead.iter().find_map(|event| match event.what {
        Observed::RingPush {
            ring, dirty_index, ..
        } if ring == wanted => Some(dirty_index),
        _ => None,
    })
}

/// The reset index of a ring that the next event of it shows.
fn next_reset_index(ahead: &VecDeque<ObservedEvent>, wanted: u32) -> Option<u32> {
    ahead.iter().find_map(|event| match event.what {
        Observed::RingPush {
            ring, reset_index, ..
        }
        | Observed::RingReset {
            ring, reset_index, ..
        } if ring == wanted => Some(reset_index),
        _ => None,
    })
}

#[cfg(test)]
pub(super) mod tests;
