//! KVM_CLEAR_DIRTY_LOG. Source: virt/kvm/kvm_main.c, kvm_clear_dirty_log_protect().

use super::{Act, ClearDirtyLog, ClearMask, Operation, View};
use crate::kernel::{rearm, slots};
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::pages::low_bits;
use crate::words::word::{loud, quiet};
use crate::words::{
    Arch, Choice, Duty, Effect, Errno, Facts, Fields, Found, Frame, Names, Reach, Row, Rule, Waits,
    Word,
};

pub(crate) const ENTER: u8 = 0;
const KICK: u8 = 1;
pub(crate) const COPY_IN: u8 = 2;
pub(crate) const LOCK: u8 = 3;
pub(crate) const TAKE: u8 = 4;
pub(crate) const REARM: u8 = 5;
pub(crate) const UNLOCK: u8 = 6;
const FLUSH: u8 = 7;
const RETURN: u8 = 8;

impl Operation for ClearDirtyLog {
    const STAGES: u8 = 9;
    const STEPS: &'static [Word] = &[
        quiet("clear-enter", "takes slots_lock"),
        quiet("clear-kick", "kicks a vCPU for its PML buffer"),
        quiet("clear-copy-in", "reads user space's bits"),
        quiet("clear-mmu-lock", "takes mmu_lock"),
        loud("clear-take-bits", "clears a word of bits in the bitmap"),
        loud("clear-rearm", "re-arms the pages of those bits"),
        quiet("clear-mmu-unlock", "drops mmu_lock"),
        loud("clear-flush", "flushes TLBs"),
        quiet("clear-return", "returns"),
    ];

    fn says(&self) -> &'static str {
        "KVM_CLEAR_DIRTY_LOG, {slot}"
    }

    fn facts(&self, machine: &Machine) -> Facts {
        let list = match self.mask {
            ClearMask::List(list) => Some(list),
            ClearMask::Seen | ClearMask::All => None,
        };
        Facts {
            names: Names::Slot(self.slot, list),
            rearms: true,
            visits_vcpus: machine.pml,
            ..Facts::NOTHING
        }
    }

    fn row(&self, machine: &Machine, stage: u8) -> Row {
        let step = Row::OWN
            .reads(Fields::BITMAP | Fields::SCRATCH | Fields::SEEN | rearm::reads(machine))
            .duty(Duty::FLUSHES);
        match stage {
            ENTER => Row {
                duty: Duty::NONE,
                ..step.changes(Fields::SLOTS_LOCK)
            },
            KICK => step.writes(Fields::RESCHED).reach(Reach::IndexedVcpu),
            COPY_IN => step.writes(Fields::SCRATCH),
            LOCK => step.changes(Fields::MMU_LOCK).reach(Reach::Control),
            TAKE => step.writes(Fields::BITMAP | Fields::SCRATCH | Fields::SEEN),
            REARM => rearm::row(machine, step),
            UNLOCK => step.writes(Fields::MMU_LOCK | Fields::SCRATCH),
            FLUSH => step.writes(Fields::TLB).reach(Reach::EachVcpu),
            RETURN => step.writes(Fields::SLOTS_LOCK),
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
            return match self.check(machine, act.state) {
                Err(errno) => act.leave(Err(errno)),
                Ok(_) => {
                    act.take_slots_lock();
                    let kicks =
                        machine.arch == Arch::X86 && machine.pml && !act.state.vcpus.is_empty();
                    act.go(if kicks { KICK } else { COPY_IN })
                }
            };
        }
        let Some(slot) = act.state.find_slot(machine, self.slot) else {
            return act.leave(Err(Errno::ENOENT));
        };
        let bits = machine.constants.word_bits;
        let words = self.num_pages.div_ceil(bits);
        let frame = self.frame(&act, slot);
        match stage {
            KICK => {
                let index = act.thread().index as usize;
                slots::kick_for_pml(act.state, index);
                let vcpus = act.state.vcpus.len();
                let t = act.thread();
                t.index += 1;
                if t.index as usize == vcpus {
                    t.index = 0;
                    t.stage = COPY_IN;
                }
                Effect::None
            }
            COPY_IN => self.copy_in(act, slot, |frame| frame),
            LOCK => {
                act.state.mmu_lock_write = true;
                act.go(if words == 0 { UNLOCK } else { TAKE })
            }
            TAKE => {
                let state = &mut *act.state;
                let given = state.scratch.word(frame, bits);
                let dirty = state.bitmap.word(frame, bits) & given;
                state.bitmap.clear_word(frame, given);
                state.scratch.clear_word(frame, given & !dirty);
                state.seen.clear_word(frame, given);
                if dirty == 0 {
                    return next_word(&mut act, words);
                }
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
                act.state.scratch.clear();
                let any = act.thread().any;
                act.go(if any { FLUSH } else { RETURN })
            }
            FLUSH => {
                rearm::flush_slot(machine, act.state, slot);
                act.go(RETURN)
            }
            _ => {
                let answer = act.thread().answer;
                act.leave(answer);
                Effect::Returned { reset: None }
            }
        }
    }

    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl ClearDirtyLog {
    /// The ways to re-arm the word in work.
    fn rearm_choices<L: Layout>(&self, at: &View<'_, L>, found: Found<'_>) {
        match at.state.find_slot(at.machine, self.slot) {
            Some(slot) => {
                let words = at.thread().index * at.machine.constants.word_bits;
                let frame = self.first(at.machine, slot) + words;
                rearm::word_choices(at.machine, at.state, slot, frame, found);
            }
            None => found(Choice::Advance),
        }
    }

    /// The checks, in the kernel's order; the slot.
    fn check<L: Layout>(&self, machine: &Machine, state: &State<L>) -> Result<usize, Errno> {
        let bits = u64::from(machine.constants.word_bits);
        slots::check_number(machine, state, self.slot)?;
        if !self.first_page.is_multiple_of(bits) {
            return Err(Errno::EINVAL);
        }
        let slot = slots::find_bitmap(machine, state, self.slot)?;
        let npages = u64::from(machine.slots[slot].npages);
        let num_pages = u64::from(self.num_pages);
        if self.first_page > npages
            || num_pages > npages - self.first_page
            || (!num_pages.is_multiple_of(bits) && self.first_page + num_pages != npages)
        {
            return Err(Errno::EINVAL);
        }
        Ok(slot)
    }

    /// The first frame of the word in work. The range was checked, so that it lies inside the slot.
    #[inline(always)]
    pub(crate) fn frame<L: Layout>(&self, act: &Act<'_, L>, slot: usize) -> Frame {
        let index = act.state.threads[act.index].index;
        self.first(act.machine, slot) + index * act.machine.constants.word_bits
    }

    /// The first frame of the range.
    #[inline(always)]
    pub(crate) fn first(&self, machine: &Machine, slot: usize) -> Frame {
        machine.slots[slot].frame + self.first_page as u32
    }

    /// User space's bits are copied in; `from` tells for which frame the bits of a word are meant.
    pub(crate) fn copy_in<L: Layout>(
        &self,
        mut act: Act<'_, L>,
        slot: usize,
        from: impl Fn(Frame) -> Frame,
    ) -> Effect {
        let (machine, first) = (act.machine, self.first(act.machine, slot));
        let bits = machine.constants.word_bits;
        act.thread().answer = Ok(0);
        if self.bad_pointer {
            act.thread().answer = Err(Errno::EFAULT);
            return act.go(RETURN);
        }
        act.state.scratch.clear();
        for word in 0..self.num_pages.div_ceil(bits) {
            let frame = first + word * bits;
            let given = self.given(machine, act.state, slot, from(frame));
            act.state.scratch.set_word(frame, given);
        }
        act.thread().index = 0;
        act.go(LOCK)
    }

    /// The word of user space's mask for the pages from `frame` on.
    fn given<L: Layout>(
        &self,
        machine: &Machine,
        state: &State<L>,
        slot: usize,
        frame: Frame,
    ) -> u64 {
        let bits = machine.constants.word_bits;
        match self.mask {
            ClearMask::All => {
                // Behind the slot's last page there is nothing to clear.
                let slot = &machine.slots[slot];
                low_bits(bits.min((slot.frame + slot.npages).0.saturating_sub(frame.0)))
            }
            ClearMask::Seen => state.seen.word(frame, bits),
            ClearMask::List(list) => {
                // The list is in ascending order, so that a large one costs a search a word.
                let pages = &machine.frame_lists[usize::from(list)];
                let start = pages.partition_point(|page| *page < frame);
                let inside = pages[start..]
                    .iter()
                    .take_while(|page| **page - frame < bits);
                inside.fold(0, |word, page| word | 1 << (*page - frame))
            }
        }
    }
}

/// To the next word, or out of mmu_lock.
pub(crate) fn next_word<L: Layout>(act: &mut Act<'_, L>, words: u32) -> Effect {
    let t = act.thread();
    t.index += 1;
    t.stage = if t.index == words { UNLOCK } else { TAKE };
    Effect::None
}
