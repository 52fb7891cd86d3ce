//! Any number of pages: one page is tracked, and the others may be anything at every moment.
//!
//! The machine has few pages: the tracked one, one below and one above it in its word of the bitmap and in its RESET batch, and one that is
//! far from it in both. What a state says of the others is forgotten after every step (`others`), and whatever it could say is tried
//! before the next one, as far as that step looks at it (`argued`, a row for each operation). So a state stands for all that agree with it
//! about the tracked page, on machines with any number of pages, and what no such state breaks, no machine breaks: `docs/proofs.md` has the
//! argument, step by step. The transition function and the oracle are those of every search; nothing is said a second time.
//!
//! States are kept whole here, so that none is taken for another.
//!
//! What is broken in such a state need not be broken anywhere: it is looked for on machines of a few pages.

mod argued;
mod explore;
mod instance;
mod known;
pub(super) mod others;

use dirtysim_model::machine::Machine;
use dirtysim_model::op::{Op, ahead::look_ahead};
use dirtysim_model::oracle::Invariants;
use dirtysim_model::words::Frame;

use explore::Explorer;
use others::Tried;

use super::bounds::Bounds;
use super::limits::Limits;
use super::{Coverage, Limit, Options, Reduced, Report, TooLarge, Verdict, Watch};
use crate::ladder::small;
use crate::scenario::Scenario;
use crate::scenario::meant::{Meant, Wanted, Which};
use crate::sometimes::{Seen, no_claim};

pub(crate) use super::part::{ANY_PART, OTHER_PART, OWN_PART, PAGES, Part, WORD_BITS};
pub(crate) use argued::{not_argued, page_of, stands_in_the_way};
pub(crate) use instance::with_pages;

/// Pages of a RESET batch: the page below, the tracked one and the one above fit into one, and with the far one none does.
pub(crate) const BATCH_PAGES: u32 = 3;

/// The page that is tracked: its place in its memslot, which of a machine's first memslot is its frame.
pub(crate) const TRACKED: Frame = Frame(1);
/// The one below it.
pub(super) const BELOW: Frame = Frame(0);
/// The one above it.
pub(super) const ABOVE: Frame = Frame(2);
/// One that is in another word, and in no batch with any of these. It stands for any other page where only one is named; in every other
/// memslot for all of that.
pub(crate) const FAR: Frame = Frame(5);

/// A run of such states that ends in a broken claim, and that no machine of few pages has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What is broken there.
    pub broken: Invariants,
    /// Its steps, in words.
    pub run: Vec<String>,
    /// The most pages of a machine that was searched to its end for it.
    pub searched: u64,
}

/// Searches a scenario with any number of pages. Blocks until it is done or `watch` says that it is enough.
///
/// # Errors
/// A scenario whose states are larger than the search has room for.
pub(super) fn check(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, TooLarge> {
    match abstracted(scenario, options, watch)? {
        (report, None) => Ok(report),
        (report, Some((broken, run))) => {
            instance::look_for(scenario, broken, run, report, options, watch)
        }
    }
}

/// What breaks a claim where the others may be anything, and the run that leads there, in words.
pub(super) type Broken = (Invariants, Vec<String>);

/// As [`check`]; what is broken in the abstraction is not looked for on machines of few pages.
pub(super) fn abstracted(
    scenario: &Scenario,
    options: &Options,
    watch: Watch<'_>,
) -> Result<(Report, Option<Broken>), TooLarge> {
    let bounds = Bounds::of(scenario);
    let mut report = Report {
        verdict: Verdict::Inconclusive,
        coverage: Coverage::Exhausted,
        states: 0,
        transitions: 0,
        depth: 0,
        violation: None,
        broken: Invariants::NONE,
        seen: Seen::default(),
        refused: Default::default(),
        // States are kept whole.
        collision_probability: 0.0,
        reduced: Reduced::default(),
        state_bits: 0,
        peak_bytes: 0,
        bounds,
        instance: None,
        unconfirmed: None,
        own_numbers: None,
    };
    let limits = Limits::new(options, watch);
    let mut limit: Option<Limit> = None;
    for Variant { machine, slot } in variants(&scenario.machine, &scenario.meant) {
        let tried = Tried { slot, ..Tried::ALL };
        let start = explore::begin(&machine, slot, small(scenario)?);
        let left = limits.after(report.states);
        let wanted = options.reductions;
        let explorer = Explorer::new(&machine, &start, tried, wanted, left);
        let explored = explorer.explore().0;
        report.states += explored.states;
        report.transitions += explored.transitions;
        report.depth = report.depth.max(explored.depth);
        report.seen.union(explored.seen);
        report.reduced.vcpus |= explored.exchanges_vcpus;
        report.reduced.rules = explored.rules;
        report.state_bits = explored.state_bits;
        report.peak_bytes = report.peak_bytes.max(explored.peak_bytes);
        report.refused.extend(explored.refused);
        limit = limit.or(explored.limit);
        if explored.found.is_some() {
            return Ok((report, explored.found));
        }
        if limit.is_some() {
            break;
        }
    }
    report.coverage = limit.map_or(Coverage::Exhausted, Coverage::Truncated);
    let mutated = !scenario.machine.mutations().is_empty();
    // Nothing is argued for a wrong kernel: that its states break nothing says nothing.
    if limit.is_none() && !mutated && no_claim(&scenario.machine, report.seen).is_none() {
        report.verdict = Verdict::Holds;
        if report.bounds.prove() {
            report.coverage = Coverage::Proved;
        }
    }
    Ok((report, None))
}

/// A machine, and the memslot in which a page of it is tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) machine: Machine,
    pub(super) slot: usize,
}

/// The frame of a place in a memslot.
pub(super) fn frame_in(machine: &Machine, slot: usize, place: Frame) -> Frame {
    machine.slots[slot].frame + place.0
}

/// The machines in which the tracked page lies in each memslot in turn, and is, or is not, what is meant by a list, of a kind, and in a
/// part that a CLEAR is given: all of them first, none last.
pub(super) fn variants(machine: &Machine, meant: &Meant) -> Vec<Variant> {
    let mut all = Vec::new();
    for slot in 0..machine.slots.len() {
        for bits in (0..1 << Choices::of(machine, meant, slot)).rev() {
            let machine = Choices::new(meant, slot, bits).made(machine);
            let variant = Variant { machine, slot };
            // A kind that is of other memslots alone makes no difference.
            if !all.contains(&variant) {
                all.push(variant);
            }
        }
    }
    all
}

/// How many times the tracked page is, or is not, what a text says.
fn choices_of(machine: &Machine, meant: &Meant) -> usize {
    let slots = 0..machine.slots.len();
    let each = slots.map(|slot| Choices::of(machine, meant, slot));
    each.max().unwrap_or(0)
}

/// What the tracked page of a memslot is: a bit for each kind of pages, then one each time that a text says `any`.
struct Choices<'a> {
    meant: &'a Meant,
    slot: usize,
    bits: u32,
    next: usize,
}

impl<'a> Choices<'a> {
    fn new(meant: &'a Meant, slot: usize, bits: u32) -> Self {
        Self {
            meant,
            slot,
            bits,
            next: meant.kinds.len(),
        }
    }

    /// How many there are.
    fn of(machine: &Machine, meant: &'a Meant, slot: usize) -> usize {
        let mut choices = Choices::new(meant, slot, 0);
        choices.made(machine);
        choices.next
    }

    fn is_so(&mut self) -> bool {
        self.next += 1;
        self.bits.checked_shr(self.next as u32 - 1).unwrap_or(0) & 1 != 0
    }

    /// Whether the tracked page is among what is meant.
    fn has(&mut self, wanted: &[Wanted]) -> bool {
        let mut has = false;
        for wanted in wanted {
            if wanted.slot.is_none_or(|slot| slot == self.slot) {
                has |= match wanted.which {
                    Which::All => true,
                    Which::Any => self.is_so(),
                    Which::Kind(kind) => self.bits >> kind & 1 != 0,
                };
            }
        }
        has
    }

    /// What is meant: the tracked page, if it is among that, and what stands for the others.
    fn frames(&mut self, machine: &Machine, wanted: &[Wanted]) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.has(wanted) {
            frames.push(frame_in(machine, self.slot, TRACKED));
        }
        for slot in 0..machine.slots.len() {
            if wanted
                .iter()
                .any(|wanted| wanted.slot.is_none_or(|of| of == slot))
            {
                frames.push(frame_in(machine, slot, FAR));
            }
        }
        frames
    }

    /// Where one page is meant: the tracked page, if it is that, or what stands for another.
    fn frame(&mut self, machine: &Machine, wanted: Wanted) -> Frame {
        self.frames(machine, &[wanted])[0]
    }

    /// The machine.
    fn made(&mut self, of: &Machine) -> Machine {
        let mut machine = of.clone();
        let meant = self.meant;
        for (&(thread, place), wanted) in &meant.ops {
            if let Some(frame) = page_of(&mut machine.programs[thread][place]) {
                *frame = self.frame(of, *wanted);
            }
        }
        for (list, wanted) in machine.frame_lists.iter_mut().zip(&meant.lists) {
            if !wanted.is_empty() {
                // Others take its place.
                list.clear();
            }
        }
        for program in &mut machine.programs {
            for op in program {
                let list = match op {
                    Op::KernelWrite(op) => &mut op.frames,
                    Op::MarkOwn(op) => &mut op.frames,
                    Op::DropFree(op) => &mut op.frames,
                    Op::EndFree(op) => &mut op.frames,
                    Op::ClearDirtyLog(op) => {
                        if (op.first_page as u32, op.num_pages) == (ANY_PART.first, ANY_PART.pages)
                        {
                            let part = if self.is_so() { OWN_PART } else { OTHER_PART };
                            (op.first_page, op.num_pages) = (u64::from(part.first), part.pages);
                        }
                        continue;
                    }
                    _ => continue,
                };
                // One page at a time is written, and what becomes of others is nothing that is kept.
                let mut frames = self.frames(of, &meant.lists[usize::from(*list)]);
                frames.truncate(1);
                let lists = &mut machine.frame_lists;
                lists.push(frames);
                *list = (lists.len() - 1) as u16;
            }
        }
        for (vcpu, wanted) in machine.vcpus.iter_mut().zip(&meant.vcpus) {
            if !wanted.is_empty() {
                vcpu.frames = self.frames(of, wanted);
            }
        }
        for (vcpu, wanted) in machine.vcpus.iter_mut().zip(&meant.records) {
            if let Some(wanted) = wanted {
                vcpu.steal_frame = self.frame(of, *wanted);
            }
        }
        for (device, wanted) in machine.devices.iter_mut().zip(&meant.devices) {
            device.frames = self.frames(of, wanted);
        }
        let always = self.frames(of, &meant.always_dirty).into_iter();
        machine.always_dirty = always.map(|frame| machine.host_page(frame)).collect();
        look_ahead(&mut machine);
        machine
    }
}

#[cfg(test)]
mod tests;
