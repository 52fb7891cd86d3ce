//! PML: a vCPU stores to many pages, and their entries are pushed when it comes out of the guest.

use std::collections::{HashSet, VecDeque};

use dirtysim_model::machine::EXIT_DIRTY_RING_FULL;
use dirtysim_model::words::Frame;

use super::run::Run;
use super::stuck::Stuck;
use crate::trace::observed::{Observed, ObservedEvent};

impl Run {
    /// The pages that the guest stored to before it came out and pushed `first` at index `dirty`: those that follow in
    /// the log, as long as the hardware would have logged them and nothing that follows says otherwise. Empty: the
    /// hardware did not log the first. Each with the entries in use after its push.
    pub(super) fn pml_batch(
        &self,
        vcpu: usize,
        (dirty, first): (u32, Frame),
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<Vec<(Frame, u32)>, Stuck> {
        if !self.is_logged_by_hardware(vcpu, first) {
            return Ok(Vec::new());
        }
        let name = self.names[vcpu];
        let limit = self.soft_limit(vcpu);
        // A vCPU whose ring is full at the request check does not come out for another reason.
        let to_stay_below = self.comes_out_for_another_reason(vcpu, ahead);
        let mut last = dirty;
        let mut stored = HashSet::from([first]);
        let used = self.state.vcpus[vcpu].ring.used() + 1;
        let mut batch = vec![(first, used)];
        let mut goes_on = false;
        for event in ahead {
            match event.what {
                Observed::RingPush {
                    ring,
                    dirty_index,
                    reset_index,
                    slot,
                    offset,
                    ..
                } if ring == name => {
                    let frame = self.frame((slot, offset))?;
                    let used = dirty_index.wrapping_sub(reset_index);
                    if batch.len() as u32 == self.machine.constants.pml_entries
                        || used >= limit && to_stay_below
                        || dirty_index != last.wrapping_add(1)
                        || !self.is_logged_by_hardware(vcpu, frame)
                        || !stored.insert(frame)
                    {
                        goes_on = used > limit;
                        break;
                    }
                    last = dirty_index;
                    batch.push((frame, used));
                }
                Observed::RingExit { vcpu: ring } if ring == name => break,
                Observed::UserspaceExit { .. } if self.is_run_by(vcpu, event.tid) => break,
                Observed::Gap { .. } => break,
                _ => {}
            }
        }
        // After a batch that fills the ring KVM leaves; an entry that follows was pushed before that.
        while goes_on && batch.last().is_some_and(|(_, used)| *used >= limit) {
            batch.pop();
        }
        Ok(batch)
    }

    /// Whether the hardware would log a store in the vCPU's PML buffer.
    fn is_logged_by_hardware(&self, vcpu: usize, frame: Frame) -> bool {
        self.state.vcpus[vcpu].pml_on
            && self.state.writable.contains(frame)
            && !self.state.dirty_bit.contains(frame)
    }

    /// Whether the vCPU's next exit that the log has is not the soft-full one.
    fn comes_out_for_another_reason(&self, vcpu: usize, ahead: &VecDeque<ObservedEvent>) -> bool {
        let exit = ahead.iter().find_map(|event| match event.what {
            Observed::RingExit { vcpu: ring } if ring == self.names[vcpu] => Some(false),
            Observed::UserspaceExit { reason, .. } if self.is_run_by(vcpu, event.tid) => {
                Some(reason != Some(EXIT_DIRTY_RING_FULL))
            }
            _ => None,
        });
        exit.unwrap_or(false)
    }
}
