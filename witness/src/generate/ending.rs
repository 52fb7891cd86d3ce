//! How a sequence ends: each vCPU stores once to each page of every slot that can be written, whatever the sequence has made of them.
//!
//! A store that never retires, or leaves the guest otherwise than the other side says, shows here at the latest.

use dirtysim::trace::StoreRuns;
use dirtysim::trace::call::{Access, Call, Program};

use super::Generator;
use super::setup::READONLY;

/// Times that a vCPU is let go on at most: a ring whose rules user space has broken may stay full for ever.
const GOES_MAX: u32 = 8;

/// How far the ending is.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// vCPUs that are through with it.
    vcpus: usize,
    /// Times that this one was let go on.
    goes: u32,
    /// It has its program.
    begun: bool,
}

impl Generator {
    /// The next call of the ending, if there is one more.
    pub(super) fn draw_ending(&mut self) -> Option<Call> {
        loop {
            let vcpu = self.world.vcpus.get(self.ending.vcpus)?.clone();
            let goes_on = self.ending.begun && vcpu.unfinished.is_some();
            if vcpu.ready && goes_on && vcpu.mapped && self.ending.goes < GOES_MAX {
                self.ending.goes += 1;
                self.queued.push_back(Call::ResetDirtyRings {});
                self.queued.push_back(Call::Run {
                    vcpu: vcpu.id,
                    program: vcpu.unfinished?,
                    resume: true,
                });
                return Some(Call::Harvest {
                    vcpu: vcpu.id,
                    fetch_index: vcpu.fetch,
                    max: None,
                    write_flags: 2,
                });
            }
            if vcpu.ready
                && !self.ending.begun
                && let Some(store) = self.every_page()
            {
                self.ending.begun = true;
                let program = Program {
                    store,
                    bytes: 8,
                    value: self.fresh_value(),
                    access: Access::Store,
                    elements: 1,
                    at: 0,
                };
                return Some(Call::Run {
                    vcpu: vcpu.id,
                    program,
                    resume: false,
                });
            }
            self.ending = Ending {
                vcpus: self.ending.vcpus + 1,
                ..Ending::default()
            };
        }
    }

    /// Every page that stores may go to, if there is one.
    fn every_page(&self) -> Option<StoreRuns> {
        let mut store = StoreRuns::default();
        for (&slot, view) in &self.world.slots {
            if (1..=3).contains(&slot) && view.flags & READONLY == 0 {
                store
                    .push_run(slot.into(), 0, view.pages)
                    .expect("pages of a slot");
            }
        }
        (store.count() > 0).then_some(store)
    }
}
