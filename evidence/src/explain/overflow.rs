//! A ring that overflows: which entry was written over, and whose record stood there.

use dirtysim_model::machine::Machine;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::ring::{F_DIRTY, RingEntry};
use dirtysim_model::transition::{Step, apply};

use super::view::entry_page;
use crate::scenario::Scenario;

/// An entry that was written over while it still stood for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overwritten {
    /// The vCPU whose ring it is.
    pub vcpu: usize,
    /// Its position in the ring.
    pub entry: usize,
    /// The step, from 1 on, that wrote over it.
    pub step: usize,
    /// The page for which it stood.
    pub page: String,
    /// What happened, as a sentence.
    pub sentence: String,
}

/// Where a ring has more entries in use at the end of `steps` than it has room for: what its last push wrote over.
pub(super) fn overwritten<L: Layout>(
    scenario: &Scenario,
    start: &State<L>,
    steps: &[Step],
) -> Option<Overwritten> {
    let machine = &scenario.machine;
    let states = replayed(machine, start, steps);
    let end = states.last()?;
    let vcpu = end.vcpus.iter().position(|vcpu| {
        let ring = &vcpu.ring;
        ring.size() > 0 && ring.used() > ring.size()
    })?;
    let ring = &end.vcpus[vcpu].ring;
    let entry = ring.position(ring.dirty_index.wrapping_sub(1));
    let content = |state: &State<L>| {
        let entry = &state.vcpus[vcpu].ring.entries[entry];
        (entry.slot(), entry.offset(), entry.flags())
    };
    // From the end back: the push that was too much changes the entry, unless it names the same page again.
    let index = ring.dirty_index;
    let pushed = (1..states.len())
        .rev()
        .find(|&at| states[at - 1].vcpus[vcpu].ring.dirty_index != index)?;
    let is_in_use = |at: usize| {
        let before = &states[at - 1].vcpus[vcpu].ring;
        content(&states[at - 1]).2 != 0 && before.used() >= before.size()
    };
    let step = (1..=pushed)
        .rev()
        .find(|&at| content(&states[at - 1]) != content(&states[at]) && is_in_use(at))
        .unwrap_or(pushed);
    let old = &states[step - 1].vcpus[vcpu].ring.entries[entry];
    let new = &ring.entries[entry];
    let (page, by) = (entry_page(scenario, old), entry_page(scenario, new));
    let since = if old.flags() == F_DIRTY {
        "which nobody has harvested"
    } else {
        "which is harvested and not yet reset"
    };
    Some(Overwritten {
        vcpu,
        entry,
        step,
        sentence: format!(
            "vcpu{vcpu}'s ring has {} entries and all are in use: in step {step} the record of {by} is written over entry {entry}, the record of {page}, {since}.",
            ring.size()
        ),
        page,
    })
}

/// The states of a schedule: before the first step, and after each.
fn replayed<L: Layout>(machine: &Machine, start: &State<L>, steps: &[Step]) -> Vec<State<L>> {
    let mut states = vec![start.clone()];
    for &step in steps {
        let mut next = states[states.len() - 1].clone();
        apply(machine, &mut next, step);
        states.push(next);
    }
    states
}
