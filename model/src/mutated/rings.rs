//! RESET and the harvest, wrong.

use super::memory::first_only;
use crate::kernel::soft_limit;
use crate::op::harvest::{self, entry_page, ring};
use crate::op::reset_rings::{
    FLUSH, FREE, LOAD_FLAGS, READ, REARM, RETURN, UNLOCK, next_ring, rearm_batch, rearmed,
};
use crate::op::{Act, Harvest, Into};
use crate::state::layout::Layout;
use crate::state::{Batch, State};
use crate::words::{Effect, HostPage, Mutation};

/// RESET clears a request that it has seen to be needless before.
pub(super) const CLEAR_REQUEST: u8 = 10;

pub(super) fn reset<L: Layout>(
    mut act: Act<'_, L>,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    let (machine, stage) = (act.machine, act.stage());
    let has = |mutation| machine.mutations.has(mutation);
    let relaxed = has(Mutation::ResetOrderRelaxed);
    let vcpu = act.thread().index;
    let effect = match stage {
        CLEAR_REQUEST => {
            act.state.vcpus[vcpu as usize].request = false;
            next_ring(&mut act)
        }
        REARM => {
            let batch = act.thread().batch;
            let mask = first_only(machine, batch.mask);
            rearm_batch(machine, act.state, Batch { mask, ..batch });
            rearmed(&mut act)
        }
        UNLOCK => {
            if has(Mutation::ResetCountNarrow) {
                act.thread().count %= 2;
            }
            let effect = right(act.state);
            if has(Mutation::ResetNoFlush) && act.stage() == FLUSH {
                act.go(RETURN);
            }
            effect
        }
        _ => right(act.state),
    };
    // The ring before is left: was its request needless?
    let left = matches!(stage, LOAD_FLAGS | REARM) && act.thread().index != vcpu;
    if left && has(Mutation::ResetClearsRequest) {
        let ring = &act.state.vcpus[vcpu as usize].ring;
        if ring.used() < soft_limit(machine, ring.size()) {
            act.thread().index = vcpu;
            return act.go(CLEAR_REQUEST);
        }
    }
    if relaxed {
        // What page an entry names is read before its flags.
        let next = match (stage, act.stage()) {
            (LOAD_FLAGS, READ) => FREE,
            (READ, FREE) => LOAD_FLAGS,
            (_, LOAD_FLAGS) => READ,
            (_, next) => next,
        };
        if stage == LOAD_FLAGS && next != FREE {
            act.thread().forget_entry();
        }
        act.go(next);
    }
    effect
}

pub(super) fn harvest<L: Layout>(
    mut act: Act<'_, L>,
    harvest: &Harvest,
    right: impl Fn(&mut State<L>) -> Effect,
) -> Effect {
    use harvest::{ENTER, LOAD_FLAGS, READ_OFFSET, READ_SLOT, STORE_FLAGS, TAKE};
    let (machine, stage) = (act.machine, act.stage());
    let has = |mutation| machine.mutations.has(mutation);
    let op = act.thread().op;
    if stage == ENTER {
        let first = usize::from(harvest.vcpu.unwrap_or(0));
        if first >= act.state.vcpus.len() && has(Mutation::ReapUncreatedVcpu) {
            act.state.crashed = true;
        }
    }
    let reads_late = stage == READ_SLOT || stage == READ_OFFSET;
    if stage == TAKE {
        take(&mut act, harvest);
    } else if stage == ENTER {
        right(act.state);
    } else {
        // Somebody who maps half of a ring takes an entry of the other half for one of his; who gives back an entry before he has
        // read its page reads the one before.
        let vcpu = act.thread().index as usize;
        let ring = ring(&mut act);
        let (fetch, size) = (ring.fetch_index, ring.size());
        let mut seen = fetch;
        if has(Mutation::RingMapShort) {
            seen &= (size / 2).max(1).wrapping_sub(1);
        }
        if reads_late && has(Mutation::HarvestStoreRelaxed) {
            seen = seen.wrapping_sub(1);
        }
        ring.fetch_index = seen;
        right(act.state);
        let ring = &mut act.state.vcpus[vcpu].ring;
        ring.fetch_index = fetch.wrapping_add(ring.fetch_index.wrapping_sub(seen));
    }
    if act.thread().op != op {
        return Effect::None;
    }
    let mut next = act.stage();
    if has(Mutation::HarvestLoadRelaxed) {
        // The page is read before the flags.
        next = match (stage, next) {
            (LOAD_FLAGS, READ_SLOT) => TAKE,
            (READ_OFFSET, TAKE) => LOAD_FLAGS,
            (_, LOAD_FLAGS) => READ_SLOT,
            (_, next) => next,
        };
    } else if has(Mutation::HarvestStoreRelaxed) {
        // The flags are written before the page is read.
        next = match (stage, next) {
            (LOAD_FLAGS, READ_SLOT) => STORE_FLAGS,
            (STORE_FLAGS, LOAD_FLAGS) => READ_SLOT,
            (TAKE, STORE_FLAGS) => LOAD_FLAGS,
            (_, next) => next,
        };
    }
    act.go(next)
}

/// The page that was read joins the others, perhaps not where it should.
fn take<L: Layout>(act: &mut Act<'_, L>, harvest: &Harvest) {
    let machine = act.machine;
    let has = |mutation| machine.mutations.has(mutation);
    let first_space = has(Mutation::SyncFirstAddressSpace);
    let page = entry_page(act).filter(|(slot, _)| !first_space || machine.slots[*slot].as_id == 0);
    if let Some((slot, page)) = page {
        let base = if has(Mutation::SyncBlockOffset0) {
            HostPage(0)
        } else {
            machine.slots[slot].host
        };
        if harvest.into == Into::Hand && has(Mutation::ReapPublishBeforeReset) {
            act.state.pending.insert(base + page);
        } else {
            harvest.collect(act, base + page);
        }
    }
    act.thread().forget_entry();
    act.go(harvest::STORE_FLAGS);
}
