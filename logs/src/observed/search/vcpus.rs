//! What a run's vCPUs do to give an event: push, leave, return.

use std::collections::VecDeque;

use dirtysim_model::kernel::soft_limit;
use dirtysim_model::machine::EXIT_DIRTY_RING_FULL;
use dirtysim_model::state::ring::RingEntry;
use dirtysim_model::state::vcpu::{Exit, NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, describe};
use dirtysim_model::words::{Frame, Word};

use super::next_reset_index;
use super::run::Run;
use super::stuck::{AtRing, AtVcpu, Goal, Stuck};
use crate::trace::observed::{Observed, ObservedEvent};

/// Steps that a vCPU may take for one event beside those of its PML buffer; it needs some twenty.
const MOST_STEPS: u32 = 256;

impl Run {
    /// `kvm_dirty_ring_push`: the ring's dirty index has moved, and now the event is written.
    pub(super) fn push_event(
        &mut self,
        vcpu: usize,
        (dirty, reset): (u32, u32),
        page: (u32, u64),
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        if !self.known[vcpu].owes_event {
            let next = self.dirty_index(vcpu).wrapping_add(1);
            if dirty != next {
                return Err(Stuck::Ring(name, AtRing::NextPush { next, said: dirty }));
            }
            // What RESET had done by then it has done before the push, at the latest.
            let before = self.state.vcpus[vcpu].ring.reset_index;
            let of_this_push = reset == dirty;
            self.reset_reaches(
                vcpu,
                reset.wrapping_sub(u32::from(of_this_push && reset != before)),
            )?;
            self.push(vcpu, page, ahead)?;
        }
        self.known[vcpu].owes_event = false;
        self.reset_reaches(vcpu, reset)?;
        let ring = &self.state.vcpus[vcpu].ring;
        if ring.dirty_index != dirty {
            return Err(Stuck::Ring(
                name,
                AtRing::LastPush {
                    last: ring.dirty_index,
                    said: dirty,
                },
            ));
        }
        let entry = ring.entry(dirty.wrapping_sub(1));
        if (entry.slot(), entry.offset().0) != page {
            return Err(Stuck::Ring(
                name,
                AtRing::PushedPage {
                    pushed: (entry.slot(), entry.offset().0),
                    said: page,
                },
            ));
        }
        self.settle(vcpu)
    }

    /// Has the vCPU push a page, by whichever way is open to it.
    pub(super) fn push(
        &mut self,
        vcpu: usize,
        page: (u32, u64),
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<(), Stuck> {
        let frame = self.frame(page)?;
        let target = self.dirty_index(vcpu).wrapping_add(1);
        let v = &self.state.vcpus[vcpu];
        if v.pc == Pc::Flush || v.pc == Pc::FlushOnly {
            if v.pml.first() != Some(&frame) {
                return Err(Stuck::Vcpu(self.names[vcpu], AtVcpu::OtherPageFirst));
            }
            return self.until_pushed(vcpu, target);
        }
        if self.known[vcpu].leaves_from_before && self.is_soft_full(vcpu) {
            self.be_on_the_way_out(vcpu, Exit::DirtyRingFull)?;
        }
        let v = &self.state.vcpus[vcpu];
        let on_the_way_in = v.pc == Pc::User || self.comes_to_the_check(vcpu);
        if v.pc == Pc::Exit || on_the_way_in && self.is_soft_full(vcpu) {
            return self.own_store(vcpu, frame, target);
        }
        if self.what_follows(vcpu, ahead) == Follows::OtherExit {
            self.leave_for_a_signal(vcpu, ahead)?;
            return self.own_store(vcpu, frame, target);
        }
        self.enter_guest(vcpu)?;
        if self.lets_store(frame) {
            self.rearm(ahead)?;
        }
        // Past the check with a full ring, or before it with another push to come: only the guest can have stored here.
        let follows = self.what_follows(vcpu, ahead);
        let guests = if self.checks_first {
            self.is_soft_full(vcpu)
        } else {
            follows == Follows::Push
        };
        if self.lets_store(frame) && !(guests && self.think_again(frame)) {
            return self.own_store(vcpu, frame, target);
        }
        let batch = self.pml_batch(vcpu, (target, frame), ahead)?;
        // Where the request check comes before KVM's own stores, the first of two is KVM's: after the guest's, KVM leaves.
        let first_of_two = self.checks_first && follows == Follows::Push;
        if batch.is_empty() && first_of_two && !guests {
            return self.own_store(vcpu, frame, target);
        }
        self.could_be_kvms.remove(frame);
        if batch.is_empty() && !self.is_soft_full(vcpu) {
            let kept = &mut self.could_be_kvms;
            if self.state.present.contains(frame) {
                kept.present.insert(frame);
            } else {
                kept.absent.insert(frame);
            }
        }
        if batch.is_empty() {
            self.store(vcpu, frame)?;
            return self.until_pushed(vcpu, target);
        }
        let limit = self.soft_limit(vcpu);
        for (frame, used) in batch {
            self.could_be_kvms.remove(frame);
            if used < limit {
                self.could_be_kvms.logged.insert(frame);
            }
            self.store(vcpu, frame)?;
        }
        self.state.vcpus[vcpu].resched = true;
        self.step(actor(vcpu), Choice::Leave)?;
        self.until_pushed(vcpu, target)
    }

    /// The frame of a page.
    pub(super) fn frame(&self, (slot, offset): (u32, u64)) -> Result<Frame, Stuck> {
        let Some(index) = self.state.find_slot(&self.machine, slot) else {
            return Err(Stuck::NoSlot(slot));
        };
        Ok(self.machine.slots[index].frame + offset as u32)
    }

    /// Whether a store goes through with no fault and no record.
    fn lets_store(&self, frame: Frame) -> bool {
        self.state.writable.contains(frame)
            && (!self.machine.has_dirty_bits() || self.state.dirty_bit.contains(frame))
    }

    /// A page that is not armed is wanted armed: the push that left it so may have been a store of KVM's own, which leaves
    /// leaves alone. Where the guest stored, the vCPU could as well have left for a moment, and gone on as it did.
    fn think_again(&mut self, frame: Frame) -> bool {
        let kept = &self.could_be_kvms;
        let (absent, present, logged) = (
            kept.absent.contains(frame),
            kept.present.contains(frame),
            kept.logged.contains(frame),
        );
        if !absent && !present && !logged {
            return false;
        }
        self.could_be_kvms.remove(frame);
        self.tried.own_stores += 1;
        let state = &mut self.state;
        state.dirty_bit.remove(frame);
        if !logged {
            state.writable.remove(frame);
        }
        if absent {
            state.present.remove(frame);
        }
        for vcpu in state.vcpus.iter_mut() {
            vcpu.tlb.remove(frame);
        }
        true
    }

    /// Whether the next request check leaves with exit 31.
    fn is_soft_full(&self, vcpu: usize) -> bool {
        let v = &self.state.vcpus[vcpu];
        (v.request || self.machine.kernel.soft_full_is_compared())
            && v.ring.used() >= self.soft_limit(vcpu)
    }

    /// What follows in the log, where the push that comes next makes the ring soft-full.
    fn what_follows(&self, vcpu: usize, ahead: &VecDeque<ObservedEvent>) -> Follows {
        let ring = &self.state.vcpus[vcpu].ring;
        let limit = self.soft_limit(vcpu);
        if ring.used() + 1 < limit {
            return Follows::Nothing;
        }
        let name = self.names[vcpu];
        let beyond = if self.recorded.userspace_exits {
            Follows::Push
        } else {
            // Any number of entries can be pushed on the way out, and nobody saw whether it went out.
            Follows::OtherExit
        };
        let mut follows = Follows::Nothing;
        for event in ahead {
            match event.what {
                Observed::RingPush {
                    ring,
                    dirty_index,
                    reset_index,
                    ..
                } if ring == name => {
                    if dirty_index.wrapping_sub(reset_index) <= limit {
                        return follows;
                    }
                    follows = beyond;
                }
                Observed::UserspaceExit { reason, .. } if self.is_run_by(vcpu, event.tid) => {
                    return if reason == Some(EXIT_DIRTY_RING_FULL) {
                        follows
                    } else {
                        Follows::OtherExit
                    };
                }
                Observed::RingExit { vcpu } if vcpu == name => return follows,
                Observed::Gap { .. } => return follows,
                _ => {}
            }
        }
        follows
    }

    /// A ring that is soft-full is wanted with room: RESET may have come so far that it has, if what follows does not say
    /// that it had not.
    fn relieve(&mut self, vcpu: usize, ahead: &VecDeque<ObservedEvent>) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        let ring = &self.state.vcpus[vcpu].ring;
        let wanted = ring.used() + 1 - self.soft_limit(vcpu);
        let shown = next_reset_index(ahead, name);
        if shown.is_some_and(|index| index.wrapping_sub(ring.reset_index) < wanted) {
            return self.would_leave(vcpu);
        }
        self.reset_reaches(vcpu, ring.reset_index.wrapping_add(wanted))
    }

    /// Brings the vCPU out of the guest for a signal, as far as the return to user space.
    fn leave_for_a_signal(
        &mut self,
        vcpu: usize,
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<(), Stuck> {
        for _ in 0..MOST_STEPS {
            let v = &self.state.vcpus[vcpu];
            match v.pc {
                Pc::Exit => return Ok(()),
                Pc::User => {
                    // A signal that comes while the thread is outside KVM_RUN is not modelled.
                    self.step(actor(vcpu), Choice::Advance)?;
                }
                Pc::Guest => {
                    self.state.vcpus[vcpu].kicked = true;
                    self.step(actor(vcpu), Choice::Leave)?;
                }
                Pc::Entry if self.leaves_next(vcpu) && self.known[vcpu].leaves_from_before => {
                    return self.be_on_the_way_out(vcpu, Exit::Interrupted);
                }
                Pc::Entry if self.leaves_next(vcpu) => self.relieve(vcpu, ahead)?,
                Pc::Flush | Pc::FlushOnly if v.push == 0 => {
                    return Err(Stuck::Vcpu(
                        self.names[vcpu],
                        AtVcpu::LeavesWithPml(v.pml.len()),
                    ));
                }
                _ => {
                    self.state.vcpus[vcpu].kicked = true;
                    self.step(actor(vcpu), Choice::Advance)?;
                }
            }
        }
        Err(Stuck::Vcpu(self.names[vcpu], AtVcpu::NoWay(Goal::Out)))
    }

    pub(super) fn soft_limit(&self, vcpu: usize) -> u32 {
        soft_limit(&self.machine, self.state.vcpus[vcpu].ring.size())
    }

    /// The guest begins a store.
    fn store(&mut self, vcpu: usize, frame: Frame) -> Result<(), Stuck> {
        let tlb = &mut self.state.vcpus[vcpu].tlb;
        if tlb.contains(frame) {
            tlb.remove(frame);
            self.tried.evictions += 1;
        }
        let frames = &mut self.machine.vcpus[vcpu].frames;
        frames.clear();
        frames.push(frame);
        self.step(actor(vcpu), Choice::Store(frame))
    }

    /// A store of KVM's own, in the vCPU's context.
    fn own_store(&mut self, vcpu: usize, frame: Frame, target: u32) -> Result<(), Stuck> {
        self.machine.vcpus[vcpu].steal_frame = frame;
        self.tried.own_stores += 1;
        for _ in 0..MOST_STEPS {
            let v = &self.state.vcpus[vcpu];
            let word = self.word(vcpu);
            match v.pc {
                Pc::Exit | Pc::Entry if v.pc == Pc::Exit || word == "no-kernel-record" => {
                    self.step(actor(vcpu), Choice::Steal)?;
                    // There is always one more to come.
                    self.state.vcpus[vcpu].steal = 1;
                    return self.until_pushed(vcpu, target);
                }
                Pc::Entry if self.leaves_next(vcpu) && self.exits_are_recorded() => {
                    return self.would_leave(vcpu);
                }
                Pc::Guest => {
                    self.state.vcpus[vcpu].resched = true;
                    self.step(actor(vcpu), Choice::Leave)?;
                }
                _ => self.step(actor(vcpu), Choice::Advance)?,
            }
        }
        Err(Stuck::Vcpu(self.names[vcpu], AtVcpu::NoWay(Goal::OwnStore)))
    }

    /// Whether the request check is next, and leaves.
    fn leaves_next(&self, vcpu: usize) -> bool {
        self.word(vcpu) == "check-soft-full" && self.is_soft_full(vcpu)
    }

    fn exits_are_recorded(&self) -> bool {
        self.recorded.ring_exits || self.recorded.userspace_exits
    }

    fn would_leave(&self, vcpu: usize) -> Result<(), Stuck> {
        let v = &self.state.vcpus[vcpu];
        Err(Stuck::Vcpu(
            self.names[vcpu],
            AtVcpu::LeavesFirst(v.ring.used()),
        ))
    }

    /// What the vCPU would do next, in the words of traces.
    fn word(&self, vcpu: usize) -> Word {
        let step = Step {
            actor: actor(vcpu),
            choice: Choice::Advance,
        };
        describe(&self.machine, &self.state, step)
    }

    /// Goes on until the dirty index has moved.
    fn until_pushed(&mut self, vcpu: usize, target: u32) -> Result<(), Stuck> {
        for _ in 0..MOST_STEPS {
            if self.dirty_index(vcpu) == target {
                return Ok(());
            }
            self.step(actor(vcpu), Choice::Advance)?;
        }
        Err(Stuck::Vcpu(self.names[vcpu], AtVcpu::NoWay(Goal::Push)))
    }

    /// Brings the vCPU into the guest, ready for another store, without an event.
    fn enter_guest(&mut self, vcpu: usize) -> Result<(), Stuck> {
        for _ in 0..MOST_STEPS {
            let v = &self.state.vcpus[vcpu];
            match v.pc {
                Pc::Guest if v.frame == NO_FRAME => return Ok(()),
                Pc::Guest if !v.tlb.contains(v.frame) && !self.lets_store(v.frame) => {
                    // It was armed again before the guest came back to it: the guest does something else first.
                    self.state.vcpus[vcpu].frame = NO_FRAME;
                    self.tried.diverted += 1;
                }
                Pc::Entry if self.leaves_next(vcpu) => {
                    return self.would_leave(vcpu);
                }
                _ => self.step(actor(vcpu), Choice::Advance)?,
            }
        }
        Err(Stuck::Vcpu(
            self.names[vcpu],
            AtVcpu::NoWay(Goal::IntoGuest),
        ))
    }

    /// After a push: the store retires, where nothing is in its way.
    pub(super) fn settle(&mut self, vcpu: usize) -> Result<(), Stuck> {
        for _ in 0..MOST_STEPS {
            let v = &self.state.vcpus[vcpu];
            let rests = match v.pc {
                Pc::Guest => {
                    v.frame == NO_FRAME || !v.tlb.contains(v.frame) && !self.lets_store(v.frame)
                }
                Pc::Entry => v.kicked || self.is_soft_full(vcpu),
                Pc::Flush | Pc::FlushOnly => v.push == 0,
                Pc::Exit | Pc::User => true,
                _ => false,
            };
            if rests {
                return Ok(());
            }
            self.step(actor(vcpu), Choice::Advance)?;
        }
        Ok(())
    }

    /// On the way into the guest: whether the request check is still to come.
    fn comes_to_the_check(&self, vcpu: usize) -> bool {
        let word = self.word(vcpu);
        self.state.vcpus[vcpu].pc == Pc::Entry
            && (word == "check-soft-full" || !self.checks_first && word == "no-kernel-record")
    }

    /// The vCPU was on its way out when knowledge began, and what it has pushed since, KVM stored by itself.
    fn be_on_the_way_out(&mut self, vcpu: usize, exit: Exit) -> Result<(), Stuck> {
        self.settle(vcpu)?;
        let v = &mut self.state.vcpus[vcpu];
        v.pc = Pc::Exit;
        v.stage = 0;
        v.exit = exit;
        v.frame = NO_FRAME;
        v.pml.clear();
        Ok(())
    }

    /// `kvm_dirty_ring_exit`: the request check leaves.
    pub(super) fn soft_full_exit(&mut self, vcpu: usize) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        if std::mem::take(&mut self.known[vcpu].leaves_from_before) {
            // On its way in, then.
            let v = &mut self.state.vcpus[vcpu];
            if v.pc == Pc::Exit {
                v.pc = Pc::User;
                v.exit = Exit::None;
                v.kicked = false;
            }
        }
        // What was in the ring when the log began may have raised the request.
        let limit = self.soft_limit(vcpu);
        let v = &mut self.state.vcpus[vcpu];
        if v.pc == Pc::User && v.exit == Exit::None && v.ring.used() >= limit {
            v.request = true;
        }
        for _ in 0..MOST_STEPS {
            if !self.is_soft_full(vcpu) {
                let used = self.state.vcpus[vcpu].ring.used();
                return Err(Stuck::Vcpu(name, AtVcpu::NotSoftFull { used, limit }));
            }
            let v = &self.state.vcpus[vcpu];
            match v.pc {
                Pc::Entry if self.word(vcpu) == "check-soft-full" => {
                    return self.step(actor(vcpu), Choice::Advance);
                }
                Pc::Guest => {
                    self.state.vcpus[vcpu].resched = true;
                    self.step(actor(vcpu), Choice::Leave)?;
                }
                Pc::Exit if self.recorded.userspace_exits => {
                    return Err(Stuck::Vcpu(name, AtVcpu::LeavesAgain));
                }
                Pc::Flush | Pc::FlushOnly if v.push == 0 => {
                    return Err(Stuck::Vcpu(name, AtVcpu::LeavesWithPml(v.pml.len())));
                }
                _ => self.step(actor(vcpu), Choice::Advance)?,
            }
        }
        Err(Stuck::Vcpu(name, AtVcpu::NoWay(Goal::SoftFullExit)))
    }

    /// `kvm_userspace_exit`: KVM_RUN returns, with exit 31 or for another reason.
    pub(super) fn return_to_user(
        &mut self,
        vcpu: usize,
        soft_full: bool,
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<(), Stuck> {
        let name = self.names[vcpu];
        let leaves = |run: &Self| {
            let v = &run.state.vcpus[vcpu];
            v.pc == Pc::Exit && v.exit == Exit::DirtyRingFull
        };
        let from_before = std::mem::take(&mut self.known[vcpu].leaves_from_before);
        if from_before && leaves(self) != soft_full {
            let exit = if soft_full {
                Exit::DirtyRingFull
            } else {
                Exit::Interrupted
            };
            self.be_on_the_way_out(vcpu, exit)?;
        }
        if soft_full {
            if !leaves(self) {
                if self.recorded.ring_exits {
                    return Err(Stuck::Vcpu(name, AtVcpu::NoRingExit));
                }
                self.soft_full_exit(vcpu)?;
            }
            return self.step(actor(vcpu), Choice::Advance);
        }
        if leaves(self) {
            return Err(Stuck::Vcpu(name, AtVcpu::OtherReason));
        }
        self.leave_for_a_signal(vcpu, ahead)?;
        self.step(actor(vcpu), Choice::Advance)
    }
}

/// What follows a push that makes a ring soft-full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// The soft-full exit, or nothing that is known.
    Nothing,
    /// Another push of the vCPU, the ring being as full or fuller.
    Push,
    /// A return to user space for another reason, perhaps after more pushes.
    OtherExit,
}

fn actor(vcpu: usize) -> Actor {
    Actor::Vcpu(vcpu as u8)
}
