//! How many bits each field of a machine's states has.

use alloc::vec::Vec;

use super::independence::ring_cannot_overflow;
use crate::machine::{Machine, SlotTemplate};
use crate::mutated::declared;
use crate::op::{Op, locks};
use crate::state::State;
use crate::state::fields::{Measure, Size};
use crate::state::layout::Layout;
use crate::words::{Counts, Fields, Mutation, Rule};

/// Bits by what they measure, and what a normal form has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Widths {
    of: [u32; Measure::COUNT],
    /// A mutation may read what is dead otherwise, and count where counts are equal otherwise.
    pub(super) mutated: bool,
    /// What free ring entries named is kept.
    pub(super) revive: bool,
    /// Reports are judged, so that an access which nobody will make any more is read.
    pub(super) ghost: bool,
    /// Somebody reads why a vCPU left.
    pub(super) exits: bool,
    /// Somebody reads what an ioctl answered.
    pub(super) answers: bool,
}

/// Bits that hold the numbers up to `max`.
fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Whether a ring's indices are never farther apart than its size: nobody breaks its contract, no two threads harvest it at
/// once, and nothing is pushed to it when it is full. Else how far they run is told by nothing but how long they run.
fn indices_keep_together(machine: &Machine) -> bool {
    let mut ops = machine.ops();
    machine.mutations.is_empty()
        && ring_cannot_overflow(machine)
        && !ops.any(|op| op.facts(machine).abuses)
        && harvests_exclude_each_other(machine)
}

/// Whether no two threads can harvest at once. Nothing else moves user space's index, whatever a row takes in with all of a vCPU.
#[must_use]
pub fn harvests_exclude_each_other(machine: &Machine) -> bool {
    locks::exclude_each_other(machine, |op| matches!(op, Op::Harvest(_)))
}

/// Whether what a free ring entry named, or the first page in one that was never filled, can come to be reset: by a wrong behaviour that
/// lets rings go out of turn, by a harvest that takes an entry too many, or by two of which one gives back what the other has passed.
pub(super) fn entries_revive(machine: &Machine) -> bool {
    let mut ops = machine.ops();
    // That rings go by the contract is the ground of this rule.
    !declared::leaves_rule(machine, Rule::HarvestEntry)
        || ops.any(|op| op.facts(machine).revives)
        || !harvests_exclude_each_other(machine)
}

impl Widths {
    /// Those of the states that are reachable from `template`, whose set-up is done.
    pub(super) fn new<L: Layout>(machine: &Machine, template: &State<L>) -> Self {
        let ops = machine.ops();
        let (reads, writes) = ops.fold((Fields::NONE, Fields::NONE), |(reads, writes), op| {
            let (r, w) = op.touches(machine);
            (reads | r, writes | w)
        });
        let mutated = !machine.mutations.is_empty();
        let rings = template.vcpus.iter().map(|vcpu| vcpu.ring.size());
        let ring_entries = u64::from(rings.max().unwrap_or(0));
        let longest_list = machine.frame_lists.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let most = |of: fn(&SlotTemplate) -> u64| machine.slots.iter().map(of).max().unwrap_or(0);
        let npages = most(|slot| u64::from(slot.npages)).max(1);
        let words = npages.div_ceil(u64::from(machine.constants.word_bits));
        // Only a mutation can set a bit in the padding between a slot's last page and its last word's end.
        let used = most(|slot| u64::from(slot.frame.0.max(slot.host.0) + slot.npages)) as u32;
        let frames = if mutated { machine.pages() } else { used }.clamp(1, 64);
        let budgets = machine
            .vcpus
            .iter()
            .flat_map(|v| [v.stores, v.loads, v.steal]);
        let budgets = budgets.chain(machine.devices.iter().map(|device| device.transfers));
        let most_budget = budgets.chain([machine.send_failures]).max().unwrap_or(0);
        let budget = bits_for(u64::from(most_budget));
        let frame_index = bits_for(u64::from(machine.frames()));
        let slot_id = bits_for(most(|slot| u64::from(slot.id)));
        let slot_space = bits_for(most(|slot| u64::from(slot.as_id)));
        let offset = bits_for(npages - 1);
        let vcpus = template.vcpus.len() as u64;
        let ring_index = if indices_keep_together(machine) {
            bits_for(ring_entries) + 2
        } else {
            u32::BITS
        };
        let reset_batch = machine
            .constants
            .reset_batch_pages
            .min(64)
            .min(npages as u32);
        let touched = |fields: Fields| reads.has(fields) || writes.has(fields);
        let logs = touched(Fields::OWN_LOG) || machine.devices.iter().any(|device| device.vmm_log);
        let loads = machine.vcpus.iter().any(|vcpu| vcpu.loads > 0);
        let steals = machine.vcpus.iter().any(|vcpu| vcpu.steal > 0);
        let ops = machine.ops();
        let counts = ops.map(|op| match op.facts(machine).counts {
            // A mutation may ask for more than the right operation.
            _ if mutated => u32::BITS,
            Counts::Exactly => u32::BITS,
            Counts::UpTo(most) => bits_for(u64::from(most)),
            Counts::Whether | Counts::Never => 1,
        });
        let count = counts.max().unwrap_or(1).max(1);
        let (slots_change, sets_up) = (writes.has(Fields::SLOTS), writes.has(Fields::CAPS));
        let resets = writes.has(Fields::RESET_INDEX);
        let when = |yes: bool, width: u32| if yes { width } else { 0 };
        let width = |measure: Measure| match measure {
            Measure::Frames => frames,
            Measure::DirtySet => when(machine.has_dirty_bits(), frames),
            Measure::HugeSet => when(machine.slots.iter().any(|slot| slot.huge), frames),
            Measure::SeenSet => when(reads.has(Fields::SEEN) || machine.track_spurious, frames),
            Measure::SentSet => when(machine.track_sent, frames),
            Measure::OwnLogSet => when(logs, frames),
            Measure::GhostSet => when(machine.track_spurious, frames),
            Measure::HandSet => when(touched(Fields::HAND), frames),
            Measure::FrameIndex => frame_index,
            Measure::SlotId => slot_id,
            Measure::SlotSpace => slot_space,
            Measure::Offset => offset,
            Measure::SlotLife => when(slots_change, 2),
            Measure::SlotFlag => when(slots_change, 1),
            Measure::SlotPlace => when(
                slots_change,
                bits_for(most(|slot| slot.places.len() as u64)),
            ),
            Measure::Budget => budget,
            Measure::Loads => when(loads, budget),
            Measure::LoadFlag => when(loads, 1),
            Measure::Steal => when(steals, budget),
            Measure::RecordDue => when(steals, 1),
            Measure::Failures => when(machine.send_failures > 0, budget),
            Measure::Locks => when(writes.has(Fields::USER_LOCKS), 8),
            Measure::Signals => when(writes.has(Fields::SIGNALS), 8),
            Measure::RingEntries => when(sets_up, 17),
            Measure::CapFlag => when(sets_up, 1),
            Measure::ManualBits => when(sets_up, 2),
            Measure::Op => {
                let most = machine.code.as_ref().map(|code| usize::from(code.most));
                let longest = machine.programs.iter().map(Vec::len).chain(most).max();
                bits_for(longest.unwrap_or(0) as u64)
            }
            Measure::Index => bits_for(
                longest_list
                    .max(words)
                    .max(machine.slots.len() as u64)
                    .max(vcpus),
            ),
            Measure::Count => count,
            Measure::RingIndex => ring_index,
            Measure::RingPlace => when(machine.mutations.has(Mutation::RingMapShort), ring_index),
            Measure::BatchMask => when(resets, reset_batch),
            Measure::BatchId => when(resets, slot_id),
            Measure::BatchSpace => when(resets, slot_space),
            Measure::BatchOffset => when(resets, offset),
            Measure::PmlLen => when(
                machine.pml,
                bits_for(u64::from(machine.constants.pml_entries)),
            ),
            Measure::PmlFrame => when(machine.pml, frame_index),
            Measure::PmlFlag => when(machine.pml, 1),
            Measure::Told => when(
                machine.code.is_some(),
                bits_for(ring_entries * vcpus.max(1)),
            ),
        };
        let mut of = [0; Measure::COUNT];
        for measure in Measure::ALL {
            of[*measure as usize] = width(*measure);
        }
        Self {
            of,
            mutated,
            revive: entries_revive(machine),
            ghost: machine.track_spurious,
            exits: reads.has(Fields::EXIT),
            answers: reads.has(Fields::ANSWER),
        }
    }

    /// Those of a measure.
    #[inline(always)]
    pub(super) fn of(&self, measure: Measure) -> u32 {
        self.of[measure as usize]
    }

    /// Those of a field.
    #[inline(always)]
    pub(super) fn size(&self, size: Size) -> u32 {
        match size {
            Size::Bits(bits) => bits,
            Size::Of(measure) => self.of(measure),
        }
    }
}
