//! Kernel writers without a vCPU: the ITS tables and the like. They change memory first and mark second.
//! Source: arch/arm64/kvm/vgic/vgic-its.c, vgic_its_save_tables_v0(); vgic.h, vgic_write_guest_lock(); virt/kvm/kvm_main.c, kvm_write_guest().

use super::{Act, KernelWrite, KernelWriter, Operation, View};
use crate::kernel::mark;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::{loud, quiet};
use crate::words::{
    Choice, Duty, Effect, Errno, Facts, Fields, Found, Frame, Names, Reach, Row, Rule, Waits, Word,
};

pub(crate) const ENTER: u8 = 0;
pub(crate) const DATA: u8 = 1;
pub(crate) const MARK: u8 = 2;
const RETURN: u8 = 3;

impl Operation for KernelWrite {
    const STAGES: u8 = 4;
    /// Four by writer.
    const STEPS: &'static [Word] = &[
        quiet("its-save-enter", "begins"),
        loud("its-save-write", "writes {page}"),
        loud("its-save-mark", "marks {page}"),
        quiet("its-save-return", "returns"),
        quiet("pending-save-enter", "begins"),
        loud("pending-save-write", "writes {page}"),
        loud("pending-save-mark", "marks {page}"),
        quiet("pending-save-return", "returns"),
        quiet("its-restore-enter", "begins"),
        loud("its-restore-write", "writes {page}"),
        loud("its-restore-mark", "marks {page}"),
        quiet("its-restore-return", "returns"),
        quiet("kernel-write-enter", "begins"),
        loud("kernel-write-write", "writes {page}"),
        loud("kernel-write-mark", "marks {page}"),
        quiet("kernel-write-return", "returns"),
    ];

    fn says(&self) -> &'static str {
        match self.writer {
            KernelWriter::ItsSave => "KVM_DEV_ARM_ITS_SAVE_TABLES",
            KernelWriter::PendingSave => "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES",
            KernelWriter::ItsRestore => "KVM_DEV_ARM_ITS_RESTORE_TABLES",
            KernelWriter::Other => "a kernel writer",
        }
    }

    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frames(self.frames),
            ..Facts::NOTHING
        }
    }

    fn row(&self, machine: &Machine, stage: u8) -> Row {
        match stage {
            ENTER if self.writer.locks_vcpus() => {
                Row::OWN.writes(Fields::MUTEXES).reach(Reach::Control)
            }
            ENTER => Row::OWN.writes(Fields::MUTEXES),
            DATA => Row::OWN.writes(Fields::STALE),
            // A kernel that wants a vCPU for it may crash.
            MARK if machine.kernel.ring_wants_vcpu() => Row::OWN
                .writes(Fields::BITMAP | Fields::ENDED)
                .duty(Duty::OWES),
            MARK => Row::OWN.writes(Fields::BITMAP).duty(Duty::OWES),
            RETURN => Row::OWN.writes(Fields::MUTEXES),
            _ => Row::UNKNOWN,
        }
    }

    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        let first = match self.writer {
            KernelWriter::ItsSave => 0,
            KernelWriter::PendingSave => 4,
            KernelWriter::ItsRestore => 8,
            KernelWriter::Other => 12,
        };
        Self::STEPS[first + usize::from(at.stage())]
    }

    fn subject<L: Layout>(&self, at: View<'_, L>) -> Option<Frame> {
        let list = &at.machine.frame_lists[usize::from(self.frames)];
        let frame = list.get(at.thread().index as usize).copied();
        frame.filter(|_| matches!(at.stage(), DATA | MARK))
    }

    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, _: View<'_, L>, found: Found<'_>) {
        found(Choice::Advance);
    }

    #[inline]
    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        let machine = act.machine;
        match act.stage() {
            ENTER => {
                if self.writer.locks_vcpus() {
                    if !act.state.vcpus_stopped() || act.state.vcpu_mutexes {
                        act.next_op();
                        act.thread().answer = Err(Errno::EBUSY);
                        return Effect::None;
                    }
                    act.state.vcpu_mutexes = true;
                }
                act.thread().answer = Ok(0);
                let none = machine.frame_lists[usize::from(self.frames)].is_empty();
                act.go(if none { RETURN } else { DATA })
            }
            DATA => {
                if self.write(&mut act) {
                    act.go(MARK)
                } else {
                    Effect::None
                }
            }
            MARK => {
                self.mark(&mut act);
                self.next(&mut act, DATA)
            }
            _ => {
                if self.writer.locks_vcpus() {
                    act.state.vcpu_mutexes = false;
                }
                let answer = act.thread().answer;
                act.leave(answer)
            }
        }
    }

    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl KernelWrite {
    /// The frame in work.
    pub(crate) fn frame<L: Layout>(&self, act: &mut Act<'_, L>) -> Frame {
        let index = act.thread().index as usize;
        act.machine.frame_lists[usize::from(self.frames)][index]
    }

    /// The bytes change; false where the copy faults half-way: they have changed, and the page is never marked.
    pub(crate) fn write<L: Layout>(&self, act: &mut Act<'_, L>) -> bool {
        let host = act.machine.host_page(self.frame(act));
        act.state.store(act.machine, host);
        let fails =
            self.fails_after != u8::MAX && act.thread().index == u32::from(self.fails_after);
        if fails {
            act.thread().answer = Err(Errno::EFAULT);
            act.go(RETURN);
        }
        !fails
    }

    /// The mark: what user space takes for dirty at all times is not marked by whom that contract is with.
    pub(crate) fn mark<L: Layout>(&self, act: &mut Act<'_, L>) {
        let (machine, frame) = (act.machine, self.frame(act));
        let exempt = self.writer == KernelWriter::Other
            && machine.always_dirty.contains(&machine.host_page(frame));
        if !exempt {
            mark::mark_without_vcpu(machine, act.state, frame);
        }
    }

    /// To the next frame's stage, if there is one.
    pub(crate) fn next<L: Layout>(&self, act: &mut Act<'_, L>, stage: u8) -> Effect {
        let len = act.machine.frame_lists[usize::from(self.frames)].len();
        let t = act.thread();
        t.index += 1;
        t.stage = if t.index as usize == len {
            RETURN
        } else {
            stage
        };
        Effect::None
    }
}
