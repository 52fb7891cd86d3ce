//! KVM_GET_DIRTY_LOG. Source: virt/kvm/kvm_main.c, kvm_get_dirty_log_protect(), kvm_vm_ioctl_get_dirty_log().

use super::{Act, GetDirtyLog, Into, Operation, View};
use crate::kernel::{rearm, slots};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::pages::low_bits;
use crate::words::word::{loud, quiet};
use crate::words::{
    Arch, Choice, Duty, Effect, Errno, Facts, Fields, Found, Frame, Names, Reach, Row, Rule, Waits,
    Word,
};

pub(crate) const ENTER: u8 = 0;
pub(crate) const KICK: u8 = 1;
pub(crate) const LOCK: u8 = 2;
pub(crate) const LOOK: u8 = 3;
pub(crate) const EXCHANGE: u8 = 4;
pub(crate) const REARM: u8 = 5;
pub(crate) const UNLOCK: u8 = 6;
pub(crate) const FLUSH: u8 = 7;
pub(crate) const COPY_OUT: u8 = 8;
pub(crate) const RETURN: u8 = 9;
/// s390: the live bitmap, which was copied out, is cleared as a whole. Source: arch/s390/kvm/kvm-s390.c, kvm_vm_ioctl_get_dirty_log().
pub(crate) const CLEAR_ALL: u8 = 10;
/// s390: what the leaves say is collected into the bitmap. Source: arch/s390/kvm/kvm-s390.c, kvm_arch_sync_dirty_log().
pub(crate) const COLLECT: u8 = 11;

impl Operation for GetDirtyLog {
    const STAGES: u8 = 12;
    const STEPS: &'static [Word] = &[
        quiet("get-enter", "takes slots_lock"),
        quiet("get-kick", "kicks a vCPU for its PML buffer"),
        quiet("get-mmu-lock", "takes mmu_lock"),
        quiet("get-look", "looks at a word of the bitmap"),
        loud("get-exchange", "takes a word of bits out of the bitmap"),
        loud("get-rearm", "re-arms the pages of those bits"),
        quiet("get-mmu-unlock", "drops mmu_lock"),
        loud("get-flush", "flushes TLBs"),
        quiet("get-copy-out", "copies a word of bits to user space"),
        quiet("get-return", "returns"),
        loud("get-clear-all", "clears the whole bitmap"),
        quiet(
            "get-collect-leaves",
            "looks for written pages in the leaves",
        ),
    ];

    fn says(&self) -> &'static str {
        "KVM_GET_DIRTY_LOG, {slot}"
    }

    fn facts(&self, machine: &Machine) -> Facts {
        Facts {
            names: Names::Slot(self.slot, None),
            rearms: true,
            visits_vcpus: machine.pml,
            ..Facts::NOTHING
        }
    }

    fn row(&self, machine: &Machine, stage: u8) -> Row {
        let step = Row::OWN
            .reads(Fields::BITMAP | Fields::SCRATCH | rearm::reads(machine))
            .duty(Duty::FLUSHES);
        let holding = step.duty(Duty::HOLDS_SCRATCH);
        match stage {
            ENTER => Row {
                duty: Duty::NONE,
                ..step.changes(Fields::SLOTS_LOCK)
            },
            KICK => step.writes(Fields::RESCHED).reach(Reach::IndexedVcpu),
            LOCK => step
                .changes(Fields::MMU_LOCK | Fields::SCRATCH)
                .reach(Reach::Control),
            LOOK => holding,
            EXCHANGE => holding.writes(Fields::BITMAP | Fields::SCRATCH),
            REARM => rearm::row(machine, holding),
            UNLOCK => holding.writes(Fields::MMU_LOCK),
            FLUSH => holding.writes(Fields::TLB).reach(Reach::EachVcpu),
            COPY_OUT => holding.writes(Fields::SCRATCH | Fields::SEEN | self.into.fields()),
            RETURN => step.writes(Fields::SLOTS_LOCK),
            CLEAR_ALL => step.writes(Fields::BITMAP),
            COLLECT => step
                .changes(Fields::LEAVES | Fields::BITMAP)
                .writes(Fields::TLB)
                .reach(Reach::EachVcpu),
            _ => Row::UNKNOWN,
        }
    }

    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(at.stage())]
    }

    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }

    #[inline(always)]
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        match at.stage() {
            ENTER => at.slots_lock(),
            LOCK => at.mmu_lock(),
            _ => None,
        }
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if self.blocked(&at).is_none() {
            match at.stage() {
                REARM => self.rearm_choices(&at, found),
                _ => found(Choice::Advance),
            }
        }
    }

    #[inline]
    fn step<L: Layout>(&self, mut act: Act<'_, L>, choice: Choice) -> Effect {
        let (machine, stage) = (act.machine, act.stage());
        if stage == ENTER {
            return self.enter(act);
        }
        // slots_lock is held, so the slot that was found is still there.
        let Some(slot) = act.state.find_slot(machine, self.slot) else {
            return act.leave(Err(Errno::ENOENT));
        };
        let (words, frame) = words(&act, slot);
        let bits = machine.constants.word_bits;
        match stage {
            KICK => {
                let index = act.thread().index;
                slots::kick_for_pml(act.state, index as usize);
                let next = after_kick(&act);
                let vcpus = act.state.vcpus.len() as u32;
                advance(&mut act, vcpus, KICK, next)
            }
            LOCK => {
                act.state.mmu_lock_write = true;
                act.state.scratch.clear();
                act.go(LOOK)
            }
            LOOK if act.state.bitmap.word(frame, bits) == 0 => next_word(&mut act, words),
            LOOK => act.go(EXCHANGE),
            EXCHANGE => {
                let dirty = act.state.bitmap.word(frame, bits);
                act.state.bitmap.clear_word(frame, dirty);
                act.state.scratch.set_word(frame, dirty);
                act.thread().any = true;
                act.go(REARM)
            }
            REARM => {
                let dirty = act.state.scratch.word(frame, bits);
                rearm::rearm(machine, act.state, slot, frame, dirty);
                rearm::rearm_along(machine, act.state, choice);
                next_word(&mut act, words)
            }
            UNLOCK => {
                act.state.mmu_lock_write = false;
                act.thread().index = 0;
                let any = act.thread().any;
                act.go(if any { FLUSH } else { COPY_OUT })
            }
            FLUSH => {
                rearm::flush_slot(machine, act.state, slot);
                act.go(COPY_OUT)
            }
            COPY_OUT => {
                // s390 copies the live bitmap out.
                let live = machine.arch == Arch::S390;
                match self.copy_out(&mut act, slot, live) {
                    Some(word) => {
                        receive(&mut act, slot, word, self.into);
                        self.copied(act, slot, live, word)
                    }
                    None => Effect::None,
                }
            }
            COLLECT => {
                let dirty = act.state.dirty_bit.word(frame, bits);
                act.state.dirty_bit.clear_word(frame, dirty);
                for vcpu in act.state.vcpus.iter_mut() {
                    vcpu.tlb.clear_word(frame, dirty);
                }
                act.state.bitmap.set_word(frame, dirty);
                advance(&mut act, words, COLLECT, COPY_OUT)
            }
            CLEAR_ALL => {
                let template = &machine.slots[slot];
                act.state
                    .bitmap
                    .remove_range(template.frame, template.npages);
                act.go(RETURN)
            }
            _ => {
                let answer = act.thread().answer;
                act.leave(answer);
                Effect::Returned { reset: None }
            }
        }
    }

    fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)> {
        let moves_bits = match at.stage() {
            LOOK | EXCHANGE | UNLOCK => true,
            COPY_OUT => !at.state.caps.manual(),
            _ => false,
        };
        (moves_bits && !self.bad_pointer && at.state.caps.ring_entries != 0)
            .then_some((Rule::GetWord, Choice::Advance))
    }
}

impl GetDirtyLog {
    /// The ways to re-arm the word in work.
    fn rearm_choices<L: Layout>(&self, at: &View<'_, L>, found: Found<'_>) {
        match at.state.find_slot(at.machine, self.slot) {
            Some(slot) => {
                let words = at.thread().index * at.machine.constants.word_bits;
                let frame = at.machine.slots[slot].frame + words;
                rearm::word_choices(at.machine, at.state, slot, frame, found);
            }
            None => found(Choice::Advance),
        }
    }

    fn enter<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let machine = act.machine;
        if let Err(errno) = slots::check_number(machine, act.state, self.slot)
            .and_then(|()| slots::find_bitmap(machine, act.state, self.slot))
        {
            return act.leave(Err(errno));
        }
        act.take_slots_lock();
        let kicks = machine.arch == Arch::X86 && machine.pml && !act.state.vcpus.is_empty();
        let next = if machine.arch == Arch::S390 {
            COLLECT
        } else if kicks {
            KICK
        } else {
            after_kick(&act)
        };
        act.go(next)
    }

    /// A word on its way to user space, from the live bitmap or its scratch half; none where the copy faults: the bits were cleared,
    /// and with them in no record, they are gone.
    pub(crate) fn copy_out<L: Layout>(
        &self,
        act: &mut Act<'_, L>,
        slot: usize,
        live: bool,
    ) -> Option<u64> {
        let bits = act.machine.constants.word_bits;
        let (_, frame) = words(act, slot);
        if self.bad_pointer {
            act.state.scratch.clear();
            act.thread().answer = Err(Errno::EFAULT);
            act.go(RETURN);
            return None;
        }
        let word = if live || act.state.caps.manual() {
            act.state.bitmap.word(frame, bits)
        } else {
            act.state.scratch.word(frame, bits)
        };
        act.state.scratch.clear_word(frame, low_bits(bits));
        Some(word)
    }

    /// That word has reached user space.
    pub(crate) fn copied<L: Layout>(
        &self,
        mut act: Act<'_, L>,
        slot: usize,
        live: bool,
        word: u64,
    ) -> Effect {
        let (words, _) = words(&act, slot);
        let manual = act.state.caps.manual();
        let t = act.thread();
        t.index += 1;
        t.any |= word != 0;
        if t.index == words {
            t.answer = Ok(0);
            t.stage = if live && !manual && t.any {
                CLEAR_ALL
            } else {
                RETURN
            };
        }
        Effect::None
    }
}

/// Words of the slot's bitmap, and the first frame of the one in work.
#[inline(always)]
pub(crate) fn words<L: Layout>(act: &Act<'_, L>, slot: usize) -> (u32, Frame) {
    let template = &act.machine.slots[slot];
    let bits = act.machine.constants.word_bits;
    let index = act.state.threads[act.index].index;
    (
        template.npages.div_ceil(bits),
        template.frame + index * bits,
    )
}

fn after_kick<L: Layout>(act: &Act<'_, L>) -> u8 {
    if act.state.caps.manual() {
        COPY_OUT
    } else {
        LOCK
    }
}

/// To the next of `count` words or vCPUs at the same stage, or to `then` after the last.
fn advance<L: Layout>(act: &mut Act<'_, L>, count: u32, stage: u8, then: u8) -> Effect {
    let t = act.thread();
    t.index += 1;
    t.stage = stage;
    if t.index == count {
        t.index = 0;
        t.stage = then;
    }
    Effect::None
}

/// To the next word, or out of mmu_lock.
pub(crate) fn next_word<L: Layout>(act: &mut Act<'_, L>, words: u32) -> Effect {
    let t = act.thread();
    t.index += 1;
    t.stage = if t.index == words { UNLOCK } else { LOOK };
    Effect::None
}

/// A word reaches user space, which adds it to its own.
fn receive<L: Layout>(act: &mut Act<'_, L>, slot: usize, word: u64, into: Into) {
    let (_, frame) = words(act, slot);
    let machine = act.machine;
    let template = &machine.slots[slot];
    act.state.seen.set_word(frame, word);
    if let Some(set) = act.collected(into) {
        set.set_word(template.host + (frame - template.frame), word);
    }
}
