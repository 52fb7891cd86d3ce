//! KVM_PRE_FAULT_MEMORY, on a vCPU that is not in KVM_RUN: each page is faulted in as a load would, one after the other, with no look
//! at the soft-full request between them.
//! Source: virt/kvm/kvm_main.c, kvm_vcpu_pre_fault_memory(); arch/x86/kvm/mmu/mmu.c, kvm_arch_vcpu_pre_fault_memory(),
//! kvm_tdp_map_page().

use super::{Act, Operation, PreFault, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::vcpu::Pc;
use crate::vcpu::fault::{self, Access, Came};
use crate::words::word::quiet;
use crate::words::{
    Arch, Choice, Effect, Errno, Facts, Found, Frame, Mmu, Names, Row, Rule, Waits, Word,
};

const ENTER: u8 = 0;
const LOOK: u8 = 1;
const FAULT: u8 = 2;
const RETURN: u8 = 3;

impl Operation for PreFault {
    const STAGES: u8 = 4;
    /// The steps of the fault path itself are the vCPU's.
    const STEPS: &'static [Word] = &[
        quiet("pre-fault-enter", "takes the vCPU's mutex"),
        quiet("pre-fault-look", "looks for the leaf of {page}"),
        Word::NOTHING,
        quiet("pre-fault-return", "returns"),
    ];

    fn says(&self) -> &'static str {
        "KVM_PRE_FAULT_MEMORY"
    }

    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frames(self.frames),
            ..Facts::UNKNOWN
        }
    }

    fn row(&self, _: &Machine, _: u8) -> Row {
        Row::UNKNOWN
    }

    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        match at.stage() {
            FAULT => fault::word(at.machine, at.state, usize::from(self.vcpu)),
            stage => Self::STEPS[usize::from(stage)],
        }
    }

    fn subject<L: Layout>(&self, at: View<'_, L>) -> Option<Frame> {
        matches!(at.stage(), LOOK | FAULT).then(|| self.frame(&at))
    }

    #[inline(always)]
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        let (state, vcpu) = (at.state, usize::from(self.vcpu));
        match at.stage() {
            ENTER => {
                let outside = state.vcpus.get(vcpu).is_none_or(|v| v.pc == Pc::User);
                Waits::Mutex(self.vcpu).unless(outside && !state.vcpu_mutexes)
            }
            FAULT => Waits::MmuLock.unless(fault::is_ready(at.machine, state, vcpu)),
            _ => None,
        }
    }
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if self.blocked(&at).is_none() {
            found(Choice::Advance);
        }
    }

    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        let (machine, vcpu) = (act.machine, usize::from(self.vcpu));
        match act.stage() {
            ENTER => self.enter(act),
            LOOK => {
                let frame = self.frame(&act.view());
                let passes = machine.kernel.pre_fault_passes_present();
                if passes && act.state.present.contains(frame) {
                    return self.next(&mut act);
                }
                act.state.vcpus[vcpu].stage = 0;
                act.go(FAULT)
            }
            FAULT => {
                let access = Access {
                    frame: self.frame(&act.view()),
                    load: true,
                };
                match fault::step(machine, act.state, vcpu, access) {
                    Came::On => Effect::None,
                    Came::Over => self.next(&mut act),
                    Came::Again => act.go(LOOK),
                    Came::Failed => {
                        // With one page mapped it succeeds.
                        let any = act.thread().index > 0;
                        act.thread().answer = if any { Ok(0) } else { Err(Errno::ENOENT) };
                        act.go(RETURN)
                    }
                }
            }
            _ => {
                let v = &mut act.state.vcpus[vcpu];
                v.pc = Pc::User;
                v.stage = 0;
                v.kicked = false;
                v.old_slots = false;
                let answer = act.thread().answer;
                act.leave(answer)
            }
        }
    }

    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl PreFault {
    /// The page in work.
    fn frame<L: Layout>(&self, at: &View<'_, L>) -> Frame {
        at.machine.frame_lists[usize::from(self.frames)][at.thread().index as usize]
    }

    fn enter<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let machine = act.machine;
        // No other architecture, and no older kernel, knows the request.
        let known = machine.arch == Arch::X86 && machine.kernel.has_pre_fault();
        if !known || machine.frame_lists[usize::from(self.frames)].is_empty() {
            return act.leave(Err(Errno::EINVAL));
        }
        if machine.mmu != Mmu::TwoDimensional {
            return act.leave(Err(Errno::EOPNOTSUPP));
        }
        let Some(v) = act.state.vcpus.get_mut(usize::from(self.vcpu)) else {
            return act.leave(Err(Errno::ENOENT));
        };
        v.pc = Pc::PreFault;
        v.push = 0;
        // What the vCPU's last fault left behind, where it came to nothing, is not this one's.
        v.fast = false;
        v.was_absent = false;
        act.go(LOOK)
    }

    /// To the next page, if there is one.
    fn next<L: Layout>(&self, act: &mut Act<'_, L>) -> Effect {
        let len = act.machine.frame_lists[usize::from(self.frames)].len();
        let t = act.thread();
        t.index += 1;
        t.answer = Ok(0);
        t.stage = if t.index as usize == len {
            RETURN
        } else {
            LOOK
        };
        Effect::None
    }
}
