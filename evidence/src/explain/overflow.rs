//! A ring that overflows: which entry was written over, and whose record stood there.

use dirtysim_model::machine::Machine;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::ring::{F_DIRTY, RingEntry};
use dirtysim_model::transition::{Step, apply};

use super::view::entry_page;
use crate::scenario::Scenario;
use crate::trace::step::page_name;

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

/// Where a push at the end of `steps` is one too many for its ring: what it writes over.
pub(super) fn overwritten<L: Layout>(
    scenario: &Scenario,
    start: &State<L>,
    steps: &[Step],
) -> Option<Overwritten> {
    let states = replayed(&scenario.machine, start, steps);
    let end = states.last()?;
    let vcpu = end.vcpus.iter().position(|vcpu| {
        let ring = &vcpu.ring;
        let begun = u32::from(vcpu.push > 0);
        ring.size() > 0 && ring.used().wrapping_add(begun) > ring.size()
    })?;
    // The push that writes over an entry: the last that began.
    let began = |at: &usize| {
        let (before, after) = (&states[at - 1].vcpus[vcpu], &states[*at].vcpus[vcpu]);
        before.push == 0 && after.push > 0
    };
    let step = (1..states.len()).rev().find(began)?;
    let before = &states[step - 1].vcpus[vcpu].ring;
    let entry = before.position(before.dirty_index);
    let old = &before.entries[entry];
    let page = entry_page(scenario, old);
    let by = page_name(scenario, &states[step - 1], steps[step - 1]);
    let since = match old.flags() {
        0 => return None,
        F_DIRTY => "which nobody has harvested",
        _ => "which is harvested and not yet reset",
    };
    Some(Overwritten {
        vcpu,
        entry,
        step,
        sentence: format!(
            "vcpu{vcpu}'s ring has {} entries, and all are in use: in step {step} the record of {} is written over entry {entry}, the record of {page}, {since}.",
            before.size(),
            by.as_deref().unwrap_or("a page"),
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
