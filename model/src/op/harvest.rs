//! Harvesting rings: flags, slot, offset, page, flags again; by the contract, or by one of the ways to break it.

use super::{Act, Harvest, HarvestWay, Operation, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::ring::{F_DIRTY, F_RESET, Ring, RingEntry};
use crate::words::word::{loud, quiet};
use crate::words::{
    Choice, Counts, Duty, Effect, Facts, Fields, Found, Frame, HostPage, Names, Reach, Row, Rule,
    Waits, Word,
};

pub(crate) const ENTER: u8 = 0;
pub(crate) const LOAD_FLAGS: u8 = 1;
pub(crate) const READ_SLOT: u8 = 2;
pub(crate) const READ_OFFSET: u8 = 3;
pub(crate) const TAKE: u8 = 4;
pub(crate) const STORE_FLAGS: u8 = 5;

impl Operation for Harvest {
    const STAGES: u8 = 6;
    const STEPS: &'static [Word] = &[
        quiet("harvest-enter", "begins with the first ring"),
        quiet("harvest-load-flags", "reads an entry's flags"),
        quiet("harvest-read-slot", "reads an entry's slot"),
        quiet("harvest-read-offset", "reads an entry's offset"),
        loud("harvest-take-page", "takes the entry's page"),
        quiet("harvest-store-flags", "gives the entry back as harvested"),
    ];

    fn says(&self) -> &'static str {
        match self.vcpu {
            Some(_) => "harvests the ring of {vcpu}",
            None => "harvests the rings",
        }
    }

    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: self.vcpu.map_or(Names::Nothing, Names::Vcpu),
            visits_vcpus: true,
            abuses: self.way != HarvestWay::Right,
            revives: self.way == HarvestWay::OneTooMany,
            counts: if self.max == u32::MAX {
                Counts::Never
            } else {
                Counts::UpTo(self.max)
            },
            ..Facts::NOTHING
        }
    }

    fn row(&self, _: &Machine, stage: u8) -> Row {
        let (reach, first) = match self.way {
            HarvestWay::Right => (Reach::IndexedVcpu, Reach::Own),
            HarvestWay::SkipFirst
            | HarvestWay::WriteZero
            | HarvestWay::Unread
            | HarvestWay::OneTooMany => (Reach::Everything, Reach::Everything),
        };
        let bound = if self.max == u32::MAX {
            Fields::NONE
        } else {
            Fields::COUNT
        };
        let step = Row::OWN.reads(Fields::RING | bound).reach(reach);
        let entry = step.writes(Fields::ENTRIES | Fields::FETCH_INDEX);
        match stage {
            ENTER => entry.reach(first),
            LOAD_FLAGS | STORE_FLAGS => entry,
            READ_SLOT | READ_OFFSET => step,
            TAKE => step.writes(self.into.fields()).duty(Duty::HOLDS_ENTRY),
            _ => Row::UNKNOWN,
        }
    }

    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(at.stage())]
    }

    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
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
        let stage = act.stage();
        if stage == ENTER {
            return self.enter(act);
        }
        let ring = ring(&mut act);
        let fetch = ring.fetch_index;
        match stage {
            LOAD_FLAGS => {
                let dirty = ring.entry(fetch).flags() == F_DIRTY;
                // Whoever has taken one too many of a ring takes no more of it.
                let more = act.thread().count < self.max && !act.thread().any;
                match self.way {
                    HarvestWay::Unread if dirty && more => act.go(STORE_FLAGS),
                    _ if dirty && more => act.go(READ_SLOT),
                    HarvestWay::OneTooMany if more => {
                        act.thread().any = true;
                        self::ring(&mut act).entry_mut(fetch).set_flags(F_RESET);
                        Effect::None
                    }
                    _ => self.next_ring(&mut act),
                }
            }
            READ_SLOT => {
                let slot = ring.entry(fetch).slot();
                act.thread().entry_slot = slot;
                act.go(READ_OFFSET)
            }
            READ_OFFSET => {
                let offset = ring.entry(fetch).offset();
                act.thread().entry_offset = offset;
                act.go(TAKE)
            }
            TAKE => {
                // What names no page of a live slot is passed over.
                if let Some((slot, page)) = entry_page(&act) {
                    let host = act.machine.slots[slot].host + page;
                    self.collect(&mut act, host);
                }
                act.thread().forget_entry();
                act.go(STORE_FLAGS)
            }
            _ => {
                let given_back = if self.way == HarvestWay::WriteZero {
                    0
                } else {
                    F_RESET
                };
                ring.entry_mut(fetch).set_flags(given_back);
                ring.fetch_index = fetch.wrapping_add(1);
                // Without a limit nobody asks how many they were.
                act.thread().count += u32::from(self.max != u32::MAX);
                act.go(LOAD_FLAGS)
            }
        }
    }

    fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)> {
        let t = at.thread();
        let rule = match t.stage {
            ENTER => Rule::HarvestEnter,
            LOAD_FLAGS => {
                let ring = &at.state.vcpus[t.index as usize].ring;
                let dirty = ring.entry(ring.fetch_index).flags() == F_DIRTY;
                (dirty && t.count < self.max).then_some(Rule::HarvestEntry)?
            }
            _ => Rule::HarvestEntry,
        };
        Some((rule, Choice::Advance))
    }
}

impl Harvest {
    fn enter<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let first = usize::from(self.vcpu.unwrap_or(0));
        if first >= act.state.vcpus.len() || act.state.caps.ring_entries == 0 {
            return act.next_op();
        }
        act.thread().index = first as u32;
        self.begin_ring(&mut act)
    }

    fn begin_ring<L: Layout>(&self, act: &mut Act<'_, L>) -> Effect {
        if self.way == HarvestWay::SkipFirst {
            let ring = ring(act);
            if ring.entry(ring.fetch_index).flags() == F_DIRTY {
                ring.fetch_index = ring.fetch_index.wrapping_add(1);
            }
        }
        act.thread().count = 0;
        act.thread().any = false;
        act.go(LOAD_FLAGS)
    }

    fn next_ring<L: Layout>(&self, act: &mut Act<'_, L>) -> Effect {
        let vcpus = act.state.vcpus.len();
        let t = act.thread();
        t.forget_entry();
        t.index += 1;
        if self.vcpu.is_some() || t.index as usize == vcpus {
            // Whoever's own code this is sees how many entries there were, whatever they named.
            let count = t.count;
            act.next_op();
            if act.machine.code.is_some() {
                act.thread().answer = Ok(count);
            }
            return Effect::None;
        }
        self.begin_ring(act)
    }

    /// A page joins the others.
    pub(crate) fn collect<L: Layout>(&self, act: &mut Act<'_, L>, host: HostPage) {
        if let Some(set) = act.collected(self.into) {
            set.insert(host);
        }
    }
}

/// The ring in work.
#[inline(always)]
pub(crate) fn ring<'a, L: Layout>(act: &'a mut Act<'_, L>) -> &'a mut Ring<L> {
    let vcpu = act.thread().index as usize;
    &mut act.state.vcpus[vcpu].ring
}

/// The page that the entry in work names: its slot's template, and its offset.
pub(crate) fn entry_page<L: Layout>(act: &Act<'_, L>) -> Option<(usize, u32)> {
    let t = &act.state.threads[act.index];
    let slot = act.state.find_slot(act.machine, t.entry_slot)?;
    let inside = t.entry_offset.0 < u64::from(act.machine.slots[slot].npages);
    inside.then_some((slot, t.entry_offset.0 as u32))
}
