//! What a run's VMM does to give an event: harvest, RESET, GET, CLEAR.

use dirtysim_model::machine::MEM_SLOTS;
use dirtysim_model::op::{self, ClearMask, HarvestWay, Into, Op};
use std::collections::VecDeque;

use dirtysim_model::state::ring::{F_RESET, RingEntry};
use dirtysim_model::state::thread::Answer;
use dirtysim_model::transition::{Actor, Choice, Step, describe};

use super::next_reset_index;
use super::run::{HARVESTER, IOCTLS, Run};
use super::stuck::{AtRing, Stuck};
use crate::trace::observed::{Observed, ObservedEvent};

/// The thread that makes ioctls, as an actor.
const IOCTL_ACTOR: Actor = Actor::Thread(IOCTLS as u8);

impl Run {
    /// The vCPU at whose ring a RESET is, if one is running.
    fn reset_at(&self) -> Option<usize> {
        let thread = &self.state.threads[IOCTLS];
        let runs = matches!(
            self.machine.programs[IOCTLS].first(),
            Some(Op::ResetRings(_))
        );
        (runs && thread.op == 0).then_some(thread.index as usize)
    }

    /// Has RESET come as far as this index of a ring.
    pub(super) fn reset_reaches(&mut self, vcpu: usize, index: u32) -> Result<(), Stuck> {
        let ring = &self.state.vcpus[vcpu].ring;
        let ahead = index.wrapping_sub(ring.reset_index);
        if ahead == 0 {
            return Ok(());
        }
        let name = self.names[vcpu];
        if ahead > ring.size() {
            return Err(Stuck::Ring(
                name,
                AtRing::ResetWentBack {
                    index,
                    reached: ring.reset_index,
                },
            ));
        }
        self.reset_comes_to(vcpu)?;
        self.harvest_to(vcpu, index)?;
        while self.state.vcpus[vcpu].ring.reset_index != index {
            if self.reset_at() != Some(vcpu) {
                return Err(Stuck::Ring(
                    name,
                    AtRing::ResetEnded {
                        at: self.state.vcpus[vcpu].ring.reset_index,
                        index,
                    },
                ));
            }
            self.step(IOCTL_ACTOR, Choice::Advance)?;
        }
        Ok(())
    }

    /// Has RESET re-arm what it has gathered, as far as it can without an event: what it freed before the push that comes
    /// next it may have re-armed as well.
    pub(super) fn rearm(&mut self, ahead: &VecDeque<ObservedEvent>) -> Result<(), Stuck> {
        let Some(at) = self.reset_at().filter(|&at| at < self.names.len()) else {
            return Ok(());
        };
        if self.state.threads[IOCTLS].batch.mask == 0 {
            return Ok(());
        }
        let reached = self.state.vcpus[at].ring.reset_index;
        let next = describe(
            &self.machine,
            &self.state,
            Step {
                actor: IOCTL_ACTOR,
                choice: Choice::Advance,
            },
        );
        if next == "reset-rearm" {
            return self.step(IOCTL_ACTOR, Choice::Advance);
        }
        // Or the ring ends here: its event, which may come later, says so.
        let ends = ahead.iter().find_map(|event| match event.what {
            Observed::RingReset {
                ring, reset_index, ..
            } if ring == self.names[at] => Some(reset_index),
            _ => None,
        });
        let ring = &self.state.vcpus[at].ring;
        let goes_on = ring.entry(reached).flags() & F_RESET != 0;
        if !goes_on && (!self.recorded.resets || ends == Some(reached)) {
            while self.reset_at() == Some(at) {
                self.step(IOCTL_ACTOR, Choice::Advance)?;
            }
            self.reset_owes_event = self.recorded.resets.then_some(at);
        }
        Ok(())
    }

    /// Has a RESET come to a ring, in the order of the vCPUs.
    fn reset_comes_to(&mut self, vcpu: usize) -> Result<(), Stuck> {
        if let Some(before) = self.reset_owes_event {
            return Err(Stuck::ResetOwesEvent(self.names[before]));
        }
        if self.reset_at().is_some_and(|at| at > vcpu) {
            self.finish_reset(vcpu)?;
        }
        if self.reset_at().is_none() {
            self.start(IOCTLS, Op::ResetRings(op::ResetRings { signal: false }));
            self.step(IOCTL_ACTOR, Choice::Advance)?;
            if self.reset_from_before {
                // It had come as far when knowledge began.
                self.state.threads[IOCTLS].index = vcpu as u32;
            }
        }
        while let Some(at) = self.reset_at().filter(|&at| at < vcpu) {
            if self.recorded.resets && self.known[at].begun {
                return Err(Stuck::ResetPasses {
                    ring: self.names[at],
                    to: self.names[vcpu],
                });
            }
            self.step(IOCTL_ACTOR, Choice::Advance)?;
        }
        Ok(())
    }

    /// Has a RESET end that is past every ring of which events are wanted; it is in the way of what `vcpu` needs.
    fn finish_reset(&mut self, vcpu: usize) -> Result<(), Stuck> {
        while let Some(at) = self.reset_at() {
            if self.recorded.resets && at < self.names.len() && self.known[at].begun {
                return Err(Stuck::ResetStays {
                    wanted: self.names[vcpu],
                    at: self.names[at],
                });
            }
            self.step(IOCTL_ACTOR, Choice::Advance)?;
        }
        let whole = !std::mem::take(&mut self.reset_from_before);
        self.last_reset = whole.then_some(self.state.threads[IOCTLS].answer);
        Ok(())
    }

    /// Has RESET do with a ring, up to this index.
    pub(super) fn reset_ends(&mut self, vcpu: usize, reset: u32) -> Result<(), Stuck> {
        if self.reset_owes_event == Some(vcpu) {
            return Ok(());
        }
        self.reset_comes_to(vcpu)?;
        self.reset_reaches(vcpu, reset)?;
        while self.reset_at() == Some(vcpu) {
            self.step(IOCTL_ACTOR, Choice::Advance)?;
        }
        self.reset_owes_event = Some(vcpu);
        Ok(())
    }

    /// `kvm_dirty_ring_reset`: what RESET left of a ring is told.
    pub(super) fn reset_event(
        &mut self,
        vcpu: usize,
        (dirty, reset): (u32, u32),
    ) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        self.reset_owes_event = None;
        let ring = &self.state.vcpus[vcpu].ring;
        if ring.reset_index != reset {
            return Err(Stuck::Ring(
                name,
                AtRing::ResetGoesOn {
                    to: ring.reset_index,
                    said: reset,
                },
            ));
        }
        if ring.dirty_index != dirty {
            return Err(Stuck::Ring(
                name,
                AtRing::DirtyAtReset {
                    said: dirty,
                    pushed: ring.dirty_index,
                },
            ));
        }
        if self.reset_at() == Some(self.names.len()) {
            self.finish_reset(vcpu)?;
        }
        Ok(())
    }

    /// Resets are not recorded, and one is running: whether it may end before anything else is harvested, having taken
    /// everything that was. What follows may show that it had not.
    fn reset_may_end(&self, ahead: &VecDeque<ObservedEvent>) -> bool {
        let Some(at) = self.reset_at() else {
            return false;
        };
        (at..self.names.len()).all(|vcpu| {
            let ring = &self.state.vcpus[vcpu].ring;
            let harvested = ring.fetch_index.wrapping_sub(ring.reset_index);
            next_reset_index(ahead, self.names[vcpu])
                .is_none_or(|shown| shown.wrapping_sub(ring.reset_index) >= harvested)
        })
    }

    /// Has everything below this index of a ring harvested, unseen.
    fn harvest_to(&mut self, vcpu: usize, index: u32) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        let ring = &self.state.vcpus[vcpu].ring;
        let wanted = index.wrapping_sub(ring.fetch_index);
        if wanted == 0 || wanted > ring.size() {
            return Ok(());
        }
        if index.wrapping_sub(ring.reset_index) > ring.used() {
            return Err(Stuck::Ring(
                name,
                AtRing::ResetPastPushes {
                    index,
                    pushed: ring.dirty_index,
                },
            ));
        }
        if self.known[vcpu].harvest_named {
            return Err(Stuck::Ring(
                name,
                AtRing::ResetPastNames {
                    index,
                    named: ring.fetch_index,
                },
            ));
        }
        self.harvest(vcpu, wanted)
    }

    fn harvest(&mut self, vcpu: usize, entries: u32) -> Result<(), Stuck> {
        self.start(
            HARVESTER,
            Op::Harvest(op::Harvest {
                vcpu: Some(vcpu as u8),
                max: entries,
                way: HarvestWay::Right,
                into: Into::Nowhere,
            }),
        );
        let target = self.state.vcpus[vcpu]
            .ring
            .fetch_index
            .wrapping_add(entries);
        // A harvest answers nothing.
        let _ = self.finish(HARVESTER)?;
        let reached = self.state.vcpus[vcpu].ring.fetch_index;
        if reached != target {
            return Err(Stuck::Ring(
                self.names[vcpu],
                AtRing::NothingToHarvest(reached),
            ));
        }
        Ok(())
    }

    /// QEMU's `kvm_dirty_ring_page`: an entry is harvested.
    pub(super) fn harvest_event(
        &mut self,
        vcpu: usize,
        fetch: u32,
        offset: u64,
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        if !self.recorded.resets && self.reset_may_end(ahead) {
            self.finish_reset(vcpu)?;
        }
        if !self.known[vcpu].harvest_named {
            self.harvest_to(vcpu, fetch)?;
            self.known[vcpu].harvest_named = true;
        }
        let ring = &self.state.vcpus[vcpu].ring;
        if ring.fetch_index != fetch {
            return Err(Stuck::Ring(
                name,
                AtRing::HarvestOrder {
                    next: ring.fetch_index,
                    said: fetch,
                },
            ));
        }
        let entry = ring.entry(fetch);
        let is_known = self.state.find_slot(&self.machine, entry.slot()).is_some();
        if is_known && entry.offset().0 != offset {
            return Err(Stuck::Ring(
                name,
                AtRing::HarvestOffset {
                    index: fetch,
                    offset: entry.offset().0,
                    said: offset,
                },
            ));
        }
        self.harvest(vcpu, 1)
    }

    /// QEMU's `kvm_dirty_ring_reap`: what was harvested has been reset.
    pub(super) fn reap_event(&mut self, count: u64) -> Result<bool, Stuck> {
        if self
            .known
            .iter()
            .any(|ring| ring.begun && !ring.harvest_named)
        {
            return Ok(false);
        }
        if !self.recorded.resets {
            if self.reset_at().is_some() {
                self.finish_reset(0)?;
            }
            let answer = self.ioctl(Op::ResetRings(op::ResetRings { signal: false }))?;
            let whole = !std::mem::take(&mut self.reset_from_before);
            self.last_reset = whole.then_some(answer);
        }
        match self.last_reset {
            Some(Ok(answer)) if u64::from(answer) != count => Err(Stuck::Reaped { count, answer }),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// A probe saw RESET return.
    pub(super) fn reset_returned(&mut self, ret: i64) -> Result<bool, Stuck> {
        if !self.recorded.resets {
            return Ok(false);
        }
        if self.reset_at().is_some() {
            self.finish_reset(0)?;
        }
        let Some(answer) = self.last_reset.take() else {
            return Ok(false);
        };
        agrees("KVM_RESET_DIRTY_RINGS", answer, ret)
    }

    /// A probe saw GET return.
    pub(super) fn get_returned(&mut self, slot: u32, ret: i64) -> Result<bool, Stuck> {
        if !self.is_told(slot) {
            return Ok(false);
        }
        self.until_unlocked()?;
        let answer = self.ioctl(Op::GetDirtyLog(op::GetDirtyLog {
            slot,
            into: Into::Nowhere,
            bad_pointer: false,
        }))?;
        agrees("KVM_GET_DIRTY_LOG", answer, ret)
    }

    /// A probe saw CLEAR return.
    pub(super) fn clear_returned(
        &mut self,
        slot: u32,
        (first_page, num_pages): (u64, u32),
        ret: i64,
    ) -> Result<bool, Stuck> {
        // How long the slot is decides which ranges are legal, and no log says that.
        if !self.is_told(slot) || !num_pages.is_multiple_of(64) {
            return Ok(false);
        }
        self.until_unlocked()?;
        let answer = self.ioctl(Op::ClearDirtyLog(op::ClearDirtyLog {
            slot,
            first_page,
            num_pages,
            mask: ClearMask::Seen,
            bad_pointer: false,
        }))?;
        agrees("KVM_CLEAR_DIRTY_LOG", answer, ret)
    }

    /// Whether GET's and CLEAR's answers can be told: on arm64 a ring may have a bitmap beside it or not, and no log says
    /// which.
    fn is_told(&self, slot: u32) -> bool {
        !self.state.caps.ring_with_bitmap && slot & 0xffff < MEM_SLOTS
    }

    /// Whoever holds slots_lock gives it back.
    fn until_unlocked(&mut self) -> Result<(), Stuck> {
        if self.reset_at().is_some() {
            self.finish_reset(0)?;
        }
        Ok(())
    }
}

fn agrees(ioctl: &'static str, answer: Answer, ret: i64) -> Result<bool, Stuck> {
    let modelled = match answer {
        Ok(value) => i64::from(value),
        Err(errno) => -i64::from(errno as u8),
    };
    if modelled == ret {
        Ok(true)
    } else {
        Err(Stuck::Returned {
            ioctl,
            ret,
            modelled,
        })
    }
}
